//! Good files are read as written; bad ones are refused with every fault in its place.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod files;
mod sample;

use super::*;

const SAMPLE: &str = include_str!("../../../onespend.sample.toml");

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
    assert_eq!(config.raft.heartbeat.as_millis(), 30);
    assert_eq!(config.raft, RaftConfig::default());
    assert_eq!(config.listen.health.to_string(), "0.0.0.0:7802");
    assert_eq!(config.telemetry.otlp_endpoint, None);
    assert!(config.api.forward_writes);
    assert_eq!(config.this_peer().unwrap().control.https(), "https://10.0.0.1:7801");
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

/// A quote that is missing would else be followed by every key that could not be read.
#[test]
fn a_fault_of_syntax_is_not_followed_by_what_comes_of_it() {
    let lines = complaints(&SMALL.replace("id = \"demo\"", "id = \"demo"));
    assert!(!lines.is_empty());
    for line in lines {
        assert!(line.ends_with("(the file must be TOML)"), "{line}");
    }
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
    ("[tls]", "[listen]\nagent = \"1.2.3.4:0\"\n[tls]", "listen.agent", "port 0"),
    ("[tls]", "[listen]\nagent = \"7803\"\n[tls]", "listen.agent", "IP address"),
    ("[tls]", "[listen]\nagent = \"1.2.3.4:7802\"\n[tls]", "listen.agent", "socket of its own"),
    ("[tls]", "[raft]\nheartbeat_ms = 51\n[tls]", "raft.election_timeout_min_ms", "twice"),
    ("[tls]", "[raft]\nelection_timeout_max_ms = 100\n[tls]", "raft.election_timeout_max_ms", "tie"),
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
    ("[tls]", "[[checks]]\nname = \"a\"\nkind = \"disk\"\n[tls]", "checks[0].kind", "disk_free"),
    ("[tls]", "[[checks]]\nname = \"a\"\nkind = \"http\"\n[tls]", "checks[0].url", "missing"),
    ("[tls]", "[[checks]]\nname = \"a\"\nkind = \"http\"\nurl = \"https://a/\"\n[tls]", "checks[0].url", "no TLS"),
    ("[tls]", "[[checks]]\nname = \"a\"\nkind = \"command\"\nargv = [\"true\"]\n[tls]", "checks[0].argv", "absolute"),
    ("[tls]", "[[checks]]\nname = \"a\"\nkind = \"command\"\nargv = \"/bin/true\"\n[tls]", "checks[0].argv", "array"),
    (
        "[tls]",
        "[[checks]]\nname = \"a\"\nkind = \"memory\"\nmax_fsync_ms = 9\n[tls]",
        "checks[0].max_fsync_ms",
        "memory",
    ),
    (
        "[tls]",
        "[[checks]]\nname = \"a\"\nkind = \"error_rate\"\nmax_errors_percent = 100\n[tls]",
        "checks[0].max_errors_percent",
        "0..=99",
    ),
    ("[tls]", "[[checks]]\nname = \"memory\"\nkind = \"apply_lag\"\n[tls]", "checks[0].name", "taken"),
    ("[tls]", "[[checks]]\nname = \"a\"\nkind = \"memory\"\nfor = \"leader\"\n[tls]", "checks[0].for", "primary"),
    (
        "[tls]",
        "[[checks]]\nname = \"a\"\nkind = \"memory\"\n[[checks]]\nname = \"a\"\nkind = \"bitcoind\"\n[tls]",
        "checks[1].name",
        "checks[0] already",
    ),
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
    ("[tls]", "[backup]\nfolder = \"b\"\ns3_bucket = \"money\"\n[tls]", "backup.folder", "go to one place"),
    ("[tls]", "[backup]\ns3_prefix = \"a\"\n[tls]", "backup.s3_prefix", "without s3_bucket"),
    ("[tls]", "[backup]\ns3_endpoint = \"https://a\"\n[tls]", "backup.s3_endpoint", "without s3_bucket"),
    ("[tls]", "[backup]\ns3_credentials_file = \"c\"\n[tls]", "backup.s3_credentials_file", "without s3_bucket"),
    ("[tls]", "[backup]\ns3_bucket = \"Money\"\n[tls]", "backup.s3_bucket", "3 to 63"),
    ("[tls]", "[backup]\ns3_bucket = \"money\"\ns3_prefix = \"/a\"\n[tls]", "backup.s3_prefix", "one /"),
    ("[tls]", "[backup]\ns3_bucket = \"money\"\ns3_region = \"here & there\"\n[tls]", "backup.s3_region", "1 to 32"),
    ("[tls]", "[backup]\ns3_bucket = \"money\"\ns3_endpoint = \"a:9\"\n[tls]", "backup.s3_endpoint", "https://"),
    ("[tls]", "[backup]\ns3_bucket = \"money\"\ns3_endpoint = \"http://a\"\n[tls]", "backup.s3_endpoint", "allow_http"),
    ("[tls]", "[backup]\ns3_bucket = \"money\"\ns3_endpoint = \"https://a:b@c\"\n[tls]", "backup.s3_endpoint", "user"),
    ("[tls]", "[backup]\ns3_bucket = \"money\"\ns3_timeout_ms = 999\n[tls]", "backup.s3_timeout_ms", "out of bounds"),
    ("[tls]", "[backup]\ns3_bucket = \"money\"\ns3_retries = 11\n[tls]", "backup.s3_retries", "out of bounds"),
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
        + "min_peers = 0\n[raft]\nheartbeat_ms = 40\nkeep_log_entries = 30000\n";
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

#[test]
fn backups_go_to_a_folder_or_to_a_bucket_and_http_that_leaves_the_machine_is_warned_of() {
    use crate::backup::Place;
    use onespend_adapters::backup::S3Credentials;

    let of = |lines: &str| parse(&format!("{SMALL}[backup]\n{lines}")).unwrap();
    assert_eq!(of("").backup.place, None);
    assert_eq!(of("folder = \"b\"").backup.place, Some(Place::Folder("etc/b".into())));
    let Some(Place::S3(small)) = of("s3_bucket = \"money\"").backup.place else { panic!("no bucket") };
    assert_eq!((small.place.to_string().as_str(), small.region.as_str()), ("s3://money", "us-east-1"));
    assert_eq!((small.timeout.as_millis(), small.retries, small.allow_http), (60_000, 3, false));
    assert_eq!((small.endpoint, small.credentials), (None, S3Credentials::Environment));

    let lines = "s3_bucket = \"money\"\ns3_prefix = \"a/b\"\ns3_credentials_file = \"keys\"\ns3_allow_http = true\n";
    let near = of(&format!("{lines}s3_endpoint = \"http://127.0.0.1:9000\""));
    assert_eq!(near.warnings, []);
    let Some(Place::S3(near)) = near.backup.place else { panic!("no bucket") };
    assert_eq!(near.place.to_string(), "s3://money/a/b");
    assert_eq!(near.credentials, S3Credentials::File("etc/keys".into()));
    let far = of(&format!("{lines}s3_endpoint = \"http://10.0.0.9:9000\""));
    assert_eq!((far.warnings.len(), far.warnings[0].key.as_str()), (1, "backup.s3_endpoint"));
    let variable = [("ONESPEND_BACKUP__S3_BUCKET", "other-bucket")];
    let Some(Place::S3(by_variable)) = parse_with(SMALL, &variable).unwrap().backup.place else { panic!("no bucket") };
    assert_eq!(by_variable.place.bucket, "other-bucket");
}
