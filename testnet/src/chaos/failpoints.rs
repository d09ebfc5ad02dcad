//! The faults that a node makes up by itself: what is written into the file that it reads them from.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

/// As the node reads it; see `adapters/src/failpoints.rs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Failpoints {
    /// Every commit of a database takes so much longer.
    pub fsync_delay_ms: u64,
    /// Every commit of a database fails.
    pub fsync_error: bool,
    /// There is no room for any commit of a database.
    pub disk_full: bool,
    /// No commit of a database may write.
    pub disk_read_only: bool,
    /// The disk says that so much room is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_free_bytes: Option<u64>,
    /// The node waits so long between an intent and the call of the signer.
    pub sign_pause_ms: u64,
    /// The node waits there until this is no longer set.
    pub sign_held: bool,
    /// So many of a hundred requests that the node has answered as leader end with INTERNAL all the same.
    pub internal_percent: u64,
    /// The wall clock is wrong by so much.
    pub wall_offset_ms: i64,
    /// The node takes itself for a version that knows this feature level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature_level: Option<u32>,
}

/// One node's file.
#[derive(Debug)]
pub struct ControlFile {
    path: PathBuf,
    now: Failpoints,
}

impl ControlFile {
    /// Of a node that has no faults.
    pub fn new(path: PathBuf) -> Self {
        Self { path, now: Failpoints::default() }
    }

    /// Changes some of the faults and leaves the others.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn change(&mut self, change: impl FnOnce(&mut Failpoints)) -> Result<()> {
        change(&mut self.now);
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec(&self.now)?)
            .and_then(|()| fs::rename(&new, &self.path))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_change_leaves_the_other_faults_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("failpoints.json");
        let mut file = ControlFile::new(path.clone());
        file.change(|now| now.fsync_delay_ms = 7).unwrap();
        file.change(|now| now.wall_offset_ms = -5).unwrap();
        let text = concat!(
            r#"{"fsync_delay_ms":7,"fsync_error":false,"disk_full":false,"disk_read_only":false,"#,
            r#""sign_pause_ms":0,"sign_held":false,"internal_percent":0,"wall_offset_ms":-5}"#
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}
