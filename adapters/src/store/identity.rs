//! Whose files these are, and in which format they are written.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Owner, StoreError};

/// The newest format of the files that this version reads, and the one that it writes.
pub const FORMAT_VERSION: u32 = 1;

/// Whose files these are. Every file of the folder carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) format_version: u32,
    pub(crate) cluster_id: String,
    pub(crate) node_id: u64,
    /// Made new with the folder, so that files of two folders of the same node cannot be mixed.
    pub(crate) instance: String,
}

impl Identity {
    pub(crate) fn fresh(owner: &Owner) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            cluster_id: owner.cluster_id.clone(),
            node_id: owner.node_id,
            instance: uuid::Uuid::new_v4().to_string(),
        }
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner { cluster_id: self.cluster_id.clone(), node_id: self.node_id }
    }

    /// Refuses a file that this version cannot read or that is not `owner`'s.
    pub(crate) fn check_owner(&self, path: &Path, owner: &Owner) -> Result<(), StoreError> {
        check_format(path, self.format_version)?;
        if self.owner() != *owner {
            return Err(StoreError::Foreign { path: path.to_path_buf(), found: self.owner(), expected: owner.clone() });
        }
        Ok(())
    }

    /// Refuses a file that this version cannot read or that is not of the same cluster.
    pub(crate) fn check_cluster(&self, path: &Path, owner: &Owner) -> Result<(), StoreError> {
        let same_node = Owner { node_id: self.node_id, ..owner.clone() };
        self.check_owner(path, &same_node).map_err(|error| match error {
            StoreError::Foreign { path, found, .. } => StoreError::Foreign { path, found, expected: owner.clone() },
            other => other,
        })
    }

    /// Refuses a file of another life of this folder as well.
    pub(crate) fn check_same(&self, path: &Path, folder: &Self) -> Result<(), StoreError> {
        self.check_owner(path, &folder.owner())?;
        if self.instance != folder.instance {
            return Err(StoreError::OtherInstance {
                path: path.to_path_buf(),
                found: self.instance.clone(),
                expected: folder.instance.clone(),
            });
        }
        Ok(())
    }
}

pub(crate) fn check_format(path: &Path, found: u32) -> Result<(), StoreError> {
    if found > FORMAT_VERSION {
        return Err(StoreError::NewerFormat { path: path.to_path_buf(), found, supported: FORMAT_VERSION });
    }
    Ok(())
}
