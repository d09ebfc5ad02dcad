//! Bitcoin Core over JSON-RPC.
//!
//! ```text
//! mod.rs        settings, lanes, and the calls of the port
//! broadcast.rs  what the answers to a broadcast mean
//! answers.rs    the parts of Core's answers that are used
//! lane.rs       one connection for one kind of call; credentials read again when refused
//! auth.rs       cookie file, or user and password
//! http.rs       the transport: one deadline, nothing is sent twice
//! ```

mod answers;
mod auth;
mod broadcast;
mod http;
mod lane;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::{Block, BlockHash, Network, OutPoint, Transaction, Txid};
use serde_json::{Value, json};

pub use self::auth::BitcoindAuth;
use self::http::Target;
use self::lane::{Endpoint, Lane};
use super::error::{RPC_INVALID_PARAMETER, RPC_MISC};
use super::{
    BroadcastOutcome, Chain, ChainError, ChainTxOut, ChainView, HeaderInfo, MAX_TIP_WAIT, RpcObserver, ScanDescriptor,
    ScanResult, ScanUtxo, TipRef,
};

/// BTC/kvB to sat/vB.
const SAT_VB_PER_BTC_KVB: f64 = 100_000.0;
/// What nodes without `incrementalrelayfee` in `getmempoolinfo` use, in sat/vB.
const OLD_INCREMENTAL_FEERATE_SAT_VB: f64 = 1.0;

/// How to reach one bitcoind.
#[derive(Debug, Clone)]
pub struct BitcoindConfig {
    /// `http://host:port`, the port named.
    pub url: String,
    /// Credentials.
    pub auth: BitcoindAuth,
    /// The most that one call may take in all: waiting for the connection, connecting, sending and reading.
    pub timeout: Duration,
    /// The same for a scan of the UTXO set.
    pub scan_timeout: Duration,
}

impl BitcoindConfig {
    /// 10 s per call and 15 min per scan.
    pub fn new(url: impl Into<String>, auth: BitcoindAuth) -> Self {
        Self { url: url.into(), auth, timeout: Duration::from_secs(10), scan_timeout: Duration::from_mins(15) }
    }
}

/// A bitcoind. Connects when first called and again after each failure; holds no state but its connections.
pub struct Bitcoind {
    timeout: Duration,
    scan_timeout: Duration,
    long_poll: Lane,
    probe: Lane,
    broadcast: Lane,
    scan: Lane,
    query: Lane,
}

impl Bitcoind {
    /// Checks the settings; connects to nothing.
    pub fn new(config: BitcoindConfig, observer: Option<RpcObserver>) -> Result<Self, ChainError> {
        let target = Target::parse(&config.url).map_err(|detail| ChainError::Config { detail })?;
        config.auth.check()?;
        if config.timeout.is_zero() || config.scan_timeout.is_zero() {
            return Err(ChainError::Config { detail: "a timeout must not be zero".to_owned() });
        }
        let endpoint = Arc::new(Endpoint { target, auth: config.auth, observer });
        Ok(Self {
            timeout: config.timeout,
            scan_timeout: config.scan_timeout,
            long_poll: Lane::new("long poll", &endpoint),
            probe: Lane::new("probe", &endpoint),
            broadcast: Lane::new("broadcast", &endpoint),
            scan: Lane::new("scan", &endpoint),
            query: Lane::new("query", &endpoint),
        })
    }

    fn read_header(&self, lane: &Lane, hash: BlockHash) -> Result<answers::Header, ChainError> {
        lane.call("getblockheader", &[json!(hash), json!(true)], self.timeout)
    }

    /// A scan that nobody waits for any more would keep the node busy.
    fn abort_scan(&self) {
        let aborted = self.query.call::<bool>("scantxoutset", &[json!("abort")], self.timeout);
        tracing::warn!(?aborted, "a scan of the UTXO set timed out");
    }
}

impl Chain for Bitcoind {
    fn probe(&self) -> Result<ChainView, ChainError> {
        let start = Instant::now();
        let chain: answers::BlockchainInfo = self.probe.call("getblockchaininfo", &[], self.timeout)?;
        let latency = start.elapsed();
        let network: answers::NetworkInfo = self.probe.call("getnetworkinfo", &[], self.timeout)?;
        let mempool: answers::MempoolInfo = self.probe.call("getmempoolinfo", &[], self.timeout)?;
        let genesis = self.probe.call("getblockhash", &[json!(0)], self.timeout)?;
        let tip_time_s = match chain.time {
            Some(time) => time,
            None => self.read_header(&self.probe, chain.bestblockhash)?.time,
        };
        Ok(ChainView {
            network: Network::from_core_arg(&chain.chain)
                .map_err(|error| ChainError::Decode { method: "getblockchaininfo", detail: error.to_string() })?,
            genesis,
            tip: TipRef { height: chain.blocks, hash: chain.bestblockhash },
            tip_time_s,
            headers: chain.headers,
            initial_block_download: chain.initialblockdownload,
            oldest_block: chain.pruned.then(|| chain.pruneheight.unwrap_or(0)),
            peers: network.connections,
            version: network.version,
            subversion: network.subversion,
            mempool_min_feerate_sat_vb: mempool.mempoolminfee * SAT_VB_PER_BTC_KVB,
            incremental_feerate_sat_vb: mempool
                .incrementalrelayfee
                .map_or(OLD_INCREMENTAL_FEERATE_SAT_VB, |fee| fee * SAT_VB_PER_BTC_KVB),
            mempool_txs: mempool.size,
            mempool_loaded: mempool.loaded,
            latency,
        })
    }

    fn wait_tip(&self, current: BlockHash, timeout: Duration) -> Result<TipRef, ChainError> {
        // To Core, 0 ms means for ever.
        let wait = timeout.clamp(Duration::from_millis(1), MAX_TIP_WAIT);
        let args = [json!(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)), json!(current)];
        let tip: answers::Tip = self.long_poll.call("waitfornewblock", &args, wait + self.timeout)?;
        Ok(TipRef { height: tip.height, hash: tip.hash })
    }

    fn header(&self, hash: BlockHash) -> Result<HeaderInfo, ChainError> {
        let header = self.read_header(&self.query, hash)?;
        Ok(HeaderInfo {
            hash: header.hash,
            height: header.height,
            prev: header.previousblockhash,
            time_s: header.time,
            confirmations: u32::try_from(header.confirmations).ok(),
        })
    }

    fn block(&self, hash: BlockHash) -> Result<Block, ChainError> {
        const METHOD: &str = "getblock";
        let hex: String = self.query.call(METHOD, &[json!(hash), json!(0)], self.timeout)?;
        let block: Block =
            deserialize_hex(&hex).map_err(|error| ChainError::Decode { method: METHOD, detail: error.to_string() })?;
        if block.block_hash() != hash || !block.check_merkle_root() {
            let detail = format!("the block does not hash to {hash}");
            return Err(ChainError::Decode { method: METHOD, detail });
        }
        Ok(block)
    }

    fn block_hash_at(&self, height: u32) -> Result<Option<BlockHash>, ChainError> {
        match self.query.call("getblockhash", &[json!(height)], self.timeout) {
            Ok(hash) => Ok(Some(hash)),
            Err(ChainError::Rpc { code: RPC_INVALID_PARAMETER, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn tx_out(&self, outpoint: OutPoint, include_mempool: bool) -> Result<Option<ChainTxOut>, ChainError> {
        let args = [json!(outpoint.txid), json!(outpoint.vout), json!(include_mempool)];
        let found: Option<answers::TxOut> = self.query.call("gettxout", &args, self.timeout)?;
        Ok(found.map(|out| ChainTxOut {
            value: out.value,
            script: out.script.hex,
            confirmations: out.confirmations,
            coinbase: out.coinbase,
            best_block: out.bestblock,
        }))
    }

    fn scan(&self, descriptors: &[ScanDescriptor]) -> Result<ScanResult, ChainError> {
        const METHOD: &str = "scantxoutset";
        let wanted: Vec<Value> = descriptors.iter().map(scan_object).collect();
        let args = [json!("start"), Value::from(wanted)];
        let scan: answers::Scan = match self.scan.call(METHOD, &args, self.scan_timeout) {
            Ok(scan) => scan,
            Err(ChainError::Rpc { code: RPC_INVALID_PARAMETER, message, method })
                if message.contains("already in progress") =>
            {
                return Err(ChainError::Busy { method, detail: message });
            }
            Err(error) => {
                if matches!(error, ChainError::Timeout { .. }) {
                    self.abort_scan();
                }
                return Err(error);
            }
        };
        if !scan.success {
            let message = "the scan was aborted".to_owned();
            return Err(ChainError::Rpc { method: METHOD, code: RPC_MISC, message });
        }
        let mut utxos: Vec<ScanUtxo> = scan.unspents.into_iter().map(scan_utxo).collect();
        utxos.sort_unstable_by_key(|utxo| utxo.outpoint);
        Ok(ScanResult { height: scan.height, hash: scan.bestblock, utxos })
    }

    fn broadcast(&self, tx: &Transaction) -> Result<BroadcastOutcome, ChainError> {
        self.submit(tx)
    }

    fn spending_prevout(&self, outpoints: &[OutPoint]) -> Result<Vec<Option<Txid>>, ChainError> {
        let found: BTreeMap<OutPoint, Txid> = self
            .spenders(outpoints)?
            .into_iter()
            .filter_map(|s| Some((OutPoint { txid: s.txid, vout: s.vout }, s.spendingtxid?)))
            .collect();
        Ok(outpoints.iter().map(|outpoint| found.get(outpoint).copied()).collect())
    }

    fn estimate_fee(&self, target_blocks: u16) -> Result<Option<f64>, ChainError> {
        // Core itself raises the estimate to the mempool's minimum (src/rpc/fees.cpp).
        let estimate: answers::Estimate = self.query.call("estimatesmartfee", &[json!(target_blocks)], self.timeout)?;
        Ok(estimate.feerate.map(|feerate| feerate * SAT_VB_PER_BTC_KVB))
    }
}

fn scan_object(wanted: &ScanDescriptor) -> Value {
    match wanted.range {
        Some((first, last)) => json!({ "desc": wanted.descriptor, "range": [first, last] }),
        None => json!({ "desc": wanted.descriptor }),
    }
}

fn scan_utxo(unspent: answers::Unspent) -> ScanUtxo {
    ScanUtxo {
        outpoint: OutPoint { txid: unspent.txid, vout: unspent.vout },
        value: unspent.amount,
        script: unspent.script,
        height: unspent.height,
        coinbase: unspent.coinbase,
    }
}
