//! What must hold at the end of a run, when all nodes are well and agree.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::Txid;
use onespend_core::ids::PaymentKey;
use onespend_core::invariant;
use onespend_core::outcome::Outcome;
use onespend_core::state::State;

use super::callers::script_of;
use super::judge::{Seen, transactions};
use super::world::World;

/// Judges the end of a run; what is wrong is added to what was seen.
pub(super) fn judge(world: &World) {
    let mut found = Vec::new();
    let nodes = world.nodes();
    for (id, node) in &nodes {
        node.replica.read(|state| {
            found.extend(invariant::check(state).err().map(|broken| format!("node {id}: {broken}")));
        });
    }
    let states: BTreeSet<_> =
        nodes.iter().map(|(_, node)| node.replica.read(|state| (state.applied(), state.hash()))).collect();
    if nodes.len() != 3 || states.len() != 1 {
        found.push(format!(
            "the nodes end with different states: {:?}",
            states.iter().map(|(at, _)| at).collect::<Vec<_>>()
        ));
    }
    if let Some((_, node)) = nodes.first() {
        node.replica.read(|state| world.judge.seen(|seen| found.extend(kept(state, seen))));
        found.extend(node.replica.read(|state| paid(world, state)));
    }
    for what in found {
        world.judge.violation(what);
    }
}

/// Everything that was answered or signed is still there (safety 3, 25).
fn kept(state: &State, seen: &Seen) -> Vec<String> {
    let mut lost = Vec::new();
    for (request, applied) in &seen.answers {
        let there = match &applied.outcome {
            Outcome::Permitted { payment, attempt } => {
                state.payment(payment).is_some_and(|payment| payment.attempt(*attempt).is_some())
            }
            Outcome::Reserved { reservation, .. } => {
                state.reservation(*reservation).is_some() || state.ended_reservation(*reservation).is_some()
            }
            _ => true,
        };
        if !there || state.cached(request).is_none_or(|cached| cached.outcome != applied.outcome) {
            lost.push(format!("what request {request:?} was told is lost: {:?}", applied.outcome));
        }
    }
    for (txid, (key, number)) in &seen.signed {
        let attempt = state.payment(key).and_then(|payment| payment.attempt(*number));
        if attempt.is_none_or(|attempt| attempt.txid() != *txid) {
            lost.push(format!("{txid} was signed for attempt {number} of {key}, which the log does not have"));
        }
    }
    lost
}

/// What the chain says: one transaction for a payment at most, and its recipient has what was owed (safety 4, 5).
fn paid(world: &World, state: &State) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut confirmed: BTreeMap<PaymentKey, Vec<Txid>> = BTreeMap::new();
    let chain = transactions(&world.chain);
    for (_, transaction) in &chain {
        let txid = transaction.compute_txid();
        match world.judge.seen(|seen| seen.signed.get(&txid).cloned()) {
            Some((key, _)) => confirmed.entry(key).or_default().push(txid),
            None => wrong.push(format!("{txid} is in the chain, and no signer made it")),
        }
    }
    for (key, txids) in confirmed.iter().filter(|(_, txids)| txids.len() > 1) {
        wrong.push(format!("payment {key} was paid {} times: {txids:?}", txids.len()));
    }
    for (key, payment) in state.payments() {
        let script = script_of(key);
        let outputs = chain.iter().flat_map(|(_, transaction)| &transaction.output);
        let received: u64 = outputs.filter(|out| out.script_pubkey == script).map(|out| out.value.to_sat()).sum();
        let owed: u64 = payment.recipients.iter().map(|recipient| recipient.amount_sat).sum();
        let expected = if payment.is_settled() && !payment.is_cancelled() { owed } else { 0 };
        if received != expected {
            wrong.push(format!("the recipient of {key} received {received} sat instead of {expected}"));
        }
    }
    wrong
}
