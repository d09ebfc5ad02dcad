//! Why a command did not end well, and how a person or a script is told.

use std::fmt::{self, Write as _};
use std::path::Path;

use onespend_adapters::process_user;
use onespend_proto::client::{ClientError, Rejection, tried, unreached};
use serde_json::{Value, json};

use super::exit::Exit;
use super::remedy;

/// One plain sentence, then facts, then what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong, without a full stop.
    pub sentence: String,
    /// Facts by name, in the order in which they are shown. A name may come several times.
    pub details: Vec<(String, String)>,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(exit: Exit, sentence: impl Into<String>) -> Self {
        Self { exit, sentence: sentence.into(), details: Vec::new(), remedy: None }
    }

    /// The command line or a file is wrong.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Self::new(Exit::Usage, sentence)
    }

    /// Whether this process may write there: root may not where the files are the node's user's.
    pub fn refuse_root(path: &Path) -> Result<(), Self> {
        process_user::refuse_root(path).map_err(Self::usage)
    }

    /// Adds a fact.
    pub fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.details.push((name.to_owned(), value.to_string()));
        self
    }

    /// Says what to do.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// A mutation without a good answer. `request_id` is what it was sent with.
    pub fn of_mutation(error: ClientError, request_id: &str) -> Self {
        match error {
            ClientError::Unknown { tries, last, .. } => {
                let first = remedy::of_open(&last);
                let failure = Self::unknown(request_id).with("tries", tries).with("last", last);
                match first {
                    Some(remedy) => failure.remedy(remedy),
                    None => failure,
                }
            }
            ClientError::Rejected(rejection) if rejection.after_unknown => {
                let facts = Self::of_rejection(&rejection);
                let mut failure = Self::unknown(request_id);
                failure.details.push(("refusal".to_owned(), facts.sentence));
                failure.details.extend(facts.details);
                failure
            }
            other => Self::of_read(other),
        }
    }

    /// A read without a good answer: nothing can have been applied.
    pub fn of_read(error: ClientError) -> Self {
        match error {
            ClientError::Config(what) => Self::usage(format!("the connection cannot be made: {what}")),
            ClientError::Rejected(rejection) => Self::of_rejection(&rejection),
            ClientError::Unreachable { addresses, tries, last } => {
                let usual = "check that the nodes run, the addresses and the certificates; a load balancer without a primary hangs up";
                let remedy = remedy::of_no_tls(&last).unwrap_or(usual);
                Self::new(Exit::Unreachable, format!("{}, so nothing was sent", unreached(&addresses)))
                    .with("tries", tries)
                    .with("last", last)
                    .remedy(remedy)
            }
            ClientError::Unknown { tries, last, .. } => Self::new(Exit::Unreachable, "no node answered in time")
                .with("tries", tries)
                .with("last", last)
                .remedy("ask again; see `onespend status`"),
        }
    }

    /// The same of a command that takes `--max-lag`.
    pub fn of_lagged_read(error: ClientError) -> Self {
        let is_silence = matches!(error, ClientError::Unknown { .. });
        let failure = Self::of_read(error);
        if is_silence {
            return failure.remedy("ask again, or read an older state with --max-lag; see `onespend status`");
        }
        failure
    }

    /// A mutation that was sent and had no answer.
    pub fn unknown(request_id: &str) -> Self {
        Self::new(Exit::Unknown, "the outcome is unknown: it may have been applied, or may be later")
            .with("request_id", request_id)
            .remedy(format!("repeat the same command with --request-id {request_id} until there is an answer"))
    }

    fn of_rejection(rejection: &Rejection) -> Self {
        let why = match rejection.message.as_str() {
            "" => format!("{:?}", rejection.code),
            message => message.to_owned(),
        };
        let mut failure = Self::new(Exit::Refused, format!("refused: {why}"));
        failure = match rejection.reason.as_str() {
            "" => failure.with("code", format!("{:?}", rejection.code)),
            reason => failure.with("reason", reason),
        };
        for (name, value) in &rejection.metadata {
            let is_list = matches!(name.as_str(), "outpoints" | "holders");
            for item in value.split(|letter| is_list && letter == ',') {
                failure = failure.with(name, item.trim());
            }
        }
        for fault in &rejection.field_violations {
            failure = failure.with("field", format!("{}: {}", fault.field, fault.description));
        }
        if let Some(wait) = rejection.retry_after {
            failure = failure.with("retry_after_ms", wait.as_millis());
        }
        failure.remedy = remedy::of(rejection).map(str::to_owned);
        failure
    }

    /// For people, who are not told again what the sentence says.
    pub fn text(&self) -> String {
        let mut text = format!("onespend: {}\n", self.sentence);
        let is_said = |name: &str, value: &str| {
            matches!(name, "field" | "rule" | "why" | "note" | "state") && self.sentence.contains(value)
        };
        for (name, value) in self.details.iter().filter(|(name, value)| !is_said(name, value)) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name}: {value}");
        }
        if let Some(remedy) = &self.remedy {
            let _ = writeln!(text, "  remedy: {remedy}");
        }
        text
    }

    /// For programs: `{"error": {exit_code, message, details: [{name, value}], remedy}}`.
    pub fn json(&self) -> Value {
        let details: Vec<Value> =
            self.details.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        json!({ "error": {
            "exit_code": self.exit.code(),
            "message": self.sentence,
            "details": details,
            "remedy": self.remedy,
        }})
    }
}

/// Why one node has no good answer, to stand after its address.
pub fn of_one_node(error: &ClientError) -> String {
    match error {
        ClientError::Unreachable { tries, last, .. } => format!("could not be reached: {last} ({})", tried(*tries)),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use onespend_proto::client::FieldViolation;
    use onespend_proto::reason;

    use super::*;

    fn rejection(after_unknown: bool) -> ClientError {
        ClientError::Rejected(Box::new(Rejection {
            code: tonic::Code::Aborted,
            reason: reason::OUTPOINT_RESERVED.to_owned(),
            message: "coins are claimed by others".to_owned(),
            metadata: BTreeMap::from([("outpoints".to_owned(), "aa:0,bb:1".to_owned())]),
            field_violations: Vec::new(),
            retry_after: None,
            after_unknown,
        }))
    }

    #[test]
    fn a_refusal_is_one_sentence_then_facts_then_a_remedy() {
        let failure = Failure::of_mutation(rejection(false), "id-1");
        assert_eq!(failure.exit, Exit::Refused);
        let text = failure.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "onespend: refused: coins are claimed by others",
                "  reason: OUTPOINT_RESERVED",
                "  outpoints: aa:0",
                "  outpoints: bb:1",
            ]
        );
        assert!(lines[4].starts_with("  remedy: ") && lines.len() == 5, "{text}");
        assert_eq!(failure.json()["error"]["details"][0]["value"], "OUTPOINT_RESERVED");
    }

    /// What is wrong with a field stands in the message, in the violation, and in the metadata.
    #[test]
    fn people_are_told_once_and_programs_everything() {
        let (field, rule) = ("recipients[0].amount_sat", "10 sat is dust: at least 294 sat, for this script");
        let refusal = Rejection {
            code: tonic::Code::InvalidArgument,
            reason: reason::OUTPUT_INVALID.to_owned(),
            message: format!("{field}: {rule}"),
            metadata: BTreeMap::from([("rule".to_owned(), rule.to_owned()), ("vout".to_owned(), "0".to_owned())]),
            field_violations: vec![FieldViolation { field: field.to_owned(), description: rule.to_owned() }],
            retry_after: None,
            after_unknown: false,
        };
        let failure = Failure::of_read(ClientError::Rejected(Box::new(refusal)));
        let text = failure.text();
        assert_eq!(text.matches("is dust").count(), 1, "{text}");
        assert!(text.contains("  vout: 0\n"), "{text}");
        assert_eq!(failure.json()["error"]["details"].as_array().map(Vec::len), Some(4), "{}", failure.json());
    }

    #[test]
    fn a_refusal_after_a_silent_try_does_not_claim_that_nothing_happened() {
        let failure = Failure::of_mutation(rejection(true), "id-1");
        assert_eq!(failure.exit, Exit::Unknown);
        assert!(failure.text().contains("--request-id id-1") && failure.text().contains("OUTPOINT_RESERVED"));
    }

    #[test]
    fn only_mutations_can_have_an_unknown_outcome() {
        let silent = || ClientError::Unknown { request_id: String::new(), tries: 3, last: "silence".to_owned() };
        assert_eq!(Failure::of_mutation(silent(), "id-2").exit, Exit::Unknown);
        let last = "Unavailable NOT_SERVING: nothing is confirmed while STATE_HASH_UNDECIDED stands".to_owned();
        let open = ClientError::Unknown { request_id: String::new(), tries: 3, last };
        let text = Failure::of_mutation(open, "id-2").text();
        assert!(text.contains("request_id: id-2") && text.contains("bring back the nodes that are down"), "{text}");
        assert_eq!(Failure::of_read(silent()).exit, Exit::Unreachable);
        assert!(!Failure::of_read(silent()).text().contains("--max-lag"));
        assert!(Failure::of_lagged_read(silent()).text().contains("--max-lag"));
        let addresses = vec!["10.0.0.1:7800".to_owned()];
        let nobody = ClientError::Unreachable { addresses, tries: 1, last: "refused".to_owned() };
        assert_eq!(of_one_node(&nobody), "could not be reached: refused (1 try)");
        let failure = Failure::of_mutation(nobody, "id-2");
        assert_eq!(failure.exit, Exit::Unreachable);
        assert_eq!(failure.sentence, "10.0.0.1:7800 could not be reached, so nothing was sent");
    }
}
