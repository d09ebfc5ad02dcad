//! Commands that need no cluster: certificates, configuration files, completions and man pages.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::run::onespend;

#[test]
fn pki_makes_an_authority_and_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("pki");
    let dir = dir.to_str().unwrap();
    onespend(&["pki", "init", "--cluster", "demo", "--dir", dir]).code(0);
    let hosts = ["--host", "10.0.0.1", "--host", "node-1.example.org"];
    let issue = [&["-o", "json", "pki", "issue", "node", "1", "--dir", dir], &hosts[..]].concat();
    let issued = onespend(&issue).code(0).json();
    assert_eq!(issued["cert"], format!("{dir}/node-1.pem"));
    let key = std::fs::metadata(issued["key"].as_str().unwrap()).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    onespend(&["pki", "issue", "client", "payouts", "--days", "30", "--dir", dir]).code(0);

    let again = onespend(&["pki", "issue", "client", "payouts", "--dir", dir]).code(2);
    assert!(again.err.contains("exists already") && again.err.contains("remedy: "), "{again:?}");
    for wrong in [
        &["pki", "issue", "client", "other", "--host", "10.0.0.1", "--dir", dir][..],
        &["pki", "issue", "node", "first", "--dir", dir],
        &["pki", "issue", "node", "2", "--days", "0", "--dir", dir],
        &["pki", "issue", "root", "x", "--dir", dir],
        &["pki", "issue", "client", "other", "--dir", "/no/such/folder"],
    ] {
        let refused = onespend(wrong).code(2);
        assert!(refused.out.is_empty() && !refused.err.is_empty(), "{refused:?}");
    }
}

const FAULTY: &str = r#"[cluster]
id = "Demo"
network = "regtest"
[node]
id = 1
data_dri = "data"
[[peers]]
id = 1
control = "0.0.0.0:7801"
data = "10.0.0.1:7800"
[tls]
ca = "ca.pem"
cert = "node-1.pem"
key = "node-1.key"
[bitcoind]
url = "https://127.0.0.1:18443"
cookie_file = "cookie"
[raft]
heartbeat_ms = "fast"
"#;

#[test]
fn config_check_names_every_fault_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("onespend.toml");
    std::fs::write(&file, FAULTY).unwrap();
    let name = file.to_str().unwrap();
    let checked = onespend(&["config", "check", name]).code(2);
    assert!(checked.err.is_empty(), "{checked:?}");
    let said = checked.out.replace(name, "FILE");
    let places: Vec<String> =
        said.lines().map(|line| line.split(": ").take(3).collect::<Vec<_>>().join(": ")).collect();
    for expected in [
        "FILE:2:6: error: cluster.id",
        "FILE:6:1: error: node.data_dri",
        "FILE:9:11: error: peers[0].control",
        "FILE:16:7: error: bitcoind.url",
        "FILE:19:16: error: raft.heartbeat_ms",
    ] {
        assert!(places.iter().any(|place| place == expected), "{expected} is missing in:\n{said}");
    }
    let summary = checked.lines().last().unwrap().to_string();
    assert!(summary.contains(" errors"), "{summary}");

    let json = onespend(&["-o", "json", "config", "check", name]).code(2).json();
    assert_eq!(json["ok"], false);
    let fault = json["faults"].as_array().unwrap().iter().find(|fault| fault["key"] == "node.data_dri").unwrap();
    assert_eq!((fault["line"].as_u64(), fault["column"].as_u64()), (Some(6), Some(1)));
    assert_eq!(fault["severity"], "error");
}

#[test]
fn config_check_sums_up_a_good_file() {
    let authority = crate::run::Authority::new();
    let file = write_config(authority.path(), [1, 2, 3].map(|port| format!("127.0.0.1:{port}")), "127.0.0.1:9");
    let checked = onespend(&["config", "check", file.to_str().unwrap()]).code(0);
    assert_eq!(
        checked.lines().last().unwrap(),
        &"ok: node 1 of cluster demo on regtest; 1 member; signers: none; 2 warnings"
    );
    let json = onespend(&["-o", "json", "config", "check", file.to_str().unwrap()]).code(0).json();
    assert_eq!((json["ok"].as_bool(), json["faults"].as_array().map(Vec::len)), (Some(true), Some(2)));
    let missing = onespend(&["config", "check", "/no/such/file"]).code(2);
    assert!(missing.out.contains("/no/such/file:1:1: error: cannot be read"), "{missing:?}");
}

#[test]
fn a_node_does_not_start_with_a_faulty_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("onespend.toml");
    std::fs::write(&file, FAULTY).unwrap();
    let refused = onespend(&["serve", "--config", file.to_str().unwrap()]).code(2);
    assert!(
        refused.err.contains(":6:1: error: node.data_dri") && refused.err.contains("does not start"),
        "{refused:?}"
    );
    onespend(&["serve"]).code(2);
}

#[test]
fn a_node_whose_port_is_in_use_says_which_and_what_to_look_at() {
    let authority = crate::run::Authority::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    // The data port is bound first, so the others do not matter.
    let ports = [address.clone(), "127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
    let file = write_config(authority.path(), ports, "127.0.0.1:9");
    let name = file.to_str().unwrap();
    let refused = onespend(&["serve", "--config", name]).code(1);
    assert!(refused.err.contains(&format!("binding listen.data {address}: Address already in use")), "{refused:?}");
    assert!(refused.err.contains(&format!("`onespend doctor --config {name}`")), "{refused:?}");
}

/// The configuration of node 1, with its certificate, listening on data, control and health as given.
pub fn write_config(pki: &Path, [data, control, health]: [String; 3], bitcoind: &str) -> std::path::PathBuf {
    let file = pki.join("onespend.toml");
    let text = format!(
        "[cluster]\nid = 'demo'\nnetwork = 'regtest'\n\
         [node]\nid = 1\ndata_dir = 'data'\n\
         [[peers]]\nid = 1\ncontrol = '{control}'\ndata = '{data}'\n\
         [listen]\ndata = '{data}'\ncontrol = '{control}'\nhealth = '{health}'\n\
         [tls]\nca = 'ca.pem'\ncert = 'node-1.pem'\nkey = 'node-1.key'\n\
         [bitcoind]\nurl = 'http://{bitcoind}'\ncookie_file = 'cookie'\nmin_peers = 0\n"
    );
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_command_without_a_cluster_minds_no_variable_and_takes_no_option_about_one() {
    let authority = crate::run::Authority::new();
    let file = write_config(authority.path(), [1, 2, 3].map(|port| format!("127.0.0.1:{port}")), "127.0.0.1:9");
    let name = file.to_str().unwrap();
    let variables = [
        ("ONESPEND_ENDPOINTS", "127.0.0.1:1,127.0.0.1:2"),
        ("ONESPEND_CONTROL", "127.0.0.1:3"),
        ("ONESPEND_PROFILE", "/no/such/folder"),
        ("ONESPEND_AS", "operator/alice"),
    ];
    crate::run::with_environment(&variables, &["config", "check", name]).code(0);
    let port = ["health", "--at", "127.0.0.1:9"];
    crate::run::with_environment(&variables, &port).code(4);
    let refused = onespend(&[&port[..], &["--endpoint", "127.0.0.1:1"]].concat()).code(2);
    assert!(refused.err.contains("`health` calls no cluster, so it takes no --endpoint"), "{refused:?}");
    onespend(&["config", "check", name, "--profile", "pki"]).code(2);
    let list = ["backup", "list", authority.path().to_str().unwrap()];
    crate::run::with_environment(&variables, &list).code(0);
    let refused = onespend(&[&list[..], &["--control", "127.0.0.1:3"]].concat()).code(2);
    assert!(refused.err.contains("`backup list` calls no cluster, so it takes no --control"), "{refused:?}");
}

#[test]
fn completions_and_man_pages_cover_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = onespend(&["completions", shell]).code(0);
        assert!(script.out.contains("payment") && script.out.contains("quarantined"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("man");
    onespend(&["man", dir.to_str().unwrap()]).code(0);
    for page in ["onespend.1", "onespend-pay.1", "onespend-pki-issue.1"] {
        assert!(dir.join(page).is_file(), "{page}");
    }
}

#[test]
fn help_names_the_exit_codes_and_wrong_usage_exits_2() {
    let help = onespend(&["--help"]).code(0);
    assert!(help.out.contains("3  outcome unknown"), "{}", help.out);
    assert!(onespend(&["--version"]).code(0).out.starts_with("onespend "));
    onespend(&[]).code(2);
    onespend(&["frobnicate"]).code(2);
    let typo = onespend(&["utxo", "list", "--wallet", "hot", "--state", "avialable"]).code(2);
    assert!(typo.err.contains("available") && typo.err.contains("immature"), "{typo:?}");
}
