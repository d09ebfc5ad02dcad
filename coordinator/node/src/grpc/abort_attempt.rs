//! AbortAttempt: an external signer proves that it has fenced an attempt, which frees the attempt's coins (safety 6).

use std::sync::Arc;

use onespend_core::command::{AbortAttempt, Command};
use onespend_core::ids::{AttemptNo, RequestId};
use onespend_proto::v1;
use tonic::Status;

use super::api::{Api, Call};
use super::fields::Fields;
use super::sign_payment;

/// Bytes of a BIP-340 signature.
const PROOF_BYTES: usize = 64;

pub(super) async fn abort_attempt(
    api: Arc<Api>,
    call: Call,
    message: v1::AbortAttemptRequest,
) -> Result<v1::AbortAttemptResponse, Status> {
    let (request, abort) = parse(&message)?;
    let key = abort.key.clone();
    let applied = api.decide_plain(&call, call.request(request), Command::AbortAttempt(abort)).await?;
    let payment = Some(sign_payment::show(&api, &key)?);
    Ok(v1::AbortAttemptResponse { payment, applied_index: applied.index.0, term: applied.term })
}

pub(super) fn parse(message: &v1::AbortAttemptRequest) -> Result<(RequestId, AbortAttempt), Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    let key = fields.payment_key(&message.wallet_id, &message.payment_id);
    if message.attempt_number == 0 {
        fields.fault("attempt_number", "attempts are counted from 1");
    }
    if message.proof.len() != PROOF_BYTES {
        fields.fault("proof", format!("{} bytes: a BIP-340 signature has {PROOF_BYTES}", message.proof.len()));
    }
    let (request, key) = fields.finish(request.zip(key))?;
    let (attempt, proof) = (AttemptNo(message.attempt_number), message.proof.to_vec());
    Ok((request, AbortAttempt { key, attempt, proof }))
}
