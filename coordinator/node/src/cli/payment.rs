//! `onespend payment`: look at payments, follow them, have a PSBT signed. `replacement.rs` and `outside.rs` hold the rest.

use clap::{Args, Subcommand};
use onespend_proto::client::{Client, ClientError};
use onespend_proto::reason;
use onespend_proto::v1::{self, PaymentState};

use super::answer::{Limit, Pages};
use super::failure::Failure;
use super::output::{self, Format};
use super::outside::{Abort, Submit};
use super::replacement::{Bump, Cancel, Cpfp, show_attempt};
use super::session::{Freshness, Repeat, Session, mutation, present};
use super::view::payment::{Payment, Payments, Update};
use super::{values, words};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show one payment with its attempts; always linearizable
    Show {
        /// The wallet that pays
        #[arg(long, value_name = "WALLET", value_parser = values::wallet_id)]
        wallet: String,
        /// The payment
        #[arg(value_name = "ID", value_parser = values::payment_id)]
        payment_id: String,
    },
    /// List a wallet's payments in order of their ids
    List(List),
    /// Print payments as they change, each with the index to resume from; ends when --payment-id is final
    Watch(Watch),
    /// Have a PSBT signed and broadcast that spends exactly the coins of a reservation
    SignPsbt(SignPsbt),
    /// Pay more fees: a further attempt replaces the newest one (RBF)
    Bump(Bump),
    /// Pay more fees by a child that spends the change (CPFP)
    Cpfp(Cpfp),
    /// Give the coins back by a further attempt; the payment is cancelled only when that one is final
    Cancel(Cancel),
    /// Bring the signed transaction of a wallet that is signed for outside
    Submit(Submit),
    /// Free an attempt that an external signer has proved never to sign
    Abort(Abort),
}

#[derive(Debug, Args)]
pub struct List {
    /// The wallet that pays
    #[arg(long, value_name = "WALLET", value_parser = values::wallet_id)]
    wallet: String,
    /// Only in this state; may be repeated
    #[arg(long = "state", value_name = "STATE", value_parser = words::parser::<PaymentState>())]
    states: Vec<PaymentState>,
    /// Only of this owner, such as client/payouts
    #[arg(long)]
    owner: Option<String>,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    freshness: Freshness,
}

#[derive(Debug, Args)]
pub struct Watch {
    /// Only of this wallet
    #[arg(long, value_name = "WALLET", value_parser = values::wallet_id)]
    wallet: Option<String>,
    /// Only this payment
    #[arg(long, value_name = "ID", value_parser = values::payment_id, requires = "wallet")]
    payment_id: Option<String>,
    /// Only changes after this log index
    #[arg(long, value_name = "N", default_value_t = 0)]
    from_index: u64,
}

#[derive(Debug, Args)]
pub struct SignPsbt {
    /// The PSBT: base64, or a file in base64 or binary; - for standard input
    psbt: String,
    /// The wallet that pays
    #[arg(long, value_name = "WALLET", value_parser = values::wallet_id)]
    wallet: String,
    /// Your own key for this payment: it is paid at most once
    #[arg(long, value_name = "ID", value_parser = values::payment_id)]
    payment_id: String,
    /// The reservation that holds the inputs; none for a replacement with the payment's own coins
    #[arg(long, value_name = "ID", requires = "fence")]
    reservation: Option<String>,
    /// The reservation's fence
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), requires = "reservation")]
    fence: Option<u64>,
    /// Whom the transaction pays (an address, or script:HEX), and how many satoshi; may be repeated
    #[arg(long = "to", required = true, value_name = "ADDRESS=SAT", value_parser = values::recipient)]
    recipients: Vec<v1::Recipient>,
    #[command(flatten)]
    repeat: Repeat,
}

impl Command {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.data()?;
        match self {
            Self::Show { wallet, payment_id } => {
                let request = v1::GetPaymentRequest { wallet_id: wallet, payment_id };
                let answer = client.get_payment(request).await.map_err(Failure::of_read)?;
                session.output.show(&Payment::from(present(answer.payment)?))
            }
            Self::List(list) => list.run(&client, session).await,
            Self::Watch(watch) => watch.run(&client, session).await,
            Self::SignPsbt(sign) => sign.run(&client, session).await,
            Self::Bump(bump) => bump.run(&client, session).await,
            Self::Cpfp(cpfp) => cpfp.run(&client, session).await,
            Self::Cancel(cancel) => cancel.run(&client, session).await,
            Self::Submit(submit) => submit.run(&client, session).await,
            Self::Abort(abort) => abort.run(&client, session).await,
        }
    }
}

impl List {
    async fn run(self, client: &Client, session: &Session) -> Result<(), Failure> {
        let mut pages = Pages::new(&self.limit);
        loop {
            let (page_size, page_token) = pages.next();
            let request = v1::ListPaymentsRequest {
                wallet_id: self.wallet.clone(),
                states: self.states.iter().map(|state| *state as i32).collect(),
                owner: self.owner.clone().unwrap_or_default(),
                page_size,
                page_token,
                consistency: self.freshness.consistency(),
            };
            let answer = client.list_payments(request).await.map_err(Failure::of_lagged_read)?;
            if pages.take(answer.payments, answer.next_page_token) {
                return session.output.show(&Payments::new(pages.finish()));
            }
        }
    }
}

impl Watch {
    async fn run(self, client: &Client, session: &Session) -> Result<(), Failure> {
        let one = self.payment_id.is_some();
        if let (Some(wallet_id), Some(payment_id)) = (self.wallet.clone(), self.payment_id.clone()) {
            say_if_unknown(client, v1::GetPaymentRequest { wallet_id, payment_id }).await;
        }
        let mut watch = client.watch_payments(v1::WatchPaymentsRequest {
            wallet_id: self.wallet.unwrap_or_default(),
            payment_id: self.payment_id.unwrap_or_default(),
            from_index: self.from_index,
        });
        let mut shown = None;
        loop {
            let message = watch.next().await.map_err(Failure::of_read)?;
            let Some(payment) = message.payment else { continue };
            let state = payment.state();
            let update = Update::new(payment, message.applied_index);
            // What people are shown is less than what may have changed; programs get everything.
            let line = Some(update.line());
            if session.output.format == Format::Json || shown != line {
                session.output.show_line(&update)?;
            }
            shown = line;
            if one && matches!(state, PaymentState::Settled | PaymentState::Cancelled | PaymentState::Dead) {
                return Ok(());
            }
        }
    }
}

/// Whoever mistypes an id would wait for ever without a word. One who is early is right to wait. Where the question has no
/// answer, the watch says so itself.
async fn say_if_unknown(client: &Client, request: v1::GetPaymentRequest) {
    let name = request.payment_id.clone();
    if let Err(ClientError::Rejected(refused)) = client.get_payment(request).await
        && refused.reason == reason::PAYMENT_UNKNOWN
    {
        output::note(&format!("there is no payment {name} yet; waiting for it"));
    }
}

impl SignPsbt {
    async fn run(self, client: &Client, session: &Session) -> Result<(), Failure> {
        let request_id = self.repeat.id();
        let request = v1::SignPsbtRequest {
            request_id: request_id.clone(),
            wallet_id: self.wallet,
            payment_id: self.payment_id,
            recipients: self.recipients,
            reservation_id: self.reservation.unwrap_or_default(),
            fence: self.fence.unwrap_or_default(),
            psbt: values::psbt(&self.psbt)?.into(),
        };
        let answer = mutation(&request_id, client.sign_psbt(request)).await?;
        let place = (answer.applied_index, answer.term);
        show_attempt(session, answer.payment, answer.attempt_number, place, request_id)
    }
}
