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

/// What people read instead of the state of a cancelling attempt, which sounds like that of a payment.
const CANCELLING: &str = "cancelling";

/// `v1::Payment`, and what its transaction is for.
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
    /// What the attempt of `txid` is for. While it says `cancel`, `state` tells of the coins on their way back.
    purpose: Option<&'static str>,
    create_time: Option<String>,
    update_index: u64,
    amount_sat: i64,
    /// Of a child that pays fees for another payment.
    bumps_payment_id: Option<String>,
    #[serde(skip)]
    created: String,
    /// The state for people.
    #[serde(skip)]
    shown: &'static str,
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
            shown: if payment.is_cancelling() { CANCELLING } else { payment.state().word() },
            purpose: payment.leading_attempt().map(|attempt| attempt.purpose().word()),
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
        format!("{}  {}{depth}  {txid}", self.payment_id, self.shown).trim_end().to_owned()
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
            ("state", self.shown.to_owned()),
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
                payment.shown.to_owned(),
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

    /// What people read beside the index.
    pub fn line(&self) -> String {
        self.payment.line()
    }
}

impl Show for Update {
    fn text(&self) -> String {
        format!("{}  {}", self.applied_index, self.line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A payment one block deep, by an attempt for this.
    fn mined(purpose: v1::AttemptPurpose) -> v1::Payment {
        let attempt = v1::Attempt { txid: "aa".to_owned(), depth: 1, purpose: purpose.into(), ..Default::default() };
        v1::Payment {
            payment_id: "order-7".to_owned(),
            state: v1::PaymentState::Confirming.into(),
            txid: "aa".to_owned(),
            attempts: vec![attempt],
            ..Default::default()
        }
    }

    /// safety 10.
    #[test]
    fn coins_on_their_way_back_do_not_look_like_a_payment() {
        let paying = mined(v1::AttemptPurpose::Pay);
        assert_eq!(Update::new(paying, 9).text(), "9  order-7  confirming, 1 block deep  aa");
        let cancelling = mined(v1::AttemptPurpose::Cancel);
        assert_eq!(Update::new(cancelling.clone(), 9).text(), "9  order-7  cancelling, 1 block deep  aa");
        let shown = Payment::from(cancelling.clone()).text();
        let list = Payments::new((vec![cancelling.clone()], false)).text();
        for text in [shown, list] {
            assert!(text.contains("cancelling") && !text.contains("confirming"), "{text}");
        }
        let json = serde_json::to_value(Payment::from(cancelling)).unwrap();
        assert_eq!((json["state"].as_str(), json["purpose"].as_str()), (Some("confirming"), Some("cancel")));
    }
}
