//! After the intent is committed: the signature, and the payment to show. From here on no answer may sound as if
//! nothing had happened; a signer that fails leaves a payment in `SIGNING`.

use onespend_core::ids::{AttemptNo, PaymentKey};
use onespend_core::outcome::Outcome;
use onespend_core::payment::Payment;
use onespend_core::state::State;
use onespend_proto::v1;
use tonic::Status;

use super::api::{Api, Call};
use super::{payment_view, status};
use crate::raft::Applied;

/// Waits for the signature of the attempt that was permitted, as long as the caller does, and shows the payment.
pub(super) async fn finish(api: &Api, call: &Call, applied: &Applied) -> Result<(v1::Payment, AttemptNo), Status> {
    let Outcome::Permitted { payment: key, attempt } = &applied.outcome else { return Err(status::unexpected()) };
    api.signing.sign(key, *attempt, call.deadline).await;
    Ok((show(api, key)?, *attempt))
}

/// The payment as it stands, with what an external signer needs.
pub(super) fn show(api: &Api, key: &PaymentKey) -> Result<v1::Payment, Status> {
    let show = |state: &State, payment: &Payment| payment_view::payment_with_permits(&api.alarms, state, key, payment);
    let shown = api.replica.read(|state| state.payment(key).map(|payment| show(state, payment)));
    shown.ok_or_else(status::payment_unknown)
}
