//! `onespend payment bump`, `cpfp` and `cancel`: more fees for a payment, or its coins back.

use clap::Args;
use onespend_core::ids::{Fence, LogIndex};
use onespend_proto::client::Client;
use onespend_proto::{reason, v1};

use super::answer::Changed;
use super::exit::Exit;
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
        let which = v1::GetPaymentRequest { wallet_id: self.which.wallet, payment_id: self.which.payment_id };
        let request = v1::BumpFeeRequest {
            request_id: request_id.clone(),
            wallet_id: which.wallet_id.clone(),
            payment_id: which.payment_id.clone(),
            fee: self.fee.rule(FeerateSatVb, ConfirmTargetBlocks),
            max_fee_sat: self.fee.max_sat(),
        };
        let answer = match mutation(&request_id, client.bump_fee(request)).await {
            Ok(answer) => answer,
            Err(failure) => return Err(explained(client, which, failure).await),
        };
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
        let which = v1::GetPaymentRequest { wallet_id: self.which.wallet, payment_id: self.which.payment_id };
        let request = v1::CancelPaymentRequest {
            request_id: request_id.clone(),
            wallet_id: which.wallet_id.clone(),
            payment_id: which.payment_id.clone(),
            fee: self.fee.rule(FeerateSatVb, ConfirmTargetBlocks),
            max_fee_sat: self.fee.max_sat(),
        };
        let answer = match mutation(&request_id, client.cancel_payment(request)).await {
            Ok(answer) => answer,
            Err(failure) => return Err(explained(client, which, failure).await),
        };
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

/// A refusal for an attempt that may confirm, or has: where a block has it, that is said. The service refuses both for one
/// reason, and the refusal does not tell them apart.
async fn explained(client: &Client, which: v1::GetPaymentRequest, failure: Failure) -> Failure {
    let is_unresolved = |(name, value): &(String, String)| name == "reason" && value == reason::PAYMENT_UNRESOLVED;
    if failure.exit != Exit::Refused || !failure.details.iter().any(is_unresolved) {
        return failure;
    }
    let payment = client.get_payment(which).await.ok().and_then(|answer| answer.payment);
    match payment.as_ref().and_then(in_a_block) {
        Some(sentence) => Failure { sentence, remedy: None, ..failure },
        None => failure,
    }
}

/// What stands in the way of a further attempt, where a block has one.
fn in_a_block(payment: &v1::Payment) -> Option<String> {
    let attempt = payment.leading_attempt()?;
    let state = match payment.state() {
        v1::PaymentState::Settled => "settled",
        v1::PaymentState::Cancelled => "cancelled",
        v1::PaymentState::Confirming if payment.is_cancelling() => "being cancelled",
        v1::PaymentState::Confirming => "being confirmed",
        _ => return None,
    };
    let (number, height) = (attempt.number, attempt.confirmed_height);
    Some(format!("refused: the payment is {state}, by attempt {number} in block {height}"))
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
    let state = payment.state();
    if is_new || !(payment.is_cancelling() || state == v1::PaymentState::Cancelled) {
        return None;
    }
    let rate = feerate(attempt.feerate_sat_vb);
    // An earlier one than the newest may be in the block.
    let mined = payment.leading_attempt().unwrap_or(attempt);
    let by = format!("by attempt {} in block {}", mined.number, mined.confirmed_height);
    Some(match state {
        v1::PaymentState::Cancelled => format!("already cancelled, {by}"),
        v1::PaymentState::Confirming => format!("already being cancelled, {by}"),
        _ => format!("already being cancelled, by attempt {number} at {rate}; `onespend payment bump` raises its fee"),
    })
}
