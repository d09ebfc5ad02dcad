//! What one more caller asks for at the very end: two payments before the deep reorganisation, and after it everything that
//! would grant a coin or make something to be signed, each of which has to be refused for the right reason.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bitcoin::hashes::Hash;
use bitcoin::{Amount, ScriptBuf, WPubkeyHash};
use onespend_proto::client::Rejection;
use onespend_proto::reason::{PAYMENT_UNRESOLVED, WALLET_FROZEN};
use onespend_proto::v1::recipient::Destination;
use onespend_proto::v1::{
    BumpFeeRequest, CancelPaymentRequest, CreatePaymentRequest, GetPaymentRequest, Recipient, bump_fee_request,
    cancel_payment_request, create_payment_request,
};
use tokio::runtime::Runtime;
use tonic::Status;

use super::calls::{self, Ask, Door, Reply};
use super::recovery;
use crate::cluster::Cluster;
use crate::grpc;
use crate::history::PaymentSeen;
use crate::hot::WALLET;
use crate::oracle::chain::Orders;

/// How long a cluster without faults may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// And to settle a payment, at a block a second.
const SETTLE_PATIENCE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);
/// As callers order: above every dust limit, below what one coin can pay.
const AMOUNT: Amount = Amount::from_sat(20_000);
const FEERATE_SAT_VB: f64 = 2.0;
/// A replacement with less would be refused for that.
const MORE_SAT_VB: f64 = 20.0;

/// A payment of its own. Nobody else has the recipient's script.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    payment_id: &'static str,
    recipient: [u8; 20],
}

/// Settled before the reorganisation, and undone by it: from then on it gets no further attempt, frozen or not.
pub const SETTLED: Order = Order { payment_id: "finale-settled", recipient: [0x5c; 20] };
/// In mempools before and after, and in no block: but for the freeze it could be replaced.
pub const OPEN: Order = Order { payment_id: "finale-open", recipient: [0x5d; 20] };
/// Ordered when the wallet is frozen.
const LATE: Order = Order { payment_id: "finale-late", recipient: [0x5e; 20] };

impl Order {
    fn script(&self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(self.recipient))
    }

    fn pay(&self, request_id: String) -> Ask {
        let destination = Some(Destination::Script(self.script().to_bytes().into()));
        Ask::Pay(CreatePaymentRequest {
            request_id,
            wallet_id: WALLET.to_owned(),
            payment_id: self.payment_id.to_owned(),
            recipients: vec![Recipient { destination, amount_sat: AMOUNT.to_sat().cast_signed() }],
            fee: Some(create_payment_request::Fee::FeerateSatVb(FEERATE_SAT_VB)),
            ..CreatePaymentRequest::default()
        })
    }

    fn bump(&self, request_id: String) -> Ask {
        Ask::Bump(BumpFeeRequest {
            request_id,
            wallet_id: WALLET.to_owned(),
            payment_id: self.payment_id.to_owned(),
            fee: Some(bump_fee_request::Fee::FeerateSatVb(MORE_SAT_VB)),
            ..BumpFeeRequest::default()
        })
    }

    fn cancel(&self, request_id: String) -> Ask {
        Ask::Cancel(CancelPaymentRequest {
            request_id,
            wallet_id: WALLET.to_owned(),
            payment_id: self.payment_id.to_owned(),
            fee: Some(cancel_payment_request::Fee::FeerateSatVb(MORE_SAT_VB)),
            ..CancelPaymentRequest::default()
        })
    }
}

/// A caller who is still there when those of the run have ended. Nobody may replace what another one ordered, so it has
/// payments of its own.
#[derive(Debug)]
pub struct LastCaller<'a> {
    door: Door,
    runtime: &'a Runtime,
}

impl<'a> LastCaller<'a> {
    /// One that calls through the load balancer.
    ///
    /// # Errors
    /// Its certificate cannot be read.
    pub fn of(cluster: &Cluster, runtime: &'a Runtime) -> Result<Self> {
        let _inside = runtime.enter();
        let door = Door::new("haproxy", cluster.primary_address(), cluster.client())?;
        Ok(Self { door, runtime })
    }

    /// Orders a payment, also for the judge of the chain, and returns it as it was answered.
    ///
    /// # Errors
    /// It is refused, or there is no answer for long.
    pub fn pay(&self, order: &Order, orders: &mut Orders) -> Result<PaymentSeen> {
        orders.add(order.script(), order.payment_id, AMOUNT)?;
        let deadline = Instant::now() + PATIENCE;
        let call = |request_id: String| Box::pin(order.pay(request_id).send(self.door.clone()));
        let answered = self.runtime.block_on(grpc::until_answered(deadline, call));
        match answered.with_context(|| format!("{} was not ordered", order.payment_id))?.answer {
            Reply::Paid(payment, _) => Ok(calls::payment_seen(&payment)),
            other => bail!("{} was ordered, and the answer is {other:?}", order.payment_id),
        }
    }

    /// Waits until a payment is settled, and returns it.
    ///
    /// # Errors
    /// It is not for long.
    pub fn await_settled(&self, order: &Order) -> Result<PaymentSeen> {
        let deadline = Instant::now() + SETTLE_PATIENCE;
        loop {
            let payment_id = order.payment_id.to_owned();
            let seen = self.send(Ask::Look(GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id }));
            if let Ok(Reply::Seen(payment)) = &seen {
                let payment = calls::payment_seen(payment);
                if payment.state == "SETTLED" {
                    return Ok(payment);
                }
            }
            ensure!(Instant::now() < deadline, "{} does not settle: {seen:?}", order.payment_id);
            thread::sleep(POLL);
        }
    }

    /// Asks for everything that a frozen wallet has to refuse; says what is granted all the same, or refused for another
    /// reason.
    pub fn ask_in_vain(&self) -> Vec<String> {
        let asked = [
            self.in_vain("reserve", WALLET_FROZEN, |id| Ask::Reserve(recovery::reservation(id))),
            self.in_vain("pay", WALLET_FROZEN, |id| LATE.pay(id)),
            self.in_vain("bump-open", WALLET_FROZEN, |id| OPEN.bump(id)),
            self.in_vain("cancel-open", WALLET_FROZEN, |id| OPEN.cancel(id)),
            self.in_vain("bump-settled", PAYMENT_UNRESOLVED, |id| SETTLED.bump(id)),
            self.in_vain("cancel-settled", PAYMENT_UNRESOLVED, |id| SETTLED.cancel(id)),
        ];
        asked.into_iter().flatten().collect()
    }

    fn in_vain(&self, name: &str, reason: &str, ask: impl Fn(String) -> Ask) -> Option<String> {
        unrefused(name, reason, PATIENCE, |request_id| self.send(ask(request_id)))
    }

    fn send(&self, ask: Ask) -> Result<Reply, Status> {
        self.runtime.block_on(grpc::bounded(Box::pin(ask.send(self.door.clone()))))
    }
}

/// Asks until it is refused for this reason, each time under a new id; what came instead if it is not.
fn unrefused(
    name: &str,
    reason: &str,
    patience: Duration,
    mut ask: impl FnMut(String) -> Result<Reply, Status>,
) -> Option<String> {
    let deadline = Instant::now() + patience;
    let mut tries = 0_u32;
    loop {
        let Err(status) = ask(format!("frozen-{name}-{tries}")) else {
            return Some(format!("{name} was granted, though the wallet is frozen"));
        };
        if Rejection::from_status(&status).reason == reason {
            return None;
        }
        if Instant::now() >= deadline {
            let (code, message) = (status.code(), status.message());
            return Some(format!("{name} is not refused as {reason}, though the wallet is frozen: {code:?} {message}"));
        }
        tries += 1;
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Position;
    use onespend_proto::reason;
    use std::collections::HashMap;
    use tonic::Code;
    use tonic_types::{ErrorDetails, StatusExt};

    fn refused_as(told: &str) -> Status {
        let details = ErrorDetails::with_error_info(told, reason::DOMAIN, HashMap::<String, String>::new());
        Status::with_error_details(Code::FailedPrecondition, "told so", details)
    }

    #[test]
    fn what_is_granted_or_refused_for_another_reason_is_said() {
        let judge = |answer: Result<Reply, Status>| {
            unrefused("pay", WALLET_FROZEN, Duration::ZERO, |_| answer.clone()).unwrap_or_default()
        };
        assert_eq!(judge(Err(refused_as(WALLET_FROZEN))), "");
        assert!(judge(Ok(Reply::Done(Position::default()))).starts_with("pay was granted"));
        for other in [refused_as(PAYMENT_UNRESOLVED), Status::unavailable("nobody")] {
            assert!(judge(Err(other)).starts_with("pay is not refused as WALLET_FROZEN"));
        }
    }

    #[test]
    fn what_is_not_decided_is_asked_again_under_another_id() {
        let mut ids = Vec::new();
        let found = unrefused("pay", WALLET_FROZEN, PATIENCE, |id| {
            ids.push(id);
            Err(if ids.len() < 3 { Status::unavailable("nobody") } else { refused_as(WALLET_FROZEN) })
        });
        assert_eq!((found, ids.as_slice()), (None, ["0", "1", "2"].map(|n| format!("frozen-pay-{n}")).as_slice()));
    }
}
