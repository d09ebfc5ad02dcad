//! A file of `docs/deploy` with real addresses in it.
//!
//! The files are whole as they are, for nodes at 10.0.0.1, 10.0.0.2 and 10.0.0.3, and name each node in lines of its own.
//! What is put in is found by its whole text, so that a file which is written another way fails here instead of running
//! with addresses that nobody has.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Result, bail, ensure};

use super::Backend;
use crate::cluster::Credentials;

/// Nodes that the files name.
const NAMED: usize = 3;
/// What must not be left where it is not a comment.
const PLACEHOLDERS: [&str; 4] = ["10.0.0.", "0.0.0.0", "/etc/haproxy/", "/etc/envoy/"];

/// What is put in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places<'a> {
    /// Instead of port 7800 of every address.
    pub(super) primary: SocketAddr,
    /// Instead of port 7810 of every address.
    pub(super) read_only: SocketAddr,
    /// The nodes.
    pub(super) backends: &'a [Backend],
    /// The balancer's own certificate and key, and the authority, if it has any.
    pub(super) own: Option<&'a Credentials>,
    /// Certificate and key in one file.
    pub(super) both: &'a Path,
}

/// The file with everything put in. Comments stay as they are.
///
/// # Errors
/// It names a node in another way than the first, has no front end, or something was left that only an example has.
pub(super) fn fill(text: &str, places: &Places<'_>) -> Result<String> {
    let mut filled = String::new();
    let mut fronts = 0;
    for line in for_nodes(text, places.backends.len())? {
        if line.trim_start().starts_with('#') {
            filled.extend([line.as_str(), "\n"]);
            continue;
        }
        let mut line = line;
        for (example, real) in nodes(places.backends).into_iter().chain(files(places)) {
            line = line.replace(&example, &real);
        }
        for (example, real) in front_ends(places) {
            if line.contains(&example) {
                line = line.replace(&example, &real);
                fronts += 1;
            }
        }
        if let Some(left) = PLACEHOLDERS.iter().find(|left| line.contains(**left)) {
            bail!("{left} is left in {line:?}");
        }
        filled.extend([line.as_str(), "\n"]);
    }
    ensure!(fronts > 0, "there is no front end on port 7800");
    Ok(filled)
}

/// The lines, with as many for nodes as there are: those of the first node are the pattern.
fn for_nodes(text: &str, count: usize) -> Result<Vec<String>> {
    let of = |line: &str, node: usize| {
        line.replace("10.0.0.1", &format!("10.0.0.{node}")).replace("node-1", &format!("node-{node}"))
    };
    let mut lines = Vec::new();
    let mut others: Vec<String> = Vec::new();
    for line in text.lines() {
        let is_code = !line.trim_start().starts_with('#');
        if is_code && line.contains("10.0.0.1") {
            ensure!(others.is_empty(), "{:?} is missing", others[0]);
            lines.extend((1..=count).map(|node| of(line, node)));
            others = (2..=NAMED).map(|node| of(line, node)).collect();
        } else if others.first().is_some_and(|other| other == line) {
            others.remove(0);
        } else {
            ensure!(others.is_empty(), "{line:?} stands where {:?} should", others[0]);
            lines.push(line.to_owned());
        }
    }
    ensure!(others.is_empty(), "{:?} is missing", others[0]);
    Ok(lines)
}

/// Longer texts first: each begins with the next.
fn nodes(backends: &[Backend]) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (node, Backend { data, health, agent, .. }) in (1..).zip(backends) {
        let example = format!("10.0.0.{node}");
        let (health_port, agent_port) = (health.port(), agent.port());
        pairs.extend([
            (
                format!("{example}:7800 port 7802 agent-port 7803"),
                format!("{data} port {health_port} agent-port {agent_port}"),
            ),
            (format!("{example}:7800 port 7802"), format!("{data} port {health_port}")),
            (format!("{example}:7800"), data.to_string()),
            (format!("address: {example}, port_value: 7800"), in_yaml(*data)),
            (format!("address: {example}, port_value: 7802"), in_yaml(*health)),
        ]);
    }
    pairs
}

fn files(places: &Places<'_>) -> Vec<(String, String)> {
    let shown = |path: &Path| path.display().to_string();
    let Some(own) = places.own else { return Vec::new() };
    [
        ("/etc/haproxy/balancer.pem", shown(places.both)),
        ("/etc/haproxy/ca.pem", shown(&own.ca)),
        ("/etc/envoy/balancer.pem", shown(&own.cert)),
        ("/etc/envoy/balancer.key", shown(&own.key)),
        ("/etc/envoy/ca.pem", shown(&own.ca)),
    ]
    .map(|(example, real)| (example.to_owned(), real))
    .to_vec()
}

fn front_ends(places: &Places<'_>) -> Vec<(String, String)> {
    let mut pairs = Vec::new();
    for (port, real) in [(7800, places.primary), (7810, places.read_only)] {
        pairs.extend([
            (format!("bind :{port}"), format!("bind {real}")),
            (format!("listen {port};"), format!("listen {real};")),
            (format!("address: 0.0.0.0, port_value: {port}"), in_yaml(real)),
        ]);
    }
    pairs
}

fn in_yaml(address: SocketAddr) -> String {
    format!("address: {}, port_value: {}", address.ip(), address.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::balancer::Kind;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn filled(text: &str, nodes: u16) -> Result<String> {
        let backend = |node: u16| Backend {
            name: format!("node-{node}"),
            data: at(20_000 + node),
            health: at(21_000 + node),
            agent: at(22_000 + node),
        };
        let backends: Vec<Backend> = (1..=nodes).map(backend).collect();
        let [ca, cert, key] = ["/x/ca", "/x/cert", "/x/key"].map(PathBuf::from);
        let own = Credentials { ca, cert, key };
        let both = Path::new("/x/both");
        fill(text, &Places { primary: at(30_001), read_only: at(30_002), backends: &backends, own: Some(&own), both })
    }

    #[test]
    fn every_deployed_file_takes_any_number_of_nodes() {
        for kind in Kind::ALL {
            let text = fs::read_to_string(kind.path()).unwrap();
            for nodes in [1, 3, 5] {
                let filled = filled(&text, nodes).unwrap();
                let count = |port: u16| filled.matches(&format!("{port}")).count();
                assert!(count(30_001) == 1 && count(20_000 + nodes) >= 1, "{kind:?}: {filled}");
                assert_eq!(count(20_000 + nodes + 1), 0, "{kind:?}: {filled}");
                // With as many nodes as the file names, every line is there.
                assert!(nodes != 3 || filled.lines().count() == text.lines().count(), "{kind:?}");
            }
        }
    }

    #[test]
    fn lines_keep_everything_but_the_addresses() {
        let text = "# 10.0.0.1:7800\nbind :7800\nserver node-1 10.0.0.1:7800 port 7802 agent-port 7803 x\n\
                    server node-2 10.0.0.2:7800 port 7802 agent-port 7803 x\n\
                    server node-3 10.0.0.3:7800 port 7802 agent-port 7803 x\ncrt /etc/haproxy/balancer.pem\n";
        let expected = "# 10.0.0.1:7800\nbind 127.0.0.1:30001\n\
                        server node-1 127.0.0.1:20001 port 21001 agent-port 22001 x\n\
                        server node-2 127.0.0.1:20002 port 21002 agent-port 22002 x\ncrt /x/both\n";
        assert_eq!(filled(text, 2).unwrap(), expected);
    }

    #[test]
    fn what_is_written_another_way_is_refused() {
        let three = "bind :7800\ns 10.0.0.1:7800\ns 10.0.0.2:7800\ns 10.0.0.3:7800\n";
        assert!(filled(three, 3).is_ok());
        for (from, to, why) in [
            ("s 10.0.0.2:7800\n", "s 10.0.0.2:7800 backup\n", "should"),
            ("s 10.0.0.3:7800\n", "", "is missing"),
            ("bind :7800", "bind :7900", "no front end"),
            ("10.0.0.", "10.0.0.0", "10.0.0."),
            ("bind :7800", "bind :7800 crt /etc/haproxy/other.pem", "/etc/haproxy/"),
        ] {
            let error = format!("{:#}", filled(&three.replace(from, to), 3).unwrap_err());
            assert!(error.contains(why), "{from} → {to}: {error}");
        }
    }
}
