//! What the answers mean, kept apart from the state: who was told what, and what the chain says. It asks the state
//! only for the bytes of attempts and for what it must say now.

mod checks;
mod ends;
mod singles;
mod velocity;

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{OutPoint, Txid};
use onespend_core::command::{Change, Command, Entry, Recipient, Request};
use onespend_core::ids::{AttemptNo, CallerId, Fence, LogIndex, PaymentKey, RequestKey, ReservationId, WalletId};
use onespend_core::outcome::{Outcome, Rejection};
use onespend_core::state::State;
use onespend_core::wallet::{Keychain, SignerRef};

use super::chain::Chain;
use super::wallets::{SINGLE, address_of, fixtures};

/// Who may spend a coin, as far as callers were told.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Owner {
    Reservation(ReservationId),
    Payment(PaymentKey),
}

struct Granted {
    owner: CallerId,
    outpoints: Vec<OutPoint>,
    expires: u64,
}

/// How an attempt ended for the oracle. Only a block that is gone, or one that has the attempt, takes that back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Dead { by: Txid },
    Settled { height: u32 },
    Aborted,
}

impl End {
    fn is_death(self) -> bool {
        !matches!(self, Self::Settled { .. })
    }
}

/// What an accepted permit was asked for.
struct Order<'a> {
    key: &'a PaymentKey,
    /// `None` where the payment's own are meant.
    recipients: Option<&'a [Recipient]>,
    reservation: Option<ReservationId>,
    /// The attempt gives everything back.
    cancels: bool,
}

struct Allowed {
    key: PaymentKey,
    number: AttemptNo,
    txid: Txid,
    inputs: Vec<OutPoint>,
    change: Option<(OutPoint, Keychain, u32)>,
    end: Option<End>,
    /// What it takes out of the wallet, its fee included, in sat.
    outflow_sat: u64,
}

impl Allowed {
    fn is_live(&self) -> bool {
        !self.end.is_some_and(End::is_death)
    }
}

/// The history of one cluster.
#[derive(Default)]
pub struct Oracle {
    now: u64,
    last_fence: u64,
    owners: BTreeMap<OutPoint, Owner>,
    reservations: BTreeMap<ReservationId, Granted>,
    attempts: Vec<Allowed>,
    bindings: BTreeMap<PaymentKey, Vec<Recipient>>,
    answers: BTreeMap<RequestKey, ([u8; 32], Outcome)>,
    addresses: BTreeSet<(WalletId, Keychain, u32)>,
    depths: BTreeMap<usize, u32>,
    /// What left wallets while their velocity limit was as it is, and when; the limit.
    left: BTreeMap<usize, velocity::Left>,
    frozen: BTreeSet<usize>,
    /// Payments whose ends were undone by a reorganisation, or by a signer that broke its word. They get nothing new.
    undone: BTreeSet<PaymentKey>,
    /// Wallets whose finality depth a reorganisation broke: nothing is promised about what confirms.
    broken: BTreeSet<usize>,
    /// Coins that somebody else spent in a block that is gone.
    held_back: BTreeMap<OutPoint, usize>,
    /// Coins that cannot come to be, and the transactions that took them away.
    lost: BTreeMap<OutPoint, Txid>,
    /// Coins that were spent when their wallet was registered: no scan finds them, also if the spend is taken back.
    unseen: BTreeSet<OutPoint>,
    /// Coins that were named to the wallet without descriptors: it has no others.
    pub followed: BTreeSet<OutPoint>,
    highest: u32,
    epoch: u32,
    recovering: bool,
    pub settled: usize,
    pub died: usize,
    pub replaced: usize,
    pub cancelled: usize,
    pub children: usize,
    /// Reservations of coins that are followed one by one.
    pub reserved_singles: usize,
    /// Coins that were declared lost, and those of them that a reorganisation gave back.
    pub declared: usize,
    pub regained: usize,
}

fn position(id: &WalletId) -> usize {
    fixtures().iter().position(|fixture| fixture.id == *id).unwrap()
}

impl Oracle {
    /// Takes note of one entry and its outcome, in the state after it. `chain` is as the entry has it.
    pub fn observe(&mut self, entry: &Entry, index: u64, outcome: &Outcome, state: &State, chain: &Chain) {
        self.now = self.now.max(entry.at.0);
        if self.is_answered_before(entry.request.as_ref(), outcome) {
            return;
        }
        if !matches!(outcome, Outcome::Rejected(_)) {
            self.accept(entry, index, outcome, state, chain);
        }
    }

    /// Idempotency: the same request has the same answer; its id for another request is refused.
    fn is_answered_before(&mut self, request: Option<&Request>, outcome: &Outcome) -> bool {
        let Some(request) = request else { return false };
        if let Some((digest, answer)) = self.answers.get(&request.key) {
            let reused = Outcome::Rejected(Rejection::RequestIdReused);
            assert_eq!(outcome, if *digest == request.digest { answer } else { &reused });
            return true;
        }
        if !matches!(outcome, Outcome::Rejected(rejection) if rejection.is_transient()) {
            self.answers.insert(request.key.clone(), (request.digest, outcome.clone()));
        }
        false
    }

    fn accept(&mut self, entry: &Entry, index: u64, outcome: &Outcome, state: &State, chain: &Chain) {
        match &entry.command {
            Command::RegisterWallet(command) => {
                let wallet = position(&command.wallet);
                self.depths.insert(wallet, command.limits.finality_depth);
                self.limited(wallet, &command.limits);
                let spent = chain.coins.iter().filter(|(_, coin)| coin.wallet == wallet && coin.spent.is_some());
                self.unseen.extend(spent.map(|(outpoint, _)| *outpoint));
            }
            Command::SetLimits { wallet, limits } => {
                self.depths.insert(position(wallet), limits.finality_depth);
                self.limited(position(wallet), limits);
            }
            Command::FreezeWallet { wallet, .. } => {
                self.frozen.insert(position(wallet));
            }
            Command::UnfreezeWallet { wallet } => {
                self.frozen.remove(&position(wallet));
            }
            Command::GiveAddresses { wallet, .. } => self.addresses_given(wallet, outcome),
            Command::Reserve(command) => self.reserved(entry, index, outcome, position(&command.wallet), chain),
            Command::Renew { reservation, .. } => self.renewed(entry, *reservation, outcome),
            Command::Release { reservation, .. } => {
                self.assert_owner(entry, *reservation);
                self.free(*reservation);
            }
            Command::Expire { reservations } => {
                for id in reservations {
                    if self.reservations.get(id).is_some_and(|granted| granted.expires <= self.now) {
                        self.free(*id);
                    }
                }
            }
            Command::CreatePayment(_)
            | Command::PayReserved(_)
            | Command::BumpFee(_)
            | Command::CancelPayment(_)
            | Command::BumpByChild(_) => self.ordered(entry, outcome, state, chain),
            Command::AbortAttempt(command) => self.aborted(&command.key, command.attempt, chain),
            Command::ReleaseQuarantined { outpoints, .. } => {
                for outpoint in outpoints {
                    assert!(self.held_back.remove(outpoint).is_some(), "{outpoint} was not held back");
                    self.inherit(*outpoint);
                }
            }
            Command::DeclareLost(command) => self.declared_lost(command, chain),
            Command::EnterRecovery { .. } => self.recovering = true,
            Command::Reconcile { spent_outside, .. } => self.reconciled(spent_outside, chain),
            Command::ConfirmRecovery { epoch, .. } => {
                assert!(self.recovering && *epoch > self.epoch);
                (self.recovering, self.epoch) = (false, *epoch);
            }
            Command::RegisterOutpoints(command) => self.follows(command, chain),
            Command::Start { .. }
            | Command::ConnectBlock { .. }
            | Command::DisconnectBlock { .. }
            | Command::RecordSignature { .. }
            | Command::RecordRelay { .. }
            | Command::RaiseFeatureLevel { .. } => {}
        }
    }

    fn ordered(&mut self, entry: &Entry, outcome: &Outcome, state: &State, chain: &Chain) {
        match &entry.command {
            Command::CreatePayment(command) => {
                let order = Order {
                    key: &command.key,
                    recipients: Some(&command.recipients),
                    reservation: None,
                    cancels: false,
                };
                self.permitted(entry, outcome, &order, state, chain);
            }
            Command::PayReserved(command) => {
                let order = Order {
                    key: &command.key,
                    recipients: Some(&command.recipients),
                    reservation: command.reservation,
                    cancels: false,
                };
                self.permitted(entry, outcome, &order, state, chain);
            }
            Command::BumpFee(command) | Command::CancelPayment(command) => {
                let cancels = newest_cancels(&command.key, state) || matches!(entry.command, Command::CancelPayment(_));
                let order = Order { key: &command.key, recipients: None, reservation: None, cancels };
                self.permitted(entry, outcome, &order, state, chain);
            }
            Command::BumpByChild(command) => {
                let key = PaymentKey { wallet: command.key.wallet.clone(), payment: command.child.clone() };
                let order = Order { key: &key, recipients: None, reservation: None, cancels: false };
                self.permitted(entry, outcome, &order, state, chain);
                self.children += 1;
            }
            other => panic!("{other:?} orders nothing"),
        }
    }

    /// safety 6: only a signer's proof ends an attempt without a block.
    fn aborted(&mut self, key: &PaymentKey, number: AttemptNo, chain: &Chain) {
        let found = self.attempts.iter_mut().find(|known| known.key == *key && known.number == number).unwrap();
        if found.end.is_none() {
            assert!(!self.undone.contains(key), "{key} was given up by a word that may have been broken");
            found.end = Some(End::Aborted);
            let at = self.attempts.iter().position(|known| known.key == *key && known.number == number).unwrap();
            self.release_inputs(at, chain);
        }
    }

    fn reconciled(&mut self, spent_outside: &[OutPoint], chain: &Chain) {
        for outpoint in spent_outside {
            let Some(coin) = chain.coins.get(outpoint) else { continue };
            if let Some(Owner::Reservation(id)) = self.owners.get(outpoint) {
                self.free(*id);
            }
            if !self.owners.contains_key(outpoint) {
                self.held_back.insert(*outpoint, coin.wallet);
            }
        }
    }

    fn addresses_given(&mut self, wallet: &WalletId, outcome: &Outcome) {
        let Outcome::AddressesGiven { keychain, first, count } = outcome else { panic!("{outcome:?}") };
        assert_ne!(position(wallet), SINGLE, "it has no addresses");
        for index in *first..first + count {
            assert!(self.addresses.insert((wallet.clone(), *keychain, index)), "address {index} was given out twice");
        }
    }

    /// safety 1, 2, 4: all of the coins, and each was nobody's.
    fn reserved(&mut self, entry: &Entry, index: u64, outcome: &Outcome, wallet: usize, chain: &Chain) {
        let Outcome::Reserved { reservation, outpoints, expires } = outcome else { panic!("{outcome:?}") };
        let Command::Reserve(command) = &entry.command else { panic!("{entry:?}") };
        assert_eq!(outpoints, &command.outpoints);
        assert_eq!(expires.0, self.now + command.ttl.0);
        assert!(!self.frozen.contains(&wallet));
        assert_eq!(reservation.fence(), Fence::of(self.epoch, LogIndex(index)));
        self.fence(reservation.0);
        for outpoint in outpoints {
            self.assert_spendable(*outpoint, wallet, chain);
            assert_eq!(self.owners.insert(*outpoint, Owner::Reservation(*reservation)), None, "{outpoint} was taken");
        }
        let owner = entry.request.as_ref().unwrap().key.caller.clone();
        let granted = Granted { owner, outpoints: outpoints.clone(), expires: expires.0 };
        self.reserved_singles += usize::from(wallet == SINGLE);
        self.reservations.insert(*reservation, granted);
    }

    fn renewed(&mut self, entry: &Entry, id: ReservationId, outcome: &Outcome) {
        let Outcome::Renewed { expires } = outcome else { panic!("{outcome:?}") };
        self.assert_owner(entry, id);
        self.reservations.get_mut(&id).unwrap().expires = expires.0;
    }

    /// safety 28: only the owner, and only in time.
    fn assert_owner(&self, entry: &Entry, id: ReservationId) {
        let granted = &self.reservations[&id];
        let request = entry.request.as_ref().expect("nobody asked");
        assert!(request.for_others || request.key.caller == granted.owner, "{id} is not the caller's");
        assert!(granted.expires > self.now, "{id} is over");
    }

    fn free(&mut self, id: ReservationId) {
        for outpoint in self.reservations.remove(&id).unwrap().outpoints {
            assert_eq!(self.owners.remove(&outpoint), Some(Owner::Reservation(id)));
        }
    }

    /// safety 12.
    fn fence(&mut self, index: u64) {
        assert!(index > self.last_fence, "the fence {index} is not above {}", self.last_fence);
        self.last_fence = index;
    }

    fn assert_spendable(&self, outpoint: OutPoint, wallet: usize, chain: &Chain) {
        assert!(!self.held_back.contains_key(&outpoint));
        let Some(coin) = chain.coins.get(&outpoint) else {
            // safety 24: our own, and it may still come to be.
            let change = self.attempts.iter().find(|a| a.is_live() && a.change.is_some_and(|(o, ..)| o == outpoint));
            assert!(change.is_some(), "{outpoint} is neither in the chain nor change of a live attempt");
            return;
        };
        assert_eq!(coin.wallet, wallet);
        assert!(self.is_told_of(&outpoint, wallet), "{outpoint} was never named to {}", fixtures()[wallet].id);
        assert_eq!(coin.spent, None);
        assert!(!coin.coinbase || chain.height() + 1 - coin.height >= 100, "safety 23");
    }

    fn permitted(&mut self, entry: &Entry, outcome: &Outcome, order: &Order<'_>, state: &State, chain: &Chain) {
        let Outcome::Permitted { payment, attempt: number } = outcome else { panic!("{outcome:?}") };
        let key = order.key;
        assert_eq!(payment, key);
        let recipients = order.recipients.unwrap_or(&state.payment(key).unwrap().recipients);
        let mut sorted = recipients.to_vec();
        sorted.sort();
        let bound = self.bindings.entry(key.clone()).or_insert_with(|| sorted.clone());
        assert_eq!(*bound, sorted, "safety 7: {key} is bound to other content");
        if self.attempts.iter().any(|known| known.key == *key && known.number == *number) {
            return;
        }
        let wallet = position(&key.wallet);
        assert!(!self.frozen.contains(&wallet));
        assert!(!self.undone.contains(key), "safety 9, 17");
        assert!(!self.recovering, "safety 30");
        assert!(!matches!(fixtures()[wallet].signer, SignerRef::WatchOnly), "nobody signs for {key}");
        if let Some(id) = order.reservation {
            self.assert_owner(entry, id);
        }
        let attempt = state.payment(key).unwrap().attempt(*number).unwrap();
        assert_eq!(attempt.fence, state.fence());
        self.fence(attempt.fence.0);
        let inputs: Vec<OutPoint> = attempt.transaction.input.iter().map(|input| input.previous_output).collect();
        self.assert_may_be_spent(key, &inputs, order.reservation);
        for outpoint in &inputs {
            // What an earlier attempt spends may have been reorganised away: the new one waits for it like the old one.
            let own = self.owners.get(outpoint) == Some(&Owner::Payment(key.clone()));
            if !own || chain.coins.contains_key(outpoint) {
                self.assert_spendable(*outpoint, wallet, chain);
            }
        }
        let change = attempt.change.as_ref();
        assert_pays(&attempt.transaction, if order.cancels { &[] } else { recipients }, change, wallet);
        if let Some(change) = change {
            let of_this_payment = self
                .attempts
                .iter()
                .any(|a| a.key == *key && a.change.is_some_and(|(_, k, i)| (k, i) == (change.keychain, change.index)));
            let address = (key.wallet.clone(), change.keychain, change.index);
            let is_new = self.addresses.insert(address);
            let may_be_old = of_this_payment || matches!(entry.command, Command::PayReserved(_));
            assert!(is_new || may_be_old, "the change address was given out before");
        }
        if let Some(id) = order.reservation {
            assert!(self.reservations[&id].outpoints.iter().all(|outpoint| inputs.contains(outpoint)), "safety 19");
            self.free(id);
        }
        for outpoint in &inputs {
            self.owners.insert(*outpoint, Owner::Payment(key.clone()));
        }
        let txid = attempt.transaction.compute_txid();
        self.replaced += usize::from(self.attempts.iter().any(|known| known.key == *key && known.is_live()));
        self.cancelled += usize::from(order.cancels);
        let change = change.map(|c| (OutPoint { txid, vout: c.vout }, c.keychain, c.index));
        let outflow_sat = velocity::outflow_sat(attempt, wallet);
        self.leaves(key, outflow_sat);
        self.attempts.push(Allowed { key: key.clone(), number: *number, txid, inputs, change, end: None, outflow_sat });
    }

    /// safety 1, 6, 8, 9: no other payment's live attempt spends these coins, and one coin is spent by all of this
    /// payment's live attempts and the new one: its anchor.
    fn assert_may_be_spent(&self, key: &PaymentKey, inputs: &[OutPoint], reservation: Option<ReservationId>) {
        let live = || self.attempts.iter().filter(|other| other.is_live());
        let own: Vec<&Allowed> = live().filter(|other| other.key == *key).collect();
        for outpoint in inputs {
            let expected = match self.owners.get(outpoint) {
                None => reservation.is_none() || !own.is_empty(),
                Some(Owner::Reservation(id)) => reservation == Some(*id),
                Some(Owner::Payment(owner)) => owner == key && own.iter().any(|a| a.inputs.contains(outpoint)),
            };
            assert!(expected, "{outpoint} is another's: {:?}", self.owners.get(outpoint));
        }
        let anchor = inputs.iter().any(|outpoint| own.iter().all(|attempt| attempt.inputs.contains(outpoint)));
        assert!(anchor, "two attempts of {key} could both confirm");
        for other in live().filter(|other| other.key != *key) {
            let shared = other.inputs.iter().any(|outpoint| inputs.contains(outpoint));
            assert!(!shared, "{key} spends a coin of {}", other.key);
        }
        for replaced in &own {
            let child = live().find(|a| a.key != *key && a.inputs.iter().any(|input| input.txid == replaced.txid));
            assert!(child.is_none(), "safety 24: a descendant would lose its coin");
        }
    }
}

/// Whether the newest live attempt before this one gives everything back: a bump goes on with that. One that died in
/// between, as by what it spends, does not count.
fn newest_cancels(key: &PaymentKey, state: &State) -> bool {
    let attempts = &state.payment(key).unwrap().attempts;
    let before = attempts.split_last().map_or(&attempts[..0], |(_, before)| before);
    before.iter().rev().find(|attempt| attempt.is_live()).is_some_and(|attempt| attempt.kind.is_some())
}

/// safety 21: the recipients, each once, and at most one output more, to an address of the wallet.
fn assert_pays(paid: &bitcoin::Transaction, recipients: &[Recipient], change: Option<&Change>, wallet: usize) {
    let mut outputs: Vec<(Vec<u8>, u64)> =
        paid.output.iter().map(|output| (output.script_pubkey.to_bytes(), output.value.to_sat())).collect();
    for recipient in recipients {
        let wanted = (recipient.script.to_bytes(), recipient.amount_sat);
        let at = outputs.iter().position(|output| *output == wanted).expect("a recipient gets nothing");
        outputs.remove(at);
    }
    assert_eq!(outputs.len(), usize::from(change.is_some()));
    if let Some(change) = change {
        let script = &paid.output[change.vout as usize].script_pubkey;
        assert_eq!(address_of(script), Some((wallet, change.keychain, change.index)));
    }
}
