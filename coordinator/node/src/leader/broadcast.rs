//! Hands signed transactions to bitcoind, again and again until they are in a block. One that is evicted, refused or
//! not seen is not dead (safety 9): only a block decides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Transaction;
use onespend_adapters::chain::{BroadcastOutcome, ChainError};
use onespend_core::command::{Command, Relay};
use onespend_core::ids::{AttemptNo, PaymentKey};
use onespend_core::settlement::{AttemptState, attempt_state};
use tokio::sync::mpsc;
use tracing::{Instrument, Span, debug, info, info_span, warn};

use super::Duty;
use crate::raft::LeaderTerm;
use crate::runtime;

/// Attempts that wait for their first broadcast; beyond that the next round finds them.
const OUTBOX: usize = 4096;
/// How often everything that is signed and in no block is offered again.
const REBROADCAST: Duration = Duration::from_secs(10);
/// Most first broadcasts that go before the next one of those that are offered again.
const MAX_PASSED: usize = 16;
/// Longest reason of a refusal that is kept, in characters.
const MAX_REASON: usize = 200;

/// Where freshly signed attempts are put.
#[derive(Clone)]
pub struct Outbox(mpsc::Sender<Fresh>);

/// An attempt that was just signed, with the trace of the request that it came from.
pub struct Fresh {
    key: PaymentKey,
    attempt: AttemptNo,
    span: Span,
}

/// Where the duty takes them from.
pub type Inbox = Arc<tokio::sync::Mutex<mpsc::Receiver<Fresh>>>;

/// A queue from the signers to the broadcast duty.
pub fn queue() -> (Outbox, Inbox) {
    let (sender, receiver) = mpsc::channel(OUTBOX);
    (Outbox(sender), Arc::new(tokio::sync::Mutex::new(receiver)))
}

impl Outbox {
    /// Never waits: what does not fit is found by the next round.
    pub fn put(&self, key: PaymentKey, attempt: AttemptNo) {
        let _ = self.0.try_send(Fresh { key, attempt, span: Span::current() });
    }
}

pub(super) async fn run(duty: Arc<Duty>, term: LeaderTerm) {
    let mut fresh = duty.inbox.lock().await;
    let mut tips = duty.bitcoind.tips();
    let mut round = runtime::now() + REBROADCAST;
    let mut queue = Queue { due: true, ..Queue::default() };
    loop {
        queue.fill(|| open_attempts(&duty));
        tokio::select! {
            biased;
            () = runtime::sleep_until(round) => {
                queue.due = true;
                round = runtime::now() + REBROADCAST;
            }
            // A reorganisation may have emptied a block into nowhere.
            Ok(()) = tips.changed() => queue.due = true,
            Some(Fresh { key, attempt, span }) = fresh.recv(), if queue.lets_fresh_pass() => {
                queue.passed += 1;
                let span = info_span!(parent: &span, "broadcast", payment = %key, attempt = attempt.0);
                offer(&duty, &term, key, attempt).instrument(span).await;
            }
            () = std::future::ready(()), if !queue.waiting.is_empty() => {
                if let Some((key, attempt)) = queue.next() {
                    offer(&duty, &term, key, attempt).await;
                }
            }
        }
    }
}

/// What is offered again. A payment's first broadcast does not wait for the end of this queue: it goes between two.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<(PaymentKey, AttemptNo)>,
    /// Whether a round begins when this one is through.
    due: bool,
    /// First broadcasts since one of the queue.
    passed: usize,
}

impl Queue {
    fn fill(&mut self, open: impl FnOnce() -> VecDeque<(PaymentKey, AttemptNo)>) {
        if self.due && self.waiting.is_empty() {
            self.due = false;
            self.waiting = open();
        }
    }

    fn lets_fresh_pass(&self) -> bool {
        self.waiting.is_empty() || self.passed < MAX_PASSED
    }

    fn next(&mut self) -> Option<(PaymentKey, AttemptNo)> {
        self.passed = 0;
        self.waiting.pop_front()
    }
}

/// Attempts that are signed and in no block, but for those that could pay a payment a second time.
fn open_attempts(duty: &Duty) -> VecDeque<(PaymentKey, AttemptNo)> {
    duty.replica.read(|state| {
        let mut open = VecDeque::new();
        for key in state.open_payments() {
            let Some(payment) = state.payment(&key) else { continue };
            let waiting = payment.numbered().filter(|(_, attempt)| {
                matches!(attempt_state(state, attempt), AttemptState::Signed | AttemptState::Broadcast)
                    && !payment.has_rival(attempt)
            });
            open.extend(waiting.map(|(number, _)| (key.clone(), number)));
        }
        open
    })
}

async fn offer(duty: &Arc<Duty>, term: &LeaderTerm, key: PaymentKey, number: AttemptNo) {
    let signed = duty.replica.read(|state| {
        let payment = state.payment(&key)?;
        let attempt = payment.attempt(number).filter(|attempt| !payment.has_rival(attempt))?;
        Some((attempt.signed.clone()?, attempt.relay.clone()))
    });
    let Some((transaction, before)) = signed else { return };
    let txid = transaction.compute_txid();
    let relay = match send(duty, transaction).await {
        Ok(relay) => relay,
        Err(error) => {
            // Unknown: it may be in the mempool. The next round asks again.
            warn!(%txid, %error, "whether bitcoind has the transaction is unknown");
            return;
        }
    };
    if before.as_ref() == Some(&relay) {
        return;
    }
    match &relay {
        Relay::Accepted => info!(payment = %key, %txid, "broadcast"),
        Relay::Refused(why) => {
            warn!(payment = %key, %txid, why, "bitcoind refuses the transaction; it is offered again");
        }
    }
    if let Err(error) = duty.replica.propose_as(term, Command::RecordRelay { key, attempt: number, relay }).await {
        debug!(%txid, %error, "what bitcoind said is not recorded");
    }
}

async fn send(duty: &Arc<Duty>, transaction: Transaction) -> Result<Relay, ChainError> {
    let chain = Arc::clone(&duty.chain);
    // Entered there, so that the trace goes on to bitcoind.
    let span = Span::current();
    let sent = runtime::blocking(move || span.in_scope(|| chain.broadcast(&transaction))).await;
    let outcome = sent.unwrap_or_else(|_| Err(lost()))?;
    Ok(match outcome {
        BroadcastOutcome::Accepted | BroadcastOutcome::AlreadyInMempool | BroadcastOutcome::AlreadyConfirmed => {
            Relay::Accepted
        }
        // Lost to a conflict, or confirmed and spent on: the blocks tell which, and the log follows them.
        BroadcastOutcome::InputsMissingOrSpent { conflicts } => {
            let spenders: Vec<String> = conflicts.iter().map(|conflict| conflict.spender.to_string()).collect();
            Relay::Refused(clip(&format!("inputs missing or spent {}", spenders.join(" "))))
        }
        BroadcastOutcome::Rejected { code, reason } => Relay::Refused(clip(&format!("{reason} ({code})"))),
    })
}

/// The thread ended before it could say what bitcoind answered.
fn lost() -> ChainError {
    let detail = "the thread that asked ended".to_owned();
    ChainError::Transport { method: "sendrawtransaction", sent: true, detail }
}

fn clip(text: &str) -> String {
    text.trim().chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use onespend_core::ids::PaymentId;

    use super::*;
    use crate::specimen::wallet;

    fn attempts(count: u32) -> VecDeque<(PaymentKey, AttemptNo)> {
        let key = PaymentKey { wallet: wallet("w"), payment: PaymentId::parse("p").unwrap() };
        (1..=count).map(|number| (key.clone(), AttemptNo(number))).collect()
    }

    #[test]
    fn first_broadcasts_go_between_those_that_are_offered_again_and_do_not_starve_them() {
        let mut queue = Queue { due: true, ..Queue::default() };
        queue.fill(|| attempts(2));
        for left in [1, 0] {
            for _ in 0..MAX_PASSED {
                assert!(queue.lets_fresh_pass());
                queue.passed += 1;
            }
            assert!(!queue.lets_fresh_pass());
            queue.next().unwrap();
            assert_eq!(queue.waiting.len(), left);
        }
        assert!(queue.lets_fresh_pass());
    }

    #[test]
    fn a_round_that_is_due_begins_when_the_one_before_is_through() {
        let mut queue = Queue { due: true, ..Queue::default() };
        queue.fill(|| attempts(2));
        queue.due = true;
        queue.next().unwrap();
        queue.fill(|| panic!("the first round is not through"));
        queue.next().unwrap();
        queue.fill(|| attempts(1));
        assert_eq!((queue.waiting.len(), queue.due), (1, false));
    }
}
