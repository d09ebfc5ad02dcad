//! What a stream tells, over states with many payments.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use bitcoin::bip32::{Xpriv, Xpub};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{BlockHash, Network, OutPoint, ScriptBuf, Txid};
use onespend_core::apply::apply;
use onespend_core::command::{
    BlockRef, Command, CreatePayment, Entry, Received, Recipient, RegisterWallet, Request, Spent,
};
use onespend_core::ids::{CallerId, Height, RequestId, RequestKey};
use onespend_core::limits::WalletLimits;
use onespend_core::outcome::Outcome;
use onespend_core::wallet::{Keychain, SignerRef, WalletDescriptor};

use onespend_adapters::chain::fake::FakeChain;
use tokio_stream::StreamExt;

use super::*;
use crate::grpc::page::MAX_SHOWN_PER_HOLD;
use crate::grpc::watch::Freshness;
use crate::grpc::{reads, status};
use crate::specimen;

fn block(height: u32) -> BlockRef {
    BlockRef { height: Height(height), hash: BlockHash::from_byte_array([u8::try_from(height).unwrap(); 32]) }
}

fn coin(n: usize) -> OutPoint {
    let mut bytes = [1; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    OutPoint::new(Txid::from_byte_array(bytes), 0)
}

fn run(state: &mut State, command: Command) -> Outcome {
    let index = LogIndex(state.applied().0 + 1);
    let request = RequestId::parse(&format!("q{index}")).unwrap();
    let key = RequestKey { caller: CallerId::parse("client/payouts").unwrap(), request };
    let request = Request { key, digest: [0; 32], for_others: false };
    let outcome = apply(state, index, &Entry { at: Millis(0), wall_ms: 0, request: Some(request), command });
    assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
    outcome
}

/// A wallet that has made some payments, one entry each; then one block touched all of them.
fn state(payments: usize) -> State {
    let secp = Secp256k1::new();
    let key = Xpub::from_priv(&secp, &Xpriv::new_master(Network::Regtest, &[9; 32]).unwrap());
    let descriptor = format!("wpkh({key}/<0;1>/*)");
    let script = WalletDescriptor::parse(&descriptor, Network::Regtest).unwrap();
    let script = script.script(Keychain::External, 0).unwrap();
    let wallet = WalletId::parse("w").unwrap();
    let found = (0..payments).map(|n| Received {
        outpoint: coin(n),
        wallet: wallet.clone(),
        value_sat: 100_000,
        script: script.clone(),
        keychain: Keychain::External,
        index: 0,
        coinbase: false,
        height: Height(100),
    });
    let register = RegisterWallet {
        wallet: wallet.clone(),
        descriptor,
        signer: SignerRef::Named("hot".to_owned()),
        limits: WalletLimits::default(),
        basis: block(200),
        found: found.collect(),
        fence_key: None,
    };
    let mut state = State::default();
    run(&mut state, Command::Start { network: Network::Regtest, tip: block(200) });
    run(&mut state, Command::RegisterWallet(register));
    let to = ScriptBuf::from_hex("00140102030405060708090a0b0c0d0e0f1011121314").unwrap();
    for n in 0..payments {
        let key = PaymentKey { wallet: wallet.clone(), payment: PaymentId::parse(&format!("p{n}")).unwrap() };
        let recipients = vec![Recipient { script: to.clone(), amount_sat: 50_000 }];
        run(
            &mut state,
            Command::CreatePayment(CreatePayment { key, recipients, outpoints: vec![coin(n)], fee_sat: 500 }),
        );
    }
    let spent = (0..payments).map(|n| Spent { outpoint: coin(n), txid: Txid::from_byte_array([9; 32]) });
    run(
        &mut state,
        Command::ConnectBlock {
            block: block(201),
            previous: block(200).hash,
            received: vec![],
            spent: spent.collect(),
            wallets: 1,
            followed: None,
        },
    );
    state
}

/// What a caller is told who follows from an index, whose stream breaks after every message, and who resumes from the
/// last index received; at most so many messages.
fn told_across_breaks(state: &State, filter: &Filter, breaks: usize) -> Vec<String> {
    let (mut told, mut resume) = (Vec::new(), LogIndex(0));
    let mut name = |message: &v1::WatchPaymentsResponse| {
        told.push(message.payment.as_ref().unwrap().payment_id.clone());
        LogIndex(message.applied_index)
    };
    for _ in 0..breaks {
        let (batch, _, _) = changes(state, filter, &Told { index: resume, within: None });
        resume = name(batch.first().unwrap());
    }
    let mut at = Told { index: resume, within: None };
    loop {
        let (batch, up_to, more) = changes(state, filter, &at);
        assert!(batch.len() <= MAX_SHOWN_PER_HOLD);
        for message in &batch {
            name(message);
        }
        at = up_to;
        if !more {
            assert_eq!(at, Told { index: state.applied(), within: None });
            return told;
        }
    }
}

fn all_names(payments: usize) -> Vec<String> {
    let mut names: Vec<_> = (0..payments).map(|n| format!("p{n}")).collect();
    names.sort();
    names
}

#[test]
fn an_entry_that_changed_more_than_one_hold_may_tell_is_told_whole() {
    let payments = 2 * MAX_SHOWN_PER_HOLD + 5;
    let state = state(payments);
    assert_eq!(told_across_breaks(&state, &Filter::default(), 0), all_names(payments));
}

#[test]
fn a_caller_whose_stream_breaks_within_an_entry_misses_nothing() {
    let state = state(5);
    let mut told = told_across_breaks(&state, &Filter::default(), 3);
    told.sort();
    told.dedup();
    assert_eq!(told, all_names(5));
}

#[test]
fn the_last_payment_of_an_entry_says_that_the_entry_was_told() {
    let state = state(5);
    let from = Told { index: LogIndex(0), within: None };
    let (batch, ..) = changes(&state, &Filter::default(), &from);
    let block = state.applied().0;
    let indexes: Vec<_> = batch.iter().map(|message| message.applied_index).collect();
    assert_eq!(indexes, [block - 1, block - 1, block - 1, block - 1, block]);
}

#[test]
fn only_what_was_asked_for_is_told() {
    let state = state(5);
    let of = |wallet: &str, payment: Option<&str>| Filter {
        wallet: WalletId::parse(wallet).ok(),
        payment: payment.and_then(|payment| PaymentId::parse(payment).ok()),
    };
    assert_eq!(told_across_breaks(&state, &of("w", Some("p3")), 0), ["p3"]);
    assert!(told_across_breaks(&state, &of("other", None), 0).is_empty());
}

/// safety 31: the node that differs stops serving, streams included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outvoted_node_opens_no_stream_and_ends_those_that_are_open() {
    let folder = tempfile::TempDir::new().unwrap();
    let api = specimen::api(specimen::leader(&folder).await, FakeChain::new());
    let request = v1::WatchPaymentsRequest::default();
    let mut open = watch_payments(&api, &request).unwrap();
    assert!(open.next().await.unwrap().unwrap().payment.is_none(), "a mark of progress");

    api.alarms.raise(crate::agreement::MISMATCH, "on purpose");
    let release = Command::Release { reservation: onespend_core::ids::ReservationId(1), fence: None };
    api.replica.propose(None, release, Instant::now() + Duration::from_secs(5)).await.unwrap();
    let broken = open.next().await.unwrap().unwrap_err();
    assert!(status::is_for(&broken, v1::ErrorReason::NotServing), "{broken:?}");
    assert!(open.next().await.is_none(), "the stream has ended");
    let refused = watch_payments(&api, &request).err().unwrap();
    assert!(status::is_for(&refused, v1::ErrorReason::NotServing), "{refused:?}");
}

fn is_too_stale(refused: Result<(), Status>) -> bool {
    refused.is_err_and(|refused| status::is_for(&refused, v1::ErrorReason::TooStale))
}

#[test]
fn a_replica_that_is_cut_off_ends_its_streams_at_the_bound() {
    let (bound, fresh_at) = (Duration::from_secs(15), Instant::now());
    let mut freshness = Freshness { bound, fresh_at };
    assert!(freshness.renew(Some(fresh_at), fresh_at + bound).is_ok());
    assert!(is_too_stale(freshness.renew(Some(fresh_at), fresh_at + bound + Duration::from_millis(1))));
}

/// Who led does not know how fresh it is until it has heard of the next leader.
#[test]
fn an_election_ends_no_stream_unless_it_has_no_end() {
    let (bound, begun) = (Duration::from_secs(15), Instant::now());
    let mut freshness = Freshness { bound, fresh_at: begun };
    assert!(freshness.renew(None, begun + Duration::from_secs(14)).is_ok());
    let elected = begun + Duration::from_mins(1);
    assert!(is_too_stale(freshness.renew(None, elected)));
    assert!(freshness.renew(elected.checked_sub(Duration::from_millis(50)), elected).is_ok());
    assert!(freshness.renew(None, elected + Duration::from_secs(14)).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_heard_of_no_leader_opens_no_stream() {
    let folder = tempfile::TempDir::new().unwrap();
    let api = specimen::api(specimen::waiting(&folder).await, FakeChain::new());
    let refused = watch_payments(&api, &v1::WatchPaymentsRequest::default()).err().unwrap();
    assert!(status::is_for(&refused, v1::ErrorReason::TooStale), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_says_so_to_those_who_watch() {
    let folder = tempfile::TempDir::new().unwrap();
    let api = specimen::api(specimen::leader(&folder).await, FakeChain::new());
    let mut open = watch_payments(&api, &v1::WatchPaymentsRequest::default()).unwrap();
    assert!(open.next().await.unwrap().unwrap().payment.is_none(), "a mark of progress");
    api.stopping.cancel();
    let last = open.next().await.unwrap().unwrap_err();
    assert_eq!(last.code(), tonic::Code::Unavailable);
    assert!(status::is_for(&last, v1::ErrorReason::NotServing), "{last:?}");
    assert!(open.next().await.is_none(), "the stream has ended");
}

/// A leader that is the only voter is its own quorum.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_one_is_never_stale() {
    let folder = tempfile::TempDir::new().unwrap();
    let replica = specimen::leader(&folder).await;
    assert!(replica.staleness().is_some_and(|age| age < Duration::from_secs(5)), "{:?}", replica.staleness());
}

/// GetNodeViews waits for no quorum, so it must not look as if it had.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_heard_of_no_leader_does_not_claim_to_be_fresh() {
    let folder = tempfile::TempDir::new().unwrap();
    let api = specimen::api(specimen::waiting(&folder).await, FakeChain::new());
    assert_eq!(reads::unconfirmed(&api).staleness_ms, u64::MAX);
}
