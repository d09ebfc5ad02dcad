//! HAProxy with the files of `docs/deploy`, in front of fake nodes: a data port that says its name, a health port that
//! answers 200 or 503, and an agent that says a line.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use onespend_testnet::balancer::{Backend, Balancer, Kind};
use onespend_testnet::health;

const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// What a fake node answers on its health port.
#[derive(Default)]
struct Role {
    primary: AtomicBool,
    read_only: AtomicBool,
    /// What the agent says.
    line: Mutex<&'static str>,
    asked: Mutex<BTreeSet<String>>,
}

struct FakeNode {
    backend: Backend,
    role: Arc<Role>,
}

impl FakeNode {
    fn start(name: &'static str) -> Self {
        let data = TcpListener::bind("127.0.0.1:0").unwrap();
        let health = TcpListener::bind("127.0.0.1:0").unwrap();
        let agent = TcpListener::bind("127.0.0.1:0").unwrap();
        let [data_at, health_at, agent_at] = [&data, &health, &agent].map(|socket| socket.local_addr().unwrap());
        let backend = Backend { name: name.to_owned(), data: data_at, health: health_at, agent: agent_at };
        let role = Arc::new(Role::default());
        thread::spawn(move || {
            for stream in data.incoming() {
                say_name(stream.unwrap(), name);
            }
        });
        let answers = Arc::clone(&role);
        thread::spawn(move || {
            for stream in health.incoming() {
                answer_check(stream.unwrap(), &answers);
            }
        });
        let answers = Arc::clone(&role);
        thread::spawn(move || {
            for stream in agent.incoming() {
                let _gone = stream.unwrap().write_all(answers.line.lock().unwrap().as_bytes());
            }
        });
        Self { backend, role }
    }

    fn say(&self, line: &'static str) {
        *self.role.line.lock().unwrap() = line;
    }

    fn set(&self, primary: bool, read_only: bool) {
        self.role.primary.store(primary, Ordering::SeqCst);
        self.role.read_only.store(read_only, Ordering::SeqCst);
    }
}

/// Says its name and keeps the connection, like a node with an open stream.
fn say_name(mut stream: TcpStream, name: &'static str) {
    thread::spawn(move || {
        let _gone = stream.write_all(format!("{name}\n").as_bytes());
        let _until_closed = stream.read(&mut [0; 1]);
    });
}

fn answer_check(mut stream: TcpStream, role: &Role) {
    let mut request = String::new();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while reader.read_line(&mut request).is_ok_and(|bytes| bytes > 2) {}
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let ok = match path.as_str() {
        "/primary" => role.primary.load(Ordering::SeqCst),
        "/livez" => true,
        "/read-only" => role.read_only.load(Ordering::SeqCst),
        _ => false,
    };
    role.asked.lock().unwrap().insert(path);
    let status = if ok { "200 OK" } else { "503 Service Unavailable" };
    let _gone = stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes());
}

/// Who answers behind a front end; `None` if nobody does.
fn who(front: SocketAddr) -> Option<(String, TcpStream)> {
    let stream = TcpStream::connect(front).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut line = String::new();
    BufReader::new(stream.try_clone().ok()?).read_line(&mut line).ok()?;
    (!line.is_empty()).then(|| (line.trim().to_owned(), stream))
}

fn wait_for(front: SocketAddr, wanted: Option<&str>) -> Option<TcpStream> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = who(front);
        if found.as_ref().map(|(name, _)| name.as_str()) == wanted {
            return found.map(|(_, stream)| stream);
        }
        assert!(Instant::now() < deadline, "{wanted:?} wanted, {found:?} found");
        thread::sleep(POLL);
    }
}

#[test]
fn connections_follow_the_primary_and_old_ones_are_cut() {
    for kind in [Kind::Haproxy, Kind::Envoy] {
        follow_the_primary(kind);
    }
}

fn follow_the_primary(kind: Kind) {
    let folder = tempfile::tempdir().unwrap();
    let nodes = ["node-1", "node-2", "node-3"].map(FakeNode::start);
    nodes[0].set(true, true);
    nodes[1].set(false, true);
    nodes[2].set(false, true);
    let backends = nodes.each_ref().map(|node| node.backend.clone());
    let balancer = Balancer::start(kind, folder.path(), &backends, None).unwrap();

    let mut open = wait_for(balancer.primary(), Some("node-1")).unwrap();
    let readers: BTreeSet<String> = (0..30).filter_map(|_| who(balancer.read_only()).map(|(name, _)| name)).collect();
    assert_eq!(readers.len(), 3, "reads go everywhere: {readers:?}");

    nodes[0].set(false, true);
    nodes[1].set(true, true);
    wait_for(balancer.primary(), Some("node-2"));
    // The connection to the deposed one ends by itself, although that node is alive and says nothing.
    assert_eq!(open.read(&mut [0; 1]).unwrap_or(0), 0);

    for node in &nodes {
        node.set(false, false);
    }
    wait_for(balancer.primary(), None);
    wait_for(balancer.read_only(), None);
    let asked = nodes[2].role.asked.lock().unwrap().clone();
    assert_eq!(asked, BTreeSet::from(["/primary".to_owned(), "/read-only".to_owned()]));
}

/// A standby keeps the connections that it has; only one that is out of order loses them.
#[test]
fn the_agents_line_moves_new_connections_and_cuts_only_those_of_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = ["node-1", "node-2", "node-3"].map(FakeNode::start);
    let say = |lines: [&'static str; 3]| nodes.iter().zip(lines).for_each(|(node, line)| node.say(line));
    let standby = "up drain # NOT_LEADER\n";
    say(["up ready\n", standby, standby]);
    let backends = nodes.each_ref().map(|node| node.backend.clone());
    let balancer = Balancer::start(Kind::HaproxyAgent, folder.path(), &backends, None).unwrap();
    // Until every agent has been asked once, all servers take connections.
    let deadline = Instant::now() + PATIENCE;
    let everybody = || (0..6).filter_map(|_| who(balancer.primary()).map(|(name, _)| name)).collect::<BTreeSet<_>>();
    while everybody() != BTreeSet::from(["node-1".to_owned()]) {
        assert!(Instant::now() < deadline, "connections go to {:?}", everybody());
        thread::sleep(POLL);
    }
    let mut open = wait_for(balancer.primary(), Some("node-1")).unwrap();

    say([standby, "up ready\n", standby]);
    wait_for(balancer.primary(), Some("node-2"));
    open.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let silence = open.read(&mut [0; 1]).unwrap_err();
    assert!(matches!(silence.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "it was cut: {silence}");

    say(["ready down # QUORUM_LOST\n", "up ready\n", standby]);
    open.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(open.read(&mut [0; 1]).unwrap_or(0), 0);
    say(["ready down # NO_LEADER\n"; 3]);
    wait_for(balancer.primary(), None);
    say([standby, standby, "up ready\n"]);
    wait_for(balancer.primary(), Some("node-3"));
}

#[test]
fn the_health_client_reads_what_a_check_would() {
    let node = FakeNode::start("node-1");
    let status = |path| health::status(node.backend.health, path, PATIENCE);
    node.set(true, false);
    assert_eq!((status("/primary"), status("/read-only")), (200, 503));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(health::status(nobody, "/primary", PATIENCE), 0);
}
