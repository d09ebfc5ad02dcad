//! Audited events.

use onespend_proto::v1;
use serde::Serialize;

use super::{set, time};
use crate::cli::answer::MORE;
use crate::cli::format::{counted, timestamp_ago};
use crate::cli::output::Show;
use crate::cli::table::{self, Column};

/// `v1::AuditEvent`.
#[derive(Debug, Serialize)]
pub struct Event {
    index: u64,
    caller: Option<String>,
    event: String,
    wallet_id: Option<String>,
    detail: Option<String>,
    time: Option<String>,
    #[serde(skip)]
    age: String,
}

impl From<v1::AuditEvent> for Event {
    fn from(event: v1::AuditEvent) -> Self {
        Self {
            time: time(event.time.as_ref()),
            age: timestamp_ago(event.time.as_ref()),
            index: event.index,
            caller: set(event.caller),
            event: event.event,
            wallet_id: set(event.wallet_id),
            detail: set(event.detail),
        }
    }
}

/// A page of events.
#[derive(Debug, Serialize)]
pub struct Events {
    events: Vec<Event>,
    /// Whether there are more than were asked for.
    more: bool,
}

impl Events {
    /// Of pages that were read.
    pub fn new((events, more): (Vec<v1::AuditEvent>, bool)) -> Self {
        Self { events: events.into_iter().map(Event::from).collect(), more }
    }
}

impl Show for Events {
    fn text(&self) -> String {
        let columns = [
            Column::Number("INDEX"),
            Column::Whole("WHEN"),
            Column::Text("CALLER"),
            Column::Whole("EVENT"),
            Column::Text("WALLET"),
            Column::Text("DETAIL"),
        ];
        let row = |event: &Event| {
            [
                event.index.to_string(),
                event.age.clone(),
                event.caller.clone().unwrap_or_default(),
                event.event.clone(),
                event.wallet_id.clone().unwrap_or_default(),
                event.detail.clone().unwrap_or_default(),
            ]
        };
        let list = table::list(columns, self.events.iter().map(row), "no events");
        let below = if self.more { MORE.to_owned() } else { counted(self.events.len(), "event", "events") };
        if self.events.is_empty() { list } else { format!("{list}\n{below}") }
    }
}
