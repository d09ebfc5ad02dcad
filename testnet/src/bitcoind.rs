//! One real bitcoind on regtest: no wallet, its own folder, peered with the others, RPC by cookie.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Block, BlockHash, Network, ScriptBuf, Transaction, consensus::encode};
use bitcoincore_rpc::{Client, RpcApi, jsonrpc};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::ports::free_port;
use crate::process::{Process, Signal};
use crate::programs;

const START_TIMEOUT: Duration = Duration::from_mins(1);
const STOP_GRACE: Duration = Duration::from_secs(30);
const SYNC_TIMEOUT: Duration = Duration::from_mins(1);
/// Above the longest call (mining hundreds of blocks): on a timeout the transport would send the call a second time.
const RPC_TIMEOUT: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(20);

/// How to call a bitcoind; may be handed to another thread.
#[derive(Clone, Debug)]
pub struct Caller {
    name: String,
    rpc: SocketAddr,
    cookie_file: PathBuf,
    timeout: Duration,
}

impl Caller {
    /// The same, but no answer is waited for longer than this. A call that takes longer may be sent twice.
    pub fn within(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// One RPC call on a connection of its own.
    ///
    /// # Errors
    /// bitcoind refused it, or does not answer.
    pub fn call<T: DeserializeOwned>(&self, method: &str, params: &[Value]) -> Result<T> {
        let answer = self.client()?.call(method, params);
        answer.with_context(|| format!("{method} on {}", self.name))
    }

    /// Takes the last `depth` blocks out of its chain, as if they were invalid, and so every branch that would then be the
    /// longest: one that was left earlier begins lower perhaps, and whoever mines on it takes back more than was asked
    /// for. Gives the blocks that are forbidden now, to be reconsidered once there is a longer chain.
    ///
    /// # Errors
    /// There are not so many blocks, or a call failed.
    pub fn take_back(&self, depth: u32) -> Result<Vec<BlockHash>> {
        let tip: u32 = self.call("getblockcount", &[])?;
        let height = tip.checked_sub(depth).with_context(|| format!("there are only {tip} blocks"))?;
        let base: BlockHash = self.call("getblockhash", &[json!(height)])?;
        let mut forbidden = Vec::new();
        while self.call::<BlockHash>("getbestblockhash", &[])? != base {
            let above = self.height_of_fork(base)? + 1;
            let block: BlockHash = self.call("getblockhash", &[json!(above)])?;
            self.call::<Value>("invalidateblock", &[json!(block)])?;
            forbidden.push(block);
        }
        Ok(forbidden)
    }

    /// The height of the last block that the active chain and the one with this block have in common.
    fn height_of_fork(&self, block: BlockHash) -> Result<u32> {
        let mut cursor = block;
        loop {
            let header: Value = self.call("getblockheader", &[json!(cursor)])?;
            if header["confirmations"].as_i64().context("a header without confirmations")? >= 0 {
                return Ok(u32::try_from(header["height"].as_u64().context("a header without height")?)?);
            }
            let previous = header["previousblockhash"].as_str().context("another genesis")?;
            cursor = previous.parse().context("not a block hash")?;
        }
    }

    fn client(&self) -> Result<Client> {
        let cookie = fs::read_to_string(&self.cookie_file).context("no cookie yet")?;
        let (user, password) = cookie.split_once(':').context("the cookie has no colon")?;
        let transport = jsonrpc::minreq_http::Builder::new()
            .url(&format!("http://{}", self.rpc))?
            .basic_auth(user.to_owned(), Some(password.to_owned()))
            .timeout(self.timeout)
            .build();
        Ok(Client::from_jsonrpc(jsonrpc::Client::with_transport(transport)))
    }
}

/// A bitcoind and how to reach it. Dropping it kills it; its folder stays.
#[derive(Debug)]
pub struct Bitcoind {
    name: String,
    folder: PathBuf,
    rpc_port: u16,
    p2p_port: u16,
    process: Option<Process>,
    peers: Vec<SocketAddr>,
    /// What its next starts are told beside the usual.
    options: Vec<String>,
}

impl Bitcoind {
    /// Starts one with a fresh chain in `folder` and waits until it answers.
    ///
    /// # Errors
    /// There is no bitcoind, or it does not come up; the message has the end of its log.
    pub fn start(name: &str, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut bitcoind = Self {
            name: name.to_owned(),
            folder: folder.to_path_buf(),
            rpc_port: free_port()?,
            p2p_port: free_port()?,
            process: None,
            peers: Vec::new(),
            options: Vec::new(),
        };
        bitcoind.restart()?;
        Ok(bitcoind)
    }

    /// Starts it again, with the same folder and ports, and connects it to its peers.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        let program = programs::bitcoind()?;
        let mut args = vec![
            "-regtest".to_owned(),
            format!("-datadir={}", self.folder.display()),
            format!("-rpcport={}", self.rpc_port),
            format!("-bind=127.0.0.1:{}", self.p2p_port),
            "-server".into(),
            "-listen=1".into(),
            "-connect=0".into(), // only whom we name
            // Peers are told of transactions at once instead of after seconds of random delay.
            "-whitelist=in,out,noban@127.0.0.1".into(),
            "-listenonion=0".into(),
            "-dnsseed=0".into(),
            "-fixedseeds=0".into(),
            "-natpmp=0".into(),
            "-dbcache=16".into(),
            "-maxmempool=50".into(),
            "-printtoconsole=0".into(),
        ];
        if has_spender_index(&program) {
            args.push("-txospenderindex=1".into());
        }
        args.extend(self.options.iter().cloned());
        // A cookie of the run before would be refused, and its file may be read before the new one is written.
        let _none_yet = fs::remove_file(self.cookie_file());
        let log = self.folder.join("output.log");
        self.process = Some(Process::spawn(&self.name, &program, &args, &log)?);
        self.wait_until_it_answers()?;
        self.connect_to_peers();
        Ok(())
    }

    /// The same with these options, now and at each further start.
    ///
    /// # Errors
    /// It does not come up.
    pub fn restart_with(&mut self, options: &[&str]) -> Result<()> {
        self.options = options.iter().map(|option| (*option).to_owned()).collect();
        self.restart()
    }

    /// Connects it to its peers, as far as they are there.
    fn connect_to_peers(&self) {
        for peer in &self.peers {
            let _it_may_be_down = self.call::<Value>("addnode", &[json!(peer), json!("onetry")]);
        }
    }

    /// Cuts it off from its peers, so that it falls behind, or connects it to them again.
    ///
    /// # Errors
    /// The call failed.
    pub fn set_network(&self, active: bool) -> Result<()> {
        self.call::<Value>("setnetworkactive", &[json!(active)])?;
        if active {
            self.connect_to_peers();
        }
        Ok(())
    }

    fn wait_until_it_answers(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(process) = &mut self.process {
                process.must_run()?;
            }
            match self.call::<u64>("getblockcount", &[]) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error.context(format!("{} does not answer after {START_TIMEOUT:?}", self.name)));
                }
                Err(_) => thread::sleep(POLL),
            }
        }
    }

    /// Connects it to `other`, now and after each restart of either.
    ///
    /// # Errors
    /// The call failed.
    pub fn peer_with(&mut self, other: &mut Bitcoind) -> Result<()> {
        self.call::<Value>("addnode", &[json!(other.p2p_address()), json!("onetry")])?;
        self.peers.push(other.p2p_address());
        other.peers.push(self.p2p_address());
        Ok(())
    }

    fn p2p_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.p2p_port))
    }

    /// Where its RPC is, for a node's configuration.
    pub fn rpc_address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.rpc_port))
    }

    /// Where it keeps the password of this run.
    pub fn cookie_file(&self) -> PathBuf {
        self.folder.join("regtest").join(".cookie")
    }

    /// Its process, to freeze it or to look at it; `None` while it is down.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// How to call it, for another thread.
    pub fn caller(&self) -> Caller {
        let (rpc, cookie_file) = (self.rpc_address(), self.cookie_file());
        Caller { name: self.name.clone(), rpc, cookie_file, timeout: RPC_TIMEOUT }
    }

    /// One RPC call on a connection of its own.
    ///
    /// # Errors
    /// bitcoind refused it, or does not answer.
    pub fn call<T: DeserializeOwned>(&self, method: &str, params: &[Value]) -> Result<T> {
        self.caller().call(method, params)
    }

    /// Mines blocks that pay `script` and returns their hashes.
    ///
    /// # Errors
    /// The script has no address, or the call failed.
    pub fn mine(&self, blocks: u32, script: &ScriptBuf) -> Result<Vec<BlockHash>> {
        let address = Address::from_script(script, Network::Regtest).context("no address for this script")?;
        self.call("generatetoaddress", &[json!(blocks), json!(address.to_string())])
    }

    /// The height of its tip.
    ///
    /// # Errors
    /// The call failed.
    pub fn height(&self) -> Result<u32> {
        self.call("getblockcount", &[])
    }

    /// The hash of its tip.
    ///
    /// # Errors
    /// The call failed.
    pub fn tip(&self) -> Result<BlockHash> {
        self.call("getbestblockhash", &[])
    }

    /// The block at `height` of its active chain.
    ///
    /// # Errors
    /// There is none, or the call failed.
    pub fn block_at(&self, height: u32) -> Result<Block> {
        let hash: BlockHash = self.call("getblockhash", &[json!(height)])?;
        let block: String = self.call("getblock", &[json!(hash), json!(0)])?;
        encode::deserialize_hex(&block).context("a block that does not parse")
    }

    /// The first `count` scripts of a descriptor with a wildcard and one branch, as this bitcoind derives them.
    ///
    /// # Errors
    /// It refuses the descriptor, or the call failed.
    pub fn scripts(&self, descriptor: &str, count: u32) -> Result<Vec<ScriptBuf>> {
        let known: Value = self.call("getdescriptorinfo", &[json!(descriptor)])?;
        let range = json!([0, count.saturating_sub(1)]);
        let addresses: Vec<Address<NetworkUnchecked>> =
            self.call("deriveaddresses", &[known["descriptor"].clone(), range])?;
        let scripts = addresses.into_iter().map(|one| Ok(one.require_network(Network::Regtest)?.script_pubkey()));
        scripts.collect()
    }

    /// Sends a transaction to its mempool.
    ///
    /// # Errors
    /// bitcoind refuses it.
    pub fn send(&self, transaction: &Transaction) -> Result<()> {
        self.call::<Value>("sendrawtransaction", &[json!(encode::serialize_hex(transaction))])?;
        Ok(())
    }

    /// Takes a block and all that follow out of its chain, as if they were invalid: the way to make a reorg.
    ///
    /// # Errors
    /// The call failed.
    pub fn invalidate(&self, block: BlockHash) -> Result<()> {
        self.call::<Value>("invalidateblock", &[json!(block)]).map(drop)
    }

    /// Takes [`Self::invalidate`] back.
    ///
    /// # Errors
    /// The call failed.
    pub fn reconsider(&self, block: BlockHash) -> Result<()> {
        self.call::<Value>("reconsiderblock", &[json!(block)]).map(drop)
    }

    /// SIGKILL. Nothing happens when it is down already.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.kill().map(drop))
    }

    /// Orderly stop.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn stop(&mut self) -> Result<()> {
        self.process.take().map_or(Ok(()), |mut process| process.stop(STOP_GRACE).map(drop))
    }

    /// Freezes it: its RPC hangs.
    ///
    /// # Errors
    /// It is down.
    pub fn freeze(&mut self) -> Result<()> {
        self.process.as_mut().context("it is down")?.signal(Signal::Stop)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// It is down.
    pub fn thaw(&mut self) -> Result<()> {
        self.process.as_mut().context("it is down")?.signal(Signal::Continue)
    }
}

/// Waits until all of them have the same tip.
///
/// # Errors
/// They do not within a minute; the message has their tips.
pub fn wait_for_same_tip(nodes: &[Bitcoind]) -> Result<()> {
    let deadline = Instant::now() + SYNC_TIMEOUT;
    loop {
        let tips = nodes.iter().map(Bitcoind::tip).collect::<Result<Vec<_>>>()?;
        if tips.windows(2).all(|pair| pair[0] == pair[1]) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("the bitcoinds do not agree after {SYNC_TIMEOUT:?}: {tips:?}");
        }
        thread::sleep(POLL);
    }
}

/// Core 31 and later can say what spent an output.
fn has_spender_index(program: &Path) -> bool {
    let help = Command::new(program).args(["-help", "-help-debug"]).output();
    help.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("-txospenderindex"))
}
