//! The stores of a follower of three, as they are after a crash, for the tests of what goes on from them.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;

use bitcoin::Network;
use onespend_adapters::store::sqlite::{DataFolder, LogOptions, SqliteLog, SqliteState};
use onespend_adapters::store::{LogKey, LogStore, StateStore};
use onespend_core::command::{Command, CreatePayment, Entry, Recipient, Request};
use onespend_core::ids::{CallerId, Millis, PaymentId, PaymentKey, RequestId, RequestKey};
use onespend_core::state::State;
use onespend_core::wallet::Keychain;
use openraft::EntryPayload;

use super::codec::{self, Marker};
use super::state_machine::{apply_one, batch};
use super::types::{
    Addresses, CommittedLeader, LogEntry, LogId, Membership, Payload, Proposal, StoredMembership, Vote,
};
use super::view::News;
use crate::specimen::{Coin, coin, register, script, tip, wallet};

/// The term of all that they hold, but for a follower's vote.
pub(crate) const TERM: u64 = 3;

pub(crate) fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeader::new(term), index)
}

/// Three voters and a learner.
pub(super) fn members() -> Membership {
    let node = |n: u64| (n, Addresses { control: format!("10.0.0.{n}:7801"), data: format!("10.0.0.{n}:7800") });
    let nodes: BTreeMap<_, _> = [1, 2, 3, 4].map(node).into();
    Membership::new(vec![BTreeSet::from([1, 2, 3])], nodes).unwrap()
}

/// The payment that the last entry orders.
pub(crate) fn paid() -> PaymentKey {
    PaymentKey { wallet: wallet("hot"), payment: PaymentId::parse("p").unwrap() }
}

fn command(index: u64, command: Command) -> Payload {
    let caller = CallerId::parse("client/test").unwrap();
    let key = RequestKey { caller, request: RequestId::parse(&format!("r{index}")).unwrap() };
    let request = Some(Request { key, digest: [0; 32], for_others: false });
    EntryPayload::Normal(Proposal::new(Entry { at: Millis(index), wall_ms: 1_000 + index, request, command }))
}

/// Five entries: members, a blank one, the chain, a wallet with a coin, and a payment.
pub(crate) fn history() -> Vec<LogEntry> {
    let recipients = vec![Recipient { script: script("other", Keychain::External, 0), amount_sat: 50_000 }];
    let create = CreatePayment { key: paid(), recipients, outpoints: vec![coin(0)], fee_sat: 1_000 };
    let payloads = [
        EntryPayload::Membership(members()),
        EntryPayload::Blank,
        command(2, Command::Start { network: Network::Regtest, tip: tip() }),
        command(3, register("hot", &[Coin::of(100_000)])),
        command(4, Command::CreatePayment(create)),
    ];
    (0..).zip(payloads).map(|(index, payload)| LogEntry { log_id: id(TERM, index), payload }).collect()
}

pub(crate) fn append(log: &dyn LogStore, entries: &[LogEntry]) {
    let record = |entry: &LogEntry| (entry.log_id.index, codec::encode_entry(entry).unwrap().into());
    let (tell, told) = mpsc::channel();
    log.append(entries.iter().map(record).collect(), Box::new(move |done| tell.send(done).unwrap()));
    told.recv().unwrap().unwrap();
}

/// Writes the whole history into the log, a vote of a later term, and so many entries into the rows.
pub(crate) fn follower(log: &dyn LogStore, store: &dyn StateStore, applied: usize) {
    let history = history();
    append(log, &history);
    log.put(LogKey::Vote, codec::encode_vote(&Vote::new(5, 2)).unwrap(), Box::new(drop));
    let mut state = State::default();
    for entry in &history[..applied] {
        apply_one(&mut state, entry, &mut News::default()).unwrap();
    }
    write(store, &mut state);
}

/// Writes a state as a node keeps it, with the members that the first entry named.
pub(crate) fn write(store: &dyn StateStore, state: &mut State) {
    let membership = StoredMembership::new(Some(id(TERM, 0)), members());
    let marker = Marker { applied: Some(id(TERM, state.applied().0)), membership, highest_removed: Some(0) };
    store.write(&batch(&marker, state.drain_changes()).unwrap()).unwrap();
}

/// The same on a disk: the payment is in the log, and neither applied nor known to be committed.
pub(crate) fn last_of_three(folder: &DataFolder) {
    let log = SqliteLog::open(folder, LogOptions::default()).unwrap();
    follower(&log, &SqliteState::open(folder).unwrap(), 3);
    log.stop();
}
