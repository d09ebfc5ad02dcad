//! Backups in S3-compatible storage, taken as files are.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::backup::{config, content, header, write};
use crate::run::{Authority, Ended, onespend, with_environment};
use crate::server::Server;

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "testing"), ("AWS_SECRET_ACCESS_KEY", "testing")];

/// A bucket `money` with one backup, and its bytes.
fn bucket() -> (Server, Vec<u8>) {
    let (at, (content, hash)) = (tempfile::tempdir().unwrap(), content());
    let file = at.path().join("a.backup");
    write(&file, &header(&content, hash), &content);
    let bytes = fs::read(file).unwrap();
    let server = Server::start();
    server.make_bucket("money");
    server.put("/money/prod/a.backup", &bytes);
    (server, bytes)
}

fn run(server: &Server, args: &[&str]) -> Ended {
    let endpoint = server.endpoint();
    let variables = [KEYS[0], KEYS[1], ("AWS_ENDPOINT_URL", endpoint.as_str())];
    with_environment(&variables, &[&["-o", "json"], args, &["--s3-allow-http"]].concat())
}

#[test]
fn a_backup_in_a_bucket_is_listed_and_verified_and_one_flipped_byte_is_named() {
    let (server, good) = bucket();
    server.put("/money/prod/b.backup", b"something else");
    server.put("/money/prod/half.backup.partial", b"an upload under way");
    let listed = run(&server, &["backup", "list", "s3://money/prod"]).code(0).json();
    let lines = listed["backups"].as_array().unwrap();
    assert_eq!((lines.len(), &lines[0]["name"], &lines[0]["index"]), (2, &"a.backup".into(), &81.into()), "{listed}");
    assert_eq!((&lines[0]["fault"], &lines[0]["size_bytes"]), (&Value::Null, &good.len().into()));
    assert!(lines[1]["fault"].as_str().unwrap().contains("s3://money/prod/b.backup is damaged in its beginning"));
    let empty = run(&server, &["backup", "list", "s3://money/"]).code(0).json();
    assert_eq!(empty["backups"].as_array().unwrap().len(), 0);

    let verified = run(&server, &["backup", "verify", "s3://money/prod/a.backup"]).code(0).json();
    assert_eq!((&verified["file"], &verified["index"]), (&"s3://money/prod/a.backup".into(), &81.into()));
    for (byte, part) in [(0, "beginning"), (40, "header"), (good.len() / 2, "content"), (good.len() - 1, "end")] {
        let mut bytes = good.clone();
        bytes[byte] ^= 1;
        server.put("/money/prod/a.backup", &bytes);
        let refused = run(&server, &["backup", "verify", "s3://money/prod/a.backup"]).code(1);
        let named = refused.err.contains("s3://money/prod/a.backup is damaged in its");
        assert!(named && refused.err.contains(part), "{refused:?}");
    }
    for nowhere in ["s3://money/prod/none.backup", "s3://no-such-bucket/a.backup"] {
        let refused = run(&server, &["backup", "verify", nowhere]).code(1);
        assert!(refused.err.contains(nowhere) && refused.err.contains("no such object"), "{refused:?}");
    }
}

#[test]
fn a_new_cluster_begins_with_a_backup_in_a_bucket() {
    let (server, good) = bucket();
    let (authority, at) = (Authority::of("demo-2"), tempfile::tempdir().unwrap());
    let file = config(at.path(), &authority, "demo-2", "");
    let restore = ["restore", "--backup", "s3://money/prod/a.backup", "--config", file.to_str().unwrap()];
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 1;
    server.put("/money/prod/a.backup", &damaged);
    let refused = run(&server, &restore).code(1);
    assert!(refused.err.contains("damaged in its content"), "{refused:?}");
    assert!(!at.path().join("data").exists(), "nothing was touched");
    server.put("/money/prod/a.backup", &good);
    let done = run(&server, &restore).code(0).json();
    assert_eq!((&done["from_cluster"], &done["from_index"], &done["epoch"]), (&"demo".into(), &81.into(), &1.into()));
    let again = run(&server, &restore).code(1);
    assert!(again.err.contains("is not empty"), "{again:?}");
}

#[test]
fn what_is_no_address_or_has_no_keys_is_refused_before_anything_is_sent() {
    let list = |variables: &[(&str, &str)], more: &[&str]| {
        with_environment(variables, &[&["backup", "list", "s3://money/prod"], more].concat()).code(2).err
    };
    assert!(list(&[], &[]).contains("AWS_ACCESS_KEY_ID is not set"));
    let plain = list(&KEYS, &["--s3-endpoint", "http://127.0.0.1:9"]);
    assert!(plain.contains("unencrypted") && plain.contains("--s3-allow-http"), "{plain}");
    assert!(list(&KEYS, &["--s3-region", "a b"]).contains("region"));
    let at = tempfile::tempdir().unwrap();
    let keys = at.path().join("keys");
    fs::write(&keys, "aws_access_key_id = a\naws_secret_access_key = b\n").unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(list(&[], &["--s3-credentials", keys.to_str().unwrap()]).contains("chmod 600"));
    for wrong in ["s3://Money", "s3://money//a", "s3://money"] {
        let refused = with_environment(&KEYS, &["backup", "verify", wrong]).code(2);
        assert!(refused.err.contains("is no address"), "{refused:?}");
    }
    let out = onespend(&["backup", "create", "--out", "s3://money/a.backup"]).code(2);
    assert!(out.err.contains("--out names a file"), "{out:?}");
}
