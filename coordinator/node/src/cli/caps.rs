//! The options for a wallet's limits.

use std::time::Duration;

use clap::Args;
use onespend_proto::v1;

use super::values;

/// The wallet's limits; 0 means the service's default.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits (0: the service's default)")]
pub struct Caps {
    /// Greatest fee of a transaction
    #[arg(long, value_name = "SAT", value_parser = values::limit_sat)]
    max_fee_sat: Option<i64>,
    /// Greatest feerate of a transaction, in satoshi per virtual byte
    #[arg(long, value_name = "SAT/VB", value_parser = values::feerate_sat_vb)]
    max_feerate: Option<f64>,
    /// Greatest fee as a percentage of the amount
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100))]
    max_fee_percent: Option<u32>,
    /// Confirmations at which a payment is settled
    #[arg(long, value_name = "BLOCKS", value_parser = clap::value_parser!(u32).range(0..=100))]
    finality_depth: Option<u32>,
    /// Most active reservations at a time
    #[arg(long, value_name = "N")]
    max_reservations: Option<u32>,
    /// Most of the balance that may be reserved at a time, as a percentage; 0 for no limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100))]
    max_reserved_percent: Option<u32>,
    /// Most that may leave the wallet within the velocity window; 0 for no limit
    #[arg(long, value_name = "SAT", value_parser = values::limit_sat)]
    velocity_max_sat: Option<i64>,
    /// Length of the velocity window, 1s to 31days [default: 24h, or as it is]
    #[arg(long, value_name = "TIME", value_parser = values::duration, requires = "velocity_max_sat")]
    velocity_window: Option<Duration>,
    /// Whether change of own payments may be spent before it is in a block
    #[arg(long, value_name = "BOOL")]
    spend_unconfirmed_change: Option<bool>,
}

/// The velocity window when none is named.
const DEFAULT_WINDOW: Duration = Duration::from_hours(24);

impl Caps {
    /// These limits, and the others from `present`.
    pub fn over(&self, present: v1::WalletLimits) -> v1::WalletLimits {
        v1::WalletLimits {
            max_fee_sat: self.max_fee_sat.unwrap_or(present.max_fee_sat),
            max_feerate_sat_vb: self.max_feerate.unwrap_or(present.max_feerate_sat_vb),
            max_fee_percent: self.max_fee_percent.unwrap_or(present.max_fee_percent),
            finality_depth: self.finality_depth.unwrap_or(present.finality_depth),
            max_reservations: self.max_reservations.unwrap_or(present.max_reservations),
            max_reserved_percent: self.max_reserved_percent.unwrap_or(present.max_reserved_percent),
            velocity: self.velocity(present.velocity),
            spend_unconfirmed_change: self.spend_unconfirmed_change.unwrap_or(present.spend_unconfirmed_change),
        }
    }

    fn velocity(&self, present: Option<v1::Velocity>) -> Option<v1::Velocity> {
        let max_sat = match self.velocity_max_sat {
            None => return present,
            Some(0) => return None,
            Some(max_sat) => max_sat,
        };
        let named = self.velocity_window.and_then(|window| prost_types::Duration::try_from(window).ok());
        let before = present.and_then(|velocity| velocity.window);
        let window = named.or(before).or_else(|| prost_types::Duration::try_from(DEFAULT_WINDOW).ok());
        Some(v1::Velocity { window, max_sat })
    }

    /// Whether any is named.
    pub fn any(&self) -> bool {
        let numbers = [self.max_fee_percent, self.finality_depth, self.max_reservations, self.max_reserved_percent];
        numbers.iter().any(Option::is_some)
            || self.max_fee_sat.is_some()
            || self.max_feerate.is_some()
            || self.velocity_max_sat.is_some()
            || self.spend_unconfirmed_change.is_some()
    }
}
