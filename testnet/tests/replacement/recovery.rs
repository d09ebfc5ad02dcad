//! A data folder that came out of a backup (safety 30).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use onespend_proto::client::ClientError;
use onespend_proto::v1::{self, PaymentState};
use onespend_testnet::cluster::{Node, SIGNER};
use onespend_testnet::hot::WALLET;
use onespend_testnet::{health, programs};
use tonic::Code;

use crate::outside;
use crate::scene::{AMOUNT_SAT, ASK, Scene, eventually, outpoint, reason, recipient};

/// More entries than a few elections and what the first leaders do at once write.
const LOST_ENTRIES: u32 = 100;

/// safety 8, 30: and the fences after it are above all of the time before. An operator's word is of the signers of the
/// node that leads: the others sign nothing after it either.
pub async fn a_restored_folder_signs_nothing_until_an_operator_confirms(scene: &mut Scene) {
    let nodes = scene.cluster.nodes().len();
    let (permitted, kept) = outside::signed_and_kept(scene, "kept").await;
    mark_all(scene, nodes);
    nothing_is_granted_before_recovery_mode_begins(scene).await;
    let recovery = eventually("the state is compared with bitcoind", async || {
        let request = v1::GetRecoveryRequest::default();
        let answer = scene.operator.get_recovery(request).await.map_err(|error| error.to_string())?;
        let recovery = answer.recovery.unwrap();
        if recovery.active && recovery.reconciled.is_some() { Ok(recovery) } else { Err(format!("{recovery:?}")) }
    })
    .await;
    assert!(recovery.why.contains("backup"), "{recovery:?}");
    scene.cluster.wait_for_primary(Duration::from_secs(1)).expect_err("nobody takes spends");

    let order = || v1::CreatePaymentRequest {
        wallet_id: WALLET.to_owned(),
        payment_id: "restored".to_owned(),
        recipients: vec![recipient("restored")],
        ..Default::default()
    };
    assert_eq!(reason(scene.client.create_payment(order()).await), "RECOVERY_MODE");
    // What was permitted before is brought in vain, until somebody has confirmed.
    assert_eq!(reason(outside::submit(scene, "outside", "kept", kept.clone()).await), "RECOVERY_MODE");
    assert_eq!(scene.payment("outside", "kept").await.state(), PaymentState::Signing);
    let selection = v1::Selection { target_sat: AMOUNT_SAT, feerate_sat_vb: 2.0, ..Default::default() };
    let reserve = v1::ReserveUtxosRequest {
        wallet_id: WALLET.to_owned(),
        what: Some(v1::reserve_utxos_request::What::Selection(selection)),
        ..Default::default()
    };
    scene.client.reserve_utxos(reserve).await.expect("reservations work");

    let confirm = |i_have_checked| v1::ConfirmRecoveryRequest {
        note: "this test ordered nothing meanwhile".to_owned(),
        i_have_checked,
        ..Default::default()
    };
    assert_eq!(reason(scene.operator.confirm_recovery(confirm(false)).await), "FIELD_INVALID");
    let (accepted, confirmed) = take_word(scene, confirm(true)).await;
    assert_eq!((confirmed.active, confirmed.epoch), (false, recovery.epoch + 1));
    assert_eq!(reason(scene.operator.confirm_recovery(confirm(true)).await), "RECOVERY_REFUSED");

    let paid = scene.client.create_payment(order()).await.unwrap().payment.unwrap();
    assert_eq!(paid.attempts[0].fence >> 48, u64::from(confirmed.epoch), "fences are above those of the time before");
    let primary = scene.cluster.wait_for_primary(Duration::from_secs(30)).expect("somebody takes spends again");
    assert_eq!(primary, accepted, "nobody else's signer has accepted the log");
    outside::submit(scene, "outside", "kept", kept).await.expect("the permit is as good as before");
    for txid in [&paid.txid, &permitted.txid] {
        scene.in_every_mempool(txid, None).await;
    }
    scene.mine_until(WALLET, "restored", PaymentState::Settled).await;
    scene.reaches("outside", "kept", PaymentState::Settled).await;
    let audited = scene.operator.list_audit_events(v1::ListAuditEventsRequest::default()).await.unwrap().events;
    for event in ["enter_recovery", "confirm_recovery"] {
        assert!(audited.iter().any(|one| one.event == event), "{event} is not audited: {audited:?}");
    }
    // Every node has taken its mark away: nobody falls back into recovery mode later.
    for node in scene.cluster.nodes() {
        let mark = scene.cluster.folder().join(node.name()).join("data/RESTORED");
        eventually("the mark is gone", async || if mark.exists() { Err(mark.display().to_string()) } else { Ok(()) })
            .await;
    }
}

/// Takes an operator's word that all was checked: only the signers of one node accept the new epoch, and the others say
/// that theirs have not. That node, and recovery mode.
async fn take_word(scene: &Scene, confirm: v1::ConfirmRecoveryRequest) -> (usize, v1::Recovery) {
    let answer = scene.operator.confirm_recovery(confirm).await.unwrap();
    assert_eq!(answer.accepted_signers, [SIGNER]);
    let nodes = scene.cluster.nodes();
    let accepted = nodes.iter().position(|node| node.id() == answer.node_id).expect("a node of this cluster");
    for (index, node) in nodes.iter().enumerate() {
        let port = node.addresses().health;
        eventually("the nodes know whose signer has accepted the log", async || {
            let alarms = health::alarms(port, ASK).map_err(|error| error.to_string())?;
            let lacks = alarms.iter().any(|code| code == "SIGNER_NOT_ACCEPTED");
            if lacks == (index != accepted) { Ok(()) } else { Err(format!("{}: {alarms:?}", node.name())) }
        })
        .await;
    }
    (accepted, answer.recovery.unwrap())
}

/// A caller orders from the first moment on, again and again, each time under another name.
async fn nothing_is_granted_before_recovery_mode_begins(scene: &mut Scene) {
    let mut orders = 0;
    eventually("an order is refused for recovery mode", async || {
        orders += 1;
        let order = v1::CreatePaymentRequest {
            wallet_id: WALLET.to_owned(),
            payment_id: format!("early-{orders}"),
            recipients: vec![recipient("early")],
            ..Default::default()
        };
        match scene.client.create_payment(order).await {
            Err(ClientError::Rejected(refused)) if refused.reason == "RECOVERY_MODE" => Ok(()),
            // Of the mark: the leader's state is sound, so it says for certain that nothing was ordered.
            Err(ClientError::Rejected(refused)) if refused.metadata.contains_key("alarm") => {
                let alarm = refused.metadata.get("alarm").map(String::as_str);
                let told = (refused.code, refused.reason.as_str(), alarm);
                assert_eq!(told, (Code::FailedPrecondition, "ALARM", Some("RESTORED_FOLDER")));
                Err(refused.to_string())
            }
            Err(error) => {
                let why = error.to_string();
                assert!(!why.contains("RESTORED_FOLDER"), "an alarm leaves the outcome open: {why}");
                Err(why)
            }
            Ok(granted) => panic!("granted: {granted:?}"),
        }
    })
    .await;
}

/// safety 8, 30: nobody has marked the folders that were put back, and a signer remembers what the log has lost. The
/// node that signed has to lead for that: the signers of the others remember nothing of it, and sign nothing after it.
pub async fn folders_put_back_without_a_mark_are_noticed_by_what_a_signer_remembers(scene: &mut Scene) {
    let copies = tempfile::TempDir::new().unwrap();
    let folders = data_folders(scene);
    // Whose signer has accepted the log gives the others what it remembers: any of them may lead again.
    let accepted = scene.cluster.wait_for_primary(Duration::from_mins(1)).unwrap();
    stop_all(scene);
    scene.cluster.share_memory(accepted).unwrap();
    for (folder, copy) in folders.iter().zip(["1", "2", "3"]) {
        copy_but_for_memories(folder, &copies.path().join(copy));
    }
    start_all(scene);
    let (signed_by, lost) = pay_what_will_be_lost(scene).await;

    stop_all(scene);
    for (folder, copy) in folders.iter().zip(["1", "2", "3"]) {
        for file in files(folder) {
            std::fs::remove_file(file).unwrap();
        }
        copy_but_for_memories(&copies.path().join(copy), folder);
    }
    start_all(scene);
    scene.lead(signed_by).await;
    let recovery = eventually("the signer's memory is noticed, and the mempool compared", async || {
        let request = v1::GetRecoveryRequest::default();
        let answer = scene.operator.get_recovery(request).await.map_err(|error| error.to_string())?;
        let recovery = answer.recovery.unwrap();
        if recovery.reconciled.is_some() { Ok(recovery) } else { Err(format!("{recovery:?}")) }
    })
    .await;
    assert!(recovery.why.contains("signer hot has signed"), "{recovery:?}");
    // What pays the lost payment is still in the mempools: its coin is nobody's.
    let coin = scene.coin(WALLET, outpoint(&lost.attempts[0].inputs[0])).await.unwrap();
    assert_eq!(coin.state(), v1::UtxoState::Quarantined, "{coin:?}");
    let confirm = v1::ConfirmRecoveryRequest {
        note: "this test ordered the payment that was lost".to_owned(),
        i_have_checked: true,
        ..Default::default()
    };
    let (accepted, confirmed) = take_word(scene, confirm).await;
    assert!(!confirmed.active && confirmed.epoch > recovery.epoch, "{confirmed:?}");
    assert_eq!(accepted, signed_by, "the one that remembers what was lost");
    let primary = scene.cluster.wait_for_primary(Duration::from_mins(1)).expect("the signer is not frozen");
    assert_eq!(primary, signed_by, "the others remember nothing of it");
    let after = scene.pay(WALLET, "after", 2.0).await;
    scene.in_every_mempool(&after.txid, None).await; // else the blocks that are mined next may lack it
    scene.mine_until(WALLET, "after", PaymentState::Settled).await;
}

/// The payment, and the node that signed it: the one that led before and after.
async fn pay_what_will_be_lost(scene: &mut Scene) -> (usize, v1::Payment) {
    for round in 0..5 {
        let before = scene.cluster.wait_for_primary(Duration::from_mins(1)).unwrap();
        // The log must be behind the signer's memory still when that node leads again: elections write entries as well.
        for _ in 0..LOST_ENTRIES {
            let request = v1::NewAddressRequest { wallet_id: WALLET.to_owned(), ..Default::default() };
            scene.client.new_address(request).await.unwrap();
        }
        let lost = scene.pay(WALLET, &format!("lost-{round}"), 2.0).await;
        scene.in_every_mempool(&lost.txid, None).await;
        if scene.cluster.wait_for_primary(Duration::from_mins(1)).unwrap() == before {
            return (before, lost);
        }
    }
    panic!("another node was elected each time")
}

fn data_folders(scene: &Scene) -> Vec<PathBuf> {
    scene.cluster.nodes().iter().map(Node::data_folder).collect()
}

fn stop_all(scene: &mut Scene) {
    for index in 0..scene.cluster.nodes().len() {
        scene.cluster.node(index).unwrap().stop().unwrap();
    }
}

fn start_all(scene: &mut Scene) {
    for index in 0..scene.cluster.nodes().len() {
        scene.cluster.node(index).unwrap().restart().unwrap();
    }
}

/// The files of a data folder, those of the signers' memories left out.
fn files(folder: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let memory = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("signer-"));
    all.filter(|path| path.is_file() && !memory(path)).collect()
}

fn copy_but_for_memories(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in files(from) {
        std::fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
}

/// Stops every node, marks its folder as a person would, and starts it again.
fn mark_all(scene: &mut Scene, nodes: usize) {
    let folder = scene.cluster.folder().to_path_buf();
    for index in 0..nodes {
        scene.cluster.node(index).unwrap().stop().unwrap();
    }
    for index in 0..nodes {
        let node = scene.cluster.node(index).unwrap();
        let data = folder.join(node.name()).join("data");
        let marked = Command::new(programs::onespend().unwrap())
            .args(["recovery", "mark", "--data-dir"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(marked.status.success(), "{marked:?}");
        node.restart().unwrap();
    }
}
