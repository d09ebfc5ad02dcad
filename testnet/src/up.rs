//! `up` and `down`: a cluster that keeps running, for people and for tests of clients in other languages.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bitcoin::Amount;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::{Addresses, Cluster, Folder, Node};
use crate::hot;
use crate::leftovers;
use crate::programs;
use crate::progress::{Progress, say};

/// What the wallet gets.
const COINS: usize = 100;
const COIN: Amount = Amount::from_sat(1_000_000);
/// What `ready.txt` holds is what was printed: whoever waits for it waits for the whole cluster.
const READY: &str = "ready.txt";
const PID: &str = "up.pid";
const LOG: &str = "log";
const START_TIMEOUT: Duration = Duration::from_mins(3);
const STOP_TIMEOUT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// What to keep running.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Where everything lies.
    pub dir: PathBuf,
    /// A block every so many seconds; 0 for none.
    pub block_every_s: u64,
    /// Everything random follows from it.
    pub seed: u64,
}

/// Starts a cluster and keeps it until Ctrl-C, SIGTERM or `down`.
///
/// # Errors
/// One runs there already, or something does not come up.
pub fn run(plan: &Plan) -> Result<()> {
    ensure!(running(&plan.dir).is_none(), "a cluster runs in {} already: stop it with `make down`", plan.dir.display());
    say(&format!("seed {}", plan.seed));
    programs::check_all()?;
    let folder = Folder::named(&plan.dir)?;
    let dir = folder.path().to_path_buf();
    fs::write(dir.join(PID), std::process::id().to_string())?;
    let runtime = Runtime::new().context("no threads")?;
    let mut steps = Progress::steps();
    let mut cluster = Cluster::start(folder, plan.nodes, plan.seed, &mut |step| steps.step(step))?;
    steps.step("a wallet with coins");
    runtime.block_on(hot::prepare(&mut cluster, COINS, COIN))?;
    steps.finish();
    let pace = Duration::from_secs(plan.block_every_s);
    let miner = (plan.block_every_s > 0).then(|| cluster.start_miner(pace)).transpose()?;

    let nodes: Vec<Addresses> = cluster.nodes().iter().map(Node::addresses).collect();
    fs::write(dir.join("pki").join("endpoints"), endpoints(cluster.primary_address().port(), &nodes))?;
    let text = how_to_reach(&cluster, &dir, pace);
    say(&text);
    fs::write(dir.join("ready.new"), &text)?;
    fs::rename(dir.join("ready.new"), dir.join(READY))?;
    runtime.block_on(until_told_to_stop())?;
    say("stopping");
    drop(miner);
    fs::remove_file(dir.join(READY))?;
    cluster.finish()?;
    fs::remove_file(dir.join(PID))?;
    Ok(())
}

/// The same in the background: returns when the cluster is ready.
///
/// # Errors
/// It did not become ready; the message has its log.
pub fn run_detached(plan: &Plan) -> Result<()> {
    ensure!(running(&plan.dir).is_none(), "a cluster runs in {} already: stop it with `make down`", plan.dir.display());
    let dir = Folder::named(&plan.dir)?.path().to_path_buf();
    let log = dir.with_extension(LOG); // beside the folder, which the other process empties
    let out = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = Command::new(std::env::current_exe()?)
        .arg("up")
        .args(["--nodes", &plan.nodes.to_string(), "--seed", &plan.seed.to_string()])
        .args(["--block-every-s", &plan.block_every_s.to_string(), "--dir"])
        .arg(&dir)
        .stdin(Stdio::null())
        .stderr(out.try_clone()?)
        .stdout(out)
        .process_group(0)
        .spawn()?;
    let mut steps = Progress::steps();
    steps.step("starting a cluster in the background");
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Ok(text) = fs::read_to_string(dir.join(READY)) {
            steps.finish();
            say(&text);
            return Ok(());
        }
        let said = || fs::read_to_string(&log).unwrap_or_default();
        if let Some(status) = child.try_wait()? {
            bail!("it ended ({status}):\n{}", said());
        }
        if Instant::now() >= deadline {
            child.kill()?;
            bail!("it is not ready after {START_TIMEOUT:?}:\n{}", said());
        }
        thread::sleep(POLL);
    }
}

/// Stops what `up` started in `dir`, and the nodes there that somebody started again by hand. Nothing there is fine.
///
/// # Errors
/// It does not stop.
pub fn down(dir: &Path) -> Result<()> {
    let Some(pid) = running(dir) else {
        say(&format!("no cluster runs in {}", dir.display()));
        return leftovers::end(dir);
    };
    let status = Command::new("sh").args(["-c", "kill -s TERM \"$1\"", "kill", &pid.to_string()]).status()?;
    ensure!(status.success(), "cannot signal process {pid}");
    let deadline = Instant::now() + STOP_TIMEOUT;
    while running(dir) == Some(pid) {
        ensure!(Instant::now() < deadline, "process {pid} still runs after {STOP_TIMEOUT:?}");
        thread::sleep(POLL);
    }
    leftovers::end(dir)?;
    say("stopped");
    Ok(())
}

/// The process that keeps a cluster in `dir`. Process ids are used again, so its command line is looked at too.
fn running(dir: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(dir.join(PID)).ok()?.trim().parse().ok()?;
    if pid == std::process::id() {
        return None;
    }
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = command.split(|byte| *byte == 0);
    let program = String::from_utf8_lossy(words.next()?).into_owned();
    (program.ends_with("onespend-testnet") && words.next()? == b"up").then_some(pid)
}

async fn until_told_to_stop() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Makes the certificates' folder a profile of the command line, see `docs/src/cli.md`. The nodes come behind the
/// balancer, which hangs up while nobody leads: an older state can be read all the same.
fn endpoints(front: u16, nodes: &[Addresses]) -> String {
    let mut data = vec![format!("\"localhost:{front}\"")];
    data.extend(nodes.iter().map(|node| format!("\"{}\"", node.data)));
    let control: Vec<String> = nodes.iter().map(|node| format!("\"{}\"", node.control)).collect();
    format!("data = [{}]\ncontrol = [{}]\n", data.join(", "), control.join(", "))
}

fn how_to_reach(cluster: &Cluster, dir: &Path, pace: Duration) -> String {
    let client = cluster.client();
    let (ca, cert, key) = (client.ca.display(), client.cert.display(), client.key.display());
    let front = format!("localhost:{}", cluster.primary_address().port());
    let mut nodes = String::new();
    for node in cluster.nodes() {
        let (name, Addresses { data, control, health, .. }) = (node.name(), node.addresses());
        let _infallible = writeln!(nodes, "  {name}     data {data}   control {control}   health http://{health}");
    }
    let address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080"; // BIP 173's example key, on regtest
    let tls = format!("--ca {ca} --cert {cert} --key {key}");
    let blocks =
        if pace.is_zero() { "no blocks are mined".to_owned() } else { format!("a block every {} s", pace.as_secs()) };
    format!(
        "
A cluster of {count} nodes runs; {blocks}. Wallet \"{wallet}\" has {COINS} coins of {coin} sat.

  writes     {front}   (HAProxy, follows /primary)
  reads      localhost:{reads}   (HAProxy, follows /read-only)
{nodes}  files      {dir}
  client     {cert}
  operator   {operator}

Who leads:
  for port in {ports}; do curl -s localhost:$port/primary; echo; done
Pay by the command line:
  target/release/onespend pay --endpoint {front} {tls} --wallet {wallet} --payment-id first --to {address}=10000
Look at the cluster:
  target/release/onespend status --profile {dir}/pki --as operator/alice
Pay from Python (grpcio, generated from proto/ alone):
  $(testnet/python.sh) testnet/pay.py --endpoint {front} {tls} --wallet {wallet} --payment-id second --to {address} --amount-sat 10000
Stop it:
  make down",
        count = cluster.nodes().len(),
        wallet = hot::WALLET,
        coin = COIN.to_sat(),
        reads = cluster.read_only_address().port(),
        operator = cluster.operator().cert.display(),
        dir = dir.display(),
        ports = cluster.nodes().iter().map(|node| node.addresses().health.port().to_string()).collect::<Vec<_>>().join(" "),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn the_profile_names_every_node_behind_the_balancer() {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let nodes = [1, 11].map(|n| Addresses { data: at(n), control: at(n + 1), health: at(n + 2), agent: at(n + 3) });
        let wanted = r#"data = ["localhost:7", "127.0.0.1:1", "127.0.0.1:11"]
control = ["127.0.0.1:2", "127.0.0.1:12"]
"#;
        assert_eq!(endpoints(7, &nodes), wanted);
    }

    #[test]
    fn only_a_process_that_is_ours_counts_as_running() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(running(folder.path()), None);
        fs::write(folder.path().join(PID), "1").unwrap(); // init: alive, and not ours
        assert_eq!(running(folder.path()), None);
        down(folder.path()).unwrap();
    }
}
