//! One caller: reserves its coin, gives it back, and begins again.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use onespend_proto::client::{Client, ClientError};
use onespend_proto::v1::reserve_utxos_request::{Expiration, What};
use onespend_proto::v1::{Outpoint, OutpointList, ReleaseReservationRequest, Reservation, ReserveUtxosRequest};

use super::{Ack, DEADLINE, PATIENCE, Shared};
use crate::chaos::calls::{self, Ask, Door, Reply};
use crate::grpc::{self, Meaning};
use crate::history::{Answer, Call, Position};
use crate::hot::WALLET;

/// Above the time that a caller may take to learn what became of a reservation.
const TTL: prost_types::Duration = prost_types::Duration { seconds: 300, nanos: 0 };
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(100);

/// How one caller asks.
#[derive(Clone)]
pub(super) enum Way {
    /// One try at a time; trying again is up to the caller.
    Door(Box<Door>),
    /// The Rust client tries again by itself.
    Client(Client),
}

/// A failed try.
struct Failure {
    answer: Answer,
    /// Whether the same request has to be sent again: nobody knows what became of it, or it was not its turn.
    again: bool,
    /// Whether it counts as a failed request at once: the client has used up its deadline.
    final_for_client: bool,
}

/// A caller and its coin.
pub(super) struct Caller {
    number: usize,
    via: &'static str,
    way: Way,
    coin: Outpoint,
    shared: Arc<Shared>,
}

impl Caller {
    pub(super) fn new(number: usize, via: &'static str, way: Way, coin: Outpoint, shared: Arc<Shared>) -> Self {
        Self { number, via, way, coin, shared }
    }

    /// Until the load is stopped; what is begun then is finished.
    ///
    /// # Errors
    /// No answer for a minute, or a refusal that a caller with a coin of its own should never see.
    pub(super) async fn work(self) -> Result<()> {
        while !self.shared.stop.load(Ordering::SeqCst) {
            let reply = self.ask(self.reserve()).await?;
            if let Reply::Granted(reservation, _) = reply {
                self.ask(release(reservation)).await?;
            }
        }
        Ok(())
    }

    fn reserve(&self) -> Ask {
        Ask::Reserve(ReserveUtxosRequest {
            request_id: fresh_id(),
            wallet_id: WALLET.to_owned(),
            what: Some(What::Outpoints(OutpointList { outpoints: vec![self.coin.clone()] })),
            expiration: Some(Expiration::Ttl(TTL)),
            ..ReserveUtxosRequest::default()
        })
    }

    /// Asks until there is an answer, always with the same request id.
    async fn ask(&self, ask: Ask) -> Result<Reply> {
        let (began, asked_ns) = (Instant::now(), self.shared.history.now());
        let (mut failed, mut backoff) = (false, FIRST_BACKOFF);
        loop {
            let failure = match self.once(&ask).await {
                Ok(reply) => {
                    self.acknowledge(&reply, asked_ns);
                    return Ok(reply);
                }
                Err(failure) => failure,
            };
            if !failed && (failure.final_for_client || !failure.again || began.elapsed() > DEADLINE) {
                failed = true;
                self.shared.failed.fetch_add(1, Ordering::SeqCst);
            }
            if !failure.again {
                let said = format!("caller {} was refused {:?}: {:?}", self.number, ask.asked(), failure.answer);
                self.shared.refused.lock().unwrap_or_else(PoisonError::into_inner).push(said.clone());
                anyhow::bail!(said);
            }
            ensure!(began.elapsed() < PATIENCE, "no answer to {:?}: {:?}", ask.asked(), failure.answer);
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
        }
    }

    async fn once(&self, ask: &Ask) -> Result<Reply, Failure> {
        let ticket = self.shared.history.open(Call {
            caller: self.number,
            request_id: ask.request_id().to_owned(),
            via: self.via.to_owned(),
            start_ns: 0,
            end_ns: 0,
            asked: ask.asked(),
            must_fail: None,
            answer: Answer::open(),
        });
        let outcome = match &self.way {
            Way::Door(door) => by_door(door, ask).await,
            Way::Client(client) => by_client(client, ask).await,
        };
        let answer = match &outcome {
            Ok(reply) => calls::answer(&Ok(reply.clone())),
            Err(failure) => failure.answer.clone(),
        };
        self.shared.history.close(ticket, answer);
        if outcome.is_err() && matches!(self.way, Way::Door(_)) {
            self.shared.errors.fetch_add(1, Ordering::SeqCst);
        }
        outcome
    }

    fn acknowledge(&self, reply: &Reply, asked_ns: u64) {
        let (Reply::Granted(_, at) | Reply::Done(at)) = reply else { return };
        let ack = Ack { caller: self.number, asked_ns, at_ns: self.shared.history.now(), term: at.term };
        self.shared.acks.lock().unwrap_or_else(PoisonError::into_inner).push(ack);
    }
}

async fn by_door(door: &Door, ask: &Ask) -> Result<Reply, Failure> {
    let sent = grpc::bounded(ask.clone().send(door.clone())).await;
    sent.map_err(|status| Failure {
        again: grpc::meaning(&status) == Meaning::Unknown || calls::is_transient(&status),
        answer: calls::answer(&Err(status)),
        final_for_client: false,
    })
}

async fn by_client(client: &Client, ask: &Ask) -> Result<Reply, Failure> {
    let at = |index, term| Position { index, term };
    let sent = match ask.clone() {
        Ask::Reserve(request) => client.reserve_utxos(request).await.map(|answer| {
            Reply::Granted(answer.reservation.unwrap_or_default(), at(answer.applied_index, answer.term))
        }),
        Ask::Release(request) => {
            client.release_reservation(request).await.map(|answer| Reply::Done(at(answer.applied_index, answer.term)))
        }
        other => Err(ClientError::Config(format!("no caller of a load asks {:?}", other.asked()))),
    };
    sent.map_err(|error| Failure { again: is_open(&error), answer: answer_of(&error), final_for_client: true })
}

/// Whether asking again with the same request id may end otherwise.
fn is_open(error: &ClientError) -> bool {
    match error {
        ClientError::Rejected(rejection) => rejection.retry_after.is_some() || rejection.after_unknown,
        ClientError::Unknown { .. } | ClientError::Unreachable { .. } => true,
        ClientError::Config(_) => false,
    }
}

fn answer_of(error: &ClientError) -> Answer {
    let message = error.to_string();
    match error {
        // An earlier try may be applied all the same.
        ClientError::Rejected(rejection) if !rejection.after_unknown => Answer::Refused {
            code: format!("{:?}", rejection.code),
            reason: rejection.reason.clone(),
            message,
            conflicts: Vec::new(),
        },
        ClientError::Rejected(_)
        | ClientError::Unknown { .. }
        | ClientError::Unreachable { .. }
        | ClientError::Config(_) => Answer::Unknown { code: "Client".to_owned(), message },
    }
}

fn release(reservation: Reservation) -> Ask {
    Ask::Release(ReleaseReservationRequest {
        request_id: fresh_id(),
        reservation_id: reservation.reservation_id,
        fence: reservation.fence,
    })
}

fn fresh_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
