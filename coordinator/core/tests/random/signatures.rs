//! Steps of signers: signatures, and the word that none will come.

use bitcoin::Transaction;
use onespend_core::command::Command;
use onespend_core::outcome::{Outcome, Rejection};
use onespend_core::payment::AttemptEnd;
use onespend_core::settlement::{AttemptState, attempt_state};

use super::{attempts, pick};
use crate::world::World;
use crate::world::wallets::fixtures;

/// Signs what may be signed; a signature that is not plain is refused.
pub(super) fn sign(world: &mut World, at: usize, spoilt: bool) {
    let Some((key, attempt, _)) = pick(&attempts(world), at) else { return };
    let Some(mut transaction) = world.signed(&key, attempt) else { return };
    if spoilt {
        let items = transaction.input[0].witness.to_vec();
        let mut signature = items[0].clone();
        signature[63] ^= 0x80;
        signature.resize(65, 0);
        signature[64] = 0x81;
        transaction.input[0].witness = bitcoin::Witness::from_slice(&[vec![signature], items[1..].to_vec()].concat());
    }
    let txid = transaction.compute_txid();
    let outcome = world.duty(Command::RecordSignature { key: key.clone(), attempt, transaction });
    let recorded = world.state.payment(&key).unwrap().attempt(attempt).unwrap().signed.as_ref();
    if spoilt {
        assert_eq!(outcome, Outcome::Rejected(Rejection::SignatureMismatch));
        assert_eq!(recorded, None);
    } else {
        assert_eq!(outcome, Outcome::Recorded);
        assert_eq!(recorded.map(Transaction::compute_txid), Some(txid), "safety 13 and 14");
    }
}

/// safety 6: the signer's own word about this very attempt, or nothing.
pub(super) fn abort(world: &mut World, at: usize, honest: bool) {
    // Also of what miners have seen, and of what they have mined: then it is a lie, and a block proves it.
    let Some((key, number, _)) = pick(&attempts(world), at) else { return };
    let mut command = world.abort(&key, number).unwrap();
    if !honest {
        command.proof[at % 64] ^= 1;
    }
    let before = world.state.payment(&key).unwrap().attempt(number).unwrap().clone();
    let in_no_block = attempt_state(&world.state, &before) == AttemptState::Signing;
    let owner = world.state.payment(&key).unwrap().owner.as_str().to_owned();
    let outcome = world.ask(&owner, Command::AbortAttempt(command));
    let believed = honest && !world.oracle.is_undone(&key);
    let may = fixtures()[3].id == key.wallet && in_no_block && before.end.is_none() && believed;
    let known = before.end == Some(AttemptEnd::Aborted);
    assert_eq!(outcome == Outcome::Recorded, may || known, "{outcome:?}");
}
