//! Where runs lie: the last one that went well, and a few that did not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::cluster::Folder;

const PREFIX: &str = "run-";
/// Left in the folder of a run that found nothing.
const CLEAN: &str = "clean";
/// Runs that found something and are kept, the newest.
const KEPT: usize = 4;

/// Makes room beside `report` for the run of `seed`: of earlier runs only the newest that found something stay.
///
/// # Errors
/// Something cannot be removed or made.
pub fn make(report: &Path, seed: u64) -> Result<Folder> {
    let parent = report.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let mut earlier: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(parent)?.flatten() {
        let is_run = entry.file_name().to_string_lossy().starts_with(PREFIX);
        if is_run && entry.path().is_dir() {
            earlier.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    earlier.sort();
    let failed = earlier.iter().filter(|(_, path)| !path.join(CLEAN).exists()).count();
    let mut too_many = failed.saturating_sub(KEPT);
    for (_, path) in earlier {
        let clean = path.join(CLEAN).exists();
        if clean || too_many > 0 {
            too_many -= usize::from(!clean);
            fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Folder::named(&parent.join(format!("{PREFIX}{seed}")))
}

/// The run found nothing: its folder goes when the next run begins.
///
/// # Errors
/// The folder is gone.
pub fn mark_clean(folder: &Path) -> Result<()> {
    fs::write(folder.join(CLEAN), "").with_context(|| format!("cannot write into {}", folder.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn clean_runs_go_and_few_failed_ones_stay() {
        let parent = tempfile::tempdir().unwrap();
        let report = parent.path().join("report.json");
        let clean = make(&report, 1).unwrap().path().to_path_buf();
        mark_clean(&clean).unwrap();
        for seed in 2..9 {
            make(&report, seed).unwrap();
            assert!(!clean.exists());
        }
        let left = fs::read_dir(parent.path()).unwrap().count();
        assert_eq!(left, KEPT + 1, "the present one comes on top");
    }
}
