//! What operators may ask for, asked wrongly: single coins, coins that are held back, the audit, recovery.

use anyhow::{Context, Result};
use bitcoin::OutPoint;
use bitcoin::hashes::Hash;
use onespend_proto::v1;
use onespend_testnet::grpc::channel;

use crate::door::{Clients, Who};
use crate::refusal::{Refusal, invalid, refusal};
use crate::stage::{HOT, Stage, id, on_wire, outpoint};

/// The wallet of single coins.
const SINGLE: &str = "single";

/// An outpoint of no transaction.
fn nowhere(vout: u32) -> OutPoint {
    OutPoint::new(bitcoin::Txid::from_byte_array([3; 32]), vout)
}

fn register(wallet: &str, coins: &[OutPoint]) -> v1::RegisterOutpointsRequest {
    let outpoints = coins.iter().map(on_wire).collect();
    v1::RegisterOutpointsRequest { request_id: id(), wallet_id: wallet.to_owned(), outpoints }
}

fn release(wallet: &str, coins: &[OutPoint]) -> v1::ReleaseQuarantinedRequest {
    v1::ReleaseQuarantinedRequest {
        request_id: id(),
        wallet_id: wallet.to_owned(),
        outpoints: coins.iter().map(on_wire).collect(),
        note: "looked".to_owned(),
        i_have_checked: true,
    }
}

/// Single coins.
pub async fn single_coins(stage: &mut Stage) -> Result<()> {
    let wallet = v1::RegisterWalletRequest { request_id: id(), wallet_id: SINGLE.to_owned(), ..Default::default() };
    stage.leader(Who::Operator).wallet.register_wallet(wallet).await.context("RegisterWallet")?;
    let ours = outpoint(stage.coins(HOT).await?.first().context("a coin")?)?;
    let twice = [ours, ours];
    let strange = [nowhere(0), nowhere(1)];
    let cases = [
        ("no coin", register(SINGLE, &[]), invalid(&["outpoints"])),
        ("no such wallet", register("nobody", &strange), refusal("WALLET_UNKNOWN")),
        ("a wallet with a descriptor", register(HOT, &strange), refusal("WALLET_HAS_DESCRIPTORS")),
        ("coins of nothing", register(SINGLE, &strange), refusal("OUTPOINT_UNKNOWN").naming(&strange)),
        ("a coin of another wallet", register(SINGLE, &[ours]), refusal("OUTPOINT_UNKNOWN").naming(&[ours])),
        ("another wallet's coin twice", register(SINGLE, &twice), refusal("OUTPOINT_UNKNOWN").naming(&[ours])),
    ];
    for (what, request, wanted) in cases {
        let ask = async |mut to: Clients| to.wallet.register_outpoints(request.clone()).await;
        stage.refuses(Who::Operator, what, &wanted, ask).await;
    }
    let ask = async |mut to: Clients| to.wallet.register_outpoints(register(SINGLE, &strange)).await;
    stage.refuses(Who::Client, "a client who adds coins", &role("RegisterOutpoints"), ask).await;
    let ask = async |mut to: Clients| {
        let request = v1::NewAddressRequest { request_id: id(), wallet_id: SINGLE.to_owned(), keychain: 0 };
        to.wallet.new_address(request).await
    };
    stage.refuses_now(Who::Client, "an address without a descriptor", &refusal("DESCRIPTOR_INVALID"), ask).await;
    Ok(())
}

/// Coins that are not held back.
pub async fn held_back(stage: &mut Stage) -> Result<()> {
    let ours = outpoint(stage.coins(HOT).await?.first().context("a coin")?)?;
    let both = [ours, nowhere(0)];
    let cases = [
        ("coins that are free", release(HOT, &both), refusal("NOT_QUARANTINED").naming(&both)),
        ("no coin", release(HOT, &[]), invalid(&["outpoints"])),
        ("no such wallet", release("nobody", &both), refusal("WALLET_UNKNOWN")),
        (
            "unchecked",
            v1::ReleaseQuarantinedRequest { i_have_checked: false, ..release(HOT, &both) },
            invalid(&["i_have_checked"]),
        ),
        (
            "without a word",
            v1::ReleaseQuarantinedRequest { note: " ".to_owned(), ..release(HOT, &both) },
            invalid(&["note"]),
        ),
        (
            "with too many words",
            v1::ReleaseQuarantinedRequest { note: "x".repeat(1001), ..release(HOT, &both) },
            invalid(&["note"]),
        ),
    ];
    for (what, request, wanted) in cases {
        let ask = async |mut to: Clients| to.wallet.release_quarantined(request.clone()).await;
        stage.refuses(Who::Operator, what, &wanted, ask).await;
    }
    let ask = async |mut to: Clients| to.wallet.release_quarantined(release(HOT, &both)).await;
    stage.refuses(Who::Client, "a client who frees coins", &role("ReleaseQuarantined"), ask).await;
    Ok(())
}

/// Coins that are not lost.
pub async fn not_lost(stage: &mut Stage) -> Result<()> {
    let ours = outpoint(stage.coins(HOT).await?.first().context("a coin")?)?;
    // Nothing that could be in a block.
    let made = bitcoin::Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![bitcoin::TxIn::default()],
        output: vec![],
    };
    let coin = OutPoint::new(made.compute_txid(), 0);
    let lost = || v1::DeclareLostRequest {
        request_id: id(),
        wallet_id: HOT.to_owned(),
        outpoint: Some(on_wire(&coin)),
        raw_deposit: bitcoin::consensus::serialize(&made).into(),
        conflicting_txid: nowhere(0).txid.to_string(),
        block_hash: nowhere(0).txid.to_string(),
        note: "looked".to_owned(),
    };
    let cases = [
        ("a coin of nothing", lost(), refusal("OUTPOINT_UNKNOWN").naming(&[coin])),
        (
            "no such wallet",
            v1::DeclareLostRequest { wallet_id: "nobody".to_owned(), ..lost() },
            refusal("WALLET_UNKNOWN"),
        ),
        (
            "a coin of another transaction",
            v1::DeclareLostRequest { outpoint: Some(on_wire(&ours)), ..lost() },
            invalid(&["raw_deposit"]),
        ),
        (
            "no transaction",
            v1::DeclareLostRequest { raw_deposit: vec![0xff; 60].into(), ..lost() },
            invalid(&["raw_deposit"]),
        ),
        ("no coin", v1::DeclareLostRequest { outpoint: None, ..lost() }, invalid(&["outpoint"])),
        (
            "hashes that are none",
            v1::DeclareLostRequest { conflicting_txid: "zz".to_owned(), block_hash: String::new(), ..lost() },
            invalid(&["conflicting_txid", "block_hash"]),
        ),
        ("without a word", v1::DeclareLostRequest { note: " ".to_owned(), ..lost() }, invalid(&["note"])),
    ];
    for (what, request, wanted) in cases {
        let ask = async |mut to: Clients| to.wallet.declare_lost(request.clone()).await;
        stage.refuses(Who::Operator, what, &wanted, ask).await;
    }
    let ask = async |mut to: Clients| to.wallet.declare_lost(lost()).await;
    stage.refuses(Who::Client, "a client who gives up a coin", &role("DeclareLost"), ask).await;
    Ok(())
}

/// Reading the audit.
pub async fn audit(stage: &mut Stage) -> Result<()> {
    let cases = [
        ("pages", v1::ListAuditEventsRequest { page_size: -1, ..Default::default() }, invalid(&["page_size"])),
        (
            "tokens",
            v1::ListAuditEventsRequest { page_token: "zz".to_owned(), ..Default::default() },
            invalid(&["page_token"]),
        ),
        (
            "wallets",
            v1::ListAuditEventsRequest { wallet_id: "a b".to_owned(), ..Default::default() },
            invalid(&["wallet_id"]),
        ),
    ];
    for (what, request, wanted) in cases {
        let ask = async |mut to: Clients| to.wallet.list_audit_events(request.clone()).await;
        stage.refuses(Who::Operator, what, &wanted, ask).await;
    }
    let ask = async |mut to: Clients| to.wallet.list_audit_events(v1::ListAuditEventsRequest::default()).await;
    stage.refuses(Who::Client, "a client who reads it", &role("ListAuditEvents"), ask).await;
    let everything = v1::ListAuditEventsRequest { page_size: 3, ..Default::default() };
    let told = stage.leader(Who::Operator).wallet.list_audit_events(everything).await?.into_inner();
    let in_order = told.events.len() == 3 && told.events.windows(2).all(|two| two[0].index < two[1].index);
    stage.check("the audit", in_order && !told.next_page_token.is_empty(), || format!("{told:?}"));
    Ok(())
}

/// Confirming what does not wait for it.
pub async fn recovery(stage: &mut Stage) -> Result<()> {
    let confirm = |note: &str, i_have_checked| v1::ConfirmRecoveryRequest {
        request_id: id(),
        note: note.to_owned(),
        i_have_checked,
    };
    let cases = [
        ("what was never in doubt", confirm("looked", true), refusal("RECOVERY_REFUSED")),
        ("unchecked", confirm("looked", false), invalid(&["i_have_checked"])),
        ("without a word", confirm("", true), invalid(&["note"])),
        (
            "under no id",
            v1::ConfirmRecoveryRequest { request_id: String::new(), ..confirm("looked", true) },
            invalid(&["request_id"]),
        ),
    ];
    let before = stage.ledger().await;
    for (what, request, wanted) in cases {
        for at in 0..stage.doors().len() {
            let control = stage.doors()[at].addresses.control;
            let mut clients = Clients::new(channel(control, stage.cluster.operator())?);
            let fault = match clients.cluster.confirm_recovery(request.clone()).await {
                Ok(answer) => Some(format!("was accepted: {answer:?}")),
                Err(status) => wanted.fault(&status),
            };
            stage.check(what, fault.is_none(), || fault.clone().unwrap_or_default());
        }
    }
    stage.unchanged("confirming", before).await;
    let control = stage.doors()[1].addresses.control;
    let mut clients = Clients::new(channel(control, stage.cluster.operator())?);
    let told = clients.cluster.get_recovery(v1::GetRecoveryRequest::default()).await?.into_inner().recovery;
    let off = told.as_ref().is_some_and(|recovery| !recovery.active && recovery.epoch == 0);
    stage.check("recovery mode", off, || format!("{told:?}"));
    Ok(())
}

fn role(action: &str) -> Refusal {
    refusal("ROLE").with("caller", "client/payouts").with("action", action)
}
