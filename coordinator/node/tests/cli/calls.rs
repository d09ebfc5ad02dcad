//! Wallets, coins and reservations: what is sent, and how answers look.

use std::time::Duration;

use onespend_proto::v1::{self, ReservationState};
use serde_json::{Value, json};

use crate::node::{ADDRESS, Node, TXID, ToldReservations, utxo, wallet};
use crate::run::{Cluster, with_input};

#[test]
fn a_wallet_is_registered_with_limits() {
    let cluster = Cluster::start();
    let register = ["wallet", "register", "hot", "--descriptor", "wpkh(tpub/<0;1>/*)", "--signer", "hot"];
    let caps = ["--max-feerate", "50.5", "--finality-depth", "3", "--request-id", "mine"];
    let done = cluster.run(&[&register[..], &caps, &["-o", "json"]].concat()).code(0);

    let asked: v1::RegisterWalletRequest = cluster.node.last();
    assert_eq!((asked.request_id.as_str(), asked.wallet_id.as_str(), asked.signer.as_str()), ("mine", "hot", "hot"));
    let limits = asked.limits.unwrap();
    assert_eq!((limits.max_feerate_sat_vb, limits.finality_depth, limits.max_fee_sat), (50.5, 3, 0));
    assert_eq!(cluster.node.caller(), "client/payouts");
    let json = done.json();
    assert_eq!((json["wallet_id"].as_str(), json["request_id"].as_str()), (Some("hot"), Some("mine")));
    assert_eq!((json["applied_index"].as_u64(), json["term"].as_u64()), (Some(9), Some(2)));
    assert_eq!(json["limits"]["max_fee_sat"], 100_000);
    assert_eq!(json["frozen_note"], json!(null));
}

#[test]
fn a_descriptor_may_come_from_a_file_and_never_leaves_with_a_private_key() {
    let cluster = Cluster::start();
    let profile = cluster.authority.path().to_str().unwrap();
    let environment = [("ONESPEND_PROFILE", profile), ("ONESPEND_AS", "client/payouts")];
    let args = ["wallet", "register", "hot", "--descriptor-file", "-"];
    with_input("wpkh(tpub)\n", &environment, &args).code(0);
    assert_eq!(cluster.node.last::<v1::RegisterWalletRequest>().descriptor, "wpkh(tpub)");

    let refused = with_input("wpkh(tprv8secret/0)", &environment, &args).code(2);
    assert!(refused.err.contains("private key") && !refused.err.contains("secret"), "{refused:?}");
    let refused = with_input("wpkh(tpub)\n\ntr(tpub)\n", &environment, &args).code(2);
    assert!(refused.err.contains("2 descriptors") && refused.err.contains("one line"), "{refused:?}");
    assert_eq!(cluster.node.all::<v1::RegisterWalletRequest>().len(), 1);
}

#[test]
fn wallets_are_shown_to_people() {
    let cluster = Cluster::start();
    let list = cluster.run(&["wallet", "list"]).code(0);
    assert_eq!(
        list.lines()[0].split_whitespace().collect::<Vec<_>>(),
        ["WALLET", "SIGNER", "SETTLED", "AFTER", "FROZEN"]
    );
    let show = cluster.run(&["wallet", "show", "hot", "--max-lag", "5s"]).code(0);
    assert!(show.out.contains("100,000 sat, 200 sat/vB, 10 % of the amount"), "{}", show.out);
    let level = cluster.node.last::<v1::GetWalletRequest>().consistency.unwrap().level.unwrap();
    assert_eq!(level, v1::read_consistency::Level::BoundedStaleness(v1::BoundedStaleness { max_lag_ms: 5_000 }));
    let balance = cluster.run(&["wallet", "balance", "hot"]).code(0);
    assert!(balance.out.contains("150,000 sat  3 coins") && balance.out.contains("250,000 sat"), "{}", balance.out);
    assert!(!balance.out.contains("quarantined"), "{}", balance.out);
    assert_eq!(cluster.run(&["wallet", "address", "hot"]).code(0).out, format!("{ADDRESS}\n"));
    cluster.run(&["wallet", "address", "hot", "--change"]).code(0);
    assert_eq!(cluster.node.last::<v1::NewAddressRequest>().keychain(), v1::Keychain::Internal);
    let frozen = cluster.run(&["wallet", "freeze", "hot", "--note", "audit"]).code(0);
    assert!(frozen.out.contains("yes: audit"), "{}", frozen.out);
    cluster.run(&["wallet", "unfreeze", "hot"]).code(0);
    assert_eq!(cluster.node.last::<v1::UnfreezeWalletRequest>().request_id.len(), 36, "a UUID");
}

#[test]
fn limits_that_are_not_named_stay() {
    let cluster = Cluster::start();
    cluster.run(&["wallet", "limits", "hot", "--max-fee-percent", "20"]).code(0);
    let expected = v1::WalletLimits { max_fee_percent: 20, ..wallet().limits.unwrap() };
    assert_eq!(cluster.node.last::<v1::SetLimitsRequest>().limits, Some(expected));
    cluster.run(&["wallet", "limits", "hot"]).code(0);
    assert_eq!(cluster.node.all::<v1::SetLimitsRequest>().len(), 1, "without a limit it only shows");
}

#[test]
fn coins_are_listed_page_by_page() {
    let cluster = Cluster::start();
    let first = v1::ListUtxosResponse {
        utxos: vec![utxo(5_000_000_000), utxo(1_000)],
        next_page_token: "two".to_owned(),
        ..Default::default()
    };
    cluster.node.answer(first.clone());
    let args = ["utxo", "list", "--wallet", "hot", "--state", "available", "--state", "immature", "--min-sat", "500"];
    let listed = cluster.run(&args).code(0);
    let asked = cluster.node.all::<v1::ListUtxosRequest>();
    assert_eq!(asked.len(), 2);
    assert_eq!((asked[0].page_token.as_str(), asked[1].page_token.as_str()), ("", "two"));
    assert_eq!((asked[0].states.as_slice(), asked[0].min_value_sat), (&[1, 7][..], 500));
    assert!(listed.out.contains(&format!("{TXID}:1")), "{}", listed.out);
    assert!(listed.out.ends_with("3 coins, 5,000,151,000 sat\n"), "{}", listed.out);
    assert!(listed.lines().iter().all(|line| line.chars().count() <= 100), "{}", listed.out);

    cluster.node.answer(first);
    let cut = cluster.run(&["-o", "json", "utxo", "list", "--wallet", "hot", "--limit", "2"]).code(0).json();
    assert_eq!((cut["more"].as_bool(), cut["utxos"].as_array().map(Vec::len)), (Some(true), Some(2)));
    assert_eq!(cut["utxos"][0]["outpoint"], format!("{TXID}:1"));
    assert_eq!(
        (cut["utxos"][0]["value_sat"].as_i64(), cut["utxos"][0]["state"].as_str()),
        (Some(5_000_000_000), Some("available"))
    );
    assert_eq!(cut["utxos"][0]["reservation_id"], json!(null));
}

#[test]
fn coins_are_reserved_by_name_and_by_amount() {
    use v1::reserve_utxos_request::{Expiration, What};
    let cluster = Cluster::start();
    let (one, two) = (format!("{TXID}:0"), format!("{TXID}:1"));
    let done = cluster.run(&["reserve", "coins", "--wallet", "hot", "--ttl", "5m", &one, &two]).code(0);
    assert!(done.out.contains("r-77") && done.out.contains("9 min 41 s"), "{}", done.out);
    let asked: v1::ReserveUtxosRequest = cluster.node.last();
    let Some(What::Outpoints(list)) = asked.what else { panic!("{asked:?}") };
    assert_eq!(list.outpoints.iter().map(|coin| coin.vout).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(asked.expiration, Some(Expiration::Ttl(prost_types::Duration { seconds: 300, nanos: 0 })));

    let amount = ["reserve", "amount", "--wallet", "hot", "--sat", "100000", "--feerate", "2.5"];
    let more = ["--strategy", "oldest_first", "--payment-id", "order-7", "-o", "json"];
    let json = cluster.run(&[&amount[..], &more].concat()).code(0).json();
    assert_eq!((json["reservation_id"].as_str(), json["fence"].as_u64()), (Some("r-77"), Some(77)));
    assert_eq!((json["remaining_ms"].as_u64(), json["state"].as_str()), (Some(581_000), Some("active")));
    let asked: v1::ReserveUtxosRequest = cluster.node.last();
    let Some(What::Selection(selection)) = asked.what else { panic!("{asked:?}") };
    assert_eq!((selection.target_sat, selection.feerate_sat_vb, selection.min_depth), (100_000, 2.5, 1));
    assert_eq!(selection.strategy(), v1::SelectionStrategy::OldestFirst);
    assert_eq!((asked.payment_id.as_str(), asked.expiration), ("order-7", None));
}

#[test]
fn reservations_are_renewed_and_released_with_their_fence() {
    let cluster = Cluster::start();
    cluster.run(&["reserve", "renew", "r-77", "--fence", "70"]).code(0);
    assert_eq!(cluster.node.last::<v1::RenewReservationRequest>().fence, 70);
    assert!(cluster.node.all::<v1::GetReservationRequest>().is_empty());
    let released = cluster.run(&["reserve", "release", "r-77"]).code(0);
    assert_eq!(cluster.node.last::<v1::ReleaseReservationRequest>().fence, 77, "asked from the service");
    assert!(released.out.contains("released") && !released.out.contains("time left"), "{}", released.out);
    cluster.run(&["reserve", "show", "r-77"]).code(0);
    let list = cluster.run(&["reserve", "list", "--wallet", "hot", "--state", "used"]).code(0);
    assert!(list.out.contains("1 coin, 150,000 sat"), "{}", list.out);
    assert!(list.lines().iter().all(|line| line.chars().count() <= 100), "{}", list.out);
    assert_eq!(cluster.node.last::<v1::ListReservationsRequest>().states, [v1::ReservationState::Used as i32]);
}

#[test]
fn reservations_are_followed_until_the_one_that_was_named_has_ended() {
    let cluster = Cluster::start();
    let told = ToldReservations(vec![ReservationState::Active, ReservationState::Released]);
    cluster.node.answer(told.clone());
    let watch = ["reserve", "watch", "--reservation", "r-77", "--from-index", "5"];
    let followed = cluster.run(&watch).code(0);
    assert_eq!(followed.lines()[0], "6  r-77  active, 9 min 41 s left  1 coin, 150,000 sat");
    assert!(followed.lines().len() == 2 && followed.lines()[1].starts_with("7  r-77  released"), "{}", followed.out);
    let asked: v1::WatchReservationsRequest = cluster.node.last();
    assert_eq!((asked.reservation_id.as_str(), asked.wallet_id.as_str(), asked.from_index), ("r-77", "", 5));

    cluster.node.answer(told);
    let followed = cluster.run(&[&watch[..], &["--wallet", "hot", "-o", "json"]].concat()).code(0);
    let lines: Vec<Value> = followed.lines().into_iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "one document per line");
    assert_eq!((lines[0]["applied_index"].as_u64(), lines[1]["applied_index"].as_u64()), (Some(6), Some(7)));
    assert_eq!(
        (&lines[0]["reservation"]["fence"], &lines[1]["reservation"]["state"]),
        (&json!(77), &json!("released"))
    );
    assert_eq!(cluster.node.last::<v1::WatchReservationsRequest>().wallet_id, "hot");
}

#[test]
fn following_goes_on_at_another_node_from_where_it_was() {
    let cluster = Cluster::start();
    let mut nodes = vec![Node::start(&cluster.authority, 1), Node::start(&cluster.authority, 2)];
    let states = [ReservationState::Active, ReservationState::Released];
    for (node, state) in nodes.iter().zip(states) {
        // More than once: a client that waits for long asks the other one as well.
        for _ in 0..4 {
            node.answer(ToldReservations(vec![state]));
        }
    }
    let endpoints = nodes.iter().map(Node::address).collect::<Vec<_>>().join(",");
    let watch = ["reserve", "watch", "--endpoint", &endpoints, "--from-index", "5", "-o", "json"];
    let mut watch = cluster.begin_as("client/payouts", &watch);
    let mut next = || {
        let json: Value = serde_json::from_str(&watch.next_line()).unwrap();
        (json["applied_index"].as_u64(), json["reservation"]["state"] == "active")
    };
    let (index, is_first) = next();
    assert_eq!(index, Some(6));
    drop(nodes.remove(usize::from(!is_first)));
    assert_eq!(next(), (Some(7), !is_first));
    assert_eq!(nodes[0].last::<v1::WatchReservationsRequest>().from_index, 6);
}

#[test]
fn a_wallet_of_single_coins_is_registered_and_given_coins() {
    let cluster = Cluster::start();
    cluster.run(&["wallet", "register", "cold", "--single-outpoints"]).code(0);
    let asked: v1::RegisterWalletRequest = cluster.node.last();
    assert_eq!((asked.descriptor.as_str(), asked.signer.as_str(), asked.fence_key.len()), ("", "", 0));
    cluster.run(&["wallet", "register", "cold", "--single-outpoints", "--signer", "hot"]).code(2);

    let (one, two) = (format!("{TXID}:0"), format!("{TXID}:1"));
    let added = cluster.run(&["wallet", "add-outpoints", "cold", &one, &two]).code(0);
    assert!(added.out.contains("150,000"), "{}", added.out);
    let asked: v1::RegisterOutpointsRequest = cluster.node.last();
    assert_eq!(asked.outpoints.iter().map(|coin| coin.vout).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn the_key_of_an_external_signer_is_sent() {
    let cluster = Cluster::start();
    let register = ["wallet", "register", "hot", "--descriptor", "wpkh(tpub/<0;1>/*)", "--signer", "external"];
    cluster.run(&[&register[..], &["--fence-key", &"cd".repeat(32)]].concat()).code(0);
    assert_eq!(&cluster.node.last::<v1::RegisterWalletRequest>().fence_key[..], [0xcd; 32]);
    cluster.run(&[&register[..], &["--fence-key", "cd"]].concat()).code(2);
}

#[test]
fn a_velocity_limit_is_set_changed_and_taken_away() {
    let cluster = Cluster::start();
    let window = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let limits = |cluster: &Cluster| cluster.node.last::<v1::SetLimitsRequest>().limits.unwrap();
    let change = |more: &[&str]| cluster.run(&[&["wallet", "limits", "hot"][..], more].concat()).code(0);
    change(&["--velocity-max-sat", "5000000", "--velocity-window", "1h", "--max-reserved-percent", "40"]);
    assert_eq!(limits(&cluster).velocity, Some(v1::Velocity { window: window(3_600), max_sat: 5_000_000 }));
    assert_eq!(limits(&cluster).max_reserved_percent, 40);
    change(&["--velocity-max-sat", "7", "--spend-unconfirmed-change", "true"]);
    assert_eq!(limits(&cluster).velocity, Some(v1::Velocity { window: window(86_400), max_sat: 7 }));
    assert!(limits(&cluster).spend_unconfirmed_change);

    let limited = || {
        let velocity = Some(v1::Velocity { window: window(60), max_sat: 9 });
        let limits = v1::WalletLimits { velocity, max_reserved_percent: 40, ..wallet().limits.unwrap() };
        let answer = v1::GetWalletResponse {
            wallet: Some(v1::Wallet { limits: Some(limits), ..wallet() }),
            ..Default::default()
        };
        cluster.node.answer(answer);
    };
    limited();
    change(&["--velocity-max-sat", "8"]);
    assert_eq!(limits(&cluster).velocity, Some(v1::Velocity { window: window(60), max_sat: 8 }));
    limited();
    change(&["--velocity-max-sat", "0"]);
    assert_eq!((limits(&cluster).velocity, limits(&cluster).max_reserved_percent), (None, 40));
    limited();
    let shown = cluster.run(&["wallet", "show", "hot"]).code(0);
    assert!(shown.out.contains("of 40 % of the balance") && shown.out.contains("at most 9 sat in"), "{}", shown.out);
}

#[test]
fn coins_that_are_held_back_are_freed_by_those_who_have_checked() {
    let cluster = Cluster::start();
    let coin = format!("{TXID}:1");
    let release = ["utxo", "release", "--wallet", "hot", &coin, "--note", "the other node was shut down"];
    cluster.run(&release).code(2);
    assert!(cluster.node.all::<v1::ReleaseQuarantinedRequest>().is_empty(), "only with --i-have-checked");
    cluster.run(&[&release[..], &["--i-have-checked"]].concat()).code(0);
    let asked: v1::ReleaseQuarantinedRequest = cluster.node.last();
    assert!(asked.i_have_checked && asked.note == "the other node was shut down", "{asked:?}");
}

#[test]
fn a_deposit_that_cannot_come_back_is_declared_with_its_proof() {
    let cluster = Cluster::start();
    let coin = format!("{TXID}:1");
    // A transaction with one input and one output, both empty.
    let made = format!("0200000001{}ffffffff00ffffffff0100000000000000000000000000", "00".repeat(32));
    let lost = ["utxo", "lost", "--wallet", "hot", &coin, "--note", "the depositor paid twice"];
    let proof = ["--deposit-tx", &made, "--by", TXID, "--in-block", TXID];
    cluster.run(&[&lost[..], &proof[..4]].concat()).code(2);
    let wrong = ["--deposit-tx", "00ff", "--by", TXID, "--in-block", TXID];
    let refused = cluster.run(&[&lost[..], &wrong].concat()).code(2);
    assert!(refused.err.contains("that is no transaction"), "{}", refused.err);
    assert!(cluster.node.all::<v1::DeclareLostRequest>().is_empty(), "only with all of it");
    cluster.run(&[&lost[..], &proof].concat()).code(0);
    let asked: v1::DeclareLostRequest = cluster.node.last();
    assert_eq!((asked.conflicting_txid.as_str(), asked.block_hash.as_str()), (TXID, TXID));
    assert_eq!(asked.outpoint, Some(v1::Outpoint { txid: TXID.to_owned(), vout: 1 }));
    assert_eq!((asked.raw_deposit.len(), asked.note.as_str()), (made.len() / 2, "the depositor paid twice"));
}

#[test]
fn the_audit_is_listed() {
    let cluster = Cluster::start();
    let list = cluster.run(&["audit", "list", "--from-index", "5", "--wallet", "hot"]).code(0);
    assert!(list.out.contains("operator/alice") && list.out.ends_with("1 event\n"), "{}", list.out);
    assert!(list.lines().iter().all(|line| line.chars().count() <= 100), "{}", list.out);
    let asked: v1::ListAuditEventsRequest = cluster.node.last();
    assert_eq!((asked.from_index, asked.wallet_id.as_str()), (5, "hot"));
    let json = cluster.run(&["audit", "list", "-o", "json"]).code(0).json();
    assert_eq!((json["events"][0]["index"].as_u64(), json["more"].as_bool()), (Some(55), Some(false)));
}

#[test]
fn recovery_is_shown_and_confirmed_by_those_who_have_checked() {
    let cluster = Cluster::start();
    let shown = cluster.run(&["recovery", "show"]).code(0);
    assert!(shown.out.contains("nothing is signed") && shown.out.contains("height 130"), "{}", shown.out);
    cluster.run(&["recovery", "confirm", "--note", "payouts were asked"]).code(2);
    assert!(cluster.node.all::<v1::ConfirmRecoveryRequest>().is_empty(), "only with --i-have-checked");
    let confirm = ["recovery", "confirm", "--note", "payouts were asked", "--i-have-checked"];
    let told = cluster.run(&confirm).code(0);
    // Long lines are broken between words.
    let text = told.out.split_whitespace().collect::<Vec<_>>().join(" ");
    for said in ["signers of node 2, from now on: hot", "every other node", "accepted epoch 1", "onespend signer merge"]
    {
        assert!(text.contains(said), "{said}: {}", told.out);
    }
    assert!(told.lines().iter().all(|line| line.chars().count() <= 100), "{}", told.out);
    let json = cluster.run(&[&confirm[..], &["-o", "json"]].concat()).code(0).json();
    assert_eq!((json["active"].as_bool(), json["epoch"].as_u64()), (Some(false), Some(1)));
    assert_eq!((json["node_id"].as_u64(), json["accepted_signers"][0].as_str()), (Some(2), Some("hot")));
    assert!(json["elsewhere"].as_str().is_some_and(|said| said.contains("SIGNER_NOT_ACCEPTED")), "{json}");
    assert_eq!(cluster.node.last::<v1::ConfirmRecoveryRequest>().note, "payouts were asked");
}

/// Every coin is compared before it ends: a try that is given up after a second would begin again each time.
#[test]
fn the_end_of_recovery_is_waited_for() {
    let cluster = Cluster::start();
    cluster.node.take_its_time(Duration::from_millis(2_500));
    cluster.run(&["recovery", "confirm", "--note", "payouts were asked", "--i-have-checked"]).code(0);
    assert_eq!(cluster.node.all::<v1::ConfirmRecoveryRequest>().len(), 1);
}

#[test]
fn a_folder_that_is_no_data_folder_is_not_marked() {
    let cluster = Cluster::start();
    let folder = cluster.authority.path().to_str().unwrap();
    let refused = cluster.run(&["recovery", "mark", "--data-dir", folder]).code(2);
    assert!(refused.err.contains("no data folder"), "{refused:?}");
}
