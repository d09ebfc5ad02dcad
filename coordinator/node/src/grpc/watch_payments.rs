//! WatchPayments: every payment that changed after an index, then each change as it is applied. A caller that lost
//! its stream resumes on any node from the last index that it saw, without a gap.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use onespend_core::ids::{LogIndex, PaymentId, PaymentKey, WalletId};
use onespend_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::payment_view;

/// Payments that wait for a slow reader; then the stream waits with it and skips to the newest states.
const BUFFER: usize = 256;
/// Most payments that are read from the state at once.
const BATCH: usize = 256;
/// How often a stream says up to which index it has told everything.
const PROGRESS: Duration = Duration::from_secs(5);

pub(super) type Changes = Pin<Box<dyn Stream<Item = Result<v1::WatchPaymentsResponse, Status>> + Send>>;

struct Filter {
    wallet: Option<WalletId>,
    payment: Option<PaymentId>,
}

pub(super) fn watch_payments(api: &Arc<Api>, message: &v1::WatchPaymentsRequest) -> Result<Changes, Status> {
    let mut fields = Fields::default();
    let wallet = fields.optional_wallet_id(&message.wallet_id);
    let payment = fields.optional_payment_id(&message.payment_id);
    if payment.is_some() && message.wallet_id.is_empty() {
        fields.fault("wallet_id", "must name the wallet of the payment");
    }
    fields.finish(Some(()))?;
    let (sender, receiver) = mpsc::channel(BUFFER);
    let filter = Filter { wallet, payment };
    tokio::spawn(follow(Arc::clone(api), filter, LogIndex(message.from_index), sender));
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

async fn follow(
    api: Arc<Api>,
    filter: Filter,
    mut seen: LogIndex,
    sender: mpsc::Sender<Result<v1::WatchPaymentsResponse, Status>>,
) {
    let mut applied = api.replica.positions();
    let mut progress = tokio::time::interval(PROGRESS);
    progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Marked before the state is read: what is applied after that wakes the next round.
        applied.borrow_and_update();
        let (batch, up_to, more) = changes(&api, &filter, seen);
        seen = seen.max(up_to);
        for change in batch {
            if !send(&api, &sender, change).await {
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
                let mark = v1::WatchPaymentsResponse { payment: None, applied_index: seen.0 };
                if !send(&api, &sender, mark).await {
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
    change: v1::WatchPaymentsResponse,
) -> bool {
    tokio::select! {
        () = api.stopping.cancelled() => false,
        sent = sender.send(Ok(change)) => sent.is_ok(),
    }
}

/// The next changes after an index, the index that they reach to, and whether there are more.
fn changes(api: &Api, filter: &Filter, seen: LogIndex) -> (Vec<v1::WatchPaymentsResponse>, LogIndex, bool) {
    api.replica.read(|state| {
        let mut batch = Vec::new();
        let mut reached = state.applied();
        let mut later = state.payments_changed_after(seen).peekable();
        let mut count = 0;
        while let Some((index, key)) = later.next() {
            count += 1;
            if filter.wants(key)
                && let Some(payment) = state.payment(key)
            {
                let payment = Some(payment_view::payment(state, key, payment));
                batch.push(v1::WatchPaymentsResponse { payment, applied_index: index.0 });
            }
            // Never between two payments of one entry: resuming after its index would miss the second.
            if count >= BATCH && later.peek().is_some_and(|(next, _)| *next != index) {
                reached = index;
                return (batch, reached, true);
            }
        }
        (batch, reached, false)
    })
}

impl Filter {
    fn wants(&self, key: &PaymentKey) -> bool {
        self.wallet.as_ref().is_none_or(|wallet| key.wallet == *wallet)
            && self.payment.as_ref().is_none_or(|payment| key.payment == *payment)
    }
}
