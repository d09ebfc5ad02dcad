//! Where the money of a caller's own transaction goes, and what it costs.

use anyhow::{Context, Result};
use bitcoin::{Amount, ScriptBuf};
use onespend_proto::v1;

use crate::door::Who;
use crate::draft::{CHANGE_VOUT, Draft, FEE_SAT, PAID_SAT, PAYEE, PAYEE_VOUT};
use crate::keys::stranger;
use crate::refusal::{Refusal, refusal};
use crate::stage::{COIN_SAT, HOT, Stage, TAP, id};

/// Below 294 sat, the dust limit of P2WPKH.
const DUST_SAT: u64 = 293;
const MAX_FEE_SAT: i64 = 20_000;
const MAX_FEERATE_SAT_VB: f64 = 50.0;
const MAX_FEE_PERCENT: u32 = 30;

async fn refuse(stage: &mut Stage, what: &str, draft: &Draft, wanted: &Refusal) {
    stage.refuses(Who::Client, what, wanted, async |mut to| to.payment.sign_psbt(draft.request()).await).await;
}

fn output_at(vout: usize) -> Refusal {
    refusal("OUTPUT_INVALID").with("vout", vout)
}

/// Outputs that are neither recipients nor our change.
pub async fn destinations(stage: &mut Stage) -> Result<()> {
    let good = Draft::new(stage, HOT, "outputs").await?;
    let theirs = stage.address(TAP, v1::Keychain::Internal).await?;
    let second_change = stage.address(HOT, v1::Keychain::Internal).await?;
    let never_given = unused_address(stage, HOT).await?;

    for (what, script) in [
        ("change to a stranger", stranger(9)),
        ("change to another wallet", theirs),
        ("change to an address that was never handed out", never_given),
        ("change to nobody", ScriptBuf::new()),
    ] {
        let mut draft = good.clone();
        draft.psbt.unsigned_tx.output[CHANGE_VOUT].script_pubkey = script;
        refuse(stage, what, &draft, &output_at(CHANGE_VOUT)).await;
    }

    let mut draft = good.clone();
    draft.set_fee(FEE_SAT + 10_000);
    draft.add_output(second_change, 10_000);
    refuse(stage, "a second change output", &draft, &output_at(2)).await;
    let mut draft = good.clone();
    draft.set_fee(FEE_SAT + 10_000);
    draft.add_output(stranger(PAYEE), 10_000);
    refuse(stage, "a recipient who gets more than ordered", &draft, &output_at(2)).await;
    let mut draft = good.clone();
    draft.add_output(ScriptBuf::from_bytes(vec![0x6a, 1, 7]), 0);
    refuse(stage, "a note", &draft, &output_at(2)).await;
    let mut draft = good.clone();
    draft.psbt.unsigned_tx.output[PAYEE_VOUT].value = Amount::from_sat(PAID_SAT + 1);
    refuse(stage, "one satoshi more", &draft, &refusal("OUTPUT_INVALID")).await;
    let mut draft = good.clone();
    draft.psbt.unsigned_tx.output.remove(PAYEE_VOUT);
    draft.psbt.outputs.remove(PAYEE_VOUT);
    refuse(stage, "a recipient who gets nothing", &draft, &refusal("PSBT_INVALID").saying("gets nothing")).await;

    let mut draft = good.clone();
    draft.psbt.unsigned_tx.output[CHANGE_VOUT].value = Amount::from_sat(DUST_SAT);
    draft.set_paid(2 * COIN_SAT - FEE_SAT - DUST_SAT);
    refuse(stage, "change that is dust", &draft, &output_at(CHANGE_VOUT).saying("dust")).await;
    let mut draft = good.clone();
    draft.set_paid(DUST_SAT);
    let dust = output_at(0).field("recipients[0].amount_sat").saying("dust");
    refuse(stage, "a recipient below dust", &draft, &dust).await;
    let mut draft = good.clone();
    draft.set_paid(3 * COIN_SAT);
    refuse(stage, "more than the coins are worth", &draft, &refusal("INSUFFICIENT_FUNDS")).await;
    let mut draft = good.clone();
    draft.psbt.unsigned_tx.output[CHANGE_VOUT].value = Amount::MAX_MONEY;
    refuse(stage, "more than there can be", &draft, &output_at(CHANGE_VOUT)).await;
    stage.release(&good.reservation).await
}

/// The address at an index that the service watches and has not handed out.
async fn unused_address(stage: &mut Stage, wallet: &str) -> Result<ScriptBuf> {
    use miniscript::{Descriptor, DescriptorPublicKey};
    let request = v1::GetWalletRequest { wallet_id: wallet.to_owned(), ..Default::default() };
    let wallet =
        stage.leader(Who::Client).wallet.get_wallet(request).await?.into_inner().wallet.context("no wallet")?;
    let descriptor: Descriptor<DescriptorPublicKey> = wallet.descriptor.parse()?;
    let internal = descriptor.into_single_descriptors()?.pop().context("no second chain")?;
    let index = wallet.next_internal_index + 50;
    Ok(internal.at_derivation_index(index)?.script_pubkey())
}

/// Fees outside the wallet's limits, each limit by itself.
pub async fn fees(stage: &mut Stage) -> Result<()> {
    let limits = v1::WalletLimits {
        max_fee_sat: MAX_FEE_SAT,
        max_feerate_sat_vb: MAX_FEERATE_SAT_VB,
        max_fee_percent: MAX_FEE_PERCENT,
        ..Default::default()
    };
    set_limits(stage, HOT, limits).await?;
    let good = Draft::new(stage, HOT, "fees").await?;
    let limit = |name: &str| refusal("FEE_LIMIT").with("limit", name);
    for (what, paid_sat, fee_sat, wanted) in [
        ("an absurd fee", PAID_SAT, 120_000, limit("max_fee_sat").with("got", 120_000).with("bound", MAX_FEE_SAT)),
        ("a fee above the cap", 100_000, 20_001, limit("max_fee_sat").with("got", 20_001).with("bound", MAX_FEE_SAT)),
        ("a feerate above the cap", PAID_SAT, 15_000, limit("max_feerate_sat_vb").with("bound", "50.000")),
        ("a fee below what is relayed", PAID_SAT, 10, limit("min_feerate_sat_vb").with("bound", "0.100")),
        ("no fee", PAID_SAT, 0, limit("min_feerate_sat_vb").with("got", "0.000")),
        ("a large part of the amount", 10_000, 4_000, limit("max_fee_percent").with("got", 40).with("bound", 30)),
    ] {
        let mut draft = good.clone();
        draft.set_paid(paid_sat);
        draft.set_fee(fee_sat);
        refuse(stage, what, &draft, &wanted).await;
    }
    stage.release(&good.reservation).await?;
    fees_of_orders(stage).await;
    set_limits(stage, HOT, v1::WalletLimits::default()).await
}

/// The same where the service builds the transaction.
async fn fees_of_orders(stage: &mut Stage) {
    let limit = |name: &str| refusal("FEE_LIMIT").with("limit", name);
    let order = |amount_sat, feerate: f64, max_fee_sat| v1::CreatePaymentRequest {
        request_id: id(),
        wallet_id: HOT.to_owned(),
        payment_id: "fees of orders".replace(' ', "-"),
        recipients: vec![crate::stage::recipient(PAYEE, amount_sat)],
        fee: Some(v1::create_payment_request::Fee::FeerateSatVb(feerate)),
        max_fee_sat,
        ..Default::default()
    };
    for (what, request, wanted) in [
        ("a feerate above the cap", order(50_000, 50.5, 0), limit("max_feerate_sat_vb").with("bound", "50.000")),
        ("one that no coin is worth", order(50_000, 900_000.0, 0), limit("max_feerate_sat_vb").with("bound", "50.000")),
        ("a fee above the order's own", order(50_000, 10.0, 100), limit("max_fee_sat").with("bound", 100)),
        ("a large part of the amount", order(1_000, 10.0, 0), limit("max_fee_percent").with("bound", 30)),
    ] {
        stage
            .refuses(Who::Client, what, &wanted, async |mut to| to.payment.create_payment(request.clone()).await)
            .await;
    }
}

async fn set_limits(stage: &mut Stage, wallet: &str, limits: v1::WalletLimits) -> Result<()> {
    let request = v1::SetLimitsRequest { request_id: id(), wallet_id: wallet.to_owned(), limits: Some(limits) };
    stage.leader(Who::Operator).wallet.set_limits(request).await.context("SetLimits")?;
    Ok(())
}
