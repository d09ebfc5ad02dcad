//! The callers: each takes the next order, pays it through HAProxy, and asks again until it has an answer.

use std::collections::VecDeque;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use onespend_proto::v1::create_payment_request::Fee;
use onespend_proto::v1::payment_service_client::PaymentServiceClient;
use onespend_proto::v1::recipient::Destination;
use onespend_proto::v1::{CreatePaymentRequest, PaymentState, Recipient};
use tonic::transport::Channel;

use super::orders::Order;
use crate::grpc::until_answered;
use crate::hot::WALLET;

/// For one payment, failover included.
const PATIENCE: Duration = Duration::from_mins(1);
/// Regtest has no fee market to estimate from.
const FEERATE_SAT_VB: f64 = 2.0;

/// What a caller has to tell.
#[derive(Debug)]
pub enum Event {
    /// A payment was acknowledged.
    Acknowledged {
        /// The Raft term of the entry behind it.
        term: u64,
        /// When.
        at: Instant,
        /// From the first try to the answer.
        took: Duration,
        /// The outcome was unknown for a while, and the same request id resolved it.
        was_unknown: bool,
    },
    /// A payment was refused, or got no answer in time.
    Failed(anyhow::Error),
}

/// Orders that nobody has taken yet.
pub type Queue = Arc<Mutex<VecDeque<Order>>>;

/// One caller on its own connection; ends when there are no more orders.
pub async fn work(channel: Channel, queue: Queue, events: Sender<Event>) {
    let client = PaymentServiceClient::new(channel);
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(order) = next else { return };
        let paid = pay(&client, &order).await;
        let event = paid.with_context(|| order.payment_id.clone()).unwrap_or_else(Event::Failed);
        if events.send(event).is_err() {
            return; // the demo is over
        }
    }
}

async fn pay(client: &PaymentServiceClient<Channel>, order: &Order) -> Result<Event> {
    let started = Instant::now();
    let amount_sat = i64::try_from(order.amount.to_sat())?;
    let answered = until_answered(started + PATIENCE, |request_id| {
        let request = CreatePaymentRequest {
            request_id,
            wallet_id: WALLET.to_owned(),
            payment_id: order.payment_id.clone(),
            recipients: vec![Recipient { amount_sat, destination: Some(Destination::Address(order.address.clone())) }],
            fee: Some(Fee::FeerateSatVb(FEERATE_SAT_VB)),
            ..CreatePaymentRequest::default()
        };
        let mut client = client.clone();
        async move { client.create_payment(request).await }
    })
    .await?;
    let answer = answered.answer.into_inner();
    let payment = answer.payment.context("an answer without a payment")?;
    anyhow::ensure!(payment.payment_id == order.payment_id, "the answer is for {}", payment.payment_id);
    anyhow::ensure!(payment.state() != PaymentState::Unspecified, "the answer has no state");
    Ok(Event::Acknowledged {
        term: answer.term,
        at: answered.at,
        took: answered.at - started,
        was_unknown: answered.was_unknown,
    })
}
