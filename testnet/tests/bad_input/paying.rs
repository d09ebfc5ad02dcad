//! What is right is paid: signed, mined, with the outputs that were ordered. Without this the refusals prove nothing.

use anyhow::{Context, Result, ensure};
use bitcoin::psbt::PsbtSighashType;
use bitcoin::sighash::{EcdsaSighashType, TapSighashType};
use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use onespend_proto::v1;
use onespend_testnet::cluster::FINALITY_DEPTH;

use crate::door::{Clients, Who};
use crate::draft::{Draft, FEE_SAT, PAYEE, reserve};
use crate::keys::stranger;
use crate::refusal::refusal;
use crate::stage::{HOT, Stage, TAP, id, recipient};

/// By PSBT, from both kinds of wallet, with everything in it that a PSBT may have.
pub async fn by_psbt(stage: &mut Stage) -> Result<()> {
    for wallet in [HOT, TAP] {
        let mut draft = Draft::new(stage, wallet, "paid").await?;
        // One input tells everything, the other nothing.
        let parent = parent(stage, &draft.reservation.utxos[0])?;
        draft.psbt.inputs[0].non_witness_utxo = Some(parent);
        draft.psbt.inputs[1].witness_utxo = None;
        draft.psbt.inputs[0].sighash_type = Some(match wallet {
            HOT => PsbtSighashType::from(EcdsaSighashType::All),
            _ => PsbtSighashType::from(TapSighashType::Default),
        });
        draft.psbt.inputs[1].sighash_type = Some(EcdsaSighashType::All.into());
        let txid = draft.psbt.unsigned_tx.compute_txid();
        let signed = draft.sign(stage).await?;
        let payment = signed.payment.context("no payment in the answer")?;
        ensure!(payment.txid == txid.to_string(), "{} instead of {txid}", payment.txid);
        ensure!(signed.attempt_number == 1, "attempt {}", signed.attempt_number);
        again(stage, &draft, &payment.txid).await?;
        others(stage, &draft).await?;
        let mined = mine(stage, wallet, "paid", txid).await?;
        ensure!(mined.output == draft.psbt.unsigned_tx.output, "{mined:?}");
        spent(stage, &draft).await;
        stage.mine(FINALITY_DEPTH - 1).await?;
        stage.wait_for_payment(wallet, "paid", v1::PaymentState::Settled).await?;
        again(stage, &draft, &payment.txid).await?;
    }
    Ok(())
}

/// The same order, and the same transaction, is the same payment: nothing is paid twice.
async fn again(stage: &mut Stage, draft: &Draft, txid: &str) -> Result<()> {
    for (what, asked) in [("the same transaction again", draft.clone())] {
        for door in [0, 1] {
            let mut clients = stage.doors()[door].clients(Who::Client);
            let told = clients.payment.sign_psbt(asked.request()).await;
            let same = told.as_ref().is_ok_and(|told| {
                let told = told.get_ref();
                told.attempt_number == 1 && told.payment.as_ref().is_some_and(|payment| payment.txid == txid)
            });
            stage.check(what, same, || format!("{told:?}"));
        }
    }
    Ok(())
}

/// What a payment that is on its way does not allow.
async fn others(stage: &mut Stage, draft: &Draft) -> Result<()> {
    let bound = refusal("PAYMENT_ID_REUSED");
    let mut other = draft.clone();
    other.set_paid(50_000);
    let ask = async |mut to: Clients| to.payment.sign_psbt(other.request()).await;
    stage.refuses_now(Who::Client, "other recipients under the same name", &bound, ask).await;
    let ask = async |mut to: Clients| to.payment.create_payment(order(&draft.wallet, &draft.payment, 50_000)).await;
    stage.refuses_now(Who::Client, "an order under the same name", &bound, ask).await;

    let used = refusal("RESERVATION_USED").with("payment_id", &draft.payment);
    let mut dearer = draft.clone();
    dearer.set_fee(2 * FEE_SAT);
    let ask = async |mut to: Clients| to.payment.sign_psbt(dearer.request()).await;
    stage.refuses_now(Who::Client, "another transaction on the same reservation", &used, ask).await;
    let low = refusal("FEE_LIMIT").with("limit", "min_replacement_fee_sat");
    let mut cheaper = draft.clone();
    cheaper.set_fee(FEE_SAT - 1);
    let cheaper = v1::SignPsbtRequest { reservation_id: String::new(), fence: 0, ..cheaper.request() };
    let ask =
        async |mut to: Clients| to.payment.sign_psbt(v1::SignPsbtRequest { request_id: id(), ..cheaper.clone() }).await;
    stage.refuses_now(Who::Client, "a replacement that pays less", &low, ask).await;

    let theirs = refusal("NOT_OWNER").with("owner", "client/payouts");
    let ask = async |mut to: Clients| to.payment.sign_psbt(draft.request()).await;
    stage.refuses_now(Who::Other, "the payment of another", &theirs, ask).await;

    let (reservation_id, fence) = (draft.reservation.reservation_id.clone(), draft.reservation.fence);
    let ask = async |mut to: Clients| {
        let (request_id, reservation_id) = (id(), reservation_id.clone());
        to.reservation.release_reservation(v1::ReleaseReservationRequest { request_id, reservation_id, fence }).await
    };
    stage.refuses_now(Who::Client, "releasing what may be signed", &used, ask).await;
    let ask = async |mut to: Clients| {
        let (request_id, reservation_id) = (id(), reservation_id.clone());
        let request = v1::RenewReservationRequest { request_id, reservation_id, fence, expiration: None };
        to.reservation.renew_reservation(request).await
    };
    stage.refuses_now(Who::Client, "renewing what may be signed", &used, ask).await;
    let mut second = draft.clone();
    "second".clone_into(&mut second.payment);
    let ask = async |mut to: Clients| to.payment.sign_psbt(second.request()).await;
    stage.refuses_now(Who::Client, "the same coins for another payment", &used, ask).await;

    let coins = draft.coins();
    let taken = refusal("OUTPOINT_RESERVED").naming(&coins);
    let ask = async |mut to: Clients| to.reservation.reserve_utxos(reserve(&draft.wallet, &coins)).await;
    stage.refuses_now(Who::Client, "reserving what may be signed", &taken, ask).await;
    Ok(())
}

async fn spent(stage: &mut Stage, draft: &Draft) {
    let coins = draft.coins();
    let wanted = refusal("OUTPOINT_SPENT").naming(&coins);
    let ask = async |mut to: Clients| to.reservation.reserve_utxos(reserve(&draft.wallet, &coins)).await;
    stage.refuses(Who::Client, "reserving what is spent", &wanted, ask).await;
}

fn order(wallet: &str, payment: &str, amount_sat: i64) -> v1::CreatePaymentRequest {
    v1::CreatePaymentRequest {
        request_id: id(),
        wallet_id: wallet.to_owned(),
        payment_id: payment.to_owned(),
        recipients: vec![recipient(PAYEE, amount_sat)],
        fee: Some(v1::create_payment_request::Fee::FeerateSatVb(2.0)),
        ..Default::default()
    }
}

/// By order.
pub async fn by_order(stage: &mut Stage) -> Result<()> {
    for wallet in [HOT, TAP] {
        let request = order(wallet, "ordered", 30_000);
        let mut clients = stage.leader(Who::Client);
        let paid = clients.payment.create_payment(request.clone()).await.context("CreatePayment")?.into_inner();
        let txid = paid.payment.context("no payment in the answer")?.txid;
        // Under a new request id, with the address written another way, and at another feerate: the same payment.
        for door in [0, 1] {
            let mut clients = stage.doors()[door].clients(Who::Client);
            let again = v1::CreatePaymentRequest {
                fee: Some(v1::create_payment_request::Fee::FeerateSatVb(9.0)),
                ..order(wallet, "ordered", 30_000)
            };
            let again = clients.payment.create_payment(again).await;
            let same =
                again.as_ref().is_ok_and(|told| told.get_ref().payment.as_ref().is_some_and(|one| one.txid == txid));
            stage.check("the same order again", same, || format!("{again:?}"));
        }
        let bound = refusal("PAYMENT_ID_REUSED");
        for (what, other) in [
            ("another amount", order(wallet, "ordered", 30_001)),
            ("two recipients", {
                let mut both = order(wallet, "ordered", 30_000);
                both.recipients.push(recipient(8, 30_000));
                both
            }),
        ] {
            let ask = async |mut to: Clients| to.payment.create_payment(other.clone()).await;
            stage.refuses_now(Who::Client, what, &bound, ask).await;
        }
        let theirs = refusal("NOT_OWNER").with("owner", "client/payouts");
        let ask = async |mut to: Clients| to.payment.create_payment(order(wallet, "ordered", 30_000)).await;
        stage.refuses_now(Who::Other, "the order of another", &theirs, ask).await;
        let mined = mine(stage, wallet, "ordered", txid.parse()?).await?;
        let paid: Vec<&TxOut> = mined.output.iter().filter(|output| output.script_pubkey == stranger(PAYEE)).collect();
        ensure!(paid.len() == 1 && paid[0].value.to_sat() == 30_000 && mined.output.len() == 2, "{mined:?}");
        stage.mine(FINALITY_DEPTH - 1).await?;
        stage.wait_for_payment(wallet, "ordered", v1::PaymentState::Settled).await?;
    }
    Ok(())
}

/// Waits for the mempool, mines a block and returns the transaction out of it.
async fn mine(stage: &mut Stage, wallet: &str, payment: &str, txid: Txid) -> Result<Transaction> {
    stage.wait_for_payment(wallet, payment, v1::PaymentState::Broadcast).await?;
    stage.wait_for_mempools(txid).await?;
    stage.mine(1).await?;
    let bitcoind = stage.cluster.bitcoinds().first().context("no bitcoind")?;
    let block = bitcoind.block_at(bitcoind.height()?)?;
    stage.wait_for_payment(wallet, payment, v1::PaymentState::Confirming).await?;
    let found = block.txdata.into_iter().find(|transaction| transaction.compute_txid() == txid);
    found.with_context(|| format!("{txid} is not in the block"))
}

/// The transaction that made a coin.
fn parent(stage: &Stage, coin: &v1::Utxo) -> Result<Transaction> {
    let OutPoint { txid, .. } = crate::stage::outpoint(coin)?;
    let block = stage.cluster.bitcoinds()[0].block_at(coin.height)?;
    block.txdata.into_iter().find(|one| one.compute_txid() == txid).context("not in its block")
}
