//! The cluster that will be lost, its payments, and waiting for what must come.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::hashes::{Hash, hash160};
use bitcoin::{Amount, Block, ScriptBuf, Transaction, Txid, WPubkeyHash};
use onespend_proto::client::{Client, ClientError};
use onespend_proto::v1::recipient::Destination;
use onespend_proto::v1::{self, PaymentState};
use onespend_testnet::bitcoind::wait_for_same_tip;
use onespend_testnet::cluster::{Addresses, Cluster, FINALITY_DEPTH, Folder, Node};
use onespend_testnet::hot::{self, WALLET};
use onespend_testnet::oracle::chain::{self, Orders};
use onespend_testnet::oracle::deaths::Spends;
use onespend_testnet::oracle::signer_log::{self, Signature};
use onespend_testnet::{grpc, health, programs};
use serde_json::{Value, json};

const NODES: usize = 3;
const SEED: u64 = 29;
const COINS: usize = 40;
const COIN_SAT: u64 = 1_000_000;
/// More than a branch of the wallet's descriptor gives out: one for each attempt, a few addresses, and the thousand that a
/// restore leaves out.
const SCRIPTS: u32 = 3_000;
/// What each payment pays.
pub const AMOUNT_SAT: i64 = 400_000;
/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(50);
/// For an answer of a health port.
pub const ASK: Duration = Duration::from_secs(5);
const CALL_DEADLINE: Duration = Duration::from_secs(30);

static TURN: Mutex<()> = Mutex::new(());

/// A cluster, while it is its turn.
pub struct Scene {
    pub cluster: Cluster,
    pub client: Client,
    /// Every payment whose transaction should be in a block at the end.
    pub paid: Vec<String>,
    /// Transactions that give the coins of a payment back, which an earlier cluster may have signed with other coins.
    pub cancellations: Vec<String>,
    orders: Orders,
    first_height: u32,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    /// A cluster with a wallet that has coins.
    pub async fn start(name: &str) -> Self {
        let mut scene = Self::without_wallet(name);
        hot::prepare(&mut scene.cluster, COINS, Amount::from_sat(COIN_SAT)).await.unwrap();
        scene
    }

    fn without_wallet(name: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        programs::check_all().unwrap();
        let folder = Folder::temporary(name).unwrap();
        let cluster = Cluster::start(folder, NODES, SEED, &mut |_| {}).unwrap();
        let first_height = cluster.bitcoinds()[0].height().unwrap() + 1;
        let addresses: Vec<Addresses> = cluster.nodes().iter().map(Node::addresses).collect();
        let client = following(&addresses, cluster.client());
        let (paid, cancellations, orders) = (Vec::new(), Vec::new(), Orders::default());
        Self { cluster, client, paid, cancellations, orders, first_height, _turn: turn }
    }

    /// The bitcoinds end as well.
    pub fn finish(self) {
        self.cluster.finish().unwrap();
    }

    /// Tells the judge who is paid by a payment.
    pub fn expect(&mut self, payment_id: &str) {
        let amount = Amount::from_sat(AMOUNT_SAT.unsigned_abs());
        self.orders.add(payee(payment_id), payment_id, amount).unwrap();
    }

    pub async fn pay(&mut self, payment_id: &str) -> v1::Payment {
        self.expect(payment_id);
        self.paid.push(payment_id.to_owned());
        self.client.create_payment(order(payment_id)).await.unwrap().payment.unwrap()
    }

    /// Mines until these payments are settled.
    pub async fn settle(&mut self, payment_ids: &[&str]) {
        let client = self.client.clone();
        self.settled(&client, payment_ids).await;
    }

    /// The same by another cluster, of payments that it made.
    pub async fn settle_with(&mut self, client: &Client, payment_ids: &[&str]) {
        self.paid.extend(payment_ids.iter().map(|payment_id| (*payment_id).to_owned()));
        self.settled(client, payment_ids).await;
    }

    async fn settled(&mut self, client: &Client, payment_ids: &[&str]) {
        eventually("the payments settle", async || {
            for payment_id in payment_ids {
                let request =
                    v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: (*payment_id).to_owned() };
                let found = client.get_payment(request).await.map_err(|error| error.to_string())?.payment.unwrap();
                if found.state() != PaymentState::Settled {
                    self.mine(1);
                    return Err(format!("{found:?}"));
                }
            }
            Ok(())
        })
        .await;
    }

    pub fn mine(&mut self, blocks: u32) {
        let (funds, bitcoind) = self.cluster.funds().unwrap();
        let script = funds.script().clone();
        bitcoind.mine(blocks, &script).unwrap();
        wait_for_same_tip(self.cluster.bitcoinds()).unwrap();
    }

    /// Waits until every payment was taken by a bitcoind, and all mempools hold the same: so the one that mines has it.
    pub async fn all_relayed(&self) {
        use PaymentState::{Broadcast, Confirming, Settled};
        eventually("every payment is relayed", async || {
            for payment_id in &self.paid {
                let request = v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: payment_id.clone() };
                let found = self.client.get_payment(request).await.map_err(|error| error.to_string())?.payment.unwrap();
                if !matches!(found.state(), Broadcast | Confirming | Settled) {
                    return Err(format!("{found:?}"));
                }
            }
            Ok(())
        })
        .await;
        eventually("the mempools hold the same", async || {
            let mut pools = Vec::new();
            for bitcoind in self.cluster.bitcoinds() {
                let mut pool: Vec<String> =
                    bitcoind.call("getrawmempool", &[]).map_err(|error| format!("{error:#}"))?;
                pool.sort_unstable();
                pools.push(pool);
            }
            if pools.iter().all(|pool| *pool == pools[0]) { Ok(()) } else { Err(format!("{pools:?}")) }
        })
        .await;
    }

    /// What pays a payment's recipient, in blocks and in any mempool.
    pub fn paid_by(&self, payment_id: &str) -> BTreeSet<Txid> {
        let bitcoinds = self.cluster.bitcoinds();
        let blocks = chain::read_blocks(&bitcoinds[0], self.first_height).unwrap();
        let mut all: Vec<Transaction> = blocks.into_iter().flat_map(|block| block.txdata).collect();
        for bitcoind in bitcoinds {
            let pool: Vec<String> = bitcoind.call("getrawmempool", &[]).unwrap();
            for txid in pool {
                let raw: String = bitcoind.call("getrawtransaction", &[json!(txid)]).unwrap();
                all.push(deserialize_hex(&raw).unwrap());
            }
        }
        let script = payee(payment_id);
        let paying = all.iter().filter(|one| one.output.iter().any(|output| output.script_pubkey == script));
        paying.map(Transaction::compute_txid).collect()
    }

    /// Waits until every mempool has a transaction.
    pub async fn in_every_mempool(&self, txid: &str) {
        eventually("every mempool has it", async || {
            for bitcoind in self.cluster.bitcoinds() {
                let pool: Vec<String> = bitcoind.call("getrawmempool", &[]).map_err(|error| format!("{error:#}"))?;
                if pool.iter().all(|one| one != txid) {
                    return Err(format!("{txid} is not in {pool:?}"));
                }
            }
            Ok(())
        })
        .await;
    }

    /// Takes everything out of all mempools: of what is in no block, only they who signed it have a copy then.
    pub fn empty_mempools(&mut self) {
        for index in 0..NODES {
            self.cluster.bitcoind(index).unwrap().stop().unwrap();
        }
        for index in 0..NODES {
            self.cluster.bitcoind(index).unwrap().restart_with(&["-persistmempool=0"]).unwrap();
        }
    }

    /// Sends a transaction as anybody could who has it.
    pub fn broadcast(&self, transaction: &Transaction) {
        for bitcoind in self.cluster.bitcoinds() {
            bitcoind.send(transaction).unwrap();
        }
    }

    /// Gives a node the lead, and waits until it takes spends.
    pub async fn lead(&self, index: usize) {
        let addresses: Vec<Addresses> = self.cluster.nodes().iter().map(Node::addresses).collect();
        let operator = following(&addresses, self.cluster.operator());
        give_lead(&operator, self.cluster.nodes()[index].id(), addresses[index].health, "/primary").await;
    }

    /// The node whose signer signed for a payment.
    pub fn signer_of(&self, payment_id: &str) -> usize {
        let by = |node: &Node| signed(&node.signer_log(), payment_id) > 0;
        self.cluster.nodes().iter().position(by).unwrap_or_else(|| panic!("nobody signed for {payment_id}"))
    }

    /// The transaction that was signed for a payment, as its signer wrote it down.
    pub fn written_down(&self, payment_id: &str) -> Transaction {
        let log = self.cluster.nodes()[self.signer_of(payment_id)].signer_log();
        let text = std::fs::read_to_string(log).unwrap();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let line = lines.find(|line| line["payment_id"] == payment_id).unwrap();
        deserialize_hex(line["transaction"].as_str().expect("the line has the whole transaction")).unwrap()
    }

    /// Power goes, and the disks with it.
    pub fn lose_all_nodes(&mut self) {
        self.lose_nodes(0..NODES);
    }

    /// The same for some.
    pub fn lose_nodes(&mut self, indices: impl IntoIterator<Item = usize>) {
        for index in indices {
            let node = self.cluster.node(index).unwrap();
            node.kill().unwrap();
            std::fs::remove_dir_all(node.data_folder()).unwrap();
        }
    }

    /// Waits until a node has applied all that the others have by now.
    pub async fn has_all(&self, index: usize) {
        let addresses: Vec<Addresses> = self.cluster.nodes().iter().map(Node::addresses).collect();
        let operator = following(&addresses, self.cluster.operator());
        let mut most = 0;
        for address in &addresses {
            let status = operator.get_status_of(&address.control.to_string()).await.unwrap();
            most = most.max(status.applied_index);
        }
        let control = addresses[index].control.to_string();
        eventually("the node has applied all", async || {
            let status = operator.get_status_of(&control).await.map_err(|error| error.to_string())?;
            if status.applied_index >= most { Ok(()) } else { Err(format!("{} of {most}", status.applied_index)) }
        })
        .await;
    }

    /// The blocks: everybody who should be is paid, once and exactly, and nobody else is; and no signer of either cluster
    /// signed a coin away twice.
    pub fn judge(&self, signer_logs: &[PathBuf]) {
        let depth = usize::try_from(FINALITY_DEPTH).unwrap();
        let blocks = chain::read_blocks(&self.cluster.bitcoinds()[0], self.first_height).unwrap();
        let verdict = chain::judge(&blocks, &self.orders, depth);
        assert!(verdict.is_clean(), "{verdict:?}");
        let mut paid: Vec<&str> = self.paid.iter().map(String::as_str).collect();
        paid.sort_unstable();
        assert_eq!(verdict.settled.iter().map(String::as_str).collect::<Vec<_>>(), paid, "settled by the blocks");
        let own = self.cluster.nodes().iter().map(Node::signer_log);
        let logs = own.chain(signer_logs.iter().cloned()).filter(|log| log.exists());
        // A cancellation pays nobody but the wallet, so it may share no coin with what was signed before a recovery.
        let judged = |one: &Signature| !self.cancellations.contains(&one.txid);
        let signatures: Vec<_> = logs.flat_map(|log| signer_log::read(&log).unwrap()).filter(judged).collect();
        let signers = signer_log::judge(&signatures, &Spends::read(&blocks, depth, |_| 0));
        assert!(signers.is_clean(), "{signers:?}");
        self.cancellations_pay_the_wallet_alone(&blocks);
    }

    /// What is left out for that is held to it.
    fn cancellations_pay_the_wallet_alone(&self, blocks: &[Block]) {
        let branches = self.cluster.wallet().branches();
        let own = branches.iter().flat_map(|branch| self.cluster.bitcoinds()[0].scripts(branch, SCRIPTS).unwrap());
        let own: BTreeSet<ScriptBuf> = own.collect();
        for txid in &self.cancellations {
            let mut mined = blocks.iter().flat_map(|block| &block.txdata);
            let found = mined.find(|one| one.compute_txid().to_string() == *txid);
            let outputs = &found.unwrap_or_else(|| panic!("the cancellation {txid} is in no block")).output;
            let gives_back = matches!(outputs.as_slice(), [only] if own.contains(&only.script_pubkey));
            assert!(gives_back, "the cancellation {txid} pays {outputs:?}");
        }
    }
}

pub fn following(addresses: &[Addresses], credentials: &onespend_testnet::cluster::Credentials) -> Client {
    grpc::following_client(addresses, credentials).unwrap().with_deadline(CALL_DEADLINE)
}

/// Gives a node the lead, and waits until its health port says yes on this path.
pub async fn give_lead(operator: &Client, node_id: u64, port: SocketAddr, path: &str) {
    eventually("the node leads", async || {
        if health::status(port, "/leader", ASK) == 200 {
            return Ok(());
        }
        let transfer = v1::TransferLeadershipRequest { node_id, ..Default::default() };
        let answer = operator.transfer_leadership(transfer).await;
        Err(format!("{answer:?}"))
    })
    .await;
    eventually(path, async || match health::status(port, path, ASK) {
        200 => Ok(()),
        status => Err(format!("{path} says {status}")),
    })
    .await;
}

/// How often a payment stands in a signer's log, which may not be there yet.
pub fn signed(log: &std::path::Path, payment_id: &str) -> usize {
    let all = if log.exists() { signer_log::read(log).unwrap() } else { Vec::new() };
    all.iter().filter(|one| one.payment_id == payment_id).count()
}

pub fn order(payment_id: &str) -> v1::CreatePaymentRequest {
    v1::CreatePaymentRequest {
        wallet_id: WALLET.to_owned(),
        payment_id: payment_id.to_owned(),
        recipients: vec![recipient(payment_id)],
        fee: Some(v1::create_payment_request::Fee::FeerateSatVb(2.0)),
        ..Default::default()
    }
}

/// Who is paid by a payment: nobody else is.
fn payee(payment_id: &str) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_raw_hash(hash160::Hash::hash(payment_id.as_bytes())))
}

pub fn recipient(payment_id: &str) -> v1::Recipient {
    let script = payee(payment_id).to_bytes().into();
    v1::Recipient { amount_sat: AMOUNT_SAT, destination: Some(Destination::Script(script)) }
}

/// The reason of a refusal.
pub fn reason<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer {
        Err(ClientError::Rejected(rejection)) => rejection.reason,
        other => panic!("refused, wanted; got {other:?}"),
    }
}

/// What the command line says.
pub fn onespend<S: AsRef<str> + std::fmt::Debug>(args: &[S]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The same, where a refusal may pass: what it says then is the error.
pub fn onespend_or_refusal<S: AsRef<str>>(args: &[S]) -> Result<String, String> {
    let output = run(args);
    let said = if output.status.success() { Ok(output.stdout) } else { Err(output.stderr) };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    said.map(text).map_err(text)
}

/// What it says when it refuses.
pub fn onespend_refuses<S: AsRef<str> + std::fmt::Debug>(args: &[S]) -> String {
    let output = run(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn run<S: AsRef<str>>(args: &[S]) -> Output {
    Command::new(programs::onespend().unwrap()).args(args.iter().map(AsRef::as_ref)).output().unwrap()
}

/// Looks again and again until there is something to see; else says what is missing.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(why) => assert!(Instant::now() < deadline, "{what}: not after {PATIENCE:?}: {why}"),
        }
        tokio::time::sleep(POLL).await;
    }
}
