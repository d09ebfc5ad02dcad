//! Names that are malformed, unknown, or used before for something else.

use anyhow::{Context, Result};
use onespend_proto::v1;

use crate::door::{Clients, Who};
use crate::draft::{Draft, PAYEE, reserve};
use crate::refusal::{Refusal, invalid, refusal};
use crate::stage::{HOT, Stage, WATCH, id, outpoint, recipient};

fn malformed(longest: usize) -> Vec<String> {
    let texts = ["", " ", "a b", "a\tb", "a\n", "ü", "\u{0}", "名"];
    texts.into_iter().map(str::to_owned).chain(["x".repeat(longest + 1), "x".repeat(100_000)]).collect()
}

/// Request ids of every mutation.
pub async fn request_ids(stage: &mut Stage) -> Result<()> {
    let wanted = invalid(&["request_id"]);
    let draft = Draft::new(stage, HOT, "request-ids").await?;
    let held = draft.reservation.clone();
    let coin = draft.coins();
    for request_id in malformed(64) {
        let what = |rpc: &str| format!("{rpc} under {:?}", request_id.chars().take(10).collect::<String>());
        let wallet = |name: &str| name.to_owned();
        stage
            .refuses(Who::Client, &what("ReserveUtxos"), &wanted, async |mut to| {
                let request = v1::ReserveUtxosRequest { request_id: request_id.clone(), ..reserve(HOT, &coin) };
                to.reservation.reserve_utxos(request).await
            })
            .await;
        stage
            .refuses(Who::Client, &what("RenewReservation"), &wanted, async |mut to| {
                let (request_id, reservation_id) = (request_id.clone(), held.reservation_id.clone());
                let request =
                    v1::RenewReservationRequest { request_id, reservation_id, fence: held.fence, expiration: None };
                to.reservation.renew_reservation(request).await
            })
            .await;
        stage
            .refuses(Who::Client, &what("ReleaseReservation"), &wanted, async |mut to| {
                let (request_id, reservation_id) = (request_id.clone(), held.reservation_id.clone());
                let request = v1::ReleaseReservationRequest { request_id, reservation_id, fence: held.fence };
                to.reservation.release_reservation(request).await
            })
            .await;
        stage
            .refuses(Who::Client, &what("CreatePayment"), &wanted, async |mut to| {
                let request = v1::CreatePaymentRequest { request_id: request_id.clone(), ..order("p", 10_000) };
                to.payment.create_payment(request).await
            })
            .await;
        stage
            .refuses(Who::Client, &what("SignPsbt"), &wanted, async |mut to| {
                to.payment.sign_psbt(v1::SignPsbtRequest { request_id: request_id.clone(), ..draft.request() }).await
            })
            .await;
        stage
            .refuses(Who::Client, &what("NewAddress"), &wanted, async |mut to| {
                let request =
                    v1::NewAddressRequest { request_id: request_id.clone(), wallet_id: wallet(HOT), keychain: 0 };
                to.wallet.new_address(request).await
            })
            .await;
        stage
            .refuses(Who::Operator, &what("SetLimits"), &wanted, async |mut to| {
                let request =
                    v1::SetLimitsRequest { request_id: request_id.clone(), wallet_id: wallet(HOT), limits: None };
                to.wallet.set_limits(request).await
            })
            .await;
        stage
            .refuses(Who::Operator, &what("FreezeWallet"), &wanted, async |mut to| {
                let note = String::new();
                let request = v1::FreezeWalletRequest { request_id: request_id.clone(), wallet_id: wallet(HOT), note };
                to.wallet.freeze_wallet(request).await
            })
            .await;
    }
    stage.release(&draft.reservation).await
}

fn order(payment: &str, amount_sat: i64) -> v1::CreatePaymentRequest {
    v1::CreatePaymentRequest {
        request_id: id(),
        wallet_id: HOT.to_owned(),
        payment_id: payment.to_owned(),
        recipients: vec![recipient(PAYEE, amount_sat)],
        fee: Some(v1::create_payment_request::Fee::FeerateSatVb(2.0)),
        ..Default::default()
    }
}

/// Names of wallets, payments and reservations.
pub async fn resources(stage: &mut Stage) -> Result<()> {
    let wanted = invalid(&["wallet_id"]);
    let slashes = ["a/b", "../hot", "hot;", "hot*"].map(str::to_owned);
    for wallet_id in malformed(64).into_iter().chain(slashes) {
        each_wallet_rpc(stage, &wallet_id, &wanted).await;
    }
    let wanted = invalid(&["payment_id"]);
    for payment_id in malformed(128) {
        stage
            .refuses(Who::Client, "CreatePayment", &wanted, async |mut to| {
                to.payment.create_payment(order(&payment_id, 10_000)).await
            })
            .await;
        stage
            .refuses(Who::Client, "GetPayment", &wanted, async |mut to| {
                let request = v1::GetPaymentRequest { wallet_id: HOT.to_owned(), payment_id: payment_id.clone() };
                to.payment.get_payment(request).await
            })
            .await;
    }
    let wanted = invalid(&["reservation_id"]);
    for reservation_id in ["", "1", "r-", "r-x", "r--1", "R-1", "r-1 ", "r-99999999999999999999", "r-1.5", "r-٣"] {
        stage
            .refuses(Who::Client, reservation_id, &wanted, async |mut to| {
                let request =
                    v1::GetReservationRequest { reservation_id: reservation_id.to_owned(), ..Default::default() };
                to.reservation.get_reservation(request).await
            })
            .await;
        stage
            .refuses(Who::Client, reservation_id, &wanted, async |mut to| {
                let request = v1::ReleaseReservationRequest {
                    request_id: id(),
                    reservation_id: reservation_id.to_owned(),
                    fence: 1,
                };
                to.reservation.release_reservation(request).await
            })
            .await;
    }
    let all = invalid(&["request_id", "wallet_id", "payment_id", "recipients"]);
    stage
        .refuses(Who::Client, "nothing at all", &all, async |mut to| {
            to.payment.sign_psbt(v1::SignPsbtRequest::default()).await
        })
        .await;
    Ok(())
}

async fn each_wallet_rpc(stage: &mut Stage, wallet: &str, wanted: &Refusal) {
    let short: String = wallet.chars().take(10).collect();
    let what = |rpc: &str| format!("{rpc} of {short:?}");
    let wallet_id = || wallet.to_owned();
    stage
        .refuses(Who::Client, &what("GetWallet"), wanted, async |mut to| {
            to.wallet.get_wallet(v1::GetWalletRequest { wallet_id: wallet_id(), consistency: None }).await
        })
        .await;
    stage
        .refuses(Who::Client, &what("GetBalance"), wanted, async |mut to| {
            to.wallet.get_balance(v1::GetBalanceRequest { wallet_id: wallet_id(), ..Default::default() }).await
        })
        .await;
    stage
        .refuses(Who::Client, &what("ListUtxos"), wanted, async |mut to| {
            to.wallet.list_utxos(v1::ListUtxosRequest { wallet_id: wallet_id(), ..Default::default() }).await
        })
        .await;
    stage
        .refuses(Who::Client, &what("NewAddress"), wanted, async |mut to| {
            let request = v1::NewAddressRequest { request_id: id(), wallet_id: wallet_id(), keychain: 0 };
            to.wallet.new_address(request).await
        })
        .await;
    stage
        .refuses(Who::Operator, &what("SetLimits"), wanted, async |mut to| {
            let request = v1::SetLimitsRequest { request_id: id(), wallet_id: wallet_id(), limits: None };
            to.wallet.set_limits(request).await
        })
        .await;
    stage
        .refuses(Who::Operator, &what("FreezeWallet"), wanted, async |mut to| {
            let request = v1::FreezeWalletRequest { request_id: id(), wallet_id: wallet_id(), note: String::new() };
            to.wallet.freeze_wallet(request).await
        })
        .await;
    stage
        .refuses(Who::Operator, &what("UnfreezeWallet"), wanted, async |mut to| {
            to.wallet.unfreeze_wallet(v1::UnfreezeWalletRequest { request_id: id(), wallet_id: wallet_id() }).await
        })
        .await;
    stage
        .refuses(Who::Client, &what("CreatePayment"), wanted, async |mut to| {
            let request = v1::CreatePaymentRequest { wallet_id: wallet_id(), ..order("p", 10_000) };
            to.payment.create_payment(request).await
        })
        .await;
    stage
        .refuses(Who::Client, &what("GetPayment"), wanted, async |mut to| {
            let request = v1::GetPaymentRequest { wallet_id: wallet_id(), payment_id: "p".to_owned() };
            to.payment.get_payment(request).await
        })
        .await;
    // Lists of everything take no name as all wallets.
    if !wallet.is_empty() {
        stage
            .refuses(Who::Client, &what("ListPayments"), wanted, async |mut to| {
                to.payment.list_payments(v1::ListPaymentsRequest { wallet_id: wallet_id(), ..Default::default() }).await
            })
            .await;
    }
}

/// Names of nothing.
pub async fn unknown(stage: &mut Stage) -> Result<()> {
    each_wallet_rpc(stage, "nobody", &refusal("WALLET_UNKNOWN")).await;
    each_wallet_rpc(stage, "HOT", &refusal("WALLET_UNKNOWN")).await;
    for (wallet, payment) in [(HOT, "never"), (WATCH, "never")] {
        stage
            .refuses(Who::Client, "GetPayment", &refusal("PAYMENT_UNKNOWN"), async |mut to| {
                let request = v1::GetPaymentRequest { wallet_id: wallet.to_owned(), payment_id: payment.to_owned() };
                to.payment.get_payment(request).await
            })
            .await;
    }
    Ok(())
}

/// A request id is one request, for ever.
pub async fn reused(stage: &mut Stage) -> Result<()> {
    let request_id = id();
    let address = |request_id: &str, keychain: i32| v1::NewAddressRequest {
        request_id: request_id.to_owned(),
        wallet_id: HOT.to_owned(),
        keychain,
    };
    let first = stage.leader(Who::Client).wallet.new_address(address(&request_id, 1)).await?.into_inner();
    let before = stage.ledger().await;
    for door in [0, 1] {
        let mut clients = stage.doors()[door].clients(Who::Client);
        let again = clients.wallet.new_address(address(&request_id, 1)).await?.into_inner();
        stage.check("the same request again", again == first, || format!("{again:?} instead of {first:?}"));
    }
    stage.unchanged("the same request again", before).await;

    let wanted = refusal("REQUEST_ID_REUSED").field("request_id");
    stage
        .refuses(Who::Client, "for the other keychain", &wanted, async |mut to| {
            to.wallet.new_address(address(&request_id, 2)).await
        })
        .await;
    let coin = [outpoint(stage.coins(HOT).await?.first().context("a coin")?)?];
    stage
        .refuses(Who::Client, "for a reservation", &wanted, async |mut to| {
            let request = v1::ReserveUtxosRequest { request_id: request_id.clone(), ..reserve(HOT, &coin) };
            to.reservation.reserve_utxos(request).await
        })
        .await;
    stage
        .refuses(Who::Client, "for a payment", &wanted, async |mut to| {
            let request = v1::CreatePaymentRequest { request_id: request_id.clone(), ..order("reused", 10_000) };
            to.payment.create_payment(request).await
        })
        .await;
    // Another caller may use the same id for a request of its own.
    let mut other = stage.leader(Who::Other);
    let theirs = other.wallet.new_address(address(&request_id, 1)).await.context("as another caller")?.into_inner();
    stage.check("another caller", theirs.index != first.index, || format!("was given {first:?} too"));
    remembered(stage).await
}

/// A refusal that was decided is an answer as well: the same request gets it again, also when it would be granted now.
async fn remembered(stage: &mut Stage) -> Result<()> {
    let coin = [outpoint(stage.coins(HOT).await?.first().context("a coin")?)?];
    let held = stage.reserve(reserve(HOT, &coin)).await?;
    let request = reserve(HOT, &coin);
    let ask = async |mut to: Clients| to.reservation.reserve_utxos(request.clone()).await;
    let wanted = refusal("OUTPOINT_RESERVED").naming(&coin);
    stage.refuses(Who::Client, "a coin that is taken", &wanted, ask).await;
    stage.release(&held).await?;
    stage.refuses(Who::Client, "the same request when it is free", &wanted, ask).await;
    Ok(())
}
