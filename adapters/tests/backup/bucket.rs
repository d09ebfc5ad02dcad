//! The bucket: parts, interrupted uploads, storages that are away or refuse.

use std::cell::Cell;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use onespend_adapters::backup::{BackupDepot, BackupError, S3Address, S3Credentials, S3Depot, S3Settings};
use tempfile::TempDir;

use crate::contract;
use crate::driver::{Driver, Specimen, varied};
use crate::server::Server;

const PREFIX: &str = "backups/of-demo";

/// A file with keys. The environment belongs to all tests of this program, so it is left alone.
fn keys() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials");
    fs::write(&file, "[default]\naws_access_key_id = testing\naws_secret_access_key = testing\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    (folder, file)
}

fn settings(endpoint: String, address: &str, keys: PathBuf) -> S3Settings {
    S3Settings {
        place: S3Address::parse(address).unwrap(),
        endpoint: Some(endpoint),
        region: "us-east-1".to_owned(),
        allow_http: true,
        timeout: Duration::from_secs(20),
        retries: 1,
        credentials: S3Credentials::File(keys),
    }
}

struct Bucket<'a> {
    server: &'a Server,
    name: String,
    prefix: &'static str,
    keys: (TempDir, PathBuf),
}

impl<'a> Bucket<'a> {
    fn new(server: &'a Server, name: String, prefix: &'static str) -> Self {
        server.make_bucket(&name);
        Self { server, name, prefix, keys: keys() }
    }

    fn of(&self, bucket: &str) -> S3Depot {
        let address = format!("s3://{bucket}/{}", self.prefix);
        S3Depot::new(settings(self.server.endpoint(), &address, self.keys.1.clone()))
    }

    fn path(&self, name: &str) -> String {
        let prefix = if self.prefix.is_empty() { String::new() } else { format!("{}/", self.prefix) };
        format!("/{}/{prefix}{name}", self.name)
    }

    /// Uploads that were begun and not ended.
    fn unfinished(&self) -> Vec<String> {
        self.server.texts(&format!("/{}?uploads", self.name), "UploadId")
    }
}

impl Driver for Bucket<'_> {
    fn depot(&self) -> Box<dyn BackupDepot> {
        Box::new(self.of(&self.name))
    }

    fn nowhere(&self) -> Box<dyn BackupDepot> {
        Box::new(self.of("no-such-bucket"))
    }

    fn names(&self) -> Vec<String> {
        let keys = self.server.texts(&format!("/{}?list-type=2", self.name), "Key");
        keys.iter().map(|key| key.rsplit('/').next().unwrap().to_owned()).collect()
    }

    fn get(&self, name: &str) -> Vec<u8> {
        self.server.get(&self.path(name))
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        self.server.put(&self.path(name), bytes);
    }

    fn shown(&self, name: &str) -> String {
        format!("s3:/{}", self.path(name))
    }
}

#[test]
fn a_bucket_keeps_what_the_port_promises() {
    let (server, nth) = (Server::start(), Cell::new(0));
    for prefix in [PREFIX, ""] {
        contract::check(|| {
            nth.set(nth.get() + 1);
            Bucket::new(&server, format!("contract-{}", nth.get()), prefix)
        });
    }
}

/// Content for three parts, so that one is sent before anything can be wrong with it.
const THREE_PARTS: usize = 20 * 1024 * 1024;

#[test]
fn a_large_backup_goes_in_parts_and_is_listed_only_when_it_is_whole() {
    let server = Server::start();
    let bucket = Bucket::new(&server, "parts".to_owned(), PREFIX);
    let (depot, content) = (bucket.depot(), varied(THREE_PARTS));
    let broken = Specimen::of(&content, 1);
    fs::write(&broken.file, &content[..THREE_PARTS - 1]).unwrap();
    assert!(matches!(broken.store(&*depot), Err(BackupError::Damaged { .. })));
    assert!(bucket.names().is_empty() && depot.list().unwrap().is_empty());
    assert_eq!(bucket.unfinished(), [""; 0], "it was given up");

    let whole = Specimen::of(&content, 2);
    let name = whole.store(&*depot).unwrap();
    assert_eq!(bucket.names(), [name.as_str()], "and no mark is left");
    assert!(bucket.unfinished().is_empty());
    depot.open(&name).unwrap().check(&mut |_| {}).unwrap();
    let etag = server.texts("/parts?list-type=2", "ETag").remove(0);
    assert!(etag.contains("-3"), "three parts make it: {etag}");
}

/// As after a crash: parts of an upload that nobody ends, and its mark.
#[test]
fn an_interrupted_upload_is_never_listed_and_the_next_backup_ends_it() {
    let server = Server::start();
    let bucket = Bucket::new(&server, "crash".to_owned(), PREFIX);
    let (depot, name) = (bucket.depot(), "onespend-demo-n1-0000000000001-9.backup");
    let begin = |name: &str| server.begin_upload(&bucket.path(name));
    let own = begin(name);
    server.put(&format!("{}?partNumber=1&uploadId={own}", bucket.path(name)), b"half of one");
    bucket.put(&format!("{name}.partial"), own.as_bytes());
    let foreign = begin("onespend-demo-n2-0000000000001-9.backup");
    assert!(depot.list().unwrap().is_empty());
    assert!(depot.open(name).is_err());
    let stored = Specimen::of(b"content", 2).store(&*depot).unwrap();
    assert_eq!(bucket.names(), [stored]);
    assert_eq!(bucket.unfinished(), [foreign], "that of another node goes on");
}

#[test]
fn a_look_counts_what_a_bucket_has_and_says_what_the_storage_refuses() {
    let server = Server::start();
    let bucket = Bucket::new(&server, "looked-at".to_owned(), PREFIX);
    let depot = bucket.of(&bucket.name);
    assert_eq!(depot.look().unwrap(), 0);
    bucket.put("a.backup", b"not even a backup");
    assert_eq!(depot.look().unwrap(), 1);
    let nowhere = bucket.of("no-such-bucket").look().unwrap_err().to_string();
    assert!(nowhere.contains("s3://no-such-bucket"), "{nowhere}");
    let (endpoint, _) = answering("403 Forbidden");
    let refused = S3Depot::new(settings(endpoint, "s3://money", bucket.keys.1.clone())).look().unwrap_err().to_string();
    assert!(refused.contains("403") && refused.contains("s3://money"), "{refused}");
}

#[test]
fn what_takes_the_name_while_it_is_read_is_not_mixed_in() {
    let server = Server::start();
    let bucket = Bucket::new(&server, "mixed".to_owned(), PREFIX);
    let name = Specimen::of(&varied(300_000), 1).store(&*bucket.depot()).unwrap();
    let mut opened = bucket.depot().open(&name).unwrap();
    let mut other = bucket.get(&name);
    other[200_000] ^= 1;
    bucket.put(&name, &other);
    let error = opened.check(&mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("another object has taken its place"), "{error}");
}

#[test]
fn a_storage_that_is_away_is_asked_a_bounded_number_of_times() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (_folder, file) = keys();
    let depot = S3Depot::new(settings(format!("http://127.0.0.1:{port}"), "s3://money", file));
    let began = Instant::now();
    for error in [depot.list().map(drop).unwrap_err(), depot.look().map(drop).unwrap_err()] {
        assert!(matches!(&error, BackupError::Io { action: "list", .. }), "{error}");
        assert!(error.to_string().contains("s3://money"), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

/// Answers everything with one status; the number of requests is counted.
fn answering(status: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 8192]);
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    (endpoint, asked)
}

#[test]
fn a_refusal_is_final_and_a_fault_of_the_storage_is_tried_again() {
    let (_folder, file) = keys();
    let open = |endpoint: String| {
        S3Depot::new(settings(endpoint, "s3://money", file.clone())).open("a.backup").map(drop).unwrap_err()
    };
    for (status, why, times) in [
        ("403 Forbidden", "does not allow it with these keys", 1),
        ("404 Not Found", "there is no such object", 1),
        ("500 Internal Server Error", "500", 2),
    ] {
        let (endpoint, asked) = answering(status);
        let error = open(endpoint).to_string();
        assert!(error.contains(why) && error.contains("s3://money"), "{status}: {error}");
        assert_eq!(asked.load(Ordering::SeqCst), times, "{status}: {error}");
        assert!(!error.contains("testing"), "no key is shown: {error}");
    }
}

#[test]
fn nothing_is_sent_without_keys_or_over_http_that_is_not_allowed() {
    let (folder, file) = keys();
    let (endpoint, asked) = answering("200 OK");
    let open = |change: &dyn Fn(&mut S3Settings)| {
        let mut settings = settings(endpoint.clone(), "s3://money", file.clone());
        change(&mut settings);
        S3Depot::new(settings).list().map(|kept| kept.len()).unwrap_err().to_string()
    };
    let plain = open(&|settings| settings.allow_http = false);
    assert!(plain.contains("unencrypted"), "{plain}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let exposed = open(&|_| {});
    assert!(exposed.contains("others may read") && exposed.contains("chmod 600"), "{exposed}");
    let none = open(&|settings| settings.credentials = S3Credentials::File(folder.path().join("none")));
    assert!(none.contains("none"), "{none}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}
