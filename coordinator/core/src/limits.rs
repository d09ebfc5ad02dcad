//! Bounds: of this implementation, and the caps that a wallet's owner sets against mistakes (safety 22).

use minicbor::{Decode, Encode};

use crate::ids::Millis;
use crate::outcome::{FeeLimit, Rejection};

/// A reservation's time to live when the caller names none: 10 minutes.
pub const DEFAULT_RESERVATION_TTL: Millis = Millis(10 * 60 * 1000);
/// The shortest time to live that is accepted: 1 second.
pub const MIN_RESERVATION_TTL: Millis = Millis(1000);
/// How long a reservation may live in all, renewals included: 24 hours.
pub const MAX_RESERVATION_LIFE: Millis = Millis(24 * 60 * 60 * 1000);
/// Most outpoints in one reservation or payment. 400 inputs stay below the 400 000 WU of BIP-141's standard size.
pub const MAX_OUTPOINTS: usize = 400;
/// Most recipients of one payment.
pub const MAX_RECIPIENTS: usize = 1000;
/// Most attempts that a payment gets by bumps and by transactions of its caller: one row holds all of them, and one message
/// shows them. The leader refuses more; `apply` knows no such bound. A cancellation is made all the same.
pub const MAX_ATTEMPTS: usize = 1000;
/// The longest descriptor in bytes: 20 keys with their origins fit.
pub const MAX_DESCRIPTOR_LEN: usize = 4 * 1024;
/// Most results that the request cache remembers; the oldest go first.
pub const MAX_CACHED_RESULTS: usize = 200_000;
/// Most ended reservations that are remembered, so that a late caller hears "expired" and not "unknown".
pub const MAX_ENDED_RESERVATIONS: usize = 10_000;
/// Blocks whose undo is kept. A reorganisation deeper than this, or to before the block that the cluster started
/// from, cannot be followed: it is refused, and the state stays at the last block that it could take back.
pub const UNDO_BLOCKS: u32 = 288;
/// Addresses beyond the last one given out that are watched (gap limit).
pub const ADDRESS_LOOKAHEAD: u32 = 1000;
/// The highest cap on fees that a wallet may have, as a percentage of what is paid.
pub const MAX_FEE_PERCENT: u32 = 100;
/// The largest accepted finality depth in blocks.
pub const MAX_FINALITY_DEPTH: u32 = 100;
/// Confirmations before a coinbase output may be spent (consensus rule, `COINBASE_MATURITY`).
pub const COINBASE_MATURITY: u32 = 100;
/// The largest standard transaction in weight units (`MAX_STANDARD_TX_WEIGHT` of Bitcoin Core).
pub const MAX_TRANSACTION_WEIGHT: u64 = 400_000;
/// Lowest feerate in sat per 1000 vB that Bitcoin Core relays by default since version 29.1.
pub const MIN_FEERATE_SAT_KVB: u64 = 100;

/// Highest feerate in sat per 1000 vB that a wallet may allow: `sendrawtransaction` of Bitcoin Core 31 refuses what is above
/// it (`maxfeerate`, 0.10 BTC/kvB), and an intent that nobody relays holds its coins for ever.
pub const MAX_FEERATE_SAT_KVB: u64 = 10_000_000;
/// Incremental feerate in sat per 1000 vB that a replacement pays for itself (`-incrementalrelayfee` of Bitcoin Core).
pub const INCREMENTAL_FEERATE_SAT_KVB: u64 = 100;
/// Most unconfirmed transactions of this service that may hang together: below the 64 of a cluster in Bitcoin Core 31.
pub const MAX_UNCONFIRMED_CLUSTER: u64 = 25;
/// Their size in all, in virtual bytes (`-limitclustersize` of Bitcoin Core 31 is 101 kvB).
pub const MAX_UNCONFIRMED_CLUSTER_VBYTES: u64 = 101_000;
/// The longest rolling window of a velocity limit: 31 days.
pub const MAX_VELOCITY_WINDOW: Millis = Millis(31 * 24 * 60 * 60 * 1000);
/// The shortest: 1 second.
pub const MIN_VELOCITY_WINDOW: Millis = Millis(1000);
/// Parts of a velocity window that are counted apart. What was spent leaves the sum up to one part late, never early.
pub const VELOCITY_PARTS: u64 = 60;
/// Audited events that are remembered; the oldest go first.
pub const MAX_AUDIT_RECORDS: usize = 10_000;
/// Longest note of an operator in bytes.
pub const MAX_NOTE_LEN: usize = 1000;
/// Bytes of remembered results in their stored form; the oldest go first.
pub const MAX_CACHED_BYTES: u64 = 256 << 20;

/// Most that may leave a wallet within a rolling window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Velocity {
    /// Length of the window in logical time.
    #[n(0)]
    pub window: Millis,
    /// Amounts of new payments and fees within it, in sat.
    #[n(1)]
    pub max_sat: u64,
}

/// The caps of one wallet.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct WalletLimits {
    /// Most that one transaction may pay in fees, in sat.
    #[n(0)]
    pub max_fee_sat: u64,
    /// Highest feerate, in sat per 1000 vB.
    #[n(1)]
    pub max_feerate_sat_kvb: u64,
    /// Highest fee as a percentage of what the recipients get.
    #[n(2)]
    pub max_fee_percent: u32,
    /// Blocks at which a payment of this wallet is settled, 1 to [`MAX_FINALITY_DEPTH`].
    #[n(3)]
    pub finality_depth: u32,
    /// Most reservations that may be active at once.
    #[n(4)]
    pub max_reservations: u32,
    /// Most of the confirmed balance that may be reserved at once, in percent; unset means all.
    #[n(5)]
    pub max_reserved_percent: Option<u32>,
    /// Most that may leave the wallet within a time; unset means no limit.
    #[n(6)]
    pub velocity: Option<Velocity>,
    /// Whether the change of own transactions may be reserved before it is in a block (safety 24).
    #[n(7)]
    pub spend_unconfirmed_change: Option<bool>,
}

impl Default for WalletLimits {
    fn default() -> Self {
        Self {
            max_fee_sat: 1_000_000,
            max_feerate_sat_kvb: 1_000_000,
            max_fee_percent: 50,
            finality_depth: 6,
            max_reservations: 100_000,
            max_reserved_percent: None,
            velocity: None,
            spend_unconfirmed_change: None,
        }
    }
}

fn window_ok(window: Millis) -> bool {
    (MIN_VELOCITY_WINDOW..=MAX_VELOCITY_WINDOW).contains(&window)
}

impl WalletLimits {
    /// Refuses limits that make no sense.
    pub(crate) fn check(&self) -> Result<(), Rejection> {
        let depth_ok = (1..=MAX_FINALITY_DEPTH).contains(&self.finality_depth);
        let rule = if !depth_ok {
            "finality_depth must be 1 to 100 blocks"
        } else if !(MIN_FEERATE_SAT_KVB..=MAX_FEERATE_SAT_KVB).contains(&self.max_feerate_sat_kvb) {
            "max_feerate_sat_vb must be 0.1 to 10000"
        } else if !(1..=MAX_FEE_PERCENT).contains(&self.max_fee_percent) {
            "max_fee_percent must be 1 to 100"
        } else if self.max_reservations == 0 {
            "max_reservations must be at least 1"
        } else if self.max_reserved_percent.is_some_and(|percent| !(1..=100).contains(&percent)) {
            "max_reserved_percent must be 1 to 100"
        } else if self.velocity.is_some_and(|velocity| !window_ok(velocity.window)) {
            "velocity.window must be 1 second to 31 days"
        } else {
            return Ok(());
        };
        Err(Rejection::LimitsInvalid { rule: rule.to_owned() })
    }

    /// Checks a transaction's fee against every cap. `weight` is the upper bound of the signed transaction.
    pub(crate) fn check_fee(&self, fee_sat: u64, weight: u64, paid_sat: u64) -> Result<(), Rejection> {
        let vsize = weight.div_ceil(4).max(1);
        let feerate = fee_sat.saturating_mul(1000) / vsize;
        let percent = fee_sat.saturating_mul(100).div_ceil(paid_sat.max(1));
        let over = |limit, got, bound| Err(Rejection::FeeLimit { limit, got, bound });
        if fee_sat > self.max_fee_sat {
            return over(FeeLimit::Fee, fee_sat, self.max_fee_sat);
        }
        if feerate > self.max_feerate_sat_kvb {
            return over(FeeLimit::Feerate, feerate, self.max_feerate_sat_kvb);
        }
        if feerate < MIN_FEERATE_SAT_KVB {
            return over(FeeLimit::FeerateTooLow, feerate, MIN_FEERATE_SAT_KVB);
        }
        if percent > u64::from(self.max_fee_percent) {
            return over(FeeLimit::Percent, percent, u64::from(self.max_fee_percent));
        }
        Ok(())
    }
}
