//! CancelPayment: a further attempt that gives the coins back (safety 10).

use std::sync::Arc;

use onespend_core::ids::RequestId;
use onespend_proto::v1::{self, cancel_payment_request::Fee};
use tonic::Status;

use super::api::{Api, Call};
use super::bump_fee::{Wanted, draft};
use super::fee_rule::{FeeRule, MaxFee};
use super::fields::Fields;
use super::sign_payment;
use crate::replacement::Purpose;

pub(super) async fn cancel_payment(
    api: Arc<Api>,
    call: Call,
    message: v1::CancelPaymentRequest,
) -> Result<v1::CancelPaymentResponse, Status> {
    let (request, wanted) = parse(&message)?;
    let gather = || std::future::ready(draft(&api, &wanted, Purpose::Cancel));
    let applied = api.decide(&call, call.request(request), gather).await?;
    let (payment, attempt) = sign_payment::finish(&api, &call, &applied).await?;
    Ok(v1::CancelPaymentResponse {
        payment: Some(payment),
        attempt_number: attempt.0,
        applied_index: applied.index.0,
        term: applied.term,
    })
}

pub(super) fn parse(message: &v1::CancelPaymentRequest) -> Result<(RequestId, Wanted), Status> {
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
