//! What a caller does about payments that it ordered: more fees, back again; and what a buggy one does, who pays a second
//! time from other coins because it believes the first time lost.

use anyhow::{Context, Result};
use bitcoin::ScriptBuf;
use onespend_proto::v1::recipient::Destination;
use onespend_proto::v1::{
    BumpFeeRequest, CancelPaymentRequest, CreatePaymentRequest, SignPsbtRequest, bump_fee_request,
    cancel_payment_request,
};

use super::{Caller, chosen_of, rate};
use crate::chaos::calls::Ask;
use crate::chaos::operation::Operation;
use crate::chaos::transaction::Spend;
use crate::hot::WALLET;

/// Above what any first attempt pays, so that a replacement is one: see `FEERATE_SAT_VB` of the operations.
const MORE_SAT_VB: u64 = 6;
/// Bumps of one payment differ by up to so much: some come too late with too little, and are refused.
const SPREAD_SAT_VB: u64 = 12;
/// A block every second confirms what is older.
const LATEST: usize = 3;

impl Caller {
    pub(super) async fn bump(&mut self, operation: &Operation) {
        let Some(order) = self.a_late_order(operation.pick) else { return };
        let request = BumpFeeRequest {
            request_id: self.request_id(),
            wallet_id: WALLET.to_owned(),
            payment_id: order.payment_id,
            fee: Some(bump_fee_request::Fee::FeerateSatVb(rate(higher(operation)))),
            ..BumpFeeRequest::default()
        };
        self.ask(operation, Ask::Bump(request), None).await;
    }

    pub(super) async fn cancel(&mut self, operation: &Operation) {
        let Some(order) = self.a_late_order(operation.pick) else { return };
        let request = CancelPaymentRequest {
            request_id: self.request_id(),
            wallet_id: WALLET.to_owned(),
            payment_id: order.payment_id,
            fee: Some(cancel_payment_request::Fee::FeerateSatVb(rate(higher(operation)))),
            ..CancelPaymentRequest::default()
        };
        self.ask(operation, Ask::Cancel(request), None).await;
    }

    /// Pays an order of one recipient once more, from coins that no attempt of it spends. The service chose those coins
    /// among the free ones, so the anchor is not among them.
    pub(super) async fn detach(&mut self, operation: &Operation) -> Result<()> {
        let Some(order) = self.a_late_order(operation.pick) else { return Ok(()) };
        let [recipient] = order.recipients.as_slice() else { return Ok(()) };
        let Some(Destination::Script(script)) = &recipient.destination else { return Ok(()) };
        let (to, amount_sat) = (ScriptBuf::from_bytes(script.to_vec()), u64::try_from(recipient.amount_sat)?);
        let feerate_sat_vb = higher(operation);
        let wanted = Operation { amount_sat, feerate_sat_vb, ..operation.clone() };
        let Some(reservation) = self.select(&wanted, String::new()).await else { return Ok(()) };
        let Some(change) = self.change_script(operation).await else { return Ok(()) };
        let built = Spend::new(&reservation.utxos, &to, amount_sat, Some(&change), feerate_sat_vb);
        let spend = built.context("a transaction on a selection")?;
        if spend.amount_sat != amount_sat {
            return Ok(()); // what is left is too little for change, and would go to the recipient
        }
        let request = SignPsbtRequest {
            request_id: self.request_id(),
            wallet_id: WALLET.to_owned(),
            payment_id: order.payment_id,
            recipients: order.recipients,
            reservation_id: reservation.reservation_id,
            fence: reservation.fence,
            psbt: spend.psbt.serialize().into(),
        };
        self.ask(operation, Ask::Sign(request), Some("the replacement does not spend the anchor")).await;
        Ok(())
    }

    /// One of its latest orders: the older ones are in blocks.
    fn a_late_order(&self, pick: u64) -> Option<CreatePaymentRequest> {
        let late = self.ordered.iter().rev().take(LATEST).cloned().collect();
        chosen_of(&late, pick).cloned()
    }
}

/// In satoshi per virtual byte.
fn higher(operation: &Operation) -> u64 {
    operation.feerate_sat_vb + MORE_SAT_VB + operation.pick % SPREAD_SAT_VB
}
