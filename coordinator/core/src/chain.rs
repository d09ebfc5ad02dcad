//! Blocks connected and disconnected, with undo (safety 17).

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{BlockHash, OutPoint, Txid};
use minicbor::{Decode, Encode};

use crate::apply::Context;
use crate::audit;
use crate::codec;
use crate::command::{BlockRef, Followed, Received, Spent};
use crate::facts;
use crate::ids::{AttemptNo, Height, PaymentKey, WalletId};
use crate::limits::{MAX_NOTE_LEN, MAX_OUTPOINTS, UNDO_BLOCKS};
use crate::outcome::{Outcome, Rejection};
use crate::payment::{Attempt, AttemptEnd, Payment};
use crate::reservation::{self, Ended};
use crate::settlement;
use crate::state::State;
use crate::utxo::{Claim, Spend, Utxo, depth};
use crate::wallet::{REORG_ALARM, SignerRef};

/// A block that is part of the chain, with what it did to our coins.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct BlockRecord {
    /// Its hash.
    #[n(0)]
    #[cbor(with = "codec::one")]
    pub hash: BlockHash,
    /// Coins that it made.
    #[n(1)]
    #[cbor(with = "codec::many")]
    pub received: Vec<OutPoint>,
    /// Coins that it spent.
    #[n(2)]
    #[cbor(with = "codec::many")]
    pub spent: Vec<OutPoint>,
}

/// Records of the blocks that can be taken back, and of the one below them, which is the tip then.
const RECORDS_KEPT: u32 = UNDO_BLOCKS + 1;

/// A block to connect.
pub(crate) struct NewBlock<'a> {
    pub(crate) block: BlockRef,
    pub(crate) previous: BlockHash,
    pub(crate) received: &'a [Received],
    pub(crate) spent: &'a [Spent],
    pub(crate) wallets: u64,
    pub(crate) followed: Option<Followed>,
}

pub(crate) fn connect(state: &mut State, ctx: &Context, new: &NewBlock<'_>) -> Result<Outcome, Rejection> {
    let tip = state.tip()?;
    if new.previous != tip.hash || Some(new.block.height.0) != tip.height.0.checked_add(1) {
        return Err(stale(format!("block {} does not follow the tip at height {}", new.block.hash, tip.height)));
    }
    if new.wallets != state.wallet_count() {
        return Err(stale("a wallet was registered since the block was searched".to_owned()));
    }
    if new.followed.is_some() && new.followed != state.followed() {
        return Err(stale("other coins are followed than those that the block was searched for".to_owned()));
    }
    facts::check_received(state, new.block, new.received)?;
    facts::check_spent(state, new.received, new.spent)?;
    note_foreign_spends(state, ctx, new.spent);
    let undead = ended_attempts(state, new.spent);
    let mut record = BlockRecord { hash: new.block.hash, received: Vec::new(), spent: Vec::new() };
    for output in new.received {
        receive(state, output);
        record.received.push(output.outpoint);
    }
    for spend in new.spent {
        let spent = Spend { txid: spend.txid, height: new.block.height, lost: None };
        if state.update_utxo(&spend.outpoint, |utxo| utxo.spent = Some(spent)).is_some() {
            record.spent.push(spend.outpoint);
        }
    }
    let touched = touched_payments(state, &record.spent);
    state.put_tip(new.block, record);
    mark_changed(state, &touched);
    stop_for(state, ctx, new.block.height, &undead);
    for key in state.open_payments() {
        settlement::settle(state, &key);
    }
    forget_deep_blocks(state, new.block.height);
    Ok(Outcome::Recorded)
}

/// Attempts that a block holds although they had ended: their signer had proved that they would never be signed.
fn ended_attempts(state: &State, spent: &[Spent]) -> BTreeSet<(PaymentKey, AttemptNo)> {
    let ended = |spend: &Spent| {
        let (key, number, attempt) = state.attempt_of(spend.txid)?;
        (!attempt.is_live()).then(|| (key.clone(), number))
    };
    spent.iter().filter_map(ended).collect()
}

/// What was promised of these attempts did not hold. Their payments get no further attempt any more, and a human has to
/// look before the wallet goes on (safety 6, 9).
fn stop_for(state: &mut State, ctx: &Context, height: Height, undead: &BTreeSet<(PaymentKey, AttemptNo)>) {
    for (key, number) in undead {
        settlement::revive(state, key, &[*number], height);
        let why = format!("attempt {number} of {key} had ended, and is in the block at height {height} all the same");
        freeze(state, ctx, &key.wallet, &why);
    }
}

/// Freezes a wallet for what the chain brought, and keeps what it was frozen for before.
fn freeze(state: &mut State, ctx: &Context, id: &WalletId, why: &str) {
    let Ok(wallet) = state.wallet(id) else { return };
    let all = match (&wallet.frozen, wallet.reorganised()) {
        (None, _) => why.to_owned(),
        // The alarm is known by its first words.
        (Some(_), Some(alarm)) => format!("{alarm}; {why}"),
        (Some(earlier), None) => format!("{why}; it was frozen before: {earlier}"),
    };
    let all: String = all.chars().take(MAX_NOTE_LEN).collect();
    state.update_wallet(id, |wallet| wallet.frozen = Some(all));
    audit::note(state, ctx, "freeze", Some(id.clone()), why);
}

/// Somebody else has the keys of a wallet that is signed for by orders of ours: an operator must know.
fn note_foreign_spends(state: &mut State, ctx: &Context, spent: &[Spent]) {
    let foreign: Vec<(WalletId, String)> = spent
        .iter()
        .filter(|spend| state.attempt_of(spend.txid).is_none())
        .filter_map(|spend| {
            let utxo = state.utxo(&spend.outpoint)?;
            let by_order = !matches!(state.wallet(&utxo.wallet).ok()?.signer, SignerRef::WatchOnly);
            by_order.then(|| (utxo.wallet.clone(), format!("{} by {}", spend.outpoint, spend.txid)))
        })
        .collect();
    let Some((wallet, _)) = foreign.first().cloned() else { return };
    let told: Vec<String> = foreign.into_iter().map(|(wallet, told)| format!("{wallet}: {told}")).collect();
    audit::note(state, ctx, "foreign_spend", Some(wallet), &told.join(", "));
}

pub(crate) fn disconnect(state: &mut State, ctx: &Context, block: BlockRef) -> Result<Outcome, Rejection> {
    let tip = state.tip()?;
    if tip != block {
        return Err(stale(format!("block {} is not the tip", block.hash)));
    }
    let below = block.height.0.checked_sub(1).map(Height);
    let previous = below.and_then(|below| Some(BlockRef { height: below, hash: state.block(below)?.hash }));
    let Some(previous) = previous else {
        return Err(Rejection::OutOfBounds {
            what: "depth of the reorganisation in blocks".to_owned(),
            got: u64::from(UNDO_BLOCKS) + 1,
            min: 0,
            max: u64::from(UNDO_BLOCKS),
        });
    };
    let undone = undone_ends(state, block.height);
    let Some(record) = state.take_tip(previous) else {
        return Err(stale("the tip has no record".to_owned()));
    };
    let touched = touched_payments(state, &record.spent);
    for outpoint in &record.spent {
        state.update_utxo(outpoint, |utxo| utxo.spent = None);
    }
    for outpoint in &record.received {
        state.update_utxo(outpoint, |utxo| utxo.height = None);
    }
    for (key, numbers) in &undone {
        settlement::revive(state, key, numbers, block.height);
    }
    let unclaimed: Vec<OutPoint> =
        record.spent.iter().filter(|outpoint| is_unclaimed(state, outpoint)).copied().collect();
    hold_back(state, ctx, &unclaimed, "a reorganisation took back a spend that is no payment's here");
    mark_changed(state, &touched);
    let wallets = undone.into_keys().map(|key| key.wallet).collect();
    freeze_after_deep_reorg(state, ctx, block.height, &wallets);
    Ok(Outcome::Recorded)
}

/// Adds a coin, or gives one that a reorganisation took away its block again. Its claim stays (safety 17). Callers
/// have checked the facts.
pub(crate) fn receive(state: &mut State, output: &Received) {
    let known = state.update_utxo(&output.outpoint, |utxo| utxo.height = Some(output.height));
    if known.is_none() {
        let claim = settlement::heir(state, &output.wallet, &output.outpoint);
        state.put_utxo(
            output.outpoint,
            Utxo {
                wallet: output.wallet.clone(),
                value_sat: output.value_sat,
                script: output.script.clone(),
                keychain: output.keychain,
                index: output.index,
                height: Some(output.height),
                coinbase: output.coinbase,
                claim,
                spent: None,
            },
        );
    }
    state.use_index(&output.wallet, output.keychain, output.index);
}

/// Payments of whose coins some were spent, or that spent them.
fn touched_payments(state: &State, outpoints: &[OutPoint]) -> BTreeSet<PaymentKey> {
    let coins = outpoints.iter().filter_map(|outpoint| state.utxo(outpoint));
    let of_coin = |utxo: &Utxo| {
        let owner = match &utxo.claim {
            Claim::Exposed(payment) => Some(PaymentKey { wallet: utxo.wallet.clone(), payment: payment.clone() }),
            Claim::Free | Claim::Reserved(_) | Claim::Quarantined => None,
        };
        let spender = utxo.spent.as_ref().and_then(|spend| state.attempt_of(spend.txid)).map(|(key, ..)| key.clone());
        [owner, spender]
    };
    coins.flat_map(of_coin).flatten().collect()
}

/// A spend that came or went changes what a caller sees of the payment.
fn mark_changed(state: &mut State, keys: &BTreeSet<PaymentKey>) {
    for key in keys {
        state.change_payment(key, |_| ());
    }
}

/// Holds coins back: somebody who has the keys spent them, or does, so nobody gets them until an operator has looked
/// (safety, Outpoint). A reservation that names one is over. What a payment of ours still needs stays its own: its anchor
/// guards it.
pub(crate) fn hold_back(state: &mut State, ctx: &Context, outpoints: &[OutPoint], why: &str) {
    let mut held_back: BTreeMap<WalletId, Vec<String>> = BTreeMap::new();
    for outpoint in outpoints {
        let Some((wallet, claim)) = state.utxo(outpoint).map(|utxo| (utxo.wallet.clone(), utxo.claim.clone())) else {
            continue;
        };
        if let Claim::Reserved(id) = claim {
            reservation::end(state, id, Ended::Expired);
        }
        state.update_utxo(outpoint, |utxo| utxo.claim = Claim::Quarantined);
        held_back.entry(wallet).or_default().push(outpoint.to_string());
    }
    for (wallet, outpoints) in held_back {
        audit::note(state, ctx, "quarantine", Some(wallet), &format!("{why}: {}", outpoints.join(" ")));
    }
}

/// Whether no payment needs the coin: it is free or reserved, or every attempt that spends it is dead.
fn is_unclaimed(state: &State, outpoint: &OutPoint) -> bool {
    let Some(utxo) = state.utxo(outpoint) else { return false };
    let payment = match &utxo.claim {
        Claim::Free | Claim::Reserved(_) => return true,
        Claim::Quarantined => return false,
        Claim::Exposed(payment) => payment.clone(),
    };
    state.payment(&PaymentKey { wallet: utxo.wallet.clone(), payment }).is_some_and(|payment| {
        let mut spenders = payment.attempts.iter().filter(|attempt| attempt.inputs().any(|input| input == *outpoint));
        spenders.all(|attempt| !attempt.is_live())
    })
}

/// Attempts whose end rests on the block at a height: they were settled there, or declared dead because of a spend there,
/// of their own coin or of an ancestor's. The finality depth may have changed since, so depth alone does not tell.
fn undone_ends(state: &State, height: Height) -> BTreeMap<PaymentKey, Vec<AttemptNo>> {
    let Some(record) = state.block(height) else { return BTreeMap::new() };
    let spent = |outpoint| state.utxo(outpoint)?.spent.as_ref();
    let spenders: BTreeSet<Txid> = record.spent.iter().filter_map(spent).map(|spend| spend.txid).collect();
    let rests_here = |attempt: &Attempt| match attempt.end {
        Some(AttemptEnd::Settled(at)) => at == height,
        Some(AttemptEnd::Dead(by)) => spenders.contains(&by),
        Some(AttemptEnd::Aborted) | None => false,
    };
    let is_undone = |payment: &Payment| payment.attempts.iter().any(rests_here);
    let touched = touched_payments(state, &record.spent);
    // Of those that were undone before, a coin may be another payment's.
    if !touched.iter().chain(state.undone_payments()).any(|key| state.payment(key).is_some_and(is_undone)) {
        return BTreeMap::new();
    }
    // Rare, so all are looked at: those that spent the change of a dead attempt died with it.
    let resting = |payment: &Payment| -> Vec<AttemptNo> {
        payment.numbered().filter(|(_, attempt)| rests_here(attempt)).map(|(number, _)| number).collect()
    };
    let all = state.payments().map(|(key, payment)| (key.clone(), resting(payment)));
    all.filter(|(_, numbers)| !numbers.is_empty()).collect()
}

/// A block that had a wallet's finality depth is gone: "settled" was not true. Stop and let a human look
/// (safety 17).
fn freeze_after_deep_reorg(state: &mut State, ctx: &Context, disconnected: Height, undone: &BTreeSet<WalletId>) {
    let reorg_depth = depth(disconnected, state.highest());
    let hit: Vec<_> = state
        .wallets()
        .filter(|(id, wallet)| reorg_depth >= wallet.limits.finality_depth || undone.contains(id))
        .filter(|(_, wallet)| wallet.reorganised().is_none())
        .map(|(id, wallet)| (id.clone(), wallet.limits.finality_depth))
        .collect();
    for (id, finality_depth) in hit {
        let why = format!(
            "{REORG_ALARM} {reorg_depth} blocks, down to height {disconnected}; finality depth is {finality_depth}"
        );
        freeze(state, ctx, &id, &why);
    }
}

/// Forgets what no reorganisation that we can follow could bring back.
fn forget_deep_blocks(state: &mut State, tip: Height) {
    let Some(deep) = tip.0.checked_sub(RECORDS_KEPT) else { return };
    let Some(record) = state.take_block(Height(deep)) else { return };
    for outpoint in record.spent {
        forget_buried(state, &outpoint);
    }
}

/// Whether a block is deeper than any reorganisation that can be followed, so that its record is gone.
pub(crate) fn is_buried(height: Height, tip: Height) -> bool {
    depth(height, tip) > RECORDS_KEPT
}

/// Forgets a coin whose spend is too deep to come back, unless a reservation still names it.
pub(crate) fn forget_buried(state: &mut State, outpoint: &OutPoint) {
    let Ok(tip) = state.tip() else { return };
    let buried = state.utxo(outpoint).is_some_and(|utxo| {
        utxo.spent.as_ref().is_some_and(|spend| is_buried(spend.height, tip.height))
            && !matches!(utxo.claim, Claim::Reserved(_))
    });
    if buried {
        state.remove_utxo(outpoint);
    }
}

/// An operator has checked these coins: nobody else will spend them.
pub(crate) fn release_quarantined(
    state: &mut State,
    wallet: &WalletId,
    outpoints: &[OutPoint],
) -> Result<Outcome, Rejection> {
    state.wallet(wallet)?;
    if outpoints.is_empty() || outpoints.len() > MAX_OUTPOINTS {
        let (got, max) = (outpoints.len() as u64, MAX_OUTPOINTS as u64);
        return Err(Rejection::OutOfBounds { what: "number of outpoints".to_owned(), got, min: 1, max });
    }
    let held_back = |outpoint: &&OutPoint| {
        state.utxo(outpoint).is_some_and(|utxo| utxo.wallet == *wallet && utxo.claim == Claim::Quarantined)
    };
    let others: Vec<OutPoint> = outpoints.iter().filter(|outpoint| !held_back(outpoint)).copied().collect();
    if !others.is_empty() {
        return Err(Rejection::NotQuarantined { outpoints: others });
    }
    for outpoint in outpoints {
        let heir = settlement::heir(state, wallet, outpoint);
        state.update_utxo(outpoint, |utxo| utxo.claim = heir);
    }
    Ok(Outcome::Recorded)
}

fn stale(what: String) -> Rejection {
    Rejection::StaleBasis { what }
}
