//! `onespend reserve`: time-limited, exclusive claims on coins.

use std::time::Duration;

use clap::{Args, Subcommand};
use onespend_proto::client::Client;
use onespend_proto::v1::{self, ReservationState};

use super::answer::{Changed, Limit, Pages};
use super::failure::Failure;
use super::session::{Freshness, Repeat, Session, mutation, present};
use super::view::reservation::{Reservation, Reservations, Update};
use super::{values, words};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Claim the coins that are named, all or none
    Coins {
        /// The coins, each as txid:vout
        #[arg(required = true, value_name = "OUTPOINT", value_parser = values::outpoint)]
        outpoints: Vec<v1::Outpoint>,
        #[command(flatten)]
        claim: Claim,
    },
    /// Claim coins that are worth an amount after the fee for spending them
    Amount {
        /// The amount, in satoshi
        #[arg(long, value_name = "SAT", value_parser = values::amount_sat)]
        sat: i64,
        /// Feerate that the spending is planned with, in satoshi per virtual byte
        #[arg(long, value_name = "SAT/VB", value_parser = values::feerate_sat_vb)]
        feerate: f64,
        /// Least confirmations of the coins
        #[arg(long, value_name = "N", default_value_t = 1)]
        min_depth: u32,
        /// How to choose coins [default: lowest_fee]
        #[arg(long, value_parser = words::parser::<v1::SelectionStrategy>())]
        strategy: Option<v1::SelectionStrategy>,
        #[command(flatten)]
        claim: Claim,
    },
    /// Move the end of a reservation
    Renew {
        #[command(flatten)]
        grant: Grant,
        /// How long from now on, within 24 h of the grant [default: 10m]
        #[arg(long, value_name = "TIME", value_parser = values::duration)]
        ttl: Option<Duration>,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// Give coins back
    Release {
        #[command(flatten)]
        grant: Grant,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// Show one reservation
    Show {
        /// The reservation, such as r-1234
        reservation: String,
        #[command(flatten)]
        freshness: Freshness,
    },
    /// List reservations in order of their fences
    List(List),
    /// Print reservations as they are granted, renewed and end, each with the index to resume from; ends when
    /// --reservation has ended
    Watch(Watch),
}

#[derive(Debug, Args)]
pub struct Claim {
    /// The wallet
    #[arg(long, value_name = "WALLET", value_parser = values::wallet_id)]
    wallet: String,
    /// How long the claim holds, 1s to 24h [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    ttl: Option<Duration>,
    /// The payment that the coins are for; no other may spend them
    #[arg(long, value_name = "ID", value_parser = values::payment_id)]
    payment_id: Option<String>,
    #[command(flatten)]
    repeat: Repeat,
}

#[derive(Debug, Args)]
pub struct Grant {
    /// The reservation, such as r-1234
    reservation: String,
    /// Its fence [default: asked from the service]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    fence: Option<u64>,
}

#[derive(Debug, Args)]
pub struct Watch {
    /// Only of this wallet; reservations that ended are told whatever is named here
    #[arg(long, value_name = "WALLET", value_parser = values::wallet_id)]
    wallet: Option<String>,
    /// Only this reservation, such as r-1234
    #[arg(long, value_name = "ID")]
    reservation: Option<String>,
    /// Only changes after this log index
    #[arg(long, value_name = "N", default_value_t = 0)]
    from_index: u64,
}

#[derive(Debug, Args)]
pub struct List {
    /// Only of this wallet
    #[arg(long, value_name = "WALLET", value_parser = values::wallet_id)]
    wallet: Option<String>,
    /// Only of this owner, such as client/payouts
    #[arg(long)]
    owner: Option<String>,
    /// Only for this payment
    #[arg(long, value_name = "ID")]
    payment_id: Option<String>,
    /// Only in this state; may be repeated [default: active]
    #[arg(long = "state", value_name = "STATE", value_parser = words::parser::<ReservationState>())]
    states: Vec<ReservationState>,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    freshness: Freshness,
}

impl Command {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        use v1::reserve_utxos_request::What;
        let client = session.data()?;
        match self {
            Self::Coins { outpoints, claim } => {
                claim.run(What::Outpoints(v1::OutpointList { outpoints }), &client, session).await
            }
            Self::Amount { sat, feerate, min_depth, strategy, claim } => {
                let strategy = strategy.unwrap_or_default().into();
                let selection = v1::Selection { target_sat: sat, feerate_sat_vb: feerate, min_depth, strategy };
                claim.run(What::Selection(selection), &client, session).await
            }
            Self::Renew { grant, ttl, repeat } => renew(grant, ttl, repeat.id(), &client, session).await,
            Self::Release { grant, repeat } => release(grant, repeat.id(), &client, session).await,
            Self::Show { reservation, freshness } => {
                session.output.show(&Reservation::from(read(&client, &reservation, Some(&freshness)).await?))
            }
            Self::List(list) => list.run(&client, session).await,
            Self::Watch(watch) => watch.run(&client, session).await,
        }
    }
}

impl Claim {
    async fn run(
        self,
        what: v1::reserve_utxos_request::What,
        client: &Client,
        session: &Session,
    ) -> Result<(), Failure> {
        let id = self.repeat.id();
        let request = v1::ReserveUtxosRequest {
            request_id: id.clone(),
            wallet_id: self.wallet,
            what: Some(what),
            expiration: self.ttl.map(wire).transpose()?.map(v1::reserve_utxos_request::Expiration::Ttl),
            payment_id: self.payment_id.unwrap_or_default(),
        };
        let answer = mutation(&id, client.reserve_utxos(request)).await?;
        show(session, answer.reservation, (answer.applied_index, answer.term), id)
    }
}

fn wire(ttl: Duration) -> Result<prost_types::Duration, Failure> {
    ttl.try_into().map_err(|_| Failure::usage("--ttl is far too long"))
}

fn show(
    session: &Session,
    reservation: Option<v1::Reservation>,
    (applied_index, term): (u64, u64),
    request_id: String,
) -> Result<(), Failure> {
    let resource = Reservation::from(present(reservation)?);
    session.output.show(&Changed { resource, applied_index, term, request_id })
}

/// A command that has no option for it gives no freshness.
async fn read(client: &Client, id: &str, freshness: Option<&Freshness>) -> Result<v1::Reservation, Failure> {
    let consistency = freshness.and_then(Freshness::consistency);
    let request = v1::GetReservationRequest { reservation_id: id.to_owned(), consistency };
    let failure = if freshness.is_some() { Failure::of_lagged_read } else { Failure::of_read };
    present(client.get_reservation(request).await.map_err(failure)?.reservation)
}

impl Grant {
    /// The fence. An id is never used for another grant, so the fence that belongs to it may as well be asked for.
    async fn fence(&self, client: &Client) -> Result<u64, Failure> {
        match self.fence {
            Some(fence) => Ok(fence),
            None => Ok(read(client, &self.reservation, None).await?.fence),
        }
    }
}

async fn renew(
    grant: Grant,
    ttl: Option<Duration>,
    id: String,
    client: &Client,
    session: &Session,
) -> Result<(), Failure> {
    let request = v1::RenewReservationRequest {
        request_id: id.clone(),
        fence: grant.fence(client).await?,
        reservation_id: grant.reservation,
        expiration: ttl.map(wire).transpose()?.map(v1::renew_reservation_request::Expiration::Ttl),
    };
    let answer = mutation(&id, client.renew_reservation(request)).await?;
    show(session, answer.reservation, (answer.applied_index, answer.term), id)
}

async fn release(grant: Grant, id: String, client: &Client, session: &Session) -> Result<(), Failure> {
    let fence = grant.fence(client).await?;
    let request = v1::ReleaseReservationRequest { request_id: id.clone(), fence, reservation_id: grant.reservation };
    let answer = mutation(&id, client.release_reservation(request)).await?;
    show(session, answer.reservation, (answer.applied_index, answer.term), id)
}

impl List {
    async fn run(self, client: &Client, session: &Session) -> Result<(), Failure> {
        let mut pages = Pages::new(&self.limit);
        loop {
            let (page_size, page_token) = pages.next();
            let request = v1::ListReservationsRequest {
                wallet_id: self.wallet.clone().unwrap_or_default(),
                owner: self.owner.clone().unwrap_or_default(),
                payment_id: self.payment_id.clone().unwrap_or_default(),
                states: self.states.iter().map(|state| *state as i32).collect(),
                page_size,
                page_token,
                consistency: self.freshness.consistency(),
            };
            let answer = client.list_reservations(request).await.map_err(Failure::of_lagged_read)?;
            if pages.take(answer.reservations, answer.next_page_token) {
                return session.output.show(&Reservations::new(pages.finish()));
            }
        }
    }
}

impl Watch {
    async fn run(self, client: &Client, session: &Session) -> Result<(), Failure> {
        let one = self.reservation.is_some();
        let mut watch = client.watch_reservations(v1::WatchReservationsRequest {
            wallet_id: self.wallet.unwrap_or_default(),
            reservation_id: self.reservation.unwrap_or_default(),
            from_index: self.from_index,
        });
        loop {
            let message = watch.next().await.map_err(Failure::of_read)?;
            let Some(reservation) = message.reservation else { continue };
            let has_ended = reservation.state() != ReservationState::Active;
            session.output.show_line(&Update::new(reservation, message.applied_index))?;
            if one && has_ended {
                return Ok(());
            }
        }
    }
}
