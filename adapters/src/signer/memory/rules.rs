//! The decision, as a function of what is remembered: no IO, so every rule can be read here.

use bitcoin::OutPoint;
use onespend_core::ids::{AttemptNo, Fence, PaymentKey};
use onespend_core::signing::SigningPermit;

use super::Refusal;

/// One attempt that was allowed before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Recorded {
    /// Its row.
    pub(super) id: i64,
    pub(super) key: PaymentKey,
    pub(super) number: AttemptNo,
    pub(super) txid: bitcoin::Txid,
    pub(super) fence: Fence,
}

impl Recorded {
    fn is_of(&self, permit: &SigningPermit) -> bool {
        self.key == *permit.key() && self.number == permit.attempt()
    }
}

/// What has to be on the disk before the signature is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// It is there.
    Nothing,
    /// A new attempt.
    Record,
    /// A known attempt under a higher fence.
    Raise(&'a Recorded),
}

/// Whether the permit may be signed. `own` are the recorded attempts of the permit's payment, `spenders` all recorded
/// attempts that spend one of its coins.
pub(super) fn judge<'a>(
    permit: &SigningPermit,
    own: &'a [Recorded],
    spenders: &[(OutPoint, Recorded)],
) -> Result<Step<'a>, Refusal> {
    let same = recorded(permit, own)?;
    // Signing again is always allowed, also after a later attempt of the payment (safety 14).
    if same.is_some_and(|known| known.fence == permit.fence()) {
        return Ok(Step::Nothing);
    }
    check_payments(permit, spenders)?;
    check_attempts(permit, own, spenders)?;
    check_fences(permit, spenders)?;
    Ok(same.map_or(Step::Record, Step::Raise))
}

/// The record of the permit's transaction. A memory that took in another one may have several under one number, of two
/// logs: then there is always one that differs.
fn recorded<'a>(permit: &SigningPermit, own: &'a [Recorded]) -> Result<Option<&'a Recorded>, Refusal> {
    let asked = permit.txid();
    let of_number = own.iter().filter(|recorded| recorded.is_of(permit));
    let (same, other): (Vec<_>, Vec<_>) = of_number.partition(|recorded| recorded.txid == asked);
    match other.first() {
        Some(other) => {
            let (key, attempt, recorded) = (permit.key().clone(), permit.attempt(), other.txid);
            Err(Refusal::OtherTransaction { key, attempt, recorded, asked })
        }
        None => Ok(same.first().copied()),
    }
}

/// Whether it may be signed beside a recorded attempt that could still confirm: it pays nobody, so nobody is paid a
/// second time, and the log has lost that attempt, so nothing else ends a payment that is refused because of it. Of its
/// own epoch the log has lost nothing.
fn is_harmless(permit: &SigningPermit, recorded: &Recorded) -> bool {
    permit.pays_only_the_wallet() && recorded.fence.epoch() < permit.fence().epoch()
}

/// An attempt of another payment that spends one of the coins must be proven dead, transaction by transaction: that
/// the log knows some dead attempt of that payment says nothing of the one that was signed here.
fn check_payments(permit: &SigningPermit, spenders: &[(OutPoint, Recorded)]) -> Result<(), Refusal> {
    let alive: Vec<_> = spenders
        .iter()
        .filter(|(_, recorded)| recorded.key != *permit.key() && !permit.dead().contains(&recorded.txid))
        .filter(|(_, recorded)| !is_harmless(permit, recorded))
        .collect();
    let Some((outpoint, _)) = alive.first() else { return Ok(()) };
    let mut earlier: Vec<PaymentKey> = alive.iter().map(|(_, recorded)| recorded.key.clone()).collect();
    earlier.sort();
    earlier.dedup();
    Err(Refusal::SecondPayment { outpoint: *outpoint, earlier })
}

/// Two attempts of a payment that share no coin could both confirm. So one that spends none of the permit's must be proven
/// dead: that the log knows no such attempt, as after a backup was put back, proves nothing.
fn check_attempts(permit: &SigningPermit, own: &[Recorded], spenders: &[(OutPoint, Recorded)]) -> Result<(), Refusal> {
    let shares = |recorded: &Recorded| spenders.iter().any(|(_, spender)| spender.id == recorded.id);
    let mut apart = own.iter().filter(|one| !one.is_of(permit) && !shares(one) && !permit.dead().contains(&one.txid));
    let Some(apart) = apart.find(|one| !is_harmless(permit, one)) else { return Ok(()) };
    Err(Refusal::NoSharedCoin {
        key: permit.key().clone(),
        attempt: permit.attempt(),
        earlier: apart.number,
        recorded: apart.txid,
    })
}

/// Whether it is another attempt of the permit's payment, which can never confirm. A log that knows its death has its
/// intent, so it lacks nothing up to that fence. The record keeps the fence: to other payments it is as high as before.
fn is_over(permit: &SigningPermit, recorded: &Recorded) -> bool {
    recorded.key == *permit.key() && !recorded.is_of(permit) && permit.dead().contains(&recorded.txid)
}

/// Fences of one coin strictly increase: two attempts never share one, because it is the index of their intent. A dead
/// later attempt of the same payment holds up none before it.
fn check_fences(permit: &SigningPermit, spenders: &[(OutPoint, Recorded)]) -> Result<(), Refusal> {
    let asked = permit.fence();
    let is_above = |recorded: &Recorded| {
        if recorded.is_of(permit) { recorded.fence > asked } else { recorded.fence >= asked }
    };
    let above = spenders.iter().filter(|(_, recorded)| is_above(recorded) && !is_over(permit, recorded));
    match above.max_by_key(|(_, recorded)| recorded.fence) {
        Some((outpoint, highest)) => Err(Refusal::LowerFence { outpoint: *outpoint, recorded: highest.fence, asked }),
        None => Ok(()),
    }
}
