//! The blocks of the fake, their forks, and the coins of the active chain.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version as BlockVersion};
use bitcoin::blockdata::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness, WitnessMerkleNode,
};

/// Blocks after which a coinbase may be spent.
pub(super) const COINBASE_MATURITY: u32 = 100;
/// Regtest halves its subsidy after this many blocks.
const HALVING_INTERVAL: u32 = 150;
const FIRST_SUBSIDY: Amount = Amount::from_int_btc(50);
/// The easiest target: about every second nonce meets it.
const REGTEST_BITS: u32 = 0x207f_ffff;
/// Blocks whose times make the median.
const MEDIAN_BLOCKS: usize = 11;
/// Marks the coinbase output that commits to witnesses (BIP141).
const WITNESS_COMMITMENT_HEADER: [u8; 6] = [0x6a, 0x24, 0xaa, 0x21, 0xa9, 0xed];

/// An unspent output of the active chain.
#[derive(Debug, Clone)]
pub(super) struct Coin {
    pub(super) out: TxOut,
    pub(super) height: u32,
    pub(super) coinbase: bool,
}

struct Stored {
    block: Block,
    height: u32,
    /// Order of arrival; of chains with equal work the one that came first is active. Preferring a block lowers it.
    arrival: i64,
    invalid: bool,
}

/// Every block that was ever mined, and the state at the tip of the best valid chain.
pub(super) struct Ledger {
    blocks: BTreeMap<BlockHash, Stored>,
    active: Vec<BlockHash>,
    coins: BTreeMap<OutPoint, Coin>,
    spenders: BTreeMap<OutPoint, Txid>,
    arrivals: i64,
    preferred: i64,
    /// The time, where a test sets it; else the machine's.
    pub(super) clock_s: Option<u64>,
}

impl Ledger {
    /// The genesis block of regtest, whose coinbase nobody can spend.
    pub(super) fn new() -> Self {
        let block = genesis_block(Network::Regtest);
        let hash = block.block_hash();
        let stored = Stored { block, height: 0, arrival: 0, invalid: false };
        Self {
            blocks: BTreeMap::from([(hash, stored)]),
            active: vec![hash],
            coins: BTreeMap::new(),
            spenders: BTreeMap::new(),
            arrivals: 0,
            preferred: 0,
            clock_s: None,
        }
    }

    pub(super) fn genesis(&self) -> BlockHash {
        self.active[0]
    }

    pub(super) fn active_blocks(&self) -> Vec<Block> {
        self.active.iter().filter_map(|hash| Some(self.blocks.get(hash)?.block.clone())).collect()
    }

    pub(super) fn height(&self) -> u32 {
        u32::try_from(self.active.len() - 1).unwrap_or(u32::MAX)
    }

    pub(super) fn tip(&self) -> BlockHash {
        self.active[self.active.len() - 1]
    }

    /// The median time of the last eleven blocks.
    pub(super) fn median_time(&self) -> u32 {
        let last = self.active.iter().rev().take(MEDIAN_BLOCKS);
        let stored = last.filter_map(|hash| self.blocks.get(hash));
        let mut times: Vec<u32> = stored.map(|stored| stored.block.header.time).collect();
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    pub(super) fn at(&self, height: u32) -> Option<BlockHash> {
        self.active.get(usize::try_from(height).ok()?).copied()
    }

    /// The block, its height, and whether it is in the active chain.
    pub(super) fn block(&self, hash: BlockHash) -> Option<(&Block, u32, bool)> {
        let stored = self.blocks.get(&hash)?;
        Some((&stored.block, stored.height, self.at(stored.height) == Some(hash)))
    }

    pub(super) fn coin(&self, outpoint: &OutPoint) -> Option<&Coin> {
        self.coins.get(outpoint)
    }

    pub(super) fn coins(&self) -> impl Iterator<Item = (&OutPoint, &Coin)> {
        self.coins.iter()
    }

    /// Who spent an output in the active chain.
    pub(super) fn spender(&self, outpoint: &OutPoint) -> Option<Txid> {
        self.spenders.get(outpoint).copied()
    }

    /// Whether an output of the transaction is unspent in the active chain.
    pub(super) fn has_unspent_output_of(&self, txid: Txid) -> bool {
        let from = OutPoint { txid, vout: 0 };
        self.coins.range(from..).next().is_some_and(|(outpoint, _)| outpoint.txid == txid)
    }

    /// Mines these transactions, which must be spendable in this order, on the tip.
    pub(super) fn mine(&mut self, txs: Vec<Transaction>, script: &Script) -> Result<BlockHash, String> {
        let fees = self.fees_of(&txs)?;
        let height = self.height() + 1;
        self.arrivals += 1;
        let reward = subsidy(height) + fees;
        let coinbase = coinbase(height, self.arrivals, reward, script);
        let time = self.next_time();
        let block = seal(self.tip(), time, coinbase, txs);
        let hash = block.block_hash();
        self.connect(&block, height);
        let stored = Stored { block, height, arrival: self.arrivals, invalid: false };
        self.blocks.insert(hash, stored);
        self.active.push(hash);
        Ok(hash)
    }

    /// Fees of transactions that are mined together, or why they cannot be.
    fn fees_of(&self, txs: &[Transaction]) -> Result<Amount, String> {
        let mut made = BTreeMap::new();
        let mut spent = BTreeSet::new();
        let mut fees = Amount::ZERO;
        for tx in txs {
            let txid = tx.compute_txid();
            let mut value = Amount::ZERO;
            for input in &tx.input {
                let outpoint = input.previous_output;
                let known = self.coins.get(&outpoint).map(|coin| coin.out.value);
                let known = known.or_else(|| made.get(&outpoint).copied());
                value += known.ok_or_else(|| format!("{txid}: {outpoint} does not exist"))?;
                if !spent.insert(outpoint) {
                    return Err(format!("{txid}: {outpoint} is spent twice"));
                }
            }
            for (vout, out) in (0..).zip(&tx.output) {
                made.insert(OutPoint { txid, vout }, out.value);
                value = value.checked_sub(out.value).ok_or_else(|| format!("{txid} spends more than it has"))?;
            }
            fees += value;
        }
        Ok(fees)
    }

    /// Marks a block and all that follow it invalid. Answers the transactions that left the active chain.
    pub(super) fn invalidate(&mut self, hash: BlockHash) -> Vec<Transaction> {
        if let Some(stored) = self.blocks.get_mut(&hash) {
            stored.invalid = true;
        }
        self.activate_best()
    }

    /// Takes that back for the block, its ancestors and its descendants.
    pub(super) fn reconsider(&mut self, hash: BlockHash) -> Vec<Transaction> {
        let ancestors: BTreeSet<BlockHash> = self.line_of(hash).collect();
        let related: Vec<BlockHash> = self
            .blocks
            .keys()
            .filter(|other| ancestors.contains(*other) || self.line_of(**other).any(|h| h == hash))
            .copied()
            .collect();
        for hash in related {
            if let Some(stored) = self.blocks.get_mut(&hash) {
                stored.invalid = false;
            }
        }
        self.activate_best()
    }

    /// Prefers a block to all others of the same height.
    pub(super) fn prefer(&mut self, hash: BlockHash) -> Vec<Transaction> {
        self.preferred -= 1;
        if let Some(stored) = self.blocks.get_mut(&hash) {
            stored.arrival = self.preferred;
        }
        self.activate_best()
    }

    /// The block and its ancestors down to the genesis block.
    fn line_of(&self, from: BlockHash) -> impl Iterator<Item = BlockHash> {
        std::iter::successors(Some(from), |hash| {
            let stored = self.blocks.get(hash).filter(|stored| stored.height > 0)?;
            Some(stored.block.header.prev_blockhash)
        })
    }

    fn is_valid(&self, hash: BlockHash) -> bool {
        self.line_of(hash).all(|h| self.blocks.get(&h).is_some_and(|stored| !stored.invalid))
    }

    /// Most work, here most blocks; then first come.
    fn activate_best(&mut self) -> Vec<Transaction> {
        let best = self
            .blocks
            .iter()
            .filter(|(hash, _)| self.is_valid(**hash))
            .max_by_key(|(_, stored)| (stored.height, std::cmp::Reverse(stored.arrival)))
            .map_or(self.genesis(), |(hash, _)| *hash);
        let mut chain: Vec<BlockHash> = self.line_of(best).collect();
        chain.reverse();
        let left: Vec<BlockHash> = self.active.iter().filter(|hash| !chain.contains(hash)).copied().collect();
        self.activate(chain);
        let blocks = left.iter().filter_map(|hash| self.blocks.get(hash));
        blocks.flat_map(|stored| stored.block.txdata.iter().skip(1).cloned()).collect()
    }

    fn activate(&mut self, chain: Vec<BlockHash>) {
        self.coins.clear();
        self.spenders.clear();
        for (height, hash) in (0..).zip(&chain).skip(1) {
            let block = self.blocks.get(hash).map(|stored| stored.block.clone());
            if let Some(block) = block {
                self.connect(&block, height);
            }
        }
        self.active = chain;
    }

    fn connect(&mut self, block: &Block, height: u32) {
        for tx in &block.txdata {
            let (txid, coinbase) = (tx.compute_txid(), tx.is_coinbase());
            for input in tx.input.iter().filter(|_| !coinbase) {
                self.coins.remove(&input.previous_output);
                self.spenders.insert(input.previous_output, txid);
            }
            for (vout, out) in (0..).zip(&tx.output) {
                if !out.script_pubkey.is_op_return() {
                    let coin = Coin { out: out.clone(), height, coinbase };
                    self.coins.insert(OutPoint { txid, vout }, coin);
                }
            }
        }
    }

    /// The wall clock, but always after the tip. (Core demands only the median of eleven.)
    fn next_time(&self) -> u32 {
        let tip = self.blocks.get(&self.tip()).map_or(0, |stored| stored.block.header.time);
        u32::try_from(self.now_s()).unwrap_or(u32::MAX).max(tip.saturating_add(1))
    }

    pub(super) fn now_s(&self) -> u64 {
        let machine = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.clock_s.unwrap_or_else(machine)
    }
}

fn subsidy(height: u32) -> Amount {
    Amount::from_sat(FIRST_SUBSIDY.to_sat().checked_shr(height / HALVING_INTERVAL).unwrap_or(0))
}

/// A coinbase that is unique by height (BIP34) and by an extra nonce.
fn coinbase(height: u32, extra: i64, reward: Amount, script: &Script) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: Builder::new().push_int(i64::from(height)).push_slice(extra.to_le_bytes()).into_script(),
            sequence: Sequence::MAX,
            // The witness reserved value of BIP141.
            witness: Witness::from_slice(&[[0; 32]]),
        }],
        output: vec![TxOut { value: reward, script_pubkey: script.to_owned() }],
    }
}

/// Commits to the witnesses, computes the merkle root, and finds a nonce.
fn seal(tip: BlockHash, time: u32, coinbase: Transaction, txs: Vec<Transaction>) -> Block {
    let mut block = Block {
        header: Header {
            version: BlockVersion::from_consensus(0x2000_0000),
            prev_blockhash: tip,
            merkle_root: TxMerkleNode::all_zeros(),
            time,
            bits: CompactTarget::from_consensus(REGTEST_BITS),
            nonce: 0,
        },
        txdata: std::iter::once(coinbase).chain(txs).collect(),
    };
    let witness_root = block.witness_root().unwrap_or_else(WitnessMerkleNode::all_zeros);
    let commitment = Block::compute_witness_commitment(&witness_root, &[0; 32]);
    let mut script = WITNESS_COMMITMENT_HEADER.to_vec();
    script.extend_from_slice(commitment.as_byte_array());
    let out = TxOut { value: Amount::ZERO, script_pubkey: ScriptBuf::from_bytes(script) };
    block.txdata[0].output.push(out);
    block.header.merkle_root = block.compute_merkle_root().unwrap_or(block.header.merkle_root);
    let target = block.header.target();
    while !target.is_met_by(block.block_hash()) {
        block.header.nonce = block.header.nonce.wrapping_add(1);
    }
    block
}
