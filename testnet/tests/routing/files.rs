//! That what runs is what `docs/deploy` says.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use onespend_testnet::balancer::{Backend, Balancer, Kind};
use onespend_testnet::cluster::Credentials;

/// How a line shows that something of its own was put in.
const EXAMPLES: [&str; 6] = ["10.0.0.", "bind :78", "listen 7800;", "0.0.0.0", "/etc/haproxy/", "/etc/envoy/"];

/// Nobody listens there: what the programs do with the file is tested elsewhere.
fn nowhere() -> [Backend; 3] {
    [1, 2, 3].map(|node: u16| {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port + node));
        Backend { name: format!("node-{node}"), data: at(10), health: at(20), agent: at(30) }
    })
}

fn credentials(folder: &Path) -> Credentials {
    let made = rcgen::generate_simple_self_signed(["onespend".to_owned()]).unwrap();
    let [ca, cert, key] = ["ca.pem", "client.pem", "client.key"].map(|name| folder.join(name));
    fs::write(&ca, made.cert.pem()).unwrap();
    fs::write(&cert, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    Credentials { ca, cert, key }
}

#[test]
fn what_runs_is_the_deployed_file_but_for_addresses_and_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let own = credentials(folder.path());
    for kind in Kind::ALL {
        let mut balancer = Balancer::start(kind, folder.path(), &nowhere(), Some(&own)).unwrap();
        let command = fs::read(format!("/proc/{}/cmdline", balancer.pid())).unwrap();
        let command = String::from_utf8(command).unwrap();
        let config = balancer.config().to_str().unwrap().to_owned();
        assert!(command.contains(&config), "{kind:?} runs {command:?}");
        let (runs, deployed) = (fs::read_to_string(&config).unwrap(), fs::read_to_string(kind.path()).unwrap());
        assert_eq!(runs.lines().count(), deployed.lines().count(), "{kind:?}");
        let mut put_in = 0;
        for (runs, deployed) in runs.lines().zip(deployed.lines()).filter(|(runs, deployed)| runs != deployed) {
            let is_example = EXAMPLES.iter().any(|example| deployed.contains(example));
            assert!(is_example, "{kind:?} runs {runs:?}, and not {deployed:?}");
            put_in += 1;
        }
        assert!(put_in >= 4, "{kind:?}: {put_in} lines");
        balancer.must_run().unwrap();
    }
}

#[test]
fn a_check_that_needs_a_certificate_does_not_start_without() {
    let folder = tempfile::tempdir().unwrap();
    for kind in [Kind::HaproxyGrpc, Kind::EnvoyGrpc] {
        let error = format!("{:#}", Balancer::start(kind, folder.path(), &nowhere(), None).unwrap_err());
        assert!(error.contains("is left in"), "{kind:?}: {error}");
    }
}
