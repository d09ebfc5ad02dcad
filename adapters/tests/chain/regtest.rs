//! A real bitcoind on regtest in a temporary folder, ended when dropped.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{BlockHash, Script, Transaction, Txid};
use bitcoincore_rpc::{Auth, Client, RpcApi};
use onespend_adapters::chain::{Bitcoind, BitcoindAuth, BitcoindConfig, Chain};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::driver::Driver;

const START_LIMIT: Duration = Duration::from_mins(1);
const INDEX_LIMIT: Duration = Duration::from_secs(30);
pub const INDEXES: [&str; 2] = ["-txindex=1", "-txospenderindex=1"];

/// Where bitcoind is, or `None` if the tests that need it are to be skipped.
pub fn find_bitcoind() -> Option<PathBuf> {
    let named = std::env::var_os("BITCOIND_EXE").map(PathBuf::from);
    let on_path = || {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join("bitcoind")).find(|exe| exe.is_file())
    };
    let found = named.or_else(on_path);
    if found.is_none() {
        assert!(
            std::env::var_os("ONESPEND_SKIP_BITCOIND").is_some_and(|value| value == "1"),
            "no bitcoind: name one in BITCOIND_EXE, or set ONESPEND_SKIP_BITCOIND=1 to skip"
        );
        eprintln!("SKIPPED: no bitcoind, and ONESPEND_SKIP_BITCOIND=1");
    }
    found
}

pub struct Regtest {
    exe: PathBuf,
    dir: TempDir,
    port: u16,
    args: Vec<String>,
    child: Option<Child>,
}

impl Regtest {
    /// A running node that answers. `None` if bitcoind is to be skipped.
    pub fn start(args: &[&str]) -> Option<Self> {
        let mut node = Self {
            exe: find_bitcoind()?,
            dir: tempfile::tempdir().unwrap(),
            port: free_port(),
            args: args.iter().map(ToString::to_string).collect(),
            child: None,
        };
        node.launch(&[]);
        node.wait_until_ready();
        Some(node)
    }

    /// Starts the process again; waits for nothing.
    pub fn launch(&mut self, more: &[&str]) {
        assert!(self.child.is_none(), "bitcoind runs already");
        let child = Command::new(&self.exe)
            .arg(format!("-datadir={}", self.dir.path().display()))
            .arg(format!("-rpcport={}", self.port))
            .args(["-regtest", "-server", "-listen=0", "-connect=0", "-printtoconsole=0"])
            .args(["-rpcbind=127.0.0.1", "-rpcallowip=127.0.0.1", "-dbcache=16"])
            .args(&self.args)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    pub fn wait_until_ready(&mut self) {
        let start = Instant::now();
        while self.try_rpc("getblockchaininfo", &[]).is_err() {
            assert!(start.elapsed() < START_LIMIT, "bitcoind does not answer");
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "bitcoind ended: {ended:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks it to stop and waits.
    pub fn stop(&mut self) {
        self.rpc("stop", &[]);
        self.child.take().unwrap().wait().unwrap();
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn cookie_file(&self) -> PathBuf {
        self.dir.path().join("regtest/.cookie")
    }

    pub fn config(&self) -> BitcoindConfig {
        BitcoindConfig::new(self.url(), BitcoindAuth::CookieFile(self.cookie_file()))
    }

    pub fn adapter(&self) -> Bitcoind {
        Bitcoind::new(self.config(), None).unwrap()
    }

    /// Sends a signal by its shell name, such as STOP.
    pub fn signal(&self, name: &str) {
        let pid = self.child.as_ref().unwrap().id();
        let done = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status();
        assert!(done.unwrap().success());
        // It is on its way when `kill` returns: a thread that runs may answer one more call.
        while name == "STOP" && !is_stopped(pid) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn rpc(&self, method: &str, args: &[Value]) -> Value {
        self.try_rpc(method, args).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn try_rpc(&self, method: &str, args: &[Value]) -> Result<Value, bitcoincore_rpc::Error> {
        Client::new(&self.url(), Auth::CookieFile(self.cookie_file()))?.call(method, args)
    }

    /// Indexes follow blocks on a thread of their own.
    fn wait_for_indexes(&self) {
        let start = Instant::now();
        loop {
            let tip = self.rpc("getblockcount", &[]);
            let indexes = self.rpc("getindexinfo", &[]);
            let behind = |index: &Value| index["synced"] != json!(true) || index["best_block_height"] != tip;
            if !indexes.as_object().unwrap().values().any(behind) {
                return;
            }
            assert!(start.elapsed() < INDEX_LIMIT, "indexes stay behind: {indexes}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Regtest {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Driver for Regtest {
    fn chain(&self) -> Arc<dyn Chain> {
        Arc::new(self.adapter())
    }

    fn mine(&self, count: u32, script: &Script) -> Vec<BlockHash> {
        let mined = self.rpc("generatetodescriptor", &[json!(count), json!(raw(script))]);
        self.wait_for_indexes();
        serde_json::from_value(mined).unwrap()
    }

    fn mine_with(&self, txs: &[Transaction], script: &Script) -> BlockHash {
        let txs: Vec<String> = txs.iter().map(serialize_hex).collect();
        let mined = self.rpc("generateblock", &[json!(raw(script)), json!(txs)]);
        self.wait_for_indexes();
        serde_json::from_value(mined["hash"].clone()).unwrap()
    }

    fn invalidate(&self, hash: BlockHash) {
        self.rpc("invalidateblock", &[json!(hash)]);
    }

    fn reconsider(&self, hash: BlockHash) {
        self.rpc("reconsiderblock", &[json!(hash)]);
    }

    fn prefer(&self, hash: BlockHash) {
        self.rpc("preciousblock", &[json!(hash)]);
    }

    fn mempool(&self) -> BTreeSet<Txid> {
        serde_json::from_value(self.rpc("getrawmempool", &[])).unwrap()
    }
}

fn raw(script: &Script) -> String {
    format!("raw({})", script.to_hex_string())
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whether every thread of a process is stopped. The state is the letter behind the name, which ends at the last bracket.
fn is_stopped(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok()).all(|stat| {
        let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
        state == Some("T")
    })
}
