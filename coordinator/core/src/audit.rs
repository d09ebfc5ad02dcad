//! What operators did, and what they must see: remembered on every node, so that nobody can take it back alone.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};

use crate::apply::Context;
use crate::command::{BlockRef, Command, DeclareLost};
use crate::ids::{CallerId, WalletId};
use crate::state::State;

/// Longest detail in characters.
const MAX_DETAIL: usize = 1000;

/// One event, under the log index of its entry.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct AuditRecord {
    /// Who asked; `None` for what the chain or the leader brought.
    #[n(0)]
    pub caller: Option<CallerId>,
    /// What, as [`Command::kind`] says it; or what the chain brought: `foreign_spend`, `quarantine`, `freeze`, and where it
    /// brought several at once, their names with ` and ` between them.
    #[n(1)]
    pub event: String,
    /// Which wallet, where it concerns one alone.
    #[n(2)]
    pub wallet: Option<WalletId>,
    /// In words; at most 1000 characters.
    #[n(3)]
    pub detail: String,
    /// The leader's wall clock in Unix milliseconds, for people to read.
    #[n(4)]
    pub wall_ms: u64,
    /// Which wallets, where it concerns several.
    #[n(5)]
    pub wallets: Option<BTreeSet<WalletId>>,
}

/// Remembers an event that no command tells by itself.
pub(crate) fn note(state: &mut State, ctx: &Context, event: &str, wallet: Option<WalletId>, detail: &str) {
    let detail = detail.chars().take(MAX_DETAIL).collect();
    let caller = ctx.caller().ok().cloned();
    let record = AuditRecord { caller, event: event.to_owned(), wallet, detail, wall_ms: ctx.wall_ms, wallets: None };
    let record = match state.audit_record(ctx.index) {
        Some(earlier) => earlier.joined(&record),
        None => record,
    };
    state.note_audit(record);
}

impl AuditRecord {
    /// Whether it concerns a wallet.
    pub fn concerns(&self, wallet: &WalletId) -> bool {
        self.wallet.as_ref() == Some(wallet) || self.wallets.as_ref().is_some_and(|all| all.contains(wallet))
    }

    /// Both as one record: an entry has one, and a block may do several things to several wallets.
    fn joined(&self, later: &Self) -> Self {
        let known = self.event.split(" and ").any(|event| event == later.event);
        let event = if known { self.event.clone() } else { format!("{} and {}", self.event, later.event) };
        let wallet = self.wallet.clone().filter(|wallet| Some(wallet) == later.wallet.as_ref());
        let of_both = [&self.wallet, &later.wallet].into_iter().flatten().cloned();
        let all: BTreeSet<WalletId> = of_both.chain(self.wallets.iter().flatten().cloned()).collect();
        let wallets = (wallet.is_none() && !all.is_empty()).then_some(all);
        let told = |record: &Self| match &record.wallet {
            Some(name) if wallet.is_none() => format!("{name}: {}", record.detail),
            _ => record.detail.clone(),
        };
        let detail = format!("{}; {}", told(self), told(later)).chars().take(MAX_DETAIL).collect();
        Self { event, wallet, detail, wallets, ..self.clone() }
    }
}

/// Remembers a command that was carried out, if it is one that operators answer for.
pub(crate) fn note_command(state: &mut State, ctx: &Context, command: &Command) {
    let Some((wallet, detail)) = answerable(command) else { return };
    note(state, ctx, command.kind(), wallet, &detail);
}

fn answerable(command: &Command) -> Option<(Option<WalletId>, String)> {
    let told = match command {
        Command::RegisterWallet(command) => (Some(command.wallet.clone()), command.descriptor.clone()),
        Command::SetLimits { wallet, limits } => (Some(wallet.clone()), format!("{limits:?}")),
        Command::FreezeWallet { wallet, why } => (Some(wallet.clone()), why.clone()),
        Command::UnfreezeWallet { wallet } => (Some(wallet.clone()), String::new()),
        Command::ReleaseQuarantined { wallet, outpoints, note } => {
            let outpoints: Vec<String> = outpoints.iter().map(ToString::to_string).collect();
            (Some(wallet.clone()), format!("{note}: {}", outpoints.join(" ")))
        }
        Command::DeclareLost(DeclareLost { wallet, outpoint, by, block, note }) => {
            let BlockRef { height, hash } = block;
            (Some(wallet.clone()), format!("{outpoint} by {by} in the block {hash} at height {height}: {note}"))
        }
        Command::AbortAttempt(command) => {
            (Some(command.key.wallet.clone()), format!("attempt {} of {}", command.attempt, command.key))
        }
        Command::RegisterOutpoints(command) => {
            (Some(command.wallet.clone()), format!("{} outpoints", command.found.len()))
        }
        Command::EnterRecovery { why } => (None, why.clone()),
        Command::ConfirmRecovery { epoch, note } => (None, format!("epoch {epoch}: {note}")),
        Command::RaiseFeatureLevel { level } => (None, format!("to {level}")),
        Command::Start { .. }
        | Command::ConnectBlock { .. }
        | Command::DisconnectBlock { .. }
        | Command::GiveAddresses { .. }
        | Command::Reserve(_)
        | Command::Renew { .. }
        | Command::Release { .. }
        | Command::Expire { .. }
        | Command::CreatePayment(_)
        | Command::PayReserved(_)
        | Command::RecordSignature { .. }
        | Command::RecordRelay { .. }
        | Command::BumpFee(_)
        | Command::BumpByChild(_)
        | Command::CancelPayment(_)
        | Command::Reconcile { .. } => return None,
    };
    Some(told)
}
