//! Credentials, restarts, pauses and limits: real bitcoind only.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::{Amount, TxOut, Witness};
use onespend_adapters::chain::{
    Bitcoind, BitcoindAuth, BitcoindConfig, BroadcastOutcome, Chain, ChainError, Retry, RpcObserver,
};
use serde_json::json;

use crate::driver::Driver;
use crate::purse::{Purse, coin_of, nobody};
use crate::regtest::{INDEXES, Regtest};

const TIMEOUT: Duration = Duration::from_secs(1);
/// Scheduling on a busy machine; less than a second timeout, so that a request sent twice is seen.
const SLACK: Duration = Duration::from_millis(900);

fn quick(node: &Regtest) -> Bitcoind {
    let config = BitcoindConfig { timeout: TIMEOUT, ..node.config() };
    Bitcoind::new(config, None).unwrap()
}

fn with_password(node: &Regtest, user: &str, password: &str) -> Bitcoind {
    let auth = BitcoindAuth::UserPass { user: user.to_owned(), password: password.into() };
    Bitcoind::new(BitcoindConfig::new(node.url(), auth), None).unwrap()
}

/// What Core's `share/rpcauth/rpcauth.py` prints.
fn rpcauth(user: &str, password: &str) -> String {
    let salt = "00112233445566778899aabbccddeeff";
    let mut engine = HmacEngine::<sha256::Hash>::new(salt.as_bytes());
    engine.input(password.as_bytes());
    format!("-rpcauth={user}:{salt}${}", Hmac::from_engine(engine))
}

#[test]
fn a_restart_with_a_new_cookie_goes_unnoticed() {
    let Some(mut node) = Regtest::start(&[]) else {
        return;
    };
    let chain = node.adapter();
    let before = chain.probe().unwrap().tip;
    let first_cookie = std::fs::read(node.cookie_file()).unwrap();

    node.stop();
    let stopped = chain.probe().unwrap_err();
    assert!(matches!(stopped, ChainError::Transport { sent: false, .. }), "{stopped}");
    assert_eq!((stopped.is_unknown(), stopped.retry()), (false, Retry::Later));
    // A lane without a client finds no cookie.
    let missing = chain.header(before.hash).unwrap_err();
    assert!(matches!(missing, ChainError::Unauthorized { .. }), "{missing}");
    assert!(missing.to_string().contains("cookie file"), "{missing}");

    node.launch(&[]);
    node.wait_until_ready();
    assert_ne!(std::fs::read(node.cookie_file()).unwrap(), first_cookie);
    assert_eq!(chain.probe().unwrap().tip, before);
    assert_eq!(chain.header(before.hash).unwrap().hash, before.hash);
}

#[test]
fn a_node_that_loads_its_blocks_is_starting() {
    let Some(mut node) = Regtest::start(&[]) else {
        return;
    };
    node.mine(1_500, &nobody());
    node.stop();
    let chain = node.adapter();
    node.launch(&["-checkblocks=0", "-checklevel=4"]);
    let start = Instant::now();
    let mut starting = None;
    while let Err(error) = chain.probe() {
        assert!(start.elapsed() < Duration::from_mins(1), "{error}");
        assert_eq!(error.retry(), Retry::Later, "{error}");
        if matches!(error, ChainError::Starting { .. }) {
            starting = Some(error);
        }
    }
    let error = starting.expect("bitcoind answered -28 while it verified blocks");
    assert!(!error.is_unknown());
    assert!(error.to_string().contains("getblockchaininfo"), "{error}");
}

#[test]
fn a_pruned_node_names_the_oldest_block_that_it_still_has() {
    let Some(node) = Regtest::start(&["-prune=1", "-fastprune"]) else {
        return;
    };
    let chain = node.adapter();
    assert_eq!(chain.probe().unwrap().oldest_block, Some(0), "nothing is thrown away yet");
    node.mine(1_000, &nobody());
    node.rpc("pruneblockchain", &[json!(500)]);
    let oldest = chain.probe().unwrap().oldest_block.unwrap();
    assert!((1..=501).contains(&oldest), "{oldest}");
    let block = |height| chain.block(chain.block_hash_at(height).unwrap().unwrap());
    assert!(block(oldest).is_ok());
    assert!(block(oldest - 1).is_err(), "block {} is gone", oldest - 1);
}

#[test]
fn a_stopped_process_is_a_timeout_within_bound_and_then_recovers() {
    let Some(node) = Regtest::start(&[]) else {
        return;
    };
    let purse = Purse::new(1);
    let coin = purse.fund(&node);
    let tx = purse.send(coin, 1_000);
    let chain = quick(&node);
    let tip = chain.probe().unwrap().tip;

    node.signal("STOP");
    let timed = |call: &dyn Fn() -> Option<ChainError>, bound: Duration| {
        let start = Instant::now();
        let error = call().expect("a stopped process does not answer");
        assert!(matches!(error, ChainError::Timeout { .. }), "{error}");
        assert!(error.is_unknown() && error.retry() == Retry::IfHarmless);
        assert!(start.elapsed() < bound + SLACK, "took {:?}", start.elapsed());
    };
    // On a connection that was open before, and on new ones.
    timed(&|| chain.probe().err(), TIMEOUT);
    timed(&|| chain.probe().err(), TIMEOUT);
    timed(&|| chain.broadcast(&tx).err(), TIMEOUT);
    let wait = Duration::from_millis(100);
    timed(&|| chain.wait_tip(tip.hash, wait).err(), TIMEOUT + wait);
    node.signal("CONT");

    assert_eq!(chain.probe().unwrap().tip, tip);
    let outcome = chain.broadcast(&tx).unwrap();
    assert_eq!(outcome, BroadcastOutcome::Accepted, "only mempool lookups timed out before");
}

#[test]
fn callers_behind_a_hung_call_return_in_time_too() {
    let Some(node) = Regtest::start(&[]) else {
        return;
    };
    let chain = Arc::new(quick(&node));
    node.signal("STOP");
    let start = Instant::now();
    let callers: Vec<_> = (0..6)
        .map(|_| {
            let chain = Arc::clone(&chain);
            thread::spawn(move || chain.block_hash_at(0).unwrap_err())
        })
        .collect();
    let errors: Vec<_> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
    assert!(start.elapsed() < TIMEOUT * 2 + SLACK, "took {:?}", start.elapsed());
    node.signal("CONT");
    assert!(errors.iter().any(|e| matches!(e, ChainError::Timeout { .. })));
    for error in errors {
        assert!(matches!(error, ChainError::Timeout { .. } | ChainError::Busy { .. }), "{error}");
    }
}

#[test]
fn a_caller_that_gets_no_turn_in_time_is_busy_and_sent_nothing() {
    let Some(node) = Regtest::start(&[]) else {
        return;
    };
    let chain = Arc::new(quick(&node));
    let tip = chain.probe().unwrap().tip;
    let holder = Arc::clone(&chain);
    let first = thread::spawn(move || holder.wait_tip(tip.hash, Duration::from_secs(5)));
    thread::sleep(Duration::from_millis(100));
    let wait = Duration::from_millis(100);
    let start = Instant::now();
    let error = chain.wait_tip(tip.hash, wait).unwrap_err();
    assert!(matches!(error, ChainError::Busy { .. }), "{error}");
    assert!(!error.is_unknown());
    assert!(start.elapsed() < TIMEOUT + wait + SLACK, "took {:?}", start.elapsed());
    assert_eq!(first.join().unwrap().unwrap(), tip);
}

#[test]
fn a_long_poll_delays_no_other_call() {
    let Some(node) = Regtest::start(&[]) else {
        return;
    };
    let purse = Purse::new(1);
    let coin = purse.fund(&node);
    let chain: Arc<dyn Chain> = Arc::new(node.adapter());
    let tip = chain.probe().unwrap().tip;
    let poller = Arc::clone(&chain);
    let waiter = thread::spawn(move || poller.wait_tip(tip.hash, Duration::from_secs(5)));
    thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    assert_eq!(chain.broadcast(&purse.send(coin, 1_000)).unwrap(), BroadcastOutcome::Accepted);
    chain.probe().unwrap();
    chain.header(tip.hash).unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(!waiter.is_finished());
    assert_eq!(waiter.join().unwrap().unwrap(), tip);
}

#[test]
fn a_wrong_password_is_unauthorized_and_a_right_one_is_not() {
    let Some(node) = Regtest::start(&[&rpcauth("node", "correct horse")]) else {
        return;
    };
    with_password(&node, "node", "correct horse").probe().unwrap();
    for (user, password) in [("node", "wrong"), ("nobody", "correct horse")] {
        let error = with_password(&node, user, password).probe().unwrap_err();
        assert!(matches!(error, ChainError::Unauthorized { .. }), "{error}");
        assert!(!error.is_unknown());
        assert!(error.to_string().contains(user) && !error.to_string().contains(password));
    }
}

#[test]
fn a_full_work_queue_is_busy() {
    let Some(node) = Regtest::start(&["-rpcthreads=1", "-rpcworkqueue=1"]) else {
        return;
    };
    let chain: Arc<dyn Chain> = Arc::new(node.adapter());
    let tip = chain.probe().unwrap().tip;
    // One long poll holds the only worker; one request fills the queue.
    let poller = Arc::clone(&chain);
    let waiter = thread::spawn(move || poller.wait_tip(tip.hash, Duration::from_secs(2)));
    thread::sleep(Duration::from_millis(200));
    let queued = Arc::clone(&chain);
    let second = thread::spawn(move || queued.header(tip.hash));
    thread::sleep(Duration::from_millis(200));

    let error = chain.probe().unwrap_err();
    assert!(matches!(error, ChainError::Busy { .. }), "{error}");
    assert_eq!((error.is_unknown(), error.retry()), (false, Retry::Later));
    waiter.join().unwrap().unwrap();
    second.join().unwrap().unwrap();
    chain.probe().unwrap();
}

#[test]
fn without_indexes_a_spent_confirmed_transaction_stays_ambiguous() {
    let Some(node) = Regtest::start(&[]) else {
        return;
    };
    let purse = Purse::new(1);
    let coin = purse.fund(&node);
    let tx = purse.send(coin, 1_000);
    let child = purse.send(coin_of(&tx, 0), 1_000);
    node.mine_with(&[tx.clone(), child], &nobody());
    let ambiguous = BroadcastOutcome::InputsMissingOrSpent { conflicts: vec![] };
    assert_eq!(node.adapter().broadcast(&tx).unwrap(), ambiguous);
    let rival = purse.send(coin, 5_000);
    assert_eq!(node.adapter().broadcast(&rival).unwrap(), ambiguous);
    let spender = node.adapter().spending_prevout(&[coin.outpoint]).unwrap();
    assert_eq!(spender, [None], "only the mempool is known");
}

#[test]
fn with_either_index_alone_it_is_told_apart() {
    for index in INDEXES {
        let Some(node) = Regtest::start(&[index]) else {
            return;
        };
        let purse = Purse::new(1);
        let coin = purse.fund(&node);
        let tx = purse.send(coin, 1_000);
        let child = purse.send(coin_of(&tx, 0), 1_000);
        let block = node.mine_with(&[tx.clone(), child], &nobody());
        assert_eq!(node.adapter().broadcast(&tx).unwrap(), BroadcastOutcome::AlreadyConfirmed);

        // Mined in a block that is no longer in the active chain, and its input lost to another.
        node.invalidate(block);
        node.mine_with(&[purse.send(coin, 5_000)], &nobody());
        let outcome = node.adapter().broadcast(&tx).unwrap();
        assert!(matches!(outcome, BroadcastOutcome::InputsMissingOrSpent { .. }), "{index}: {outcome:?}");
    }
}

#[test]
fn a_missing_or_false_signature_is_refused() {
    let Some(node) = Regtest::start(&[]) else {
        return;
    };
    let purse = Purse::new(1);
    let coin = purse.fund(&node);
    let mut unsigned = purse.send(coin, 1_000);
    unsigned.input[0].witness = Witness::new();
    let mut altered = purse.send(coin, 1_000);
    altered.output.push(TxOut { value: Amount::from_sat(500), script_pubkey: nobody() });
    for tx in [unsigned, altered] {
        let outcome = node.adapter().broadcast(&tx).unwrap();
        assert!(matches!(outcome, BroadcastOutcome::Rejected { code: -26, .. }), "{outcome:?}");
    }
}

#[test]
fn the_observer_sees_every_call_with_its_end() {
    let Some(node) = Regtest::start(&[]) else {
        return;
    };
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let observer: RpcObserver = Arc::new(move |method, took: Duration, end| {
        assert!(took < Duration::from_secs(10));
        log.lock().unwrap().push((method, end.map_err(ChainError::kind)));
    });
    let chain = Bitcoind::new(node.config(), Some(observer)).unwrap();
    chain.block_hash_at(0).unwrap();
    chain.block_hash_at(9).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(*seen, [("getblockhash", Ok(())), ("getblockhash", Err("rpc"))]);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let password = || BitcoindAuth::UserPass { user: "u".to_owned(), password: "p".into() };
    let urls = [
        "127.0.0.1:8332",
        "https://127.0.0.1:8332",
        "http://127.0.0.1",
        "http://127.0.0.1:0",
        "http://u:p@127.0.0.1:8332",
    ];
    for url in urls {
        let error = Bitcoind::new(BitcoindConfig::new(url, password()), None).err().unwrap();
        assert!(matches!(error, ChainError::Config { .. }), "{url}: {error}");
        assert_eq!(error.retry(), Retry::Never);
    }
    let bad_user = BitcoindAuth::UserPass { user: "a:b".to_owned(), password: "p".into() };
    assert!(Bitcoind::new(BitcoindConfig::new("http://[::1]:8332", bad_user), None).is_err());
    let no_time = BitcoindConfig { timeout: Duration::ZERO, ..BitcoindConfig::new("http://[::1]:8332", password()) };
    assert!(Bitcoind::new(no_time, None).is_err());
    let secret = BitcoindConfig::new("http://h:1", password());
    assert!(!format!("{secret:?}").contains("\"p\""), "{secret:?}");
}
