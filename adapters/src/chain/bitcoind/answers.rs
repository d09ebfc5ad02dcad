//! The parts of Bitcoin Core's answers that are used. Unknown fields are ignored; a field that is missing in some
//! supported version is optional. The types of bitcoincore-rpc-json are stricter than the node is stable: several of
//! them no longer decode.

use bitcoin::{Amount, BlockHash, ScriptBuf, Txid};
use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct BlockchainInfo {
    pub(super) chain: String,
    pub(super) blocks: u32,
    pub(super) headers: u32,
    pub(super) bestblockhash: BlockHash,
    pub(super) time: Option<u64>,
    pub(super) initialblockdownload: bool,
    #[serde(default)]
    pub(super) pruned: bool,
    /// Only where it is pruned.
    pub(super) pruneheight: Option<u32>,
}

#[derive(Deserialize)]
pub(super) struct NetworkInfo {
    pub(super) version: u32,
    pub(super) subversion: String,
    pub(super) connections: u32,
}

/// Feerates in BTC/kvB.
#[derive(Deserialize)]
pub(super) struct MempoolInfo {
    pub(super) size: u64,
    #[serde(default = "yes")]
    pub(super) loaded: bool,
    pub(super) mempoolminfee: f64,
    /// Before Core 24 in `getnetworkinfo` only; 1 sat/vB there.
    pub(super) incrementalrelayfee: Option<f64>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
pub(super) struct Tip {
    pub(super) hash: BlockHash,
    pub(super) height: u32,
}

#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) hash: BlockHash,
    /// −1 outside the active chain.
    pub(super) confirmations: i64,
    pub(super) height: u32,
    pub(super) time: u64,
    pub(super) previousblockhash: Option<BlockHash>,
}

#[derive(Deserialize)]
pub(super) struct Script {
    pub(super) hex: ScriptBuf,
}

#[derive(Deserialize)]
pub(super) struct TxOut {
    pub(super) bestblock: BlockHash,
    pub(super) confirmations: u32,
    #[serde(with = "bitcoin::amount::serde::as_btc")]
    pub(super) value: Amount,
    #[serde(rename = "scriptPubKey")]
    pub(super) script: Script,
    pub(super) coinbase: bool,
}

#[derive(Deserialize)]
pub(super) struct Scan {
    pub(super) success: bool,
    pub(super) height: u32,
    pub(super) bestblock: BlockHash,
    pub(super) unspents: Vec<Unspent>,
}

#[derive(Deserialize)]
pub(super) struct Unspent {
    pub(super) txid: Txid,
    pub(super) vout: u32,
    #[serde(rename = "scriptPubKey")]
    pub(super) script: ScriptBuf,
    #[serde(with = "bitcoin::amount::serde::as_btc")]
    pub(super) amount: Amount,
    #[serde(default)]
    pub(super) coinbase: bool,
    pub(super) height: u32,
}

/// One element of `gettxspendingprevout`. Elements that the mempool answers come before those that the index
/// answers, so their order is not the order of the question.
#[derive(Deserialize)]
pub(super) struct Spender {
    pub(super) txid: Txid,
    pub(super) vout: u32,
    pub(super) spendingtxid: Option<Txid>,
    /// Only with `-txospenderindex`, and only if the spender is confirmed.
    pub(super) blockhash: Option<BlockHash>,
}

/// The part of verbose `getrawtransaction` that says where a transaction is.
#[derive(Deserialize)]
pub(super) struct Whereabouts {
    /// 0 or missing outside the active chain.
    pub(super) confirmations: Option<u32>,
}

/// `estimatesmartfee`, feerate in BTC/kvB.
#[derive(Deserialize)]
pub(super) struct Estimate {
    pub(super) feerate: Option<f64>,
}
