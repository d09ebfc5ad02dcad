//! GetPayment: "was it paid?" is answered from a linearizable read or not at all (safety 26).

use onespend_core::ids::PaymentKey;
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
    let mut fields = Fields::default();
    let wallet = fields.wallet_id(&message.wallet_id);
    let payment = fields.payment_id(&message.payment_id);
    let (wallet, payment) = fields.finish(wallet.zip(payment))?;
    let key = PaymentKey { wallet, payment };
    let payment = api.replica.read(|state| {
        state.wallet(&key.wallet).map_err(|rejection| status::rejected(&rejection))?;
        Ok::<_, Status>(state.payment(&key).map(|payment| payment_view::payment_with_permits(state, &key, payment)))
    })?;
    let payment = payment.ok_or_else(status::payment_unknown)?;
    Ok(v1::GetPaymentResponse { payment: Some(payment), read_info: Some(info) })
}
