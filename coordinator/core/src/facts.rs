//! Facts about coins that the leader found in a block or a scan, checked before they are believed (safety,
//! "Deciding outside, checking inside").
//!
//! A wrong fact would stay: a coin under the wrong wallet or script is money that cannot be signed for, and a coin
//! that comes twice undoes who owns it. So scripts are derived again here, and whatever contradicts the state is
//! refused as out of date, without a change. What cannot be seen from the state, such as a coin that the leader did
//! not report, is left to the comparison with bitcoind.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{Amount, OutPoint, ScriptBuf};

use crate::command::{BlockRef, Received, RegisterOutpoints, RegisterWallet, Spent};
use crate::ids::WalletId;
use crate::outcome::Rejection;
use crate::state::State;
use crate::utxo::Utxo;
use crate::wallet::{Keychain, WalletDescriptor};

/// Checks the coins that a scan found for a wallet which is not there yet.
pub(crate) fn check_found(
    state: &State,
    command: &RegisterWallet,
    descriptor: &WalletDescriptor,
) -> Result<(), Rejection> {
    let mut checked = Checked::default();
    for output in &command.found {
        if output.wallet != command.wallet {
            return Err(contradiction(output, "is for another wallet than the one to register"));
        }
        checked.output(output, descriptor)?;
        if output.height > command.basis.height {
            return Err(contradiction(output, "is in a block above the scan's"));
        }
        if state.utxo(&output.outpoint).is_some() {
            return Err(contradiction(output, "is another wallet's"));
        }
    }
    Ok(())
}

/// Checks coins that a wallet without descriptors is to follow. There is no address to derive their scripts from:
/// what bitcoind says of an outpoint is all there is.
pub(crate) fn check_registered(state: &State, command: &RegisterOutpoints) -> Result<(), Rejection> {
    let owned = |outpoint: &OutPoint| state.utxo(outpoint).is_some_and(|known| known.wallet != command.wallet);
    let others: Vec<OutPoint> = command.found.iter().map(|output| output.outpoint).filter(owned).collect();
    if !others.is_empty() {
        // For ever, unlike what follows: asking bitcoind again would say the same.
        return Err(Rejection::OutpointUnknown { outpoints: others });
    }
    let mut seen = BTreeSet::new();
    for output in &command.found {
        if output.wallet != command.wallet {
            return Err(contradiction(output, "is for another wallet"));
        }
        if !seen.insert(output.outpoint) {
            return Err(Rejection::DuplicateInput { outpoint: output.outpoint });
        }
        if output.value_sat > Amount::MAX_MONEY.to_sat() || output.height > command.basis.height {
            return Err(contradiction(output, "cannot be"));
        }
        let origin = (output.keychain, output.index) == (Keychain::External, 0);
        let known = state.utxo(&output.outpoint);
        let may_be = |known: &Utxo| is_same(known, output) && (known.height.is_some() || known.spent.is_none());
        if !origin || known.is_some_and(|known| !may_be(known)) {
            return Err(contradiction(output, "was another coin, or is lost"));
        }
    }
    Ok(())
}

/// Checks the coins that a block made.
pub(crate) fn check_received(state: &State, block: BlockRef, received: &[Received]) -> Result<(), Rejection> {
    let mut checked = Checked::default();
    for output in received {
        let wallet = state.wallet(&output.wallet).map_err(|_| contradiction(output, "is for an unknown wallet"))?;
        if wallet.descriptor.is_none() {
            checked.registered(state, output)?;
        } else {
            checked.output(output, &wallet.descriptor)?;
        }
        if output.height != block.height {
            return Err(contradiction(output, "has the height of another block"));
        }
        if state.utxo(&output.outpoint).is_some_and(|known| !comes_back(known, output)) {
            return Err(contradiction(output, "is in the chain already, or was another coin"));
        }
    }
    Ok(())
}

/// Checks the coins that a block spends. Spends of coins that are not known here are no concern of ours.
pub(crate) fn check_spent(state: &State, received: &[Received], spent: &[Spent]) -> Result<(), Rejection> {
    let made_here: BTreeSet<OutPoint> = received.iter().map(|output| output.outpoint).collect();
    let mut seen = BTreeSet::new();
    for spend in spent {
        let known = state.utxo(&spend.outpoint);
        let in_chain = known.is_none_or(|utxo| utxo.height.is_some()) || made_here.contains(&spend.outpoint);
        let spent_before = known.is_some_and(|utxo| utxo.spent.is_some()) || !seen.insert(spend.outpoint);
        if !in_chain || spent_before {
            let what = if spent_before { "is spent already" } else { "is not in the chain" };
            return Err(Rejection::StaleBasis { what: format!("the spent coin {} {what}", spend.outpoint) });
        }
    }
    Ok(())
}

/// What was seen of one list of outputs. Scripts are derived once for each address.
#[derive(Default)]
struct Checked<'a> {
    outpoints: BTreeSet<OutPoint>,
    scripts: BTreeMap<(&'a WalletId, Keychain, u32), Option<ScriptBuf>>,
}

impl<'a> Checked<'a> {
    /// A coin that was followed before a reorganisation took it away: its script is known from then.
    fn registered(&mut self, state: &State, output: &Received) -> Result<(), Rejection> {
        if !self.outpoints.insert(output.outpoint) {
            return Err(contradiction(output, "comes twice"));
        }
        match state.utxo(&output.outpoint) {
            Some(_) => Ok(()),
            None => Err(contradiction(output, "was never registered")),
        }
    }

    fn output(&mut self, output: &'a Received, descriptor: &WalletDescriptor) -> Result<(), Rejection> {
        if !self.outpoints.insert(output.outpoint) {
            return Err(contradiction(output, "comes twice"));
        }
        if output.value_sat > Amount::MAX_MONEY.to_sat() {
            return Err(contradiction(output, "is worth more than there can be"));
        }
        let (keychain, index) = (output.keychain, output.index);
        let script =
            self.scripts.entry((&output.wallet, keychain, index)).or_insert_with(|| descriptor.script(keychain, index));
        if script.as_ref() != Some(&output.script) {
            return Err(contradiction(output, "does not have the script of its address"));
        }
        Ok(())
    }
}

/// Whether an output is a coin that a reorganisation took away, and that nothing in the chain keeps from coming back.
fn comes_back(known: &Utxo, output: &Received) -> bool {
    known.height.is_none() && known.spent.is_none() && is_same(known, output)
}

/// Whether it is the same coin, wherever its block is.
fn is_same(known: &Utxo, output: &Received) -> bool {
    known.wallet == output.wallet
        && known.value_sat == output.value_sat
        && known.script == output.script
        && known.keychain == output.keychain
        && known.index == output.index
        && known.coinbase == output.coinbase
}

fn contradiction(output: &Received, what: &str) -> Rejection {
    Rejection::StaleBasis { what: format!("the received coin {} {what}", output.outpoint) }
}
