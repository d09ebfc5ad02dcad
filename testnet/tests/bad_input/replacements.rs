//! Fee bumps, cancellations, and what signers outside are said to have done, that cannot be.

use anyhow::{Context, Result};
use onespend_proto::v1;
use onespend_proto::v1::{bump_fee_cpfp_request as cpfp, bump_fee_request as bump, cancel_payment_request as cancel};

use crate::door::{Clients, Who};
use crate::draft::PAYEE;
use crate::refusal::{Refusal, invalid, refusal};
use crate::stage::{HOT, OUTSIDE, Stage, id, recipient};

/// The payment that is asked about.
const PAYMENT: &str = "replaceable";
/// Bytes of a BIP-340 signature.
const PROOF_BYTES: usize = 64;

fn bump(payment: &str, sat_vb: f64) -> v1::BumpFeeRequest {
    v1::BumpFeeRequest {
        request_id: id(),
        wallet_id: HOT.to_owned(),
        payment_id: payment.to_owned(),
        fee: Some(bump::Fee::FeerateSatVb(sat_vb)),
        max_fee_sat: 0,
    }
}

fn cancel(payment: &str) -> v1::CancelPaymentRequest {
    v1::CancelPaymentRequest {
        request_id: id(),
        wallet_id: HOT.to_owned(),
        payment_id: payment.to_owned(),
        fee: Some(cancel::Fee::FeerateSatVb(5.0)),
        max_fee_sat: 0,
    }
}

fn child(payment: &str, child: &str, sat_vb: f64) -> v1::BumpFeeCpfpRequest {
    v1::BumpFeeCpfpRequest {
        request_id: id(),
        wallet_id: HOT.to_owned(),
        payment_id: payment.to_owned(),
        child_payment_id: child.to_owned(),
        fee: Some(cpfp::Fee::PackageFeerateSatVb(sat_vb)),
        max_fee_sat: 0,
    }
}

fn abort(wallet: &str, payment: &str) -> v1::AbortAttemptRequest {
    v1::AbortAttemptRequest {
        request_id: id(),
        wallet_id: wallet.to_owned(),
        payment_id: payment.to_owned(),
        attempt_number: 1,
        proof: vec![7; PROOF_BYTES].into(),
    }
}

fn submit(wallet: &str, payment: &str, raw: &[u8]) -> v1::SubmitSignedTransactionRequest {
    v1::SubmitSignedTransactionRequest {
        request_id: id(),
        wallet_id: wallet.to_owned(),
        payment_id: payment.to_owned(),
        raw_transaction: raw.to_vec().into(),
    }
}

fn order(wallet: &str, payment: &str) -> v1::CreatePaymentRequest {
    v1::CreatePaymentRequest {
        request_id: id(),
        wallet_id: wallet.to_owned(),
        payment_id: payment.to_owned(),
        recipients: vec![recipient(PAYEE, 30_000)],
        fee: Some(v1::create_payment_request::Fee::FeerateSatVb(3.0)),
        ..Default::default()
    }
}

/// Asks every rpc of this page about a payment.
async fn each(stage: &mut Stage, (wallet, payment): (&str, &str), wanted: &Refusal, raw: &[u8]) {
    let short = |rpc: &str| format!("{rpc} of {:?} in {:?}", clip(payment), clip(wallet));
    let names = || (id(), wallet.to_owned());
    stage
        .refuses(Who::Client, &short("BumpFee"), wanted, async |mut to| {
            let (request_id, wallet_id) = names();
            to.payment.bump_fee(v1::BumpFeeRequest { request_id, wallet_id, ..bump(payment, 9.0) }).await
        })
        .await;
    stage
        .refuses(Who::Client, &short("CancelPayment"), wanted, async |mut to| {
            let (request_id, wallet_id) = names();
            to.payment.cancel_payment(v1::CancelPaymentRequest { request_id, wallet_id, ..cancel(payment) }).await
        })
        .await;
    stage
        .refuses(Who::Client, &short("BumpFeeCpfp"), wanted, async |mut to| {
            let (request_id, wallet_id) = names();
            let request = v1::BumpFeeCpfpRequest { request_id, wallet_id, ..child(payment, "child", 9.0) };
            to.payment.bump_fee_cpfp(request).await
        })
        .await;
    stage
        .refuses(Who::Client, &short("AbortAttempt"), wanted, async |mut to| {
            to.payment.abort_attempt(abort(wallet, payment)).await
        })
        .await;
    stage
        .refuses(Who::Client, &short("SubmitSignedTransaction"), wanted, async |mut to| {
            to.payment.submit_signed_transaction(submit(wallet, payment, raw)).await
        })
        .await;
}

fn clip(text: &str) -> String {
    text.chars().take(10).collect()
}

/// A transaction that is none of any payment's, in consensus encoding.
fn some_transaction() -> Vec<u8> {
    let genesis = bitcoin::blockdata::constants::genesis_block(bitcoin::Network::Regtest);
    bitcoin::consensus::serialize(&genesis.txdata[0])
}

/// Names of wallets and payments, and request ids.
pub async fn names(stage: &mut Stage) -> Result<()> {
    let raw = some_transaction();
    for malformed in ["", "a b", "ü", &"x".repeat(129)] {
        each(stage, (malformed, "p"), &invalid(&["wallet_id"]), &raw).await;
        each(stage, (HOT, malformed), &invalid(&["payment_id"]), &raw).await;
        let wanted = invalid(&["child_payment_id"]);
        let ask = async |mut to: Clients| to.payment.bump_fee_cpfp(child("p", malformed, 9.0)).await;
        stage.refuses(Who::Client, "the name of a child", &wanted, ask).await;
    }
    each(stage, ("nobody", "p"), &refusal("WALLET_UNKNOWN"), &raw).await;
    each(stage, (HOT, "never"), &refusal("PAYMENT_UNKNOWN"), &raw).await;
    let wanted = invalid(&["request_id"]);
    for request_id in ["", "a b", &"x".repeat(65)] {
        let ask = async |mut to: Clients| {
            let request_id = request_id.to_owned();
            to.payment.bump_fee(v1::BumpFeeRequest { request_id, ..bump("p", 9.0) }).await
        };
        stage.refuses(Who::Client, "the id of a bump", &wanted, ask).await;
        let ask = async |mut to: Clients| {
            let request_id = request_id.to_owned();
            to.payment.cancel_payment(v1::CancelPaymentRequest { request_id, ..cancel("p") }).await
        };
        stage.refuses(Who::Client, "the id of a cancellation", &wanted, ask).await;
        let ask = async |mut to: Clients| {
            let request_id = request_id.to_owned();
            to.payment.abort_attempt(v1::AbortAttemptRequest { request_id, ..abort(HOT, "p") }).await
        };
        stage.refuses(Who::Client, "the id of an abort", &wanted, ask).await;
        let ask = async |mut to: Clients| {
            let request_id = request_id.to_owned();
            let request = v1::SubmitSignedTransactionRequest { request_id, ..submit(HOT, "p", &raw) };
            to.payment.submit_signed_transaction(request).await
        };
        stage.refuses(Who::Client, "the id of a signed transaction", &wanted, ask).await;
    }
    Ok(())
}

/// Fees that make no sense, of rpcs that take one.
pub async fn fees(stage: &mut Stage) -> Result<()> {
    for rate in [0.0, -1.0, 0.05, f64::NAN, f64::INFINITY, 1e9] {
        let ask = async |mut to: Clients| to.payment.bump_fee(bump("p", rate)).await;
        stage.refuses(Who::Client, "the feerate of a bump", &invalid(&["feerate_sat_vb"]), ask).await;
        let ask = async |mut to: Clients| {
            let fee = Some(cancel::Fee::FeerateSatVb(rate));
            to.payment.cancel_payment(v1::CancelPaymentRequest { fee, ..cancel("p") }).await
        };
        stage.refuses(Who::Client, "the feerate of a cancellation", &invalid(&["feerate_sat_vb"]), ask).await;
        let ask = async |mut to: Clients| to.payment.bump_fee_cpfp(child("p", "child", rate)).await;
        stage.refuses(Who::Client, "the feerate of both", &invalid(&["package_feerate_sat_vb"]), ask).await;
    }
    for blocks in [0, 1009, u32::MAX] {
        let ask = async |mut to: Clients| {
            let fee = Some(bump::Fee::ConfirmTargetBlocks(blocks));
            to.payment.bump_fee(v1::BumpFeeRequest { fee, ..bump("p", 9.0) }).await
        };
        stage.refuses(Who::Client, "a far target", &invalid(&["confirm_target_blocks"]), ask).await;
    }
    for max_fee_sat in [-1, i64::MIN, i64::MAX] {
        let ask =
            async |mut to: Clients| to.payment.bump_fee(v1::BumpFeeRequest { max_fee_sat, ..bump("p", 9.0) }).await;
        stage.refuses(Who::Client, "the greatest fee of a bump", &invalid(&["max_fee_sat"]), ask).await;
    }
    let everything = invalid(&["request_id", "wallet_id", "payment_id", "child_payment_id"]);
    let ask = async |mut to: Clients| to.payment.bump_fee_cpfp(v1::BumpFeeCpfpRequest::default()).await;
    stage.refuses(Who::Client, "nothing at all", &everything, ask).await;
    Ok(())
}

/// A payment that is there, and what cannot be done to it.
pub async fn payments(stage: &mut Stage) -> Result<()> {
    let mut clients = stage.leader(Who::Client);
    clients.payment.create_payment(order(HOT, PAYMENT)).await.context("CreatePayment")?;
    stage.wait_for_payment(HOT, PAYMENT, v1::PaymentState::Broadcast).await?;

    let low = refusal("FEE_LIMIT").with("limit", "min_replacement_feerate_sat_vb");
    let low = low.saying("sat/vB: more than is paid already is asked for, at least ");
    for rate in [0.1, 3.0] {
        let ask = async |mut to: Clients| to.payment.bump_fee(bump(PAYMENT, rate)).await;
        stage.refuses(Who::Client, "a bump that is none", &low, ask).await;
        let ask = async |mut to: Clients| to.payment.bump_fee_cpfp(child(PAYMENT, "child", rate)).await;
        stage.refuses(Who::Client, "a child that lifts nothing", &low, ask).await;
    }
    let high = refusal("FEE_LIMIT").with("limit", "max_feerate_sat_vb");
    let wanted = refusal("FEE_LIMIT").with("limit", "max_fee_sat").with("bound", 500);
    let ask = async |mut to: Clients| {
        to.payment.bump_fee(v1::BumpFeeRequest { max_fee_sat: 500, ..bump(PAYMENT, 9.0) }).await
    };
    stage.refuses(Who::Client, "more than the caller pays", &wanted, ask).await;
    let limits = |max_feerate_sat_vb| v1::SetLimitsRequest {
        request_id: id(),
        wallet_id: HOT.to_owned(),
        limits: Some(v1::WalletLimits { max_feerate_sat_vb, ..Default::default() }),
    };
    stage.leader(Who::Operator).wallet.set_limits(limits(8.0)).await.context("SetLimits")?;
    let ask = async |mut to: Clients| to.payment.bump_fee(bump(PAYMENT, 9.0)).await;
    stage.refuses(Who::Client, "more than the wallet pays", &high, ask).await;
    stage.leader(Who::Operator).wallet.set_limits(limits(0.0)).await.context("SetLimits")?;

    let theirs = refusal("NOT_OWNER").with("owner", "client/payouts");
    let ask = async |mut to: Clients| to.payment.bump_fee(bump(PAYMENT, 9.0)).await;
    stage.refuses(Who::Other, "a bump by another", &theirs, ask).await;
    let ask = async |mut to: Clients| to.payment.cancel_payment(cancel(PAYMENT)).await;
    stage.refuses(Who::Other, "a cancellation by another", &theirs, ask).await;
    let ask = async |mut to: Clients| to.payment.bump_fee_cpfp(child(PAYMENT, "child", 9.0)).await;
    stage.refuses(Who::Other, "a child by another", &theirs, ask).await;
    let taken = refusal("PAYMENT_ID_REUSED");
    let ask = async |mut to: Clients| to.payment.bump_fee_cpfp(child(PAYMENT, PAYMENT, 9.0)).await;
    stage.refuses(Who::Client, "a child with a name that is taken", &taken, ask).await;

    let operator = |action: &str| refusal("ROLE").with("caller", "operator/alice").with("action", action);
    let ask = async |mut to: Clients| to.payment.bump_fee(bump(PAYMENT, 9.0)).await;
    stage.refuses(Who::Operator, "an operator who bumps", &operator("BumpFee"), ask).await;
    let ask = async |mut to: Clients| to.payment.cancel_payment(cancel(PAYMENT)).await;
    stage.refuses(Who::Operator, "an operator who cancels", &operator("CancelPayment"), ask).await;
    let unsupported = refusal("ABORT_UNSUPPORTED");
    let ask = async |mut to: Clients| to.payment.abort_attempt(abort(HOT, PAYMENT)).await;
    stage.refuses(Who::Client, "aborting what was signed here", &unsupported, ask).await;
    Ok(())
}

/// What signers outside are said to have made.
pub async fn outside(stage: &mut Stage) -> Result<()> {
    let mut clients = stage.leader(Who::Client);
    let ordered = clients.payment.create_payment(order(OUTSIDE, PAYMENT)).await.context("CreatePayment")?;
    let payment = ordered.into_inner().payment.context("no payment in the answer")?;
    let attempt = payment.attempts.first().context("no attempt")?;
    stage.check("the permit", !attempt.psbt.is_empty(), || format!("is not shown: {attempt:?}"));
    let unsigned = attempt.unsigned_transaction.to_vec();

    let wanted = invalid(&["raw_transaction"]);
    let long = [&some_transaction()[..], &[0]].concat();
    for raw in [vec![], vec![0; 3], vec![0xff; 1000], vec![0; 400_001], long] {
        let ask = async |mut to: Clients| to.payment.submit_signed_transaction(submit(OUTSIDE, PAYMENT, &raw)).await;
        stage.refuses(Who::Client, "bytes that are no transaction", &wanted, ask).await;
    }
    let wanted = refusal("SIGNATURE_MISMATCH").field("raw_transaction");
    let mut garbage: bitcoin::Transaction = bitcoin::consensus::deserialize(&unsigned)?;
    for input in &mut garbage.input {
        input.witness = bitcoin::Witness::from_slice(&[[1; 71].as_slice(), [2; 33].as_slice()]);
    }
    let garbage = bitcoin::consensus::serialize(&garbage);
    for (what, raw) in [("another's", some_transaction()), ("no signature", unsigned), ("a wrong signature", garbage)] {
        let ask = async |mut to: Clients| to.payment.submit_signed_transaction(submit(OUTSIDE, PAYMENT, &raw)).await;
        stage.refuses(Who::Client, what, &wanted, ask).await;
    }
    let ask = async |mut to: Clients| {
        to.payment.abort_attempt(v1::AbortAttemptRequest { attempt_number: 0, ..abort(OUTSIDE, PAYMENT) }).await
    };
    stage.refuses(Who::Client, "no attempt", &invalid(&["attempt_number"]), ask).await;
    for proof in [vec![], vec![7; PROOF_BYTES - 1], vec![7; PROOF_BYTES + 1]] {
        let ask = async |mut to: Clients| {
            let proof = proof.clone().into();
            to.payment.abort_attempt(v1::AbortAttemptRequest { proof, ..abort(OUTSIDE, PAYMENT) }).await
        };
        stage.refuses(Who::Client, "a proof of another length", &invalid(&["proof"]), ask).await;
    }
    let ask = async |mut to: Clients| to.payment.abort_attempt(abort(OUTSIDE, PAYMENT)).await;
    stage.refuses(Who::Client, "a signer without a fence key", &refusal("ABORT_UNSUPPORTED"), ask).await;
    Ok(())
}
