//! A data folder that came out of a backup (safety 30).

use std::process::Command;
use std::time::Duration;

use onespend_proto::v1::{self, PaymentState};
use onespend_testnet::hot::WALLET;
use onespend_testnet::programs;

use crate::scene::{AMOUNT_SAT, Scene, eventually, reason, recipient};

/// safety 30: and the fences after it are above all of the time before.
pub async fn a_restored_folder_signs_nothing_until_an_operator_confirms(scene: &mut Scene) {
    let nodes = scene.cluster.nodes().len();
    mark_all(scene, nodes);
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
    let confirmed = scene.operator.confirm_recovery(confirm(true)).await.unwrap().recovery.unwrap();
    assert_eq!((confirmed.active, confirmed.epoch), (false, recovery.epoch + 1));
    assert_eq!(reason(scene.operator.confirm_recovery(confirm(true)).await), "RECOVERY_REFUSED");

    let paid = scene.client.create_payment(order()).await.unwrap().payment.unwrap();
    assert_eq!(paid.attempts[0].fence >> 48, u64::from(confirmed.epoch), "fences are above those of the time before");
    scene.cluster.wait_for_primary(Duration::from_secs(30)).expect("somebody takes spends again");
    scene.in_every_mempool(&paid.txid, None).await;
    scene.mine_until(WALLET, "restored", PaymentState::Settled).await;
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
