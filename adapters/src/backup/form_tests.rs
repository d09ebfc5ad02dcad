#![allow(clippy::unwrap_used, clippy::panic)]

use tempfile::TempDir;

use super::*;
use crate::backup::BackupWriter;
use crate::store::sqlite::{DataFolder, SqliteState};
use crate::store::{Owner, RowBatch, RowChange, StateStore};

/// A small backup of a real state, and the path of its file.
fn small() -> (TempDir, PathBuf) {
    let at = TempDir::new().unwrap();
    let owner = Owner { cluster_id: "demo".to_owned(), node_id: 2 };
    let folder = DataFolder::open(&at.path().join("data"), &owner).unwrap();
    let state = SqliteState::open(&folder).unwrap();
    let row = RowChange { table: 1, key: b"key".to_vec(), value: Some(b"value".to_vec()) };
    state.write(&RowBatch { marker: b"here".to_vec(), rows: vec![row] }).unwrap();
    let copy = state.copy().unwrap().unwrap();
    let path = at.path().join("small.backup");
    let content = fs::read(&copy.path).unwrap();
    write(&path, &header(content.len()), &content).unwrap();
    (at, path)
}

fn header(size: usize) -> Header {
    Header {
        cluster_id: "demo".to_owned(),
        node_id: 2,
        index: 41,
        term: 3,
        state_hash: [9; 32],
        size_bytes: size as u64,
        made_unix_ms: 1_764_459_663_000,
        version: "0.1.0".to_owned(),
    }
}

fn write(path: &Path, header: &Header, content: &[u8]) -> Result<(), BackupError> {
    let mut writer = BackupWriter::begin(path, header)?;
    for chunk in content.chunks(1_000) {
        writer.write(chunk)?;
    }
    writer.finish(&sha256::Hash::hash(content).to_byte_array())?.publish(path, false)
}

/// Everything that is done to a backup before it is believed.
fn read(path: &Path) -> Result<(Header, StateCopy), BackupError> {
    let folder = TempDir::new().unwrap();
    let mut backup = Backup::open(path)?;
    let content = backup.extract(folder.path(), &mut |_| {})?;
    let copy = content.rows(&mut |_| Ok(()))?;
    Ok((backup.header().clone(), copy))
}

#[test]
fn a_backup_comes_back_as_it_was() {
    let (at, path) = small();
    let (found, copy) = read(&path).unwrap();
    let size = fs::metadata(&path).unwrap().len();
    assert_eq!(found, header(usize::try_from(found.size_bytes).unwrap()));
    assert!(found.size_bytes < size);
    assert_eq!(copy.marker, b"here");
    assert_eq!(copy.owner, Owner { cluster_id: "demo".to_owned(), node_id: 2 });
    let left: Vec<_> = fs::read_dir(at.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "the data folder and the backup: {left:?}");
}

/// The promise of the form: every byte, each of its own.
#[test]
fn one_flipped_byte_anywhere_is_refused_and_its_part_is_named() {
    let (_at, path) = small();
    let good = fs::read(&path).unwrap();
    let content_at = usize::try_from(Backup::open(&path).unwrap().content_at).unwrap();
    let end_at = good.len() - END_BYTES;
    let mut bytes = good.clone();
    for at in 0..good.len() {
        bytes[at] ^= 0x40;
        fs::write(&path, &bytes).unwrap();
        bytes[at] = good[at];
        let expected = match at {
            _ if at < BEGINNING_BYTES => Part::Beginning,
            _ if at < content_at => Part::Header,
            _ if at < end_at => Part::Content,
            _ => Part::End,
        };
        let found = Backup::open(&path).and_then(|mut backup| backup.check(&mut |_| {}));
        match found {
            Err(BackupError::Damaged { part, path: named, .. }) => {
                assert_eq!((part, &named), (expected, &path), "byte {at}");
            }
            other => panic!("byte {at}: {other:?}"),
        }
    }
}

#[test]
fn a_file_that_ends_early_or_goes_on_is_refused() {
    let (_at, path) = small();
    let good = fs::read(&path).unwrap();
    let mut lengths: Vec<usize> = (0..400).chain((good.len() - 100)..good.len()).collect();
    lengths.push(good.len() / 2);
    for length in lengths {
        fs::write(&path, &good[..length]).unwrap();
        let error = Backup::open(&path).map(drop).unwrap_err();
        assert!(matches!(error, BackupError::Damaged { .. }), "{length} bytes: {error}");
        assert!(error.to_string().contains("small.backup"), "{error}");
    }
    fs::write(&path, [&good[..], b"x"].concat()).unwrap();
    let error = Backup::open(&path).map(drop).unwrap_err();
    assert!(error.to_string().contains("bytes follow"), "{error}");
}

#[test]
fn another_form_is_told_from_damage() {
    let (_at, path) = small();
    let mut bytes = fs::read(&path).unwrap();
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[..BEGINNING_BYTES].copy_from_slice(&form::beginning(2, length));
    fs::write(&path, &bytes).unwrap();
    let error = Backup::open(&path).map(drop).unwrap_err();
    assert!(matches!(error, BackupError::OtherForm { found: 2, supported: 1, .. }), "{error}");
    for other in [&b""[..], b"PK", b"SQLite format 3\0 and then a hundred more bytes of something else entirely"] {
        fs::write(&path, other).unwrap();
        let error = Backup::open(&path).map(drop).unwrap_err();
        assert!(matches!(error, BackupError::Damaged { part: Part::Beginning, .. }), "{error}");
    }
}

/// The header is right, and its sums; the content is no state.
#[test]
fn content_that_is_no_state_is_refused_by_the_backups_name() {
    let at = TempDir::new().unwrap();
    let path = at.path().join("odd.backup");
    let content = b"no database at all".repeat(20);
    write(&path, &header(content.len()), &content).unwrap();
    let error = read(&path).unwrap_err();
    assert!(matches!(error, BackupError::Content { .. }), "{error}");
    assert!(error.to_string().contains("odd.backup"), "{error}");
}

#[test]
fn nothing_is_overwritten_that_was_not_meant_to_be() {
    let (at, path) = small();
    let before = fs::read(&path).unwrap();
    let refused = write(&path, &header(3), b"new").unwrap_err();
    assert!(matches!(refused, BackupError::Exists { .. }), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), before);
    let first = BackupWriter::begin(&path, &header(3)).unwrap();
    assert!(matches!(BackupWriter::begin(&path, &header(3)), Err(BackupError::InUse { .. })));
    drop(first);
    let mut writer = BackupWriter::begin(&path, &header(3)).unwrap();
    writer.write(b"new").unwrap();
    let sum = sha256::Hash::hash(b"new").to_byte_array();
    writer.finish(&sum).unwrap().publish(&path, true).unwrap();
    assert_ne!(fs::read(&path).unwrap(), before);
    assert!(!at.path().join("small.backup.partial").exists());
}

#[test]
fn what_a_source_sends_wrongly_never_gets_a_name() {
    let at = TempDir::new().unwrap();
    let path = at.path().join("new.backup");
    let sum = sha256::Hash::hash(b"abc").to_byte_array();
    for (sent, sum) in [(&b"ab"[..], sum), (b"abd", sum), (b"abc", [0; 32])] {
        let mut writer = BackupWriter::begin(&path, &header(3)).unwrap();
        writer.write(sent).unwrap();
        let error = writer.finish(&sum).map(drop).unwrap_err();
        assert!(matches!(error, BackupError::Damaged { part: Part::Content, .. }), "{error}");
    }
    let mut writer = BackupWriter::begin(&path, &header(3)).unwrap();
    assert!(writer.write(b"abcd").is_err());
    drop(writer);
    assert_eq!(fs::read_dir(at.path()).unwrap().count(), 0);
}
