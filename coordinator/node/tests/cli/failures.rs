//! What is said, and with which code, when there is no good answer.

use onespend_proto::{reason, v1};
use tonic::Code;

use crate::node::{ADDRESS, TXID};
use crate::run::{Authority, Cluster, onespend, with_environment};

#[test]
fn a_refusal_exits_1_with_its_reason_facts_and_remedy() {
    let cluster = Cluster::start();
    let both = format!("{TXID}:0,{TXID}:1");
    cluster.node.refuse(Code::Aborted, reason::OUTPOINT_RESERVED, &[("outpoints", &both)], &[]);
    let refused = cluster.run(&["reserve", "coins", "--wallet", "hot", &format!("{TXID}:0")]).code(1);
    assert!(refused.out.is_empty());
    let lines: Vec<&str> = refused.err.lines().collect();
    assert_eq!(lines[0], "onespend: refused: no, said the node");
    assert_eq!(lines[1], "  reason: OUTPOINT_RESERVED");
    assert_eq!(lines[2..4], [format!("  outpoints: {TXID}:0"), format!("  outpoints: {TXID}:1")]);
    assert!(lines[4].starts_with("  remedy: choose other coins"), "{refused:?}");
    assert_eq!(cluster.node.all::<v1::ReserveUtxosRequest>().len(), 1, "a refusal is not asked again");
}

#[test]
fn a_refusal_names_every_faulty_field_also_as_json() {
    let cluster = Cluster::start();
    let fields = [("wallet_id", "is unknown"), ("ttl", "is too long")];
    cluster.node.refuse(Code::InvalidArgument, reason::FIELD_INVALID, &[], &fields);
    let refused = cluster.run(&["-o", "json", "wallet", "show", "hot"]).code(1);
    let error: serde_json::Value = serde_json::from_str(&refused.err).unwrap();
    assert_eq!(error["error"]["exit_code"], 1);
    let told = error["error"]["details"].as_array().unwrap();
    let fields: Vec<_> = told.iter().filter(|fact| fact["name"] == "field").map(|fact| &fact["value"]).collect();
    assert_eq!(fields, ["wallet_id: is unknown", "ttl: is too long"]);
}

#[test]
fn an_unknown_outcome_exits_3_and_names_the_request_id() {
    let cluster = Cluster::start();
    cluster.node.be_silent();
    let to = format!("{ADDRESS}=1000");
    let pay = ["pay", "--wallet", "hot", "--payment-id", "order-7", "--to", &to, "--timeout", "1500ms"];
    let unknown = cluster.run(&pay).code(3);
    let asked = cluster.node.all::<v1::CreatePaymentRequest>();
    let id = &asked[0].request_id;
    assert!(asked.len() > 1 && asked.iter().all(|request| request.request_id == *id));
    assert!(unknown.err.contains(&format!("  request_id: {id}\n")), "{unknown:?}");
    assert!(unknown.err.contains(&format!("--request-id {id}")), "{unknown:?}");

    let again = cluster.run(&[&pay[..], &["--request-id", id]].concat()).code(3);
    assert!(again.err.contains(id.as_str()), "{again:?}");
    assert_eq!(cluster.node.last::<v1::CreatePaymentRequest>().request_id, *id);

    // A read changes nothing, so it has no unknown outcome.
    cluster.run(&["wallet", "list", "--timeout", "500ms"]).code(4);
}

#[test]
fn a_cluster_that_is_down_exits_4() {
    let cluster = Cluster::start();
    let nobody = "127.0.0.1:9";
    let down = cluster.run(&["wallet", "freeze", "hot", "--endpoint", nobody, "--timeout", "300ms"]).code(4);
    assert!(down.err.contains("nothing was sent") && down.err.contains("  last: "), "{down:?}");
    assert!(down.err.contains("127.0.0.1:9 could not be reached"), "{down:?}");
    assert!(down.err.contains("  last: Connection refused"), "{down:?}");
    let both = format!("{nobody},127.0.0.1:10");
    let down = cluster.run(&["wallet", "list", "--endpoint", &both, "--timeout", "300ms"]).code(4);
    assert!(down.err.contains("none of 127.0.0.1:9, 127.0.0.1:10 could be reached"), "{down:?}");
    let down = cluster.run_as("operator/alice", &["status", "--control", nobody, "--timeout", "300ms"]).code(4);
    let line = down.err.lines().find(|line| line.contains("Connection refused")).unwrap_or_default();
    assert_eq!(line.matches(nobody).count(), 1, "{down:?}");
}

#[test]
fn what_is_missing_for_a_connection_is_named() {
    let bare = onespend(&["wallet", "list"]).code(2);
    for name in ["--endpoint", "ONESPEND_ENDPOINTS", "ONESPEND_CA", "--cert", "ONESPEND_KEY", "--profile"] {
        assert!(bare.err.contains(name), "{name}: {bare:?}");
    }
    let authority = Authority::new();
    let profile = authority.path().to_str().unwrap();
    let ports =
        with_environment(&[("ONESPEND_PROFILE", profile)], &["--as", "operator/alice", "cluster", "transfer"]).code(2);
    assert!(ports.err.contains("--control HOST:PORT") && !ports.err.contains("ONESPEND_CA"), "{ports:?}");
    let choice = onespend(&["--profile", profile, "--endpoint", "127.0.0.1:1", "wallet", "list"]).code(2);
    assert!(choice.err.contains("client/payouts, operator/alice"), "{choice:?}");
    onespend(&["--as", "operator/alice", "wallet", "list"]).code(2);
    let address = onespend(&["--endpoint", "https://10.0.0.1:7800", "wallet", "list"]).code(2);
    assert!(address.err.contains("host"), "{address:?}");
}

#[test]
fn options_variables_and_profiles_lead_to_the_same_call() {
    let cluster = Cluster::start();
    let file = |name: &str| cluster.authority.file(name).to_str().unwrap().to_owned();
    let (ca, cert, key) = (file("ca.pem"), file("client-payouts.pem"), file("client-payouts.key"));
    let address = cluster.node.address();
    let options = ["--endpoint", address, "--ca", &ca, "--cert", &cert, "--key", &key];
    onespend(&[&["wallet", "list"][..], &options].concat()).code(0);
    onespend(&[&options[..], &["wallet", "list"]].concat()).code(0);
    let list = format!("127.0.0.1:9,{address}");
    let variables =
        [("ONESPEND_ENDPOINTS", list.as_str()), ("ONESPEND_CA", &ca), ("ONESPEND_CERT", &cert), ("ONESPEND_KEY", &key)];
    with_environment(&variables, &["wallet", "list"]).code(0);
    cluster.run(&["wallet", "list"]).code(0);
    assert_eq!(cluster.node.all::<v1::ListWalletsRequest>().len(), 4);
    assert_eq!(cluster.node.caller(), "client/payouts");
}

#[test]
fn certificates_that_do_not_belong_together_are_refused_before_anything_is_sent() {
    let (cluster, other) = (Cluster::start(), Authority::new());
    let file = |authority: &Authority, name: &str| authority.file(name).to_str().unwrap().to_owned();
    let foreign = [
        "--ca",
        &file(&other, "ca.pem"),
        "--cert",
        &file(&cluster.authority, "client-payouts.pem"),
        "--key",
        &file(&cluster.authority, "client-payouts.key"),
    ];
    let refused = cluster.run(&[&["wallet", "list"][..], &foreign].concat()).code(2);
    assert!(refused.err.contains("client-payouts.pem") && refused.err.contains("remedy: "), "{refused:?}");

    let stranger = [
        "--ca",
        &file(&other, "ca.pem"),
        "--cert",
        &file(&other, "client-payouts.pem"),
        "--key",
        &file(&other, "client-payouts.key"),
        "--timeout",
        "500ms",
    ];
    let refused = cluster.run(&[&["wallet", "list"][..], &stranger].concat());
    assert_eq!(refused.code, 4, "{refused:?}");
}
