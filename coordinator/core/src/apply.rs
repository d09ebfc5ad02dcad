//! One function decides everything: `apply(&mut State, LogIndex, &Entry) -> Outcome`. It cannot fail; a refusal is a
//! value. It reads no clock, randomness, disk or network (safety 15).

use crate::audit;
use crate::chain::{self, NewBlock};
use crate::command::{BlockRef, Command, Entry, RegisterOutpoints, RegisterWallet, Request};
use crate::dedup;
use crate::facts;
use crate::feature;
use crate::ids::{CallerId, LogIndex, Millis, WalletId};
use crate::limits::{ADDRESS_LOOKAHEAD, MAX_OUTPOINTS};
use crate::lost;
use crate::outcome::{Outcome, Rejection};
use crate::payment;
use crate::recovery;
use crate::replacement;
use crate::reservation;
use crate::signing;
use crate::state::State;
use crate::unconfirmed;
use crate::wallet::{DescriptorFault, Keychain, SignerRef, Wallet, WalletDescriptor};

/// What an entry brings besides its command.
pub(crate) struct Context<'a> {
    pub(crate) index: LogIndex,
    pub(crate) now: Millis,
    pub(crate) wall_ms: u64,
    request: Option<&'a Request>,
}

impl Context<'_> {
    /// Who asked. The leader's own duties ask for nothing that has an owner.
    pub(crate) fn caller(&self) -> Result<&CallerId, Rejection> {
        self.request.map(Request::caller).ok_or_else(|| Rejection::StaleBasis { what: "nobody asked".to_owned() })
    }

    /// Whether the entry may touch what this caller owns (safety 28). Nobody is not the owner.
    pub(crate) fn may_act_for(&self, owner: &CallerId) -> bool {
        self.request.is_some_and(|request| request.for_others || request.caller() == owner)
    }
}

/// Applies one entry of the log. Entries come in the order of their indices, each once; one that comes again, as
/// after a restart from rows that were stored later than the log's marker, changes nothing.
pub fn apply(state: &mut State, index: LogIndex, entry: &Entry) -> Outcome {
    if index <= state.meta.applied && state.meta.applied > LogIndex(0) {
        let what = format!("entry {index} was applied before: the state is at {}", state.meta.applied);
        return Outcome::Rejected(Rejection::StaleBasis { what });
    }
    state.meta.applied = index;
    state.meta.now = state.meta.now.max(entry.at);
    let ctx = Context { index, now: state.meta.now, wall_ms: entry.wall_ms, request: entry.request.as_ref() };
    if let Some(earlier) = ctx.request.and_then(|request| dedup::earlier(state, request)) {
        return earlier;
    }
    let outcome = decide(state, &ctx, &entry.command).unwrap_or_else(Outcome::Rejected);
    if !matches!(outcome, Outcome::Rejected(_)) {
        audit::note_command(state, &ctx, &entry.command);
    }
    if let Some(request) = ctx.request {
        dedup::remember(state, &ctx, request, &outcome);
    }
    outcome
}

/// Notes an entry that holds no command, such as a change of the members: only the index moves.
pub fn skip(state: &mut State, index: LogIndex) {
    state.meta.applied = state.meta.applied.max(index);
}

fn decide(state: &mut State, ctx: &Context<'_>, command: &Command) -> Result<Outcome, Rejection> {
    match command {
        Command::Start { network, tip } => start(state, *network, *tip),
        Command::ConnectBlock { block, previous, received, spent, wallets, followed } => {
            let (block, previous, wallets, followed) = (*block, *previous, *wallets, *followed);
            chain::connect(state, ctx, &NewBlock { block, previous, received, spent, wallets, followed })
        }
        Command::DisconnectBlock { block } => chain::disconnect(state, ctx, *block),
        Command::RegisterWallet(command) => register(state, command),
        Command::SetLimits { wallet, limits } => {
            limits.check()?;
            let changed = change_wallet(state, wallet, |wallet| wallet.limits = limits.clone())?;
            unconfirmed::note_earlier_change(state, wallet);
            Ok(changed)
        }
        Command::FreezeWallet { wallet, why } => change_wallet(state, wallet, |wallet| wallet.freeze(why)),
        // Only the wallet: an operator answers for each coin that is held back (`Command::ReleaseQuarantined`).
        Command::UnfreezeWallet { wallet } => change_wallet(state, wallet, |wallet| wallet.frozen = None),
        Command::GiveAddresses { wallet, keychain, count } => give_addresses(state, wallet, *keychain, *count),
        Command::Reserve(command) => reservation::reserve(state, ctx, command),
        Command::Renew { reservation, ttl, fence } => reservation::renew(state, ctx, *reservation, *ttl, *fence),
        Command::Release { reservation, fence } => reservation::release(state, ctx, *reservation, *fence),
        Command::Expire { reservations } => Ok(reservation::expire(state, ctx, reservations)),
        Command::CreatePayment(command) => payment::create(state, ctx, command),
        Command::PayReserved(command) => payment::pay_reserved(state, ctx, command),
        Command::RecordSignature { key, attempt, transaction } => signing::record(state, key, *attempt, transaction),
        Command::RecordRelay { key, attempt, relay } => payment::record_relay(state, key, *attempt, relay),
        Command::BumpFee(command) => replacement::bump(state, ctx, command),
        Command::BumpByChild(command) => replacement::by_child(state, ctx, command),
        Command::CancelPayment(command) => replacement::cancel(state, ctx, command),
        Command::AbortAttempt(command) => signing::abort(state, ctx, command),
        Command::RegisterOutpoints(command) => register_outpoints(state, command),
        Command::ReleaseQuarantined { wallet, outpoints, .. } => chain::release_quarantined(state, wallet, outpoints),
        Command::EnterRecovery { why } => Ok(recovery::enter(state, why)),
        Command::Reconcile { basis, spent_outside } => recovery::reconcile(state, ctx, *basis, spent_outside),
        Command::ConfirmRecovery { epoch, note } => recovery::confirm(state, *epoch, note),
        Command::RaiseFeatureLevel { level } => feature::raise(state, *level),
        Command::DeclareLost(command) => lost::declare(state, command),
    }
}

fn start(state: &mut State, network: bitcoin::Network, tip: BlockRef) -> Result<Outcome, Rejection> {
    if state.tip().is_ok() {
        return Err(Rejection::StaleBasis { what: "the cluster has started already".to_owned() });
    }
    state.start_chain(network, tip);
    Ok(Outcome::Recorded)
}

fn register(state: &mut State, command: &RegisterWallet) -> Result<Outcome, Rejection> {
    command.limits.check()?;
    let descriptor =
        WalletDescriptor::parse(&command.descriptor, state.network()?).map_err(Rejection::DescriptorInvalid)?;
    let unsignable = match command.signer {
        SignerRef::WatchOnly => None,
        _ if descriptor.is_none() => Some(DescriptorFault::Missing),
        SignerRef::Named(_) if !descriptor.is_single_key() => Some(DescriptorFault::NotSignable),
        SignerRef::Named(_) | SignerRef::External => None,
    };
    if let Some(fault) = unsignable {
        return Err(Rejection::DescriptorInvalid(fault));
    }
    refuse_overlap(state, &command.wallet, &descriptor)?;
    if state.tip()? != command.basis {
        return Err(Rejection::StaleBasis { what: "the scan is of another tip".to_owned() });
    }
    facts::check_found(state, command, &descriptor)?;
    let wallet = Wallet {
        descriptor,
        signer: command.signer.clone(),
        limits: command.limits.clone(),
        next_external: 0,
        next_internal: 0,
        frozen: None,
        birth: command.basis.height,
        fence_key: command.fence_key,
    };
    state.put_wallet(command.wallet.clone(), wallet);
    for output in &command.found {
        chain::receive(state, output);
        state.note_received(output.height, output.outpoint);
    }
    Ok(Outcome::WalletChanged)
}

/// Follows coins of a wallet without descriptors. One that a reorganisation took away may come again.
fn register_outpoints(state: &mut State, command: &RegisterOutpoints) -> Result<Outcome, Rejection> {
    let wallet = state.wallet(&command.wallet)?;
    if !wallet.descriptor.is_none() {
        return Err(Rejection::WalletHasDescriptors);
    }
    if command.found.is_empty() || command.found.len() > MAX_OUTPOINTS {
        let (got, max) = (command.found.len() as u64, MAX_OUTPOINTS as u64);
        return Err(Rejection::OutOfBounds { what: "number of outpoints".to_owned(), got, min: 1, max });
    }
    if state.tip()? != command.basis {
        return Err(Rejection::StaleBasis { what: "the tip has moved since the coins were looked up".to_owned() });
    }
    facts::check_registered(state, command)?;
    for output in &command.found {
        if state.utxo(&output.outpoint).is_none_or(|known| known.height.is_none()) {
            chain::receive(state, output);
            state.note_received(output.height, output.outpoint);
        }
    }
    Ok(Outcome::WalletChanged)
}

/// Two wallets with one key would claim the same coins: an outpoint has one owner (safety 1).
fn refuse_overlap(state: &State, id: &WalletId, descriptor: &WalletDescriptor) -> Result<(), Rejection> {
    if state.wallet(id).is_ok() {
        return Err(Rejection::WalletExists { wallet: id.to_string(), what: "this name".to_owned() });
    }
    match state.wallets().find(|(_, wallet)| wallet.descriptor.overlaps(descriptor)) {
        Some((other, _)) => {
            let what = "the same descriptor, or one of its chains".to_owned();
            Err(Rejection::WalletExists { wallet: other.to_string(), what })
        }
        None => Ok(()),
    }
}

fn change_wallet(state: &mut State, id: &WalletId, change: impl FnOnce(&mut Wallet)) -> Result<Outcome, Rejection> {
    state.wallet(id)?;
    state.update_wallet(id, change);
    Ok(Outcome::WalletChanged)
}

fn give_addresses(state: &mut State, id: &WalletId, keychain: Keychain, count: u32) -> Result<Outcome, Rejection> {
    if !(1..=ADDRESS_LOOKAHEAD).contains(&count) {
        let (got, max) = (u64::from(count), u64::from(ADDRESS_LOOKAHEAD));
        return Err(Rejection::OutOfBounds { what: "number of addresses".to_owned(), got, min: 1, max });
    }
    let wallet = state.wallet(id)?;
    if wallet.descriptor.is_none() {
        return Err(Rejection::DescriptorInvalid(DescriptorFault::Missing));
    }
    let first = wallet.next_index(keychain);
    let last = first.saturating_add(count - 1);
    if last >= 1 << 31 {
        let (got, max) = (u64::from(last), (1 << 31) - 1);
        return Err(Rejection::OutOfBounds { what: "address index".to_owned(), got, min: 0, max });
    }
    state.use_index(id, keychain, last);
    Ok(Outcome::AddressesGiven { keychain, first, count })
}
