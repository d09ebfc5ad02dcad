//! etcd under the same fault: three processes on this machine, callers that put a key over its JSON gateway and go to the
//! next endpoint when one fails, as quickly as the Rust client does. No TLS; its disks are real, as ours are.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{CALLERS, Figure, NODES};
use crate::cluster::Folder;
use crate::history::Nanos;
use crate::load::{Ack, DEADLINE, first_of_later_term};
use crate::ports::free_port;
use crate::process::Process;
use crate::progress::Progress;

const START_TIMEOUT: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_mins(1);
/// As one try of the Rust client.
const TRY_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const BACKOFF: Duration = Duration::from_millis(20);
const POLL: Duration = Duration::from_millis(5);
const MAX_ANSWER_BYTES: u64 = 64 * 1024;
/// A key for each caller; the gateway wants base64.
const KEYS: [&str; CALLERS] = ["MA==", "MQ==", "Mg==", "Mw=="];
/// Puts that must have been acknowledged before each fault.
const SETTLED: usize = 20;

/// Kills the leader so many times: from the kill to the first put of a later term.
///
/// # Errors
/// etcd does not come up or does not recover.
pub(super) fn measure(
    program: &Path,
    name: &'static str,
    heartbeat_ms: u64,
    election_ms: u64,
    rounds: usize,
) -> Result<Figure> {
    let mut folder = Folder::temporary(name)?;
    let mut cluster = Etcd::start(program, folder.path(), heartbeat_ms, election_ms)?;
    cluster.leader()?;
    let callers = Callers::start(&cluster.clients());
    let mut bar = Progress::count(name, u64::try_from(rounds)?);
    let mut times = Vec::new();
    for round in 0..rounds {
        let leader = cluster.whole()?;
        let term = callers.settled(callers.now())?;
        let from = callers.now();
        cluster.kill(leader)?;
        times.push(callers.wait_for_later_term(from, term)?.saturating_sub(from));
        cluster.restart(leader)?;
        bar.reach(u64::try_from(round + 1)?);
    }
    let failed = callers.end();
    folder.succeeded();
    Figure::of(&times, failed)
}

struct Member {
    client: SocketAddr,
    args: Vec<String>,
    log: PathBuf,
    process: Option<Process>,
}

struct Etcd {
    program: PathBuf,
    members: Vec<Member>,
}

impl Etcd {
    fn start(program: &Path, folder: &Path, heartbeat_ms: u64, election_ms: u64) -> Result<Self> {
        let listen = || -> Result<SocketAddr> { Ok(SocketAddr::from(([127, 0, 0, 1], free_port()?))) };
        let ports = (0..NODES).map(|_| Ok((listen()?, listen()?))).collect::<Result<Vec<_>>>()?;
        let named = ports.iter().enumerate().map(|(at, (_, peer))| format!("etcd-{at}=http://{peer}"));
        let all = named.collect::<Vec<_>>().join(",");
        let mut cluster = Self { program: program.to_path_buf(), members: Vec::new() };
        for (at, (client, peer)) in ports.iter().enumerate() {
            let data = folder.join(format!("etcd-{at}")).display().to_string();
            let (client_url, peer_url) = (format!("http://{client}"), format!("http://{peer}"));
            let (name, heartbeat, election) = (format!("etcd-{at}"), heartbeat_ms.to_string(), election_ms.to_string());
            let options = [
                ("--name", &name),
                ("--data-dir", &data),
                ("--listen-client-urls", &client_url),
                ("--advertise-client-urls", &client_url),
                ("--listen-peer-urls", &peer_url),
                ("--initial-advertise-peer-urls", &peer_url),
                ("--initial-cluster", &all),
                ("--heartbeat-interval", &heartbeat),
                ("--election-timeout", &election),
            ];
            let args = options.iter().flat_map(|(key, value)| [(*key).to_owned(), (*value).clone()]).collect();
            let log = folder.join(format!("etcd-{at}.log"));
            cluster.members.push(Member { client: *client, args, log, process: None });
        }
        (0..NODES).try_for_each(|at| cluster.restart(at))?;
        Ok(cluster)
    }

    fn clients(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.client).collect()
    }

    fn restart(&mut self, at: usize) -> Result<()> {
        let member = self.members.get_mut(at).context("no such member")?;
        let name = format!("etcd-{at}");
        member.process = Some(Process::spawn(&name, &self.program, &member.args, &member.log)?);
        Ok(())
    }

    fn kill(&mut self, at: usize) -> Result<()> {
        let process = self.members.get_mut(at).and_then(|member| member.process.take());
        process.context("it is down")?.kill().map(drop)
    }

    /// Index of the leader, once there is one.
    fn leader(&mut self) -> Result<usize> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let leads = |client: SocketAddr| status(client).is_some_and(|(own, leader)| own == leader);
            if let Some(at) = self.members.iter().position(|member| leads(member.client)) {
                return Ok(at);
            }
            for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
                process.must_run()?;
            }
            ensure!(Instant::now() < deadline, "etcd has no leader after {START_TIMEOUT:?}");
            thread::sleep(POLL);
        }
    }

    /// Waits until every member follows the leader: its index.
    fn whole(&mut self) -> Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let at = self.leader()?;
            let seen: Vec<_> =
                self.members.iter().map(|member| status(member.client).map(|(_, leader)| leader)).collect();
            if seen.iter().all(|leader| leader.is_some() && *leader == seen[at]) {
                return Ok(at);
            }
            ensure!(Instant::now() < deadline, "etcd's members follow {seen:?} after {PATIENCE:?}");
            thread::sleep(POLL);
        }
    }
}

/// A member's id and that of its leader; `None` while it has none.
fn status(client: SocketAddr) -> Option<(String, String)> {
    let answer = post(client, "/v3/maintenance/status", &json!({})).ok()?;
    let leader = answer["leader"].as_str().filter(|leader| *leader != "0")?;
    Some((answer["header"]["member_id"].as_str()?.to_owned(), leader.to_owned()))
}

struct Seen {
    began: Instant,
    stop: AtomicBool,
    acks: Mutex<Vec<Ack>>,
    failed: AtomicU64,
}

impl Seen {
    fn now(&self) -> Nanos {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }
}

struct Callers {
    seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
}

impl Callers {
    fn start(endpoints: &[SocketAddr]) -> Self {
        let (stop, acks, failed) = (AtomicBool::new(false), Mutex::default(), AtomicU64::new(0));
        let seen = Arc::new(Seen { began: Instant::now(), stop, acks, failed });
        let threads = (0..CALLERS).map(|number| {
            let (seen, endpoints) = (Arc::clone(&seen), endpoints.to_vec());
            thread::spawn(move || put_in_a_loop(number, &endpoints, &seen))
        });
        Self { threads: threads.collect(), seen }
    }

    fn now(&self) -> Nanos {
        self.seen.now()
    }

    /// Waits for some acknowledgements after `since`: their highest term.
    fn settled(&self, since: Nanos) -> Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let acks = self.acks_after(since);
            if acks.len() >= SETTLED {
                return acks.iter().map(|ack| ack.term).max().context("no acknowledgement");
            }
            ensure!(Instant::now() < deadline, "{} puts in {PATIENCE:?}", acks.len());
            thread::sleep(POLL);
        }
    }

    fn wait_for_later_term(&self, from: Nanos, term: u64) -> Result<Nanos> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = first_of_later_term(&self.acks_after(from), from, term) {
                return Ok(at);
            }
            ensure!(Instant::now() < deadline, "no put of a term after {term} after {PATIENCE:?}");
            thread::sleep(POLL);
        }
    }

    fn acks_after(&self, since: Nanos) -> Vec<Ack> {
        let acks = self.seen.acks.lock().unwrap_or_else(PoisonError::into_inner);
        acks.iter().rev().take_while(|ack| ack.at_ns >= since).copied().collect()
    }

    /// Stops them: how many requests failed.
    fn end(mut self) -> u64 {
        self.seen.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _it_panicked = thread.join();
        }
        self.seen.failed.load(Ordering::SeqCst)
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.seen.stop.store(true, Ordering::SeqCst);
    }
}

/// Puts the caller's key, over and over. A request goes to the endpoint that answered last, and to the next in turn when
/// that fails.
fn put_in_a_loop(number: usize, endpoints: &[SocketAddr], seen: &Seen) {
    let mut at = number;
    let put = json!({ "key": KEYS.get(number), "value": "dmFsdWU=" });
    let mut asked: Option<(Instant, Nanos, bool)> = None;
    while !seen.stop.load(Ordering::SeqCst) {
        let (since, asked_ns, failed) = *asked.get_or_insert_with(|| (Instant::now(), seen.now(), false));
        let endpoint = endpoints.get(at % endpoints.len().max(1)).copied();
        let answer = endpoint.map(|endpoint| post(endpoint, "/v3/kv/put", &put));
        let term = answer.and_then(Result::ok).and_then(|answer| answer["header"]["raft_term"].as_str()?.parse().ok());
        if let Some(term) = term {
            let mut acks = seen.acks.lock().unwrap_or_else(PoisonError::into_inner);
            // Under the lock, so that they are in the order of time.
            let at_ns = seen.now();
            acks.push(Ack { caller: number, asked_ns, at_ns, term });
            asked = None;
        } else {
            if !failed && since.elapsed() > DEADLINE {
                seen.failed.fetch_add(1, Ordering::SeqCst);
                asked = Some((since, asked_ns, true));
            }
            at += 1;
            thread::sleep(BACKOFF);
        }
    }
}

/// One question to etcd's JSON gateway. HTTP/1.0, so that the answer ends with the connection.
fn post(address: SocketAddr, path: &str, body: &Value) -> Result<Value> {
    let text = body.to_string();
    let mut stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(TRY_TIMEOUT))?;
    stream.set_write_timeout(Some(TRY_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let head = format!("POST {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n", text.len());
    stream.write_all((head + &text).as_bytes())?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER_BYTES).read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{path}: {}", head.lines().next().unwrap_or_default());
    }
    Ok(serde_json::from_str(body)?)
}
