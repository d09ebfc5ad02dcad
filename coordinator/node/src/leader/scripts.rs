//! Which script belongs to which wallet: what blocks are searched for.
//!
//! Derived from the replicated wallets, so it is never stored; it grows ahead of the addresses that were given out
//! by the gap limit.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use bitcoin::{Script, ScriptBuf};
use onespend_core::ids::WalletId;
use onespend_core::limits::ADDRESS_LOOKAHEAD;
use onespend_core::state::State;
use onespend_core::wallet::{Keychain, WalletDescriptor};

use crate::replica::Replica;

/// Where a script comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) wallet: WalletId,
    pub(crate) keychain: Keychain,
    pub(crate) index: u32,
}

/// The scripts of all wallets.
#[derive(Default)]
pub(crate) struct Scripts {
    origins: HashMap<ScriptBuf, Origin>,
    derived: BTreeMap<(WalletId, Keychain), u32>,
}

/// The scripts as duties and requests share them.
#[derive(Clone, Default)]
pub(crate) struct SharedScripts(Arc<Mutex<Scripts>>);

impl SharedScripts {
    /// Looks at the scripts of all wallets that the replica knows. What is missing is derived first, outside the
    /// state's lock; right after a start that takes a fraction of a second for each wallet.
    pub(crate) fn look<R>(&self, replica: &Replica, look: impl FnOnce(&Scripts) -> R) -> R {
        let mut scripts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = replica.read(|state| scripts.missing(state));
        scripts.derive(missing);
        look(&scripts)
    }
}

/// A stretch of one chain of a wallet that has yet to be derived.
struct Missing {
    wallet: WalletId,
    descriptor: WalletDescriptor,
    keychain: Keychain,
    from: u32,
    to: u32,
}

impl Scripts {
    /// The origin of a script, if it is a wallet's.
    pub(crate) fn origin(&self, script: &Script) -> Option<&Origin> {
        self.origins.get(script)
    }

    /// What the state has gained; short, so that it can run under the state's lock.
    fn missing(&self, state: &State) -> Vec<Missing> {
        let mut missing = Vec::new();
        for (id, wallet) in state.wallets() {
            for keychain in [Keychain::External, Keychain::Internal] {
                let from = self.derived.get(&(id.clone(), keychain)).copied().unwrap_or(0);
                let to = wallet.next_index(keychain).saturating_add(ADDRESS_LOOKAHEAD);
                if from < to {
                    let descriptor = wallet.descriptor.clone();
                    missing.push(Missing { wallet: id.clone(), descriptor, keychain, from, to });
                }
            }
        }
        missing
    }

    /// Derives what is missing.
    fn derive(&mut self, missing: Vec<Missing>) {
        for stretch in missing {
            for index in stretch.from..stretch.to {
                if let Some(script) = stretch.descriptor.script(stretch.keychain, index) {
                    let origin = Origin { wallet: stretch.wallet.clone(), keychain: stretch.keychain, index };
                    self.origins.insert(script, origin);
                }
            }
            self.derived.insert((stretch.wallet, stretch.keychain), stretch.to);
        }
    }
}
