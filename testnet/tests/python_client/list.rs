//! A client in another language without a load balancer: the channel of `docs/deploy/client`, which takes every node.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use bitcoin::Amount;
use onespend_proto::v1::{ListPaymentsRequest, Payment};
use onespend_testnet::cluster::{Addresses, Cluster, Credentials, Folder, Node};
use onespend_testnet::hot::{self, WALLET};
use onespend_testnet::process::Signal;
use onespend_testnet::routing::cluster_is_whole;
use onespend_testnet::{grpc, programs};
use tokio::runtime::Runtime;

use super::{AMOUNT_SAT, PATIENCE, TO, script};

const NODES: usize = 3;
const SEED: u64 = 7;
const COINS: usize = 8;
const COIN: Amount = Amount::from_sat(1_000_000);

/// Pays whatever it reads the id of, all over one channel, with the loop of `pay.py`.
const PAYER: &str = r"
import sys, tempfile, uuid
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import pay

endpoint, ca, cert, key, wallet, to, amount_sat = sys.argv[2:]
with tempfile.TemporaryDirectory() as folder:
    payment, service = pay.generate(folder)
    with pay.channel(endpoint, ca, cert, key) as connection:
        call = service.PaymentServiceStub(connection).CreatePayment
        for line in sys.stdin:
            request = payment.CreatePaymentRequest(
                request_id=str(uuid.uuid4()),
                wallet_id=wallet,
                payment_id=line.strip(),
                recipients=[payment.Recipient(address=to, amount_sat=int(amount_sat))],
                feerate_sat_vb=2.0,
            )
            print(pay.ask(call, request).payment.txid, flush=True)
";

/// The process of the client; it ends with this value.
struct Payer {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Payer {
    /// That knows these nodes, in this order.
    fn start(nodes: &[Addresses], who: &Credentials) -> Self {
        let endpoints: Vec<String> = nodes.iter().map(|node| node.data.to_string()).collect();
        let mut child = Command::new(programs::python().unwrap())
            .args(["-c", PAYER])
            .arg(script().parent().unwrap())
            .arg(endpoints.join(","))
            .args([&who.ca, &who.cert, &who.key])
            .args([WALLET, TO, &AMOUNT_SAT.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, orders, answers }
    }

    fn order(&mut self, payment_id: &str) {
        writeln!(self.orders, "{payment_id}").unwrap();
    }

    /// The transaction of the oldest order without an answer. The client gives up by itself after its tries.
    fn txid(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let txid = line.trim().to_owned();
        assert_eq!(txid.len(), 64, "its last words are above");
        txid
    }
}

impl Drop for Payer {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// It is connected to the node that leads, for that is the first on its list. What was under way is asked again, and is done
/// once. (safety 8, 13)
#[test]
fn a_client_with_a_list_of_nodes_goes_on_when_the_one_that_it_uses_dies_and_when_the_next_hangs() {
    let runtime = Runtime::new().unwrap();
    let folder = Folder::temporary("python-list").unwrap();
    let mut cluster = Cluster::start(folder, NODES, SEED, &mut |_| {}).unwrap();
    runtime.block_on(hot::prepare(&mut cluster, COINS, COIN)).unwrap();
    let leader = cluster_is_whole(&mut cluster).unwrap();
    let others: Vec<usize> = (0..NODES).filter(|index| *index != leader).collect();
    let order = [leader, others[0], others[1]];
    let listed = order.map(|index| cluster.nodes()[index].addresses());
    let mut payer = Payer::start(&listed, cluster.client());
    payer.order("list-1");
    let mut told = vec![payer.txid()];

    payer.order("list-2");
    cluster.node(leader).unwrap().kill().unwrap();
    told.push(payer.txid());
    payer.order("list-3");
    told.push(payer.txid());

    cluster.node(leader).unwrap().restart().unwrap();
    cluster_is_whole(&mut cluster).unwrap();
    // The next on the list, to which it went.
    cluster.node(others[0]).unwrap().signal(Signal::Stop).unwrap();
    payer.order("list-4");
    told.push(payer.txid());
    cluster.node(others[0]).unwrap().signal(Signal::Continue).unwrap();
    payer.order("list-5");
    told.push(payer.txid());
    drop(payer);

    cluster_is_whole(&mut cluster).unwrap();
    let mut payments = runtime.block_on(payments(&cluster));
    payments.sort_by(|one, other| one.payment_id.cmp(&other.payment_id));
    let ids: Vec<&str> = payments.iter().map(|payment| payment.payment_id.as_str()).collect();
    assert_eq!(ids, ["list-1", "list-2", "list-3", "list-4", "list-5"]);
    let txids: Vec<&String> = payments.iter().map(|payment| &payment.txid).collect();
    assert_eq!(txids, told.iter().collect::<Vec<_>>());
    assert!(payments.iter().all(|payment| payment.attempts.len() == 1), "{payments:?}");
    cluster.finish().unwrap();
}

async fn payments(cluster: &Cluster) -> Vec<Payment> {
    let addresses: Vec<Addresses> = cluster.nodes().iter().map(Node::addresses).collect();
    let client = grpc::following_client(&addresses, cluster.client()).unwrap().with_deadline(PATIENCE);
    let request = ListPaymentsRequest { wallet_id: WALLET.to_owned(), page_size: 100, ..Default::default() };
    client.list_payments(request).await.unwrap().payments
}

/// What gRPC would take for a name, or refuse when it is too late.
#[test]
fn a_list_is_of_addresses_of_one_kind_and_one_name_stands_for_itself() {
    const TARGETS: &str = r#"
import sys
sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
from onespend_channel import target

assert target(["onespend.example:7800"]) == "onespend.example:7800"
assert target(["10.0.0.1:7800", "10.0.0.2:7800"]) == "ipv4:10.0.0.1:7800,10.0.0.2:7800"
assert target(["[::1]:7800", "[::2]:7800"]) == "ipv6:[::1]:7800,[::2]:7800"
for wrong in [[], ["node-1:7800", "node-2:7800"], ["10.0.0.1:7800", "[::2]:7800"]]:
    try:
        raise AssertionError(target(wrong))
    except ValueError:
        pass
"#;
    let folder = script().parent().unwrap().parent().unwrap().join("docs/deploy/client");
    let output = Command::new(programs::python().unwrap()).args(["-c", TARGETS]).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
