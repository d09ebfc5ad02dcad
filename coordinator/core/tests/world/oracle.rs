//! What the answers mean, kept apart from the state: who was told what, and what the chain says. It asks the state
//! only for the bytes of attempts and for what it must say now.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::{OutPoint, Txid};
use onespend_core::command::{Change, Command, Entry, Recipient, Request};
use onespend_core::ids::{AttemptNo, CallerId, PaymentKey, RequestKey, ReservationId, WalletId};
use onespend_core::outcome::{Outcome, Rejection};
use onespend_core::state::State;
use onespend_core::utxo::Claim;
use onespend_core::wallet::{Keychain, SignerRef};

use super::chain::{Block, Chain};
use super::wallets::{address_of, fixtures};

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

/// How an attempt ended for the oracle: it never un-ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Dead { by: Txid },
    Settled { height: u32 },
}

struct Allowed {
    key: PaymentKey,
    number: AttemptNo,
    txid: Txid,
    inputs: Vec<OutPoint>,
    end: Option<End>,
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
    frozen: BTreeSet<usize>,
    /// Wallets whose finality depth a reorganisation broke: nothing is promised about what confirms.
    broken: BTreeSet<usize>,
    /// Coins that somebody else spent in a block that is gone.
    held_back: BTreeMap<OutPoint, usize>,
    /// Coins that were spent when their wallet was registered: no scan finds them, also if the spend is taken back.
    unseen: BTreeSet<OutPoint>,
    highest: u32,
    pub settled: usize,
    pub died: usize,
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
                let spent = chain.coins.iter().filter(|(_, coin)| coin.wallet == wallet && coin.spent.is_some());
                self.unseen.extend(spent.map(|(outpoint, _)| *outpoint));
            }
            Command::SetLimits { wallet, limits } => {
                self.depths.insert(position(wallet), limits.finality_depth);
            }
            Command::FreezeWallet { wallet, .. } => {
                self.frozen.insert(position(wallet));
            }
            Command::UnfreezeWallet { wallet } => {
                let wallet = position(wallet);
                self.frozen.remove(&wallet);
                self.held_back.retain(|_, of| *of != wallet);
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
            Command::CreatePayment(command) => {
                let order = (&command.key, command.recipients.as_slice());
                self.permitted(entry, index, outcome, order, None, state, chain);
            }
            Command::PayReserved(command) => {
                let order = (&command.key, command.recipients.as_slice());
                self.permitted(entry, index, outcome, order, Some(command.reservation), state, chain);
            }
            Command::Start { .. }
            | Command::ConnectBlock { .. }
            | Command::DisconnectBlock { .. }
            | Command::RecordSignature { .. }
            | Command::RecordRelay { .. } => {}
        }
    }

    fn addresses_given(&mut self, wallet: &WalletId, outcome: &Outcome) {
        let Outcome::AddressesGiven { keychain, first, count } = outcome else { panic!("{outcome:?}") };
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
        assert_eq!(reservation.0, index);
        self.fence(index);
        for outpoint in outpoints {
            self.assert_spendable(*outpoint, wallet, chain);
            assert_eq!(self.owners.insert(*outpoint, Owner::Reservation(*reservation)), None, "{outpoint} was taken");
        }
        let owner = entry.request.as_ref().unwrap().key.caller.clone();
        let granted = Granted { owner, outpoints: outpoints.clone(), expires: expires.0 };
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
        let coin = chain.coins.get(&outpoint).unwrap_or_else(|| panic!("{outpoint} is not in the chain"));
        assert_eq!(coin.wallet, wallet);
        assert_eq!(coin.spent, None);
        assert!(!coin.coinbase || chain.height() + 1 - coin.height >= 100, "safety 23");
        assert!(!self.held_back.contains_key(&outpoint));
    }

    #[allow(clippy::too_many_arguments)]
    fn permitted(
        &mut self,
        entry: &Entry,
        index: u64,
        outcome: &Outcome,
        (key, recipients): (&PaymentKey, &[Recipient]),
        reservation: Option<ReservationId>,
        state: &State,
        chain: &Chain,
    ) {
        let Outcome::Permitted { payment, attempt: number } = outcome else { panic!("{outcome:?}") };
        assert_eq!(payment, key);
        let mut order = recipients.to_vec();
        order.sort();
        let bound = self.bindings.entry(key.clone()).or_insert_with(|| order.clone());
        assert_eq!(*bound, order, "safety 7: {key} is bound to other content");
        if self.attempts.iter().any(|known| known.key == *key && known.number == *number) {
            return;
        }
        let wallet = position(&key.wallet);
        assert!(!self.frozen.contains(&wallet));
        assert!(matches!(fixtures()[wallet].signer, SignerRef::Named(_)));
        if let Some(id) = reservation {
            self.assert_owner(entry, id);
        }
        self.fence(index);
        let attempt = state.payment(key).unwrap().attempt(*number).unwrap();
        let inputs: Vec<OutPoint> = attempt.transaction.input.iter().map(|input| input.previous_output).collect();
        self.assert_may_be_spent(key, &inputs, reservation);
        for outpoint in &inputs {
            self.assert_spendable(*outpoint, wallet, chain);
        }
        let change = attempt.change.as_ref();
        assert_pays(&attempt.transaction, recipients, change, wallet);
        if let Some(change) = change {
            let address = (key.wallet.clone(), change.keychain, change.index);
            let is_new = self.addresses.insert(address);
            assert!(is_new || reservation.is_some(), "the change address was given out before");
        }
        if let Some(id) = reservation {
            assert_eq!(inputs.iter().collect::<BTreeSet<_>>(), self.reservations[&id].outpoints.iter().collect());
            self.free(id);
        }
        for outpoint in &inputs {
            self.owners.insert(*outpoint, Owner::Payment(key.clone()));
        }
        let txid = attempt.transaction.compute_txid();
        self.attempts.push(Allowed { key: key.clone(), number: *number, txid, inputs, end: None });
    }

    /// safety 1, 6, 8, 9: no other payment's live attempt spends these coins, and this payment's live attempts all
    /// share an input with the new one: its anchor.
    fn assert_may_be_spent(&self, key: &PaymentKey, inputs: &[OutPoint], reservation: Option<ReservationId>) {
        for outpoint in inputs {
            let expected = reservation.map(Owner::Reservation);
            assert_eq!(self.owners.get(outpoint), expected.as_ref(), "{outpoint} is another's");
        }
        for other in self.attempts.iter().filter(|other| !matches!(other.end, Some(End::Dead { .. }))) {
            let shared = other.inputs.iter().any(|outpoint| inputs.contains(outpoint));
            if other.key == *key {
                let anchor = self.attempts.iter().find(|a| a.key == *key && !matches!(a.end, Some(End::Dead { .. })));
                let anchor = anchor.unwrap().inputs.iter().find(|outpoint| inputs.contains(outpoint));
                assert!(shared && anchor.is_some(), "two attempts of {key} could both confirm");
            } else {
                assert!(!shared, "{key} spends a coin of {}", other.key);
            }
        }
    }

    /// After a block: what is final, and so whose coins are free.
    pub fn connected(&mut self, chain: &Chain) {
        self.highest = self.highest.max(chain.height());
        let mut ended = Vec::new();
        for (at, attempt) in self.attempts.iter_mut().enumerate().filter(|(_, attempt)| attempt.end.is_none()) {
            let depth = self.depths[&position(&attempt.key.wallet)];
            let spenders = attempt.inputs.iter().filter_map(|outpoint| chain.coins.get(outpoint)?.spent);
            let foreign = spenders.filter(|txid| *txid != attempt.txid).max_by_key(|txid| chain.depth(*txid));
            if let Some(by) = foreign.filter(|txid| chain.depth(*txid) >= depth) {
                attempt.end = Some(End::Dead { by });
                ended.push(at);
            } else if chain.depth(attempt.txid) >= depth {
                attempt.end = Some(End::Settled { height: chain.mined[&attempt.txid] });
                self.settled += 1;
            }
        }
        self.died += ended.len();
        for at in ended {
            for outpoint in self.attempts[at].inputs.clone() {
                let key = &self.attempts[at].key;
                let unspent = chain.coins.get(&outpoint).is_none_or(|coin| coin.spent.is_none());
                if unspent && !self.is_needed(key, outpoint) {
                    self.owners.remove(&outpoint);
                }
            }
        }
    }

    fn is_needed(&self, key: &PaymentKey, outpoint: OutPoint) -> bool {
        let live = |attempt: &&Allowed| attempt.key == *key && !matches!(attempt.end, Some(End::Dead { .. }));
        self.attempts.iter().filter(live).any(|attempt| attempt.inputs.contains(&outpoint))
    }

    /// After a block was taken away. `registered` are the wallets that are followed.
    pub fn disconnected(&mut self, block: &Block, coins_before: &Chain, registered: &BTreeSet<usize>) {
        let gone: BTreeSet<Txid> = block.transactions.iter().map(bitcoin::Transaction::compute_txid).collect();
        let mut hit = BTreeSet::new();
        for attempt in &self.attempts {
            let rests_here = match attempt.end {
                Some(End::Settled { height }) => height == block.at.height.0 && gone.contains(&attempt.txid),
                Some(End::Dead { by }) => gone.contains(&by),
                None => false,
            };
            if rests_here {
                hit.insert(position(&attempt.key.wallet));
            }
        }
        let depth = self.highest - block.at.height.0 + 1;
        hit.extend(self.depths.iter().filter(|(_, final_depth)| depth >= **final_depth).map(|(wallet, _)| *wallet));
        self.broken.extend(hit.iter().copied());
        self.frozen.extend(hit);
        for (outpoint, coin) in &coins_before.coins {
            let Some(by) = coin.spent.filter(|txid| gone.contains(txid) && registered.contains(&coin.wallet)) else {
                continue;
            };
            let unclaimed = match self.owners.get(outpoint) {
                None => true,
                Some(Owner::Reservation(_)) => false,
                Some(Owner::Payment(key)) => self.attempts.iter().filter(|a| a.key == *key).all(|attempt| {
                    !attempt.inputs.contains(outpoint)
                        || matches!(attempt.end, Some(End::Dead { by: killer }) if killer != by)
                }),
            };
            if unclaimed {
                self.owners.remove(outpoint);
                self.held_back.insert(*outpoint, coin.wallet);
            }
        }
    }

    /// What must hold after every entry.
    pub fn check(&self, state: &State, chain: &Chain, registered: &BTreeSet<usize>) {
        assert_eq!(state.tip().unwrap(), chain.tip());
        self.check_attempts(state, chain);
        for wallet in registered {
            let id = &fixtures()[*wallet].id;
            assert_eq!(
                state.wallet(id).unwrap().frozen.is_some(),
                self.frozen.contains(wallet),
                "{id} frozen, safety 17"
            );
            let free: BTreeSet<OutPoint> = state.free_coins(id).map(|(_, outpoint)| outpoint).collect();
            let expected: BTreeSet<OutPoint> = chain
                .coins
                .iter()
                .filter(|(_, coin)| coin.wallet == *wallet && coin.spent.is_none())
                .map(|(outpoint, _)| *outpoint)
                .filter(|outpoint| !self.owners.contains_key(outpoint) && !self.held_back.contains_key(outpoint))
                .filter(|outpoint| !self.unseen.contains(outpoint) || state.utxo(outpoint).is_some())
                .collect();
            assert_eq!(free, expected, "free coins of {id}");
        }
    }

    fn check_attempts(&self, state: &State, chain: &Chain) {
        let mut confirmed: BTreeMap<&PaymentKey, u32> = BTreeMap::new();
        for attempt in &self.attempts {
            let (key, number) = (&attempt.key, attempt.number);
            let known = state.payment(key).unwrap().attempt(number).unwrap();
            assert_eq!(known.transaction.compute_txid(), attempt.txid, "safety 11: attempt {number} of {key}");
            assert_eq!(known.end.is_none(), attempt.end.is_none(), "the end of attempt {number} of {key}");
            assert_eq!(known.is_live(), !matches!(attempt.end, Some(End::Dead { .. })), "attempt {number} of {key}");
            if attempt.end.is_none() {
                for outpoint in &attempt.inputs {
                    let claim = state.utxo(outpoint).map(|utxo| &utxo.claim);
                    assert_eq!(claim, Some(&Claim::Exposed(key.payment.clone())), "safety 5 and 6: {outpoint}");
                }
            }
            if chain.depth(attempt.txid) > 0 {
                *confirmed.entry(key).or_default() += 1;
            }
        }
        let twice = confirmed.iter().find(|(key, times)| **times > 1 && !self.broken.contains(&position(&key.wallet)));
        assert_eq!(twice, None, "a payment was paid twice");
    }
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
