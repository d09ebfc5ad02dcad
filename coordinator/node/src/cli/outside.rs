//! `onespend payment submit` and `abort`: what a signer outside the service has to say.

use clap::Args;
use onespend_proto::client::Client;
use onespend_proto::v1;

use super::answer::Changed;
use super::failure::Failure;
use super::replacement::{Which, show_attempt};
use super::session::{Repeat, Session, mutation, present};
use super::values;
use super::view::payment::Payment;

#[derive(Debug, Args)]
pub struct Submit {
    #[command(flatten)]
    which: Which,
    /// The signed transaction: hex, or a file in hex or binary; - for standard input
    transaction: String,
    #[command(flatten)]
    repeat: Repeat,
}

#[derive(Debug, Args)]
pub struct Abort {
    #[command(flatten)]
    which: Which,
    /// Number of the attempt
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: u32,
    /// The fence key's BIP-340 signature over the attempt's abort message, in hex
    #[arg(long, value_name = "HEX", value_parser = values::proof)]
    proof: values::Bytes,
    #[command(flatten)]
    repeat: Repeat,
}

impl Submit {
    /// Runs it.
    pub async fn run(self, client: &Client, session: &Session) -> Result<(), Failure> {
        let request_id = self.repeat.id();
        let request = v1::SubmitSignedTransactionRequest {
            request_id: request_id.clone(),
            wallet_id: self.which.wallet,
            payment_id: self.which.payment_id,
            raw_transaction: values::transaction(&self.transaction)?.into(),
        };
        let answer = mutation(&request_id, client.submit_signed_transaction(request)).await?;
        let place = (answer.applied_index, answer.term);
        show_attempt(session, answer.payment, answer.attempt_number, place, request_id)
    }
}

impl Abort {
    /// Runs it.
    pub async fn run(self, client: &Client, session: &Session) -> Result<(), Failure> {
        let request_id = self.repeat.id();
        let request = v1::AbortAttemptRequest {
            request_id: request_id.clone(),
            wallet_id: self.which.wallet,
            payment_id: self.which.payment_id,
            attempt_number: self.attempt,
            proof: self.proof.0.into(),
        };
        let answer = mutation(&request_id, client.abort_attempt(request)).await?;
        session.output.show(&Changed {
            resource: Payment::from(present(answer.payment)?),
            applied_index: answer.applied_index,
            term: answer.term,
            request_id,
        })
    }
}
