//! A cluster of real processes is backed up while it pays, goes on paying, is lost as a whole, and a new cluster begins
//! with the backup beside the same bitcoinds. The blocks decide whether anybody was paid twice. And nodes make backups by
//! themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod acceptance;
mod memories;
mod quorum;
mod scene;
mod scheduled;
mod second;
// The server of the adapters' suite, which uses more of it.
#[allow(dead_code)]
#[path = "../../../adapters/tests/backup/server.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bitcoin::Transaction;
use onespend_proto::v1::{self, PaymentState, UtxoState};
use onespend_testnet::cluster::CLUSTER_ID;
use onespend_testnet::hot::WALLET;
use serde_json::Value;

use scene::{AMOUNT_SAT, Scene, eventually, onespend, onespend_refuses, order, reason};
use second::{SECOND_ID, Second};

/// Payments before a backup is asked for, so that it is made under load.
const WARM: usize = 2;
/// The load ends at this many, whatever else happens: the wallet has more coins.
const MAX_LOAD: usize = 20;
/// What is paid after the backup, and in a block, or in mempools only, when the cluster is lost.
const AFTER: [&str; 2] = ["mined-after", "pending-after"];

/// safety 30: the payment that was ordered after the backup is paid once, whoever orders it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_lost_goes_on_from_a_backup_and_pays_nobody_twice() {
    let mut scene = Scene::start("backup").await;
    for payment_id in ["before-1", "before-2"] {
        scene.pay(payment_id).await;
    }
    scene.settle(&["before-1", "before-2"]).await;

    let (backup, made) = back_up_under_load(&mut scene).await;
    a_damaged_backup_is_refused(&backup);
    let pending = two_nodes_sign_what_the_backup_lacks(&mut scene).await;
    // What signed them remembers them; it lies apart from what is lost.
    let signers = AFTER.map(|payment_id| scene.signer_of(payment_id));
    assert_ne!(signers[0], signers[1], "neither knows of the other's payment");
    let kept = memories::keep(&mut scene, signers);
    scene.lose_all_nodes();
    let signed = mempools_forget_what_the_signers_log_has_still(&mut scene, &pending);

    let mut second = Second::prepare(&scene.cluster).unwrap();
    what_must_not_be_restored_is_refused(&second, &backup);
    let restored = second.restore(&backup);
    assert_eq!((&restored["from_cluster"], &restored["from_index"]), (&CLUSTER_ID.into(), &made["index"]));
    let again = onespend_refuses(&second.restore_args(&backup));
    assert!(again.contains("is not empty"), "{again}");
    for memory in &kept {
        second.merge_old(0, memory);
    }
    second.start(0);

    nothing_is_signed_and_the_rest_works(&second, &pending).await;
    scene.broadcast(&signed);
    strangers_are_not_let_in(&scene, &second).await;
    second.take_in(1);
    second.take_in(2);
    second.wait_for_recovery_on_all().await;
    assert_eq!(second.confirm(0).await, 2, "the epoch goes up with the restore and with the word of the operator");

    what_was_paid_after_the_backup_is_not_signed_again(&second).await;
    acceptance::a_node_whose_signer_has_not_accepted_the_log_signs_nothing_also_when_it_leads(&second).await;
    nor_is_its_replacement(&scene, &second).await;
    acceptance::the_others_are_given_the_memory(&mut second).await;
    acceptance::a_memory_that_was_put_together_of_two_refuses_what_either_signed(&second).await;
    acceptance::a_payment_that_the_memory_refuses_is_cancelled_and_paid_once(&mut scene, &second).await;
    scene.expect("anew");
    let paid = second.client().create_payment(order("anew")).await.unwrap().payment.unwrap();
    assert_eq!(paid.attempts[0].fence >> 48, 2, "above all that was granted before");
    scene.settle_with(&second.client(), &["anew"]).await;
    let before = second.client().create_payment(order("before-1")).await.unwrap().payment.unwrap();
    assert_eq!(before.state(), PaymentState::Settled, "what the backup knows is known");
    scene.judge(&second.signer_logs());
    second.finish();
    scene.finish();
}

/// Pays on and on, and makes a backup meanwhile; what the command line says of it.
async fn back_up_under_load(scene: &mut Scene) -> (PathBuf, Value) {
    let leader = scene.cluster.find("/primary").map(|index| scene.cluster.nodes()[index].id()).unwrap();
    let ids: Vec<String> = (0..MAX_LOAD).map(|n| format!("load-{n}")).collect();
    for payment_id in &ids {
        scene.expect(payment_id);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let (client, stopped) = (scene.client.clone(), Arc::clone(&stop));
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let load = tokio::spawn(async move {
        for payment_id in ids {
            if stopped.load(Ordering::Relaxed) {
                return;
            }
            client.create_payment(order(&payment_id)).await.unwrap();
            tell.send(payment_id).unwrap();
        }
    });
    let mut paid = Vec::new();
    while paid.len() < WARM {
        paid.push(told.recv().await.unwrap());
    }
    let file = scene.cluster.folder().join("cluster.backup");
    let out = file.to_str().unwrap();
    let made = scene.cluster.operate(&["-o", "json", "backup", "create", "--out", out]).unwrap();
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    while let Ok(payment_id) = told.try_recv() {
        paid.push(payment_id);
    }
    scene.paid.extend(paid);
    let made: Value = serde_json::from_str(&made).unwrap();
    assert_ne!(made["node_id"], leader, "a replica is asked: {made}");
    assert_eq!(made["cluster_id"], CLUSTER_ID);
    assert!(made["payments"].as_u64().unwrap() >= 2 + WARM as u64, "{made}");
    let refused = scene.cluster.operate(&["backup", "create", "--out", out]).unwrap_err().to_string();
    assert!(refused.contains("exists already"), "{refused}");
    let forced = ["-o", "json", "backup", "create", "--force", "--from", &leader.to_string(), "--out", out];
    let made: Value = serde_json::from_str(&scene.cluster.operate(&forced).unwrap()).unwrap();
    assert_eq!(made["node_id"], leader);
    assert!(!file.with_extension("backup.partial").exists());
    let verified: Value = serde_json::from_str(&onespend(&["-o", "json", "backup", "verify", out])).unwrap();
    assert_eq!(verified, made);
    let listed = onespend(&["-o", "json", "backup", "list", scene.cluster.folder().to_str().unwrap()]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(
        (&listed["backups"][0]["name"], &listed["backups"][0]["index"]),
        (&"cluster.backup".into(), &made["index"])
    );
    (file, made)
}

/// The command line says which file, and which part.
fn a_damaged_backup_is_refused(backup: &Path) {
    let good = std::fs::read(backup).unwrap();
    let damaged = backup.with_file_name("damaged.backup");
    for (at, part) in [(3, "beginning"), (60, "header"), (good.len() / 2, "content"), (good.len() - 5, "end")] {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        std::fs::write(&damaged, bytes).unwrap();
        let refused = onespend_refuses(&["backup", "verify", damaged.to_str().unwrap()]);
        assert!(refused.contains("damaged.backup") && refused.contains(part), "byte {at}: {refused}");
    }
    std::fs::remove_file(&damaged).unwrap();
}

/// One payment that is mined, and one that only mempools have, which another node has signed; that one.
async fn two_nodes_sign_what_the_backup_lacks(scene: &mut Scene) -> v1::Payment {
    let [mined, pending] = AFTER;
    scene.pay(mined).await;
    scene.all_relayed().await;
    scene.mine(1);
    let nodes = scene.cluster.nodes().len();
    scene.lead((scene.signer_of(mined) + 1) % nodes).await;
    let paid = scene.pay(pending).await;
    scene.all_relayed().await;
    paid
}

/// The cluster is gone, and with it the transaction; its signer's log has all of it, so that it can be broadcast again.
fn mempools_forget_what_the_signers_log_has_still(scene: &mut Scene, pending: &v1::Payment) -> Transaction {
    let payment_id = pending.payment_id.as_str();
    scene.empty_mempools();
    assert!(scene.paid_by(payment_id).is_empty(), "nobody has it any more");
    let signed = scene.written_down(payment_id);
    assert_eq!(signed.compute_txid().to_string(), pending.txid);
    signed
}

fn what_must_not_be_restored_is_refused(second: &Second, backup: &Path) {
    let same_id = onespend_refuses(&second.restore_args_as_old_cluster(backup));
    assert!(same_id.contains("a name of its own"), "{same_id}");
    let many = onespend_refuses(&second.restore_args_with_other_members(backup));
    assert!(many.contains("the others join it empty"), "{many}");
    let mut bytes = std::fs::read(backup).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    let damaged = backup.with_file_name("damaged.backup");
    std::fs::write(&damaged, bytes).unwrap();
    let refused = onespend_refuses(&second.restore_args(&damaged));
    assert!(refused.contains("damaged in its content"), "{refused}");
}

async fn nothing_is_signed_and_the_rest_works(second: &Second, pending: &v1::Payment) {
    let client = second.client();
    let refused = eventually("an order is refused for recovery mode", async || {
        match client.create_payment(order("pending-after")).await {
            Ok(granted) => panic!("granted: {granted:?}"),
            Err(error) if error.is("RECOVERY_MODE") => Ok(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    });
    refused.await;
    let recovery = second.wait_for_comparison().await;
    assert!(recovery.why.contains("cluster.backup") && recovery.epoch == 1, "{recovery:?}");
    let selection = v1::Selection { target_sat: AMOUNT_SAT, feerate_sat_vb: 2.0, ..Default::default() };
    let what = Some(v1::reserve_utxos_request::What::Selection(selection));
    let reserve = v1::ReserveUtxosRequest { wallet_id: WALLET.to_owned(), what, ..Default::default() };
    let reserved = client.reserve_utxos(reserve).await.expect("reservations work").reservation.unwrap();
    assert_eq!(reserved.fence >> 48, 1, "above every fence of the cluster that was lost");
    let before =
        client.get_payment(v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: "before-2".to_owned() });
    assert_eq!(before.await.expect("reads work").payment.unwrap().state(), PaymentState::Settled);
    // Neither a mempool nor this state has its transaction. The memory that was put together has: its coin is nobody's.
    let spent = pending.attempts[0].inputs[0].clone();
    let request = v1::ListUtxosRequest { wallet_id: WALLET.to_owned(), page_size: 1000, ..Default::default() };
    let coins = client.list_utxos(request).await.unwrap().utxos;
    let coin = coins.iter().find(|coin| coin.outpoint.as_ref() == Some(&spent)).unwrap();
    assert_eq!(coin.state(), UtxoState::Quarantined, "{coin:?}");
}

/// Certificates of the old cluster are nothing in the new one.
async fn strangers_are_not_let_in(scene: &Scene, second: &Second) {
    let stranger = second.client_with(scene.cluster.client());
    let request = v1::GetTipRequest::default();
    stranger.get_tip(request).await.expect_err("the new authority did not issue this certificate");
}

/// Nobody has told the new cluster of it; what the signer remembers stands between the order and a second payment.
async fn what_was_paid_after_the_backup_is_not_signed_again(second: &Second) {
    for payment_id in AFTER {
        // The order is taken, because its name is free; the answer may also be that it takes too long.
        let answer = second.client().create_payment(order(payment_id)).await;
        let shown = eventually("the payment is there", async || {
            let request = v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: payment_id.to_owned() };
            second.client().get_payment(request).await.map_err(|error| format!("{error}; {answer:?}"))
        });
        let shown = shown.await.payment.unwrap();
        assert_eq!(shown.state(), PaymentState::Signing, "{shown:?}");
    }
    for payment_id in AFTER {
        second.refuses(0, payment_id).await;
        assert_eq!(second.signed(payment_id), 0, "{payment_id} is signed again");
    }
    assert_eq!(second.cluster_id().await, SECOND_ID);
    // Nor is an order under another content taken for it later.
    let other = v1::CreatePaymentRequest { recipients: vec![scene::recipient("else")], ..order("mined-after") };
    assert_eq!(reason(second.client().create_payment(other).await), "PAYMENT_ID_REUSED");
}

/// safety 8: of what is granted and not signed a replacement is granted, under a number and with coins that the signer has
/// never signed for. What it remembers of the payment stands between that and a second payment.
async fn nor_is_its_replacement(scene: &Scene, second: &Second) {
    for payment_id in AFTER {
        let before = second.refusals_but_for("other_transaction").unwrap();
        let bump = v1::BumpFeeRequest {
            wallet_id: WALLET.to_owned(),
            payment_id: payment_id.to_owned(),
            fee: Some(v1::bump_fee_request::Fee::FeerateSatVb(9.0)),
            ..Default::default()
        };
        let bumped = second.client().bump_fee(bump).await.unwrap().payment.unwrap();
        assert_eq!((bumped.state(), bumped.attempts.len()), (PaymentState::Signing, 2), "{bumped:?}");
        eventually("a signer refuses the replacement", async || {
            let refused = second.refusals_but_for("other_transaction")?;
            if refused > before { Ok(()) } else { Err(format!("{refused} refusals for other rules")) }
        })
        .await;
    }
    for payment_id in AFTER {
        assert_eq!(second.signed(payment_id), 0, "{payment_id} is signed again");
        let paid_by = scene.paid_by(payment_id);
        assert_eq!(paid_by.len(), 1, "{payment_id} is paid by {paid_by:?}");
    }
}
