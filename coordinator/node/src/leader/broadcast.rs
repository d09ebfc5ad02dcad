//! Hands signed transactions to bitcoind, again and again until they are in a block. One that is evicted, refused or
//! not seen is not dead (safety 9): only a block decides.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Transaction;
use onespend_adapters::chain::{BroadcastOutcome, ChainError};
use onespend_core::command::{Command, Relay};
use onespend_core::ids::{AttemptNo, PaymentKey};
use onespend_core::settlement::{AttemptState, attempt_state};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tracing::{Instrument, Span, debug, info, info_span, warn};

use super::Duty;
use crate::raft::LeaderTerm;

/// Attempts that wait for their first broadcast; beyond that the next round finds them.
const OUTBOX: usize = 4096;
/// How often everything that is signed and in no block is offered again.
const REBROADCAST: Duration = Duration::from_secs(10);
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
    let mut round = tokio::time::interval(REBROADCAST);
    loop {
        tokio::select! {
            Some(Fresh { key, attempt, span }) = fresh.recv() => {
                let span = info_span!(parent: &span, "broadcast", payment = %key, attempt = attempt.0);
                offer(&duty, &term, key, attempt).instrument(span).await;
            }
            _ = round.tick() => offer_all(&duty, &term).await,
            // A reorganisation may have emptied a block into nowhere.
            Ok(()) = tips.changed() => offer_all(&duty, &term).await,
        }
    }
}

async fn offer_all(duty: &Arc<Duty>, term: &LeaderTerm) {
    let open: BTreeSet<(PaymentKey, AttemptNo)> = duty.replica.read(|state| {
        let mut open = BTreeSet::new();
        for key in state.open_payments() {
            let Some(payment) = state.payment(&key) else { continue };
            let waiting = payment.numbered().filter(|(_, attempt)| {
                matches!(attempt_state(state, attempt), AttemptState::Signed | AttemptState::Broadcast)
            });
            open.extend(waiting.map(|(number, _)| (key.clone(), number)));
        }
        open
    });
    for (key, attempt) in open {
        offer(duty, term, key, attempt).await;
    }
}

async fn offer(duty: &Arc<Duty>, term: &LeaderTerm, key: PaymentKey, number: AttemptNo) {
    let signed = duty.replica.read(|state| {
        let attempt = state.payment(&key)?.attempt(number)?;
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
    let sent = spawn_blocking(move || chain.broadcast(&transaction)).await;
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
