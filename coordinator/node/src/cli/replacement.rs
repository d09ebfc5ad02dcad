//! `onespend payment bump`, `cpfp` and `cancel`: more fees for a payment, or its coins back.

use clap::Args;
use onespend_core::ids::{Fence, LogIndex};
use onespend_proto::client::Client;
use onespend_proto::v1;

use super::answer::Changed;
use super::failure::Failure;
use super::fee::Fee;
use super::format::feerate;
use super::pay::NOT_SIGNED;
use super::session::{Repeat, Session, mutation, present};
use super::view::payment::{Attempted, Payment};
use super::{output, values};

/// The payment that a command is about.
#[derive(Debug, Args)]
pub struct Which {
    /// The wallet that pays
    #[arg(long, value_name = "WALLET", value_parser = values::wallet_id)]
    pub wallet: String,
    /// The payment
    #[arg(value_name = "ID", value_parser = values::payment_id)]
    pub payment_id: String,
}

#[derive(Debug, Args)]
pub struct Bump {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    fee: Fee,
    #[command(flatten)]
    repeat: Repeat,
}

#[derive(Debug, Args)]
pub struct Cpfp {
    #[command(flatten)]
    which: Which,
    /// Your own key for the child, which is a payment to the wallet itself
    #[arg(long, value_name = "ID", value_parser = values::payment_id)]
    child_id: String,
    #[command(flatten)]
    fee: Fee,
    #[command(flatten)]
    repeat: Repeat,
}

#[derive(Debug, Args)]
pub struct Cancel {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    fee: Fee,
    #[command(flatten)]
    repeat: Repeat,
}

impl Bump {
    /// Runs it.
    pub async fn run(self, client: &Client, session: &Session) -> Result<(), Failure> {
        use v1::bump_fee_request::Fee::{ConfirmTargetBlocks, FeerateSatVb};
        let request_id = self.repeat.id();
        let request = v1::BumpFeeRequest {
            request_id: request_id.clone(),
            wallet_id: self.which.wallet,
            payment_id: self.which.payment_id,
            fee: self.fee.rule(FeerateSatVb, ConfirmTargetBlocks),
            max_fee_sat: self.fee.max_sat(),
        };
        let answer = mutation(&request_id, client.bump_fee(request)).await?;
        let place = (answer.applied_index, answer.term);
        show_attempt(session, answer.payment, answer.attempt_number, place, request_id)
    }
}

impl Cpfp {
    /// Runs it.
    pub async fn run(self, client: &Client, session: &Session) -> Result<(), Failure> {
        use v1::bump_fee_cpfp_request::Fee::{ConfirmTargetBlocks, PackageFeerateSatVb};
        let request_id = self.repeat.id();
        let request = v1::BumpFeeCpfpRequest {
            request_id: request_id.clone(),
            wallet_id: self.which.wallet,
            payment_id: self.which.payment_id,
            child_payment_id: self.child_id,
            fee: self.fee.rule(PackageFeerateSatVb, ConfirmTargetBlocks),
            max_fee_sat: self.fee.max_sat(),
        };
        let answer = mutation(&request_id, client.bump_fee_cpfp(request)).await?;
        let payment = present(answer.payment)?;
        let unsigned = payment.state() == v1::PaymentState::Signing;
        session.output.show(&Changed {
            resource: Payment::from(payment),
            applied_index: answer.applied_index,
            term: answer.term,
            request_id,
        })?;
        note_unsigned(unsigned);
        Ok(())
    }
}

impl Cancel {
    /// Runs it.
    pub async fn run(self, client: &Client, session: &Session) -> Result<(), Failure> {
        use v1::cancel_payment_request::Fee::{ConfirmTargetBlocks, FeerateSatVb};
        let request_id = self.repeat.id();
        let request = v1::CancelPaymentRequest {
            request_id: request_id.clone(),
            wallet_id: self.which.wallet,
            payment_id: self.which.payment_id,
            fee: self.fee.rule(FeerateSatVb, ConfirmTargetBlocks),
            max_fee_sat: self.fee.max_sat(),
        };
        let answer = mutation(&request_id, client.cancel_payment(request)).await?;
        let (number, place) = (answer.attempt_number, (answer.applied_index, answer.term));
        let before = |payment: &v1::Payment| cancelled_before(payment, number, answer.applied_index);
        let note = answer.payment.as_ref().and_then(before);
        show_attempt(session, answer.payment, number, place, request_id)?;
        if let Some(note) = note {
            output::note(&note);
        }
        Ok(())
    }
}

/// Shows a payment with the attempt that was made, or was there already, and says so if that one is not signed.
pub fn show_attempt(
    session: &Session,
    payment: Option<v1::Payment>,
    attempt_number: u32,
    (applied_index, term): (u64, u64),
    request_id: String,
) -> Result<(), Failure> {
    let payment = present(payment)?;
    let is_unsigned = |attempt: &v1::Attempt| attempt.state() == v1::AttemptState::Signing;
    let unsigned = payment.attempts.iter().any(|attempt| attempt.number == attempt_number && is_unsigned(attempt));
    let resource = Attempted { payment: Payment::from(payment), attempt_number };
    session.output.show(&Changed { resource, applied_index, term, request_id })?;
    note_unsigned(unsigned);
    Ok(())
}

/// Nothing else tells that a signer has refused.
fn note_unsigned(unsigned: bool) {
    if unsigned {
        output::note(NOT_SIGNED);
    }
}

/// What to say where an earlier request made the attempt that was answered, so that this one changed nothing, whatever
/// fee it named. Once a block has it no fee matters any more.
fn cancelled_before(payment: &v1::Payment, number: u32, applied_index: u64) -> Option<String> {
    let attempt = payment.attempts.iter().find(|attempt| attempt.number == number)?;
    let fence = Fence(attempt.fence);
    let is_new = fence == Fence::of(fence.epoch(), LogIndex(applied_index));
    if is_new || !payment.is_cancelling() || payment.state() == v1::PaymentState::Confirming {
        return None;
    }
    let rate = feerate(attempt.feerate_sat_vb);
    Some(format!("already being cancelled, by attempt {number} at {rate}; `onespend payment bump` raises its fee"))
}
