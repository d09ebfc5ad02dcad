//! What must hold while a run goes on: what nodes told each other, the signers and the callers. It believes none of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitcoin::{OutPoint, Transaction, Txid};
use onespend_adapters::chain::fake::FakeChain;
use onespend_adapters::signer::memory::Refusal;
use onespend_adapters::signer::software::SoftwareSigner;
use onespend_adapters::signer::{Signer, SignerError};
use onespend_core::ids::{AttemptNo, Fence, PaymentKey, RequestKey};
use onespend_core::invariant;
use onespend_core::outcome::{Outcome, Rejection};
use onespend_core::signing::SigningPermit;
use onespend_core::wallet::WalletDescriptor;

use super::executor::Host;
use super::machine::Running;
use super::primaries::Primaries;
use super::world::executor;
use crate::raft::{Applied, HashAt};
use crate::runtime::{sleep, spawn};

/// Blocks after which a transaction counts as final; the wallet's setting.
pub(super) const FINAL: u32 = 6;

/// How often each node is looked at,
const LOOK: Duration = Duration::from_millis(20);
/// and after how many looks its whole state is checked.
const LOOKS_PER_CHECK: u64 = 25;

/// What was seen so far, and what was wrong with it.
#[derive(Default)]
pub(super) struct Judge(Mutex<Seen>);

#[derive(Default)]
pub(super) struct Seen {
    /// In words, in the order of their discovery.
    pub(super) violations: Vec<String>,
    /// Who led a term.
    leaders: BTreeMap<u64, Host>,
    /// State hashes by index.
    hashes: BTreeMap<u64, [u8; 32]>,
    /// What was signed: payment and attempt by transaction, and what they spend.
    pub(super) signed: BTreeMap<Txid, (PaymentKey, AttemptNo)>,
    inputs: BTreeMap<Txid, Vec<OutPoint>>,
    /// Who said of itself that it may take spends.
    pub(super) primaries: Primaries,
    /// What callers were answered, other than refusals that pass.
    pub(super) answers: BTreeMap<RequestKey, Applied>,
    /// Refusals that callers heard, and calls without an answer.
    pub(super) refused: u64,
    pub(super) unknown: u64,
}

impl Judge {
    pub(super) fn seen<R>(&self, look: impl FnOnce(&mut Seen) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn violation(&self, what: String) {
        self.seen(|seen| seen.violations.push(what));
    }

    /// Looks at a node that has just started, for as long as it runs.
    pub(super) fn watch(self: &Arc<Self>, id: Host, node: &Running) {
        let (judge, replica) = (Arc::clone(self), Arc::clone(&node.replica));
        executor().spawn_on(id, async move {
            let (told, watched) = (Arc::clone(&judge), Arc::clone(&replica));
            spawn(async move { told.violation(format!("node {id} gave up: {}", watched.wait_fatal().await)) });
            for look in 0_u64.. {
                if let Some(term) = replica.leader_term() {
                    judge.leads(id, term.term());
                }
                let now = replica.read(|state| HashAt { index: state.applied(), hash: state.hash() });
                replica.hashes().into_iter().chain([now]).for_each(|hash| judge.compare(id, hash));
                if look.is_multiple_of(LOOKS_PER_CHECK)
                    && let Err(broken) = replica.read(invariant::check)
                {
                    judge.violation(format!("node {id}: {broken}"));
                }
                sleep(LOOK).await;
            }
        });
    }

    /// One leader for a term (Raft, election safety).
    pub(super) fn leads(&self, id: Host, term: u64) {
        self.seen(|seen| {
            let known = *seen.leaders.entry(term).or_insert(id);
            if known != id {
                seen.violations.push(format!("nodes {known} and {id} both led term {term}"));
            }
        });
    }

    /// These nodes say yes at `/primary`, at this moment of the run: never two for longer than an election timeout.
    pub(super) fn primaries(&self, at: Duration, answered: &[Host]) {
        self.seen(|seen| {
            let broken = seen.primaries.note(at, answered);
            seen.violations.extend(broken);
        });
    }

    /// Equal states at equal indexes (safety 15).
    pub(super) fn compare(&self, id: Host, at: HashAt) {
        self.seen(|seen| {
            if *seen.hashes.entry(at.index.0).or_insert(at.hash) != at.hash {
                seen.violations.push(format!("node {id} has another state at index {}", at.index));
            }
        });
    }

    /// A caller was answered; what it was told holds for ever (safety 25, 26).
    pub(super) fn answered(&self, request: &RequestKey, applied: &Applied) {
        self.seen(|seen| {
            seen.refused += u64::from(matches!(applied.outcome, Outcome::Rejected(_)));
            // A refusal that says nothing of the request is not its answer, unless there was one before.
            let passing = matches!(&applied.outcome, Outcome::Rejected(rejection) if rejection.is_transient());
            match seen.answers.get(request) {
                Some(before) if before.outcome != applied.outcome => {
                    let what = format!("request {request:?} was answered {before:?}, and then {applied:?}");
                    seen.violations.push(what);
                }
                None if !passing => {
                    seen.answers.insert(request.clone(), applied.clone());
                }
                Some(_) | None => {}
            }
        });
    }

    /// Another request came under the name of one that was answered.
    pub(super) fn misused(&self, request: &RequestKey, outcome: &Outcome) {
        self.seen(|seen| {
            if seen.answers.contains_key(request) && *outcome != Outcome::Rejected(Rejection::RequestIdReused) {
                seen.violations.push(format!("the name of request {request:?} was used again: {outcome:?}"));
            }
        });
    }

    /// A signer refused. Where it remembers another transaction of the attempt, or more than the log has, the log has failed
    /// and only its memory has not (safety 3, 11). For a coin of an earlier payment it wants a proof first, and an attempt
    /// that a later one has overtaken it never signs.
    fn refused(&self, error: &SignerError) {
        let SignerError::Remembered { refusal, .. } = error else { return };
        if matches!(refusal.as_ref(), Refusal::OtherTransaction { .. } | Refusal::Frozen { .. }) {
            self.violation(format!("a signer's memory had to stop the log: {error}"));
        }
    }

    /// A signature was made. Per attempt one transaction, and no coin for two payments unless what was signed for the earlier
    /// one is dead (safety 1, 4, 5, 14).
    pub(super) fn signed(&self, permit: &SigningPermit, chain: &FakeChain) {
        let (key, number, txid) = (permit.key().clone(), permit.attempt(), permit.txid());
        let spends = spends(chain);
        self.seen(|seen| {
            let other = seen.signed.iter().find(|(known, of)| **known != txid && **of == (key.clone(), number));
            if let Some((other, _)) = other {
                seen.violations.push(format!("attempt {number} of {key} was signed as {other} and as {txid}"));
            }
            for outpoint in permit.inputs().iter().map(|input| input.outpoint) {
                let others = seen.signed.iter().filter(|(_, (of, _))| *of != key).map(|(txid, (of, _))| (txid, of));
                let mut living = others.filter(|(txid, _)| seen.inputs[*txid].contains(&outpoint));
                if let Some((other, of)) = living.find(|(txid, _)| !is_dead(**txid, &seen.inputs, &spends)) {
                    let what = format!("{outpoint} was signed for {of} by {other}, which is not dead, and for {key}");
                    seen.violations.push(what);
                }
            }
            seen.inputs.insert(txid, permit.inputs().iter().map(|input| input.outpoint).collect());
            seen.signed.insert(txid, (key, number));
        });
    }
}

/// What the active chain spends, by whom, and how deep that is.
type Spends = BTreeMap<OutPoint, (Txid, u32)>;

fn spends(chain: &FakeChain) -> Spends {
    let spent = |(depth, transaction): (u32, Transaction)| {
        let txid = transaction.compute_txid();
        transaction.input.into_iter().map(move |input| (input.previous_output, (txid, depth)))
    };
    transactions(chain).into_iter().flat_map(spent).collect()
}

/// Whether a transaction can never be in a block: another one that spends what it spends is final, or it spends what a dead
/// one would have made.
fn is_dead(txid: Txid, inputs: &BTreeMap<Txid, Vec<OutPoint>>, spends: &Spends) -> bool {
    let Some(spent) = inputs.get(&txid) else { return false };
    spent.iter().any(|outpoint| match spends.get(outpoint) {
        Some((by, depth)) => *by != txid && *depth >= FINAL,
        None => is_dead(outpoint.txid, inputs, spends),
    })
}

/// The transactions of the active chain that are no coinbases, with their depths.
pub(super) fn transactions(chain: &FakeChain) -> Vec<(u32, Transaction)> {
    let deepest = (1..).zip(chain.blocks().into_iter().rev());
    deepest.flat_map(|(depth, block)| block.txdata.into_iter().skip(1).map(move |tx| (depth, tx))).collect()
}

/// A signer that tells the judge what it signs.
pub(super) struct Witness {
    keys: Arc<SoftwareSigner>,
    judge: Arc<Judge>,
    chain: FakeChain,
}

impl Witness {
    pub(super) fn new(keys: Arc<SoftwareSigner>, judge: Arc<Judge>, chain: FakeChain) -> Self {
        Self { keys, judge, chain }
    }
}

impl Signer for Witness {
    fn name(&self) -> &str {
        self.keys.name()
    }

    fn holds(&self, descriptor: &WalletDescriptor) -> bool {
        self.keys.holds(descriptor)
    }

    fn sign(&self, permit: &SigningPermit) -> Result<Transaction, SignerError> {
        let signed = self.keys.sign(permit).inspect_err(|error| self.judge.refused(error))?;
        self.judge.signed(permit, &self.chain);
        Ok(signed)
    }

    fn highest_fence(&self) -> Option<Fence> {
        self.keys.highest_fence()
    }

    fn frozen(&self) -> Option<String> {
        self.keys.frozen()
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use onespend_core::ids::{AttemptNo, CallerId, LogIndex, PaymentId, RequestId};

    use super::*;
    use crate::specimen::wallet;

    fn request() -> RequestKey {
        RequestKey { caller: CallerId::parse("client/c").unwrap(), request: RequestId::parse("r").unwrap() }
    }

    fn answer(outcome: Outcome) -> Applied {
        Applied { outcome, index: LogIndex(1), term: 1 }
    }

    fn permitted(number: u32) -> Outcome {
        let payment = PaymentKey { wallet: wallet("w"), payment: PaymentId::parse("p").unwrap() };
        Outcome::Permitted { payment, attempt: AttemptNo(number) }
    }

    fn faults(of: impl FnOnce(&Judge)) -> usize {
        let judge = Judge::default();
        of(&judge);
        judge.seen(|seen| seen.violations.len())
    }

    #[test]
    fn a_transaction_is_dead_by_a_final_conflict_of_its_own_or_of_what_it_spends() {
        let [other, parent, child] = [1, 2, 3].map(|byte| Txid::from_byte_array([byte; 32]));
        let coin = OutPoint::new(Txid::from_byte_array([9; 32]), 0);
        let inputs = [(parent, vec![coin]), (child, vec![OutPoint::new(parent, 0)])].into();
        let dead = |by, depth| {
            let spends = [(coin, (by, depth))].into();
            [parent, child].map(|txid| is_dead(txid, &inputs, &spends))
        };
        assert_eq!(dead(other, FINAL), [true, true]);
        assert_eq!(dead(other, FINAL - 1), [false, false]);
        assert_eq!(dead(parent, FINAL), [false, false]);
    }

    #[test]
    fn false_histories_are_found_and_true_ones_are_not() {
        let hash = |byte| HashAt { index: LogIndex(7), hash: [byte; 32] };
        assert_eq!(faults(|judge| [1, 1].iter().for_each(|id| judge.leads(*id, 3))), 0);
        assert_eq!(faults(|judge| [1, 2].iter().for_each(|id| judge.leads(*id, 3))), 1);
        assert_eq!(faults(|judge| [1, 1].iter().for_each(|byte| judge.compare(1, hash(*byte)))), 0);
        assert_eq!(faults(|judge| [1, 2].iter().for_each(|byte| judge.compare(1, hash(*byte)))), 1);

        let told = |outcomes: Vec<Outcome>| {
            faults(|judge| outcomes.into_iter().for_each(|outcome| judge.answered(&request(), &answer(outcome))))
        };
        let (passes, stays) = (Rejection::NotStarted, Rejection::RequestIdReused);
        assert_eq!(told(vec![permitted(1), permitted(1)]), 0);
        assert_eq!(told(vec![permitted(1), permitted(2)]), 1);
        assert_eq!(told(vec![Outcome::Rejected(passes.clone()), permitted(1)]), 0);
        assert_eq!(told(vec![permitted(1), Outcome::Rejected(passes)]), 1);
        assert_eq!(told(vec![Outcome::Rejected(stays.clone()), permitted(1)]), 1);

        let misused = |outcome: Outcome| {
            faults(|judge| {
                judge.answered(&request(), &answer(permitted(1)));
                judge.misused(&request(), &outcome);
            })
        };
        assert_eq!((misused(Outcome::Rejected(stays)), misused(permitted(1))), (0, 1));
    }
}
