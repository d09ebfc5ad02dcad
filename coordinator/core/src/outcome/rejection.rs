//! Every reason for which nothing was done.

use bitcoin::OutPoint;
use minicbor::{Decode, Encode};

use super::{Conflict, FeeLimit};
use crate::codec;
use crate::ids::{AttemptNo, CallerId, Fence, PaymentId};
use crate::wallet::DescriptorFault;

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum Rejection {
    /// The cluster has no chain yet.
    #[error("the cluster has not seen its first block yet")]
    #[n(0)]
    NotStarted,
    /// What the command was decided on is out of date; the leader gathers the facts again.
    #[error("decided on facts that are out of date: {what}")]
    #[n(1)]
    StaleBasis {
        /// Which facts.
        #[n(0)]
        what: String,
    },
    /// No wallet of this name.
    #[error("no such wallet{}", quoted(.wallet.as_deref()))]
    #[n(2)]
    WalletUnknown {
        /// The name; answers that an earlier version remembered lack it.
        #[n(0)]
        wallet: Option<String>,
    },
    /// A wallet of this name, or with this descriptor, is there already.
    #[error("wallet {wallet} is there already with {what}")]
    #[n(3)]
    WalletExists {
        /// Which wallet.
        #[n(0)]
        wallet: String,
        /// What is the same.
        #[n(1)]
        what: String,
    },
    /// An operator, or an alarm, stopped the wallet.
    #[error("the wallet is frozen: {why}")]
    #[n(4)]
    WalletFrozen {
        /// Why.
        #[n(0)]
        why: String,
    },
    /// The wallet has no signer.
    #[error("the wallet has no signer: it is only watched")]
    #[n(5)]
    WalletWatchOnly,
    /// The descriptor cannot be used.
    #[error("descriptor: {0}")]
    #[n(6)]
    DescriptorInvalid(#[n(0)] DescriptorFault),
    /// Limits make no sense.
    #[error("limits: {rule}")]
    #[n(7)]
    LimitsInvalid {
        /// The rule that is broken.
        #[n(0)]
        rule: String,
    },
    /// These outpoints are not coins of the wallet.
    #[error("{} not known to the wallet", count(.outpoints, "outpoint is", "outpoints are"))]
    #[n(8)]
    OutpointUnknown {
        /// All of them.
        #[n(0)]
        #[cbor(with = "codec::many")]
        outpoints: Vec<OutPoint>,
    },
    /// Coins that others have.
    #[error("{} claimed by others", count(.conflicts, "outpoint is", "outpoints are"))]
    #[n(9)]
    OutpointReserved {
        /// All of them.
        #[n(0)]
        conflicts: Vec<Conflict>,
    },
    /// Coins that are spent.
    #[error("{} spent", count(.outpoints, "outpoint is", "outpoints are"))]
    #[n(10)]
    OutpointSpent {
        /// All of them.
        #[n(0)]
        #[cbor(with = "codec::many")]
        outpoints: Vec<OutPoint>,
    },
    /// Coinbase outputs below 100 confirmations, or coins whose block was disconnected.
    #[error("{} not spendable yet (a coinbase needs 100 confirmations, other coins 1)", count(.outpoints, "outpoint is", "outpoints are"))]
    #[n(11)]
    OutpointImmature {
        /// All of them.
        #[n(0)]
        #[cbor(with = "codec::many")]
        outpoints: Vec<OutPoint>,
    },
    /// The same outpoint twice.
    #[error("outpoint {outpoint} is named twice")]
    #[n(12)]
    DuplicateInput {
        /// Which.
        #[n(0)]
        #[cbor(with = "codec::one")]
        outpoint: OutPoint,
    },
    /// A number outside its bounds.
    #[error("{what} is {got}; it must be {min} to {max}")]
    #[n(13)]
    OutOfBounds {
        /// Which number, with its unit.
        #[n(0)]
        what: String,
        /// What was asked for.
        #[n(1)]
        got: u64,
        /// The least allowed.
        #[n(2)]
        min: u64,
        /// The most allowed.
        #[n(3)]
        max: u64,
    },
    /// The wallet has as many reservations as it may.
    #[error("the wallet has {active} active reservations, its limit")]
    #[n(14)]
    ReservationQuota {
        /// How many.
        #[n(0)]
        active: u64,
    },
    /// No such reservation.
    #[error("no such reservation")]
    #[n(15)]
    ReservationUnknown,
    /// The reservation's time is over.
    #[error("the reservation expired")]
    #[n(16)]
    ReservationExpired,
    /// The reservation was given back.
    #[error("the reservation was released")]
    #[n(17)]
    ReservationReleased,
    /// The reservation's coins belong to a payment now.
    #[error("the reservation was used by payment {payment}")]
    #[n(18)]
    ReservationUsed {
        /// Which payment.
        #[n(0)]
        payment: PaymentId,
    },
    /// The fence is not that of the grant.
    #[error("the fence is {got}; the reservation's is {current}")]
    #[n(19)]
    StaleFence {
        /// What was shown.
        #[n(0)]
        got: Fence,
        /// The true one.
        #[n(1)]
        current: Fence,
    },
    /// Another caller owns it.
    #[error("it belongs to {owner}")]
    #[n(20)]
    NotOwner {
        /// Who.
        #[n(0)]
        owner: CallerId,
    },
    /// The request id was used for another request.
    #[error("this request_id was used before for another request")]
    #[n(21)]
    RequestIdReused,
    /// The payment id is bound to other recipients or amounts (safety 7).
    #[error("this payment_id is bound to other recipients or amounts, for ever")]
    #[n(22)]
    PaymentIdReused,
    /// The reservation was made for another payment.
    #[error("the reservation was made for payment {payment}")]
    #[n(23)]
    ReservedForOther {
        /// Which payment.
        #[n(0)]
        payment: PaymentId,
    },
    /// No such payment or attempt.
    #[error("no such payment")]
    #[n(24)]
    PaymentUnknown,
    /// An earlier attempt may still confirm, or has (safety 8 and 9).
    #[error(
        "{txid}, which is attempt {attempt} or what ended it, may still confirm, or has confirmed; nothing else may \
         pay this payment"
    )]
    #[n(25)]
    PaymentUnresolved {
        /// The attempt to look at.
        #[n(0)]
        attempt: AttemptNo,
        /// Its txid, or that of the transaction that ended it.
        #[n(1)]
        txid: String,
    },
    /// An input that the reservation does not hold.
    #[error("input {outpoint} is not in the reservation")]
    #[n(26)]
    ForeignInput {
        /// Which.
        #[n(0)]
        #[cbor(with = "codec::one")]
        outpoint: OutPoint,
    },
    /// A reserved coin that the transaction does not spend.
    #[error("reserved outpoint {outpoint} is not an input")]
    #[n(27)]
    MissingInput {
        /// Which.
        #[n(0)]
        #[cbor(with = "codec::one")]
        outpoint: OutPoint,
    },
    /// Something about the transaction itself.
    #[error("transaction: {rule}")]
    #[n(28)]
    TransactionInvalid {
        /// The rule that is broken.
        #[n(0)]
        rule: String,
    },
    /// Outputs that are neither recipients nor one change output of this wallet (safety 21).
    #[error("output {vout}: {rule}")]
    #[n(29)]
    OutputInvalid {
        /// Which output, or recipient.
        #[n(0)]
        vout: u32,
        /// The rule that is broken.
        #[n(1)]
        rule: String,
    },
    /// Inputs are worth less than outputs and fee.
    #[error("{needed_sat} sat are needed, the coins to spend hold {available_sat} sat")]
    #[n(30)]
    InsufficientFunds {
        /// With the fee.
        #[n(0)]
        needed_sat: u64,
        /// What the coins hold.
        #[n(1)]
        available_sat: u64,
    },
    /// A fee cap.
    #[error("{}", broken_limit(*.limit, *.got, *.bound))]
    #[n(31)]
    FeeLimit {
        /// Which cap.
        #[n(0)]
        limit: FeeLimit,
        /// What the transaction has.
        #[n(1)]
        got: u64,
        /// The cap.
        #[n(2)]
        bound: u64,
    },
    /// A signed transaction that is not the attempt's.
    #[error("the signed transaction is not the one that was permitted")]
    #[n(32)]
    SignatureMismatch,
    /// The wallet signs outside. Nothing refuses for that since such wallets pay like others; it stays because answers that
    /// an earlier version remembered may hold it.
    #[error("the wallet signs outside this service")]
    #[n(33)]
    WalletSignsOutside,
    /// A replacement that does not spend the anchor could confirm beside an earlier attempt (safety 8).
    #[error("the transaction must spend {anchor}, which every attempt of this payment spends")]
    #[n(34)]
    ReplacementMissingAnchor {
        /// The payment's anchor.
        #[n(0)]
        #[cbor(with = "codec::one")]
        anchor: OutPoint,
    },
    /// Nothing can be replaced, for a reason that time or a new attempt changes.
    #[error("nothing to replace: {why}")]
    #[n(35)]
    NotReplaceable {
        /// Why.
        #[n(0)]
        why: String,
    },
    /// The change of an attempt is spent by another payment that may be signed: replacing the attempt would take that
    /// payment's coin away (safety 24).
    #[error("payment {payment} spends {outpoint}, the change of an attempt that would be replaced")]
    #[n(36)]
    HasDescendants {
        /// The change output.
        #[n(0)]
        #[cbor(with = "codec::one")]
        outpoint: OutPoint,
        /// Who spends it.
        #[n(1)]
        payment: PaymentId,
    },
    /// No signer of this wallet can prove that it has fenced an attempt.
    #[error("an attempt of this wallet cannot be aborted: {why}")]
    #[n(37)]
    AbortUnsupported {
        /// Why.
        #[n(0)]
        why: String,
    },
    /// The proof is not the signer's word about this attempt.
    #[error("the proof is not a signature of the wallet's fence key over this attempt")]
    #[n(38)]
    AbortProofInvalid,
    /// The signer said that it would never sign this attempt.
    #[error("the attempt was aborted: its signer proved that it had not signed and never would")]
    #[n(39)]
    AttemptAborted,
    /// Too much of the wallet would be reserved.
    #[error("{reserved_sat} sat would be reserved; the wallet's limit is {bound_sat} sat")]
    #[n(40)]
    ReservedShare {
        /// With this reservation.
        #[n(0)]
        reserved_sat: u64,
        /// The most that may be.
        #[n(1)]
        bound_sat: u64,
    },
    /// Too much would leave the wallet within the window.
    #[error("{spent_sat} sat would leave the wallet within {window_ms} ms; its limit is {bound_sat} sat")]
    #[n(41)]
    VelocityLimit {
        /// With this transaction.
        #[n(0)]
        spent_sat: u64,
        /// The most that may.
        #[n(1)]
        bound_sat: u64,
        /// Length of the rolling window.
        #[n(2)]
        window_ms: u64,
    },
    /// The state was restored from a backup and is not confirmed yet (safety 30).
    #[error("recovery mode: nothing is signed until an operator has confirmed the state; {why}")]
    #[n(42)]
    RecoveryMode {
        /// How it began.
        #[n(0)]
        why: String,
    },
    /// There is nothing to confirm, or not yet.
    #[error("recovery: {why}")]
    #[n(43)]
    RecoveryRefused {
        /// Why.
        #[n(0)]
        why: String,
    },
    /// Coins that were to be released are not held back.
    #[error("{} not held back", count(.outpoints, "outpoint is", "outpoints are"))]
    #[n(44)]
    NotQuarantined {
        /// All of them.
        #[n(0)]
        #[cbor(with = "codec::many")]
        outpoints: Vec<OutPoint>,
    },
    /// The wallet has descriptors: its coins are found in blocks.
    #[error("the wallet has descriptors: its coins are found by themselves")]
    #[n(45)]
    WalletHasDescriptors,
    /// The cluster that the coins' transactions form in a mempool would be too large (Bitcoin Core 31: 64 transactions,
    /// 101 000 vB).
    #[error("{what} of unconfirmed transactions in a row would be {got}; the limit is {bound}")]
    #[n(46)]
    ChainTooLong {
        /// Which size.
        #[n(0)]
        what: String,
        /// It would be.
        #[n(1)]
        got: u64,
        /// The limit.
        #[n(2)]
        bound: u64,
    },
    /// Nothing shows that a coin is lost for good.
    #[error("the coin is not lost for good: {why}")]
    #[n(47)]
    NotLost {
        /// Which check failed.
        #[n(0)]
        why: String,
    },
}

fn quoted(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!(": {name:?}"))
}

/// With the unit, and the way to go: some limits are bounds above, some below.
fn broken_limit(limit: FeeLimit, got: u64, bound: u64) -> String {
    let rate = |sat_kvb: u64| format!("{}.{:03} sat/vB", sat_kvb / 1000, sat_kvb % 1000);
    let more = "more than is paid already is asked for, at least";
    match limit {
        FeeLimit::Fee => format!("the fee is {got} sat: it may be {bound} sat at most"),
        FeeLimit::Feerate => format!("the feerate is {}: it may be {} at most", rate(got), rate(bound)),
        FeeLimit::FeerateTooLow => format!("the feerate is {}: nodes relay {} at least", rate(got), rate(bound)),
        FeeLimit::Percent => format!("the fee is {got}% of what is paid: it may be {bound}% at most"),
        FeeLimit::ReplacementFee => format!("the fee is {got} sat: {more} {bound} sat"),
        FeeLimit::ReplacementFeerate => format!("the feerate is {}: {more} {}", rate(got), rate(bound)),
    }
}

fn count<T>(items: &[T], one: &str, many: &str) -> String {
    format!("{} {}", items.len(), if items.len() == 1 { one } else { many })
}

impl Rejection {
    /// Whether the leader should gather its facts again and propose once more. Such a refusal says nothing about
    /// the request, so it is not remembered as the request's answer.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::StaleBasis { .. } | Self::NotStarted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// safety 8 and 9: both are refused for one reason, and only the chain tells which it is.
    #[test]
    fn an_attempt_that_stands_in_the_way_may_have_confirmed() {
        let refused = Rejection::PaymentUnresolved { attempt: AttemptNo(1), txid: "ab".to_owned() }.to_string();
        let said = "ab, which is attempt 1 or what ended it, may still confirm, or has confirmed;";
        assert!(refused.starts_with(said), "{refused}");
    }

    #[test]
    fn a_fee_that_breaks_a_limit_is_told_with_its_unit_and_the_way_to_go() {
        let said = |limit, got, bound| Rejection::FeeLimit { limit, got, bound }.to_string();
        assert_eq!(said(FeeLimit::Fee, 700, 10), "the fee is 700 sat: it may be 10 sat at most");
        assert_eq!(
            said(FeeLimit::Feerate, 50_500, 50_000),
            "the feerate is 50.500 sat/vB: it may be 50.000 sat/vB at most"
        );
        assert_eq!(
            said(FeeLimit::FeerateTooLow, 99, 100),
            "the feerate is 0.099 sat/vB: nodes relay 0.100 sat/vB at least"
        );
        assert_eq!(said(FeeLimit::Percent, 40, 30), "the fee is 40% of what is paid: it may be 30% at most");
        assert_eq!(
            said(FeeLimit::ReplacementFee, 700, 715),
            "the fee is 700 sat: more than is paid already is asked for, at least 715 sat"
        );
        assert_eq!(
            said(FeeLimit::ReplacementFeerate, 5_000, 10_001),
            "the feerate is 5.000 sat/vB: more than is paid already is asked for, at least 10.001 sat/vB"
        );
    }
}
