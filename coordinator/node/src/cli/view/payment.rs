//! Payments and their attempts.

use bitcoin::hex::DisplayHex as _;
use onespend_proto::v1;
use serde::Serialize;

use super::attempt::{Attempt, attempts_table};
use super::{outpoint, set, time};
use crate::cli::answer::MORE;
use crate::cli::format::{counted, sat, short, timestamp_ago};
use crate::cli::output::Show;
use crate::cli::table::{self, Column};
use crate::cli::words::Word as _;

/// `v1::Payment`.
#[derive(Debug, Serialize)]
pub struct Payment {
    payment_id: String,
    wallet_id: String,
    owner: String,
    recipients: Vec<Recipient>,
    state: &'static str,
    anchor: Option<String>,
    attempts: Vec<Attempt>,
    txid: Option<String>,
    create_time: Option<String>,
    update_index: u64,
    amount_sat: i64,
    /// Of a child that pays fees for another payment.
    bumps_payment_id: Option<String>,
    #[serde(skip)]
    created: String,
}

/// `v1::Recipient`: an address, or the hex of a script.
#[derive(Debug, Serialize)]
struct Recipient {
    address: Option<String>,
    script: Option<String>,
    amount_sat: i64,
}

impl From<v1::Payment> for Payment {
    fn from(payment: v1::Payment) -> Self {
        Self {
            state: payment.state().word(),
            payment_id: payment.payment_id,
            wallet_id: payment.wallet_id,
            owner: payment.owner,
            recipients: payment.recipients.into_iter().map(Recipient::from).collect(),
            anchor: set(outpoint(payment.anchor)),
            attempts: payment.attempts.into_iter().map(Attempt::from).collect(),
            txid: set(payment.txid),
            create_time: time(payment.create_time.as_ref()),
            update_index: payment.update_index,
            amount_sat: payment.amount_sat,
            bumps_payment_id: set(payment.bumps_payment_id),
            created: timestamp_ago(payment.create_time.as_ref()),
        }
    }
}

impl From<v1::Recipient> for Recipient {
    fn from(recipient: v1::Recipient) -> Self {
        let (address, script) = match recipient.destination {
            Some(v1::recipient::Destination::Address(address)) => (Some(address), None),
            Some(v1::recipient::Destination::Script(script)) => (None, Some(script.to_lower_hex_string())),
            None => (None, None),
        };
        Self { address, script, amount_sat: recipient.amount_sat }
    }
}

impl Payment {
    /// One line for progress and for following: `order-7  confirming, 2 blocks deep  txid…`.
    pub fn line(&self) -> String {
        let depth = self.attempts.iter().map(|attempt| attempt.depth).max().unwrap_or(0);
        let depth =
            if depth == 0 { String::new() } else { format!(", {} deep", counted(depth as usize, "block", "blocks")) };
        let txid = self.txid.as_deref().unwrap_or_default();
        format!("{}  {}{depth}  {txid}", self.payment_id, self.state).trim_end().to_owned()
    }

    fn recipients_table(&self) -> String {
        let row = |recipient: &Recipient| {
            let script = || recipient.script.as_ref().map(|script| format!("script {script}"));
            [recipient.address.clone().or_else(script).unwrap_or_default(), sat(recipient.amount_sat)]
        };
        table::list([Column::Text("RECIPIENT"), Column::Number("AMOUNT")], self.recipients.iter().map(row), "")
    }
}

impl Show for Payment {
    fn text(&self) -> String {
        let card = table::card([
            ("payment", self.payment_id.clone()),
            ("wallet", self.wallet_id.clone()),
            ("owner", self.owner.clone()),
            ("state", self.state.to_owned()),
            ("amount", sat(self.amount_sat)),
            ("txid", self.txid.clone().unwrap_or_default()),
            ("anchor", self.anchor.clone().unwrap_or_default()),
            ("pays fees for", self.bumps_payment_id.clone().unwrap_or_default()),
            ("ordered", self.created.clone()),
        ]);
        format!("{card}\n\n{}\n\n{}", self.recipients_table(), attempts_table(&self.attempts))
    }
}

/// A payment and the attempt that was made.
#[derive(Debug, Serialize)]
pub struct Attempted {
    /// The payment.
    #[serde(flatten)]
    pub payment: Payment,
    /// Number of the attempt.
    pub attempt_number: u32,
}

impl Show for Attempted {
    fn text(&self) -> String {
        self.payment.text()
    }
}

/// A page of payments.
#[derive(Debug, Serialize)]
pub struct Payments {
    payments: Vec<Payment>,
    /// Whether there are more than were asked for.
    more: bool,
}

impl Payments {
    /// Of pages that were read.
    pub fn new((payments, more): (Vec<v1::Payment>, bool)) -> Self {
        Self { payments: payments.into_iter().map(Payment::from).collect(), more }
    }
}

impl Show for Payments {
    fn text(&self) -> String {
        let columns = [
            Column::Text("PAYMENT"),
            Column::Whole("STATE"),
            Column::Number("AMOUNT"),
            Column::Whole("ORDERED"),
            Column::Text("OWNER"),
            Column::Whole("TXID"),
        ];
        let row = |payment: &Payment| {
            [
                payment.payment_id.clone(),
                payment.state.to_owned(),
                sat(payment.amount_sat),
                payment.created.clone(),
                payment.owner.clone(),
                payment.txid.as_deref().map(short).unwrap_or_default(),
            ]
        };
        let list = table::list(columns, self.payments.iter().map(row), "no payments");
        let below = if self.more { MORE.to_owned() } else { counted(self.payments.len(), "payment", "payments") };
        if self.payments.is_empty() { list } else { format!("{list}\n{below}") }
    }
}

/// `v1::WatchPaymentsResponse` with a payment: one that changed.
#[derive(Debug, Serialize)]
pub struct Update {
    payment: Payment,
    /// What to resume from: `payment watch --from-index`.
    applied_index: u64,
}

impl Update {
    /// Of a message of the stream.
    pub fn new(payment: v1::Payment, applied_index: u64) -> Self {
        Self { payment: payment.into(), applied_index }
    }
}

impl Show for Update {
    fn text(&self) -> String {
        format!("{}  {}", self.applied_index, self.payment.line())
    }
}
