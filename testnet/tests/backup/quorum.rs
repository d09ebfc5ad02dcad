//! Two of three nodes are lost with their disks. The third goes on, as the first node of a new cluster.

use std::path::Path;

use onespend_proto::v1::{self, PaymentState};
use onespend_testnet::cluster::CLUSTER_ID;
use onespend_testnet::hot::WALLET;
use serde_json::Value;

use crate::scene::{Scene, eventually, onespend, onespend_refuses, order};
use crate::second::{SECOND_ID, Second};
use crate::strangers_are_not_let_in;

const LOOK: &str = "--dry-run";
const ACCEPT: &str = "--i-accept-that-acknowledged-writes-may-be-lost";

/// safety 30: what the survivor knows is paid once, whoever orders it again, and nothing is signed unseen.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_lost_its_quorum_goes_on_from_one_node_and_pays_nobody_twice() {
    let mut scene = Scene::start("quorum").await;
    for payment_id in ["settled-1", "settled-2"] {
        scene.pay(payment_id).await;
    }
    scene.settle(&["settled-1", "settled-2"]).await;
    let pending = scene.pay("pending").await;
    scene.all_relayed().await;

    // The survivor is none that has signed: what it knows, it knows from the log.
    let leader = scene.cluster.find("/primary").unwrap();
    let [survivor, lost] = [1, 2].map(|next| (leader + next) % 3);
    scene.has_all(survivor).await;
    let mut second = Second::after(&scene.cluster, &scene.cluster.nodes()[survivor]).unwrap();
    let running = onespend_refuses(&second.recover_args("config.toml", LOOK));
    assert!(running.contains("in use by another process"), "{running}");
    scene.lose_nodes([leader, lost]);
    scene.cluster.node(survivor).unwrap().kill().unwrap();

    let data = scene.cluster.nodes()[survivor].data_folder();
    what_must_not_be_started_is_refused(&second, &data);
    let found = look(&second, survivor as u64 + 1);
    let args = second.recover_args("config.toml", ACCEPT);
    let args: Vec<&str> = ["-o", "json"].into_iter().chain(args.iter().map(String::as_str)).collect();
    let done: Value = serde_json::from_str(&onespend(&args)).unwrap();
    assert_eq!(done["taken"]["cluster_id"], SECOND_ID, "{done}");
    assert_eq!(done["taken"]["index"].as_u64().unwrap(), found["last_index"].as_u64().unwrap() + 2);
    let again = onespend_refuses(&second.recover_args("config.toml", ACCEPT));
    assert!(again.contains("a name of its own"), "{again}");

    second.adopt_on(0);
    second.start(0);
    nothing_is_signed(&second).await;
    strangers_are_not_let_in(&scene, &second).await;
    for old in [leader, lost] {
        let refused = second.add_refused(old as u64 + 1);
        assert!(refused.contains("never used again"), "{refused}");
    }
    let epoch = second.confirm(0).await;
    second.take_in(1);
    // What the first one's signer remembers becomes the memory of this one's before it joins.
    second.merge(2, &second.copy_memory(0));
    second.take_in(2);
    second.wait_for_voters([survivor as u64 + 1, 4, 5]).await;

    what_is_known_is_not_paid_again(&second, &pending).await;
    whoevers_signer_has_accepted_the_log_may_lead(&mut second, epoch).await;
    scene.expect("anew");
    second.client().create_payment(order("anew")).await.unwrap();
    scene.settle_with(&second.client(), &["anew"]).await;
    let settled = second.client().create_payment(order("pending")).await.unwrap().payment.unwrap();
    assert_eq!((settled.state(), settled.attempts.len()), (PaymentState::Settled, 1), "{settled:?}");
    scene.judge(&second.signer_logs());
    second.finish();
    scene.finish();
}

/// The old name, other members, and an unsaid word: nothing is changed.
fn what_must_not_be_started_is_refused(second: &Second, data: &Path) {
    let before = std::fs::read(data.join("identity.json")).unwrap();
    let same_id = onespend_refuses(&second.recover_args("old-cluster.toml", ACCEPT));
    assert!(same_id.contains("a name of its own"), "{same_id}");
    let many = onespend_refuses(&second.recover_args("other-members.toml", ACCEPT));
    assert!(many.contains("the others join it empty"), "{many}");
    assert_eq!(std::fs::read(data.join("identity.json")).unwrap(), before);
    assert!(!data.join("recovering").exists());
}

/// What the command line finds, and that it says how sure it is.
fn look(second: &Second, survivor: u64) -> Value {
    let args = second.recover_args("config.toml", LOOK);
    let text = onespend(&args);
    assert!(text.contains("acknowledged may be missing") && text.contains("nothing was changed"), "{text}");
    let args: Vec<&str> = ["-o", "json"].into_iter().chain(args.iter().map(String::as_str)).collect();
    let looked: Value = serde_json::from_str(&onespend(&args)).unwrap();
    assert!(looked["taken"].is_null() && looked["in_the_way"].as_array().unwrap().is_empty(), "{looked}");
    let found = looked["found"].clone();
    assert_eq!((&found["cluster_id"], &found["node_id"]), (&CLUSTER_ID.into(), &survivor.into()), "{found}");
    assert_eq!(found["members"].as_array().unwrap().len(), 3, "{found}");
    assert_eq!(found["used_ids"].as_array().unwrap().len(), 3, "{found}");
    found
}

/// Of those that joined, one was given the memory, and the other only gets an operator's word.
async fn whoevers_signer_has_accepted_the_log_may_lead(second: &mut Second, epoch: u32) {
    second.lacks_acceptance(1).await;
    second.has_accepted(2).await;
    second.lead(2, "/primary").await;
    second.stop(1);
    second.accept(1, epoch);
    second.start(1);
    second.has_accepted(1).await;
    second.lead(1, "/primary").await;
}

/// Until an operator has looked; that the state was compared is only the first half of it.
async fn nothing_is_signed(second: &Second) {
    let refused = eventually("an order is refused for recovery mode", async || {
        match second.client().create_payment(order("too-early")).await {
            Ok(granted) => panic!("granted: {granted:?}"),
            Err(error) if error.is("RECOVERY_MODE") => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    });
    refused.await;
    let recovery = second.wait_for_comparison().await;
    assert!(recovery.why.contains("the quorum of cluster demo was lost") && recovery.epoch == 1, "{recovery:?}");
    assert_eq!(second.signed("pending") + second.signed("too-early"), 0, "no signer was called");
}

/// Under their ids and with their content: the same transactions as before.
async fn what_is_known_is_not_paid_again(second: &Second, pending: &v1::Payment) {
    let client = second.client();
    for payment_id in ["settled-1", "settled-2"] {
        let shown = client.create_payment(order(payment_id)).await.unwrap().payment.unwrap();
        assert_eq!((shown.state(), shown.attempts.len()), (PaymentState::Settled, 1), "{shown:?}");
    }
    let shown = client.create_payment(order("pending")).await.unwrap().payment.unwrap();
    assert_eq!(shown.attempts.len(), 1, "{shown:?}");
    assert_eq!(shown.attempts[0].txid, pending.attempts[0].txid, "the bytes of before");
    let request = v1::GetPaymentRequest { wallet_id: WALLET.to_owned(), payment_id: "too-early".to_owned() };
    client.get_payment(request).await.expect_err("what was refused is not there");
    assert_eq!(second.signed("settled-1") + second.signed("settled-2"), 0);
}
