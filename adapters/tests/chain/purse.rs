//! Test keys and signed transactions. bitcoind has no wallet here.

use bitcoin::absolute::LockTime;
use bitcoin::hashes::Hash;
use bitcoin::key::{CompressedPublicKey, Secp256k1};
use bitcoin::secp256k1::{Message, SecretKey};
use bitcoin::sighash::{EcdsaSighashType, SighashCache};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness, ecdsa};

use crate::driver::Driver;

/// An output and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coin {
    pub outpoint: OutPoint,
    pub value: Amount,
}

/// One P2WPKH key.
pub struct Purse {
    key: SecretKey,
    public: CompressedPublicKey,
}

impl Purse {
    pub fn new(seed: u8) -> Self {
        let key = SecretKey::from_slice(&[seed; 32]).unwrap();
        let public = CompressedPublicKey(key.public_key(&Secp256k1::new()));
        Self { key, public }
    }

    pub fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&self.public.wpubkey_hash())
    }

    pub fn descriptor(&self) -> String {
        format!("wpkh({})", self.public)
    }

    /// Mines a block to this purse and 100 more to nobody; answers the mature coinbase.
    pub fn fund(&self, driver: &dyn Driver) -> Coin {
        let block = driver.mine(1, &self.script())[0];
        driver.mine(100, &nobody());
        coinbase_of(driver, block)
    }

    /// Spends coins of this purse to outputs, signed.
    pub fn pay(&self, coins: &[Coin], outputs: Vec<TxOut>) -> Transaction {
        let mut tx = unsigned(coins, outputs);
        self.sign(&mut tx, coins);
        tx
    }

    /// Spends one coin to one output of this purse, leaving `fee_sat`.
    pub fn send(&self, coin: Coin, fee_sat: u64) -> Transaction {
        let value = coin.value - Amount::from_sat(fee_sat);
        self.pay(&[coin], vec![TxOut { value, script_pubkey: self.script() }])
    }

    pub fn sign(&self, tx: &mut Transaction, coins: &[Coin]) {
        let secp = Secp256k1::new();
        let script = self.script();
        let mut cache = SighashCache::new(tx);
        for (index, coin) in coins.iter().enumerate() {
            let sighash_type = EcdsaSighashType::All;
            let hash = cache.p2wpkh_signature_hash(index, &script, coin.value, sighash_type).unwrap();
            let message = Message::from_digest(hash.to_byte_array());
            let signature = ecdsa::Signature { signature: secp.sign_ecdsa(&message, &self.key), sighash_type };
            *cache.witness_mut(index).unwrap() = Witness::p2wpkh(&signature, &self.public.0);
        }
    }
}

pub fn unsigned(coins: &[Coin], outputs: Vec<TxOut>) -> Transaction {
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: coins
            .iter()
            .map(|coin| TxIn {
                previous_output: coin.outpoint,
                sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
                ..TxIn::default()
            })
            .collect(),
        output: outputs,
    }
}

pub fn coin_of(tx: &Transaction, vout: u32) -> Coin {
    let value = tx.output[usize::try_from(vout).unwrap()].value;
    Coin { outpoint: OutPoint { txid: tx.compute_txid(), vout }, value }
}

pub fn coinbase_of(driver: &dyn Driver, block: bitcoin::BlockHash) -> Coin {
    coin_of(&driver.chain().block(block).unwrap().txdata[0], 0)
}

/// A script that no test has a key for.
pub fn nobody() -> ScriptBuf {
    Purse::new(0x77).script()
}

/// An outpoint that exists nowhere.
pub fn nowhere() -> OutPoint {
    OutPoint { txid: Txid::from_byte_array([0xee; 32]), vout: 0 }
}
