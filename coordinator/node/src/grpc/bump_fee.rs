//! BumpFee: a further attempt that replaces the newest one for more fees.

use std::sync::Arc;

use onespend_core::command::{Command, Replace};
use onespend_core::ids::{PaymentKey, RequestId};
use onespend_proto::v1::{self, bump_fee_request::Fee};
use tonic::Status;

use super::api::{Api, Call};
use super::decide::Draft;
use super::fee_rule::{FeeRule, MaxFee};
use super::fields::Fields;
use super::{sign_payment, status};
use crate::replacement::{self, Plan, Purpose};

/// What a replacement should be.
pub(super) struct Wanted {
    pub(super) key: PaymentKey,
    pub(super) fee: FeeRule,
    pub(super) max_fee: MaxFee,
}

pub(super) async fn bump_fee(
    api: Arc<Api>,
    call: Call,
    message: v1::BumpFeeRequest,
) -> Result<v1::BumpFeeResponse, Status> {
    let (request, wanted) = parse(&message)?;
    let gather = || std::future::ready(draft(&api, &wanted, Purpose::Bump));
    let applied = api.decide(&call, call.request(request), gather).await?;
    let (payment, attempt) = sign_payment::finish(&api, &call, &applied).await?;
    Ok(v1::BumpFeeResponse {
        payment: Some(payment),
        attempt_number: attempt.0,
        applied_index: applied.index.0,
        term: applied.term,
    })
}

pub(super) fn parse(message: &v1::BumpFeeRequest) -> Result<(RequestId, Wanted), Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    let key = fields.payment_key(&message.wallet_id, &message.payment_id);
    let fee = match message.fee {
        Some(Fee::FeerateSatVb(rate)) => FeeRule::rate(&mut fields, "feerate_sat_vb", rate),
        Some(Fee::ConfirmTargetBlocks(blocks)) => FeeRule::target(&mut fields, blocks),
        None => Some(FeeRule::DEFAULT),
    };
    let max_fee = MaxFee::parse(&mut fields, message.max_fee_sat);
    let (request, ((key, fee), max_fee)) = fields.finish(request.zip(key.zip(fee).zip(max_fee)))?;
    Ok((request, Wanted { key, fee, max_fee }))
}

/// The replacement on the state as it is now.
pub(super) fn draft(api: &Api, wanted: &Wanted, purpose: Purpose) -> Result<Draft, Status> {
    api.demand_synced_chain()?;
    let feerate_sat_kvb = wanted.fee.sat_kvb(api)?;
    let planned = api.replica.read(|state| replacement::plan(state, &wanted.key, feerate_sat_kvb, purpose));
    let Plan { previous, more, fee_sat } = planned.map_err(|rejection| status::rejected(&rejection))?;
    wanted.max_fee.check(fee_sat)?;
    let replace = Replace { key: wanted.key.clone(), previous, more, fee_sat };
    Ok(Draft::of(match purpose {
        Purpose::Bump => Command::BumpFee(replace),
        Purpose::Cancel => Command::CancelPayment(replace),
    }))
}
