//! Authorities and certificates as they lie on the disk.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use super::*;

fn authority_in() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path(), "demo").unwrap();
    dir
}

fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn with_certificate<T>(file: &Path, look: impl Fn(&X509Certificate<'_>) -> T) -> T {
    let text = fs::read(file).unwrap();
    let pem = Pem::iter_from_buffer(&text).next().unwrap().unwrap();
    look(&pem.parse_x509().unwrap())
}

#[test]
fn an_authority_is_an_authority_for_ten_years_and_names_its_cluster() {
    let dir = authority_in();
    assert_eq!(listing(dir.path()), ["ca.key", "ca.pem"]);
    with_certificate(&dir.path().join("ca.pem"), |ca| {
        assert!(ca.is_ca());
        assert_eq!(ca.subject().to_string(), "O=demo, CN=onespend cluster demo");
        let days = ca.validity().time_to_expiration().unwrap().whole_days();
        assert_eq!(days, CA_DAYS - 1);
    });
}

#[test]
fn keys_are_for_their_owner_alone() {
    let dir = authority_in();
    let issued = issue(dir.path(), Kind::Client, "payouts", &[], 1).unwrap();
    for file in [&dir.path().join("ca.key"), &issued.key] {
        let mode = fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.display());
    }
}

#[test]
fn nodes_serve_and_call_while_others_only_call() {
    let dir = authority_in();
    let hosts = ["10.0.0.1", "::1", "node-1.example.org", "localhost"].map(str::to_owned);
    let node = issue(dir.path(), Kind::Node, "1", &hosts, DEFAULT_DAYS).unwrap();
    let client = issue(dir.path(), Kind::Client, "payouts", &[], DEFAULT_DAYS).unwrap();
    let operator = issue(dir.path(), Kind::Operator, "alice", &[], DEFAULT_DAYS).unwrap();
    let usage = |file: &Path| {
        with_certificate(file, |certificate| {
            let usage = certificate.extended_key_usage().unwrap().unwrap().value;
            (usage.client_auth, usage.server_auth)
        })
    };
    assert_eq!(usage(&node.cert), (true, true));
    assert_eq!(usage(&client.cert), (true, false));
    assert_eq!(usage(&operator.cert), (true, false));
    with_certificate(&node.cert, |certificate| {
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let names = &names.value.general_names;
        assert_eq!(names.len(), 6, "localhost was given twice: {names:?}");
        for wanted in [
            GeneralName::URI("spiffe://demo/node/1"),
            GeneralName::DNSName("onespend"),
            GeneralName::DNSName("localhost"),
            GeneralName::DNSName("node-1.example.org"),
            GeneralName::IPAddress(&[10, 0, 0, 1]),
        ] {
            assert!(names.contains(&wanted), "{wanted:?}");
        }
        assert!(!certificate.is_ca());
        let days = certificate.validity().time_to_expiration().unwrap().whole_days();
        assert_eq!(days, i64::from(DEFAULT_DAYS) - 1);
    });
    let names: Vec<String> = listing(dir.path());
    assert_eq!(names.len(), 8, "no drafts are left: {names:?}");
}

#[test]
fn nothing_is_ever_overwritten() {
    let dir = authority_in();
    issue(dir.path(), Kind::Node, "1", &[], 1).unwrap();
    let before: Vec<Vec<u8>> =
        listing(dir.path()).iter().map(|name| fs::read(dir.path().join(name)).unwrap()).collect();
    assert!(matches!(init(dir.path(), "demo"), Err(PkiError::Exists(_))));
    let again = issue(dir.path(), Kind::Node, "1", &[], 1);
    assert!(matches!(again, Err(PkiError::Exists(_))));
    let after: Vec<Vec<u8>> = listing(dir.path()).iter().map(|name| fs::read(dir.path().join(name)).unwrap()).collect();
    assert_eq!(before, after);
    // One of the two files is enough to stop.
    fs::remove_file(dir.path().join("node-1.pem")).unwrap();
    let error = issue(dir.path(), Kind::Node, "1", &[], 1).unwrap_err();
    assert!(error.to_string().contains("node-1.key exists"), "{error}");
}

#[test]
fn two_that_issue_the_same_certificate_at_once_leave_one_whole_pair() {
    let dir = authority_in();
    let results: Vec<_> = std::thread::scope(|scope| {
        let issuers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| issue(dir.path(), Kind::Node, "1", &[], 1).is_ok())).collect();
        issuers.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(results.iter().filter(|won| **won).count(), 1, "{results:?}");
    assert_eq!(listing(dir.path()), ["ca.key", "ca.pem", "node-1.key", "node-1.pem"]);
    let config = tls::Config {
        ca: dir.path().join("ca.pem"),
        cert: dir.path().join("node-1.pem"),
        key: dir.path().join("node-1.key"),
    };
    tls::Material::load(&config).unwrap();
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let dir = authority_in();
    let bad = [
        issue(dir.path(), Kind::Node, "one", &[], 1),
        issue(dir.path(), Kind::Node, "0", &[], 1),
        issue(dir.path(), Kind::Client, "../evil", &[], 1),
        issue(dir.path(), Kind::Client, "", &[], 1),
        issue(dir.path(), Kind::Node, "1", &["not a host".to_owned()], 1),
        issue(dir.path(), Kind::Node, "1", &vec!["a".to_owned(); MAX_HOSTS + 1], 1),
        issue(dir.path(), Kind::Client, "a", &["10.0.0.1".to_owned()], 1),
        issue(dir.path(), Kind::Node, "1", &[], 0),
        issue(dir.path(), Kind::Node, "1", &[], MAX_DAYS + 1),
        init(&dir.path().join("sub"), "No Name"),
        issue(&dir.path().join("absent"), Kind::Node, "1", &[], 1),
    ];
    for (at, result) in bad.iter().enumerate() {
        assert!(result.is_err(), "{at}: {result:?}");
    }
    assert_eq!(listing(dir.path()), ["ca.key", "ca.pem"]);
}

#[test]
fn an_authority_with_a_foreign_key_or_subject_is_refused() {
    let dir = authority_in();
    let other = authority_in();
    fs::copy(other.path().join("ca.key"), dir.path().join("ca.key")).unwrap();
    let error = issue(dir.path(), Kind::Node, "1", &[], 1).unwrap_err();
    assert!(matches!(error, PkiError::Authority { .. }), "{error}");
    let client = issue(other.path(), Kind::Client, "a", &[], 1).unwrap();
    fs::write(other.path().join("ca.pem"), "no certificate").unwrap();
    let error = issue(other.path(), Kind::Node, "1", &[], 1).unwrap_err();
    assert!(error.to_string().contains("holds no PEM"), "{error}");
    assert!(client.cert.exists());
}
