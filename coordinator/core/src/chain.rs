//! Blocks connected and disconnected, with undo (safety 17).

use std::collections::BTreeSet;

use bitcoin::{BlockHash, OutPoint, Txid};
use minicbor::{Decode, Encode};

use crate::apply::Context;
use crate::audit;
use crate::codec;
use crate::command::{BlockRef, Received, Spent};
use crate::facts;
use crate::ids::{Height, PaymentKey, WalletId};
use crate::limits::{MAX_OUTPOINTS, UNDO_BLOCKS};
use crate::outcome::{Outcome, Rejection};
use crate::payment::{Attempt, AttemptEnd, Payment};
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
}

pub(crate) fn connect(state: &mut State, ctx: &Context, new: &NewBlock<'_>) -> Result<Outcome, Rejection> {
    let tip = state.tip()?;
    if new.previous != tip.hash || Some(new.block.height.0) != tip.height.0.checked_add(1) {
        return Err(stale(format!("block {} does not follow the tip at height {}", new.block.hash, tip.height)));
    }
    if new.wallets != state.wallet_count() {
        return Err(stale("a wallet was registered since the block was searched".to_owned()));
    }
    facts::check_received(state, new.block, new.received)?;
    facts::check_spent(state, new.received, new.spent)?;
    note_foreign_spends(state, ctx, new.spent);
    let mut record = BlockRecord { hash: new.block.hash, received: Vec::new(), spent: Vec::new() };
    for output in new.received {
        receive(state, output);
        record.received.push(output.outpoint);
    }
    for spend in new.spent {
        let spent = Spend { txid: spend.txid, height: new.block.height };
        if state.update_utxo(&spend.outpoint, |utxo| utxo.spent = Some(spent)).is_some() {
            record.spent.push(spend.outpoint);
        }
    }
    let touched = exposing_payments(state, &record.spent);
    state.put_tip(new.block, record);
    mark_changed(state, &touched);
    for key in state.open_payments() {
        settlement::settle(state, &key);
    }
    forget_deep_blocks(state, new.block.height);
    Ok(Outcome::Recorded)
}

/// Somebody else has the keys of a wallet that is signed for here: an operator must know.
fn note_foreign_spends(state: &mut State, ctx: &Context, spent: &[Spent]) {
    let foreign: Vec<(WalletId, String)> = spent
        .iter()
        .filter(|spend| state.attempt_of(spend.txid).is_none())
        .filter_map(|spend| {
            let utxo = state.utxo(&spend.outpoint)?;
            let signed_here = matches!(state.wallet(&utxo.wallet).ok()?.signer, SignerRef::Named(_));
            signed_here.then(|| (utxo.wallet.clone(), format!("{} by {}", spend.outpoint, spend.txid)))
        })
        .collect();
    let Some((wallet, _)) = foreign.first().cloned() else { return };
    let told: Vec<String> = foreign.into_iter().map(|(wallet, told)| format!("{wallet}: {told}")).collect();
    audit::note(state, ctx, "foreign_spend", Some(wallet), &told.join(", "));
}

pub(crate) fn disconnect(state: &mut State, block: BlockRef) -> Result<Outcome, Rejection> {
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
    let undone = payments_with_undone_ends(state, block.height);
    let Some(record) = state.take_tip(previous) else {
        return Err(stale("the tip has no record".to_owned()));
    };
    for outpoint in &record.spent {
        take_back_spend(state, outpoint);
    }
    for outpoint in &record.received {
        state.update_utxo(outpoint, |utxo| utxo.height = None);
    }
    let touched = exposing_payments(state, &record.spent);
    mark_changed(state, &touched);
    for key in &undone {
        state.change_payment(key, |payment| payment.undone = Some(block.height));
    }
    let wallets = undone.into_iter().map(|key| key.wallet).collect();
    freeze_after_deep_reorg(state, block.height, &wallets);
    Ok(Outcome::Recorded)
}

/// Adds a coin, or gives one that a reorganisation took away its block again. Its claim stays (safety 17). Callers
/// have checked the facts.
pub(crate) fn receive(state: &mut State, output: &Received) {
    let known = state.update_utxo(&output.outpoint, |utxo| utxo.height = Some(output.height));
    if known.is_none() {
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
                claim: Claim::Free,
                spent: None,
            },
        );
    }
    state.use_index(&output.wallet, output.keychain, output.index);
}

fn exposing_payments(state: &State, outpoints: &[OutPoint]) -> Vec<PaymentKey> {
    let mut keys: Vec<PaymentKey> = outpoints
        .iter()
        .filter_map(|outpoint| {
            let utxo = state.utxo(outpoint)?;
            match &utxo.claim {
                Claim::Exposed(payment) => Some(PaymentKey { wallet: utxo.wallet.clone(), payment: payment.clone() }),
                Claim::Free | Claim::Reserved(_) | Claim::Quarantined => None,
            }
        })
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

/// A spend that came or went changes what a caller sees of the payment.
fn mark_changed(state: &mut State, keys: &[PaymentKey]) {
    for key in keys {
        state.change_payment(key, |_| ());
    }
}

/// The coin is unspent again. If nobody here has a claim on it, somebody who has the keys spent it and may again:
/// nobody gets it until an operator has looked (safety, Outpoint).
fn take_back_spend(state: &mut State, outpoint: &OutPoint) {
    let unclaimed = state.utxo(outpoint).is_some_and(|utxo| is_unclaimed(state, outpoint, utxo));
    state.update_utxo(outpoint, |utxo| {
        utxo.spent = None;
        if unclaimed {
            utxo.claim = Claim::Quarantined;
        }
    });
}

/// Whether nobody needs the coin: it is free, or every attempt that spends it is dead, and not because of the very
/// spend that is taken back, without which the attempt might live again.
fn is_unclaimed(state: &State, outpoint: &OutPoint, utxo: &Utxo) -> bool {
    let payment = match &utxo.claim {
        Claim::Free => return true,
        Claim::Reserved(_) | Claim::Quarantined => return false,
        Claim::Exposed(payment) => payment.clone(),
    };
    let taken_back = utxo.spent.as_ref().map(|spend| spend.txid);
    let is_dead = |end: &Option<AttemptEnd>| match end {
        Some(AttemptEnd::Dead(by)) => Some(*by) != taken_back,
        Some(AttemptEnd::Aborted) => true,
        Some(AttemptEnd::Settled(_)) | None => false,
    };
    state.payment(&PaymentKey { wallet: utxo.wallet.clone(), payment }).is_some_and(|payment| {
        let mut spenders = payment.attempts.iter().filter(|attempt| attempt.inputs().any(|input| input == *outpoint));
        spenders.all(|attempt| is_dead(&attempt.end))
    })
}

/// Payments whose end rests on the block at a height: one was settled there, or an attempt was declared dead because of a
/// spend there, of its own coin or of an ancestor's. The finality depth may have changed since, so depth alone does not
/// tell.
fn payments_with_undone_ends(state: &State, height: Height) -> BTreeSet<PaymentKey> {
    let Some(record) = state.block(height) else { return BTreeSet::new() };
    let spent = |outpoint| state.utxo(outpoint)?.spent.as_ref();
    let spenders: BTreeSet<Txid> = record.spent.iter().filter_map(spent).map(|spend| spend.txid).collect();
    let rests_here = |attempt: &Attempt| match attempt.end {
        Some(AttemptEnd::Settled(at)) => at == height,
        Some(AttemptEnd::Dead(by)) => spenders.contains(&by),
        Some(AttemptEnd::Aborted) | None => false,
    };
    let is_undone = |payment: &Payment| payment.attempts.iter().any(rests_here);
    let hit = exposing_payments(state, &record.spent);
    if !hit.iter().any(|key| state.payment(key).is_some_and(is_undone)) {
        return BTreeSet::new();
    }
    // Rare, so all are looked at: those that spent the change of a dead attempt died with it.
    state.payments().filter(|(_, payment)| is_undone(payment)).map(|(key, _)| key.clone()).collect()
}

/// A block that had a wallet's finality depth is gone: "settled" was not true. Stop and let a human look
/// (safety 17).
fn freeze_after_deep_reorg(state: &mut State, disconnected: Height, undone: &BTreeSet<WalletId>) {
    let reorg_depth = depth(disconnected, state.highest());
    let hit: Vec<_> = state
        .wallets()
        .filter(|(id, wallet)| reorg_depth >= wallet.limits.finality_depth || undone.contains(id))
        .filter(|(_, wallet)| wallet.reorganised().is_none())
        .map(|(id, wallet)| (id.clone(), wallet.limits.finality_depth, wallet.frozen.clone()))
        .collect();
    for (id, finality_depth, earlier) in hit {
        let mut why = format!(
            "{REORG_ALARM} {reorg_depth} blocks, down to height {disconnected}; finality depth is {finality_depth}"
        );
        if let Some(earlier) = earlier {
            why = format!("{why}; it was frozen before: {earlier}");
        }
        state.update_wallet(&id, |wallet| wallet.frozen = Some(why));
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

/// Forgets a coin whose spend is too deep to come back, unless a reservation still names it.
pub(crate) fn forget_buried(state: &mut State, outpoint: &OutPoint) {
    let Ok(tip) = state.tip() else { return };
    let buried = state.utxo(outpoint).is_some_and(|utxo| {
        utxo.spent.as_ref().is_some_and(|spend| depth(spend.height, tip.height) > RECORDS_KEPT)
            && !matches!(utxo.claim, Claim::Reserved(_))
    });
    if buried {
        state.remove_utxo(outpoint);
    }
}

/// The wallet works again: an operator has looked, also at its coins that were held back.
pub(crate) fn free_quarantined(state: &mut State, wallet: &WalletId) {
    let held_back: Vec<OutPoint> = state
        .utxos()
        .filter(|(_, utxo)| utxo.wallet == *wallet && utxo.claim == Claim::Quarantined)
        .map(|(outpoint, _)| *outpoint)
        .collect();
    for outpoint in held_back {
        state.update_utxo(&outpoint, |utxo| utxo.claim = Claim::Free);
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
        state.update_utxo(outpoint, |utxo| utxo.claim = Claim::Free);
    }
    Ok(Outcome::Recorded)
}

fn stale(what: String) -> Rejection {
    Rejection::StaleBasis { what }
}
