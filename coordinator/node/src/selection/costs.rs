//! What a selection costs, in whole satoshi.
//!
//! All inputs of a wallet weigh the same, so the fee depends only on how many there are and whether there is change.
//! Floats have no place here: with 24 bits of precision, an `f32` knows 39 BTC only to 256 sat.

use bitcoin::OutPoint;
use bitcoin::consensus::encode::VarInt;
use onespend_core::limits::{MAX_OUTPOINTS, MAX_TRANSACTION_WEIGHT};
use onespend_core::transaction;
use onespend_core::wallet::{Keychain, Wallet};

use super::Order;

/// What spending change is assumed to cost some day, in sat/vB (the long-term feerate of Bitcoin Core's wallet).
const LONG_TERM_FEERATE_SAT_VB: u64 = 10;
/// Weight units of a byte outside the witness (BIP-141).
const WITNESS_SCALE: u64 = 4;

/// The costs of paying one order out of one wallet.
pub(super) struct Costs {
    paid_sat: u64,
    feerate_sat_kvb: u64,
    /// The transaction with one input and without change, in weight units.
    plain_weight: u64,
    /// The same with change.
    change_weight: u64,
    /// Each further input.
    input_weight: u64,
    /// The least that change may be.
    dust_sat: u64,
}

/// What is to be paid for a selection that suffices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bill {
    /// What the transaction pays. What is left of the coins is change of at least the dust limit, or nothing.
    pub(super) fee_sat: u64,
    /// The same and what spending the change will cost: the lower, the better.
    pub(super) score_sat: u64,
}

impl Costs {
    pub(super) fn of(wallet: &Wallet, order: &Order<'_>) -> Self {
        let satisfaction_weight = wallet.descriptor.satisfaction_weight();
        // Without a next address `apply` refuses the change; until then any script will do.
        let change_script = wallet.descriptor.script(Keychain::Internal, wallet.next_internal).unwrap_or_default();
        let dust_sat = change_script.minimal_non_dust().to_sat();
        let weight = |inputs: usize, change| {
            let outpoints = vec![OutPoint::null(); inputs];
            let (transaction, _) = transaction::build(&outpoints, order.recipients, change);
            transaction::signed_weight(&transaction, satisfaction_weight)
        };
        let plain_weight = weight(1, None);
        Self {
            paid_sat: order.recipients.iter().fold(0, |sum, recipient| sum.saturating_add(recipient.amount_sat)),
            feerate_sat_kvb: order.feerate_sat_kvb,
            plain_weight,
            change_weight: weight(1, Some((change_script, dust_sat))),
            input_weight: weight(2, None).saturating_sub(plain_weight),
            dust_sat,
        }
    }

    /// The fee of a transaction with so many inputs, at least one.
    pub(super) fn fee_sat(&self, inputs: usize, has_change: bool) -> u64 {
        let inputs = inputs as u64;
        let base = if has_change { self.change_weight } else { self.plain_weight };
        let count = (VarInt::from(inputs).size() as u64).saturating_sub(1) * WITNESS_SCALE;
        self.fee_of(base + inputs.saturating_sub(1) * self.input_weight + count)
    }

    fn fee_of(&self, weight: u64) -> u64 {
        weight.div_ceil(WITNESS_SCALE).saturating_mul(self.feerate_sat_kvb).div_ceil(1000)
    }

    /// What one more input adds to the fee.
    pub(super) fn input_fee_sat(&self) -> u64 {
        self.fee_of(self.input_weight)
    }

    /// The least that so many coins must be worth.
    pub(super) fn needed_sat(&self, inputs: usize) -> u64 {
        self.paid_sat.saturating_add(self.fee_sat(inputs, false))
    }

    /// The value at which so many coins leave change, instead of giving what is left to the fee.
    pub(super) fn change_from_sat(&self, inputs: usize) -> u64 {
        self.paid_sat.saturating_add(self.fee_sat(inputs, true)).saturating_add(self.dust_sat)
    }

    /// The bill for so many coins of this value in all, if they suffice.
    pub(super) fn bill(&self, inputs: usize, input_sat: u64) -> Option<Bill> {
        if input_sat >= self.change_from_sat(inputs) {
            let fee_sat = self.fee_sat(inputs, true);
            let later_sat = self.input_weight.div_ceil(WITNESS_SCALE) * LONG_TERM_FEERATE_SAT_VB;
            return Some(Bill { fee_sat, score_sat: fee_sat.saturating_add(later_sat) });
        }
        let fee_sat = input_sat.checked_sub(self.paid_sat)?;
        (input_sat >= self.needed_sat(inputs)).then_some(Bill { fee_sat, score_sat: fee_sat })
    }

    /// What is left after the recipients got theirs, for a selection that scores less than this.
    pub(super) fn worth_below(&self, score_sat: u64) -> u64 {
        self.paid_sat.saturating_add(score_sat)
    }

    /// Most inputs of one transaction: a claim has a bound, and so has a standard transaction.
    pub(super) fn max_inputs(&self) -> usize {
        // The count of the inputs takes up to 9 bytes, of which one is in the weight already.
        let fixed = self.change_weight + 8 * WITNESS_SCALE;
        let further = MAX_TRANSACTION_WEIGHT.saturating_sub(fixed) / self.input_weight.max(1);
        usize::try_from(further).unwrap_or(MAX_OUTPOINTS).saturating_add(1).min(MAX_OUTPOINTS)
    }
}
