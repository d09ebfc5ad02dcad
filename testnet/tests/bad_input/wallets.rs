//! Wallets that cannot be registered, and wallets that cannot pay.

use anyhow::{Context, Result};
use onespend_proto::v1;
use onespend_testnet::cluster::SIGNER;

use crate::door::{Clients, Who};
use crate::draft::{PAYEE, reserve};
use crate::refusal::{Refusal, invalid, refusal};
use crate::stage::{HOT, Stage, TAP, WATCH, id, outpoint, recipient};

/// Characters of a descriptor, by wallet.proto.
const MAX_DESCRIPTOR: usize = 4096;

fn register(descriptor: &str) -> v1::RegisterWalletRequest {
    v1::RegisterWalletRequest {
        request_id: id(),
        wallet_id: "new".to_owned(),
        descriptor: descriptor.to_owned(),
        ..Default::default()
    }
}

async fn refuse(stage: &mut Stage, what: &str, request: v1::RegisterWalletRequest, wanted: &Refusal) {
    stage.refuses(Who::Operator, what, wanted, async |mut to| to.wallet.register_wallet(request.clone()).await).await;
}

/// Descriptors.
pub async fn descriptors(stage: &mut Stage) -> Result<()> {
    let (tpub, tprv, xpub) = (stage.keys.tpub("new"), stage.keys.tprv("new"), stage.keys.xpub("new"));
    let second = stage.keys.tpub("second");
    let long = format!("wpkh({tpub}/{}<0;1>/*)", "1/".repeat(MAX_DESCRIPTOR / 2));
    let padded = format!("{}{}", stage.keys.wpkh("new"), " ".repeat(MAX_DESCRIPTOR));
    let key = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";
    let cases = [
        ("words", "my wallet".to_owned()),
        ("an address", "addr(bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080)".to_owned()),
        ("a private key", format!("wpkh({tprv}/<0;1>/*)")),
        ("a private key for taproot", format!("tr({tprv}/<0;1>/*)")),
        ("a single chain", format!("wpkh({tpub}/0/*)")),
        ("three chains", format!("wpkh({tpub}/<0;1;2>/*)")),
        ("the same chain twice", format!("wpkh({tpub}/<0;0>/*)")),
        ("no wildcard", format!("wpkh({tpub}/<0;1>)")),
        ("a hardened wildcard", format!("wpkh({tpub}/<0;1>/*h)")),
        ("a hardened chain", format!("wpkh({tpub}/<0h;1h>/*)")),
        ("a single key", format!("wpkh({key})")),
        ("a wrong checksum", format!("wpkh({tpub}/<0;1>/*)#aaaaaaaa")),
        ("P2PKH", format!("pkh({tpub}/<0;1>/*)")),
        ("P2SH-P2WPKH", format!("sh(wpkh({tpub}/<0;1>/*))")),
        ("P2WSH of one key", format!("wsh(pk({tpub}/<0;1>/*))")),
        ("unsorted multisig", format!("wsh(multi(1,{tpub}/<0;1>/*,{second}/<0;1>/*))")),
        ("a script tree", format!("tr({tpub}/<0;1>/*,pk({second}/<0;1>/*))")),
        ("a multisig with a key that stays", format!("wsh(sortedmulti(1,{tpub}/<0;1>/*,{second}/0/*))")),
        ("too long a path", long),
        ("too long a text", padded),
        ("a bracket too few", format!("wpkh({tpub}/<0;1>/*")),
        ("brackets without end", "wsh(".repeat(500)),
        ("bytes that are no text", "wpkh(\u{0}\u{7f})".to_owned()),
    ];
    let wanted = refusal("DESCRIPTOR_INVALID").field("descriptor");
    for (what, descriptor) in cases {
        refuse(stage, what, register(&descriptor), &wanted).await;
    }
    let other_network = refusal("WRONG_NETWORK").field("descriptor").with("network", "regtest");
    for descriptor in [format!("wpkh({xpub}/<0;1>/*)"), format!("tr({xpub}/<0;1>/*)")] {
        refuse(stage, "a key of the main network", register(&descriptor), &other_network).await;
    }
    Ok(())
}

/// Signers.
pub async fn signers(stage: &mut Stage) -> Result<()> {
    let (new, second) = (stage.keys.wpkh("new"), stage.keys.tpub("second"));
    let with = |descriptor: &str, signer: &str| v1::RegisterWalletRequest {
        signer: signer.to_owned(),
        ..register(descriptor)
    };
    for signer in ["nobody", "HOT", " hot", "External"] {
        let wanted = refusal("SIGNER_UNKNOWN").field("signer").with("signer", signer);
        refuse(stage, "a signer that is not configured", with(&new, signer), &wanted).await;
    }
    let book = "x".repeat(100_000);
    refuse(stage, "a signer as long as a book", with(&new, &book), &refusal("SIGNER_UNKNOWN").field("signer")).await;
    let no_key = refusal("DESCRIPTOR_INVALID").field("descriptor").saying("no private key");
    refuse(stage, "a signer without the key", with(&new, SIGNER), &no_key).await;
    let taproot = new.replace("wpkh(", "tr(");
    refuse(stage, "a signer without the taproot key", with(&taproot, SIGNER), &no_key).await;
    refuse(stage, "a signer without a descriptor", with("", SIGNER), &no_key).await;
    let nothing = refusal("DESCRIPTOR_INVALID").field("descriptor").saying("without a descriptor");
    refuse(stage, "an outside signer without a descriptor", with("", "external"), &nothing).await;
    let fenced =
        |signer: &str, key: &[u8]| v1::RegisterWalletRequest { fence_key: key.to_vec().into(), ..with(&new, signer) };
    let point = bitcoin::secp256k1::constants::GENERATOR_X;
    for (what, request) in [
        ("a fence key of 31 bytes", fenced("external", &[2; 31])),
        ("a fence key of 33 bytes", fenced("external", &[2; 33])),
        ("a fence key that is no point", fenced("external", &[0xff; 32])),
        ("a fence key of a watched wallet", fenced("", &point)),
    ] {
        refuse(stage, what, request, &invalid(&["fence_key"])).await;
    }
    let multisig = format!("wsh(sortedmulti(2,{}/<0;1>/*,{second}/<0;1>/*))", stage.keys.tpub("new"));
    let watched = refusal("DESCRIPTOR_INVALID").field("descriptor");
    refuse(stage, "a multisig with a signer", with(&multisig, SIGNER), &watched).await;
    Ok(())
}

/// Wallets that are there already.
pub async fn twice(stage: &mut Stage) -> Result<()> {
    let hot = stage.cluster.wallet().public_descriptor().to_owned();
    let exists = |wallet: &str| refusal("WALLET_EXISTS").with("wallet_id", wallet);
    let same_name = v1::RegisterWalletRequest { wallet_id: HOT.to_owned(), ..register(&stage.keys.wpkh("new")) };
    refuse(stage, "the same name", same_name, &exists(HOT)).await;
    refuse(stage, "the same descriptor", register(&hot), &exists(HOT)).await;
    refuse(stage, "its chains the other way round", register(&hot.replace("<0;1>", "<1;0>")), &exists(HOT)).await;
    refuse(stage, "one of its chains", register(&hot.replace("<0;1>", "<1;2>")), &exists(HOT)).await;
    let bare = format!("wpkh({})", hot.split_once(']').context("an origin")?.1.trim_end_matches(')'));
    refuse(stage, "without its origin", register(&bare), &exists(HOT)).await;
    Ok(())
}

/// Limits and other numbers.
pub async fn limits(stage: &mut Stage) -> Result<()> {
    let none = v1::WalletLimits::default();
    let cases = [
        ("max_fee_sat", v1::WalletLimits { max_fee_sat: -1, ..none }),
        ("max_fee_sat", v1::WalletLimits { max_fee_sat: i64::MIN, ..none }),
        ("max_feerate_sat_vb", v1::WalletLimits { max_feerate_sat_vb: -1.0, ..none }),
        ("max_feerate_sat_vb", v1::WalletLimits { max_feerate_sat_vb: 0.05, ..none }),
        ("max_feerate_sat_vb", v1::WalletLimits { max_feerate_sat_vb: f64::NAN, ..none }),
        ("max_feerate_sat_vb", v1::WalletLimits { max_feerate_sat_vb: f64::INFINITY, ..none }),
        ("max_feerate_sat_vb", v1::WalletLimits { max_feerate_sat_vb: 1e9, ..none }),
        ("max_fee_percent", v1::WalletLimits { max_fee_percent: 101, ..none }),
        ("max_fee_percent", v1::WalletLimits { max_fee_percent: u32::MAX, ..none }),
        ("finality_depth", v1::WalletLimits { finality_depth: 101, ..none }),
        ("finality_depth", v1::WalletLimits { finality_depth: u32::MAX, ..none }),
        ("max_reserved_percent", v1::WalletLimits { max_reserved_percent: 101, ..none }),
        ("velocity.window", v1::WalletLimits { velocity: Some(velocity(None, 1)), ..none }),
        ("velocity.window", v1::WalletLimits { velocity: Some(velocity(Some(0), 1)), ..none }),
        ("velocity.window", v1::WalletLimits { velocity: Some(velocity(Some(-1), 1)), ..none }),
        ("velocity.window", v1::WalletLimits { velocity: Some(velocity(Some(31 * 86_400 + 1), 1)), ..none }),
        ("velocity.max_sat", v1::WalletLimits { velocity: Some(velocity(Some(60), 0)), ..none }),
        ("velocity.max_sat", v1::WalletLimits { velocity: Some(velocity(Some(60), i64::MIN)), ..none }),
    ];
    for (field, limits) in cases {
        let field = format!("limits.{field}");
        let wanted = invalid(&[&field]);
        let request = v1::RegisterWalletRequest { limits: Some(limits), ..register(&stage.keys.wpkh("new")) };
        refuse(stage, &field, request, &wanted).await;
        stage
            .refuses(Who::Operator, &field, &wanted, async |mut to| {
                let request =
                    v1::SetLimitsRequest { request_id: id(), wallet_id: HOT.to_owned(), limits: Some(limits) };
                to.wallet.set_limits(request).await
            })
            .await;
    }
    let above = v1::RegisterWalletRequest { birth_height: 10_000_000, ..register(&stage.keys.wpkh("new")) };
    refuse(stage, "a birth above the tip", above, &invalid(&["birth_height"])).await;
    let note = "x".repeat(257);
    stage
        .refuses(Who::Operator, "a long note", &invalid(&["note"]), async |mut to| {
            let (wallet_id, note) = (HOT.to_owned(), note.clone());
            to.wallet.freeze_wallet(v1::FreezeWalletRequest { request_id: id(), wallet_id, note }).await
        })
        .await;
    stage
        .refuses(Who::Client, "an unknown keychain", &invalid(&["keychain"]), async |mut to| {
            let request = v1::NewAddressRequest { request_id: id(), wallet_id: HOT.to_owned(), keychain: 7 };
            to.wallet.new_address(request).await
        })
        .await;
    Ok(())
}

fn velocity(seconds: Option<i64>, max_sat: i64) -> v1::Velocity {
    let window = seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
    v1::Velocity { window, max_sat }
}

fn order(wallet: &str) -> v1::CreatePaymentRequest {
    v1::CreatePaymentRequest {
        request_id: id(),
        wallet_id: wallet.to_owned(),
        payment_id: "order".to_owned(),
        recipients: vec![recipient(PAYEE, 10_000)],
        fee: Some(v1::create_payment_request::Fee::FeerateSatVb(2.0)),
        ..Default::default()
    }
}

/// Wallets without a signer.
pub async fn without_signer(stage: &mut Stage) -> Result<()> {
    let wanted = refusal("WALLET_WATCH_ONLY");
    let ask = async |mut to: Clients| to.payment.create_payment(order(WATCH)).await;
    stage.refuses(Who::Client, "an order", &wanted, ask).await;
    let draft = crate::draft::Draft::new(stage, WATCH, "psbt").await?;
    let ask = async |mut to: Clients| to.payment.sign_psbt(draft.request()).await;
    stage.refuses(Who::Client, "a PSBT", &wanted, ask).await;
    stage.release(&draft.reservation).await
}

/// A wallet that an operator has stopped.
pub async fn frozen(stage: &mut Stage) -> Result<()> {
    let draft = crate::draft::Draft::new(stage, TAP, "frozen").await?;
    let coins = stage.coins(TAP).await?.iter().map(outpoint).collect::<Result<Vec<_>>>()?;
    let note = "somebody looked at the keys".to_owned();
    let wallet_id = || TAP.to_owned();
    let freeze = v1::FreezeWalletRequest { request_id: id(), wallet_id: wallet_id(), note: note.clone() };
    stage.leader(Who::Operator).wallet.freeze_wallet(freeze).await.context("FreezeWallet")?;

    let wanted = refusal("WALLET_FROZEN").saying(&note);
    let reserve_one = async |mut to: Clients| to.reservation.reserve_utxos(reserve(TAP, &coins[..1])).await;
    stage.refuses(Who::Client, "a reservation", &wanted, reserve_one).await;
    let select = async |mut to: Clients| {
        let selection = v1::Selection { target_sat: 10_000, feerate_sat_vb: 2.0, ..Default::default() };
        let what = Some(v1::reserve_utxos_request::What::Selection(selection));
        to.reservation.reserve_utxos(v1::ReserveUtxosRequest { what, ..reserve(TAP, &[]) }).await
    };
    stage.refuses(Who::Client, "a selection", &wanted, select).await;
    let pay = async |mut to: Clients| to.payment.create_payment(order(TAP)).await;
    stage.refuses(Who::Client, "an order", &wanted, pay).await;
    let sign = async |mut to: Clients| to.payment.sign_psbt(draft.request()).await;
    stage.refuses(Who::Client, "a PSBT", &wanted, sign).await;

    stage.release(&draft.reservation).await.context("releasing is allowed")?;
    let unfreeze = v1::UnfreezeWalletRequest { request_id: id(), wallet_id: wallet_id() };
    stage.leader(Who::Operator).wallet.unfreeze_wallet(unfreeze).await.context("UnfreezeWallet")?;
    Ok(())
}
