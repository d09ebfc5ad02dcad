//! The software signer: the suite from a file and from the environment, its sources, its log.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use bitcoin::Network;
use bitcoin::consensus::encode::serialize_hex;
use onespend_adapters::signer::software::{MAX_SOURCE_BYTES, SoftwareSigner};
use onespend_adapters::signer::{Signer, SignerError};
use serde_json::Value;

use crate::contract::{self, Subject};
use crate::ledger::{Account, Ledger, NETWORK, account, account_on};

const VARIABLE: &str = "ONESPEND_TEST_SIGNER_KEYS";

fn key_file(folder: &Path, lines: &[&str], mode: u32) -> PathBuf {
    let path = folder.join("hot.xprv");
    fs::write(&path, lines.join("\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

pub fn from_file(folder: &Path, lines: &[&str]) -> SoftwareSigner {
    SoftwareSigner::from_file("hot", &key_file(folder, lines, 0o600), NETWORK).unwrap()
}

fn refusal(lines: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let error = SoftwareSigner::from_file("hot", &key_file(folder.path(), lines, 0o600), NETWORK).unwrap_err();
    assert!(!error.retry());
    error.to_string()
}

fn accounts() -> Vec<Account> {
    vec![account("wpkh", 1), account("tr", 2)]
}

#[test]
fn keeps_the_contract_with_keys_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let accounts = accounts();
    let lines = ["# hot wallet", "", &accounts[0].private, "  ", &accounts[1].private_with_origin];
    let path = key_file(folder.path(), &lines, 0o600);
    let make = move || SoftwareSigner::from_file("hot", &path, NETWORK).unwrap();
    contract::check(&Subject::new(make, accounts));
}

/// Runs itself again with the variable set: a process that changes its own environment is not safe (it is `unsafe`).
#[test]
fn keeps_the_contract_with_keys_from_the_environment() {
    let accounts = accounts();
    if std::env::var_os(VARIABLE).is_some() {
        let make = || SoftwareSigner::from_environment("hot", VARIABLE, NETWORK).unwrap();
        contract::check(&Subject::new(make, accounts));
        return;
    }
    let lines = format!("{}\n# comment\n{}", accounts[0].private_with_origin, accounts[1].private);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "software::keeps_the_contract_with_keys_from_the_environment"])
        .env(VARIABLE, lines)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// safety 14.
#[test]
fn signs_the_same_bytes_again_also_on_another_node() {
    for account in accounts() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (from_file(folder.path(), &[&account.private]), tempfile::tempdir().unwrap());
        let other = from_file(other.path(), &[&account.private_with_origin]);
        let mut ledger = Ledger::start();
        let coins = ledger.register("w", &account.public, "hot", 2);
        let permit = ledger.pay("w", "p", &coins);
        let first = one.sign(&permit).unwrap();
        assert_eq!(first, one.sign(&permit).unwrap());
        assert_eq!(first, other.sign(&permit).unwrap());
    }
}

#[test]
fn refuses_a_file_that_others_can_read_and_says_what_to_run() {
    let account = account("wpkh", 1);
    for mode in [0o640, 0o604, 0o660, 0o644, 0o610, 0o601] {
        let folder = tempfile::tempdir().unwrap();
        let path = key_file(folder.path(), &[&account.private], mode);
        let error = SoftwareSigner::from_file("hot", &path, NETWORK).unwrap_err().to_string();
        let command = format!("chmod 600 '{}'", path.canonicalize().unwrap().display());
        assert!(error.contains(&command), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = key_file(folder.path(), &[&account.private], 0o400);
    assert!(SoftwareSigner::from_file("hot", &path, NETWORK).is_ok(), "stricter than 0600 is fine");
}

#[test]
fn follows_a_symbolic_link_and_judges_what_is_at_its_end() {
    let account = account("wpkh", 1);
    let folder = tempfile::tempdir().unwrap();
    let path = key_file(folder.path(), &[&account.private], 0o600);
    let link = folder.path().join("link");
    symlink(&path, &link).unwrap();
    assert!(SoftwareSigner::from_file("hot", &link, NETWORK).is_ok());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let error = SoftwareSigner::from_file("hot", &link, NETWORK).unwrap_err().to_string();
    assert!(error.contains(&path.canonicalize().unwrap().display().to_string()), "{error}");
}

#[test]
fn refuses_what_is_not_a_file_of_text() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let error = SoftwareSigner::from_file("hot", &missing, NETWORK).unwrap_err();
    assert!(matches!(&error, SignerError::KeyFile { path, .. } if *path == missing), "{error:?}");
    let error = SoftwareSigner::from_file("hot", folder.path(), NETWORK).unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
    let path = folder.path().join("binary");
    fs::write(&path, [0xff, 0xfe]).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let error = SoftwareSigner::from_file("hot", &path, NETWORK).unwrap_err().to_string();
    assert!(error.contains("not UTF-8"), "{error}");
    fs::write(&path, "#".repeat(MAX_SOURCE_BYTES + 1)).unwrap();
    let error = SoftwareSigner::from_file("hot", &path, NETWORK).unwrap_err().to_string();
    assert!(error.contains("larger than 65536 bytes"), "{error}");
}

#[test]
fn refuses_a_pipe_instead_of_waiting_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().unwrap().success());
    let error = SoftwareSigner::from_file("hot", &pipe, NETWORK).unwrap_err().to_string();
    assert!(error.contains("not a regular file"), "{error}");
}

/// Only root can give a file away.
#[test]
fn refuses_a_file_of_another_user() {
    let folder = tempfile::tempdir().unwrap();
    let path = key_file(folder.path(), &[&account("wpkh", 1).private], 0o600);
    if std::os::unix::fs::chown(&path, Some(12_345), None).is_err() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    let error = SoftwareSigner::from_file("hot", &path, NETWORK).unwrap_err().to_string();
    assert!(error.contains("belongs to user 12345") && error.contains("Run this as that user"), "{error}");
}

#[test]
fn refuses_a_variable_that_is_not_there_or_cannot_be() {
    for variable in ["ONESPEND_TEST_NO_SUCH_VARIABLE", "", "A=B", "A\0B"] {
        let error = SoftwareSigner::from_environment("hot", variable, NETWORK).unwrap_err();
        assert!(matches!(error, SignerError::Environment { .. }), "{error:?}");
    }
}

#[test]
fn names_the_line_and_the_fault_but_never_the_secret() {
    let good = account("wpkh", 1);
    let main = account_on(Network::Bitcoin, "wpkh", 1);
    let secret = good.private.split(['(', '/']).nth(1).unwrap();
    let cases = [
        (good.public.clone(), "extended private key"),
        (good.private.replace("<0;1>/*", "0/*"), "two chains"),
        (good.private.replace("<0;1>/*", "<0;1>"), "wildcard"),
        (good.private.replace("<0;1>/*", "<0;1>/*h"), "wildcard"),
        (good.private.replace("<0;1>", "<0;1;2>"), "two chains"),
        (good.private.replace("<0;1>", "<0h;1h>"), "unhardened"),
        (good.private.replace("wpkh(", "pkh("), "only wpkh(...) and tr(...)"),
        (good.private.replace("wpkh(", "sh(wpkh(") + ")", "only wpkh(...) and tr(...)"),
        (format!("wsh(sortedmulti(1,{secret}/<0;1>/*))"), "wsh(sortedmulti(...)) wallets are watched only"),
        (format!("tr({secret}/<0;1>/*,pk({secret}/<2;3>/*))"), "only the key path"),
        (good.private.clone() + "#qqqqqqqq", "checksum"),
        (good.private.replace("tprv", "tprw"), "extended private key"),
        (main.private, "another network"),
        (good.private_with_origin.clone(), "same keys as an earlier line"),
        (secret.to_owned(), "only wpkh(...) and tr(...)"),
    ];
    for (line, expected) in cases {
        let error = refusal(&["# comment", &good.private, &line]);
        assert!(error.contains("line 3") && error.contains(expected), "{expected}: {error}");
        assert!(!error.contains("tprv8") && !error.contains("xprv9"), "{error}");
    }
    assert!(refusal(&["# nothing"]).contains("holds no private descriptor"));
}

#[test]
fn takes_a_right_checksum() {
    let account = account("tr", 3);
    let sum = miniscript::descriptor::checksum::desc_checksum(&account.private).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let signer = from_file(folder.path(), &[&format!("{}#{sum}", account.private)]);
    let public: Vec<&str> = signer.public_descriptors().collect();
    assert_eq!(public.len(), 1);
    assert!(public[0].starts_with(&account.public.replace('h', "'")), "{}", public[0]);
}

#[test]
fn shows_no_secret_when_printed() {
    let folder = tempfile::tempdir().unwrap();
    let account = account("wpkh", 1);
    let shown = format!("{:?}", from_file(folder.path(), &[&account.private]));
    assert!(shown.contains("ChainKey(..)"), "{shown}");
    for secret in ["tprv", "SecretKey", "private_key", "Xpriv"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

fn lines(path: &Path) -> Vec<Option<Value>> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn logs_every_signature() {
    let folder = tempfile::tempdir().unwrap();
    let account = account("wpkh", 1);
    let log = folder.path().join("signatures.jsonl");
    let signer = from_file(folder.path(), &[&account.private]).with_audit_log(&log).unwrap();
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    contract::logs_what_it_signs(&signer, &account, &log);
}

#[test]
fn logs_nothing_for_what_it_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("signatures.jsonl");
    let signer = from_file(folder.path(), &[&account("wpkh", 1).private]).with_audit_log(&log).unwrap();
    let mut ledger = Ledger::start();
    let coins = ledger.register("w", &account("wpkh", 9).public, "hot", 1);
    signer.sign(&ledger.pay("w", "p", &coins)).unwrap_err();
    assert_eq!(lines(&log).len(), 0);
}

#[test]
fn ends_a_line_that_a_crash_tore() {
    let folder = tempfile::tempdir().unwrap();
    let account = account("wpkh", 1);
    let log = folder.path().join("signatures.jsonl");
    // In the middle of its transaction, which most of a line is.
    fs::write(&log, r#"{"signer":"hot","wallet":"w","transaction":"0200"#).unwrap();
    let signer = from_file(folder.path(), &[&account.private]).with_audit_log(&log).unwrap();
    let mut ledger = Ledger::start();
    let coins = ledger.register("w", &account.public, "hot", 1);
    let signed = signer.sign(&ledger.pay("w", "p", &coins)).unwrap();
    let written = lines(&log);
    assert_eq!(written.len(), 2);
    assert!(written[0].is_none());
    assert_eq!(written[1].as_ref().unwrap()["transaction"], serialize_hex(&signed));
}

#[test]
fn gives_no_signature_that_it_could_not_log() {
    let folder = tempfile::tempdir().unwrap();
    let account = account("wpkh", 1);
    // Every write to this device says that it is full (full(4)).
    let signer = from_file(folder.path(), &[&account.private]).with_audit_log(Path::new("/dev/full")).unwrap();
    let mut ledger = Ledger::start();
    let coins = ledger.register("w", &account.public, "hot", 1);
    let error = signer.sign(&ledger.pay("w", "p", &coins)).unwrap_err();
    assert!(matches!(error, SignerError::Audit { .. }), "{error:?}");
    assert!(error.retry());
    let error = from_file(folder.path(), &[&account.private]).with_audit_log(folder.path()).unwrap_err();
    assert!(matches!(error, SignerError::Audit { .. }), "{error:?}");
}
