//! Which script belongs to which wallet: what blocks are searched for.
//!
//! Derived from the replicated wallets, so it is never stored; it grows ahead of the addresses that were given out
//! by the gap limit. A script takes some 40 µs, and a new wallet 2000 of them: every node derives in the background,
//! so that a new leader has them already, and no lock is held meanwhile but the one among those who derive.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use bitcoin::{Script, ScriptBuf};
use onespend_core::ids::WalletId;
use onespend_core::limits::ADDRESS_LOOKAHEAD;
use onespend_core::state::State;
use onespend_core::wallet::{Keychain, WalletDescriptor};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::raft::StateView;

/// Scripts that are derived before they are handed over: some 4 ms of work.
const CHUNK: u32 = 100;
/// How often it is looked whether wallets or addresses were added.
const INTERVAL: Duration = Duration::from_millis(200);

/// Where a script comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) wallet: WalletId,
    pub(crate) keychain: Keychain,
    pub(crate) index: u32,
}

/// The scripts of all wallets, as duties and requests share them.
#[derive(Clone, Default)]
pub(crate) struct SharedScripts(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Locked for one lookup, or while a chunk is added.
    known: RwLock<Known>,
    /// Held by who derives, on a thread that may block.
    deriving: Mutex<()>,
    /// Changes with every chunk.
    progress: watch::Sender<()>,
}

#[derive(Default)]
struct Known {
    origins: HashMap<ScriptBuf, Origin>,
    /// How many scripts of the external and of the internal chain are there.
    derived: BTreeMap<WalletId, [u32; 2]>,
}

/// All wallets that there were when the state was read have all their scripts: what a search for them is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Covered {
    wallets: u64,
}

impl Covered {
    /// How many wallets that were.
    pub(crate) fn wallets(self) -> u64 {
        self.wallets
    }
}

/// Not every script of the wallet was derived in time. Safe to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotDerived;

/// A stretch of one chain of a wallet that has yet to be derived.
struct Missing {
    wallet: WalletId,
    descriptor: WalletDescriptor,
    keychain: Keychain,
    from: u32,
    to: u32,
}

impl SharedScripts {
    /// The origin of a script, if it is known to be a wallet's.
    pub(crate) fn origin(&self, script: &Script) -> Option<Origin> {
        self.known().origins.get(script).cloned()
    }

    /// Derives what is missing for the wallets as they are now. Blocks: for a fraction of a second for each wallet
    /// right after a start, else hardly ever.
    pub(crate) fn cover(&self, view: &StateView) -> Covered {
        let _alone = self.0.deriving.lock().unwrap_or_else(PoisonError::into_inner);
        let derived = self.known().derived.clone();
        // From one read: a wallet that comes later is not counted, so a search without it is not taken for complete.
        let (missing, wallets) = view.read(|state| (missing(state, &derived), state.wallet_count()));
        for stretch in missing {
            self.derive(&stretch);
        }
        Covered { wallets }
    }

    fn derive(&self, stretch: &Missing) {
        let mut from = stretch.from;
        while from < stretch.to {
            let to = from.saturating_add(CHUNK).min(stretch.to);
            let chunk: Vec<(ScriptBuf, Origin)> = (from..to)
                .filter_map(|index| {
                    let script = stretch.descriptor.script(stretch.keychain, index)?;
                    Some((script, Origin { wallet: stretch.wallet.clone(), keychain: stretch.keychain, index }))
                })
                .collect();
            let mut known = self.0.known.write().unwrap_or_else(PoisonError::into_inner);
            known.origins.extend(chunk);
            known.derived.entry(stretch.wallet.clone()).or_default()[chain(stretch.keychain)] = to;
            drop(known);
            self.0.progress.send_replace(());
            from = to;
        }
    }

    /// The origin of a script among the addresses that a wallet has given out. Waits, without a thread, while some of
    /// them are not derived yet.
    ///
    /// # Errors
    /// [`NotDerived`] at the deadline.
    pub(crate) async fn find(
        &self,
        view: &StateView,
        wallet: &WalletId,
        script: &Script,
        deadline: Instant,
    ) -> Result<Option<Origin>, NotDerived> {
        let mut progress = self.0.progress.subscribe();
        loop {
            // Before the lookup: what is derived in between is found by it.
            let has_all = self.has_given_out(view, wallet);
            let origin = self.origin(script).filter(|origin| origin.wallet == *wallet);
            if origin.is_some() || has_all {
                return Ok(origin);
            }
            // The sender lives in `self`.
            let changed = tokio::time::timeout_at(deadline.into(), progress.changed()).await;
            changed.map_err(|_| NotDerived)?.map_err(|_| NotDerived)?;
        }
    }

    /// Whether every address that the wallet has given out is derived. One that is not there has given out none.
    fn has_given_out(&self, view: &StateView, wallet: &WalletId) -> bool {
        let given_out = view.read(|state| {
            let wallet = state.wallet(wallet).ok()?;
            Some([wallet.next_external, wallet.next_internal])
        });
        let [external, internal] = self.known().derived.get(wallet).copied().unwrap_or_default();
        given_out.is_none_or(|[to_external, to_internal]| external >= to_external && internal >= to_internal)
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the scripts complete on this node, whether it leads or not, until the token is cancelled.
pub(crate) async fn keep(scripts: SharedScripts, view: StateView, stop: CancellationToken) {
    let work = async {
        let mut positions = view.watch_position();
        loop {
            let (deriving, state) = (scripts.clone(), view.clone());
            positions.borrow_and_update();
            // A panic in there shows again where the scripts are needed.
            let _ = tokio::task::spawn_blocking(move || deriving.cover(&state)).await;
            tokio::time::sleep(INTERVAL).await;
            if positions.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

fn chain(keychain: Keychain) -> usize {
    match keychain {
        Keychain::External => 0,
        Keychain::Internal => 1,
    }
}

/// What the state has gained; short, so that it can run under the state's lock.
fn missing(state: &State, derived: &BTreeMap<WalletId, [u32; 2]>) -> Vec<Missing> {
    let mut missing = Vec::new();
    for (id, wallet) in state.wallets() {
        let from = derived.get(id).copied().unwrap_or_default();
        for keychain in [Keychain::External, Keychain::Internal] {
            let from = from[chain(keychain)];
            let to = wallet.next_index(keychain).saturating_add(ADDRESS_LOOKAHEAD);
            if from < to {
                let descriptor = wallet.descriptor.clone();
                missing.push(Missing { wallet: id.clone(), descriptor, keychain, from, to });
            }
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use onespend_core::command::Command;

    use super::*;
    use crate::specimen::{accept, register, script, started, wallet};

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(100)
    }

    #[test]
    fn a_wallet_is_covered_on_both_chains_up_to_the_gap_limit() {
        let (view, scripts) = (started(), SharedScripts::default());
        assert_eq!(scripts.cover(&view).wallets(), 0);
        accept(&view, register("a", &[]));
        assert_eq!(scripts.cover(&view).wallets(), 1);
        for keychain in [Keychain::External, Keychain::Internal] {
            let found = scripts.origin(&script("a", keychain, ADDRESS_LOOKAHEAD - 1)).unwrap();
            assert_eq!(found, Origin { wallet: wallet("a"), keychain, index: ADDRESS_LOOKAHEAD - 1 });
            assert_eq!(scripts.origin(&script("a", keychain, ADDRESS_LOOKAHEAD)), None);
        }
        accept(&view, Command::GiveAddresses { wallet: wallet("a"), keychain: Keychain::Internal, count: 1 });
        scripts.cover(&view);
        assert!(scripts.origin(&script("a", Keychain::Internal, ADDRESS_LOOKAHEAD)).is_some());
        assert!(scripts.origin(&script("a", Keychain::External, ADDRESS_LOOKAHEAD)).is_none());
    }

    #[tokio::test]
    async fn a_script_is_not_denied_before_all_addresses_are_derived() {
        let (view, scripts) = (started(), SharedScripts::default());
        accept(&view, register("a", &[]));
        accept(&view, Command::GiveAddresses { wallet: wallet("a"), keychain: Keychain::Internal, count: 5 });
        let (ours, foreign) = (script("a", Keychain::Internal, 4), script("b", Keychain::Internal, 4));
        assert_eq!(scripts.find(&view, &wallet("a"), &ours, soon()).await, Err(NotDerived));
        assert_eq!(scripts.find(&view, &wallet("a"), &foreign, soon()).await, Err(NotDerived));

        let stop = CancellationToken::new();
        let keeping = tokio::spawn(keep(scripts.clone(), view.clone(), stop.clone()));
        let late = Instant::now() + Duration::from_mins(1);
        let found = scripts.find(&view, &wallet("a"), &ours, late).await.unwrap().unwrap();
        assert_eq!((found.keychain, found.index), (Keychain::Internal, 4));
        assert_eq!(scripts.find(&view, &wallet("a"), &foreign, late).await, Ok(None));
        stop.cancel();
        keeping.await.unwrap();
    }

    #[test]
    fn whoever_derives_holds_up_nobody_who_looks() {
        let (view, scripts) = (started(), SharedScripts::default());
        accept(&view, register("a", &[]));
        scripts.cover(&view);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _deriving = scripts.0.deriving.lock().unwrap();
        let find = |name: &str| {
            let script = script(name, Keychain::Internal, 0);
            runtime.block_on(async { scripts.find(&view, &wallet("a"), &script, soon()).await })
        };
        assert!(find("a").unwrap().is_some());
        assert_eq!(find("b"), Ok(None));
    }
}
