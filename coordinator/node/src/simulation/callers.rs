//! Callers: they reserve, pay, replace and cancel, ask again when they hear nothing, and tell the judge what they heard.

use std::rc::Rc;
use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut};
use onespend_core::command::{Command, CreatePayment, PayReserved, Recipient, Replace, Request, Reserve};
use onespend_core::ids::{CallerId, Fence, Millis, PaymentId, PaymentKey, RequestId, RequestKey, ReservationId};
use onespend_core::outcome::Outcome;
use onespend_core::state::State;

use super::machine::{NODES, Running};
use super::world::{WALLET, World, chance, executor, pause, pick};
use crate::raft::{Applied, ProposeError};
use crate::runtime::now;
use crate::specimen::wallet;

/// How often a caller asks again before it gives up.
const PATIENCE: usize = 12;

/// One caller, with the payments and reservations that it knows of.
pub(super) struct Caller {
    world: Rc<World>,
    name: usize,
    asked: usize,
    paid: Vec<(PaymentKey, Vec<Recipient>)>,
    held: Vec<(ReservationId, Vec<OutPoint>)>,
    /// The last request, to ask it again out of the blue.
    last: Option<(Request, Command)>,
    /// Whether it may act on what others own, as an operator may (safety 28).
    for_others: bool,
}

/// What one try came to.
enum Heard {
    Answer(Applied),
    /// Surely not done; another node may know better.
    NotHere,
    Nothing,
}

impl Caller {
    pub(super) fn new(world: &Rc<World>, name: usize) -> Self {
        Self { world: Rc::clone(world), name, asked: 0, paid: vec![], held: vec![], last: None, for_others: false }
    }

    /// Calls until it is told to stop.
    pub(super) async fn run(mut self) {
        while self.world.busy.get() {
            pause(5..=600).await;
            match pick(0..=9) {
                0..=3 => self.pay().await,
                4 => self.pay_reserved().await,
                5 => self.reserve().await,
                6 => self.let_go().await,
                7..=8 => self.replace().await,
                _ => self.ask_again().await,
            }
        }
    }

    async fn pay(&mut self) {
        let Some(outpoints) = self.look(|state| coins(state, 1)) else { return };
        // Now and then one that it has paid already, with other coins: it must not get another anchor (safety 9).
        let again = self.paid.last().filter(|_| chance(15)).cloned();
        let (key, recipients) = again.unwrap_or_else(|| self.order(100_000_000 + pick(0..=1_000) as u64));
        let order = CreatePayment { key, recipients, outpoints, fee_sat: pick(2_000..=5_000) as u64 };
        self.ask(Command::CreatePayment(order)).await;
    }

    /// A new payment.
    fn order(&mut self, amount_sat: u64) -> (PaymentKey, Vec<Recipient>) {
        let payment = PaymentId::parse(&format!("p{}-{}", self.name, self.paid.len())).unwrap();
        let key = PaymentKey { wallet: wallet(WALLET), payment };
        let recipients = vec![recipient(&key, amount_sat)];
        self.paid.push((key.clone(), recipients.clone()));
        (key, recipients)
    }

    /// With a transaction of its own, on a reservation that may end at any moment (safety 5).
    async fn pay_reserved(&mut self) {
        let Some((reservation, outpoints)) = self.held.pop() else { return };
        let value = self.look(|state| Some(state.value_of(&outpoints))).unwrap_or_default();
        let Some(amount) = value.checked_sub(pick(2_000..=5_000) as u64) else { return };
        let (key, recipients) = self.order(amount);
        let sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
        let input = |previous_output| TxIn { previous_output, sequence, ..TxIn::default() };
        let transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: outpoints.into_iter().map(input).collect(),
            output: vec![TxOut { value: Amount::from_sat(amount), script_pubkey: script_of(&key) }],
        };
        let fence = Fence(reservation.0 - u64::from(chance(10)));
        let reservation = Some(reservation);
        let order = PayReserved { key, recipients, reservation, fence, transaction, change: None };
        self.ask(Command::PayReserved(order)).await;
    }

    async fn reserve(&mut self) {
        let count = pick(1..=3);
        let Some(outpoints) = self.look(|state| coins(state, count)) else { return };
        let ttl = Millis(pick(1_000..=8_000) as u64);
        let order =
            Reserve { wallet: wallet(WALLET), outpoints: outpoints.clone(), ttl, payment: None, selected: chance(50) };
        if let Some(Outcome::Reserved { reservation, .. }) = self.ask(Command::Reserve(order)).await {
            self.held.push((reservation, outpoints));
        }
    }

    async fn let_go(&mut self) {
        let Some((reservation, _)) = self.held.pop() else { return };
        let fence = chance(70).then_some(Fence(reservation.0));
        let command = if chance(30) {
            Command::Renew { reservation, ttl: Millis(5_000), fence }
        } else {
            Command::Release { reservation, fence }
        };
        self.ask(command).await;
    }

    /// Pays more for one of its payments, or takes it back.
    async fn replace(&mut self) {
        let Some(last) = self.paid.len().checked_sub(1) else { return };
        let key = self.paid[pick(0..=last)].0.clone();
        let known = self.look(|state| {
            let (number, attempt) = state.payment(&key)?.live_attempt()?;
            Some((number, attempt.fee_sat, coins(state, 1)))
        });
        let Some((previous, fee_sat, more)) = known else { return };
        let more = more.filter(|_| chance(30)).unwrap_or_default();
        let order = Replace { key, previous, more, fee_sat: fee_sat * 2 + pick(0..=2_000) as u64 };
        let command = if chance(30) { Command::CancelPayment(order) } else { Command::BumpFee(order) };
        self.ask(command).await;
    }

    /// A request that was answered already, or was not; now and then another one under its name.
    async fn ask_again(&mut self) {
        let Some((mut request, command)) = self.last.clone() else { return };
        if chance(20) {
            request.digest = [7; 32];
            let heard = self.try_once(&request, &command).await;
            if let Heard::Answer(Applied { outcome, .. }) = heard {
                self.world.judge.misused(&request.key, &outcome);
            }
            // The other one may have come first.
            self.last = None;
            return;
        }
        self.insist(request, command).await;
    }

    /// Looks at the state of any node, which may be old.
    fn look<R>(&self, look: impl FnOnce(&State) -> Option<R>) -> Option<R> {
        let nodes = self.world.nodes();
        let (_, node) = nodes.get(pick(0..=nodes.len().checked_sub(1)?))?;
        node.replica.read(look)
    }

    async fn ask(&mut self, command: Command) -> Option<Outcome> {
        self.asked += 1;
        let caller = CallerId::parse(&format!("client/c{}", self.name)).unwrap();
        let request = RequestId::parse(&format!("r{}", self.asked)).unwrap();
        let digest = sha256::Hash::hash(format!("{command:?}").as_bytes()).to_byte_array();
        let request = Request { key: RequestKey { caller, request }, digest, for_others: self.for_others };
        self.last = Some((request.clone(), command.clone()));
        self.insist(request, command).await
    }

    /// Asks until there is an answer or the patience is at its end.
    async fn insist(&mut self, request: Request, command: Command) -> Option<Outcome> {
        for _ in 0..PATIENCE {
            match self.try_once(&request, &command).await {
                Heard::Answer(applied) => {
                    self.world.judge.answered(&request.key, &applied);
                    return Some(applied.outcome);
                }
                Heard::NotHere => pause(5..=100).await,
                Heard::Nothing if chance(10) => break,
                Heard::Nothing => pause(10..=300).await,
            }
        }
        self.world.judge.seen(|seen| seen.unknown += 1);
        None
    }

    async fn try_once(&self, request: &Request, command: &Command) -> Heard {
        let (request, command) = (request.clone(), command.clone());
        let asked = self.world.call(self.whom(), move |node| propose(node, request, command)).await;
        match asked {
            Some(Ok(applied)) => Heard::Answer(applied),
            Some(Err(ProposeError::Unknown)) | None => Heard::Nothing,
            Some(Err(_)) => Heard::NotHere,
        }
    }

    /// The leader, if one is known; now and then anybody.
    fn whom(&self) -> u64 {
        let leads = |(id, node): &(u64, Running)| node.replica.leader_term().map(|_| *id);
        let leader = self.world.nodes().iter().find_map(leads);
        leader.filter(|_| chance(85)).unwrap_or_else(|| NODES[pick(0..=2)])
    }
}

/// A payment whose every attempt is dead, as a reorganisation may leave it, is paid with other coins (safety 9).
/// Says what was refused.
pub(super) async fn pay_again(world: &Rc<World>) -> Option<Outcome> {
    let (_, node) = world.nodes().into_iter().find(|(_, node)| node.replica.leader_term().is_some())?;
    let mut said = None;
    let mut operator = Caller { for_others: true, ..Caller::new(world, 0) };
    for key in node.replica.read(State::open_payments) {
        let order = node.replica.read(|state| {
            let payment = state.payment(&key).filter(|payment| payment.live_attempt().is_none())?;
            let outpoints = coins(state, 4)?;
            let recipients = payment.recipients.clone();
            Some(CreatePayment { key: key.clone(), recipients, outpoints, fee_sat: 3_000 })
        });
        if let Some(order) = order {
            operator.asked = executor().passed().as_millis() as usize;
            said = operator.ask(Command::CreatePayment(order)).await;
        }
    }
    said.filter(|said| matches!(said, Outcome::Rejected(_)))
}

/// As the service does it: propose, and sign what is permitted.
async fn propose(node: Running, request: Request, command: Command) -> Result<Applied, ProposeError> {
    let deadline = now().into_std() + Duration::from_secs(2);
    let applied = node.replica.propose(Some(request), command, deadline).await?;
    if let Outcome::Permitted { payment, attempt } = &applied.outcome {
        node.signing.sign(payment, *attempt, deadline).await;
    }
    Ok(applied)
}

/// Some free coins, and now and then one that is not.
fn coins(state: &State, count: usize) -> Option<Vec<OutPoint>> {
    let id = wallet(WALLET);
    let all: Vec<OutPoint> = if chance(85) {
        state.free_coins(&id).map(|(_, outpoint)| outpoint).collect()
    } else {
        state.utxos().map(|(outpoint, _)| *outpoint).collect()
    };
    let mut chosen: Vec<OutPoint> =
        (0..count).filter_map(|_| all.get(pick(0..=all.len().checked_sub(1)?)).copied()).collect();
    chosen.sort_unstable();
    chosen.dedup();
    (!chosen.is_empty()).then_some(chosen)
}

/// An address of its own for each payment, so that the chain tells what it received.
pub(super) fn script_of(key: &PaymentKey) -> ScriptBuf {
    let hash = sha256::Hash::hash(key.payment.as_str().as_bytes());
    ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::from_byte_array(hash.to_byte_array()))
}

fn recipient(key: &PaymentKey, amount_sat: u64) -> Recipient {
    Recipient { script: script_of(key), amount_sat }
}
