//! A caller's own transaction on its whole way: PSBT, reservation, intent, permit, signature.

use bitcoin::absolute::LockTime;
use bitcoin::psbt::Psbt;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, Sequence, Transaction, TxIn, TxOut};
use onespend_adapters::psbt::{PsbtLimits, check_claims, intake};
use onespend_adapters::signer::Signer;

use crate::ledger::{COIN_SAT, Ledger, account, recipient};
use crate::software::from_file;
use crate::witnesses::assert_valid;

/// Spends the coins as the caller likes, with its own order, sequences and lock time.
fn proposal(ledger: &Ledger, coins: &[OutPoint]) -> Psbt {
    let input = coins.iter().rev().map(|coin| TxIn {
        previous_output: *coin,
        sequence: Sequence::ENABLE_LOCKTIME_NO_RBF,
        ..TxIn::default()
    });
    let value = Amount::from_sat(COIN_SAT * coins.len() as u64 - 1_000);
    let transaction = Transaction {
        version: Version::ONE,
        lock_time: LockTime::from_consensus(150),
        input: input.collect(),
        output: vec![TxOut { value, script_pubkey: recipient() }],
    };
    let mut psbt = Psbt::from_unsigned_tx(transaction).unwrap();
    for (field, coin) in psbt.inputs.iter_mut().zip(coins.iter().rev()) {
        field.witness_utxo = ledger.coin(coin);
    }
    psbt
}

#[test]
fn a_callers_own_transaction_is_signed_as_it_was_proposed() {
    for kind in ["wpkh", "tr"] {
        let account = account(kind, 4);
        let folder = tempfile::tempdir().unwrap();
        let signer = from_file(folder.path(), &[&account.private]);
        let mut ledger = Ledger::start();
        let coins = ledger.register("w", &account.public, "hot", 3);
        let psbt = proposal(&ledger, &coins);
        let proposed = intake(psbt.to_string().as_bytes(), &PsbtLimits::default()).unwrap();
        check_claims(&proposed, |outpoint| ledger.coin(outpoint)).unwrap();
        let permit = ledger.pay_reserved("w", "p", &coins, &proposed.transaction);
        let signed = signer.sign(&permit).unwrap();
        assert_eq!(signed.compute_txid(), psbt.unsigned_tx.compute_txid());
        let prevouts: Vec<TxOut> =
            signed.input.iter().map(|input| ledger.coin(&input.previous_output).unwrap()).collect();
        assert_valid(&signed, &prevouts);
    }
}
