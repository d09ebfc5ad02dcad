//! What callers send to be signed, and what signers outside send back.
//!
//! The first byte says what the rest is:
//! - 0: a PSBT as it comes, raw or in base64;
//! - 1: changes to a PSBT that is right, six bytes each: what, where (2), how much, with what (2);
//! - 2 to 4: a signed transaction for a coin of a wallet of one of the three kinds.

use std::cell::OnceCell;

use bitcoin::absolute::LockTime;
use bitcoin::base64::Engine;
use bitcoin::base64::prelude::BASE64_STANDARD;
use bitcoin::bip32::{Xpriv, Xpub};
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::transaction::Version;
use bitcoin::{Amount, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Txid, Witness};
use onespend_adapters::psbt::{PsbtLimits, check_claims, intake};
use onespend_adapters::signer::outside::check_signed;
use onespend_core::wallet::{Keychain, WalletDescriptor};

/// Descriptors of the three kinds of wallets.
pub fn descriptors() -> [String; 3] {
    let secp = Secp256k1::new();
    let key = |seed: u8| {
        let master = Xpriv::new_master(Network::Regtest, &[seed; 32]).unwrap();
        format!("{}/<0;1>/*", Xpub::from_priv(&secp, &master))
    };
    let (first, second) = (key(1), key(2));
    [format!("wpkh({first})"), format!("tr({first})"), format!("wsh(sortedmulti(2,{first},{second}))")]
}

const BYTES_OF_A_CHANGE: usize = 6;

/// The wallets of the three kinds, each with the script of its first address.
fn wallets() -> [(WalletDescriptor, ScriptBuf); 3] {
    descriptors().map(|text| {
        let wallet = WalletDescriptor::parse(&text, Network::Regtest).unwrap();
        let script = wallet.script(Keychain::External, 0).unwrap();
        (wallet, script)
    })
}

thread_local! {
    static WALLETS: OnceCell<[(WalletDescriptor, ScriptBuf); 3]> = const { OnceCell::new() };
}

fn with_wallets<T>(run: impl FnOnce(&[(WalletDescriptor, ScriptBuf); 3]) -> T) -> T {
    WALLETS.with(|cell| run(cell.get_or_init(wallets)))
}

fn transaction(input: Vec<OutPoint>, output: Vec<TxOut>) -> Transaction {
    let spends = |previous_output| TxIn {
        previous_output,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    };
    let input = input.into_iter().map(spends).collect();
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input, output }
}

fn paid(sat: u64, script_pubkey: &ScriptBuf) -> TxOut {
    TxOut { value: Amount::from_sat(sat), script_pubkey: script_pubkey.clone() }
}

/// The transaction that made the wallets' coins.
fn parent() -> Transaction {
    let outputs = with_wallets(|all| all.each_ref().map(|(_, script)| paid(100_000, script)));
    transaction(vec![OutPoint { txid: Txid::hash(b"before"), vout: 1 }], outputs.into())
}

/// One input of each kind, one output of each kind.
pub fn spending() -> Transaction {
    let txid = parent().compute_txid();
    let outputs = with_wallets(|all| all.each_ref().map(|(_, script)| paid(90_000, script)));
    transaction((0..3).map(|vout| OutPoint { txid, vout }).collect(), outputs.into())
}

/// PSBTs with nothing wrong: as a creator makes it, and with all that an updater adds.
fn healthy() -> [Psbt; 2] {
    let (parent, bare) = (parent(), Psbt::from_unsigned_tx(spending()).unwrap());
    let mut full = bare.clone();
    for (input, output) in full.inputs.iter_mut().zip(&parent.output) {
        input.witness_utxo = Some(output.clone());
        input.non_witness_utxo = Some(parent.clone());
    }
    [bare, full]
}

/// Our own view of the coins.
fn view(outpoint: &OutPoint) -> Option<TxOut> {
    let parent = parent();
    let known = outpoint.txid == parent.compute_txid();
    known.then(|| parent.output.get(outpoint.vout as usize).cloned()).flatten()
}

/// Changes bytes as the changes say.
fn damage(bytes: &mut Vec<u8>, changes: &[u8]) {
    for change in changes.chunks_exact(BYTES_OF_A_CHANGE) {
        if bytes.is_empty() {
            return;
        }
        let at = usize::from(u16::from_le_bytes([change[1], change[2]])) % bytes.len();
        let end = (at + usize::from(change[3])).min(bytes.len());
        match change[0] % 5 {
            0 => bytes[at] = change[4],
            1 => drop(bytes.drain(at..end)),
            2 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            3 => drop(bytes.splice(at..at, change[4..6].iter().copied())),
            _ => bytes.truncate(at),
        }
    }
}

/// Whatever comes, the answer is a value; what is accepted is as it says.
fn read(bytes: &[u8]) {
    let limits = PsbtLimits::default();
    let answer = intake(bytes, &limits);
    if bytes.starts_with(b"psbt\xff") {
        let again = intake(BASE64_STANDARD.encode(bytes).as_bytes(), &limits);
        assert_eq!(answer, again, "raw and base64 are the same");
    }
    let Ok(proposal) = answer else { return };
    let inputs = &proposal.transaction.input;
    assert!((1..=limits.max_inputs).contains(&inputs.len()));
    assert!((1..=limits.max_outputs).contains(&proposal.transaction.output.len()));
    assert!(inputs.iter().all(|input| input.script_sig.is_empty() && input.witness.is_empty()), "it is unsigned");
    assert!(proposal.claims.iter().map(|claim| claim.outpoint).eq(inputs.iter().map(|input| input.previous_output)));
    assert!(check_claims(&proposal, |_| None).is_err(), "coins that nobody knows are nobody's");
    if check_claims(&proposal, view).is_ok() {
        let claimed = proposal.claims.iter().filter_map(|claim| Some((claim.txout.as_ref()?, claim.outpoint)));
        for (txout, outpoint) in claimed {
            assert_eq!(Some(txout), view(&outpoint).as_ref(), "a false claim was believed (safety 18)");
        }
    }
}

/// Nobody here has the keys, so no signature is true.
fn signed(kind: usize, bytes: &[u8]) {
    let Ok(transaction) = deserialize::<Transaction>(bytes) else { return };
    with_wallets(|all| {
        let (wallet, script) = &all[kind];
        let prevouts = vec![paid(100_000, script); transaction.input.len()];
        let answer = check_signed(wallet, &transaction, transaction.compute_txid(), &prevouts);
        assert!(transaction.input.is_empty() || answer.is_err(), "a signature that nobody made is true");
    });
}

/// A PSBT with nothing wrong.
pub fn full() -> Psbt {
    let [_, full] = healthy();
    full
}

/// Feeds one input.
pub fn feed(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    match first {
        0 => read(rest),
        1 => {
            for psbt in healthy() {
                let mut bytes = psbt.serialize();
                damage(&mut bytes, rest);
                read(&bytes);
            }
        }
        2..=4 => signed(usize::from(*first) - 2, rest),
        _ => {}
    }
}

/// The PSBTs that are right, every kind of change, and transactions with witnesses of every shape.
pub fn seeds() -> Vec<Vec<u8>> {
    let with = |first: u8, rest: &[u8]| [&[first], rest].concat();
    let mut seeds: Vec<Vec<u8>> = healthy().iter().map(|psbt| with(0, &psbt.serialize())).collect();
    seeds.push(with(0, BASE64_STANDARD.encode(healthy()[0].serialize()).as_bytes()));
    seeds.extend((0..5).map(|what| with(1, &[what, 40, 0, 3, 1, 2])));
    let shapes: [&[&[u8]]; 4] =
        [&[&[0x30; 71], &[2; 33]], &[&[1; 64]], &[&[], &[0x30; 71], &[0x30; 72], &[0x52; 71]], &[]];
    for (kind, shape) in (2..5).flat_map(|kind| shapes.map(|shape| (kind, shape))) {
        let mut transaction = spending();
        for input in &mut transaction.input {
            input.witness = Witness::from_slice(shape);
        }
        seeds.push(with(kind, &serialize(&transaction)));
    }
    seeds
}
