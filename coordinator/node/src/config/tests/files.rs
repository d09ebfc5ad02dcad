//! The files that a configuration names are looked at before a node starts.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::pki::{self, Kind};

/// A folder with certificates, keys and a configuration that is in order.
fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    pki::init(folder.path(), "demo").unwrap();
    for id in ["1", "2"] {
        pki::issue(folder.path(), Kind::Node, id, &[], 100).unwrap();
    }
    fs::write(folder.path().join("cookie"), "__cookie__:x").unwrap();
    let master = bitcoin::bip32::Xpriv::new_master(bitcoin::Network::Regtest, &[7; 32]).unwrap();
    fs::write(folder.path().join("hot.xprv"), format!("wpkh({master}/84h/1h/0h/<0;1>/*)")).unwrap();
    fs::set_permissions(folder.path().join("hot.xprv"), fs::Permissions::from_mode(0o600)).unwrap();
    let file = folder.path().join("onespend.toml");
    let signer = "[[signers]]\nname = \"hot\"\nkind = \"software\"\nfile = \"hot.xprv\"\n";
    fs::write(&file, format!("{SMALL}{signer}")).unwrap();
    (folder, file)
}

#[test]
fn a_file_whose_files_are_in_order_is_loaded_and_reported_as_such() {
    let (_folder, file) = folder();
    let config = Config::load_with(&file, &[]).unwrap();
    assert_eq!(config.warnings, []);
    let report = check(&file);
    assert_eq!((report.exit_code, report.lines.len()), (0, 0), "{report:?}");
}

#[test]
fn a_signers_memory_lies_in_the_data_folder_or_where_it_is_set() {
    let (_folder, file) = folder();
    let base = file.parent().unwrap();
    let config = Config::load_with(&file, &[]).unwrap();
    let memory = config.signers[0].memory_file(&config.node.data_dir);
    assert_eq!(memory, base.join("data/signer-hot.db"));
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.clone() + "memory = \"hot.db\"\n").unwrap();
    let config = Config::load_with(&file, &[]).unwrap();
    assert_eq!(config.signers[0].memory_file(&config.node.data_dir), base.join("hot.db"));
    fs::write(&file, text + "memory = \"missing/hot.db\"\n").unwrap();
    let faults = Config::load_with(&file, &[]).unwrap_err().to_string();
    assert!(faults.contains("signers[0].memory: ") && faults.contains("not a folder"), "{faults}");
    assert!(Config::load_text(&file).is_ok(), "which looks at no file");
}

/// What is done to the folder, and the complaint that follows.
type Damage = (&'static str, fn(&Path), &'static str, &'static str);

const DAMAGES: &[Damage] = &[
    ("no authority", |dir| fs::remove_file(dir.join("ca.pem")).unwrap(), "tls.ca", "No such file"),
    ("no key", |dir| fs::remove_file(dir.join("node-1.key")).unwrap(), "tls.key", "No such file"),
    ("open key", |dir| chmod(dir, "node-1.key", 0o644), "tls.key", "mode 0644"),
    ("open signer", |dir| chmod(dir, "hot.xprv", 0o640), "signers[0].file", "chmod 600"),
    ("no descriptor", |dir| fs::write(dir.join("hot.xprv"), "tprv8secret").unwrap(), "signers[0].file", "line 1"),
    ("no signer", |dir| fs::remove_file(dir.join("hot.xprv")).unwrap(), "signers[0].file", "No such"),
    ("rubbish", |dir| fs::write(dir.join("node-1.pem"), "x").unwrap(), "tls.cert", "no certificate"),
    ("rubbish key", |dir| fs::write(dir.join("node-1.key"), "x").unwrap(), "tls.key", "node-1.key"),
    ("other node", |dir| move_over(dir, "node-2", "node-1"), "tls.cert", "is for node/2"),
    ("other key", |dir| copy(dir, "node-2.key", "node-1.key"), "tls.key", "node-1.key is not the key of "),
    ("other cluster", |dir| other_cluster(dir), "tls.cert", "of cluster \"other\""),
    ("other authority", |dir| other_authority(dir), "tls.cert", "node-1.pem was not issued by "),
    ("other name", |dir| other_name(dir), "tls.cert", "node-1.pem was not issued by "),
    ("data file", |dir| fs::write(dir.join("data"), "x").unwrap(), "node.data_dir", "not a folder"),
];

fn chmod(dir: &Path, name: &str, mode: u32) {
    fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).unwrap();
}

fn copy(dir: &Path, from: &str, to: &str) {
    fs::copy(dir.join(from), dir.join(to)).unwrap();
}

fn move_over(dir: &Path, from: &str, to: &str) {
    for end in ["pem", "key"] {
        copy(dir, &format!("{from}.{end}"), &format!("{to}.{end}"));
    }
}

fn other_cluster(dir: &Path) {
    for name in ["ca.pem", "ca.key", "node-1.pem", "node-1.key"] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    pki::init(dir, "other").unwrap();
    pki::issue(dir, Kind::Node, "1", &[], 100).unwrap();
}

fn other_authority(dir: &Path) {
    for name in ["ca.pem", "ca.key"] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    pki::init(dir, "demo").unwrap();
}

/// As [`other_authority`], of another cluster: its name tells it apart already.
fn other_name(dir: &Path) {
    for name in ["ca.pem", "ca.key"] {
        fs::remove_file(dir.join(name)).unwrap();
    }
    pki::init(dir, "other").unwrap();
}

#[test]
fn files_that_would_fail_later_are_refused_at_once() {
    for (name, damage, key, part) in DAMAGES {
        let (folder, file) = folder();
        damage(folder.path());
        let report = check(&file);
        let line = report.lines.join("\n");
        let blamed = line.contains(&format!(": error: {key}: ")) && line.contains(part);
        let exact = report.exit_code == EXIT_FAULTS && report.lines.len() == 1;
        assert!(blamed && exact, "{name}: wanted {key} … {part}, got:\n{line}");
    }
}

#[test]
fn a_file_that_is_missing_is_told_with_what_makes_it() {
    for (name, key, remedy) in [
        ("ca.pem", "tls.ca", "`onespend pki init`"),
        ("node-1.pem", "tls.cert", "`onespend pki issue node 1 "),
        ("node-1.key", "tls.key", "`onespend pki issue node 1 "),
        ("hot.xprv", "signers[0].file", "write the private descriptors into it"),
    ] {
        let (folder, file) = folder();
        let damaged = folder.path().join(name);
        fs::remove_file(&damaged).unwrap();
        let told = check(&file).lines.join("\n");
        assert!(told.contains(&format!(": error: {key}: ")) && told.contains(remedy), "{name}: {told}");
        // What is there and no file is not mended by making one.
        fs::create_dir(&damaged).unwrap();
        let told = check(&file).lines.join("\n");
        assert!(told.contains("is not a file") && !told.contains(remedy), "{name}: {told}");
    }
}

#[test]
fn a_bitcoind_that_was_not_started_yet_and_old_certificates_are_warnings() {
    let (folder, file) = folder();
    fs::remove_file(folder.path().join("cookie")).unwrap();
    for end in ["pem", "key"] {
        fs::remove_file(folder.path().join(format!("node-1.{end}"))).unwrap();
    }
    pki::issue(folder.path(), Kind::Node, "1", &[], 3).unwrap();
    let report = check(&file);
    assert_eq!((report.exit_code, report.lines.len()), (0, 2), "{report:?}");
    assert!(report.lines[0].contains("warning: tls.cert: the certificate expires in 2 days"), "{report:?}");
    assert!(report.lines[1].contains("warning: bitcoind.cookie_file: "), "{report:?}");
}

#[test]
fn a_key_file_that_cannot_be_used_is_not_met_with_the_syntax_of_descriptors() {
    let (folder, file) = folder();
    // No text, as a line that is none; a file of another user only root could make.
    for (content, explained) in [(&b"\xff"[..], false), (&b"tprv8secret"[..], true)] {
        fs::write(folder.path().join("hot.xprv"), content).unwrap();
        let told = check(&file).lines.join("\n");
        assert!(told.contains("signers[0].file") && told.contains("wpkh(xprv") == explained, "{told}");
    }
}

#[test]
fn a_cookie_that_cannot_be_reached_is_not_called_missing() {
    let (_folder, file) = folder();
    let text = fs::read_to_string(&file).unwrap();
    // A folder that nobody may search would not stop root, who may run this.
    fs::write(&file, text.replace("cookie_file = \"cookie\"", "cookie_file = \"hot.xprv/cookie\"")).unwrap();
    let report = check(&file);
    let told = report.lines.join("\n");
    assert!(report.exit_code == 0 && told.contains("cookie cannot be read: Not a directory"), "{told}");
}

#[test]
fn a_node_starts_without_its_backup_folder_and_a_check_says_that_it_lacks() {
    let (folder, file) = folder();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text + "[backup]\nfolder = \"backups\"\n").unwrap();
    let warnings = Config::load_with(&file, &[]).unwrap().warnings;
    assert!(matches!(&warnings[..], [warning] if warning.key == "backup.folder"), "{warnings:?}");
    let report = check(&file);
    assert!(report.exit_code == EXIT_FAULTS && report.lines[0].contains("error: backup.folder: "), "{report:?}");
    fs::create_dir(folder.path().join("backups")).unwrap();
    assert_eq!(check(&file).lines, Vec::<String>::new());
}

#[test]
fn a_missing_variable_or_file_is_named() {
    let (folder, file) = folder();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("file = \"hot.xprv\"", "env = \"ONESPEND_SIGNER_HOT\"")).unwrap();
    let faults = Config::load_with(&file, &[]).unwrap_err().to_string();
    assert!(faults.contains("signers[0].env: the variable ONESPEND_SIGNER_HOT"), "{faults}");
    let set = [("ONESPEND_SIGNER_HOT".to_owned(), "wpkh(…)".to_owned())];
    Config::load_with(&file, &set).unwrap();
    let report = check(&folder.path().join("absent.toml"));
    assert_eq!(report.exit_code, EXIT_FAULTS);
    assert!(report.lines[0].contains("absent.toml:1:1: error: cannot be read"), "{report:?}");
}

#[test]
fn the_keys_to_a_bucket_must_be_there_and_no_others() {
    let (folder, file) = folder();
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.clone() + "[backup]\ns3_bucket = \"money\"\n").unwrap();
    let faults = Config::load_with(&file, &[]).unwrap_err().to_string();
    assert!(faults.contains("backup.s3_bucket: the variable AWS_ACCESS_KEY_ID is not set"), "{faults}");
    let set = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"].map(|name| (name.to_owned(), "x".to_owned()));
    let faults = Config::load_with(&file, &set[..1]).unwrap_err().to_string();
    assert!(faults.contains("AWS_SECRET_ACCESS_KEY"), "{faults}");
    Config::load_with(&file, &set).unwrap();
    assert!(Config::load_text(&file).is_ok(), "which needs no secret");

    fs::write(&file, text + "[backup]\ns3_bucket = \"money\"\ns3_credentials_file = \"keys\"\n").unwrap();
    let keys = folder.path().join("keys");
    let refused = |what: &str| {
        let faults = Config::load_with(&file, &set).unwrap_err().to_string();
        assert!(faults.contains("backup.s3_credentials_file: ") && faults.contains(what), "{faults}");
    };
    refused("No such file");
    fs::write(&keys, "aws_access_key_id = a\naws_secret_access_key = b\n").unwrap();
    chmod(folder.path(), "keys", 0o640);
    refused("chmod 600");
    chmod(folder.path(), "keys", 0o600);
    Config::load_with(&file, &[]).unwrap();
    fs::write(&keys, "aws_access_key_id = a\n").unwrap();
    refused("aws_secret_access_key is missing");
}
