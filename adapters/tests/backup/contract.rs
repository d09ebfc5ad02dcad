//! What every depot must do. A new one calls [`check`] with a driver.

use std::fs;

use onespend_adapters::backup::{BackupError, Part, superfluous};

use crate::driver::{Driver, Specimen, varied};

/// What a node of the specimen's cluster begins its names with.
const OWN: &str = "onespend-demo-n1-";

/// The suite. Each part has a depot of its own.
pub fn check<D: Driver>(mut make: impl FnMut() -> D) {
    what_is_stored_is_listed_opened_and_removed(&make());
    it_comes_back_byte_for_byte(&make());
    nothing_is_overwritten(&make());
    a_copy_that_is_not_what_was_made_leaves_nothing(&make());
    what_an_interrupted_one_left_is_not_listed_and_goes(&make());
    one_flipped_byte_is_refused_and_its_part_is_named(&make());
    what_ends_early_or_goes_on_is_refused(&make());
    the_oldest_go(&make());
    a_place_that_is_not_there_is_not_made(&make());
}

fn what_is_stored_is_listed_opened_and_removed(driver: &dyn Driver) {
    let depot = driver.depot();
    assert!(depot.list().unwrap().is_empty());
    driver.put("broken.backup", b"stays, and is named");
    driver.put("empty.backup", b"");
    driver.put("else.txt", b"not listed");
    let (first, second) = (Specimen::of(b"content", 1), Specimen::of(b"content", 2));
    let names = [first.store(&*depot).unwrap(), second.store(&*depot).unwrap()];
    let listed = depot.list().unwrap();
    let found: Vec<&str> = listed.iter().map(|kept| kept.name.as_str()).collect();
    assert_eq!(found, ["broken.backup", "empty.backup", &names[0], &names[1]]);
    for broken in &listed[..2] {
        let error = broken.header.as_ref().unwrap_err().to_string();
        assert!(error.contains("damaged in its beginning") && error.contains(&driver.shown(&broken.name)), "{error}");
    }
    assert_eq!(listed[3].header.as_ref().unwrap(), &second.header);
    assert_eq!(listed[3].size_bytes, driver.get(&names[1]).len() as u64);
    let opened = depot.open(&names[0]).unwrap();
    assert_eq!((opened.header(), opened.path().to_str().unwrap()), (&first.header, &*driver.shown(&names[0])));
    depot.remove(&names[0]).unwrap();
    assert!(depot.open(&names[0]).unwrap_err().to_string().contains(&driver.shown(&names[0])));
    assert_eq!(driver.names(), ["broken.backup", "else.txt", "empty.backup", &names[1]]);
}

fn it_comes_back_byte_for_byte(driver: &dyn Driver) {
    let content = varied(700_000);
    let specimen = Specimen::of(&content, 3);
    let name = specimen.store(&*driver.depot()).unwrap();
    let (scratch, mut told) = (tempfile::tempdir().unwrap(), Vec::new());
    let mut backup = driver.depot().open(&name).unwrap();
    let extracted = backup.extract(scratch.path(), &mut |read| told.push(read)).unwrap();
    let files: Vec<_> = fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(fs::read(&files[0]).unwrap(), content);
    assert!(told.is_sorted() && told.last() == Some(&700_000) && told.len() > 1, "progress: {told:?}");
    drop(extracted);
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

fn nothing_is_overwritten(driver: &dyn Driver) {
    let (depot, specimen) = (driver.depot(), Specimen::of(b"content", 2));
    let name = specimen.store(&*depot).unwrap();
    let before = driver.get(&name);
    let refused = specimen.store(&*depot).unwrap_err();
    assert!(matches!(refused, BackupError::Exists { .. }), "{refused}");
    assert!(refused.to_string().contains(&driver.shown(&name)), "{refused}");
    assert_eq!((driver.get(&name), driver.names().len()), (before, 1));
}

fn a_copy_that_is_not_what_was_made_leaves_nothing(driver: &dyn Driver) {
    for wrong in ["contend", "conten", "content, and more"] {
        let specimen = Specimen::of(b"content", 1);
        fs::write(&specimen.file, wrong).unwrap();
        let refused = specimen.store(&*driver.depot()).unwrap_err();
        assert!(matches!(refused, BackupError::Damaged { part: Part::Content, .. }), "{wrong}: {refused}");
        assert!(driver.names().is_empty(), "{wrong}: {:?}", driver.names());
    }
    let specimen = Specimen::of(b"content", 1);
    fs::remove_file(&specimen.file).unwrap();
    assert!(specimen.store(&*driver.depot()).is_err());
    assert!(driver.names().is_empty(), "{:?}", driver.names());
}

fn what_an_interrupted_one_left_is_not_listed_and_goes(driver: &dyn Driver) {
    let left = format!("{OWN}0000000000001-1.backup.partial");
    let foreign = ["somebody-elses.backup.partial", "onespend-demo-n2-0000000000001-1.backup.partial"];
    driver.put(&left, b"left by a crash");
    for name in foreign {
        driver.put(name, b"stays");
    }
    assert!(driver.depot().list().unwrap().is_empty());
    let name = Specimen::of(b"content", 2).store(&*driver.depot()).unwrap();
    let mut expected = [foreign[0], foreign[1], &name];
    expected.sort_unstable();
    assert_eq!(driver.names(), expected);
}

fn one_flipped_byte_is_refused_and_its_part_is_named(driver: &dyn Driver) {
    let depot = driver.depot();
    let name = Specimen::of(&varied(300_000), 4).store(&*depot).unwrap();
    let good = driver.get(&name);
    let places =
        [(3, Part::Beginning), (60, Part::Header), (good.len() / 2, Part::Content), (good.len() - 5, Part::End)];
    for (at, expected) in places {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        driver.put(&name, &bytes);
        let found = depot.open(&name).and_then(|mut backup| backup.check(&mut |_| {})).unwrap_err();
        let BackupError::Damaged { part, .. } = &found else { panic!("byte {at}: {found}") };
        assert_eq!(*part, expected, "byte {at}: {found}");
        assert!(found.to_string().contains(&driver.shown(&name)), "{found}");
    }
    driver.put(&name, &good);
    depot.open(&name).unwrap().check(&mut |_| {}).unwrap();
}

fn what_ends_early_or_goes_on_is_refused(driver: &dyn Driver) {
    let depot = driver.depot();
    let name = Specimen::of(&varied(300_000), 4).store(&*depot).unwrap();
    let good = driver.get(&name);
    for bytes in
        [&good[..10], &good[..100], &good[..good.len() / 2], &good[..good.len() - 1], &[&good[..], b"x"].concat()]
    {
        driver.put(&name, bytes);
        let found = depot.open(&name).map(drop).unwrap_err();
        assert!(matches!(found, BackupError::Damaged { .. }), "{} bytes: {found}", bytes.len());
        assert!(depot.list().unwrap()[0].header.is_err(), "{} bytes", bytes.len());
    }
}

fn the_oldest_go(driver: &dyn Driver) {
    let depot = driver.depot();
    let all: Vec<Specimen> = (1..=4).map(|at| Specimen::of(b"content", at)).collect();
    let names: Vec<String> = all.iter().map(|specimen| specimen.store(&*depot).unwrap()).collect();
    let kept = depot.list().unwrap();
    for old in superfluous(&kept, &all[3].header, 2) {
        depot.remove(old).unwrap();
    }
    assert_eq!(driver.names(), names[2..]);
}

fn a_place_that_is_not_there_is_not_made(driver: &dyn Driver) {
    let depot = driver.nowhere();
    for _ in 0..2 {
        assert!(depot.list().is_err());
        assert!(Specimen::of(b"content", 1).store(&*depot).is_err());
    }
}
