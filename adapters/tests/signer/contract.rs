//! What every signer must do. A new one calls [`check`] with itself, and [`logs_what_it_signs`] with a log.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::{Transaction, TxIn, TxOut, Witness};
use onespend_adapters::signer::{Signer, SignerError};
use onespend_core::limits::MAX_OUTPOINTS;
use onespend_core::outcome::Outcome;
use onespend_core::signing::SigningPermit;
use serde_json::Value;

use crate::ledger::{Account, Ledger, account};
use crate::witnesses::assert_valid;

/// How to get a signer of the name "hot", and the accounts that it has keys for, one of each kind that it can sign
/// for. Each part of the suite is a world of its own, so it takes a signer that remembers nothing of the others.
pub struct Subject {
    make: Box<dyn Fn() -> Box<dyn Signer>>,
    pub accounts: Vec<Account>,
}

impl Subject {
    pub fn new<S: Signer>(make: impl Fn() -> S + 'static, accounts: Vec<Account>) -> Self {
        Self { make: Box::new(move || Box::new(make())), accounts }
    }

    pub fn signer(&self) -> Box<dyn Signer> {
        (self.make)()
    }
}

/// The suite.
pub fn check(subject: &Subject) {
    assert_eq!(subject.signer().name(), "hot");
    for account in &subject.accounts {
        signs_exactly_what_is_permitted(subject, account);
        signs_again_with_the_same_txid(subject, account);
        signs_as_many_inputs_as_there_can_be(subject, account);
        signs_from_many_threads(subject, account);
        finds_its_key_without_origin(subject, account);
        refuses_the_permit_of_another_signer(subject, account);
    }
    refuses_a_wallet_that_it_has_no_key_for(subject);
    accepts_epochs_upwards(subject);
}

fn permit(ledger: &mut Ledger, descriptor: &str, signer: &str, coins: u32) -> SigningPermit {
    let coins = ledger.register("w", descriptor, signer, coins);
    ledger.pay("w", "p", &coins)
}

fn prevouts(permit: &SigningPermit) -> Vec<TxOut> {
    permit.inputs().iter().map(|input| input.txout.clone()).collect()
}

fn assert_signed(permit: &SigningPermit, signed: &Transaction) {
    assert_eq!(signed.compute_txid(), permit.txid());
    let stripped = Transaction {
        input: signed.input.iter().map(|input| TxIn { witness: Witness::new(), ..input.clone() }).collect(),
        ..signed.clone()
    };
    assert_eq!(stripped, *permit.transaction());
    assert_valid(signed, &prevouts(permit));
}

fn signs_exactly_what_is_permitted(subject: &Subject, account: &Account) {
    let mut ledger = Ledger::start();
    let permit = permit(&mut ledger, &account.public, "hot", 3);
    assert!(permit.change().is_some(), "change is part of the case");
    let signed = subject.signer().sign(&permit).unwrap();
    assert_signed(&permit, &signed);
    assert_eq!(ledger.record(&permit, &signed), Outcome::Recorded);
}

fn signs_again_with_the_same_txid(subject: &Subject, account: &Account) {
    let permit = permit(&mut Ledger::start(), &account.public, "hot", 2);
    let signer = subject.signer();
    let first = signer.sign(&permit).unwrap();
    let second = signer.sign(&permit).unwrap();
    assert_eq!(first.compute_txid(), second.compute_txid());
    assert_signed(&permit, &second);
}

fn signs_as_many_inputs_as_there_can_be(subject: &Subject, account: &Account) {
    let most = u32::try_from(MAX_OUTPOINTS).unwrap();
    let permit = permit(&mut Ledger::start(), &account.public, "hot", most);
    let signed = subject.signer().sign(&permit).unwrap();
    assert_eq!(signed.input.len(), MAX_OUTPOINTS);
    assert_signed(&permit, &signed);
}

fn signs_from_many_threads(subject: &Subject, account: &Account) {
    let mut ledger = Ledger::start();
    let coins = ledger.register("w", &account.public, "hot", 8);
    let permits: Vec<SigningPermit> =
        coins.iter().enumerate().map(|(at, coin)| ledger.pay("w", &format!("p{at}"), &[*coin])).collect();
    let signer = subject.signer();
    std::thread::scope(|scope| {
        for permit in &permits {
            scope.spawn(|| assert_signed(permit, &signer.sign(permit).unwrap()));
        }
    });
}

fn finds_its_key_without_origin(subject: &Subject, account: &Account) {
    let permit = permit(&mut Ledger::start(), &account.public_bare, "hot", 1);
    assert_signed(&permit, &subject.signer().sign(&permit).unwrap());
}

fn refuses_the_permit_of_another_signer(subject: &Subject, account: &Account) {
    let permit = permit(&mut Ledger::start(), &account.public, "cold", 1);
    let error = subject.signer().sign(&permit).unwrap_err();
    assert_eq!(error, SignerError::WrongSigner { signer: "hot".to_owned(), asked: "cold".to_owned() });
    assert!(!error.retry());
}

fn refuses_a_wallet_that_it_has_no_key_for(subject: &Subject) {
    for kind in ["wpkh", "tr"] {
        let stranger = account(kind, 0xEE);
        let permit = permit(&mut Ledger::start(), &stranger.public, "hot", 1);
        let error = subject.signer().sign(&permit).unwrap_err();
        assert!(matches!(&error, SignerError::WrongKey { signer, .. } if signer == "hot"), "{error:?}");
        assert!(!error.retry());
        assert!(!error.is_unknown());
    }
}

/// One that remembers; where there is no memory, there is nothing to accept.
fn accepts_epochs_upwards(subject: &Subject) {
    let signer = subject.signer();
    let before = signer.accepted_epoch();
    assert!(before.is_none_or(|epoch| epoch == 0), "nobody has accepted anything yet");
    for (epoch, expected) in [(2, 2), (1, 2), (2, 2), (3, 3)] {
        signer.accept_epoch(epoch, "alice").unwrap();
        assert_eq!(signer.accepted_epoch(), before.map(|_| expected));
    }
}

/// For a signer that was given an audit log, which is empty yet: each signature has its line.
pub fn logs_what_it_signs(signer: &dyn Signer, account: &Account, log: &Path) {
    let permit = permit(&mut Ledger::start(), &account.public, "hot", 2);
    let begun = wall_ms();
    signer.sign(&permit).unwrap();
    signer.sign(&permit).unwrap();
    let ended = wall_ms();
    let text = std::fs::read_to_string(log).unwrap();
    let mut written: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(written.len(), 2);
    for line in &mut written {
        let line = line.as_object_mut().unwrap();
        let at = line.remove("at_unix_ms").unwrap().as_u64().unwrap();
        assert!((begun..=ended).contains(&at), "{begun} {at} {ended}");
        // Its witnesses may differ: the signer may draw random nonces.
        let transaction = line.remove("transaction").unwrap();
        assert_signed(&permit, &deserialize_hex(transaction.as_str().unwrap()).unwrap());
    }
    assert_eq!(written[0], written[1], "beside that, the same attempt gives the same line");
    let line = &written[0];
    let outpoints: Vec<String> = permit.inputs().iter().map(|input| input.outpoint.to_string()).collect();
    assert_eq!(line["signer"], "hot");
    assert_eq!(line["wallet"], "w");
    assert_eq!(line["payment_id"], "p");
    assert_eq!(line["attempt"], 1);
    assert_eq!(line["fence"], permit.fence().0);
    assert_eq!(line["txid"], permit.txid().to_string());
    assert_eq!(line["outpoints"], serde_json::to_value(outpoints).unwrap());
    assert_eq!(line["sighashes"].as_array().unwrap().len(), 2);
    assert_eq!(line["digest"].as_str().unwrap().len(), 64);
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}
