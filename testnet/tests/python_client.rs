//! A cluster kept by `up`, and who uses it: a client in another language, generated from `proto/` alone, and the command
//! line.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "python_client/command_line.rs"]
mod command_line;
#[path = "python_client/list.rs"]
mod list;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use command_line::Desk;
use onespend_proto::v1::chain_service_client::ChainServiceClient;
use onespend_proto::v1::{BitcoindState, GetNodeViewsRequest, GetPaymentRequest, NodeView, Payment, PaymentState};
use onespend_testnet::cluster::Credentials;
use onespend_testnet::ports::free_port;
use onespend_testnet::process::Process;
use onespend_testnet::{grpc, programs};

const TO: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
const AMOUNT_SAT: i64 = 10_000;
const PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(50);
const TESTNET: &str = env!("CARGO_BIN_EXE_onespend-testnet");

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pay.py")
}

fn pay(endpoint: &str, who: &Credentials, payment_id: &str) -> Output {
    Command::new(programs::python().unwrap())
        .arg(script())
        .args(["--endpoint", endpoint, "--wallet", "hot", "--payment-id", payment_id])
        .args(["--to", TO, "--amount-sat", &AMOUNT_SAT.to_string(), "--ca"])
        .arg(&who.ca)
        .arg("--cert")
        .arg(&who.cert)
        .arg("--key")
        .arg(&who.key)
        .output()
        .unwrap()
}

/// The client is generated and calls; only the other side is missing.
#[test]
fn the_client_is_generated_and_says_when_nobody_answers() {
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("none.pem");
    fs::write(&pem, "").unwrap();
    let nobody = Credentials { ca: pem.clone(), cert: pem.clone(), key: pem };
    let output = pay(&format!("localhost:{}", free_port().unwrap()), &nobody, "p1");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("UNAVAILABLE") && said.contains("--request-id "), "{said}");
}

#[test]
fn what_cannot_be_asked_is_told_in_one_line() {
    let gone = PathBuf::from("/no/such.pem");
    let nobody = Credentials { ca: gone.clone(), cert: gone.clone(), key: gone };
    for (endpoint, why) in [("localhost:PORT", "PORT must be a number"), ("localhost:1", "/no/such.pem")] {
        let output = pay(endpoint, &nobody, "p1");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(why) && said.lines().count() == 1, "{said}");
    }
}

/// Calls the script's own loop with answers that a service may give: each call takes the next one.
const ANSWERS: &str = r#"
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import contextlib
import io
import types
import grpc
import pay

pay.PAUSE_SECONDS = 0
REQUEST = types.SimpleNamespace(request_id="id-1")


class Refused(grpc.RpcError):
    def __init__(self, code, details):
        self.of, self.bytes = code, details

    def code(self):
        return self.of

    def details(self):
        return "why"

    def trailing_metadata(self):
        return (("grpc-status-details-bin", self.bytes),) if self.bytes else None


def told(*answers):
    asked = []

    def call(request, timeout):
        asked.append(request)
        answer = answers[len(asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return pay.ask(call, REQUEST), asked
    except SystemExit as end:
        return (end.code, said.getvalue().strip()), asked


def assert_unknown(error):
    (code, said), asked = told(*[error] * pay.TRIES)
    assert asked == [REQUEST] * pay.TRIES, asked
    assert code == 3 and said.startswith("perhaps applied, ask again with --request-id id-1: "), (code, said)


retry = b"NOT_LEADER type.googleapis.com/google.rpc.RetryInfo"
precondition, lost = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAVAILABLE
again = told(Refused(precondition, retry), Refused(lost, b""), "paid")
assert again == ("paid", [REQUEST] * 3), again
final = told(Refused(precondition, b"INSUFFICIENT_FUNDS"), "paid")
assert final == ((1, "refused: FAILED_PRECONDITION: why"), [REQUEST]), final
assert_unknown(Refused(lost, b""))

# Of the service it is a refusal; of a library, or of another service, it may be about an answer that was too large.
exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
info = b"type.googleapis.com/google.rpc.ErrorInfo\x12\x20\n\x11RESERVATION_QUOTA\x12"
ours, elsewhere = info + b"\x08onespend", info + b"\x09elsewhere"
final = told(Refused(exhausted, ours), "paid")
assert final == ((1, "refused: RESOURCE_EXHAUSTED: why"), [REQUEST]), final
for details in (b"", elsewhere):
    assert_unknown(Refused(exhausted, details))
"#;

/// safety 27.
#[test]
fn an_answer_about_one_try_is_asked_again_and_a_refusal_is_final() {
    runs(ANSWERS);
}

/// Holds payments against the script's own judgement, as the service may show them.
const CANCELS: &str = r#"
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import tempfile
import pay

with tempfile.TemporaryDirectory() as folder:
    v1, _ = pay.generate(folder)


def shown(state, txid):
    attempts = [
        v1.Attempt(txid="aa", purpose=v1.ATTEMPT_PURPOSE_PAY),
        v1.Attempt(txid="bb", purpose=v1.ATTEMPT_PURPOSE_CANCEL),
    ]
    return pay.unpaid(v1, v1.Payment(state=v1.PaymentState.Value(state), txid=txid, attempts=attempts))


for state in ("SIGNING", "BROADCAST", "CONFIRMING", "SETTLED"):
    assert shown(f"PAYMENT_STATE_{state}", "aa") is None, state
for state in ("SIGNING", "BROADCAST", "CONFIRMING"):
    code, why = shown(f"PAYMENT_STATE_{state}", "bb")
    assert code == 3 and "being cancelled" in why, (state, code, why)
assert shown("PAYMENT_STATE_CANCELLED", "bb") == (1, "not paid: PAYMENT_STATE_CANCELLED")
assert shown("PAYMENT_STATE_DEAD", "") == (1, "not paid: PAYMENT_STATE_DEAD")
"#;

/// safety 10.
#[test]
fn a_transaction_that_gives_the_coins_back_is_no_payment_to_the_python_client() {
    runs(CANCELS);
}

/// Runs a program beside the script.
fn runs(program: &str) {
    let folder = script().parent().unwrap().to_path_buf();
    let output = Command::new(programs::python().unwrap()).args(["-c", program]).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A cluster kept by `up`, which ends with this value.
struct Up {
    process: Process,
    dir: PathBuf,
    _folder: tempfile::TempDir,
}

impl Up {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("up");
        let arguments =
            ["up", "--seed", "7", "--block-every-s", "1", "--dir", dir.to_str().unwrap()].map(str::to_owned);
        let process = Process::spawn("up", Path::new(TESTNET), &arguments, &folder.path().join("up.log")).unwrap();
        let mut up = Self { process, dir, _folder: folder };
        up.wait("it is ready", |up| up.dir.join("ready.txt").is_file());
        up
    }

    fn wait(&mut self, what: &str, until: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !until(self) {
            self.process.must_run().unwrap();
            assert!(Instant::now() < deadline, "{what}: not in time\n{}", self.process.log_tail());
            thread::sleep(POLL);
        }
    }

    /// The address after this word, as a person would read it off.
    fn address(&self, word: &str) -> String {
        let text = fs::read_to_string(self.dir.join("ready.txt")).unwrap();
        let line = text.lines().find_map(|line| line.trim().strip_prefix(word)).unwrap();
        line.split_whitespace().next().unwrap().to_owned()
    }

    /// The command below a heading.
    fn printed(&self, heading: &str) -> String {
        let text = fs::read_to_string(self.dir.join("ready.txt")).unwrap();
        text.lines().skip_while(|line| *line != heading).nth(1).unwrap().trim().to_owned()
    }

    fn client(&self) -> Credentials {
        let pki = self.dir.join("pki");
        Credentials {
            ca: pki.join("ca.pem"),
            cert: pki.join("client-payouts.pem"),
            key: pki.join("client-payouts.key"),
        }
    }
}

#[test]
fn a_python_client_pays_against_a_cluster_kept_by_up() {
    let mut up = Up::start();
    let (writes, who) = (up.address("writes "), up.client());
    let paid = pay(&writes, &who, "from-python");
    assert!(paid.status.success(), "{}", String::from_utf8_lossy(&paid.stderr));
    let said = String::from_utf8(paid.stdout).unwrap();
    let txid = said.split_whitespace().next().unwrap();
    assert_eq!(txid.len(), 64, "{said}");

    // The same payment id once more, under another request id: still the same transaction.
    let again = pay(&writes, &who, "from-python");
    assert!(String::from_utf8(again.stdout).unwrap().starts_with(txid), "{}", String::from_utf8_lossy(&again.stderr));

    let payment = settled(&up);
    assert_eq!((payment.txid.as_str(), payment.attempts.len()), (txid, 1));
    assert_eq!((payment.owner.as_str(), payment.amount_sat), ("client/payouts", AMOUNT_SAT));

    every_node_tells_of_a_bitcoind_in_sync(&up);
    let desk = Desk::at(&up);
    command_line::the_lines_that_up_prints_do_what_they_say(&up, &desk);
    command_line::each_resource_is_shown_as_a_document(&desk);
    command_line::the_doctor_finds_nothing_that_fails(&up, &desk);

    // `down` ends it in order.
    let down = Command::new(TESTNET).args(["down", "--dir"]).arg(&up.dir).output().unwrap();
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    assert!(up.process.wait(PATIENCE).unwrap().success(), "{}", up.process.log_tail());
}

/// Where reads go, through the balancer.
fn reads(up: &Up) -> SocketAddr {
    let port: u16 = up.address("reads ").rsplit(':').next().unwrap().parse().unwrap();
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Whoever is asked shows all three, each with what its own bitcoind says.
fn every_node_tells_of_a_bitcoind_in_sync(up: &Up) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = ChainServiceClient::new(grpc::channel(reads(up), &up.client()).unwrap());
        let deadline = Instant::now() + PATIENCE;
        // A bitcoind that has just not heard of a block is behind for a moment.
        let views = loop {
            let views = client.get_node_views(GetNodeViewsRequest {}).await.map(|answer| answer.into_inner().views);
            match views {
                Ok(views) if views.iter().all(is_in_sync) => break views,
                other => assert!(Instant::now() < deadline, "{other:?}"),
            }
            tokio::time::sleep(POLL).await;
        };
        assert_eq!(views.iter().map(|view| view.node_id).collect::<Vec<_>>(), [1, 2, 3], "{views:?}");
        for view in &views {
            let bitcoind = view.bitcoind.as_ref().unwrap();
            assert!(view.reachable && view.error.is_empty() && view.applied_index > 0, "{view:?}");
            assert_eq!((bitcoind.chain.as_str(), bitcoind.initial_block_download), ("regtest", false), "{view:?}");
            assert!(bitcoind.tip.is_some() && bitcoind.peers >= 2, "{view:?}");
        }
    });
}

fn is_in_sync(view: &NodeView) -> bool {
    view.bitcoind.as_ref().is_some_and(|bitcoind| bitcoind.state() == BitcoindState::InSync)
}

/// The payment, once the blocks that `up` mines have settled it.
fn settled(up: &Up) -> Payment {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let channel = grpc::channel(reads(up), &up.client()).unwrap();
        let mut client = onespend_proto::v1::payment_service_client::PaymentServiceClient::new(channel);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = GetPaymentRequest { wallet_id: "hot".to_owned(), payment_id: "from-python".to_owned() };
            let payment = client.get_payment(request).await.map(|answer| answer.into_inner().payment.unwrap());
            match payment {
                Ok(payment) if payment.state() == PaymentState::Settled => return payment,
                other => assert!(Instant::now() < deadline, "{other:?}"),
            }
            tokio::time::sleep(POLL).await;
        }
    })
}
