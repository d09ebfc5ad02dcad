//! GetPayment: "was it paid?" is answered from a linearizable read or not at all (safety 26).

use onespend_core::ids::PaymentKey;
use onespend_core::payment::Payment;
use onespend_core::state::State;
use onespend_proto::v1;
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::{payment_view, status};

pub(super) fn get_payment(
    api: &Api,
    info: v1::ReadInfo,
    message: &v1::GetPaymentRequest,
) -> Result<v1::GetPaymentResponse, Status> {
    let key = parse(message)?;
    let show = |state: &State, payment: &Payment| payment_view::payment_with_permits(&api.alarms, state, &key, payment);
    let payment = api.replica.read(|state| {
        state.wallet(&key.wallet).map_err(|rejection| status::rejected(&rejection))?;
        Ok::<_, Status>(state.payment(&key).map(|payment| show(state, payment)))
    })?;
    let payment = payment.ok_or_else(status::payment_unknown)?;
    Ok(v1::GetPaymentResponse { payment: Some(payment), read_info: Some(info) })
}

pub(super) fn parse(message: &v1::GetPaymentRequest) -> Result<PaymentKey, Status> {
    let mut fields = Fields::default();
    let key = fields.payment_key(&message.wallet_id, &message.payment_id);
    fields.finish(key)
}
