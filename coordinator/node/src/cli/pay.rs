//! `onespend pay`: order a payment, and wait for it if asked.

use std::time::Duration;

use clap::{Args, ValueEnum};
use onespend_proto::client::Client;
use onespend_proto::v1::{self, PaymentState as S};

use super::answer::Changed;
use super::exit::Exit;
use super::failure::Failure;
use super::fee::Fee;
use super::output;
use super::progress::Progress;
use super::session::{Repeat, Session, mutation, present};
use super::view::payment::Payment;
use super::words::Word as _;
use super::{values, words};

/// What to say of an attempt that its signer could not sign, or refused.
pub const NOT_SIGNED: &str =
    "not signed yet: follow it with `onespend payment watch`; if this lasts, the leader's log says why";

/// The same payment id with the same recipients is the same payment, however often it is ordered.
#[derive(Debug, Args)]
pub struct Pay {
    /// The wallet that pays
    #[arg(long, value_name = "WALLET", value_parser = values::wallet_id)]
    wallet: String,
    /// Whom to pay (an address, or script:HEX), and how many satoshi; may be repeated
    #[arg(long = "to", required = true, value_name = "ADDRESS=SAT", value_parser = values::recipient)]
    recipients: Vec<v1::Recipient>,
    /// Your own key for this payment, such as the order's number: it is paid at most once
    #[arg(long, value_name = "ID", value_parser = values::payment_id)]
    payment_id: String,
    #[command(flatten)]
    fee: Fee,
    /// Least confirmations of the coins to spend
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_depth: u32,
    /// How to choose coins [default: lowest_fee]
    #[arg(long, value_parser = words::parser::<v1::SelectionStrategy>())]
    strategy: Option<v1::SelectionStrategy>,
    /// Return only when the payment is that far
    #[arg(long, value_enum, value_name = "UNTIL")]
    wait: Option<Milestone>,
    /// Wait no longer than this [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = values::duration, requires = "wait")]
    wait_timeout: Option<Duration>,
    #[command(flatten)]
    repeat: Repeat,
}

/// How far a payment shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Milestone {
    /// The mempool of the leader's bitcoind has accepted it
    Broadcast,
    /// It is in a block
    Confirmed,
    /// It is final
    Settled,
}

impl Milestone {
    /// An attempt that gives the coins back gets nobody paid, however far it is.
    fn reached(self, payment: &v1::Payment) -> bool {
        let states: &[S] = match self {
            Self::Broadcast => &[S::Broadcast, S::Confirming, S::Settled],
            Self::Confirmed => &[S::Confirming, S::Settled],
            Self::Settled => &[S::Settled],
        };
        states.contains(&payment.state()) && !payment.is_cancelling()
    }
}

impl Pay {
    /// Orders it.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.data()?;
        let request_id = self.repeat.id();
        let (wait, timeout) = (self.wait, self.wait_timeout);
        let progress = Progress::start(format!("paying {}", self.payment_id));
        let answer = mutation(&request_id, client.create_payment(self.request(&request_id))).await?;
        let (applied_index, term) = (answer.applied_index, answer.term);
        let mut payment = present(answer.payment)?;
        let outcome = match wait {
            Some(until) => follow(&client, &mut payment, until, timeout, &progress).await,
            None => check_under_way(&payment),
        };
        drop(progress);
        let state = payment.state();
        session.output.show(&Changed { resource: Payment::from(payment), applied_index, term, request_id })?;
        if wait.is_none() && outcome.is_ok() && state == S::Signing {
            output::note(NOT_SIGNED);
        }
        outcome
    }

    fn request(self, request_id: &str) -> v1::CreatePaymentRequest {
        use v1::create_payment_request::Fee::{ConfirmTargetBlocks, FeerateSatVb};
        v1::CreatePaymentRequest {
            request_id: request_id.to_owned(),
            wallet_id: self.wallet,
            payment_id: self.payment_id,
            recipients: self.recipients,
            fee: self.fee.rule(FeerateSatVb, ConfirmTargetBlocks),
            max_fee_sat: self.fee.max_sat(),
            min_depth: self.min_depth,
            strategy: self.strategy.unwrap_or_default().into(),
        }
    }
}

/// What an order comes to that was answered with an earlier one's payment: it may have ended, or be about to, without
/// having paid.
fn check_under_way(payment: &v1::Payment) -> Result<(), Failure> {
    if let Some(failure) = never_paid(payment) {
        return Err(failure);
    }
    if !payment.is_cancelling() {
        return Ok(());
    }
    let sentence = "not paid so far: the payment is being cancelled, and only an older attempt may still pay it";
    Err(Failure::new(Exit::Unknown, sentence)
        .with("payment_id", &payment.payment_id)
        .remedy(watch_command(&payment.wallet_id, &payment.payment_id)))
}

fn never_paid(payment: &v1::Payment) -> Option<Failure> {
    let state = payment.state();
    matches!(state, S::Cancelled | S::Dead).then(|| {
        let sentence = format!("not paid: the payment is {}", state.word());
        Failure::new(Exit::Refused, sentence).with("payment_id", &payment.payment_id)
    })
}

fn watch_command(wallet: &str, payment: &str) -> String {
    format!("onespend payment watch --wallet {wallet} --payment-id {payment}")
}

/// Follows a payment that is ordered until it is far enough or cannot get there any more. `payment` is kept up to date.
async fn follow(
    client: &Client,
    payment: &mut v1::Payment,
    until: Milestone,
    timeout: Option<Duration>,
    progress: &Progress,
) -> Result<(), Failure> {
    let ordered = Ordered { wallet: payment.wallet_id.clone(), payment: payment.payment_id.clone() };
    let limit = async {
        match timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let why = tokio::select! {
        outcome = watch(client, payment, until, progress) => match outcome {
            Ok(()) => return Ok(()),
            Err(Stop::Over(failure)) => return Err(failure),
            Err(Stop::Lost(why)) => why,
        },
        () = limit => "the time of --wait-timeout is over".to_owned(),
        Ok(()) = tokio::signal::ctrl_c() => "interrupted".to_owned(),
    };
    Err(ordered.not_followed(&why))
}

/// Why following ended early.
enum Stop {
    /// It will never be paid.
    Over(Failure),
    /// Nobody told how it goes on.
    Lost(String),
}

async fn watch(client: &Client, payment: &mut v1::Payment, until: Milestone, progress: &Progress) -> Result<(), Stop> {
    let mut watch = client.watch_payments(v1::WatchPaymentsRequest {
        wallet_id: payment.wallet_id.clone(),
        payment_id: payment.payment_id.clone(),
        from_index: payment.update_index,
    });
    loop {
        if until.reached(payment) {
            return Ok(());
        }
        if let Some(failure) = never_paid(payment) {
            return Err(Stop::Over(failure));
        }
        progress.say(Payment::from(payment.clone()).line());
        let message = watch.next().await.map_err(|error| Stop::Lost(error.to_string()))?;
        if let Some(changed) = message.payment {
            *payment = changed;
        }
    }
}

/// Names a payment that is ordered, whatever becomes of following it.
struct Ordered {
    wallet: String,
    payment: String,
}

impl Ordered {
    fn not_followed(&self, why: &str) -> Failure {
        let Self { wallet, payment } = self;
        Failure::new(Exit::Unknown, "the payment is ordered, but it was not followed to the end")
            .with("payment_id", payment)
            .with("why", why)
            .remedy(watch_command(wallet, payment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment(state: S, purpose: v1::AttemptPurpose) -> v1::Payment {
        let attempt = v1::Attempt { txid: "aa".to_owned(), purpose: purpose.into(), ..Default::default() };
        v1::Payment { state: state.into(), txid: "aa".to_owned(), attempts: vec![attempt], ..Default::default() }
    }

    fn reached(state: S, purpose: v1::AttemptPurpose) -> [bool; 3] {
        let payment = payment(state, purpose);
        [Milestone::Broadcast, Milestone::Confirmed, Milestone::Settled].map(|until| until.reached(&payment))
    }

    #[test]
    fn milestones_are_reached_in_order() {
        let reached = |state| reached(state, v1::AttemptPurpose::Pay);
        assert_eq!(reached(S::Signed), [false, false, false]);
        assert_eq!(reached(S::Broadcast), [true, false, false]);
        assert_eq!(reached(S::Confirming), [true, true, false]);
        assert_eq!(reached(S::Settled), [true, true, true]);
        for state in [S::Signing, S::Conflicted, S::Dead, S::Cancelled] {
            assert_eq!(reached(state), [false, false, false]);
        }
    }

    /// safety 10.
    #[test]
    fn a_cancelling_attempt_reaches_no_milestone() {
        for state in [S::Signing, S::Signed, S::Broadcast, S::Confirming, S::Cancelled] {
            assert_eq!(reached(state, v1::AttemptPurpose::Cancel), [false, false, false], "{state:?}");
        }
    }

    /// safety 10.
    #[test]
    fn an_order_is_done_only_where_something_pays_it() {
        let exit = |state, purpose| check_under_way(&payment(state, purpose)).err().map(|failure| failure.exit);
        for state in [S::Signing, S::Signed, S::Broadcast, S::Confirming, S::Settled, S::Conflicted] {
            assert_eq!(exit(state, v1::AttemptPurpose::Pay), None, "{state:?}");
        }
        assert_eq!(exit(S::Confirming, v1::AttemptPurpose::Cancel), Some(Exit::Unknown));
        assert_eq!(exit(S::Cancelled, v1::AttemptPurpose::Cancel), Some(Exit::Refused));
        assert_eq!(exit(S::Dead, v1::AttemptPurpose::Pay), Some(Exit::Refused));
    }
}
