//! What the rest of the node sees of the replicated state: the state itself, and news of what changed in it.
//!
//! The state is one value behind a standard `RwLock`, which prefers a waiting writer, so readers cannot starve it. Most
//! readers hold it for one lookup; a page of a list or a stream for at most 1 024 rows, of which it shows 64
//! (`grpc/page.rs`). What costs more than that is rare, and grows with the state: a balance looks at every coin of its wallet, so that
//! its sums are of one moment; the counts for health and status, and the duties after a failover, look at every open
//! payment. The writer holds it for at most 64 entries. A lock-free pointer swap would need a copy of the whole state
//! for each batch.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use onespend_core::ids::{AttemptNo, LogIndex, Millis, PaymentKey};
use onespend_core::state::State;
use tokio::sync::{broadcast, watch};

use super::types::{LogId, NodeId};

/// News that a slow listener may miss before it is told so and has to look at the state itself.
const MAX_UNREAD_NEWS: usize = 1_024;
/// State hashes that are told at most, the newest ones.
const MAX_HASHES: usize = 64;
/// The hash is noted at every index that is a multiple of this, so that nodes can compare theirs at equal indexes also
/// while none of them stands still.
pub const HASH_EVERY: u64 = 128;

/// How far the state is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// The last log index that was applied.
    pub index: LogIndex,
    /// The term of that entry.
    pub term: u64,
}

/// What some applied entries changed. Only what somebody may have to react to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// The last of these entries.
    pub upto: LogIndex,
    /// Payments that changed, the oldest change first.
    pub payments: Vec<PaymentKey>,
    /// Attempts that may be signed from now on, or were named again by a retry.
    pub permitted: Vec<(PaymentKey, AttemptNo)>,
    /// A wallet was registered or its settings changed, or addresses were given out.
    pub wallets: bool,
    /// A block was connected or disconnected, or the chain was met.
    pub chain: bool,
    /// A snapshot replaced the whole state: anything may have changed.
    pub replaced: bool,
}

impl News {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.payments.is_empty() && self.permitted.is_empty() && !self.wallets && !self.chain && !self.replaced
    }
}

/// A state hash and its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashAt {
    /// The index.
    pub index: LogIndex,
    /// [`State::hash`] at it.
    pub hash: [u8; 32],
}

/// Which ids of nodes are used up, by the entries that are applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UsedIds {
    /// The last entry that changed the members.
    pub(crate) as_of: Option<LogId>,
    /// The highest id of a node that was removed; 0 if none was.
    pub(crate) highest_removed: NodeId,
}

/// The replicated state, for reading. Clones see the same state.
#[derive(Clone)]
pub struct StateView(Arc<Inner>);

struct Inner {
    state: RwLock<State>,
    hashes: RwLock<VecDeque<HashAt>>,
    used_ids: RwLock<UsedIds>,
    position: watch::Sender<Position>,
    news: broadcast::Sender<Arc<News>>,
}

impl StateView {
    pub(crate) fn new(state: State, position: Position) -> Self {
        Self(Arc::new(Inner {
            state: RwLock::new(state),
            hashes: RwLock::default(),
            used_ids: RwLock::default(),
            position: watch::Sender::new(position),
            news: broadcast::Sender::new(MAX_UNREAD_NEWS),
        }))
    }

    /// Looks at the state. Keep it short, and copy out what is needed: entries wait meanwhile.
    pub fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.0.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Logical time of the last applied entry. On a leader see the time of its term.
    pub fn now(&self) -> Millis {
        self.read(State::now)
    }

    /// How far the state is.
    pub fn position(&self) -> Position {
        *self.0.position.borrow()
    }

    /// Follows how far the state is; bursts coalesce.
    pub fn watch_position(&self) -> watch::Receiver<Position> {
        self.0.position.subscribe()
    }

    /// News from now on. Whoever is more than 1 024 behind gets `Lagged` and has to look at the state itself.
    pub fn news(&self) -> broadcast::Receiver<Arc<News>> {
        self.0.news.subscribe()
    }

    /// What other nodes compare with theirs, newest first, at most 64: the hash of the state as it is now, and those that
    /// were noted before. Nodes of a quiet cluster are all at one index, and meet at the first; under load at the others.
    pub fn hashes(&self) -> Vec<HashAt> {
        let now = self.read(|state| HashAt { index: state.applied(), hash: state.hash() });
        let noted = self.noted_hashes().into_iter().filter(|noted| noted.index < now.index);
        std::iter::once(now).chain(noted).take(MAX_HASHES).collect()
    }

    /// The hashes at the latest multiples of [`HASH_EVERY`] that were applied since the start, newest first, at most 64.
    pub fn noted_hashes(&self) -> Vec<HashAt> {
        self.0.hashes.read().unwrap_or_else(PoisonError::into_inner).iter().rev().copied().collect()
    }

    /// Which ids of nodes are used up.
    pub(crate) fn used_ids(&self) -> UsedIds {
        *self.0.used_ids.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_used_ids(&self, used: UsedIds) {
        *self.0.used_ids.write().unwrap_or_else(PoisonError::into_inner) = used;
    }

    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        change(&mut self.0.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn note_hash(&self, hash: HashAt) {
        let mut hashes = self.0.hashes.write().unwrap_or_else(PoisonError::into_inner);
        if hashes.len() == MAX_HASHES {
            hashes.pop_front();
        }
        hashes.push_back(hash);
    }

    /// Tells how far the state is. Called while the state is locked: whoever has read it and then asks how far it is must
    /// not be told of an earlier place.
    pub(crate) fn reach(&self, position: Position) {
        self.0.position.send_replace(position);
    }

    /// Tells what changed. With no listener it costs nothing.
    pub(crate) fn publish(&self, news: News) {
        if !news.is_empty() {
            // Fails only when nobody listens.
            let _ = self.0.news.send(Arc::new(news));
        }
    }
}
