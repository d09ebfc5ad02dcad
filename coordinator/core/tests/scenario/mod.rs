//! Runs a scenario: one line, one step. `step -> result` says what must come of it; without a result it must be
//! accepted. Lines that begin with `#` are for the reader. The steps are described in `tests/scenarios/README.md`.

mod answers;
mod words;

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::{OutPoint, Transaction, Txid};
use onespend_core::command::{
    BumpByChild, Change, Command, CreatePayment, DeclareLost, PayReserved, Relay, Replace, Request, Reserve,
};
use onespend_core::ids::{AttemptNo, Fence, Millis, PaymentId, PaymentKey, ReservationId, WalletId};
use onespend_core::limits::DEFAULT_RESERVATION_TTL;
use onespend_core::outcome::Outcome;
use onespend_core::signing::SigningPermit;
use onespend_core::wallet::Keychain;

use self::words::{Words, address, key, limits, millis, number, outputs, recipients, script, wallet};
use crate::world::World;
use crate::world::chain::{foreign_script, transaction};

/// A scenario while it runs: the world, and the names that its lines gave.
pub struct Scenario {
    world: World,
    coins: BTreeMap<String, OutPoint>,
    transactions: BTreeMap<String, Txid>,
    reservations: BTreeMap<String, ReservationId>,
    last: Option<Request>,
}

impl Scenario {
    /// Runs the whole text.
    pub fn run(text: &str) {
        let mut scenario = Self {
            world: World::new(),
            coins: BTreeMap::new(),
            transactions: BTreeMap::new(),
            reservations: BTreeMap::new(),
            last: None,
        };
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                println!("line {number}: {line}");
                scenario.line(line);
            }
        }
    }

    fn line(&mut self, line: &str) {
        let (step, expected) =
            line.split_once("->").map_or((line, "ok"), |(step, result)| (step.trim(), result.trim()));
        if let Some(expectation) = step.strip_prefix("expect ") {
            let (what, state) = expectation.split_once(' ').unwrap_or_else(|| panic!("expect what?"));
            assert_eq!(self.state_of(what), state.trim(), "{what}");
            return;
        }
        let got = match step.split_once(' ') {
            Some(("again", step)) => self.step(step, Some(false), expected),
            Some(("reuse", step)) => self.step(step, Some(true), expected),
            _ => self.step(step, None, expected),
        };
        assert_eq!(got, expected);
        self.world.check();
    }

    /// Does one step, and says what came of it. `reuse` takes the last request's id: for the same request (`false`)
    /// or for another one (`true`).
    fn step(&mut self, step: &str, reuse: Option<bool>, expected: &str) -> String {
        let words = Words::of(step);
        if self.model(&words) {
            return "ok".to_owned();
        }
        if words.at(0) == "permit" {
            let (key, attempt) = self.attempt(words.at(1));
            let permit = SigningPermit::for_attempt(&self.world.state, &key, attempt);
            return if permit.is_some() { "given" } else { "none" }.to_owned();
        }
        let outcome = match words.at(0) {
            "expire" => {
                let reservations = words.plain[1..].iter().map(|name| self.reservations[*name]).collect();
                self.world.duty(Command::Expire { reservations })
            }
            "sign" => self.sign(&words),
            "relay" => {
                let (key, attempt) = self.attempt(words.at(1));
                let refused = || Relay::Refused("min relay fee not met".to_owned());
                let relay = if words.at(2) == "accepted" { Relay::Accepted } else { refused() };
                self.world.duty(Command::RecordRelay { key, attempt, relay })
            }
            "abort" => {
                let (key, attempt) = self.attempt(words.at(1));
                let mut command = self.world.abort(&key, attempt).unwrap();
                if words.at_or_empty(2) == "forged" {
                    command.proof[0] ^= 1;
                }
                self.ask(&words, Command::AbortAttempt(command), reuse)
            }
            "recover" => self.world.duty(Command::EnterRecovery { why: "a test".to_owned() }),
            "reconcile" => {
                let spent_outside = words.plain[1..].iter().map(|name| self.coin(name)).collect();
                self.world.duty(Command::Reconcile { basis: self.world.chain.tip(), spent_outside })
            }
            "register" => self.world.register("operator/alice", wallet(words.at(1)), limits(&words)),
            _ => {
                let command = self.command(&words);
                self.ask(&words, command, reuse)
            }
        };
        self.describe(&outcome, expected)
    }

    fn ask(&mut self, words: &Words, command: Command, reuse: Option<bool>) -> Outcome {
        let caller = format!("client/{}", words.named.get("by").unwrap_or(&"payouts"));
        let mut request = self.world.request(&caller, &command);
        request.for_others = words.named.get("role") == Some(&"any");
        if let (Some(_), Some(last)) = (reuse, &self.last) {
            request.key.request = last.key.request.clone();
        }
        if let (Some(false), Some(last)) = (reuse, &self.last) {
            assert_eq!(request.digest, last.digest, "`again` is for the same request");
        }
        self.last = Some(request.clone());
        self.world.run(Some(request), command)
    }

    /// Steps of the chain and of time. Says whether the step was one.
    fn model(&mut self, words: &Words) -> bool {
        match words.at(0) {
            "wait" => self.world.now += millis(words.at(1)),
            "fund" => {
                let outpoint = self.world.chain.fund(script(words.at(2)), number(words.at(3)));
                self.coins.insert(words.at(1).to_owned(), outpoint);
                self.transactions.insert(words.at(1).to_owned(), outpoint.txid);
            }
            "steal" => {
                let coins: Vec<OutPoint> = words.plain[2..].iter().map(|name| self.coin(name)).collect();
                let txid = self.world.chain.spend(&coins).txid;
                self.transactions.insert(words.at(1).to_owned(), txid);
            }
            "double" => {
                let made = self.transactions[words.at(2)];
                let txid = self.world.chain.double_spend(made).txid;
                self.transactions.insert(words.at(1).to_owned(), txid);
            }
            "broadcast" => {
                let (key, attempt) = self.attempt(words.at(1));
                let unsigned = self.world.state.payment(&key).unwrap().attempt(attempt).unwrap().transaction.clone();
                self.transactions.insert(words.at(1).to_owned(), unsigned.compute_txid());
                self.world.chain.submit(unsigned);
            }
            "forget" => {
                let txid = self.transactions[words.at(1)];
                self.world.chain.pending.retain(|pending| pending.compute_txid() != txid);
            }
            "coinbase" => {
                let reward = (script(words.at(2)), number(words.at(3)));
                assert_eq!(self.world.mine(Some(reward), |_| false), Outcome::Recorded);
                let txid = self.world.chain.blocks.last().unwrap().transactions[0].compute_txid();
                self.coins.insert(words.at(1).to_owned(), OutPoint { txid, vout: 0 });
            }
            "mine" => self.mine(words),
            "reorg" => (0..number(words.at(1))).for_each(|_| drop(self.world.disconnect())),
            _ => return false,
        }
        true
    }

    fn mine(&mut self, words: &Words) {
        let wanted: Vec<Txid> = words.list("only").iter().map(|name| self.transactions[*name]).collect();
        for _ in 0..number(words.at(1)) {
            let pending: Vec<Txid> = self.world.chain.pending.iter().map(Transaction::compute_txid).collect();
            let is_wanted = |at: usize| !words.named.contains_key("only") || wanted.contains(&pending[at]);
            assert_eq!(self.world.mine(None, is_wanted), Outcome::Recorded);
        }
        let missing = wanted.iter().find(|txid| !self.world.chain.mined.contains_key(*txid));
        assert_eq!(missing, None, "the miner could not take all that was wanted");
    }

    fn sign(&mut self, words: &Words) -> Outcome {
        let (key, attempt) = self.attempt(words.at(1));
        let mut signed = self.world.signed(&key, attempt).unwrap_or_else(|| {
            let unsigned = self.world.state.payment(&key).unwrap().attempt(attempt).unwrap();
            unsigned.signed.clone().unwrap_or_else(|| panic!("there is no permit for {}", words.at(1)))
        });
        match words.plain.get(2) {
            None => {}
            Some(&"sighash_none") => {
                let items = signed.input[0].witness.to_vec();
                let mut signature = items[0].clone();
                *signature.last_mut().unwrap() = 2;
                signed.input[0].witness = bitcoin::Witness::from_slice(&[signature, items[1].clone()]);
            }
            Some(&"unsigned") => signed.input[0].witness.clear(),
            Some(&"annex") => signed.input[0].witness.push([0x50, 1]),
            Some(&"scriptsig") => signed.input[0].script_sig = foreign_script(1),
            Some(&"other_output") => signed.output[0].script_pubkey = foreign_script(1),
            Some(other) => panic!("{other}?"),
        }
        self.world.duty(Command::RecordSignature { key, attempt, transaction: signed })
    }

    fn command(&self, words: &Words) -> Command {
        let ttl = words.named.get("ttl").map_or(DEFAULT_RESERVATION_TTL, |text| Millis(millis(text)));
        let wallet_id = |at: usize| WalletId::parse(words.at(at)).unwrap();
        let fence = words.named.get("fence").map(|name| self.fence(name));
        match words.at(0) {
            "freeze" => Command::FreezeWallet { wallet: wallet_id(1), why: "an operator said so".to_owned() },
            "unfreeze" => Command::UnfreezeWallet { wallet: wallet_id(1) },
            "limit" => Command::SetLimits { wallet: wallet_id(1), limits: limits(words) },
            "addresses" => {
                let keychain = if words.at(2) == "change" { Keychain::Internal } else { Keychain::External };
                let count = u32::try_from(number(words.at(3))).unwrap();
                Command::GiveAddresses { wallet: wallet_id(1), keychain, count }
            }
            "reserve" => Command::Reserve(Reserve {
                wallet: wallet_id(1),
                outpoints: words.plain[2..].iter().map(|name| self.coin(name)).collect(),
                ttl,
                payment: words.named.get("for").map(|name| PaymentId::parse(name).unwrap()),
                selected: words.named.contains_key("selected"),
            }),
            "renew" => Command::Renew { reservation: self.reservations[words.at(1)], ttl, fence },
            "release" => Command::Release { reservation: self.reservations[words.at(1)], fence },
            "create" => Command::CreatePayment(CreatePayment {
                key: key(words.at(2), words.at(1)),
                recipients: recipients(&words.list("to")),
                outpoints: words.plain[3..].iter().map(|name| self.coin(name)).collect(),
                fee_sat: words.number("fee", 500),
            }),
            "bump" | "cancel" => {
                let (key, previous) = self.attempt(words.at(1));
                let more = words.plain[2..].iter().map(|name| self.coin(name)).collect();
                let command = Replace { key, previous, more, fee_sat: words.number("fee", 500) };
                if words.at(0) == "bump" { Command::BumpFee(command) } else { Command::CancelPayment(command) }
            }
            "child" => {
                let (key, parent) = self.attempt(words.at(2));
                let child = PaymentId::parse(words.at(1)).unwrap();
                Command::BumpByChild(BumpByChild { key, parent, child, fee_sat: words.number("fee", 500) })
            }
            "free" => Command::ReleaseQuarantined {
                wallet: wallet_id(1),
                outpoints: words.plain[2..].iter().map(|name| self.coin(name)).collect(),
                note: "checked".to_owned(),
            },
            "lost" => {
                let by = self.transactions[words.at(3)];
                let block = self.world.chain.block_of(by).expect("a transaction in a block").at;
                let (wallet, outpoint, note) = (wallet_id(1), self.coin(words.at(2)), "looked up".to_owned());
                Command::DeclareLost(DeclareLost { wallet, outpoint, by, block, note })
            }
            "confirm" => Command::ConfirmRecovery {
                epoch: u32::try_from(words.number("epoch", 1)).unwrap(),
                note: "checked".to_owned(),
            },
            "pay" => Command::PayReserved(self.pay(words)),
            other => panic!("{other} is not a step"),
        }
    }

    /// `pay p1 w1 r1 to=x:20_000 change=w1/0:79_000`, with more words for what is wrong about it.
    fn pay(&self, words: &Words) -> PayReserved {
        // `-` for a replacement that needs no coins but those of the payment.
        let reservation = self.reservations.get(words.at(3)).copied();
        assert!(reservation.is_some() || words.at(3) == "-", "{} is no reservation", words.at(3));
        let held = reservation.and_then(|id| self.world.state.reservation(id));
        let held = held.map_or(Vec::new(), |held| held.outpoints.clone());
        let named: Vec<OutPoint> = words.list("inputs").iter().map(|name| self.coin(name)).collect();
        let mut paid = outputs(&words.list(if words.named.contains_key("pays") { "pays" } else { "to" }));
        let change = words.named.get("change").map(|text| {
            paid.extend(outputs(&[text]));
            let (_, keychain, index) =
                if text.contains('/') { address(text.split_once(':').unwrap().0) } else { (0, Keychain::External, 0) };
            Change { vout: u32::try_from(paid.len()).unwrap() - 1, keychain, index }
        });
        let mut transaction = transaction(if named.is_empty() { &held } else { &named }, paid);
        if let Some(height) = words.named.get("locktime") {
            transaction.lock_time = LockTime::from_height(u32::try_from(number(height)).unwrap()).unwrap();
        }
        if words.plain.contains(&"signed") {
            transaction.input[0].witness.push([1; 64]);
        }
        PayReserved {
            key: key(words.at(2), words.at(1)),
            recipients: recipients(&words.list("to")),
            reservation,
            fence: words
                .named
                .get("fence")
                .map_or_else(|| reservation.map_or(Fence(0), ReservationId::fence), |name| self.fence(name)),
            transaction,
            change,
        }
    }

    fn fence(&self, name: &str) -> Fence {
        self.reservations.get(name).map_or_else(|| Fence(number(name)), |id| id.fence())
    }

    /// A coin by its name, `p1#1/0` for an output of an attempt, or a coin that nobody made.
    fn coin(&self, name: &str) -> OutPoint {
        if let Some((attempt, vout)) = name.split_once('/') {
            let (key, number_) = self.attempt(attempt);
            let txid = self.world.state.payment(&key).unwrap().attempt(number_).unwrap().txid();
            return OutPoint { txid, vout: u32::try_from(number(vout)).unwrap() };
        }
        match name {
            "nowhere" => OutPoint { vout: 7, ..OutPoint::null() },
            name => *self.coins.get(name).unwrap_or_else(|| panic!("no coin {name}")),
        }
    }

    /// `p1#2` is the second attempt of `p1`, of whichever wallet has it.
    fn attempt(&self, name: &str) -> (PaymentKey, AttemptNo) {
        let (payment, attempt) = name.split_once('#').unwrap_or_else(|| panic!("{name} is not an attempt"));
        let found = self.world.state.payments().find(|(key, _)| key.payment.as_str() == payment);
        let (key, _) = found.unwrap_or_else(|| panic!("no payment {payment}"));
        (key.clone(), AttemptNo(u32::try_from(number(attempt)).unwrap()))
    }
}
