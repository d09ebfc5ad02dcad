//! The very end, when everything has been judged: a reorganisation deeper than finality. What was final is not, so the
//! wallet has to be frozen until somebody has looked, every node has to say so, and nothing is granted or signed any more,
//! whatever is asked for (`frozen`). What was paid comes back to the mempools and is mined again; nobody is paid twice by
//! that.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::runtime::Runtime;

use super::frozen::{LastCaller, OPEN, SETTLED};
use super::nodes::Nodes;
use super::stage::Stage;
use super::violation::{Oracle, Violation};
use crate::cluster::FINALITY_DEPTH;
use crate::history::PaymentSeen;
use crate::oracle::chain::{self, ChainVerdict, Orders};
use crate::oracle::signer_log::{self, Signature};

/// Blocks that are taken back: the deepest of them was final, and so was one above it.
const DEPTH: u32 = FINALITY_DEPTH + 1;
/// Slow enough that a payment is seen to be settled before its block is too deep to be taken back.
const PACE: Duration = Duration::from_secs(1);
/// How long a cluster without faults may take to follow the chain, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// What the note of a wallet begins with that a reorganisation froze.
const NOTE: &str = "a reorganisation took away";
/// The alarm that every node shows then.
const ALARM: &str = "DEEP_REORGANISATION";

/// Takes more blocks back than finality takes, and says what is wrong if anything goes on as if it had not happened.
/// `orders` says who was to be paid what, `payments` what the service had until then.
///
/// # Errors
/// The bitcoinds refuse, or the nodes do not answer.
pub fn reorganise(
    stage: &Stage,
    nodes: &Nodes,
    runtime: &Runtime,
    mut orders: Orders,
    payments: &[PaymentSeen],
) -> Result<Vec<Violation>> {
    let (blocks, caller) = (stage.blocks(), LastCaller::of(stage.cluster(), runtime)?);
    blocks.set_pace(PACE);
    caller.pay(&SETTLED, &mut orders)?;
    let settled = caller.await_settled(&SETTLED)?;
    // Its block is among those that are taken back, and what they hold stays out of blocks until everything is asked.
    blocks.set_resting(true);
    let open = caller.pay(&OPEN, &mut orders)?;
    blocks.take_back(DEPTH)?;
    let mut found = Vec::new();
    found.extend(unfrozen(nodes, runtime)?.map(|what| Violation::new(Oracle::Recovery, &what)));
    if found.is_empty() {
        found.extend(caller.ask_in_vain().iter().map(|what| Violation::new(Oracle::Recovery, what)));
    }
    blocks.set_resting(false);
    let known = [payments, &[settled, open]].concat();
    let verdict = mined_again(stage, &orders)?;
    found.extend(paid_twice(&verdict).iter().map(|what| Violation::new(Oracle::Chain, what)));
    found.extend(unpaid(&verdict, &known).iter().map(|what| Violation::new(Oracle::Chain, what)));
    // Only now: whoever signs what it refused would have had the time.
    let new = signed_since(&signatures(stage)?, &known);
    found.extend(new.iter().map(|what| Violation::new(Oracle::Signers, what)));
    Ok(found)
}

/// Waits until the wallet is frozen and every node alarms; what is missing if that does not happen.
fn unfrozen(nodes: &Nodes, runtime: &Runtime) -> Result<Option<String>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let note = runtime.block_on(nodes.frozen_note(PATIENCE))?;
        let alarms = runtime.block_on(nodes.alarms());
        let alarmed = |alarms: &Vec<String>| alarms.iter().any(|alarm| alarm.starts_with(ALARM));
        if note.starts_with(NOTE) && alarms.iter().all(|told| told.as_ref().is_some_and(alarmed)) {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            return Ok(Some(format!(
                "a reorganisation of {DEPTH} blocks does not freeze the wallet on all nodes: {note:?}, {alarms:?}"
            )));
        }
        thread::sleep(POLL);
    }
}

/// Waits for as many blocks as finality takes, and reads what they pay.
fn mined_again(stage: &Stage, orders: &Orders) -> Result<ChainVerdict> {
    let bitcoind = stage.cluster().bitcoinds().first().context("no bitcoind")?;
    let target = bitcoind.height()? + FINALITY_DEPTH;
    let deadline = Instant::now() + PATIENCE;
    while bitcoind.height()? < target && Instant::now() < deadline {
        thread::sleep(POLL);
    }
    ensure!(bitcoind.height()? >= target, "{FINALITY_DEPTH} blocks were not mined within {PATIENCE:?}");
    let blocks = chain::read_blocks(bitcoind, 1)?;
    Ok(chain::judge(&blocks, orders, usize::try_from(FINALITY_DEPTH)?))
}

fn paid_twice(verdict: &ChainVerdict) -> Vec<String> {
    let after = |what: String| format!("after a reorganisation of {DEPTH} blocks {what}");
    let twice = verdict.duplicates.iter().map(|payment| format!("{payment} is paid by several transactions"));
    let wrong = verdict.wrong_amounts.iter().map(|wrong| format!("there is a wrong amount: {wrong}"));
    let spent = verdict.double_spent.iter().map(|outpoint| format!("{outpoint} is spent for two payments"));
    twice.chain(wrong).chain(spent).map(after).collect()
}

/// What was settled is in the mempools again, whoever took it back, and in the next blocks.
fn unpaid(verdict: &ChainVerdict, payments: &[PaymentSeen]) -> Vec<String> {
    let settled = payments.iter().filter(|payment| payment.state == "SETTLED");
    let gone = settled.filter(|payment| !verdict.confirmed.contains(&payment.payment_id));
    gone.map(|payment| format!("{} was settled, and is in no block after a reorganisation", payment.payment_id))
        .collect()
}

fn signatures(stage: &Stage) -> Result<Vec<Signature>> {
    let logs = stage.cluster().nodes().iter().map(|node| signer_log::read(&node.signer_log()));
    Ok(logs.collect::<Result<Vec<_>>>()?.concat())
}

/// Signatures of attempts that were not there. One that was has its intent, and may be signed again, or late.
fn signed_since(signatures: &[Signature], payments: &[PaymentSeen]) -> BTreeSet<String> {
    let known: BTreeSet<(&str, u32)> = payments
        .iter()
        .flat_map(|payment| payment.attempts.iter().map(|one| (payment.payment_id.as_str(), one.number)))
        .collect();
    let new = signatures.iter().filter(|one| !known.contains(&(one.payment_id.as_str(), one.attempt)));
    new.map(|one| format!("{}#{} was signed of a frozen wallet", one.payment_id, one.attempt)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::AttemptSeen;

    #[test]
    fn an_attempt_that_is_new_when_the_wallet_is_frozen_is_said() {
        let signature = |attempt| Signature {
            wallet: "hot".into(),
            payment_id: "p1".into(),
            attempt,
            txid: "aa".into(),
            digest: "d".into(),
            fence: 10,
            outpoints: Vec::new(),
        };
        let attempts = vec![AttemptSeen { number: 1, ..AttemptSeen::default() }];
        let payments = [PaymentSeen { payment_id: "p1".into(), attempts, ..PaymentSeen::default() }];
        assert!(signed_since(&[signature(1), signature(1)], &payments).is_empty(), "once more, or late");
        assert_eq!(signed_since(&[signature(1), signature(2)], &payments).len(), 1);
    }

    #[test]
    fn what_the_chain_pays_twice_is_said() {
        assert_eq!(paid_twice(&ChainVerdict::default()), Vec::<String>::new());
        let twice = ChainVerdict { duplicates: BTreeSet::from(["p1".to_owned()]), ..ChainVerdict::default() };
        assert_eq!(paid_twice(&twice), ["after a reorganisation of 7 blocks p1 is paid by several transactions"]);
        let wrong = ChainVerdict { wrong_amounts: vec!["p1 got 7".to_owned()], ..ChainVerdict::default() };
        assert_eq!(paid_twice(&wrong).len(), 1);
    }

    #[test]
    fn what_was_settled_and_is_not_mined_again_is_said() {
        let seen = |id: &str, state: &str| PaymentSeen {
            payment_id: id.to_owned(),
            state: state.to_owned(),
            ..PaymentSeen::default()
        };
        let payments = [seen("p1", "SETTLED"), seen("p2", "SETTLED"), seen("p3", "CANCELLED")];
        let verdict = ChainVerdict { confirmed: BTreeSet::from(["p1".to_owned()]), ..ChainVerdict::default() };
        assert_eq!(unpaid(&verdict, &payments), ["p2 was settled, and is in no block after a reorganisation"]);
    }
}
