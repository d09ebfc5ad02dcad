//! Rules that can be taken away, so that the harness can prove that it would notice. This module is there only with the
//! cargo feature `sabotage`, which no ordinary build has.

use std::sync::atomic::{AtomicU8, Ordering};

use bitcoin::OutPoint;

use crate::ids::PaymentKey;
use crate::state::State;
use crate::utxo::Claim;

/// A rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Rule {
    /// Every attempt of a payment spends its anchor (safety 8).
    Anchor = 1,
    /// Time never frees an exposed coin (safety 5).
    ExposedNeverExpires = 2,
}

static BROKEN: AtomicU8 = AtomicU8::new(0);

/// Takes one rule away from this process, for good.
pub fn take_away(rule: Rule) {
    BROKEN.store(rule as u8, Ordering::SeqCst);
}

impl Rule {
    pub(crate) fn is_broken(self) -> bool {
        BROKEN.load(Ordering::SeqCst) == self as u8
    }
}

/// Without the rule of exposed coins, whatever expires takes along every coin that no block spends yet.
pub(crate) fn free_exposed(state: &mut State) {
    if !Rule::ExposedNeverExpires.is_broken() {
        return;
    }
    let pending = |wallet: &crate::ids::WalletId, payment| {
        let key = PaymentKey { wallet: wallet.clone(), payment };
        state.payment(&key).is_some_and(|payment| !payment.is_settled())
    };
    let exposed: Vec<OutPoint> = state
        .utxos()
        .filter(|(_, utxo)| match &utxo.claim {
            Claim::Exposed(payment) => utxo.spent.is_none() && pending(&utxo.wallet, payment.clone()),
            Claim::Free | Claim::Reserved(_) | Claim::Quarantined => false,
        })
        .map(|(outpoint, _)| *outpoint)
        .collect();
    for outpoint in exposed {
        state.update_utxo(&outpoint, |utxo| utxo.claim = Claim::Free);
    }
}
