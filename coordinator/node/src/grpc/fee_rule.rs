//! Which fee a caller asks for: a feerate, or a time within which a transaction should confirm.

use onespend_core::outcome::{FeeLimit, Rejection};
use tonic::Status;

use super::api::Api;
use super::fields::{DEFAULT_TARGET_BLOCKS, Fields};
use super::status;

/// A feerate that is named, or one that bitcoind estimates.
#[derive(Debug, Clone, Copy)]
pub(super) enum FeeRule {
    /// In sat per 1000 vB.
    Rate(u64),
    /// In blocks.
    Target(u16),
}

impl FeeRule {
    /// What is paid when the caller names neither.
    pub(super) const DEFAULT: Self = Self::Target(DEFAULT_TARGET_BLOCKS);

    /// A feerate in sat/vB.
    pub(super) fn rate(fields: &mut Fields, field: &str, sat_vb: f64) -> Option<Self> {
        fields.feerate_sat_kvb(field, sat_vb).map(Self::Rate)
    }

    /// A time in blocks.
    pub(super) fn target(fields: &mut Fields, blocks: u32) -> Option<Self> {
        fields.target_blocks(blocks).map(Self::Target)
    }

    /// The feerate in sat per 1000 vB as of now.
    ///
    /// # Errors
    /// `CHAIN_NOT_SYNCED`: a time was asked for, and bitcoind has no estimate.
    pub(super) fn sat_kvb(self, api: &Api) -> Result<u64, Status> {
        match self {
            Self::Rate(rate) => Ok(rate),
            Self::Target(blocks) => api.bitcoind.feerate_sat_kvb(blocks).map_err(status::no_estimate),
        }
    }
}

/// The greatest fee that the caller accepts; none where 0 is given.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaxFee(Option<u64>);

impl MaxFee {
    pub(super) fn parse(fields: &mut Fields, sat: i64) -> Option<Self> {
        match sat {
            0 => Some(Self(None)),
            sat => fields.positive_sat("max_fee_sat", sat).map(|sat| Self(Some(sat))),
        }
    }

    /// Refuses a fee above it.
    pub(super) fn check(self, fee_sat: u64) -> Result<(), Status> {
        match self.0.filter(|max| fee_sat > *max) {
            Some(bound) => Err(status::rejected(&Rejection::FeeLimit { limit: FeeLimit::Fee, got: fee_sat, bound })),
            None => Ok(()),
        }
    }
}
