//! The cluster, its wallets, and waiting for what must come.

use std::time::{Duration, Instant};

use bitcoin::consensus::deserialize;
use bitcoin::hashes::{Hash, hash160};
use bitcoin::{Address, Amount, Network, OutPoint, ScriptBuf, Transaction, WPubkeyHash};
use onespend_proto::client::{Client, ClientError};
use onespend_proto::v1;
use onespend_proto::v1::PaymentState;
use onespend_proto::v1::recipient::Destination;
use onespend_testnet::bitcoind::wait_for_same_tip;
use onespend_testnet::cluster::{Addresses, Cluster, FINALITY_DEPTH, Folder, Node};
use onespend_testnet::hot::{self, WALLET};
use onespend_testnet::{grpc, health, programs};
use serde_json::json;

const NODES: usize = 3;
const SEED: u64 = 11;
const COINS: usize = 20;
/// What each coin of the wallet is worth.
pub const COIN_SAT: u64 = 1_000_000;
/// What each payment pays.
pub const AMOUNT_SAT: i64 = 400_000;
/// Longer than anything takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);
/// For an answer of a health port.
pub const ASK: Duration = Duration::from_secs(2);
const CALL_DEADLINE: Duration = Duration::from_secs(30);

pub struct Scene {
    pub cluster: Cluster,
    pub client: Client,
    pub operator: Client,
}

impl Scene {
    /// A cluster with a wallet that has coins.
    pub async fn start(name: &str) -> Self {
        programs::check_all().unwrap();
        let folder = Folder::temporary(name).unwrap();
        let mut cluster = Cluster::start(folder, NODES, SEED, &mut |_| {}).unwrap();
        hot::prepare(&mut cluster, COINS, Amount::from_sat(COIN_SAT)).await.unwrap();
        let addresses: Vec<Addresses> = cluster.nodes().iter().map(Node::addresses).collect();
        let following =
            |credentials| grpc::following_client(&addresses, credentials).unwrap().with_deadline(CALL_DEADLINE);
        let (client, operator) = (following(cluster.client()), following(cluster.operator()));
        Self { cluster, client, operator }
    }

    pub fn finish(self) {
        self.cluster.finish().unwrap();
    }

    /// Makes a node lead. It says so itself: others that have just started may still name the leader of before.
    pub async fn lead(&self, index: usize) {
        let node = &self.cluster.nodes()[index];
        eventually("the node leads", async || {
            if health::status(node.addresses().health, "/leader", ASK) == 200 {
                return Ok(());
            }
            let transfer = v1::TransferLeadershipRequest { node_id: node.id(), ..Default::default() };
            let answer = self.operator.transfer_leadership(transfer).await;
            Err(format!("{answer:?}"))
        })
        .await;
    }

    /// Pays a recipient of the payment's own at a feerate.
    pub async fn pay(&self, wallet: &str, payment_id: &str, sat_vb: f64) -> v1::Payment {
        let request = v1::CreatePaymentRequest {
            wallet_id: wallet.to_owned(),
            payment_id: payment_id.to_owned(),
            recipients: vec![recipient(payment_id)],
            fee: Some(v1::create_payment_request::Fee::FeerateSatVb(sat_vb)),
            ..Default::default()
        };
        self.client.create_payment(request).await.unwrap().payment.unwrap()
    }

    pub async fn bump(&self, payment_id: &str, sat_vb: f64) -> Result<v1::BumpFeeResponse, ClientError> {
        self.bump_of(WALLET, payment_id, sat_vb).await
    }

    /// The same for a payment of any wallet.
    pub async fn bump_of(
        &self,
        wallet: &str,
        payment_id: &str,
        sat_vb: f64,
    ) -> Result<v1::BumpFeeResponse, ClientError> {
        let request = v1::BumpFeeRequest {
            wallet_id: wallet.to_owned(),
            payment_id: payment_id.to_owned(),
            fee: Some(v1::bump_fee_request::Fee::FeerateSatVb(sat_vb)),
            ..Default::default()
        };
        self.client.bump_fee(request).await
    }

    pub async fn payment(&self, wallet: &str, payment_id: &str) -> v1::Payment {
        let request = v1::GetPaymentRequest { wallet_id: wallet.to_owned(), payment_id: payment_id.to_owned() };
        self.client.get_payment(request).await.unwrap().payment.unwrap()
    }

    /// Waits until a payment is that far.
    pub async fn reaches(&self, wallet: &str, payment_id: &str, state: PaymentState) -> v1::Payment {
        let what = format!("{payment_id} is {state:?}");
        eventually(&what, async || {
            let found = self.payment(wallet, payment_id).await;
            if found.state() == state { Ok(found) } else { Err(format!("{found:?}")) }
        })
        .await
    }

    /// Mines blocks until a payment of this wallet is final, and says how it ended.
    pub async fn mine_until(&mut self, wallet: &str, payment_id: &str, state: PaymentState) -> v1::Payment {
        self.mine(FINALITY_DEPTH);
        self.reaches(wallet, payment_id, state).await
    }

    /// Mines blocks on the first bitcoind, and waits until all have them.
    pub fn mine(&mut self, blocks: u32) {
        let (funds, bitcoind) = self.cluster.funds().unwrap();
        let script = funds.script().clone();
        bitcoind.mine(blocks, &script).unwrap();
        wait_for_same_tip(self.cluster.bitcoinds()).unwrap();
    }

    /// Mines one block with this transaction alone, whatever the mempools hold.
    pub fn mine_only(&mut self, transaction: &Transaction) {
        let (funds, bitcoind) = self.cluster.funds().unwrap();
        let address = Address::from_script(funds.script(), Network::Regtest).unwrap().to_string();
        let raw = bitcoin::consensus::encode::serialize_hex(transaction);
        let _: serde_json::Value = bitcoind.call("generateblock", &[json!(address), json!([raw])]).unwrap();
        wait_for_same_tip(self.cluster.bitcoinds()).unwrap();
    }

    /// Waits until every mempool has one transaction and not the other.
    pub async fn in_every_mempool(&self, there: &str, gone: Option<&str>) {
        eventually("the mempools hold what they should", async || {
            for bitcoind in self.cluster.bitcoinds() {
                let pool: Vec<String> = bitcoind.call("getrawmempool", &[]).map_err(|error| format!("{error:#}"))?;
                let has = |txid: &str| pool.iter().any(|one| one == txid);
                if !has(there) || gone.is_some_and(has) {
                    return Err(format!("{there} should be there, {gone:?} should not: {pool:?}"));
                }
            }
            Ok(())
        })
        .await;
    }

    /// A coin of a wallet as the service shows it, if it is there.
    pub async fn coin(&self, wallet: &str, outpoint: OutPoint) -> Option<v1::Utxo> {
        let request = v1::ListUtxosRequest { wallet_id: wallet.to_owned(), page_size: 1000, ..Default::default() };
        let coins = self.client.list_utxos(request).await.unwrap().utxos;
        let wanted = on_wire(outpoint);
        coins.into_iter().find(|coin| coin.outpoint.as_ref() == Some(&wanted))
    }

    /// Sends a new wallet so many coins and waits until the service sees them.
    pub async fn fund(&mut self, wallet: &str, coins: usize) -> Vec<OutPoint> {
        let request = v1::NewAddressRequest { wallet_id: wallet.to_owned(), ..Default::default() };
        let script = self.client.new_address(request).await.unwrap().script;
        let script = ScriptBuf::from_bytes(script.to_vec());
        let sent = self.send(&script, coins);
        eventually("the coins are seen", async || {
            for outpoint in &sent {
                self.coin(wallet, *outpoint).await.ok_or_else(|| format!("{outpoint} is not there"))?;
            }
            Ok(())
        })
        .await;
        sent
    }

    /// Sends so many coins to a script, in a block.
    pub fn send(&mut self, script: &ScriptBuf, coins: usize) -> Vec<OutPoint> {
        let outputs = vec![(script.clone(), Amount::from_sat(COIN_SAT)); coins];
        let (funds, bitcoind) = self.cluster.funds().unwrap();
        let transaction = funds.fan_out(bitcoind, &outputs).unwrap();
        self.mine(1);
        let txid = transaction.compute_txid();
        let ours = (0..).zip(&transaction.output).filter(|(_, output)| output.script_pubkey == *script);
        ours.map(|(vout, _)| OutPoint { txid, vout }).collect()
    }
}

/// Who is paid by a payment: nobody else is.
pub fn payee(payment_id: &str) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_raw_hash(hash160::Hash::hash(payment_id.as_bytes())))
}

pub fn recipient(payment_id: &str) -> v1::Recipient {
    let script = payee(payment_id).to_bytes().into();
    v1::Recipient { amount_sat: AMOUNT_SAT, destination: Some(Destination::Script(script)) }
}

pub fn on_wire(outpoint: OutPoint) -> v1::Outpoint {
    v1::Outpoint { txid: outpoint.txid.to_string(), vout: outpoint.vout }
}

pub fn outpoint(shown: &v1::Outpoint) -> OutPoint {
    OutPoint { txid: shown.txid.parse().unwrap(), vout: shown.vout }
}

/// The signed transaction of an attempt.
pub fn signed(attempt: &v1::Attempt) -> Transaction {
    deserialize(&attempt.raw_transaction).unwrap()
}

/// The reason of a refusal.
pub fn reason<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> String {
    match answer {
        Err(ClientError::Rejected(rejection)) => rejection.reason,
        other => panic!("refused, wanted; got {other:?}"),
    }
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
