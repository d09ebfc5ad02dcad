//! A deposit that its depositor takes back by a reorganisation.

use bitcoin::absolute::LockTime;
use bitcoin::consensus::serialize;
use bitcoin::psbt::Psbt;
use bitcoin::script::Builder;
use bitcoin::transaction::Version;
use bitcoin::{Amount, BlockHash, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use onespend_proto::LEADER_METADATA_KEY;
use onespend_proto::v1::wallet_service_client::WalletServiceClient;
use onespend_proto::v1::{self, PaymentState, UtxoState};
use onespend_testnet::cluster::FINALITY_DEPTH;
use onespend_testnet::grpc;
use onespend_testnet::hot::WALLET;

use crate::scene::{COIN_SAT, Scene, eventually, on_wire, outpoint, payee, reason, recipient};

const PAYMENT: &str = "of-a-lost-deposit";
const FEE_SAT: u64 = 2_000;

/// safety 6, 9: a payment spends a deposit, which a reorganisation replaces by another transaction. No block shows that
/// to the service: an operator has to name the transaction, and only at the finality depth, and only as the leader's
/// bitcoind has it, is the payment dead. Its other coin is free then, and it is ordered again under its id.
pub async fn a_payment_whose_deposit_was_double_spent_ends_when_an_operator_declares_it_lost(scene: &mut Scene) {
    let theirs = scene.send(&open().to_p2wsh(), 1)[0];
    let request = v1::NewAddressRequest { wallet_id: WALLET.to_owned(), ..Default::default() };
    let address = ScriptBuf::from_bytes(scene.client.new_address(request).await.unwrap().script.to_vec());
    let deposit = take(theirs, COIN_SAT - FEE_SAT, address);
    let rival = take(theirs, COIN_SAT - 2 * FEE_SAT, payee("depositor"));
    let lost = OutPoint::new(deposit.compute_txid(), 0);
    scene.mine_only(&deposit);
    eventually("the deposit is seen", async || scene.coin(WALLET, lost).await.ok_or_else(|| lost.to_string())).await;
    let (paid, kept) = pay_with(scene, lost).await;
    scene.in_every_mempool(&paid.txid, None).await;

    let block = replace_tip(scene, &rival);
    let declare = |block: BlockHash| v1::DeclareLostRequest {
        wallet_id: WALLET.to_owned(),
        outpoint: Some(on_wire(lost)),
        raw_deposit: serialize(&deposit).into(),
        conflicting_txid: rival.compute_txid().to_string(),
        block_hash: block.to_string(),
        note: "the depositor paid somebody else".to_owned(),
        ..Default::default()
    };
    assert_eq!(reason(scene.client.declare_lost(declare(block)).await), "ROLE");
    refused(scene, &declare(block)).await;
    scene.mine(FINALITY_DEPTH - 1);
    let tip = scene.cluster.bitcoinds()[0].tip().unwrap();
    refused(scene, &declare(tip)).await;
    assert_eq!(scene.coin(WALLET, kept).await.unwrap().state(), UtxoState::Exposed);

    let answer = eventually("the log has the blocks", async || forwarded(scene, declare(block)).await).await;
    let told = (answer.utxos[0].state(), answer.utxos[0].spending_txid.clone());
    assert_eq!(told, (UtxoState::Spent, rival.compute_txid().to_string()));
    assert_eq!(scene.payment(WALLET, PAYMENT).await.state(), PaymentState::Dead);
    assert_eq!(scene.coin(WALLET, kept).await.unwrap().state(), UtxoState::Available);
    let asked = v1::ListAuditEventsRequest { from_index: answer.applied_index - 1, ..Default::default() };
    let event = scene.operator.list_audit_events(asked).await.unwrap().events.remove(0);
    assert_eq!((event.event.as_str(), event.wallet_id.as_str()), ("declare_lost", WALLET));
    order_again(scene, &paid).await;
}

/// A script that anybody can satisfy.
fn open() -> ScriptBuf {
    Builder::new().push_int(1).into_script()
}

/// Spends a coin that is locked by such a script.
fn take(coin: OutPoint, sat: u64, script_pubkey: ScriptBuf) -> Transaction {
    let witness = Witness::from_slice(&[open().as_bytes()]);
    let input = TxIn { previous_output: coin, witness, ..Default::default() };
    let output = TxOut { value: Amount::from_sat(sat), script_pubkey };
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![input], output: vec![output] }
}

/// A payment of all of the deposit and of another coin, but the fee; and that coin.
async fn pay_with(scene: &Scene, deposit: OutPoint) -> (v1::Payment, OutPoint) {
    let (wallet_id, states) = (WALLET.to_owned(), vec![UtxoState::Available.into()]);
    let free = v1::ListUtxosRequest { wallet_id: wallet_id.clone(), states, page_size: 1000, ..Default::default() };
    let free = scene.client.list_utxos(free).await.unwrap().utxos;
    let mut others = free.iter().map(|coin| outpoint(coin.outpoint.as_ref().unwrap()));
    let kept = others.find(|coin| *coin != deposit).unwrap();
    let outpoints = vec![on_wire(deposit), on_wire(kept)];
    let reserve = v1::ReserveUtxosRequest {
        wallet_id: wallet_id.clone(),
        what: Some(v1::reserve_utxos_request::What::Outpoints(v1::OutpointList { outpoints })),
        ..Default::default()
    };
    let held = scene.client.reserve_utxos(reserve).await.unwrap().reservation.unwrap();
    let all_sat: i64 = held.utxos.iter().map(|coin| coin.value_sat).sum();
    let paid_sat = u64::try_from(all_sat).unwrap() - FEE_SAT;
    let sequence = Sequence::ENABLE_RBF_NO_LOCKTIME;
    let input = |previous_output| TxIn { previous_output, sequence, ..Default::default() };
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input(deposit), input(kept)],
        output: vec![TxOut { value: Amount::from_sat(paid_sat), script_pubkey: payee(PAYMENT) }],
    };
    let request = v1::SignPsbtRequest {
        wallet_id,
        payment_id: PAYMENT.to_owned(),
        recipients: vec![v1::Recipient { amount_sat: i64::try_from(paid_sat).unwrap(), ..recipient(PAYMENT) }],
        reservation_id: held.reservation_id,
        fence: held.fence,
        psbt: Psbt::from_unsigned_tx(transaction).unwrap().serialize().into(),
        ..Default::default()
    };
    (scene.client.sign_psbt(request).await.unwrap().payment.unwrap(), kept)
}

/// A block with this transaction instead of the tip, on every bitcoind.
fn replace_tip(scene: &mut Scene, transaction: &Transaction) -> BlockHash {
    let tip = scene.cluster.bitcoinds()[0].tip().unwrap();
    for bitcoind in scene.cluster.bitcoinds() {
        bitcoind.invalidate(tip).unwrap();
    }
    scene.mine_only(transaction);
    scene.cluster.bitcoinds()[0].tip().unwrap()
}

/// Once the leader relies on its bitcoind and the log has its blocks, nothing is proven.
async fn refused(scene: &Scene, request: &v1::DeclareLostRequest) {
    eventually("the declaration is refused", async || {
        let refused = reason(scene.operator.declare_lost(request.clone()).await);
        if refused == "NOT_LOST" { Ok(()) } else { Err(refused) }
    })
    .await;
}

/// Asks a node that does not lead: it has the leader answer, and says where that is.
async fn forwarded(scene: &Scene, request: v1::DeclareLostRequest) -> Result<v1::DeclareLostResponse, String> {
    let leader = scene.cluster.find("/leader").ok_or("nobody leads")?;
    let nodes = scene.cluster.nodes();
    let replica = nodes[(leader + 1) % nodes.len()].addresses().data;
    let channel = grpc::channel(replica, scene.cluster.operator()).map_err(|error| error.to_string())?;
    let request = v1::DeclareLostRequest { request_id: uuid::Uuid::new_v4().to_string(), ..request };
    let answer = WalletServiceClient::new(channel).declare_lost(request).await.map_err(|error| error.to_string())?;
    let named = answer.metadata().get(LEADER_METADATA_KEY).expect("another node has answered").to_str().unwrap();
    assert_eq!(named, nodes[leader].addresses().data.to_string());
    Ok(answer.into_inner())
}

/// The same recipients under the same id, with other coins.
async fn order_again(scene: &mut Scene, paid: &v1::Payment) {
    let request = v1::CreatePaymentRequest {
        wallet_id: WALLET.to_owned(),
        payment_id: PAYMENT.to_owned(),
        recipients: paid.recipients.clone(),
        fee: Some(v1::create_payment_request::Fee::FeerateSatVb(5.0)),
        ..Default::default()
    };
    let again = scene.client.create_payment(request).await.unwrap().payment.unwrap();
    assert_eq!(again.attempts.len(), 2, "{again:?}");
    scene.in_every_mempool(&again.txid, None).await;
    let settled = scene.mine_until(WALLET, PAYMENT, PaymentState::Settled).await;
    assert_eq!(settled.txid, again.txid);
}
