//! A payment's trace reaches from the caller to bitcoind, across threads and duties.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{Network, Transaction, Witness};
use miniscript::Descriptor;
use onespend_adapters::chain::{Bitcoind, BitcoindAuth, BitcoindConfig, Chain};
use onespend_adapters::signer::{Signer, SignerError};
use onespend_core::command::{Command, CreatePayment, Recipient, Relay};
use onespend_core::ids::{AttemptNo, PaymentId, PaymentKey};
use onespend_core::outcome::Outcome;
use onespend_core::signing::SigningPermit;
use onespend_core::wallet::{Keychain, WalletDescriptor};
use opentelemetry_proto::tonic::trace::v1::Span;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Instrument};

use super::tests::{Collector, PARENT, TRACE, hex, of_caller, quiet, to};
use super::*;
use crate::bitcoind::{BitcoindWatch, Settings};
use crate::grpc::decide::{Decisions, Draft};
use crate::health::bitcoind_sync::Rules;
use crate::leader::scripts::SharedScripts;
use crate::leader::sign::Signing;
use crate::leader::{Duty, broadcast};
use crate::parts;
use crate::replica::Replica;
use crate::specimen::{Coin, coin, leader, register, request, script, soon, wallet};

/// A bitcoind whose mempool takes everything.
fn bitcoind() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            while let Some(body) = read(&connection) {
                let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
                let (result, error) = match asked["method"].as_str().unwrap() {
                    "sendrawtransaction" => {
                        let sent: Transaction = deserialize_hex(asked["params"][0].as_str().unwrap()).unwrap();
                        (serde_json::json!(sent.compute_txid()), serde_json::Value::Null)
                    }
                    _ => (serde_json::Value::Null, serde_json::json!({ "code": -5, "message": "not found" })),
                };
                let answer = serde_json::json!({ "result": result, "error": error, "id": asked["id"] }).to_string();
                write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()).unwrap();
            }
        }
    });
    address
}

/// The body of one HTTP request; `None` when there is no further one.
fn read(connection: &TcpStream) -> Option<Vec<u8>> {
    let mut reader = BufReader::new(connection);
    let mut length = 0;
    for line in reader.by_ref().lines() {
        let line = line.ok()?.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            let mut body = vec![0; length];
            reader.read_exact(&mut body).ok()?;
            return Some(body);
        }
    }
    None
}

/// Makes signatures of the right form; the core does not verify them.
struct Scribbler;

impl Signer for Scribbler {
    fn name(&self) -> &'static str {
        "hot"
    }

    fn holds(&self, _: &WalletDescriptor) -> bool {
        true
    }

    fn sign(&self, permit: &SigningPermit) -> Result<Transaction, SignerError> {
        let input = &permit.inputs()[0];
        let definite = permit.descriptor().definite(input.keychain, input.index).unwrap();
        let derived = definite.derived_descriptor(&Secp256k1::verification_only()).unwrap();
        let Descriptor::Wpkh(single) = derived else { panic!("{derived}") };
        let mut transaction = permit.transaction().clone();
        transaction.input[0].witness = Witness::from_slice(&[vec![1; 71], single.as_inner().to_bytes()]);
        Ok(transaction)
    }
}

fn key() -> PaymentKey {
    PaymentKey { wallet: wallet("w"), payment: PaymentId::parse("p").unwrap() }
}

/// Runs the duties of a leader on this bitcoind, pays, and waits until the mempool has the payment.
async fn pay(folder: &TempDir, bitcoind: SocketAddr) {
    let replica = leader(folder).await;
    let auth = BitcoindAuth::UserPass { user: "u".to_owned(), password: "p".to_owned().into() };
    let config = BitcoindConfig::new(format!("http://{bitcoind}"), auth);
    let chain: Arc<dyn Chain> = Arc::new(Bitcoind::new(config, None).unwrap());
    let rules = Rules {
        chain: "regtest".to_owned(),
        genesis: String::new(),
        max_lag_blocks: 1,
        min_peers: 0,
        max_silence: Duration::from_secs(1),
    };
    let (poll, timeout) = (Duration::from_secs(1), Duration::from_secs(1));
    let settings = Settings { network: Network::Regtest, rules, poll, timeout };
    let watch = BitcoindWatch::new(Arc::clone(&chain), parts::state_reader(&replica), settings);
    let (outbox, inbox) = broadcast::queue();
    let signing = Arc::new(Signing::new(Arc::clone(&replica), vec![Arc::new(Scribbler)], outbox, Arc::default()));
    let duty = Duty {
        replica: Arc::clone(&replica),
        chain,
        bitcoind: watch,
        signing: Arc::clone(&signing),
        inbox: Arc::clone(&inbox),
        alarms: Arc::default(),
        scripts: SharedScripts::default(),
        network: Network::Regtest,
    };
    let stop = CancellationToken::new();
    let duties = tokio::spawn(crate::leader::run(Arc::new(duty), stop.clone()));
    // The duty that broadcasts has taken its inbox, and with it begun its first round: what is signed from now on comes to
    // it through there, with its trace.
    while inbox.try_lock().is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    replica.propose(None, register("w", &[Coin::of(100_000)]), soon()).await.unwrap();

    let span = tracing::info_span!("CreatePayment");
    accept_parent(&span, &of_caller());
    order(&replica, &signing).instrument(span).await;
    let mut positions = replica.positions();
    let is_in_mempool = || {
        replica.read(|state| {
            let attempt = state.payment(&key()).and_then(|payment| payment.attempt(AttemptNo(1)));
            attempt.is_some_and(|attempt| attempt.relay == Some(Relay::Accepted))
        })
    };
    let done = tokio::time::timeout_at(soon().into(), positions.wait_for(|_| is_in_mempool())).await;
    done.expect("no mempool has the payment").unwrap();
    stop.cancel();
    duties.await.unwrap();
}

/// What the handler of CreatePayment does once the coins are chosen.
async fn order(replica: &Arc<Replica>, signing: &Arc<Signing>) {
    let recipients = vec![Recipient { script: script("x", Keychain::External, 0), amount_sat: 50_000 }];
    let command = CreatePayment { key: key(), recipients, outpoints: vec![coin(0)], fee_sat: 1_000 };
    let draft = || async { Ok(Draft::of(Command::CreatePayment(command.clone()))) };
    let applied = Decisions::new(Arc::clone(replica)).decide(soon(), request("r"), draft).await.unwrap();
    let Outcome::Permitted { payment, attempt } = applied.outcome else { panic!("{:?}", applied.outcome) };
    signing.sign(&payment, attempt, soon()).await;
}

#[test]
fn a_payments_trace_reaches_from_the_caller_to_bitcoind() {
    let collector = Collector::default();
    let (address, _collecting) = collector.serve();
    let (subscriber, telemetry) = build(&quiet(), &to(address), "demo/node/1", stderr()).unwrap();
    // Tests that run beside this one have no subscriber. While there is a single one in the process, tracing asks the thread
    // that first comes to a place in the code whether anybody listens there, and believes its "nobody" for all threads.
    let _second = Dispatch::new(NoSubscriber::default());
    let dispatch = Dispatch::new(subscriber);
    // Every thread of the runtime, those that may block too, sees the subscriber as it would in the daemon.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&dispatch)))
        .build()
        .unwrap();
    let folder = TempDir::new().unwrap();
    let bitcoind = bitcoind();
    runtime.block_on(async move { tokio::spawn(async move { pay(&folder, bitcoind).await }).await.unwrap() });
    runtime.shutdown_timeout(Duration::from_secs(5));
    assert!(telemetry.flush(Duration::from_secs(5)));

    let spans = collector.spans();
    let traced: Vec<&Span> = spans.iter().filter(|span| hex(&span.trace_id) == TRACE).collect();
    let sent = traced.iter().find(|span| format!("{:?}", span.attributes).contains("sendrawtransaction"));
    let mut span = *sent.unwrap_or_else(|| panic!("bitcoind is not in the trace: {traced:#?}"));
    let mut way = vec![span.name.as_str()];
    while let Some(parent) = traced.iter().find(|one| one.span_id == span.parent_span_id) {
        span = parent;
        way.push(&span.name);
    }
    assert_eq!(way, ["bitcoind", "broadcast", "sign", "CreatePayment"]);
    assert_eq!(hex(&span.parent_span_id), PARENT);
    let under = |name: &str, parent: &str| {
        let parent = traced.iter().find(|one| one.name == parent).unwrap();
        traced.iter().any(|one| one.name == name && one.parent_span_id == parent.span_id)
    };
    assert!(under("propose", "CreatePayment") && under("propose", "sign") && under("signer", "sign"), "{traced:#?}");
}
