//! What earlier versions wrote must be read for ever: log entries, rows, and remembered outcomes, as bytes in
//! `tests/golden/`. A file is never changed; a later form gets a file of its own beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod story;
mod world;

use std::collections::BTreeSet;
use std::path::PathBuf;

use bitcoin::hashes::Hash;
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::{BlockHash, OutPoint, Txid};
use onespend_core::apply::apply;
use onespend_core::command::{BlockRef, Command, DeclareLost, Entry, Followed};
use onespend_core::ids::{Height, LogIndex, Millis, PaymentId, WalletId};
use onespend_core::invariant;
use onespend_core::outcome::{Conflict, FeeLimit, Holder, Outcome, Rejection};
use onespend_core::state::State;
use onespend_core::utxo::Spend;
use onespend_core::wallet::{DescriptorFault, Keychain};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn golden(name: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(path(name)).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    Vec::from_hex(hex).unwrap()
}

/// Compares with the file, or writes it where there is none yet and `ONESPEND_GOLDEN=write` says so.
fn compare(name: &str, head: &str, lines: &[String]) {
    let text = format!("# {head}\n{}\n", lines.join("\n"));
    if !path(name).exists() && std::env::var("ONESPEND_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(path(name), &text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path(name)).unwrap(), text, "{name}: this version writes something else");
}

fn loaded(name: &str) -> State {
    let mut state = State::default();
    for row in golden(name) {
        let key = bytes(row[1].strip_prefix("0x").unwrap());
        state.load_row(row[0].parse().unwrap(), &key, &bytes(&row[2])).unwrap();
    }
    state.finish_loading();
    invariant::check(&state).unwrap();
    state
}

/// What this version writes: the story, and entries about a wallet without descriptors.
fn written() -> Vec<(LogIndex, Entry, Vec<u8>)> {
    let world = story::tell();
    let mut log = world.log.clone();
    for command in story::outpoints(&world) {
        let (index, before, _) = log.last().unwrap().clone();
        let entry = Entry { at: before.at, wall_ms: before.wall_ms, request: None, command };
        log.push((LogIndex(index.0 + 1), entry.clone(), entry.to_bytes()));
    }
    log
}

#[test]
fn this_version_writes_entries_of_version_2_and_rows_of_version_3() {
    let log = written();
    let entry = |(index, entry, bytes): &(LogIndex, Entry, Vec<u8>)| {
        format!("{index} {} {}", entry.command.kind(), bytes.as_hex())
    };
    let entries: Vec<String> = log.iter().map(entry).collect();
    compare("entries-v2.txt", "index, kind and bytes of log entries", &entries);

    let mut replayed = State::default();
    for (index, entry, _) in &log {
        let outcome = apply(&mut replayed, *index, entry);
        assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
    }
    let mut all = rows_of(&mut replayed);
    all.sort();
    compare("rows-v3.txt", "table, key and value of the state's rows after entries-v2", &all);
}

/// A block that says which coins without descriptors it was searched for is a form of its own; one that does not is
/// written as before.
#[test]
fn this_version_writes_blocks_of_version_3() {
    let Some(Command::RegisterOutpoints(follow)) = story::outpoints(&story::tell()).pop() else { panic!() };
    let (previous, height) = (follow.basis.hash, Height(follow.basis.height.0 + 1));
    let block = BlockRef { height, hash: BlockHash::from_byte_array([3; 32]) };
    let connect = |followed| {
        let (received, spent) = (vec![], vec![]);
        let command = Command::ConnectBlock { block, previous, received, spent, wallets: 5, followed };
        Entry { at: Millis(7), wall_ms: 8, request: None, command }
    };
    let entries = [connect(None), connect(Some(Followed([4; 32])))];
    let lines: Vec<String> =
        entries.iter().map(|entry| format!("1 connect_block {}", entry.to_bytes().as_hex())).collect();
    compare("entries-v3.txt", "index, kind and bytes of blocks, the second of which names what is followed", &lines);
    for (line, entry) in golden("entries-v3.txt").iter().zip(&entries) {
        assert_eq!(Entry::from_bytes(&bytes(&line[2])).unwrap(), *entry);
    }
}

/// Raising the feature level came then.
#[test]
fn this_version_writes_feature_levels_of_version_4() {
    let command = Command::RaiseFeatureLevel { level: 2 };
    let entry = Entry { at: Millis(7), wall_ms: 8, request: None, command };
    let line = format!("1 raise_feature_level {}", entry.to_bytes().as_hex());
    compare("entries-v4.txt", "index, kind and bytes of an entry that raises the feature level", &[line]);
    let mut state = State::default();
    assert_eq!(state.feature_level(), 1);
    assert_eq!(apply(&mut state, LogIndex(1), &entry), Outcome::Recorded);
    assert_eq!(state.feature_level(), 2);
    assert!(matches!(apply(&mut state, LogIndex(2), &entry), Outcome::Rejected(Rejection::StaleBasis { .. })));
}

/// Declaring a coin lost came last, and with it a spend that is none of the coin itself. Any other is written as before.
#[test]
fn this_version_writes_lost_coins_of_version_5() {
    let outpoint = OutPoint { txid: Txid::from_byte_array([5; 32]), vout: 1 };
    let (wallet, by, note) = (WalletId::parse("hot").unwrap(), Txid::from_byte_array([6; 32]), "looked up".to_owned());
    let block = BlockRef { height: Height(9), hash: BlockHash::from_byte_array([7; 32]) };
    let command = Command::DeclareLost(DeclareLost { wallet, outpoint, by, block, note });
    let entry = Entry { at: Millis(7), wall_ms: 8, request: None, command };
    let line = format!("1 declare_lost {}", entry.to_bytes().as_hex());
    compare("entries-v5.txt", "index, kind and bytes of an entry that declares a coin lost", &[line]);
    assert_eq!(Entry::from_bytes(&entry.to_bytes()).unwrap(), entry);

    let spends = [None, Some(true)].map(|lost| Spend { txid: by, height: block.height, lost });
    let lines: Vec<String> =
        spends.iter().map(|spend| minicbor::to_vec(spend).unwrap().to_lower_hex_string()).collect();
    let head = "bytes of the spend of a coin, and of one that took the coin away before it was there";
    compare("spends-v4.txt", head, &lines);
    for (line, spend) in golden("spends-v4.txt").iter().zip(&spends) {
        assert_eq!(minicbor::decode::<Spend>(&bytes(&line[0])).unwrap(), *spend);
    }
}

/// All rows of a state that was never drained: each counts as changed. Those that came and went have no value.
fn rows_of(state: &mut State) -> Vec<String> {
    let changed = state.drain_changes().into_iter().filter(|row| row.value.is_some());
    let line = |row: onespend_core::table::StoredRow| {
        format!("{} 0x{} {}", row.table, row.key.as_hex(), row.value.unwrap().as_hex())
    };
    changed.map(line).collect()
}

/// safety 32: every kind of command is among them, and is read as what it was.
#[test]
fn entries_of_every_version_are_read() {
    let later = ["entries-v3.txt", "entries-v4.txt", "entries-v5.txt"].map(|name| (name, 1));
    for (name, known) in [("entries-v1.txt", 16), ("entries-v2.txt", 25)].into_iter().chain(later) {
        let mut kinds = BTreeSet::new();
        for line in golden(name) {
            let entry = Entry::from_bytes(&bytes(&line[2])).unwrap();
            assert_eq!(entry.command.kind(), line[1]);
            kinds.insert(line[1].clone());
        }
        assert_eq!(kinds.len(), known, "{kinds:?}");
    }
}

/// safety 15, 25: replaying the log gives the state that the rows hold. Version 1 kept no audit, and version 2 none of
/// what the chain held back, so of their rows only that they are read.
#[test]
fn rows_of_every_version_are_read() {
    let versions = [("entries-v1.txt", "rows-v1.txt", 8), ("entries-v2.txt", "rows-v2.txt", 10)];
    for (entries, rows, tables) in versions.into_iter().chain([("entries-v2.txt", "rows-v3.txt", 10)]) {
        let mut replayed = State::default();
        for line in golden(entries) {
            let entry = Entry::from_bytes(&bytes(&line[2])).unwrap();
            let outcome = apply(&mut replayed, LogIndex(line[0].parse().unwrap()), &entry);
            assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
        }
        let state = loaded(rows);
        assert_eq!(state.applied(), replayed.applied());
        assert_eq!(rows == "rows-v3.txt", state.hash() == replayed.hash(), "{rows}");
        let found: BTreeSet<String> = golden(rows).into_iter().map(|row| row[0].clone()).collect();
        assert_eq!(found.len(), tables, "a table has no row: {found:?}");
    }
}

#[test]
fn damaged_or_later_rows_and_entries_are_refused() {
    for row in golden("rows-v1.txt") {
        let (table, key, value) = (row[0].parse().unwrap(), bytes(&row[1][2..]), bytes(&row[2]));
        let mut longer = value.clone();
        longer.push(0);
        for damaged in [&value[..value.len() - 1], &longer] {
            assert!(State::default().load_row(table, &key, damaged).is_err(), "table {table}");
        }
        assert!(State::default().load_row(99, &key, &value).is_err());
    }
    for line in golden("entries-v1.txt") {
        let entry = bytes(&line[2]);
        let mut longer = entry.clone();
        longer.push(0);
        assert!(Entry::from_bytes(&entry[..entry.len() - 1]).is_err());
        assert!(Entry::from_bytes(&longer).is_err());
    }
    // An array of five where version 1 has four fields: a later version knows something that this one must not skip.
    let mut later = bytes(&golden("entries-v1.txt")[0][2]);
    later[0] += 1;
    later.push(0x01);
    assert!(Entry::from_bytes(&later).is_err());
}

/// Every outcome and refusal, in the order of their numbers.
fn outcomes() -> Vec<Outcome> {
    let world = story::tell();
    let outpoint = world.coins(0)[0];
    let outpoints = || vec![outpoint];
    let (id, key) = (onespend_core::ids::ReservationId(7), world.state.payments().next().unwrap().0.clone());
    let (text, payment, caller) = (|| "x".to_owned(), || key.payment.clone(), || "client/a");
    let caller = || onespend_core::ids::CallerId::parse(caller()).unwrap();
    let (fence, attempt) = (id.fence(), onespend_core::ids::AttemptNo(1));
    let holders = [Holder::Reservation(id), Holder::Payment(payment()), Holder::Quarantine];
    let conflicts = holders.into_iter().map(|holder| Conflict { outpoint, holder }).collect();
    let mut refusals = vec![
        Rejection::NotStarted,
        Rejection::StaleBasis { what: text() },
        Rejection::WalletUnknown { wallet: None },
        Rejection::WalletExists { wallet: text(), what: text() },
        Rejection::WalletFrozen { why: text() },
        Rejection::WalletWatchOnly,
        Rejection::DescriptorInvalid(DescriptorFault::Syntax { cause: text() }),
        Rejection::LimitsInvalid { rule: text() },
        Rejection::OutpointUnknown { outpoints: outpoints() },
        Rejection::OutpointReserved { conflicts },
        Rejection::OutpointSpent { outpoints: outpoints() },
        Rejection::OutpointImmature { outpoints: outpoints() },
        Rejection::DuplicateInput { outpoint },
        Rejection::OutOfBounds { what: text(), got: 3, min: 1, max: 2 },
        Rejection::ReservationQuota { active: 3 },
        Rejection::ReservationUnknown,
        Rejection::ReservationExpired,
        Rejection::ReservationReleased,
        Rejection::ReservationUsed { payment: payment() },
        Rejection::StaleFence { got: fence, current: fence },
        Rejection::NotOwner { owner: caller() },
        Rejection::RequestIdReused,
        Rejection::PaymentIdReused,
        Rejection::ReservedForOther { payment: payment() },
        Rejection::PaymentUnknown,
        Rejection::PaymentUnresolved { attempt, txid: text() },
        Rejection::ForeignInput { outpoint },
        Rejection::MissingInput { outpoint },
        Rejection::TransactionInvalid { rule: text() },
        Rejection::OutputInvalid { vout: 1, rule: text() },
        Rejection::InsufficientFunds { needed_sat: 2, available_sat: 1 },
        Rejection::FeeLimit { limit: FeeLimit::Fee, got: 2, bound: 1 },
        Rejection::SignatureMismatch,
        Rejection::WalletSignsOutside,
    ];
    refusals.extend(later_refusals(outpoint, payment()));
    refusals.extend(variants());
    let expires = onespend_core::ids::Millis(9);
    let mut outcomes = vec![
        Outcome::Recorded,
        Outcome::WalletChanged,
        Outcome::AddressesGiven { keychain: Keychain::Internal, first: 1, count: 2 },
        Outcome::Reserved { reservation: id, outpoints: outpoints(), expires },
        Outcome::Renewed { expires },
        Outcome::Released,
        Outcome::Permitted { payment: key.clone(), attempt },
    ];
    outcomes.extend(refusals.into_iter().map(Outcome::Rejected));
    outcomes
}

/// The other values of the enums inside refusals.
fn variants() -> Vec<Rejection> {
    let limits = [
        FeeLimit::Feerate,
        FeeLimit::FeerateTooLow,
        FeeLimit::Percent,
        FeeLimit::ReplacementFee,
        FeeLimit::ReplacementFeerate,
    ];
    let network = DescriptorFault::Network { expected: "x".to_owned() };
    let faults = [
        DescriptorFault::Shape,
        network,
        DescriptorFault::Kind,
        DescriptorFault::NotSignable,
        DescriptorFault::Missing,
    ];
    let limits = limits.map(|limit| Rejection::FeeLimit { limit, got: 2, bound: 1 });
    limits.into_iter().chain(faults.map(Rejection::DescriptorInvalid)).collect()
}

/// Refusals that version 1 did not know.
fn later_refusals(outpoint: OutPoint, payment: PaymentId) -> Vec<Rejection> {
    let text = || "x".to_owned();
    let outpoints = || vec![outpoint];
    vec![
        Rejection::ReplacementMissingAnchor { anchor: outpoint },
        Rejection::NotReplaceable { why: text() },
        Rejection::HasDescendants { outpoint, payment },
        Rejection::AbortUnsupported { why: text() },
        Rejection::AbortProofInvalid,
        Rejection::AttemptAborted,
        Rejection::ReservedShare { reserved_sat: 2, bound_sat: 1 },
        Rejection::VelocityLimit { spent_sat: 2, bound_sat: 1, window_ms: 3 },
        Rejection::RecoveryMode { why: text() },
        Rejection::RecoveryRefused { why: text() },
        Rejection::NotQuarantined { outpoints: outpoints() },
        Rejection::WalletHasDescriptors,
        Rejection::ChainTooLong { what: text(), got: 2, bound: 1 },
    ]
}

#[test]
fn outcomes_of_version_1_are_read() {
    for line in golden("outcomes-v1.txt") {
        let read: Outcome = minicbor::decode(&bytes(&line[0])).unwrap();
        assert_eq!(minicbor::to_vec(&read).unwrap(), bytes(&line[0]));
    }
}

/// An unknown wallet is named since version 3.
#[test]
fn outcomes_of_version_3_are_read_and_written() {
    let outcome = Outcome::Rejected(Rejection::WalletUnknown { wallet: Some("hot".to_owned()) });
    let line = minicbor::to_vec(&outcome).unwrap().to_lower_hex_string();
    compare("outcomes-v3.txt", "bytes of outcomes and refusals that version 2 wrote otherwise", &[line]);
    let read: Outcome = minicbor::decode(&bytes(&golden("outcomes-v3.txt")[0][0])).unwrap();
    assert_eq!(read, outcome);
}

/// That a coin is not lost is said since version 4.
#[test]
fn outcomes_of_version_4_are_read_and_written() {
    let outcome = Outcome::Rejected(Rejection::NotLost { why: "x".to_owned() });
    let line = minicbor::to_vec(&outcome).unwrap().to_lower_hex_string();
    compare("outcomes-v4.txt", "bytes of the refusal that version 3 did not know", &[line]);
    let read: Outcome = minicbor::decode(&bytes(&golden("outcomes-v4.txt")[0][0])).unwrap();
    assert_eq!(read, outcome);
}

/// Remembered answers are rows too: a retry after an upgrade gets the answer that was given before it.
#[test]
fn outcomes_of_version_2_are_read_and_written() {
    let outcomes = outcomes();
    let lines: Vec<String> =
        outcomes.iter().map(|outcome| minicbor::to_vec(outcome).unwrap().to_lower_hex_string()).collect();
    compare("outcomes-v2.txt", "bytes of every outcome and refusal", &lines);
    for (line, outcome) in golden("outcomes-v2.txt").iter().zip(&outcomes) {
        let read: Outcome = minicbor::decode(&bytes(&line[0])).unwrap();
        assert_eq!(read, *outcome);
        if let Outcome::Rejected(rejection) = &read {
            assert!(!rejection.to_string().is_empty());
        }
    }
    let names: BTreeSet<String> = outcomes
        .iter()
        .map(|outcome| {
            format!("{outcome:?}").replace("Rejected(", "").chars().take_while(|c| c.is_alphanumeric()).collect()
        })
        .collect();
    assert_eq!(names.len(), 7 + 47, "a new outcome needs a line of its own");
}
