//! What every scenario has: a cluster of its own, payments that the judges know of, and waiting for conditions.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::Amount;
use bitcoin::hashes::{Hash, hash160};
use bitcoin::{ScriptBuf, WPubkeyHash};
use onespend_proto::client::{Client, ClientError};
use onespend_proto::v1::recipient::Destination;
use onespend_proto::v1::{self, PaymentState};
use onespend_testnet::chaos::failpoints::{ControlFile, Failpoints};
use onespend_testnet::cluster::{Addresses, Cluster, FINALITY_DEPTH, Folder, Node, Setup};
use onespend_testnet::hot::{self, WALLET};
use onespend_testnet::oracle::chain::{self, ChainVerdict, Orders};
use onespend_testnet::oracle::deaths::Spends;
use onespend_testnet::oracle::hashes::{self, HashSeen};
use onespend_testnet::oracle::intents;
use onespend_testnet::oracle::signer_log::{self, Signature};
use onespend_testnet::{chaos, grpc, health, programs};
use tokio::task::JoinHandle;

pub const NODES: usize = 3;
/// What each coin of the wallet is worth.
pub const COIN_SAT: u64 = 1_000_000;
/// What each payment pays.
pub const AMOUNT_SAT: i64 = 400_000;
/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);
pub const POLL: Duration = Duration::from_millis(20);
const ASK: Duration = Duration::from_millis(500);
const CALL_DEADLINE: Duration = Duration::from_secs(30);
const SEED: u64 = 18;
/// A node notes its state's hash at every index that is a multiple of this.
const HASH_EVERY: u64 = 128;
const ENTRIES_AT_ONCE: usize = 16;

/// Clusters that run at the same time: each is seven processes.
const PLACES: usize = 2;
static TAKEN: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// Leave to run a cluster.
struct Place;

impl Place {
    fn take() -> Self {
        let (taken, freed) = &TAKEN;
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        *freed.wait_while(taken, |taken| *taken >= PLACES).unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (taken, freed) = &TAKEN;
        *taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        freed.notify_one();
    }
}

/// How a cluster differs from the usual one.
#[derive(Clone, Copy, Default)]
pub struct Stage {
    /// Its folder has this in its name.
    pub name: &'static str,
    /// Coins of the wallet.
    pub coins: usize,
    /// Whether the nodes make up faults when they are told to.
    pub faulty: bool,
    /// Whether relays lie in every path.
    pub wired: bool,
    /// Keys of the configuration, as variables of the environment.
    pub keys: &'static [(&'static str, &'static str)],
}

/// A cluster with a wallet that has coins.
pub struct Scene {
    pub cluster: Cluster,
    pub client: Client,
    pub operator: Client,
    faults: Vec<ControlFile>,
    orders: Orders,
    first_height: u32,
    _place: Place,
}

impl Scene {
    pub async fn start(stage: Stage) -> Self {
        let place = Place::take();
        programs::check_all().unwrap();
        let program = if stage.faulty { programs::onespend_failpoints() } else { programs::onespend() }.unwrap();
        let variables = stage.keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let setup = Setup { nodes: NODES, seed: SEED, program, variables, wired: stage.wired };
        let folder = Folder::temporary(stage.name).unwrap();
        let mut cluster = Cluster::start_as(folder, &setup, &mut |_| {}).unwrap();
        let first_height = cluster.bitcoinds()[0].height().unwrap() + 1;
        hot::prepare(&mut cluster, stage.coins, Amount::from_sat(COIN_SAT)).await.unwrap();
        let addresses: Vec<Addresses> = cluster.nodes().iter().map(Node::addresses).collect();
        let following =
            |credentials| grpc::following_client(&addresses, credentials).unwrap().with_deadline(CALL_DEADLINE);
        let (client, operator) = (following(cluster.client()), following(cluster.operator()));
        let faults = cluster.nodes().iter().map(|node| ControlFile::new(node.failpoints_file())).collect();
        Self { cluster, client, operator, faults, orders: Orders::default(), first_height, _place: place }
    }

    /// Ends it in order, once all nodes that run have told of the same state at the same index. Not called by a test that
    /// failed: then the files stay.
    pub async fn finish(mut self) {
        let running: Vec<usize> = (0..NODES).filter(|index| self.node(*index).is_running()).collect();
        self.drive_to_a_hash(&running).await;
        let mut told = Vec::new();
        eventually("all nodes tell of one state", async || {
            for node in &running {
                let hash = self.status(*node).await.state_hash;
                told.extend(hash.map(|hash| HashSeen { node: *node, index: hash.index, hash: hash.hash.to_vec() }));
            }
            assert_eq!(hashes::judge(&told), Vec::<String>::new());
            need(hashes::compared(&told, running.len()) > 0, || format!("{told:?}"))
        })
        .await;
        self.cluster.finish().unwrap();
    }

    /// Drives the log over the next index that has a hash, by entries of a kind that is refused and needs no coins: so in
    /// recovery, too, and without any bitcoind.
    pub async fn drive_to_a_hash(&self, running: &[usize]) {
        let (client, first) = (self.client_of(running), running[0]);
        let target = (self.status(first).await.applied_index / HASH_EVERY + 1) * HASH_EVERY;
        eventually("the log goes on", async || {
            for _ in 0..ENTRIES_AT_ONCE {
                let request = v1::ReleaseReservationRequest { reservation_id: "r-1".to_owned(), ..Default::default() };
                client.release_reservation(request).await.expect_err("there is no such reservation");
            }
            let applied = self.status(first).await.applied_index;
            need(applied >= target, || format!("{applied} of {target}"))
        })
        .await;
    }

    /// Index of the node that may take spends.
    pub fn primary(&mut self) -> usize {
        self.cluster.wait_for_primary(PATIENCE).unwrap()
    }

    /// The same, when it must be one of these.
    pub async fn primary_among(&self, nodes: &[usize]) -> usize {
        eventually("one of them is primary", async || {
            let leads = |index: &&usize| self.says(**index, "/primary");
            nodes.iter().find(leads).copied().ok_or_else(|| format!("none of {nodes:?} is"))
        })
        .await
    }

    /// Whether a node's health port says yes.
    pub fn says(&self, index: usize, path: &str) -> bool {
        health::status(self.cluster.nodes()[index].addresses().health, path, ASK) == 200
    }

    pub fn node(&mut self, index: usize) -> &mut Node {
        self.cluster.node(index).unwrap()
    }

    /// Everybody but this node.
    pub fn others(index: usize) -> Vec<usize> {
        (0..NODES).filter(|other| *other != index).collect()
    }

    /// A caller that knows these nodes.
    pub fn client_of(&self, nodes: &[usize]) -> Client {
        let addresses: Vec<Addresses> = nodes.iter().map(|index| self.cluster.nodes()[*index].addresses()).collect();
        grpc::following_client(&addresses, self.cluster.client()).unwrap().with_deadline(CALL_DEADLINE)
    }

    pub async fn status(&self, index: usize) -> v1::GetStatusResponse {
        let control = self.cluster.nodes()[index].addresses().control.to_string();
        eventually("a status", async || self.operator.get_status_of(&control).await.map_err(|error| error.to_string()))
            .await
    }

    /// Hands the lead to a node, and waits until its health port says yes on this path.
    pub async fn hand_over(&self, index: usize, path: &str) {
        let node_id = u64::try_from(index).unwrap() + 1;
        eventually("the lead is handed over", async || {
            let request = v1::TransferLeadershipRequest { node_id, ..Default::default() };
            self.operator.transfer_leadership(request).await.map_err(|error| error.to_string())
        })
        .await;
        eventually("it leads", async || need(self.says(index, path), || path.to_owned())).await;
    }

    /// Changes the faults that a node makes up.
    pub fn fault(&mut self, index: usize, change: impl FnOnce(&mut Failpoints)) {
        self.faults[index].change(change).unwrap();
    }

    /// Pays a recipient of the payment's own at a feerate.
    pub async fn pay(&mut self, payment_id: &str, sat_vb: f64) -> v1::Payment {
        let request = self.order(payment_id, sat_vb);
        self.client.create_payment(request).await.unwrap().payment.unwrap()
    }

    /// A payment that the judges know of.
    pub fn order(&mut self, payment_id: &str, sat_vb: f64) -> v1::CreatePaymentRequest {
        self.expect_payee(payment_id);
        v1::CreatePaymentRequest {
            request_id: fresh_id(),
            wallet_id: WALLET.to_owned(),
            payment_id: payment_id.to_owned(),
            recipients: vec![recipient(payment_id)],
            fee: Some(v1::create_payment_request::Fee::FeerateSatVb(sat_vb)),
            ..Default::default()
        }
    }

    /// Tells the judges who is paid by a payment. The same payment may be told of again.
    pub fn expect_payee(&mut self, payment_id: &str) {
        if !self.orders.payment_ids().contains(payment_id) {
            let amount = Amount::from_sat(AMOUNT_SAT.unsigned_abs());
            self.orders.add(payee(payment_id), payment_id, amount).unwrap();
        }
    }

    pub async fn bump(&self, payment_id: &str, sat_vb: f64) -> Result<v1::BumpFeeResponse, ClientError> {
        let request = v1::BumpFeeRequest {
            wallet_id: WALLET.to_owned(),
            payment_id: payment_id.to_owned(),
            fee: Some(v1::bump_fee_request::Fee::FeerateSatVb(sat_vb)),
            ..Default::default()
        };
        self.client.bump_fee(request).await
    }

    pub async fn payment(&self, payment_id: &str) -> v1::Payment {
        let request = v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: payment_id.to_owned() };
        self.client.get_payment(request).await.unwrap().payment.unwrap()
    }

    /// Waits until a payment is there: its intent is committed.
    pub async fn intent(&self, payment_id: &str) -> v1::Payment {
        let request = v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: payment_id.to_owned() };
        eventually("the intent is committed", async || {
            let found = self.client.get_payment(request.clone()).await.map_err(|error| error.to_string())?;
            Ok(found.payment.unwrap())
        })
        .await
    }

    /// Waits until a payment is that far.
    pub async fn reaches(&self, payment_id: &str, state: PaymentState) -> v1::Payment {
        eventually(&format!("{payment_id} is {state:?}"), async || {
            let found = self.payment(payment_id).await;
            need(found.state() == state, || format!("{found:?}"))?;
            Ok(found)
        })
        .await
    }

    /// What a node's signer wrote down.
    pub fn signatures(&self, index: usize) -> Vec<Signature> {
        signer_log::read(&self.cluster.nodes()[index].signer_log()).unwrap()
    }

    /// The same for one payment.
    pub fn signed_by(&self, index: usize, payment_id: &str) -> Vec<Signature> {
        self.signatures(index).into_iter().filter(|one| one.payment_id == payment_id).collect()
    }

    /// Mines until these payments are settled; then the judges have the word.
    pub async fn settle_and_judge(&mut self, paid: &[&str]) {
        self.mine(FINALITY_DEPTH);
        // A transaction that came to the miner late is not deep enough yet.
        eventually("every payment settles", async || {
            for payment_id in paid {
                let found = self.payment(payment_id).await;
                if found.state() != PaymentState::Settled {
                    self.mine(1);
                    return Err(format!("{found:?}"));
                }
            }
            Ok(())
        })
        .await;
        self.judge(paid).await;
    }

    /// The blocks: of all payments exactly these are paid, each once and exactly, and they are final.
    pub fn judge_chain(&self, paid: &[&str]) -> ChainVerdict {
        let blocks = chain::read_blocks(&self.cluster.bitcoinds()[0], self.first_height).unwrap();
        let verdict = chain::judge(&blocks, &self.orders, usize::try_from(FINALITY_DEPTH).unwrap());
        assert!(verdict.is_clean(), "{verdict:?}");
        let mut paid: Vec<&str> = paid.to_vec();
        paid.sort_unstable();
        assert_eq!(verdict.settled.iter().map(String::as_str).collect::<Vec<_>>(), paid, "settled by the blocks");
        assert_eq!(verdict.paid_by.len(), paid.len(), "nobody else is paid: {verdict:?}");
        verdict
    }

    /// The same, and the signers' logs: nothing is signed away twice, nothing is signed without an intent, and nothing
    /// is in a block that no signer signed.
    pub async fn judge(&self, paid: &[&str]) {
        let verdict = self.judge_chain(paid);
        let signatures: Vec<Signature> = (0..NODES).flat_map(|index| self.signatures(index)).collect();
        let blocks = chain::read_blocks(&self.cluster.bitcoinds()[0], self.first_height).unwrap();
        let spends = Spends::read(&blocks, usize::try_from(FINALITY_DEPTH).unwrap(), |_| 0);
        let signers = signer_log::judge(&signatures, &spends);
        assert!(signers.is_clean(), "{signers:?}");
        let request = v1::ListPaymentsRequest { wallet_id: WALLET.to_owned(), page_size: 1000, ..Default::default() };
        let payments = self.client.list_payments(request).await.unwrap().payments;
        let payments: Vec<_> = payments.iter().map(chaos::payment_seen).collect();
        assert_eq!(intents::judge(&signatures, &payments), Vec::<String>::new());
        assert_eq!(intents::unsigned(&verdict.paid_by, &signatures), Vec::<String>::new());
    }
}

/// A call that goes on while the test does other things.
pub type Call<T> = JoinHandle<Result<T, ClientError>>;

/// Who is paid by a payment: nobody else is.
pub fn payee(payment_id: &str) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_raw_hash(hash160::Hash::hash(payment_id.as_bytes())))
}

pub fn recipient(payment_id: &str) -> v1::Recipient {
    let script = payee(payment_id).to_bytes().into();
    v1::Recipient { amount_sat: AMOUNT_SAT, destination: Some(Destination::Script(script)) }
}

pub fn fresh_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The reason of a refusal.
pub fn reason<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer {
        Err(ClientError::Rejected(rejection)) => rejection.reason,
        other => panic!("refused, wanted; got {other:?}"),
    }
}

/// Looks again and again until there is something to see; else says what is missing.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, look).await
}

/// The same with another patience.
pub async fn within<T>(patience: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(why) => assert!(Instant::now() < deadline, "{what}: not after {patience:?}: {why}"),
        }
        tokio::time::sleep(POLL).await;
    }
}

/// `Ok` when it holds, else what was seen instead.
pub fn need(holds: bool, seen: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(seen()) }
}
