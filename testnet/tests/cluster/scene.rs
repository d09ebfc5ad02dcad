//! What every test has: a cluster of its own while it is its turn, payments that the judges know of, and waiting for
//! conditions.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bitcoin::hashes::{Hash, hash160};
use bitcoin::{Address, Amount, Network, ScriptBuf, WPubkeyHash};
use onespend_proto::client::Client;
use onespend_proto::v1;
use onespend_proto::v1::create_payment_request::Fee;
use onespend_proto::v1::recipient::Destination;
use onespend_testnet::bitcoind::wait_for_same_tip;
use onespend_testnet::cluster::{Addresses, Cluster, FINALITY_DEPTH, Folder, Node, Setup};
use onespend_testnet::hot::{self, WALLET};
use onespend_testnet::oracle::chain::{self, Orders};
use onespend_testnet::oracle::deaths::Spends;
use onespend_testnet::oracle::signer_log;
use onespend_testnet::{grpc, programs};
use tonic::transport::Channel;
use uuid::Uuid;

pub const NODES: usize = 3;
/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);
pub const POLL: Duration = Duration::from_millis(20);
/// For one call, failovers included.
const CALL_DEADLINE: Duration = Duration::from_secs(30);
const SEED: u64 = 7;
/// What each coin of the wallet is worth; each payment takes less.
const COIN: Amount = Amount::from_sat(1_000_000);
const AMOUNT_SAT: i64 = 20_000;

static TURN: Mutex<()> = Mutex::new(());

/// A cluster, while it is its turn.
pub struct Scene {
    pub cluster: Cluster,
    orders: Orders,
    first_height: u32,
    _turn: MutexGuard<'static, ()>,
}

impl Scene {
    /// A cluster with a primary, and no wallet.
    pub fn start(name: &str) -> Self {
        Self::start_as(name, false, Vec::new())
    }

    /// The same with coins, and with relays in every path between its parts.
    pub async fn wired_with_coins(name: &str, coins: usize) -> Self {
        let mut scene = Self::start_as(name, true, Vec::new());
        hot::prepare(&mut scene.cluster, coins, COIN).await.unwrap();
        scene
    }

    /// The same without relays, and with these in its nodes' environment.
    pub async fn with_variables(name: &str, coins: usize, variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut scene = Self::start_as(name, false, variables);
        hot::prepare(&mut scene.cluster, coins, COIN).await.unwrap();
        scene
    }

    fn start_as(name: &str, wired: bool, variables: Vec<(String, String)>) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        programs::check_all().unwrap();
        let folder = Folder::temporary(name).unwrap();
        let program = programs::onespend().unwrap();
        let setup = Setup { nodes: NODES, seed: SEED, program, variables, wired };
        let cluster = Cluster::start_as(folder, &setup, &mut |_| {}).unwrap();
        let first_height = cluster.bitcoinds()[0].height().unwrap() + 1;
        Self { cluster, orders: Orders::default(), first_height, _turn: turn }
    }

    /// The same, with a wallet of so many coins, each enough for a payment.
    pub async fn with_coins(name: &str, coins: usize) -> Self {
        let mut scene = Self::start(name);
        hot::prepare(&mut scene.cluster, coins, COIN).await.unwrap();
        scene
    }

    /// Ends it in order. Not called by a test that failed: then the files stay.
    pub fn finish(self) {
        self.cluster.finish().unwrap();
    }

    /// Index of the node that may take spends.
    pub fn primary(&mut self) -> usize {
        self.cluster.wait_for_primary(PATIENCE).unwrap()
    }

    pub fn node(&mut self, index: usize) -> &mut Node {
        self.cluster.node(index).unwrap()
    }

    pub fn addresses(&self, index: usize) -> Addresses {
        self.cluster.nodes()[index].addresses()
    }

    /// Everybody but this node.
    pub fn others(index: usize) -> Vec<usize> {
        (0..NODES).filter(|other| *other != index).collect()
    }

    /// A client that knows these nodes.
    pub fn client_of(&self, nodes: &[usize]) -> Client {
        let addresses: Vec<Addresses> = nodes.iter().map(|index| self.addresses(*index)).collect();
        grpc::following_client(&addresses, self.cluster.client()).unwrap().with_deadline(CALL_DEADLINE)
    }

    /// A client that knows all nodes.
    pub fn client(&self) -> Client {
        self.client_of(&[0, 1, 2])
    }

    /// An operator's client that knows all nodes.
    pub fn operator(&self) -> Client {
        let addresses: Vec<Addresses> = (0..NODES).map(|index| self.addresses(index)).collect();
        grpc::following_client(&addresses, self.cluster.operator()).unwrap().with_deadline(CALL_DEADLINE)
    }

    /// A connection to one node's data port that follows nobody.
    pub fn direct(&self, index: usize) -> Channel {
        grpc::channel(self.addresses(index).data, self.cluster.client()).unwrap()
    }

    /// A payment to a recipient of its own, known to the judges, with a request id that stays the same.
    pub fn order(&mut self, payment_id: &str) -> v1::CreatePaymentRequest {
        let script = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_raw_hash(hash160::Hash::hash(payment_id.as_bytes())));
        let address = Address::from_script(&script, Network::Regtest).unwrap().to_string();
        let amount = Amount::from_sat(AMOUNT_SAT.unsigned_abs());
        self.orders.add(script, payment_id, amount).unwrap();
        v1::CreatePaymentRequest {
            request_id: fresh_id(),
            wallet_id: WALLET.to_owned(),
            payment_id: payment_id.to_owned(),
            recipients: vec![v1::Recipient {
                amount_sat: AMOUNT_SAT,
                destination: Some(Destination::Address(address)),
            }],
            fee: Some(Fee::FeerateSatVb(2.0)),
            ..v1::CreatePaymentRequest::default()
        }
    }

    /// So many payments: `name-0` …
    pub fn order_many(&mut self, name: &str, count: usize) -> Vec<v1::CreatePaymentRequest> {
        (0..count).map(|number| self.order(&format!("{name}-{number}"))).collect()
    }

    /// Mines blocks on the first bitcoind, and waits until all have them.
    pub fn mine(&mut self, blocks: u32) {
        let (funds, bitcoind) = self.cluster.funds().unwrap();
        let script = funds.script().clone();
        bitcoind.mine(blocks, &script).unwrap();
        wait_for_same_tip(self.cluster.bitcoinds()).unwrap();
    }

    /// Waits until every bitcoind has these transactions in its mempool.
    pub async fn in_every_mempool(&self, txids: &[String]) {
        eventually("the transactions are in every mempool", async || {
            for bitcoind in self.cluster.bitcoinds() {
                let there: Vec<String> = bitcoind.call("getrawmempool", &[]).map_err(|error| format!("{error:#}"))?;
                let missing: Vec<_> = txids.iter().filter(|txid| !there.contains(txid)).collect();
                need(missing.is_empty(), || format!("{missing:?}"))?;
            }
            Ok(())
        })
        .await;
    }

    /// Mines until the service says that every payment that was ordered is settled; then the judges have the word.
    pub async fn settle_and_judge(&mut self) {
        self.settle_with(&self.client()).await;
    }

    /// The same, with a client that knows only nodes that live.
    pub async fn settle_with(&mut self, client: &Client) {
        let ids: Vec<String> = self.orders.payment_ids().into_iter().map(str::to_owned).collect();
        eventually("every payment settles", async || {
            self.mine(1);
            for id in &ids {
                let found = payment(client, id).await;
                if found.state() != v1::PaymentState::Settled {
                    return Err(format!("{found:?}"));
                }
            }
            Ok(())
        })
        .await;
        self.judge(&ids);
    }

    /// The chain and the signers' logs: each payment paid exactly once, nothing spent twice, nothing signed that
    /// never may be.
    fn judge(&self, ids: &[String]) {
        let blocks = chain::read_blocks(&self.cluster.bitcoinds()[0], self.first_height).unwrap();
        let verdict = chain::judge(&blocks, &self.orders, usize::try_from(FINALITY_DEPTH).unwrap());
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!(verdict.settled.iter().cloned().collect::<Vec<_>>(), ids, "settled by the blocks");
        let mut signatures = Vec::new();
        for node in self.cluster.nodes() {
            signatures.extend(signer_log::read(&node.signer_log()).unwrap());
        }
        let spends = Spends::read(&blocks, usize::try_from(FINALITY_DEPTH).unwrap(), |_| 0);
        let verdict = signer_log::judge(&signatures, &spends);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!(verdict.payments.iter().cloned().collect::<Vec<_>>(), ids, "in the signers' logs");
    }
}

/// A payment as the service sees it now.
pub async fn payment(client: &Client, payment_id: &str) -> v1::Payment {
    let request = v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: payment_id.to_owned() };
    client.get_payment(request).await.unwrap().payment.unwrap()
}

/// A reservation by amount, of the default duration.
pub fn reserve(amount_sat: i64) -> v1::ReserveUtxosRequest {
    let selection = v1::Selection { target_sat: amount_sat, feerate_sat_vb: 2.0, ..v1::Selection::default() };
    v1::ReserveUtxosRequest {
        request_id: fresh_id(),
        wallet_id: WALLET.to_owned(),
        what: Some(v1::reserve_utxos_request::What::Selection(selection)),
        ..v1::ReserveUtxosRequest::default()
    }
}

/// Gives a reservation back.
pub fn release(reservation: &v1::Reservation) -> v1::ReleaseReservationRequest {
    v1::ReleaseReservationRequest {
        request_id: fresh_id(),
        reservation_id: reservation.reservation_id.clone(),
        fence: reservation.fence,
    }
}

pub fn fresh_id() -> String {
    Uuid::new_v4().to_string()
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

/// `Ok` when it holds, else what was seen instead.
pub fn need(holds: bool, seen: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(seen()) }
}
