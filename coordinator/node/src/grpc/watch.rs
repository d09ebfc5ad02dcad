//! What streams of changes have in common: everything that changed after an index, then each change as it is applied.
//! A caller that lost its stream resumes on any node from the last index that it saw, without a gap.

use std::borrow::Borrow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onespend_core::ids::{LogIndex, Millis};
use onespend_core::state::State;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::api::Api;
use super::page::{MAX_LOOKED_AT_PER_HOLD, MAX_SHOWN_PER_HOLD};
use super::{reads, status};
use crate::runtime;

/// Changes that wait for a slow reader; then the stream waits with it and skips to the newest states.
const BUFFER: usize = 256;
/// How often a stream says up to which index it has told everything.
const PROGRESS: Duration = Duration::from_secs(5);
/// How old the state of a node may be that tells changes, at least; it must be well above [`PROGRESS`], since the age is
/// looked at that often.
const MIN_STALENESS: Duration = Duration::from_secs(15);
/// The same in election timeouts, so that no ordinary election ends a stream.
const STALENESS_ELECTIONS: u32 = 5;

/// What one rpc sends.
pub(super) type Changes<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

/// What a stream follows: one kind of thing that has a name, as far as its caller wants it.
pub(super) trait Follow: Send + Sync + 'static {
    /// The name.
    type Key: Send + Sync;
    /// What the stream sends.
    type Message: Send + 'static;

    /// The next changes, as many as one hold of the state's lock may take. `now` is the cluster's time.
    fn changes(&self, state: &State, told: &Told<Self::Key>, now: Millis) -> Batch<Self::Key, Self::Message>;

    /// That everything up to an index was told.
    fn mark(index: LogIndex) -> Self::Message;
}

/// How far a stream has told the changes, which are in the order of their entries and then of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told<K> {
    /// The entry.
    pub(super) index: LogIndex,
    /// The last one of it that was told; `None` once all were.
    pub(super) within: Option<K>,
}

/// Some changes, how far they reach, and whether there are more.
pub(super) type Batch<K, M> = (Vec<M>, Told<K>, bool);

/// How lately this node was known to have everything that was committed.
pub(super) struct Freshness {
    pub(super) bound: Duration,
    pub(super) fresh_at: Instant,
}

/// Opens a stream of what changed after `from_index`.
///
/// # Errors
/// `NOT_SERVING` and `TOO_STALE`: this node may not tell.
pub(super) fn open<F: Follow>(api: &Arc<Api>, follow: F, from_index: u64) -> Result<Changes<F::Message>, Status> {
    api.demand_sound_state()?;
    let freshness = Freshness::begin(api)?;
    let (sender, receiver) = mpsc::channel(BUFFER);
    // The last word has a place of its own, so that it reaches also a reader who is slow.
    let last_word = sender.clone().try_reserve_owned().map_err(|_| status::stopping())?;
    let told = Told { index: LogIndex(from_index), within: None };
    let api = Arc::clone(api);
    tokio::spawn(async move {
        let why = tell(&api, &follow, told, freshness, &sender).await;
        last_word.send(Err(why));
    });
    Ok(Box::pin(ReceiverStream::new(receiver)))
}

impl Freshness {
    /// Refuses what a node may not tell that has been cut off for long: its caller goes elsewhere.
    fn begin(api: &Api) -> Result<Self, Status> {
        let bound = MIN_STALENESS.max(STALENESS_ELECTIONS * api.replica.raft().election_timeout());
        let (fresh_at, staleness) = (api.replica.fresh_at(), api.replica.staleness());
        let young = staleness.is_some_and(|staleness| staleness <= bound);
        let fresh_at = fresh_at.filter(|_| young).ok_or_else(|| reads::too_stale(staleness, bound))?;
        Ok(Self { bound, fresh_at })
    }

    /// Takes in when the state is known to have been fresh. A leader that was just deposed does not know how fresh it is until it has
    /// heard of the next one, so the latest moment that is known of counts.
    pub(super) fn renew(&mut self, fresh_at: Option<Instant>, now: Instant) -> Result<(), Status> {
        self.fresh_at = fresh_at.map_or(self.fresh_at, |at| at.max(self.fresh_at));
        let age = now.saturating_duration_since(self.fresh_at);
        if age > self.bound {
            return Err(reads::too_stale(Some(age), self.bound));
        }
        Ok(())
    }
}

/// Tells changes until there is a reason to end, which is what the caller hears last.
async fn tell<F: Follow>(
    api: &Api,
    follow: &F,
    mut told: Told<F::Key>,
    mut freshness: Freshness,
    sender: &mpsc::Sender<Result<F::Message, Status>>,
) -> Status {
    let mut applied = api.replica.positions();
    let mut progress = tokio::time::interval(PROGRESS);
    progress.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        // Nothing of a state that most others contradict is told; the caller resumes on another node (safety 31). Nor
        // does it wait at a node that hears of no changes.
        let fresh = freshness.renew(api.replica.fresh_at(), runtime::now().into_std());
        if let Err(why) = api.demand_sound_state().and(fresh) {
            return why;
        }
        // Marked before the state is read: what is applied after that wakes the next round.
        applied.borrow_and_update();
        let now = api.now();
        let (batch, up_to, more) = api.replica.read(|state| follow.changes(state, &told, now));
        told = up_to;
        for change in batch {
            if !send(api, sender, change).await {
                return status::stopping();
            }
        }
        if more {
            // A filter may leave out all of a long history: others get their turn in between.
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            // The caller resumes on another node.
            () = api.stopping.cancelled() => return status::stopping(),
            () = sender.closed() => return status::stopping(),
            changed = applied.changed() => if changed.is_err() { return status::stopping() },
            _ = progress.tick() => {
                if !send(api, sender, F::mark(told.index)).await {
                    return status::stopping();
                }
            }
        }
    }
}

/// Whether the reader took it; a reader that has stopped reading does not hold up the end of this node.
async fn send<M>(api: &Api, sender: &mpsc::Sender<Result<M, Status>>, message: M) -> bool {
    tokio::select! {
        () = api.stopping.cancelled() => false,
        sent = sender.send(Ok(message)) => sent.is_ok(),
    }
}

/// Shows changes that are in their order, as many as one hold of the state's lock may take. `show` gets a name, and the
/// index up to which everything is told with this one; it leaves out what is not wanted.
pub(super) fn batch<K: Clone, Q: Borrow<K>, M>(
    state: &State,
    told: &Told<K>,
    later: impl Iterator<Item = (LogIndex, Q)>,
    show: impl Fn(&K, u64) -> Option<M>,
) -> Batch<K, M> {
    let (mut batch, mut looked_at) = (Vec::new(), 0);
    let mut later = later.peekable();
    while let Some((index, key)) = later.next() {
        looked_at += 1;
        let next = later.peek().map(|(next, _)| *next);
        let entry_goes_on = next == Some(index);
        // A caller who resumes after an entry is not told the rest of it, so until the last one of an entry everything
        // has been told only up to the entry before.
        let applied_index = if entry_goes_on { index.0.saturating_sub(1) } else { index.0 };
        batch.extend(show(key.borrow(), applied_index));
        let full = batch.len() == MAX_SHOWN_PER_HOLD || looked_at == MAX_LOOKED_AT_PER_HOLD;
        if full && next.is_some() {
            return (batch, Told { index, within: entry_goes_on.then(|| key.borrow().clone()) }, true);
        }
    }
    // A caller may have seen more elsewhere than this node has applied.
    (batch, Told { index: told.index.max(state.applied()), within: None }, false)
}
