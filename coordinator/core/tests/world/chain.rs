//! A small Bitcoin: blocks of real transactions, a set of coins, reorganisations, and a miner who takes whatever is
//! valid. It knows nothing of the core, and says what a leader would see in each block.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::transaction::Version;
use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use onespend_core::command::{BlockRef, Received, Spent};
use onespend_core::ids::Height;
use onespend_core::wallet::Keychain;

use super::wallets::{address_of, fixtures};

/// Height of the oldest block of the model.
pub const FIRST_HEIGHT: u32 = 90;
const COINBASE_MATURITY: u32 = 100;

/// A mined block.
#[derive(Debug, Clone)]
pub struct Block {
    pub at: BlockRef,
    pub previous: BlockHash,
    pub transactions: Vec<Transaction>,
}

/// An output in the chain that pays one of the fixtures' wallets, registered or not.
#[derive(Debug, Clone)]
pub struct Coin {
    pub wallet: usize,
    pub keychain: Keychain,
    pub index: u32,
    pub value_sat: u64,
    pub script: ScriptBuf,
    pub coinbase: bool,
    pub height: u32,
    pub spent: Option<Txid>,
}

/// The chain and what waits to be mined.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    pub blocks: Vec<Block>,
    pub coins: BTreeMap<OutPoint, Coin>,
    pub mined: BTreeMap<Txid, u32>,
    pub pending: Vec<Transaction>,
    /// Coins of others that are spent.
    foreign_spent: BTreeSet<OutPoint>,
    serial: u64,
}

impl Chain {
    pub fn new() -> Self {
        let mut chain = Self::default();
        chain.mine(None, |_| true);
        chain
    }

    pub fn tip(&self) -> BlockRef {
        self.blocks.last().unwrap().at
    }

    pub fn height(&self) -> u32 {
        self.tip().height.0
    }

    /// Confirmations of a transaction; 0 when it is not in the chain.
    pub fn depth(&self, txid: Txid) -> u32 {
        self.mined.get(&txid).map_or(0, |height| self.height() - height + 1)
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// A payment from outside to a script; it waits to be mined.
    pub fn fund(&mut self, script: ScriptBuf, value_sat: u64) -> OutPoint {
        let input = foreign_outpoint(self.next_serial());
        self.submit(transaction(&[input], vec![(script, value_sat)]))
    }

    /// A spend of coins that the service knows nothing of; it waits to be mined.
    pub fn spend(&mut self, coins: &[OutPoint]) -> OutPoint {
        let serial = self.next_serial();
        let mut inputs = coins.to_vec();
        inputs.push(foreign_outpoint(serial));
        self.submit(transaction(&inputs, vec![(foreign_script(serial), 1000)]))
    }

    /// Whoever made a transaction that waits spends what it spends by another one; both wait.
    pub fn double_spend(&mut self, txid: Txid) -> OutPoint {
        let serial = self.next_serial();
        let input = self.waiting(txid).unwrap().input[0].previous_output;
        self.submit(transaction(&[input], vec![(foreign_script(serial), 1000)]))
    }

    /// A transaction that waits to be mined.
    pub fn waiting(&self, txid: Txid) -> Option<&Transaction> {
        self.pending.iter().find(|known| known.compute_txid() == txid)
    }

    /// A transaction in the chain that spends something of what this one would spend.
    pub fn rival_of(&self, waiting: &Transaction) -> Option<Txid> {
        let shared = |input: &TxIn| waiting.input.iter().any(|own| own.previous_output == input.previous_output);
        let mut mined = self.blocks.iter().flat_map(|block| &block.transactions);
        mined.find(|known| known.input.iter().any(shared)).map(Transaction::compute_txid)
    }

    /// The block that has a transaction.
    pub fn block_of(&self, txid: Txid) -> Option<&Block> {
        let height = self.mined.get(&txid)?;
        self.blocks.iter().find(|block| block.at.height.0 == *height)
    }

    /// Lets the miner see a transaction.
    pub fn submit(&mut self, transaction: Transaction) -> OutPoint {
        let txid = transaction.compute_txid();
        if !self.pending.iter().any(|known| known.compute_txid() == txid) && !self.mined.contains_key(&txid) {
            self.pending.push(transaction);
        }
        OutPoint { txid, vout: 0 }
    }

    /// Whether anybody has seen a transaction.
    pub fn knows(&self, txid: Txid) -> bool {
        self.mined.contains_key(&txid) || self.waiting(txid).is_some()
    }

    /// Mines a block of all pending transactions that are valid one after the other and wanted.
    pub fn mine(&mut self, coinbase: Option<(ScriptBuf, u64)>, wanted: impl Fn(usize) -> bool) -> Block {
        let serial = self.next_serial();
        let height = self.blocks.last().map_or(FIRST_HEIGHT, |block| block.at.height.0 + 1);
        let previous = self.blocks.last().map_or_else(BlockHash::all_zeros, |block| block.at.hash);
        let reward = coinbase.unwrap_or_else(|| (foreign_script(serial), 50));
        let mut block = vec![coinbase_transaction(serial, reward)];
        self.connect(&block[0], height);
        let mut left = Vec::new();
        for (position, transaction) in std::mem::take(&mut self.pending).into_iter().enumerate() {
            if wanted(position) && self.is_valid(&transaction, height) {
                self.connect(&transaction, height);
                block.push(transaction);
            } else {
                left.push(transaction);
            }
        }
        self.pending = left;
        let mut header = previous.to_byte_array().to_vec();
        for transaction in &block {
            header.extend(transaction.compute_txid().to_byte_array());
        }
        let hash = BlockHash::from_raw_hash(sha256d::Hash::hash(&header));
        let block = Block { at: BlockRef { height: Height(height), hash }, previous, transactions: block };
        self.blocks.push(block.clone());
        block
    }

    /// Takes the tip away. Its transactions wait to be mined again.
    pub fn disconnect(&mut self) -> Block {
        let block = self.blocks.pop().unwrap();
        for transaction in block.transactions.iter().rev() {
            let txid = transaction.compute_txid();
            self.mined.remove(&txid);
            for input in &transaction.input {
                if let Some(coin) = self.coins.get_mut(&input.previous_output) {
                    coin.spent = None;
                }
                self.foreign_spent.remove(&input.previous_output);
            }
            for vout in (0..).take(transaction.output.len()) {
                self.coins.remove(&OutPoint { txid, vout });
            }
        }
        let back = block.transactions.iter().filter(|transaction| !transaction.is_coinbase()).cloned();
        self.pending = back.chain(std::mem::take(&mut self.pending)).collect();
        block
    }

    fn is_valid(&self, transaction: &Transaction, height: u32) -> bool {
        transaction.input.iter().map(|input| input.previous_output).all(|outpoint| {
            let spendable =
                |coin: &Coin| coin.spent.is_none() && (!coin.coinbase || height - coin.height >= COINBASE_MATURITY);
            let foreign = is_foreign(&outpoint) && !self.foreign_spent.contains(&outpoint);
            foreign || self.coins.get(&outpoint).is_some_and(spendable)
        })
    }

    fn connect(&mut self, transaction: &Transaction, height: u32) {
        let txid = transaction.compute_txid();
        self.mined.insert(txid, height);
        for input in &transaction.input {
            if let Some(coin) = self.coins.get_mut(&input.previous_output) {
                coin.spent = Some(txid);
            }
            if is_foreign(&input.previous_output) {
                self.foreign_spent.insert(input.previous_output);
            }
        }
        for (vout, output) in (0..).zip(&transaction.output) {
            let Some((wallet, keychain, index)) = address_of(&output.script_pubkey) else { continue };
            let coin = Coin {
                wallet,
                keychain,
                index,
                value_sat: output.value.to_sat(),
                script: output.script_pubkey.clone(),
                coinbase: transaction.is_coinbase(),
                height,
                spent: None,
            };
            self.coins.insert(OutPoint { txid, vout }, coin);
        }
    }

    /// What a leader sees in the tip's block for these wallets, and of the coins that are followed one by one.
    pub fn facts(
        &self,
        block: &Block,
        registered: &BTreeSet<usize>,
        followed: &BTreeSet<OutPoint>,
    ) -> (Vec<Received>, Vec<Spent>) {
        let is_seen = |outpoint: &OutPoint, wallet: usize| {
            let by_name = fixtures()[wallet].follows_single_coins();
            registered.contains(&wallet) && (!by_name || followed.contains(outpoint))
        };
        let ours = |outpoint: &OutPoint| self.coins.get(outpoint).is_some_and(|coin| is_seen(outpoint, coin.wallet));
        let (mut received, mut spent) = (Vec::new(), Vec::new());
        for transaction in &block.transactions {
            let txid = transaction.compute_txid();
            let outputs = (0..).take(transaction.output.len()).map(|vout| OutPoint { txid, vout });
            received.extend(outputs.filter(ours).map(|outpoint| self.received(outpoint)));
            let inputs = transaction.input.iter().map(|input| input.previous_output);
            spent.extend(inputs.filter(ours).map(|outpoint| Spent { outpoint, txid }));
        }
        (received, spent)
    }

    /// What a scan of the unspent outputs finds for a wallet, or a look at single ones.
    pub fn found(&self, wallet: usize) -> Vec<Received> {
        let ours = self.coins.iter().filter(|(_, coin)| coin.wallet == wallet && coin.spent.is_none());
        ours.map(|(outpoint, _)| self.received(*outpoint)).collect()
    }

    fn received(&self, outpoint: OutPoint) -> Received {
        let coin = &self.coins[&outpoint];
        let fixture = &fixtures()[coin.wallet];
        let address = (coin.keychain, coin.index);
        let (keychain, index) = if fixture.follows_single_coins() { (Keychain::External, 0) } else { address };
        Received {
            outpoint,
            wallet: fixture.id.clone(),
            value_sat: coin.value_sat,
            script: coin.script.clone(),
            keychain,
            index,
            coinbase: coin.coinbase,
            height: Height(coin.height),
        }
    }
}

/// A script of nobody here: a witness program of a number.
pub fn foreign_script(serial: u64) -> ScriptBuf {
    let mut program = [0xee; 20];
    program[..8].copy_from_slice(&serial.to_be_bytes());
    ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::from_byte_array(program))
}

/// An unsigned transaction, as a caller would build it.
pub fn transaction(inputs: &[OutPoint], outputs: Vec<(ScriptBuf, u64)>) -> Transaction {
    let input = |outpoint: &OutPoint| TxIn {
        previous_output: *outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    };
    let output = |(script_pubkey, sat)| TxOut { value: Amount::from_sat(sat), script_pubkey };
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: inputs.iter().map(input).collect(),
        output: outputs.into_iter().map(output).collect(),
    }
}

fn coinbase_transaction(serial: u64, reward: (ScriptBuf, u64)) -> Transaction {
    let mut coinbase = transaction(&[OutPoint::null()], vec![reward]);
    coinbase.input[0].script_sig = ScriptBuf::from_bytes(serial.to_be_bytes().to_vec());
    coinbase
}

/// Coins of others are marked, and there until they are spent.
fn foreign_outpoint(serial: u64) -> OutPoint {
    let mut txid = [0xf0; 32];
    txid[..8].copy_from_slice(&serial.to_be_bytes());
    OutPoint { txid: Txid::from_byte_array(txid), vout: 0 }
}

fn is_foreign(outpoint: &OutPoint) -> bool {
    outpoint.txid.to_byte_array()[8..] == [0xf0; 24]
}
