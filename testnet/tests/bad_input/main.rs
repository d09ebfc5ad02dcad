//! What bad input gets: a clear refusal of the documented form, and nothing else.
//!
//! One cluster of three nodes answers everything, by gRPC with mutual TLS. Each bad request goes to the leader and to a
//! replica, which passes it on: both must refuse for the same reason, with the code and the metadata that errors.proto
//! documents, and what callers can see of the state must be the same before and after.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::result_large_err, clippy::unused_async)]

mod callers;
mod configs;
mod door;
mod draft;
mod folders;
mod keys;
mod ledger;
mod messages;
mod names;
mod operators;
mod outputs;
mod paying;
mod psbts;
mod reads;
mod recipients;
mod refusal;
mod replacements;
mod reservations;
mod stage;
mod vectors;
mod wallets;

use std::fs;

use anyhow::Result;
use onespend_proto::v1;
use onespend_testnet::grpc::channel;
use stage::{Stage, say};
use tokio::runtime::Runtime;

#[test]
fn bad_input_is_refused_as_documented_and_changes_nothing() {
    let runtime = Runtime::new().unwrap();
    let stage = runtime.block_on(async {
        let mut stage = Stage::set().await.unwrap();
        ask_everything(&mut stage).await;
        stage
    });
    let faults = stage.faults().to_vec();
    if faults.is_empty() {
        stage.cluster.finish().unwrap();
    }
    assert!(faults.is_empty(), "{} faults, told above; the first: {}", faults.len(), faults[0]);
}

async fn ask_everything(stage: &mut Stage) {
    say("");
    stage.run("request ids", names::request_ids).await;
    stage.run("names of resources", names::resources).await;
    stage.run("names of nothing", names::unknown).await;
    stage.run("request ids used again", names::reused).await;
    stage.run("recipients and amounts", recipients::check).await;
    stage.run("orders", recipients::orders).await;
    stage.run("coins to reserve", reservations::coins).await;
    stage.run("immature coins", reservations::immature).await;
    stage.run("selections", reservations::selections).await;
    stage.run("times to live", reservations::times).await;
    stage.run("owners and fences", reservations::owners).await;
    stage.run("expired reservations", reservations::expired).await;
    stage.run("quota of reservations", reservations::quota).await;
    stage.run("unreadable PSBTs", psbts::unreadable).await;
    stage.run("damaged PSBTs", psbts::damaged).await;
    stage.run("inputs of PSBTs", psbts::inputs).await;
    stage.run("sighash types", psbts::sighashes).await;
    stage.run("coins of PSBTs", psbts::coins).await;
    stage.run("transactions of PSBTs", psbts::transactions).await;
    stage.run("requests with PSBTs", psbts::requests).await;
    stage.run("published vectors", vectors::check).await;
    stage.run("outputs", outputs::destinations).await;
    stage.run("fees", outputs::fees).await;
    stage.run("descriptors", wallets::descriptors).await;
    stage.run("signers of wallets", wallets::signers).await;
    stage.run("wallets registered twice", wallets::twice).await;
    stage.run("limits of wallets", wallets::limits).await;
    stage.run("wallets without a signer", wallets::without_signer).await;
    stage.run("frozen wallets", wallets::frozen).await;
    stage.run("pages", reads::pages).await;
    stage.run("filters", reads::filters).await;
    stage.run("staleness", reads::staleness).await;
    stage.run("watches", reads::watches).await;
    stage.run("transfers of leadership", reads::transfers).await;
    stage.run("TLS handshakes", callers::handshakes).await;
    stage.run("identities", callers::identities).await;
    stage.run("impostors", callers::impostors).await;
    stage.run("roles", callers::roles).await;
    stage.run("the control port", callers::control_port).await;
    stage.run("oversize messages", messages::oversize).await;
    stage.run("strange messages", messages::strange).await;
    stage.run("impatient callers", messages::impatient).await;
    stage.run("payments by PSBT", paying::by_psbt).await;
    stage.run("payments by order", paying::by_order).await;
    stage.run("names of what to replace", replacements::names).await;
    stage.run("fees of replacements", replacements::fees).await;
    stage.run("payments to replace", replacements::payments).await;
    stage.run("signers outside", replacements::outside).await;
    stage.run("single coins", operators::single_coins).await;
    stage.run("coins that are held back", operators::held_back).await;
    stage.run("coins that are not lost", operators::not_lost).await;
    stage.run("the audit", operators::audit).await;
    stage.run("recovery mode", operators::recovery).await;
    stage.run("configurations", configs::check).await;
    stage.run("data folders", folders::check).await;
    stage.run("the nodes afterwards", healthy).await;
}

/// No node panicked, ended, or raised an alarm.
async fn healthy(stage: &mut Stage) -> Result<()> {
    let operator = stage.cluster.operator().clone();
    for at in 0..stage.cluster.nodes().len() {
        let (name, control) = {
            let node = &stage.cluster.nodes()[at];
            (node.name().to_owned(), node.addresses().control)
        };
        let log = fs::read_to_string(stage.cluster.folder().join(&name).join("node.log"))?;
        for word in ["panicked", "ERROR"] {
            let found = log.lines().find(|line| line.contains(word)).map(str::to_owned);
            stage.check(&name, found.is_none(), || format!("its log says: {found:?}"));
        }
        let mut clients = door::Clients::new(channel(control, &operator)?);
        let status = clients.cluster.get_status(v1::GetStatusRequest {}).await?.into_inner();
        stage.check(&name, status.alarms.is_empty(), || format!("alarms: {:?}", status.alarms));
    }
    Ok(())
}
