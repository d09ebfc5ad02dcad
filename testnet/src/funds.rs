//! The harness's own coins. bitcoind has no wallet here, so the harness mines to a key of its own and signs by itself.

use anyhow::{Context, Result, ensure};
use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{All, Message, Secp256k1, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, CompressedPublicKey, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness, ecdsa};

use crate::bitcoind::Bitcoind;

/// A coinbase can be spent after this many further blocks.
pub const COINBASE_MATURITY: u32 = 100;
/// Enough for every relay policy that has been seen.
const FEERATE_SAT_VB: u64 = 2;
/// What an input and an output of this key weigh at most, rounded up.
const INPUT_VB: u64 = 69;
const OUTPUT_VB: u64 = 44;
const OVERHEAD_VB: u64 = 12;

/// A key, and the coins that it can spend now.
#[derive(Debug)]
pub struct Funds {
    secp: Secp256k1<All>,
    key: SecretKey,
    script: ScriptBuf,
    coins: Vec<(OutPoint, Amount)>,
}

impl Funds {
    /// A key that follows from `seed`, with no coins yet.
    ///
    /// # Errors
    /// The seed gives no valid key (one in 2^128).
    pub fn new(seed: u64) -> Result<Self> {
        let digest = sha256::Hash::hash(format!("onespend testnet funds {seed}").as_bytes());
        let secp = Secp256k1::new();
        let key = SecretKey::from_slice(digest.as_byte_array())?;
        let public = CompressedPublicKey(key.public_key(&secp));
        let script = ScriptBuf::new_p2wpkh(&public.wpubkey_hash());
        Ok(Self { secp, key, script, coins: Vec::new() })
    }

    /// Where its coins lie; mine here.
    pub fn script(&self) -> &ScriptBuf {
        &self.script
    }

    /// What it can spend now.
    pub fn balance(&self) -> Amount {
        self.coins.iter().map(|(_, value)| *value).sum()
    }

    /// Mines `coinbases` blocks to this key and then as many as it takes to make them spendable.
    ///
    /// # Errors
    /// bitcoind refuses or does not answer.
    pub fn mine(&mut self, bitcoind: &Bitcoind, coinbases: u32) -> Result<()> {
        let first = bitcoind.height()? + 1;
        bitcoind.mine(coinbases + COINBASE_MATURITY, &self.script)?;
        for height in first..first + coinbases {
            let block = bitcoind.block_at(height)?;
            let coinbase = block.txdata.first().context("a block without transactions")?;
            let output = coinbase.output.first().context("a coinbase without outputs")?;
            self.coins.push((OutPoint::new(coinbase.compute_txid(), 0), output.value));
        }
        Ok(())
    }

    /// Pays `outputs` in one transaction and sends it. The change can be spent at once.
    ///
    /// # Errors
    /// There are too few coins, or bitcoind refuses it.
    pub fn fan_out(&mut self, bitcoind: &Bitcoind, outputs: &[(ScriptBuf, Amount)]) -> Result<Transaction> {
        let transaction = self.build(outputs)?;
        bitcoind.send(&transaction)?;
        let spent: Vec<OutPoint> = transaction.input.iter().map(|input| input.previous_output).collect();
        self.coins.retain(|(outpoint, _)| !spent.contains(outpoint));
        let txid = transaction.compute_txid();
        for (vout, output) in (0..).zip(&transaction.output) {
            if output.script_pubkey == self.script {
                self.coins.push((OutPoint::new(txid, vout), output.value));
            }
        }
        Ok(transaction)
    }

    /// A signed transaction that pays `outputs`; nothing is sent, and the coins stay in the list.
    ///
    /// # Errors
    /// There are too few coins.
    pub fn build(&self, outputs: &[(ScriptBuf, Amount)]) -> Result<Transaction> {
        let wanted: Amount = outputs.iter().map(|(_, value)| *value).sum();
        let mut chosen: Vec<(OutPoint, Amount)> = Vec::new();
        let mut total = Amount::ZERO;
        let mut fee = fee(0, outputs.len() + 1)?;
        for coin in &self.coins {
            chosen.push(*coin);
            total += coin.1;
            fee = self::fee(chosen.len(), outputs.len() + 1)?;
            if total >= wanted + fee {
                break;
            }
        }
        ensure!(total >= wanted + fee, "{wanted} wanted and {} there", self.balance());
        let mut output: Vec<TxOut> =
            outputs.iter().map(|(script, value)| TxOut { value: *value, script_pubkey: script.clone() }).collect();
        let change = total - wanted - fee;
        if change >= self.script.minimal_non_dust() {
            output.push(TxOut { value: change, script_pubkey: self.script.clone() });
        }
        self.sign(&chosen, output)
    }

    fn sign(&self, coins: &[(OutPoint, Amount)], output: Vec<TxOut>) -> Result<Transaction> {
        let input = coins
            .iter()
            .map(|(outpoint, _)| TxIn {
                previous_output: *outpoint,
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                ..TxIn::default()
            })
            .collect();
        let unsigned = Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output };
        let public = self.key.public_key(&self.secp);
        let mut cache = SighashCache::new(unsigned);
        for (index, (_, value)) in coins.iter().enumerate() {
            let sighash = cache.p2wpkh_signature_hash(index, &self.script, *value, EcdsaSighashType::All)?;
            let signature = self.secp.sign_ecdsa(&Message::from_digest(sighash.to_byte_array()), &self.key);
            let witness = Witness::p2wpkh(&ecdsa::Signature::sighash_all(signature), &public);
            *cache.witness_mut(index).context("an input that is not there")? = witness;
        }
        Ok(cache.into_transaction())
    }
}

fn fee(inputs: usize, outputs: usize) -> Result<Amount> {
    let size_vb = OVERHEAD_VB + INPUT_VB * u64::try_from(inputs)? + OUTPUT_VB * u64::try_from(outputs)?;
    Ok(Amount::from_sat(size_vb * FEERATE_SAT_VB))
}
