//! The folder.

use std::fs;

use onespend_adapters::backup::{BackupDepot, FolderDepot};
use tempfile::TempDir;

use crate::contract;
use crate::driver::Driver;

struct Folder(TempDir);

impl Driver for Folder {
    fn depot(&self) -> Box<dyn BackupDepot> {
        Box::new(FolderDepot::new(self.0.path()))
    }

    fn nowhere(&self) -> Box<dyn BackupDepot> {
        Box::new(FolderDepot::new(&self.0.path().join("not-mounted")))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    fn get(&self, name: &str) -> Vec<u8> {
        fs::read(self.0.path().join(name)).unwrap()
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.0.path().join(name), bytes).unwrap();
    }

    fn shown(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }
}

#[test]
fn a_folder_keeps_what_the_port_promises() {
    contract::check(|| Folder(tempfile::tempdir().unwrap()));
}
