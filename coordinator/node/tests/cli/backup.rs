//! Backups: made over a stream, looked at, and put into a new folder.

use std::fs;
use std::path::{Path, PathBuf};

use bitcoin::Network;
use bitcoin::hashes::{Hash, sha256};
use onespend_adapters::backup::{BackupWriter, Header};
use onespend_adapters::store::sqlite::{DataFolder, SqliteState};
use onespend_adapters::store::{Owner, RowBatch, RowChange, StateStore};
use onespend_core::apply::apply;
use onespend_core::command::{BlockRef, Command, Entry};
use onespend_core::ids::{Height, LogIndex, Millis};
use onespend_core::state::State;
use onespend_proto::v1;
use onespend_proto::v1::create_backup_response::Part;

use crate::node::Parts;
use crate::run::{Authority, Cluster, onespend};

/// The state of a cluster `demo` at log index 81, as the store of node 2 copies it, and its hash.
pub fn content() -> (Vec<u8>, [u8; 32]) {
    let at = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(at.path(), &Owner { cluster_id: "demo".to_owned(), node_id: 2 }).unwrap();
    let store = SqliteState::open(&folder).unwrap();
    let mut state = State::default();
    let genesis = bitcoin::constants::genesis_block(Network::Regtest).block_hash();
    let tip = BlockRef { height: Height(0), hash: genesis };
    let start = Command::Start { network: Network::Regtest, tip };
    apply(&mut state, LogIndex(81), &Entry { at: Millis(1), wall_ms: 1, request: None, command: start });
    let rows = state.drain_changes().into_iter();
    let rows = rows.map(|row| RowChange { table: row.table, key: row.key, value: row.value }).collect();
    // As `raft/codec.rs` writes it, for ever: term 2, index 81; the membership of nobody.
    let marker = vec![0x83, 0x82, 0x02, 0x18, 81, 0xf6, 0x82, 0x80, 0x80];
    store.write(&RowBatch { marker, rows }).unwrap();
    let copy = store.copy().unwrap().unwrap();
    (fs::read(&copy.path).unwrap(), state.hash())
}

pub fn header(content: &[u8], hash: [u8; 32]) -> Header {
    Header {
        cluster_id: "demo".to_owned(),
        node_id: 2,
        index: 81,
        term: 2,
        state_hash: hash,
        size_bytes: content.len() as u64,
        made_unix_ms: 1_764_459_663_000,
        version: "0.1.0".to_owned(),
    }
}

fn sum(content: &[u8]) -> [u8; 32] {
    sha256::Hash::hash(content).to_byte_array()
}

pub fn write(path: &Path, header: &Header, content: &[u8]) {
    let mut writer = BackupWriter::begin(path, header).unwrap();
    writer.write(content).unwrap();
    writer.finish(&sum(content)).unwrap().publish(path, false).unwrap();
}

/// What a node sends.
fn parts(content: &[u8], hash: [u8; 32]) -> Vec<Part> {
    let header = v1::BackupHeader {
        cluster_id: "demo".to_owned(),
        node_id: 2,
        form_version: 1,
        state_hash: Some(v1::StateHash { index: 81, hash: hash.to_vec().into() }),
        size_bytes: content.len() as u64,
        make_time: Some(prost_types::Timestamp { seconds: 1_764_459_663, nanos: 0 }),
        version: "0.1.0".to_owned(),
    };
    let data = content.chunks(10_000).map(|chunk| Part::Data(chunk.to_vec().into()));
    std::iter::once(Part::Header(header)).chain(data).chain([Part::Sha256(sum(content).to_vec().into())]).collect()
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_backup_is_written_checked_and_named_and_nothing_is_overwritten_unasked() {
    let (cluster, at) = (Cluster::start(), tempfile::tempdir().unwrap());
    let out = at.path().join("a.backup");
    let create = ["-o", "json", "backup", "create", "--out", out.to_str().unwrap()];
    let (content, hash) = content();
    cluster.node.answer(Parts(parts(&content, hash)));
    let made = cluster.run_as("operator/alice", &create).code(0).json();
    for (field, value) in [("index", 81), ("term", 2), ("node_id", 2), ("tip_height", 0), ("wallets", 0)] {
        assert_eq!(made[field], value, "{made}");
    }
    assert_eq!((&made["cluster_id"], &made["network"]), (&"demo".into(), &"regtest".into()));
    let asked: v1::CreateBackupRequest = cluster.node.last();
    assert!(!asked.request_id.is_empty());
    assert_eq!(cluster.node.caller(), "operator/alice");
    assert_eq!(names(at.path()), ["a.backup"]);

    let again = cluster.run_as("operator/alice", &create).code(1);
    assert!(again.err.contains("exists already") && again.err.contains("--force"), "{again:?}");
    cluster.node.answer(Parts(parts(&content, hash)));
    cluster.run_as("operator/alice", &[&create[..], &["--force"]].concat()).code(0);
    let verified = onespend(&["-o", "json", "backup", "verify", out.to_str().unwrap()]).code(0).json();
    assert_eq!(verified, made);
    let shown = onespend(&["backup", "verify", out.to_str().unwrap()]).code(0);
    assert!(shown.out.contains("whole") && shown.out.contains("node 2 of cluster demo"), "{shown:?}");
    fs::write(at.path().join("b.backup"), "something else").unwrap();
    let listed = onespend(&["-o", "json", "backup", "list", at.path().to_str().unwrap()]).code(0).json();
    assert_eq!(
        (&listed["backups"][0]["index"], &listed["backups"][0]["fault"]),
        (&81.into(), &serde_json::Value::Null)
    );
    assert!(listed["backups"][1]["fault"].as_str().unwrap().contains("b.backup is damaged in its beginning"));
}

#[test]
fn a_stream_that_is_not_a_whole_backup_leaves_nothing() {
    let (cluster, at) = (Cluster::start(), tempfile::tempdir().unwrap());
    let out = at.path().join("a.backup");
    let (content, hash) = content();
    let whole = parts(&content, hash);
    let with = |at: usize, part: Part| {
        let mut parts = whole.clone();
        parts[at] = part;
        parts
    };
    // The bytes where SQLite keeps whose kind of database it is.
    let mut foreign = content.clone();
    foreign[68] ^= 1;
    let wrong = [
        vec![],
        whole[..whole.len() - 1].to_vec(),
        whole[1..].to_vec(),
        with(1, whole[0].clone()),
        with(1, Part::Data(vec![0; 10_000].into())),
        with(whole.len() - 1, Part::Sha256(vec![0; 31].into())),
        parts(&content, [0; 32]),
        parts(&foreign, hash),
        parts(b"no state at all", hash),
    ];
    for (nth, parts) in wrong.into_iter().enumerate() {
        cluster.node.answer(Parts(parts));
        let ended = cluster.run_as("operator/alice", &["backup", "create", "--out", out.to_str().unwrap()]);
        assert_eq!(ended.code, 1, "{nth}: {ended:?}");
        assert!(names(at.path()).is_empty(), "{nth}: {:?}", names(at.path()));
    }
    let nowhere = cluster.run_as("operator/alice", &["backup", "create", "--out", "/no/such/folder/a"]);
    assert_eq!(nowhere.code, 1, "{nowhere:?}");
    onespend(&["backup", "create"]).code(2);
    onespend(&["backup", "verify"]).code(2);
    onespend(&["backup", "list", "/no/such/folder"]).code(1);
    let other = cluster.run_as("operator/alice", &["backup", "create", "--from", "7", "--out", out.to_str().unwrap()]);
    assert!(other.code == 4 && other.err.contains("nodes that answer"), "{other:?}");
}

/// One flipped byte of a file is named with its part; the header and content that contradict each other, too.
#[test]
fn what_is_wrong_with_a_backup_is_named() {
    let at = tempfile::tempdir().unwrap();
    let (content, hash) = content();
    let path = at.path().join("a.backup");
    write(&path, &header(&content, hash), &content);
    let good = fs::read(&path).unwrap();
    let verify = |path: &Path| onespend(&["backup", "verify", path.to_str().unwrap()]);
    verify(&path).code(0);
    for (byte, part) in [(0, "beginning"), (40, "header"), (good.len() / 2, "content"), (good.len() - 1, "end")] {
        let mut bytes = good.clone();
        bytes[byte] ^= 1;
        fs::write(&path, bytes).unwrap();
        let refused = verify(&path).code(1);
        assert!(refused.err.contains("a.backup") && refused.err.contains(&format!("part: {part}")), "{refused:?}");
    }
    let right = header(&content, hash);
    for (nth, wrong) in [
        Header { cluster_id: "other".to_owned(), ..right.clone() },
        Header { node_id: 3, ..right.clone() },
        Header { index: 80, ..right.clone() },
        Header { term: 3, ..right.clone() },
        Header { state_hash: [1; 32], ..right.clone() },
    ]
    .into_iter()
    .enumerate()
    {
        let path = at.path().join(format!("{nth}.backup"));
        write(&path, &wrong, &content);
        let refused = verify(&path).code(1);
        assert!(refused.err.contains("the content of") && refused.err.contains("backup is refused"), "{refused:?}");
    }
    assert!(verify(&at.path().join("none.backup")).code(1).err.contains("none.backup"));
}

/// A configuration that a node could start with, for a new cluster.
pub fn config(at: &Path, authority: &Authority, cluster: &str, more: &str) -> PathBuf {
    let (pki, data) = (authority.path().display(), at.join("data"));
    let (file, data) = (at.join("node.toml"), data.display());
    let cookie = at.join("cookie");
    fs::write(&cookie, "__cookie__:secret").unwrap();
    let text = format!(
        "[cluster]\nid = '{cluster}'\nnetwork = 'regtest'\n[node]\nid = 1\ndata_dir = '{data}'\n{more}\
         [[peers]]\nid = 1\ncontrol = '127.0.0.1:7801'\ndata = '127.0.0.1:7800'\n\
         [tls]\nca = '{pki}/ca.pem'\ncert = '{pki}/node-1.pem'\nkey = '{pki}/node-1.key'\n\
         [bitcoind]\nurl = 'http://127.0.0.1:18443'\ncookie_file = '{}'\n",
        cookie.display()
    );
    fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_backup_is_put_into_an_empty_folder_of_a_new_cluster_only() {
    let (authority, at) = (Authority::new(), tempfile::tempdir().unwrap());
    let (content, hash) = content();
    let backup = at.path().join("a.backup");
    // The certificates of these tests are of a cluster `demo`, so the backup is the one of another cluster here.
    write(&backup, &header(&content, hash), &content);
    let restore = |config: &Path| {
        onespend(&["-o", "json", "restore", "--backup", backup.to_str().unwrap(), "--config", config.to_str().unwrap()])
    };
    let same = restore(&config(at.path(), &authority, "demo", "")).code(1);
    assert!(same.err.contains("a name of its own"), "{same:?}");
    assert!(!at.path().join("data").exists(), "nothing was touched");

    let second = Authority::of("demo-2");
    let joins = restore(&config(at.path(), &second, "demo-2", "join = true\n")).code(1);
    assert!(joins.err.contains("joins nobody"), "{joins:?}");
    let others = "[[peers]]\nid = 2\ncontrol = '127.0.0.2:7801'\ndata = '127.0.0.2:7800'\n";
    let others = restore(&config(at.path(), &second, "demo-2", others)).code(1);
    assert!(others.err.contains("with this node alone"), "{others:?}");

    let file = config(at.path(), &second, "demo-2", "");
    let done = restore(&file).code(0).json();
    for (field, value) in [("from_index", 81), ("index", 83), ("epoch", 1), ("node_id", 1)] {
        assert_eq!(done[field], value, "{done}");
    }
    let again = restore(&file).code(1);
    assert!(again.err.contains("is not empty"), "{again:?}");
    fs::write(at.path().join("data/RESTORING"), "").unwrap();
    let half = restore(&file).code(1);
    assert!(half.err.contains("was not finished") && half.err.contains("empty the folder"), "{half:?}");
}
