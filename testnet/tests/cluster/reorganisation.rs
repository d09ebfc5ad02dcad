//! Blocks that come and go: the log follows the leader's bitcoind, and nothing is freed that may yet be spent.

use bitcoin::hashes::{Hash, hash160};
use bitcoin::{Address, BlockHash, Network, ScriptBuf, WPubkeyHash};
use onespend_proto::client::Client;
use onespend_proto::v1;
use onespend_proto::v1::{AttemptState, PaymentState, UtxoState};
use onespend_testnet::bitcoind::wait_for_same_tip;
use onespend_testnet::cluster::FINALITY_DEPTH;
use onespend_testnet::health;
use onespend_testnet::hot::WALLET;
use serde_json::{Value, json};

use crate::scene::{NODES, PATIENCE, Scene, eventually, fresh_id, need, payment, reserve};

const COINS: usize = 6;

/// safety 17, below the finality depth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leaders_chain_view_drives_the_log_through_a_reorganisation() {
    let mut scene = Scene::with_coins("reorg", COINS).await;
    let client = scene.client();
    let order = scene.order("p1");
    let paid = client.create_payment(order.clone()).await.unwrap().payment.unwrap();
    let coins = Coins::of(&paid);
    scene.in_every_mempool(std::slice::from_ref(&paid.txid)).await;
    coins.are(&client, UtxoState::Exposed, None).await;

    scene.mine(1);
    in_chain(&scene, &client, PaymentState::Confirming).await;
    coins.are(&client, UtxoState::SpentPending, Some(UtxoState::Available)).await;
    let height = scene.cluster.bitcoinds()[0].height().unwrap();
    let first_block = block_at(&scene, height);

    // A longer branch without the payment: it goes back to the mempool, and its coins stay exposed.
    reorganise(&scene, first_block, 2, Mined::Nothing);
    let back = in_chain(&scene, &client, PaymentState::Broadcast).await;
    assert_eq!((back.confirmed_height, back.depth), (0, 0));
    assert_eq!(back.state(), AttemptState::Broadcast);
    coins.are(&client, UtxoState::Exposed, Some(UtxoState::Unconfirmed)).await;
    nothing_else_moved(&client, &coins).await;

    // A longer branch again, and this one has it, in its second block.
    reorganise(&scene, block_at(&scene, height + 1), 2, Mined::Mempool);
    let again = in_chain(&scene, &client, PaymentState::Confirming).await;
    assert_eq!((again.confirmed_height, again.depth), (height + 1, 2));
    coins.are(&client, UtxoState::SpentPending, Some(UtxoState::Available)).await;

    // From that block into another that has it too, at another height.
    reorganise(&scene, block_at(&scene, height), 4, Mined::Mempool);
    let moved = in_chain(&scene, &client, PaymentState::Confirming).await;
    assert_eq!((moved.confirmed_height, moved.depth), (height, 4));
    coins.are(&client, UtxoState::SpentPending, Some(UtxoState::Available)).await;
    let retried = client.create_payment(order).await.unwrap().payment.unwrap();
    assert_eq!((&retried.txid, retried.attempts.len()), (&paid.txid, 1));

    scene.settle_and_judge().await;
    let settled = payment(&client, "p1").await;
    assert_eq!((&settled.txid, settled.attempts.len()), (&paid.txid, 1));
    coins.are(&client, UtxoState::Spent, Some(UtxoState::Available)).await;
    scene.finish();
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mined {
    Nothing,
    Mempool,
}

fn block_at(scene: &Scene, height: u32) -> BlockHash {
    scene.cluster.bitcoinds()[0].block_at(height).unwrap().block_hash()
}

/// Makes `block` invalid everywhere and mines so many blocks instead of it and what followed.
fn reorganise(scene: &Scene, block: BlockHash, blocks: u32, mined: Mined) {
    for bitcoind in scene.cluster.bitcoinds() {
        bitcoind.invalidate(block).unwrap();
    }
    let miner = &scene.cluster.bitcoinds()[0];
    // To a script that follows from the block, so that the same block is not mined again.
    let nobody = WPubkeyHash::from_raw_hash(hash160::Hash::hash(block.as_byte_array()));
    let nobody = Address::from_script(&ScriptBuf::new_p2wpkh(&nobody), Network::Regtest).unwrap();
    let nobody = json!(nobody.to_string());
    if mined == Mined::Nothing {
        for _ in 0..blocks {
            miner.call::<Value>("generateblock", &[nobody.clone(), json!([])]).unwrap();
        }
    } else {
        miner.call::<Value>("generatetoaddress", &[json!(blocks), nobody]).unwrap();
    }
    wait_for_same_tip(scene.cluster.bitcoinds()).unwrap();
}

/// Waits until every node stands on the bitcoinds' tip and the payment is in this state; gives back its only attempt.
async fn in_chain(scene: &Scene, client: &Client, state: PaymentState) -> v1::Attempt {
    let tip = scene.cluster.bitcoinds()[0].tip().unwrap().to_string();
    let operator = scene.operator();
    eventually("the nodes follow the chain", async || {
        for node in scene.cluster.nodes() {
            let status = operator.get_status_of(&node.addresses().control.to_string()).await;
            let seen = status.map_err(|error| error.to_string())?.tip.unwrap_or_default().hash;
            need(seen == tip, || format!("{} stands on {seen}, not {tip}", node.name()))?;
        }
        let found = payment(client, "p1").await;
        need(found.state() == state && found.attempts.len() == 1, || format!("{found:?}"))?;
        Ok(found.attempts[0].clone())
    })
    .await
}

/// The coins that a payment spends, and the one that it makes.
struct Coins {
    inputs: Vec<v1::Outpoint>,
    change: v1::Outpoint,
}

impl Coins {
    fn of(paid: &v1::Payment) -> Self {
        let attempt = &paid.attempts[0];
        assert_eq!(paid.anchor.as_ref(), attempt.inputs.first());
        let vout = attempt.change.as_ref().expect("a coin worth more than the payment gives change").vout;
        Self { inputs: attempt.inputs.clone(), change: v1::Outpoint { txid: attempt.txid.clone(), vout } }
    }

    /// Checks the states of the inputs and of the change; `None`: it is no coin of the wallet (yet).
    async fn are(&self, client: &Client, inputs: UtxoState, change: Option<UtxoState>) {
        eventually("the coins' states", async || {
            let all = utxos(client).await;
            let state_of = |wanted: &v1::Outpoint| {
                all.iter().find(|utxo| utxo.outpoint.as_ref() == Some(wanted)).map(v1::Utxo::state)
            };
            for input in &self.inputs {
                let found = state_of(input);
                // Whatever else it is on the way, it is never free.
                assert!(!matches!(found, Some(UtxoState::Available | UtxoState::Reserved)), "{input:?} is {found:?}");
                need(found == Some(inputs), || format!("{input:?} is {found:?}, not {inputs:?}"))?;
            }
            let found = state_of(&self.change);
            need(found == change, || format!("the change is {found:?}, not {change:?}"))
        })
        .await;
    }
}

async fn utxos(client: &Client) -> Vec<v1::Utxo> {
    let states = [
        UtxoState::Available,
        UtxoState::Reserved,
        UtxoState::Exposed,
        UtxoState::SpentPending,
        UtxoState::Spent,
        UtxoState::Quarantined,
        UtxoState::Immature,
        UtxoState::Unconfirmed,
    ];
    let request = v1::ListUtxosRequest {
        wallet_id: WALLET.to_owned(),
        states: states.map(i32::from).to_vec(),
        page_size: 1_000,
        ..Default::default()
    };
    client.list_utxos(request).await.unwrap().utxos
}

async fn nothing_else_moved(client: &Client, coins: &Coins) {
    let all = utxos(client).await;
    let free = all.iter().filter(|utxo| utxo.state() == UtxoState::Available).count();
    assert_eq!((free, all.len()), (COINS - coins.inputs.len(), COINS + 1), "{all:?}");
}

/// safety 17: a reorganisation of the finality depth freezes the wallet, frees nothing, and every node alarms, also
/// after a restart, until an operator has looked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reorganisation_of_the_finality_depth_freezes_the_wallet_and_every_node_alarms() {
    let mut scene = Scene::with_coins("deep-reorg", COINS).await;
    let client = scene.client();
    let order = scene.order("p1");
    let paid = client.create_payment(order).await.unwrap().payment.unwrap();
    let coins = Coins::of(&paid);
    scene.in_every_mempool(std::slice::from_ref(&paid.txid)).await;
    let height = scene.cluster.bitcoinds()[0].height().unwrap() + 1;
    scene.mine(FINALITY_DEPTH);
    in_chain(&scene, &client, PaymentState::Settled).await;
    assert!(alarms_of(&scene).await.iter().all(Vec::is_empty), "nothing is wrong yet");

    reorganise(&scene, block_at(&scene, height), FINALITY_DEPTH + 1, Mined::Nothing);
    every_node_alarms(&scene).await;
    for node in scene.cluster.nodes() {
        let log = std::fs::read_to_string(node.log_file()).unwrap();
        let told = log.lines().filter(|line| line.contains("ERROR") && line.contains(ALARM));
        assert_eq!(told.count(), 1, "{} logs it once, as an error", node.name());
    }
    let wallet = v1::GetWalletRequest { wallet_id: WALLET.to_owned(), consistency: None };
    let frozen = client.get_wallet(wallet).await.unwrap().wallet.unwrap().frozen_note;
    assert!(frozen.starts_with("a reorganisation took away"), "{frozen}");
    let mut next = scene.order("p2");
    let refused = client.create_payment(next.clone()).await.unwrap_err();
    assert!(refused.is("WALLET_FROZEN"), "{refused}");
    let refused = client.reserve_utxos(reserve(10_000)).await.unwrap_err();
    assert!(refused.is("WALLET_FROZEN"), "{refused}");
    // The payment may come back, so its coins are not free.
    coins.are(&client, UtxoState::Exposed, Some(UtxoState::Unconfirmed)).await;
    // Other wallets go on.
    scene.primary();

    for index in 0..NODES {
        scene.node(index).kill().unwrap();
        scene.node(index).restart().unwrap();
    }
    every_node_alarms(&scene).await;
    let unfreeze = v1::UnfreezeWalletRequest { request_id: fresh_id(), wallet_id: WALLET.to_owned() };
    scene.operator().unfreeze_wallet(unfreeze).await.unwrap();
    eventually("the alarm is over", async || {
        let alarms = alarms_of(&scene).await;
        need(alarms.iter().all(Vec::is_empty), || format!("{alarms:?}"))
    })
    .await;
    // A request is answered once, so a new try needs a new name.
    next.request_id = fresh_id();
    client.create_payment(next).await.unwrap();
    scene.settle_and_judge().await;
    scene.finish();
}

const ALARM: &str = "DEEP_REORGANISATION";

/// What stands on each node that answers, by GetStatus.
async fn alarms_of(scene: &Scene) -> Vec<Vec<String>> {
    let operator = scene.operator();
    let mut alarms = Vec::new();
    for node in scene.cluster.nodes() {
        let address = node.addresses().control.to_string();
        let status =
            eventually("a status", async || operator.get_status_of(&address).await.map_err(|error| error.to_string()));
        alarms.push(status.await.alarms);
    }
    alarms
}

/// In GetStatus, on the health port, and as a metric.
async fn every_node_alarms(scene: &Scene) {
    eventually("every node alarms", async || {
        let alarms = alarms_of(scene).await;
        let all = alarms.iter().all(|one| one.len() == 1 && one[0].starts_with(ALARM) && one[0].contains(WALLET));
        need(all, || format!("{alarms:?}"))?;
        for node in scene.cluster.nodes() {
            let get = |path| health::get(node.addresses().health, path, PATIENCE).map_err(|error| error.to_string());
            let status = get("/status")?.json();
            need(status["alarms"][0]["code"] == ALARM, || format!("{status}"))?;
            let metrics = get("/metrics")?.body;
            need(metrics.contains("\nonespend_frozen_wallets 1\n"), || format!("{} has no such metric", node.name()))?;
        }
        Ok(())
    })
    .await;
}
