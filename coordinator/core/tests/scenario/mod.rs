//! Runs a scenario: one line, one step. `step -> result` says what must come of it; without a result it must be
//! accepted. Lines that begin with `#` are for the reader. The steps are described in `tests/scenarios/README.md`.

use std::collections::BTreeMap;

use bitcoin::absolute::LockTime;
use bitcoin::{OutPoint, ScriptBuf, Transaction, Txid};
use onespend_core::command::{
    BumpByChild, Change, Command, CreatePayment, PayReserved, Recipient, Relay, Replace, Request, Reserve,
};
use onespend_core::ids::{AttemptNo, Fence, Millis, PaymentId, PaymentKey, ReservationId, WalletId};
use onespend_core::limits::{DEFAULT_RESERVATION_TTL, Velocity, WalletLimits};
use onespend_core::outcome::{Holder, Outcome, Rejection};
use onespend_core::settlement::attempt_state;
use onespend_core::wallet::Keychain;

use crate::world::World;
use crate::world::chain::{foreign_script, transaction};
use crate::world::wallets::fixtures;

/// A scenario while it runs: the world, and the names that its lines gave.
pub struct Scenario {
    world: World,
    coins: BTreeMap<String, OutPoint>,
    transactions: BTreeMap<String, Txid>,
    reservations: BTreeMap<String, ReservationId>,
    last: Option<Request>,
}

/// The words of one step: plain ones, and those of the form `name=value`.
struct Words<'a> {
    plain: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn of(step: &'a str) -> Self {
        let (mut plain, mut named) = (Vec::new(), BTreeMap::new());
        for word in step.split_whitespace() {
            match word.split_once('=') {
                Some((name, value)) => drop(named.insert(name, value)),
                None => plain.push(word),
            }
        }
        Self { plain, named }
    }

    fn at(&self, position: usize) -> &'a str {
        self.plain.get(position).unwrap_or_else(|| panic!("word {position} is missing"))
    }

    fn at_or_empty(&self, position: usize) -> &'a str {
        self.plain.get(position).unwrap_or(&"")
    }

    fn number(&self, name: &str, default: u64) -> u64 {
        self.named.get(name).map_or(default, |text| number(text))
    }

    fn list(&self, name: &str) -> Vec<&'a str> {
        self.named.get(name).map_or(Vec::new(), |text| text.split(',').collect())
    }
}

fn number(text: &str) -> u64 {
    text.replace('_', "").parse().unwrap_or_else(|_| panic!("{text} is not a number"))
}

/// `10s`, `10m`, `24h`.
fn millis(text: &str) -> u64 {
    let (count, unit) = text.split_at(text.len() - 1);
    let unit = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => panic!("{text} is not a time"),
    };
    number(count) * unit
}

fn wallet(name: &str) -> usize {
    fixtures().iter().position(|fixture| fixture.id.as_str() == name).unwrap_or_else(|| panic!("no wallet {name}"))
}

/// `w1/3` is the fourth receiving address of `w1`, `w1/i3` its fourth change address.
fn address(text: &str) -> (usize, Keychain, u32) {
    let (name, index) = text.split_once('/').unwrap_or_else(|| panic!("{text} is not an address"));
    let (keychain, index) = match index.strip_prefix('i') {
        Some(index) => (Keychain::Internal, index),
        None => (Keychain::External, index),
    };
    (wallet(name), keychain, u32::try_from(number(index)).unwrap())
}

/// A script by name: an address of a wallet, or anybody else's.
fn script(text: &str) -> ScriptBuf {
    if text.contains('/') {
        let (wallet, keychain, index) = address(text);
        return fixtures()[wallet].script(keychain, index);
    }
    foreign_script(text.bytes().fold(1, |sum, byte| sum * 256 + u64::from(byte)))
}

fn outputs(list: &[&str]) -> Vec<(ScriptBuf, u64)> {
    list.iter()
        .map(|text| {
            let (to, sat) = text.split_once(':').unwrap_or_else(|| panic!("{text} is not an output"));
            (script(to), number(sat))
        })
        .collect()
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

    fn state_of(&self, what: &str) -> String {
        let state = &self.world.state;
        if what.contains('#') && !what.contains('/') {
            let (key, attempt) = self.attempt(what);
            let attempt = state.payment(&key).unwrap().attempt(attempt).unwrap_or_else(|| panic!("no {what}"));
            return spelled(&format!("{:?}", attempt_state(state, attempt)));
        }
        if let Some(id) = self.reservations.get(what) {
            return match (state.reservation(*id), state.ended_reservation(*id)) {
                (Some(_), _) => "active".to_owned(),
                (None, Some(ended)) => spelled(&format!("{ended:?}")),
                (None, None) => "unknown".to_owned(),
            };
        }
        if let Some(fixture) = fixtures().iter().find(|fixture| fixture.id.as_str() == what) {
            let frozen = state.wallet(&fixture.id).unwrap().frozen.is_some();
            return if frozen { "frozen" } else { "working" }.to_owned();
        }
        if let Some((_, payment)) = state.payments().find(|(key, _)| key.payment.as_str() == what) {
            let end = if payment.is_cancelled() { "cancelled" } else { "settled" };
            return if payment.is_settled() { end } else { "open" }.to_owned();
        }
        let Some(utxo) = state.utxo(&self.coin(what)) else { return "unknown".to_owned() };
        let depth = state.wallet(&utxo.wallet).unwrap().limits.finality_depth;
        spelled(&format!("{:?}", utxo.state(state.tip().unwrap().height, depth)))
    }

    fn describe(&mut self, outcome: &Outcome, expected: &str) -> String {
        match outcome {
            Outcome::Recorded | Outcome::WalletChanged | Outcome::Released | Outcome::Renewed { .. } => "ok".to_owned(),
            Outcome::AddressesGiven { first, count, .. } => format!("{first}..{}", first + count - 1),
            Outcome::Reserved { reservation, .. } => {
                let known = self.reservations.entry(expected.to_owned()).or_insert(*reservation);
                assert_eq!(known, reservation, "{expected} is another reservation");
                expected.to_owned()
            }
            Outcome::Permitted { payment, attempt } => format!("{}#{attempt}", payment.payment),
            Outcome::Rejected(rejection) => self.describe_refusal(rejection),
        }
    }

    fn describe_refusal(&self, rejection: &Rejection) -> String {
        let coins = |outpoints: &[OutPoint]| -> Vec<String> { outpoints.iter().map(|o| self.name(o)).collect() };
        let details = match rejection {
            Rejection::OutpointUnknown { outpoints }
            | Rejection::OutpointSpent { outpoints }
            | Rejection::OutpointImmature { outpoints }
            | Rejection::NotQuarantined { outpoints } => coins(outpoints),
            Rejection::OutpointReserved { conflicts } => conflicts
                .iter()
                .map(|conflict| {
                    let holder = match &conflict.holder {
                        Holder::Reservation(id) => self.reservation_name(*id),
                        Holder::Payment(payment) => payment.to_string(),
                        Holder::Quarantine => "quarantine".to_owned(),
                    };
                    format!("{}={holder}", self.name(&conflict.outpoint))
                })
                .collect(),
            Rejection::ReplacementMissingAnchor { anchor: outpoint }
            | Rejection::HasDescendants { outpoint, .. }
            | Rejection::DuplicateInput { outpoint }
            | Rejection::ForeignInput { outpoint }
            | Rejection::MissingInput { outpoint } => coins(&[*outpoint]),
            Rejection::PaymentUnresolved { attempt, .. } => vec![format!("#{attempt}")],
            Rejection::FeeLimit { limit, .. } => vec![format!("{limit:?}")],
            Rejection::NotOwner { owner } => vec![owner.to_string()],
            Rejection::ReservationUsed { payment } | Rejection::ReservedForOther { payment } => {
                vec![payment.to_string()]
            }
            Rejection::ReservationQuota { active } => vec![active.to_string()],
            Rejection::OutputInvalid { vout, .. } => vec![vout.to_string()],
            Rejection::VelocityLimit { spent_sat, .. } => vec![spent_sat.to_string()],
            Rejection::ReservedShare { reserved_sat, .. } => vec![reserved_sat.to_string()],
            _ => vec![],
        };
        let debug = format!("{rejection:?}");
        let variant = debug.split(|c: char| !c.is_alphanumeric()).next().unwrap();
        std::iter::once(format!("refused {variant}")).chain(details).collect::<Vec<_>>().join(" ")
    }

    fn name(&self, outpoint: &OutPoint) -> String {
        let known = self.coins.iter().find(|(_, known)| *known == outpoint);
        known.map_or_else(|| "nowhere".to_owned(), |(name, _)| name.clone())
    }

    fn reservation_name(&self, id: ReservationId) -> String {
        let known = self.reservations.iter().find(|(_, known)| **known == id);
        known.map_or_else(|| id.to_string(), |(name, _)| name.clone())
    }
}

fn key(wallet: &str, payment: &str) -> PaymentKey {
    PaymentKey { wallet: WalletId::parse(wallet).unwrap(), payment: PaymentId::parse(payment).unwrap() }
}

fn recipients(list: &[&str]) -> Vec<Recipient> {
    outputs(list).into_iter().map(|(script, amount_sat)| Recipient { script, amount_sat }).collect()
}

fn limits(words: &Words) -> WalletLimits {
    let default = WalletLimits::default();
    let small = |name, default: u32| u32::try_from(words.number(name, u64::from(default))).unwrap();
    WalletLimits {
        max_fee_sat: words.number("max_fee", default.max_fee_sat),
        max_feerate_sat_kvb: words.number("max_feerate_kvb", default.max_feerate_sat_kvb),
        max_fee_percent: small("max_percent", default.max_fee_percent),
        finality_depth: small("depth", default.finality_depth),
        max_reservations: small("max_reservations", default.max_reservations),
        max_reserved_percent: words.named.get("max_reserved").map(|text| u32::try_from(number(text)).unwrap()),
        velocity: words.named.get("velocity").map(|text| {
            let (sat, window) = text.split_once('/').unwrap_or_else(|| panic!("{text} is not SAT/TIME"));
            Velocity { window: Millis(millis(window)), max_sat: number(sat) }
        }),
        spend_unconfirmed_change: words.named.get("unconfirmed").map(|text| *text == "yes"),
    }
}

/// `SpentPending` as `spent pending`, and without the facts that follow in brackets.
fn spelled(debug: &str) -> String {
    let name = debug.split('(').next().unwrap();
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}
