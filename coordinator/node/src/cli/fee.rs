//! The options by which a command says what fee to pay.

use clap::Args;

use super::values;

/// Which feerate, and at most which fee.
#[derive(Debug, Args)]
pub struct Fee {
    /// Feerate, in satoshi per virtual byte
    #[arg(long, value_name = "SAT/VB", value_parser = values::feerate_sat_vb, conflicts_with = "target_blocks")]
    feerate: Option<f64>,
    /// Pay what bitcoind estimates for confirmation within so many blocks [default: 6]
    #[arg(long, value_name = "BLOCKS", value_parser = clap::value_parser!(u32).range(1..=1008))]
    target_blocks: Option<u32>,
    /// Greatest fee, in satoshi [default: the wallet's limit]
    #[arg(long, value_name = "SAT", value_parser = values::amount_sat)]
    max_fee_sat: Option<i64>,
}

impl Fee {
    /// The rule as a request has it: of a feerate, or of a target.
    pub fn rule<T>(&self, rate: impl FnOnce(f64) -> T, target: impl FnOnce(u32) -> T) -> Option<T> {
        self.feerate.map(rate).or_else(|| self.target_blocks.map(target))
    }

    /// The greatest fee; 0 for the wallet's limit.
    pub fn max_sat(&self) -> i64 {
        self.max_fee_sat.unwrap_or_default()
    }
}
