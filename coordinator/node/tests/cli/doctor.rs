//! What the doctor sees.

use std::net::TcpListener;

use bitcoin::Network;
use onespend_adapters::signer::memory::{self, Memory};
use onespend_adapters::store::sqlite::{DataFolder, SqliteState};
use onespend_adapters::store::{Owner, RowBatch, StateStore as _};
use serde_json::Value;

use crate::bitcoind::{bitcoind, bitcoind_of, locked_bitcoind, pruned_bitcoind, serve};
use crate::files::write_config;
use crate::node::Node;
use crate::run::{Authority, Ended, onespend};

/// Three addresses where nobody listens.
fn free() -> [String; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().to_string())
}

fn doctor(authority: &Authority, ports: [String; 3], bitcoind: &str) -> Ended {
    std::fs::write(authority.file("cookie"), "__cookie__:secret").unwrap();
    let file = write_config(authority.path(), ports, bitcoind);
    onespend(&["-o", "json", "doctor", "--config", file.to_str().unwrap()])
}

/// Findings of one area, as level and text.
fn about(ended: &Ended, area: &str) -> Vec<(String, String)> {
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    let findings = ended.json()["findings"].as_array().unwrap().clone();
    let of_area = findings.iter().filter(|finding| finding["area"] == area);
    of_area.map(|finding| (text(finding, "level"), text(finding, "what"))).collect()
}

#[test]
fn a_healthy_machine_has_no_failures() {
    let authority = Authority::new();
    let ended = doctor(&authority, free(), &bitcoind(false).to_string());
    let report = ended.json();
    assert_eq!(report["failures"], 0, "{report:#}");
    let areas =
        ["configuration", "certificates", "signers", "data_folder", "backups", "ports", "peers", "bitcoind", "clock"];
    for area in areas {
        assert!(about(&ended, area).iter().any(|(level, _)| level == "ok"), "{area}: {report:#}");
    }
    // A cluster of one is what the configuration warns about.
    assert!(about(&ended, "configuration").iter().any(|(level, _)| level == "warning"), "{report:#}");
    assert_eq!(ended.code, 1);
    assert!(!authority.file("data").exists(), "the doctor makes nothing");
}

#[test]
fn what_a_start_would_refuse_or_miss_is_found_before_it() {
    let authority = Authority::new();
    let file = write_config(authority.path(), free(), &bitcoind(false).to_string());
    let (data, memory, backups) = (authority.file("data"), authority.file("hot.db"), authority.file("backups"));
    DataFolder::open(&data, &Owner { cluster_id: "demo".to_owned(), node_id: 2 }).unwrap();
    let network = Network::Regtest;
    let owner = memory::Owner { cluster_id: "other".to_owned(), network, signer: "hot".to_owned() };
    drop(Memory::open(&memory, owner).unwrap());
    let text = std::fs::read_to_string(&file).unwrap();
    let more = format!(
        "[[signers]]\nname = 'hot'\nkind = 'software'\nfile = 'none'\nmemory = '{}'\n[backup]\nfolder = '{}'\n",
        memory.display(),
        backups.display()
    );
    std::fs::write(&file, text + &more).unwrap();
    let look = || onespend(&["-o", "json", "doctor", "--config", file.to_str().unwrap()]).code(2);
    let says = |ended: &Ended, area: &str, level: &str, words: &str| {
        let found = about(ended, area);
        assert!(found.iter().any(|(is, what)| is == level && what.contains(words)), "{area}: {found:?}");
    };
    let ended = look();
    says(&ended, "data_folder", "failure", "belongs to node 2 of cluster \"demo\"");
    says(&ended, "signers", "failure", "belongs to signer hot of cluster other");
    says(&ended, "backups", "failure", "is not a folder");
    assert_eq!(about(&ended, "backups").len(), 1, "it is said once: {ended:?}");
    std::fs::create_dir(&backups).unwrap();
    says(&look(), "backups", "ok", "takes files of this user");
    assert_eq!(std::fs::read_dir(&backups).unwrap().count(), 0);
}

#[test]
fn a_used_folder_without_its_identity_is_no_new_one() {
    let authority = Authority::new();
    let data = authority.file("data");
    let folder = DataFolder::open(&data, &Owner { cluster_id: "demo".to_owned(), node_id: 1 }).unwrap();
    let state = SqliteState::open(&folder).unwrap();
    state.write(&RowBatch { marker: b"1".to_vec(), rows: Vec::new() }).unwrap();
    drop((state, folder));
    std::fs::remove_file(data.join("identity.json")).unwrap();
    let told = about(&doctor(&authority, free(), &bitcoind(false).to_string()), "data_folder");
    let is_told = |(level, what): &(String, String)| level == "failure" && what.contains("identity.json");
    assert!(told.iter().any(is_told), "{told:?}");
}

#[test]
fn a_bitcoind_that_is_too_old_is_a_warning() {
    let authority = Authority::new();
    let old = |major| {
        let ended = doctor(&authority, free(), &bitcoind_of(major, false).to_string());
        about(&ended, "bitcoind").iter().any(|(level, what)| level == "warning" && what.contains("older than"))
    };
    assert_eq!((old(29), old(30)), (true, false));
}

#[test]
fn a_bitcoind_that_throws_old_blocks_away_is_a_warning() {
    let authority = Authority::new();
    let pruned = |ended: &Ended| {
        let told = about(ended, "bitcoind");
        told.into_iter().find(|(_, what)| what.contains("pruned")).map(|(level, _)| level)
    };
    let ended = doctor(&authority, free(), &pruned_bitcoind(7).to_string());
    assert_eq!(pruned(&ended).as_deref(), Some("warning"), "{ended:?}");
    assert!(!authority.file("data").exists(), "the doctor makes nothing");
    assert_eq!(pruned(&doctor(&authority, free(), &bitcoind(false).to_string())), None);
}

#[test]
fn each_fault_has_a_remedy() {
    let authority = Authority::new();
    let strangers = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let ports = std::array::from_fn(|at| strangers[at].local_addr().unwrap().to_string());
    // Listeners that accept and say nothing would cost the doctor its patience; these hang up.
    for listener in strangers {
        std::thread::spawn(move || listener.incoming().for_each(drop));
    }
    let ended = doctor(&authority, ports, &locked_bitcoind().to_string());
    assert_eq!(ended.code, 2, "{ended:?}");
    assert_eq!(about(&ended, "ports").iter().filter(|(level, _)| level == "failure").count(), 3);
    let locked = about(&ended, "bitcoind");
    assert!(locked[0].0 == "failure" && locked[0].1.contains("credentials"), "{locked:?}");
    assert!(!ended.out.contains("secret"), "{}", ended.out);
    for finding in ended.json()["findings"].as_array().unwrap() {
        assert_eq!(finding["level"] == "ok", finding["remedy"].is_null(), "{finding}");
    }
    let text = onespend(&["doctor", "--config", authority.file("onespend.toml").to_str().unwrap()]).code(2).out;
    assert!(text.contains("FAILURE") && text.contains("remedy: "), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn a_cookie_that_is_missing_was_refused_by_nobody() {
    let authority = Authority::new();
    let file = write_config(authority.path(), free(), &bitcoind(false).to_string());
    let ended = onespend(&["-o", "json", "doctor", "--config", file.to_str().unwrap()]);
    let told: Vec<String> = about(&ended, "bitcoind").into_iter().map(|(_, what)| what).collect();
    let path = authority.file("cookie").display().to_string();
    let words = format!("bitcoind was not asked: cannot read the cookie file {path}: No such file");
    assert!(told.iter().any(|what| what.contains(&words)), "{told:?}");
    assert!(told.iter().all(|what| !what.contains("refused")), "{told:?}");
}

#[test]
fn a_node_that_runs_is_recognised_on_its_ports() {
    let authority = Authority::new();
    let (data, control) = (Node::start(&authority, 1), Node::start(&authority, 1));
    let health = serve(|head, _| {
        assert!(head.starts_with("get /status "), "{head}");
        ("200 OK", r#"{"cluster_id":"demo","node_id":1}"#.to_owned())
    });
    let ports = [data.address().to_owned(), control.address().to_owned(), health.to_string()];
    let ended = doctor(&authority, ports, &bitcoind(true).to_string());
    let ports = about(&ended, "ports");
    assert_eq!(ports.len(), 3, "{ended:?}");
    assert!(ports.iter().all(|(level, what)| level == "ok" && what.contains("in use by this node")), "{ports:?}");
    assert!(
        about(&ended, "bitcoind").iter().all(|(_, what)| !what.contains("initial")),
        "a node takes no notice on regtest"
    );
}

#[test]
fn peers_are_told_apart() {
    let authority = Authority::new();
    let (second, third) = (Node::start(&authority, 2), Node::start(&authority, 3));
    std::fs::write(authority.file("cookie"), "a:b").unwrap();
    let file = write_config(authority.path(), free(), &bitcoind(false).to_string());
    let peers = |addresses: [&str; 2]| {
        let text = std::fs::read_to_string(&file).unwrap();
        let text: String = text.split("[[peers]]\nid = 2").next().unwrap().to_owned();
        let entry =
            |id: u64, address: &str| format!("[[peers]]\nid = {id}\ncontrol = '{address}'\ndata = '10.0.0.{id}:1'\n");
        std::fs::write(&file, format!("{text}{}{}", entry(2, addresses[0]), entry(3, addresses[1]))).unwrap();
        let ended = onespend(&["-o", "json", "doctor", "--config", file.to_str().unwrap()]);
        about(&ended, "peers")
    };
    let good = peers([second.address(), third.address()]);
    assert!(good.len() == 2 && good.iter().all(|(level, what)| level == "ok" && what.contains("answers")), "{good:?}");
    let swapped = peers([third.address(), "127.0.0.1:9"]);
    assert!(swapped[0].0 == "failure" && swapped[0].1.contains("spiffe://demo/node/3"), "{swapped:?}");
    assert!(swapped[1].0 == "warning" && swapped[1].1.contains("no connection"), "{swapped:?}");
}

#[test]
fn a_file_that_cannot_be_read_is_all_there_is_to_say() {
    let ended = onespend(&["-o", "json", "doctor", "--config", "/no/such/file"]).code(2);
    assert_eq!(ended.json()["failures"], 1);
}
