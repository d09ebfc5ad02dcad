//! WatchPayments: every payment that changed after an index, then each change as it is applied. A caller that lost
//! its stream resumes on any node from the last index that it saw, without a gap.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use onespend_core::ids::{LogIndex, PaymentId, PaymentKey, WalletId};
use onespend_core::state::State;
use onespend_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::page::{MAX_LOOKED_AT_PER_HOLD, MAX_SHOWN_PER_HOLD};
use super::payment_view;

/// Payments that wait for a slow reader; then the stream waits with it and skips to the newest states.
const BUFFER: usize = 256;
/// How often a stream says up to which index it has told everything.
const PROGRESS: Duration = Duration::from_secs(5);

pub(super) type Changes = Pin<Box<dyn Stream<Item = Result<v1::WatchPaymentsResponse, Status>> + Send>>;

/// What a stream follows.
#[derive(Default)]
pub(super) struct Filter {
    wallet: Option<WalletId>,
    payment: Option<PaymentId>,
}

/// How far a stream has told the changes, which are in the order of their entries and then of names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    /// The entry.
    index: LogIndex,
    /// The last payment of it that was told; `None` once all were.
    within: Option<PaymentKey>,
}

pub(super) fn watch_payments(api: &Arc<Api>, message: &v1::WatchPaymentsRequest) -> Result<Changes, Status> {
    let filter = parse(message)?;
    api.demand_sound_state()?;
    let (sender, receiver) = mpsc::channel(BUFFER);
    let told = Told { index: LogIndex(message.from_index), within: None };
    tokio::spawn(follow(Arc::clone(api), filter, told, sender));
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

pub(super) fn parse(message: &v1::WatchPaymentsRequest) -> Result<Filter, Status> {
    let mut fields = Fields::default();
    let wallet = fields.optional_wallet_id(&message.wallet_id);
    let payment = fields.optional_payment_id(&message.payment_id);
    if payment.is_some() && message.wallet_id.is_empty() {
        fields.fault("wallet_id", "must name the wallet of the payment");
    }
    fields.finish(Some(Filter { wallet, payment }))
}

async fn follow(
    api: Arc<Api>,
    filter: Filter,
    mut told: Told,
    sender: mpsc::Sender<Result<v1::WatchPaymentsResponse, Status>>,
) {
    let mut applied = api.replica.positions();
    let mut progress = tokio::time::interval(PROGRESS);
    progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Nothing of a state that most others contradict is told; the caller resumes on another node (safety 31).
        if let Err(unsound) = api.demand_sound_state() {
            send(&api, &sender, Err(unsound)).await;
            return;
        }
        // Marked before the state is read: what is applied after that wakes the next round.
        applied.borrow_and_update();
        let (batch, up_to, more) = api.replica.read(|state| changes(state, &filter, &told));
        told = up_to;
        for change in batch {
            if !send(&api, &sender, Ok(change)).await {
                return;
            }
        }
        if more {
            continue;
        }
        tokio::select! {
            // The caller resumes on another node.
            () = api.stopping.cancelled() => return,
            () = sender.closed() => return,
            changed = applied.changed() => if changed.is_err() { return },
            _ = progress.tick() => {
                let mark = v1::WatchPaymentsResponse { payment: None, applied_index: told.index.0 };
                if !send(&api, &sender, Ok(mark)).await {
                    return;
                }
            }
        }
    }
}

/// Whether the reader took it; a reader that has stopped reading does not hold up the end of this node.
async fn send(
    api: &Api,
    sender: &mpsc::Sender<Result<v1::WatchPaymentsResponse, Status>>,
    message: Result<v1::WatchPaymentsResponse, Status>,
) -> bool {
    tokio::select! {
        () = api.stopping.cancelled() => false,
        sent = sender.send(message) => sent.is_ok(),
    }
}

/// The next changes, as many as one hold of the state's lock may take; how far they reach, and whether there are more.
fn changes(state: &State, filter: &Filter, told: &Told) -> (Vec<v1::WatchPaymentsResponse>, Told, bool) {
    let mut batch = Vec::new();
    let mut later = state.payments_changed_after(told.index, told.within.as_ref()).peekable();
    let mut looked_at = 0;
    while let Some((index, key)) = later.next() {
        looked_at += 1;
        let next = later.peek().map(|(next, _)| *next);
        let entry_goes_on = next == Some(index);
        if filter.wants(key)
            && let Some(payment) = state.payment(key)
        {
            // A caller who resumes after an entry is not told its other payments, so until the last one of an entry
            // everything has been told only up to the entry before.
            let applied_index = if entry_goes_on { index.0.saturating_sub(1) } else { index.0 };
            let payment = Some(payment_view::payment(state, key, payment));
            batch.push(v1::WatchPaymentsResponse { payment, applied_index });
        }
        let full = batch.len() == MAX_SHOWN_PER_HOLD || looked_at == MAX_LOOKED_AT_PER_HOLD;
        if full && next.is_some() {
            return (batch, Told { index, within: entry_goes_on.then(|| key.clone()) }, true);
        }
    }
    // A caller may have seen more elsewhere than this node has applied.
    (batch, Told { index: told.index.max(state.applied()), within: None }, false)
}

impl Filter {
    fn wants(&self, key: &PaymentKey) -> bool {
        self.wallet.as_ref().is_none_or(|wallet| key.wallet == *wallet)
            && self.payment.as_ref().is_none_or(|payment| key.payment == *payment)
    }
}

#[cfg(test)]
#[path = "watch_payments_tests.rs"]
mod tests;
