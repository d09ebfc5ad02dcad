//! A data folder is its owner's alone: what it holds names payments and addresses.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::succession::store_files;
use crate::store::StoreError;

/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Takes the folder, and the files of its stores, from everybody else: whoever made or copied them may have left them open.
pub(super) fn close_to_others(folder: &Path) -> Result<(), StoreError> {
    close(folder)?;
    store_files(folder)?.iter().try_for_each(|name| close(&folder.join(name)))
}

fn close(path: &Path) -> Result<(), StoreError> {
    let mode = fs::metadata(path).map_err(StoreError::io(path, "look at"))?.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS)).map_err(StoreError::io(path, "close to others"))
}
