//! Good files are read as written; bad ones are refused with every fault in its place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::pki::{self, Kind};

const SAMPLE: &str = include_str!("../../onespend.sample.toml");

const SMALL: &str = r#"
[cluster]
id = "demo"
network = "regtest"
[node]
id = 1
data_dir = "data"
[[peers]]
id = 1
control = "10.0.0.1:7801"
data = "10.0.0.1:7800"
[[peers]]
id = 2
control = "10.0.0.2:7801"
data = "10.0.0.2:7800"
[[peers]]
id = 3
control = "10.0.0.3:7801"
data = "10.0.0.3:7800"
[tls]
ca = "ca.pem"
cert = "node-1.pem"
key = "node-1.key"
[bitcoind]
url = "http://127.0.0.1:18443"
cookie_file = "cookie"
"#;

fn parse(text: &str) -> Result<Config, ConfigFaults> {
    Config::parse(text, Path::new("etc/onespend.toml"), &[])
}

fn parse_with(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigFaults> {
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::parse(text, Path::new("etc/onespend.toml"), &environment)
}

/// The lines that `config check` would print.
fn complaints(text: &str) -> Vec<String> {
    let faults = parse(text).unwrap_err();
    faults.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn a_small_file_gets_every_default() {
    let config = parse(&format!("{SMALL}timeout_ms = 0x2_710\npoll_ms = 1_000\n")).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.bitcoind.timeout.as_millis(), 10_000);
    assert_eq!(config.bitcoind.poll.as_millis(), 1_000);
    assert_eq!(config.cluster.finality_depth, 6);
    assert_eq!(config.node.data_dir, Path::new("etc/data"));
    assert_eq!(config.tls.ca, Path::new("etc/ca.pem"));
    assert_eq!(config.raft.heartbeat.as_millis(), 40);
    assert_eq!(config.listen.health.to_string(), "0.0.0.0:7802");
    assert_eq!(config.telemetry.otlp_endpoint, None);
    assert!(config.api.forward_writes);
    assert_eq!(config.this_peer().unwrap().control.https(), "https://10.0.0.1:7801");
}

/// One key of the sample file: what the comment above it promises, and what is written.
struct Documented {
    key: String,
    comment: String,
    value: String,
}

/// Reads the sample as a person does: comments, then a key, perhaps commented out.
fn documented() -> Vec<Documented> {
    let (mut section, mut comment, mut found) = (String::new(), String::new(), Vec::new());
    for line in SAMPLE.lines() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let word = bare.split(' ').next().unwrap_or_default();
        let is_key = bare.contains(" = ") && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        if let Some(name) = line.strip_prefix("[[") {
            section = format!("{}[]", name.trim_end_matches("]]"));
        } else if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut section);
        } else if is_key {
            let (key, value) = bare.split_once(" = ").unwrap();
            found.push(Documented {
                key: format!("{section}.{key}"),
                comment: std::mem::take(&mut comment),
                value: value.to_owned(),
            });
        } else if line.is_empty() {
            comment.clear();
        } else {
            comment.push_str(line.trim_start_matches('#'));
        }
    }
    found
}

#[test]
fn the_sample_file_is_accepted_without_a_warning() {
    let config = parse(SAMPLE).unwrap();
    assert_eq!(config.warnings, []);
    assert_eq!(config.peers.len(), 3);
    assert_eq!(config.node.tags.get("zone").unwrap(), "a");
}

#[test]
fn the_sample_file_names_every_key_and_no_other() {
    let named: BTreeSet<String> = documented().into_iter().map(|entry| entry.key).collect();
    let exist: BTreeSet<String> = schema().into_keys().collect();
    assert_eq!(named, exist);
}

#[test]
fn the_sample_file_tells_the_truth_about_defaults() {
    let schema = schema();
    let toml = |text: &str| -> toml::Table { format!("it = {text}").parse().unwrap() };
    let mut seen = BTreeSet::new();
    for entry in documented() {
        if !seen.insert(entry.key.clone()) {
            continue;
        }
        let default = schema.get(&entry.key).unwrap();
        let promised = entry.comment.split_once("Default: ").map(|(_, rest)| rest.trim());
        match (default, promised) {
            (Some(default), Some(promised)) => {
                assert_eq!(toml(default), toml(promised), "{}", entry.key);
                // Tags are the one key whose default would show nobody how it is written.
                if entry.key != "node.tags" {
                    assert_eq!(toml(&entry.value), toml(default), "{}", entry.key);
                }
            }
            (None, None) => {
                let words = ["Mandatory.", "Optional."];
                let said = words.iter().any(|word| entry.comment.contains(word));
                assert!(said, "{} must be Mandatory. or Optional.", entry.key);
            }
            (default, promised) => panic!("{}: {default:?} against {promised:?}", entry.key),
        }
    }
}

#[test]
fn mandatory_keys_are_exactly_those_that_the_sample_calls_so() {
    let text = "[[peers]]\n[[signers]]\n";
    let faults = parse(text).unwrap_err();
    let missing: BTreeSet<String> =
        faults.errors().filter(|fault| fault.what == "missing").map(|fault| fault.key.replace("[0]", "[]")).collect();
    let mut mandatory: BTreeSet<String> =
        documented().into_iter().filter(|entry| entry.comment.contains("Mandatory.")).map(|entry| entry.key).collect();
    mandatory.insert("bitcoind.cookie_file".to_owned()); // or a user
    assert_eq!(missing, mandatory);
}

#[test]
fn every_fault_is_reported_at_once_with_line_and_column() {
    let text = SMALL
        .replace("network = \"regtest\"", "netwrok = \"regtest\"\nfinality_depth = 101")
        .replace("data_dir = \"data\"", "data_dir = 7")
        + "[raft]\n  heartbeat_ms = \"fast\"\n[heath]\nmax_lag_blocks = 2\n";
    assert_eq!(
        complaints(&text),
        [
            "etc/onespend.toml:2:2: error: cluster.network: missing (it has no default)",
            "etc/onespend.toml:4:1: error: cluster.netwrok: unknown key (did you mean network?)",
            "etc/onespend.toml:5:18: error: cluster.finality_depth: 101 is out of bounds \
             (it must be within 1..=100)",
            "etc/onespend.toml:8:12: error: node.data_dir: is an integer (it must be a string)",
            "etc/onespend.toml:29:18: error: raft.heartbeat_ms: is a string (it must be an integer)",
            "etc/onespend.toml:30:2: error: heath: unknown section (did you mean [health]?)",
        ]
    );
}

#[test]
fn faults_of_syntax_have_a_place_too() {
    let lines = complaints("[cluster]\nid = \nnetwork = \"regtest\"\nfinality_depth = = 6\n");
    assert!(lines.iter().any(|line| line.starts_with("etc/onespend.toml:2:")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("etc/onespend.toml:4:")), "{lines:#?}");
    let lines = complaints("[node]\nid = 1\nid = 2\n");
    assert!(lines.iter().any(|line| line.starts_with("etc/onespend.toml:3:")), "{lines:#?}");
    let lines = complaints("[node]\n# é\nid = 99999999999999999999\n");
    assert!(lines.iter().any(|line| line.contains("too large")), "{lines:#?}");
}

/// Changes to the small file, the key that is blamed, and a part of what is said.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    ("id = \"demo\"", "id = \"Demo\"", "cluster.id", "a-z"),
    ("\"regtest\"", "\"mainnet\"", "cluster.network", "bitcoin, testnet4"),
    ("id = 1\ndata_dir", "id = 4\ndata_dir", "node.id", "not among [[peers]]"),
    ("id = 1\ndata_dir", "id = 0\ndata_dir", "node.id", "out of bounds"),
    ("id = 1\ndata_dir", "id = -1\ndata_dir", "node.id", "out of bounds"),
    ("data_dir = \"data\"", "data_dir = \"\"", "node.data_dir", "empty"),
    ("data_dir = \"data\"", "data_dir = \"data\"\ntags = { zone = 1 }", "node.tags", "integer"),
    ("id = 2", "id = 1", "peers[1].id", "already"),
    ("10.0.0.2:7801", "10.0.0.1:7800", "peers[1].control", "peers[0].data already"),
    ("10.0.0.2:7800", "10.0.0.2:7801", "peers[1].data", "already"),
    ("10.0.0.2:7801", "0.0.0.0:7801", "peers[1].control", "others can reach"),
    ("10.0.0.2:7801", "10.0.0.2", "peers[1].control", "host:port"),
    ("[tls]", "[listen]\ndata = \"1.2.3.4:7801\"\n[tls]", "listen.control", "clashes"),
    ("[tls]", "[listen]\nhealth = \"1.2.3.4:0\"\n[tls]", "listen.health", "port 0"),
    ("[tls]", "[listen]\nhealth = \"everywhere\"\n[tls]", "listen.health", "IP address"),
    ("[tls]", "[raft]\nheartbeat_ms = 61\n[tls]", "raft.election_timeout_min_ms", "twice"),
    ("[tls]", "[raft]\nelection_timeout_max_ms = 120\n[tls]", "raft.election_timeout_max_ms", "tie"),
    ("[tls]", "[raft]\nheartbeat_ms = 4.5\n[tls]", "raft.heartbeat_ms", "is a float"),
    ("[tls]", "[raft]\nheartbeat_ms = 1979-05-27\n[tls]", "raft.heartbeat_ms", "is a date"),
    ("[tls]", "raft = 1\n[tls]", "peers[2].raft", "unknown key"),
    ("http://", "https://", "bitcoind.url", "no TLS"),
    ("http://127", "http://user:pass@127", "bitcoind.url", "credentials"),
    ("cookie_file = \"cookie\"", "", "bitcoind.cookie_file", "missing"),
    ("cookie_file = \"cookie\"", "user = \"u\"", "bitcoind.password_file", "missing"),
    ("cookie_file", "user = \"u\"\ncookie_file", "bitcoind.cookie_file", "one way"),
    ("[tls]", "[[signers]]\nname = \"a\"\nkind = \"hsm\"\nfile = \"f\"\n[tls]", "signers[0].kind", "software"),
    ("[tls]", "[[signers]]\nname = \"a\"\nkind = \"software\"\n[tls]", "signers[0].file", "missing"),
    (
        "[tls]",
        "[[signers]]\nname = \"a\"\nkind = \"software\"\nfile = \"f\"\nenv = \"E\"\n[tls]",
        "signers[0].file",
        "one source",
    ),
    (
        "[tls]",
        "[[signers]]\nname = \"a\"\nkind = \"software\"\nfile = \"f\"\n[[signers]]\nname = \"a\"\nkind = \"software\"\nfile = \"g\"\n[tls]",
        "signers[1].name",
        "already",
    ),
    (
        "[tls]",
        "[[signers]]\nname = \"a\"\nkind = \"software\"\nfile = \"f\"\nmemory = \"m\"\n[[signers]]\nname = \"b\"\nkind = \"software\"\nfile = \"g\"\nmemory = \"m\"\n[tls]",
        "signers[1].memory",
        "memory of signers[0] already",
    ),
    ("[tls]", "[log]\nfilter = \"a=b=c\"\n[tls]", "log.filter", "directives"),
    ("[tls]", "[log]\nformat = \"xml\"\n[tls]", "log.format", "human, json"),
    ("[tls]", "[telemetry]\notlp_endpoint = \"https://a:1\"\n[tls]", "telemetry.otlp_endpoint", "http://"),
    ("[tls]", "[shutdown]\ndrain_ms = 15000\n[tls]", "shutdown.deadline_ms", "not above"),
    ("[tls]", "[api]\nforward_writes = \"yes\"\n[tls]", "api.forward_writes", "boolean"),
    ("[tls]", "[api]\nmax_message_bytes = 1\n[tls]", "api.max_message_bytes", "out of bounds"),
];

#[test]
fn each_bad_value_is_refused_by_name_and_alone() {
    for (from, to, key, part) in REFUSED {
        assert!(SMALL.contains(from), "{from} is not in the small file");
        let text = SMALL.replacen(from, to, 1);
        let faults = parse(&text).expect_err(to);
        let errors: Vec<&Fault> = faults.errors().collect();
        let one = matches!(errors.as_slice(), [fault] if fault.key == *key);
        let said = faults.to_string().contains(part);
        assert!(one && said, "{to}: wanted only {key} … {part}, got:\n{faults}");
        assert_ne!(errors[0].place, Place::START, "{to}: {faults}");
    }
}

#[test]
fn doubtful_combinations_are_warned_about() {
    let two = SMALL.replace("[[peers]]\nid = 3\ncontrol = \"10.0.0.3:7801\"\ndata = \"10.0.0.3:7800\"\n", "");
    let config = parse(&two).unwrap();
    assert_eq!(config.peers.len(), 2);
    let says = |config: &Config, part: &str| {
        config.warnings.iter().any(|fault| fault.why.contains(part) || fault.what.contains(part))
    };
    assert!(says(&config, "two voters fail more often"), "{:?}", config.warnings);
    let mainnet = SMALL.replace("\"regtest\"", "\"bitcoin\"\nfinality_depth = 2")
        + "min_peers = 0\n[raft]\nheartbeat_ms = 50\nkeep_log_entries = 30000\n";
    let config = parse(&mainnet).unwrap();
    for part in ["2 on mainnet", "0 outside regtest", "three times", "30000 is above"] {
        assert!(says(&config, part), "{part}: {:?}", config.warnings);
    }
    assert_eq!(config.warnings.len(), 4);
}

/// safety 30: a memory that is put back with the log cannot tell that the log is old.
#[test]
fn a_memory_in_the_data_folder_is_warned_about_where_there_is_money() {
    let told = |network: &str, memory: &str| {
        let text = SMALL.replace("\"regtest\"", &format!("\"{network}\""))
            + "[[signers]]\nname = \"hot\"\nkind = \"software\"\nfile = \"hot.xprv\"\n"
            + memory;
        let warnings = parse(&text).unwrap().warnings;
        warnings.iter().filter(|fault| fault.key == "signers[0].memory").count()
    };
    assert_eq!(told("bitcoin", ""), 1, "the default lies there");
    assert_eq!(told("bitcoin", "memory = \"data/signers/hot.db\"\n"), 1);
    assert_eq!(told("bitcoin", "memory = \"signers/hot.db\"\n"), 0);
    assert_eq!(told("bitcoin", "memory = \"data-of-signers/hot.db\"\n"), 0);
    assert_eq!(told("regtest", ""), 0, "trials need no second place");
}

#[test]
fn the_environment_overrides_the_file_and_is_blamed_for_its_own_faults() {
    let set = [
        ("ONESPEND_NODE__ID", "2"),
        ("ONESPEND_CLUSTER__ID", "7"),
        ("ONESPEND_LOG__FORMAT", "json"),
        ("ONESPEND_LOG__FILTER", "\"debug\""),
        ("ONESPEND_API__FORWARD_WRITES", "false"),
        ("ONESPEND_NODE__TAGS", "{ zone = \"b\" }"),
        ("ONESPEND_SIGNER_HOT", "not a key: no double underscore"),
        ("UNRELATED__ID", "x"),
    ];
    let config = parse_with(SMALL, &set).unwrap();
    assert_eq!(config.node.id, 2);
    assert_eq!(config.cluster.id, "7", "a string stays what was written");
    assert_eq!(config.log.format, telemetry::LogFormat::Json);
    assert_eq!(config.log.filter, "debug");
    assert!(!config.api.forward_writes);
    assert_eq!(config.node.tags.get("zone").unwrap(), "b");

    let wrong = [
        ("ONESPEND_NODE__ID", "two"),
        ("ONESPEND_NODE__IDD", "2"),
        ("ONESPEND_NOD__ID", "2"),
        ("ONESPEND_PEERS__ID", "2"),
    ];
    let faults = parse_with(SMALL, &wrong).unwrap_err().to_string();
    assert_eq!(faults.lines().count(), 4, "{faults}");
    for (name, _) in wrong {
        let line = format!("environment:{name}: error: ");
        assert!(faults.contains(&line), "{name}: {faults}");
    }
}

#[test]
fn a_variable_that_holds_a_signers_keys_is_no_key_of_ours() {
    let text = format!("{SMALL}[[signers]]\nname = \"a\"\nkind = \"software\"\nenv = \"ONESPEND_S__X\"\n");
    let config = parse_with(&text, &[("ONESPEND_S__X", "xprv…")]).unwrap();
    assert_eq!(config.signers[0].keys, Some(SignerKeys::Environment("ONESPEND_S__X".into())));
    assert!(parse_with(SMALL, &[("ONESPEND_S__X", "xprv…")]).is_err());
}

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
    ("other key", |dir| copy(dir, "node-2.key", "node-1.key"), "tls.cert", "node-1.pem"),
    ("other cluster", |dir| other_cluster(dir), "tls.cert", "of cluster \"other\""),
    ("other authority", |dir| other_authority(dir), "tls.cert", "node-1.pem"),
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
fn a_bitcoind_that_was_not_started_yet_and_old_certificates_are_warnings() {
    let (folder, file) = folder();
    fs::remove_file(folder.path().join("cookie")).unwrap();
    for end in ["pem", "key"] {
        fs::remove_file(folder.path().join(format!("node-1.{end}"))).unwrap();
    }
    pki::issue(folder.path(), Kind::Node, "1", &[], 3).unwrap();
    let report = check(&file);
    assert_eq!((report.exit_code, report.lines.len()), (0, 2), "{report:?}");
    assert!(report.lines[0].contains("warning: tls.cert: expires in 2 days"), "{report:?}");
    assert!(report.lines[1].contains("warning: bitcoind.cookie_file: "), "{report:?}");
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

mod any_text {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

        /// Whatever is written, the answer is a configuration or a list of faults.
        #[test]
        fn never_panics(text in "(\\[[a-z]{0,8}\\]\n|[a-z_]{1,12} ?= ?[-0-9a-z\"{}\\[\\],.é]{0,9}\n|\\PC{0,9}){0,12}") {
            prop_assert!(parse(&text).is_err());
        }

        /// Damage anywhere in a good file does not panic either.
        #[test]
        fn damage_never_panics(at in 0..SAMPLE.len(), with in "\\PC{0,3}") {
            let mut text = SAMPLE.to_owned();
            if text.is_char_boundary(at) {
                text.insert_str(at, &with);
            }
            let _ = parse(&text);
        }
    }
}
