//! One caller: performs its operations, asks again what has no answer, and notes every try.

mod expiry;
mod released;
mod replacing;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bitcoin::hashes::Hash;
use bitcoin::{ScriptBuf, WPubkeyHash};
use onespend_proto::v1::create_payment_request::Fee;
use onespend_proto::v1::recipient::Destination;
use onespend_proto::v1::reserve_utxos_request::What;
use onespend_proto::v1::{
    CreatePaymentRequest, GetPaymentRequest, Keychain, NewAddressRequest, OutpointList, Recipient,
    ReleaseReservationRequest, RenewReservationRequest, Reservation, ReserveUtxosRequest, Selection, SignPsbtRequest,
    Utxo,
};
use tokio::time::sleep;
use tonic::Status;

use super::board::{Board, chosen};
use super::calls::{self, Ask, Door, Reply};
use super::ledger::Ledger;
use super::operation::{Kind, Lie, Operation, Twist};
use super::transaction::Spend;
use crate::grpc::{self, Meaning};
use crate::history::{Answer, Call, History};
use crate::hot::WALLET;
use crate::seed::Seeded;

/// For one answer, faults included. Above the longest of them.
const PATIENCE: Duration = Duration::from_secs(25);
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const MAX_BACKOFF: Duration = Duration::from_millis(300);
/// What a caller remembers of each kind.
const MEMORY: usize = 24;
/// One of so many transactions that callers build pays its coins out whole.
const CHANGELESS_EVERY: u64 = 8;
const MAX_COINS: u64 = 4;
const MAX_RECIPIENTS: u64 = 3;

/// What all callers share.
#[derive(Clone, Debug)]
pub struct World {
    /// Where every try goes.
    pub history: Arc<History>,
    /// What was ordered, and the counts.
    pub ledger: Arc<Ledger>,
    /// Which coins there are.
    pub board: Board,
}

/// A transaction that a caller has built on its reservation.
struct Draft {
    payment_id: String,
    reservation: Reservation,
    to: ScriptBuf,
    spend: Spend,
}

/// A caller.
#[derive(Debug)]
pub struct Caller {
    number: usize,
    world: World,
    doors: Vec<Door>,
    /// For recipients.
    seeded: Seeded,
    requests: u64,
    held: VecDeque<Reservation>,
    ordered: VecDeque<CreatePaymentRequest>,
    answered: VecDeque<Ask>,
}

impl Caller {
    /// One with a number, and ways to the service.
    pub fn new(number: usize, seed: u64, world: World, doors: Vec<Door>) -> Self {
        let salt = u64::try_from(number).unwrap_or(0);
        Self {
            number,
            world,
            doors,
            seeded: Seeded::new(!seed ^ (salt << 32)),
            requests: 0,
            held: VecDeque::new(),
            ordered: VecDeque::new(),
            answered: VecDeque::new(),
        }
    }

    /// Performs its operations one after the other until it is told to stop.
    ///
    /// # Errors
    /// The harness cannot build a request, which is a defect of its own.
    pub async fn work(mut self, operations: impl Iterator<Item = Operation>) -> Result<()> {
        for operation in operations {
            sleep(Duration::from_millis(operation.think_ms)).await;
            if self.world.ledger.is_closed() {
                break;
            }
            self.perform(&operation).await.with_context(|| format!("{operation:?}"))?;
        }
        Ok(())
    }

    async fn perform(&mut self, operation: &Operation) -> Result<()> {
        let pick = operation.pick;
        match operation.kind {
            Kind::ReserveHot => {
                let coins: Vec<Utxo> = self.world.board.hot(pick).into_iter().collect();
                self.reserve(operation, &coins).await;
            }
            Kind::Reserve => {
                let count = usize::try_from(1 + pick % MAX_COINS)?;
                let coins = self.world.board.free(pick, count);
                self.reserve(operation, &coins).await;
            }
            Kind::Select => drop(self.select(operation, String::new()).await),
            Kind::Renew => self.renew(operation).await,
            Kind::Release => self.release(operation).await,
            Kind::Pay => self.pay(operation).await?,
            Kind::PayAgain => self.pay_again(operation).await,
            Kind::Sign => self.sign(operation, None).await?,
            Kind::Bump => self.bump(operation).await,
            Kind::Cancel => self.cancel(operation).await,
            Kind::Look => self.look(operation).await,
            Kind::ReuseRequestId => self.reuse_request_id(operation).await,
            Kind::ReusePaymentId => self.reuse_payment_id(operation).await,
            Kind::StaleFence => self.show_stale_fence(operation).await?,
            Kind::UseReleased => self.use_released(operation).await?,
            Kind::Detach => self.detach(operation).await?,
            Kind::Lie(lie) => self.sign(operation, Some(lie)).await?,
        }
        Ok(())
    }

    async fn reserve(&mut self, operation: &Operation, coins: &[Utxo]) {
        if coins.is_empty() {
            return;
        }
        let what = What::Outpoints(OutpointList { outpoints: calls::outpoints(coins) });
        let request = self.reservation(operation, what, String::new());
        self.hold(operation, Ask::Reserve(request)).await;
    }

    async fn select(&mut self, operation: &Operation, payment_id: String) -> Option<Reservation> {
        let target_sat = i64::try_from(operation.amount_sat).ok()?;
        let feerate_sat_vb = rate(operation.feerate_sat_vb);
        let what = What::Selection(Selection { target_sat, feerate_sat_vb, ..Selection::default() });
        let request = self.reservation(operation, what, payment_id);
        self.hold(operation, Ask::Reserve(request)).await
    }

    fn reservation(&mut self, operation: &Operation, what: What, payment_id: String) -> ReserveUtxosRequest {
        ReserveUtxosRequest {
            request_id: self.request_id(),
            wallet_id: WALLET.to_owned(),
            what: Some(what),
            expiration: Some(expiry::of_reservation(operation)),
            payment_id,
        }
    }

    async fn hold(&mut self, operation: &Operation, ask: Ask) -> Option<Reservation> {
        let Some(Reply::Granted(reservation, _)) = self.ask(operation, ask, None).await else { return None };
        remember(&mut self.held, reservation.clone());
        Some(reservation)
    }

    async fn renew(&mut self, operation: &Operation) {
        let Some(reservation) = self.a_reservation(operation.pick) else { return };
        let request_id = self.request_id();
        let ask = renewal(request_id, &reservation, reservation.fence, operation);
        if self.ask(operation, ask, None).await.is_none() {
            self.forget(&reservation);
        }
    }

    async fn release(&mut self, operation: &Operation) {
        let Some(reservation) = self.a_reservation(operation.pick) else { return };
        self.give_back(operation, &reservation).await;
    }

    async fn pay(&mut self, operation: &Operation) -> Result<()> {
        let payment_id = self.payment_id();
        let mut recipients = Vec::new();
        for _ in 0..=operation.pick % MAX_RECIPIENTS {
            let script = self.stranger();
            self.world.ledger.order(&script, &payment_id, operation.amount_sat);
            recipients.push(recipient(&script, operation.amount_sat)?);
        }
        let request = CreatePaymentRequest {
            request_id: self.request_id(),
            wallet_id: WALLET.to_owned(),
            payment_id,
            recipients,
            fee: Some(Fee::FeerateSatVb(rate(operation.feerate_sat_vb))),
            ..CreatePaymentRequest::default()
        };
        if self.ask(operation, Ask::Pay(request.clone()), None).await.is_some() {
            remember(&mut self.ordered, request);
        }
        Ok(())
    }

    async fn pay_again(&mut self, operation: &Operation) {
        let Some(earlier) = self.an_order(operation.pick) else { return };
        let request = CreatePaymentRequest { request_id: self.request_id(), ..earlier };
        self.ask(operation, Ask::Pay(request), None).await;
    }

    /// Reserves coins, builds a transaction on them, and has it signed; or tries to have a lie signed.
    async fn sign(&mut self, operation: &Operation, lie: Option<Lie>) -> Result<()> {
        let Some(mut draft) = self.draft(operation).await? else { return Ok(()) };
        if let Some(lie) = lie {
            let utxos = &draft.reservation.utxos;
            let strangers = self.world.board.free(operation.pick, utxos.len() + 1);
            let ours = |coin: &Utxo| utxos.iter().any(|utxo| utxo.outpoint == coin.outpoint);
            let Some(stranger) = strangers.into_iter().find(|coin| !ours(coin)) else { return Ok(()) };
            draft.spend.lie(lie, &stranger)?;
        }
        let request = self.sign_request(&draft, draft.reservation.fence)?;
        let signed = self.ask(operation, Ask::Sign(request), lie.map(|_| "the PSBT lies")).await;
        if signed.is_some() {
            self.forget(&draft.reservation);
        }
        Ok(())
    }

    /// Reserves coins, and builds a transaction on them for a payment of its own.
    async fn draft(&mut self, operation: &Operation) -> Result<Option<Draft>> {
        let payment_id = self.payment_id();
        let named = if operation.pick.is_multiple_of(3) { payment_id.clone() } else { String::new() };
        let Some(reservation) = self.select(operation, named).await else { return Ok(None) };
        let whole = operation.pick.is_multiple_of(CHANGELESS_EVERY);
        let change = if whole { None } else { self.change_script(operation).await };
        let to = self.stranger();
        let built =
            Spend::new(&reservation.utxos, &to, operation.amount_sat, change.as_ref(), operation.feerate_sat_vb);
        let spend = built.context("a transaction on a selection")?;
        self.world.ledger.order(&to, &payment_id, spend.amount_sat);
        Ok(Some(Draft { payment_id, reservation, to, spend }))
    }

    fn sign_request(&mut self, draft: &Draft, fence: u64) -> Result<SignPsbtRequest> {
        Ok(SignPsbtRequest {
            request_id: self.request_id(),
            wallet_id: WALLET.to_owned(),
            payment_id: draft.payment_id.clone(),
            recipients: vec![recipient(&draft.to, draft.spend.amount_sat)?],
            reservation_id: draft.reservation.reservation_id.clone(),
            fence,
            psbt: draft.spend.psbt.serialize().into(),
        })
    }

    async fn change_script(&mut self, operation: &Operation) -> Option<ScriptBuf> {
        let request = NewAddressRequest {
            request_id: self.request_id(),
            wallet_id: WALLET.to_owned(),
            keychain: Keychain::Internal.into(),
        };
        match self.ask(operation, Ask::Address(request), None).await? {
            Reply::Address(script, _) => Some(ScriptBuf::from_bytes(script)),
            _ => None,
        }
    }

    async fn look(&mut self, operation: &Operation) {
        let Some(earlier) = self.an_order(operation.pick) else { return };
        let request = GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: earlier.payment_id };
        self.ask(operation, Ask::Look(request), None).await;
    }

    async fn reuse_request_id(&mut self, operation: &Operation) {
        let earlier = chosen_of(&self.answered, operation.pick).map(|ask| ask.request_id().to_owned());
        let Some(earlier) = earlier else { return };
        let what = What::Selection(Selection { target_sat: 12_345, feerate_sat_vb: 1.0, ..Selection::default() });
        let mut request = self.reservation(operation, what, "reused".to_owned());
        request.request_id = earlier;
        self.ask(operation, Ask::Reserve(request), Some("the request id belongs to another request")).await;
    }

    async fn reuse_payment_id(&mut self, operation: &Operation) {
        let Some(mut request) = self.an_order(operation.pick) else { return };
        request.request_id = self.request_id();
        if let Some(first) = request.recipients.first_mut() {
            first.amount_sat += 1;
        }
        self.ask(operation, Ask::Pay(request), Some("the payment id belongs to other amounts")).await;
    }

    /// To whatever takes a fence, each in its turn.
    async fn show_stale_fence(&mut self, operation: &Operation) -> Result<()> {
        let ask = if operation.pick.is_multiple_of(3) {
            let Some(draft) = self.draft(operation).await? else { return Ok(()) };
            Ask::Sign(self.sign_request(&draft, stale_fence(&draft.reservation))?)
        } else {
            let Some(reservation) = self.a_reservation(operation.pick) else { return Ok(()) };
            let (request_id, fence) = (self.request_id(), stale_fence(&reservation));
            if operation.pick.is_multiple_of(2) {
                renewal(request_id, &reservation, fence, operation)
            } else {
                let reservation_id = reservation.reservation_id;
                Ask::Release(ReleaseReservationRequest { request_id, reservation_id, fence })
            }
        };
        self.ask(operation, ask, Some("the fence is not that of the grant")).await;
        Ok(())
    }

    /// Asks until there is an answer, each try by the next way, and notes every one. `None`: it was refused, or nobody
    /// knows. Where an earlier try has no answer, a refusal for the time that the request names is no end: what was granted
    /// meanwhile has to be shown, so it asks once more.
    async fn ask(&mut self, operation: &Operation, ask: Ask, must_fail: Option<&'static str>) -> Option<Reply> {
        let ledger = Arc::clone(&self.world.ledger);
        ledger.count_operation();
        let deadline = Instant::now() + PATIENCE;
        let mut way = operation.way;
        let mut backoff = FIRST_BACKOFF;
        let (mut was_unknown, mut has_insisted) = (false, false);
        let mut reply = self.first_try(operation, &ask, must_fail).await;
        loop {
            let again = match &reply {
                Ok(_) => false,
                Err(status) if grpc::meaning(status) == Meaning::Unknown => {
                    was_unknown = true;
                    true
                }
                Err(status) if was_unknown && !has_insisted && calls::is_out_of_time(&ask, status) => {
                    has_insisted = true;
                    true
                }
                Err(status) => calls::is_transient(status),
            };
            if !again || Instant::now() >= deadline {
                break;
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(MAX_BACKOFF);
            way = way.wrapping_add(1);
            reply = self.attempt(way, &ask, must_fail).await;
        }
        ledger.count_answer(&reply, was_unknown);
        let reply = reply.ok()?;
        if operation.twist == Twist::Repeat {
            drop(self.attempt(way.wrapping_add(1), &ask, must_fail).await);
        }
        if !matches!(ask, Ask::Look(_)) {
            remember(&mut self.answered, ask);
        }
        Some(reply)
    }

    async fn first_try(
        &self,
        operation: &Operation,
        ask: &Ask,
        must_fail: Option<&'static str>,
    ) -> Result<Reply, Status> {
        let first = self.attempt(operation.way, ask, must_fail);
        if operation.twist != Twist::Race {
            return first.await;
        }
        let (one, other) = tokio::join!(first, self.attempt(operation.way.wrapping_add(1), ask, must_fail));
        one.or(other)
    }

    async fn attempt(&self, way: u64, ask: &Ask, must_fail: Option<&'static str>) -> Result<Reply, Status> {
        let door = chosen(&self.doors, way).cloned().ok_or_else(|| Status::unavailable("there is no way"))?;
        let ticket = self.world.history.open(Call {
            caller: self.number,
            request_id: ask.request_id().to_owned(),
            via: door.name.clone(),
            start_ns: 0,
            end_ns: 0,
            asked: ask.asked(),
            must_fail,
            answer: Answer::open(),
        });
        let reply = grpc::bounded(Box::pin(ask.clone().send(door))).await;
        self.world.history.close(ticket, calls::answer(&reply));
        reply
    }

    fn request_id(&mut self) -> String {
        self.requests += 1;
        format!("{}-{}", self.number, self.requests)
    }

    fn payment_id(&mut self) -> String {
        self.requests += 1;
        format!("payment-{}-{}", self.number, self.requests)
    }

    /// A script of nobody's, each only once.
    fn stranger(&mut self) -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(self.seeded.bytes::<20>()))
    }

    fn a_reservation(&self, pick: u64) -> Option<Reservation> {
        chosen_of(&self.held, pick).cloned()
    }

    fn an_order(&self, pick: u64) -> Option<CreatePaymentRequest> {
        chosen_of(&self.ordered, pick).cloned()
    }

    fn forget(&mut self, reservation: &Reservation) {
        self.held.retain(|held| held.reservation_id != reservation.reservation_id);
    }
}

fn remember<T>(memory: &mut VecDeque<T>, one: T) {
    memory.push_back(one);
    if memory.len() > MEMORY {
        memory.pop_front();
    }
}

fn chosen_of<T>(memory: &VecDeque<T>, pick: u64) -> Option<&T> {
    let count = u64::try_from(memory.len()).ok()?;
    memory.get(usize::try_from(pick.checked_rem(count)?).ok()?)
}

/// One that is not the reservation's, and lower.
fn stale_fence(reservation: &Reservation) -> u64 {
    reservation.fence.saturating_sub(1).max(1)
}

fn renewal(request_id: String, reservation: &Reservation, fence: u64, operation: &Operation) -> Ask {
    Ask::Renew(RenewReservationRequest {
        request_id,
        reservation_id: reservation.reservation_id.clone(),
        fence,
        expiration: Some(expiry::of_renewal(operation)),
    })
}

/// As requests have it, in satoshi per virtual byte.
#[allow(clippy::cast_precision_loss)] // a handful
fn rate(feerate_sat_vb: u64) -> f64 {
    feerate_sat_vb as f64
}

fn recipient(script: &ScriptBuf, amount_sat: u64) -> Result<Recipient> {
    let destination = Some(Destination::Script(script.to_bytes().into()));
    Ok(Recipient { destination, amount_sat: i64::try_from(amount_sat)? })
}
