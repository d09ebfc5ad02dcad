//! What a leader does whose guards are taken away: only with the cargo feature `sabotage`, for the harness, which must
//! notice each of them.

use std::sync::{Arc, OnceLock};

use onespend_adapters::sabotage::Guard;
use onespend_core::apply::apply;
use onespend_core::command::{Command, Entry, Request};
use onespend_core::ids::{LogIndex, RequestId};
use onespend_core::outcome::Outcome;
use onespend_core::signing::SigningPermit;
use onespend_core::wallet::SignerRef;

use crate::leader::sign::Signing;
use crate::replica::Replica;

/// Without the request cache a retry is a request that nobody has seen.
pub(crate) fn forget(signing: &Arc<Signing>, request: Request) -> Request {
    SIGNING.get_or_init(|| Arc::clone(signing));
    if !Guard::RequestCache.is_off() {
        return request;
    }
    let mut unseen = request;
    if let Ok(id) = RequestId::parse(&uuid::Uuid::new_v4().to_string()) {
        unseen.key.request = id;
    }
    unseen
}

/// The way to this node's signers, known from the first request on.
static SIGNING: OnceLock<Arc<Signing>> = OnceLock::new();

/// Without the guard of the intent the signer is called for what the log has yet to decide: this node makes a permit of
/// what it expects to come of the command.
pub(crate) async fn sign_early(replica: &Replica, request: &Request, command: &Command) {
    let Some(signing) = SIGNING.get() else { return };
    let asks_for_signature = matches!(command, Command::CreatePayment(_) | Command::PayReserved(_));
    if !Guard::IntentBeforeSignature.is_off() || !asks_for_signature {
        return;
    }
    let at = replica.now();
    let entry = Entry { at, wall_ms: 0, request: Some(request.clone()), command: command.clone() };
    let mut expected = replica.read(Clone::clone);
    let next = LogIndex(replica.status().last_log.unwrap_or(0).saturating_add(1));
    let Outcome::Permitted { payment, attempt } = apply(&mut expected, next, &entry) else { return };
    if let Some(permit) = SigningPermit::for_attempt(&expected, &payment, attempt)
        && let SignerRef::Named(name) = permit.signer().clone()
    {
        // Whatever comes of it: the signature is in the world before the intent is in the log.
        let _ = signing.call(&name, || Some(permit)).await;
    }
}
