//! One try of one call: the request, the answer, and what of both goes into the history.

use std::net::SocketAddr;

use anyhow::Result;
use bitcoin::hex::DisplayHex;
use onespend_proto::client::Rejection;
use onespend_proto::v1::payment_service_client::PaymentServiceClient;
use onespend_proto::v1::reservation_service_client::ReservationServiceClient;
use onespend_proto::v1::wallet_service_client::WalletServiceClient;
use onespend_proto::v1::{
    BumpFeeRequest, CancelPaymentRequest, CreatePaymentRequest, GetPaymentRequest, NewAddressRequest, Outpoint,
    Payment, Recipient, ReleaseReservationRequest, RenewReservationRequest, Reservation, ReserveUtxosRequest,
    SignPsbtRequest, Utxo, renew_reservation_request, reserve_utxos_request,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::cluster::Credentials;
use crate::grpc::{self, Meaning};
use crate::history::{Answer, Asked, AttemptSeen, PaymentSeen, Position};
use crate::oracle::answers::OUT_OF_TIME;

/// One way to the service.
#[derive(Clone, Debug)]
pub struct Door {
    /// What the history calls it.
    pub name: String,
    reservations: ReservationServiceClient<Channel>,
    payments: PaymentServiceClient<Channel>,
    wallets: WalletServiceClient<Channel>,
}

impl Door {
    /// Connects when it is first used. Needs a runtime around it.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub fn new(name: &str, address: SocketAddr, credentials: &Credentials) -> Result<Self> {
        let channel = grpc::channel(address, credentials)?;
        Ok(Self {
            name: name.to_owned(),
            reservations: ReservationServiceClient::new(channel.clone()),
            payments: PaymentServiceClient::new(channel.clone()),
            wallets: WalletServiceClient::new(channel),
        })
    }
}

/// A request, whole: a retry sends the same bytes.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Coins.
    Reserve(ReserveUtxosRequest),
    /// More time.
    Renew(RenewReservationRequest),
    /// Coins back.
    Release(ReleaseReservationRequest),
    /// A change address.
    Address(NewAddressRequest),
    /// A payment.
    Pay(CreatePaymentRequest),
    /// A signature.
    Sign(SignPsbtRequest),
    /// More fees for a payment.
    Bump(BumpFeeRequest),
    /// A payment back.
    Cancel(CancelPaymentRequest),
    /// How far a payment is.
    Look(GetPaymentRequest),
}

/// A good answer.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A reservation.
    Granted(Reservation, Position),
    /// Renewed or released.
    Done(Position),
    /// A script of the wallet.
    Address(Vec<u8>, Position),
    /// A payment that was ordered.
    Paid(Payment, Position),
    /// A payment with a further attempt, and the number of that.
    Replaced(Payment, u32, Position),
    /// A payment that was looked at.
    Seen(Payment),
}

impl Ask {
    /// The id that the caller gave it.
    pub fn request_id(&self) -> &str {
        match self {
            Self::Reserve(request) => &request.request_id,
            Self::Renew(request) => &request.request_id,
            Self::Release(request) => &request.request_id,
            Self::Address(request) => &request.request_id,
            Self::Pay(request) => &request.request_id,
            Self::Sign(request) => &request.request_id,
            Self::Bump(request) => &request.request_id,
            Self::Cancel(request) => &request.request_id,
            Self::Look(_) => "",
        }
    }

    /// For the history.
    pub fn asked(&self) -> Asked {
        match self {
            Self::Reserve(request) => Asked::Reserve {
                outpoints: match &request.what {
                    Some(reserve_utxos_request::What::Outpoints(list)) => list.outpoints.iter().map(named).collect(),
                    Some(reserve_utxos_request::What::Selection(_)) | None => Vec::new(),
                },
                ttl_ms: match &request.expiration {
                    Some(reserve_utxos_request::Expiration::Ttl(ttl)) => Some(millis(ttl)),
                    Some(reserve_utxos_request::Expiration::ExpireTime(_)) | None => None,
                },
            },
            Self::Renew(request) => Asked::Renew {
                reservation_id: request.reservation_id.clone(),
                fence: request.fence,
                ttl_ms: match &request.expiration {
                    Some(renew_reservation_request::Expiration::Ttl(ttl)) => Some(millis(ttl)),
                    Some(renew_reservation_request::Expiration::ExpireTime(_)) | None => None,
                },
            },
            Self::Release(request) => {
                Asked::Release { reservation_id: request.reservation_id.clone(), fence: request.fence }
            }
            Self::Address(_) => Asked::Address,
            Self::Pay(request) => {
                Asked::Pay { payment_id: request.payment_id.clone(), amount_sat: sum(&request.recipients) }
            }
            Self::Sign(request) => Asked::Sign {
                payment_id: request.payment_id.clone(),
                amount_sat: sum(&request.recipients),
                reservation_id: request.reservation_id.clone(),
                fence: request.fence,
            },
            Self::Bump(request) => Asked::Bump { payment_id: request.payment_id.clone() },
            Self::Cancel(request) => Asked::Cancel { payment_id: request.payment_id.clone() },
            Self::Look(request) => Asked::Look { payment_id: request.payment_id.clone() },
        }
    }

    /// Sends it through a door, once.
    ///
    /// # Errors
    /// What the service or the way to it said.
    pub async fn send(self, door: Door) -> Result<Reply, Status> {
        let at = |index, term| Position { index, term };
        let Door { mut reservations, mut payments, mut wallets, .. } = door;
        Ok(match self {
            Self::Reserve(request) => {
                let answer = reservations.reserve_utxos(request).await?.into_inner();
                Reply::Granted(answer.reservation.unwrap_or_default(), at(answer.applied_index, answer.term))
            }
            Self::Renew(request) => {
                let answer = reservations.renew_reservation(request).await?.into_inner();
                Reply::Done(at(answer.applied_index, answer.term))
            }
            Self::Release(request) => {
                let answer = reservations.release_reservation(request).await?.into_inner();
                Reply::Done(at(answer.applied_index, answer.term))
            }
            Self::Address(request) => {
                let answer = wallets.new_address(request).await?.into_inner();
                Reply::Address(answer.script.to_vec(), at(answer.applied_index, answer.term))
            }
            Self::Pay(request) => {
                let answer = payments.create_payment(request).await?.into_inner();
                Reply::Paid(answer.payment.unwrap_or_default(), at(answer.applied_index, answer.term))
            }
            Self::Sign(request) => {
                let answer = payments.sign_psbt(request).await?.into_inner();
                Reply::Paid(answer.payment.unwrap_or_default(), at(answer.applied_index, answer.term))
            }
            Self::Bump(request) => {
                let answer = payments.bump_fee(request).await?.into_inner();
                let position = at(answer.applied_index, answer.term);
                Reply::Replaced(answer.payment.unwrap_or_default(), answer.attempt_number, position)
            }
            Self::Cancel(request) => {
                let answer = payments.cancel_payment(request).await?.into_inner();
                let position = at(answer.applied_index, answer.term);
                Reply::Replaced(answer.payment.unwrap_or_default(), answer.attempt_number, position)
            }
            Self::Look(request) => {
                Reply::Seen(payments.get_payment(request).await?.into_inner().payment.unwrap_or_default())
            }
        })
    }
}

/// For the history.
pub fn answer(reply: &Result<Reply, Status>) -> Answer {
    match reply {
        Ok(Reply::Granted(reservation, at)) => Answer::Granted {
            reservation_id: reservation.reservation_id.clone(),
            fence: reservation.fence,
            outpoints: reservation.utxos.iter().filter_map(|utxo| utxo.outpoint.as_ref()).map(named).collect(),
            at: *at,
        },
        Ok(Reply::Done(at)) => Answer::Done { at: *at },
        Ok(Reply::Address(script, at)) => Answer::Address { script: script.to_lower_hex_string(), at: *at },
        Ok(Reply::Paid(payment, at)) => Answer::Paid { payment: payment_seen(payment), at: *at },
        Ok(Reply::Replaced(payment, attempt, at)) => {
            Answer::Replaced { payment: payment_seen(payment), attempt: *attempt, at: *at }
        }
        Ok(Reply::Seen(payment)) => Answer::Seen { payment: payment_seen(payment) },
        Err(status) => refusal(status),
    }
}

fn refusal(status: &Status) -> Answer {
    let (code, message) = (format!("{:?}", status.code()), status.message().to_owned());
    // A request that the client's own side would not send (its connection is busy dying) never left.
    if grpc::meaning(status) == Meaning::Unknown {
        return Answer::Unknown { code, message };
    }
    let Rejection { reason, metadata, .. } = Rejection::from_status(status);
    let named = metadata.get("outpoints").filter(|_| reason == "OUTPOINT_RESERVED");
    let conflicts = named.map(|coins| coins.split(',').map(str::to_owned).collect());
    Answer::Refused { code, reason, message, conflicts: conflicts.unwrap_or_default() }
}

/// Whether a refusal says nothing of the request itself.
pub fn is_transient(status: &Status) -> bool {
    let reason = Rejection::from_status(status).reason;
    ["NOT_LEADER", "CHAIN_NOT_SYNCED", "OVERLOADED", "STORAGE_LOW", "ALARM"].contains(&reason.as_str())
        || (status.code() == Code::ResourceExhausted && reason.is_empty())
}

/// Whether a request was refused for the time that it names.
pub fn is_out_of_time(ask: &Ask, status: &Status) -> bool {
    ask.asked().names_a_time() && Rejection::from_status(status).reason == OUT_OF_TIME
}

/// A payment as the history keeps it.
pub fn payment_seen(payment: &Payment) -> PaymentSeen {
    let attempts = payment.attempts.iter().map(|attempt| AttemptSeen {
        number: attempt.number,
        fence: attempt.fence,
        txid: attempt.txid.clone(),
        state: bare(attempt.state().as_str_name(), "ATTEMPT_STATE_"),
        purpose: bare(attempt.purpose().as_str_name(), "ATTEMPT_PURPOSE_"),
        inputs: attempt.inputs.iter().map(named).collect(),
    });
    PaymentSeen {
        payment_id: payment.payment_id.clone(),
        state: bare(payment.state().as_str_name(), "PAYMENT_STATE_"),
        amount_sat: payment.amount_sat,
        attempts: attempts.collect(),
    }
}

fn bare(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

/// `txid:vout`.
pub fn named(outpoint: &Outpoint) -> String {
    format!("{}:{}", outpoint.txid, outpoint.vout)
}

/// The outpoints of coins.
pub fn outpoints(coins: &[Utxo]) -> Vec<Outpoint> {
    coins.iter().filter_map(|coin| coin.outpoint.clone()).collect()
}

fn sum(recipients: &[Recipient]) -> i64 {
    recipients.iter().map(|recipient| recipient.amount_sat).sum()
}

fn millis(duration: &prost_types::Duration) -> u64 {
    let whole = u64::try_from(duration.seconds).unwrap_or(0).saturating_mul(1_000);
    whole.saturating_add(u64::try_from(duration.nanos / 1_000_000).unwrap_or(0))
}
