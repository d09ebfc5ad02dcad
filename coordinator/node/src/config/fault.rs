//! What is wrong with a configuration, where, and why it matters.
//!
//! A person who fixes one fault and starts again only to meet the next loses patience and then
//! skips the check, so faults are collected and shown all at once.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file; line and column count from 1, columns in characters.
    File {
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// In this environment variable.
    Environment(String),
}

impl Place {
    /// The beginning of the file: for what is missing altogether.
    pub const START: Self = Self::File { line: 1, column: 1 };
}

/// Whether a fault stops the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The node refuses to start.
    Error,
    /// The node starts; an operator should know.
    Warning,
}

/// One thing that is wrong, or doubtful, in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Whether it stops the node.
    pub severity: Severity,
    /// Where it was written.
    pub place: Place,
    /// The key, such as `raft.heartbeat_ms` or `peers[1].data`; empty for faults of syntax.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// Why that is refused, or what to write instead.
    pub why: String,
}

impl Fault {
    /// The line that `onespend config check` prints: `file:line:column: error: key: what (why)`.
    pub fn line(&self, file: &Path) -> String {
        let place = match &self.place {
            Place::File { line, column } => format!("{}:{line}:{column}", file.display()),
            Place::Environment(name) => format!("environment:{name}"),
        };
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let key = if self.key.is_empty() { String::new() } else { format!("{}: ", self.key) };
        format!("{place}: {severity}: {key}{} ({})", self.what, self.why)
    }
}

/// Every fault of one configuration. Being an error, it holds at least one [`Severity::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigFaults {
    /// The file that was read.
    pub file: PathBuf,
    /// Errors and warnings, in the order of the file; the environment's come last.
    pub faults: Vec<Fault>,
}

impl ConfigFaults {
    /// Those that stop the node.
    pub fn errors(&self) -> impl Iterator<Item = &Fault> {
        self.faults.iter().filter(|fault| fault.severity == Severity::Error)
    }
}

impl fmt::Display for ConfigFaults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.faults.iter().map(|fault| fault.line(&self.file)).collect();
        formatter.write_str(&lines.join("\n"))
    }
}

/// Collects faults while a configuration is read.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    all: Vec<Fault>,
    /// The text is no TOML, so what was read of it is no more than a guess.
    unreadable: bool,
}

impl Faults {
    pub(crate) fn error(&mut self, place: Place, key: &str, what: String, why: &str) {
        self.push(Severity::Error, place, key, what, why);
    }

    /// A fault of syntax. What else is found wrong, such as the keys that could not be read, follows from it and is left
    /// out.
    pub(crate) fn syntax(&mut self, place: Place, what: String, why: &str) {
        self.unreadable = true;
        self.error(place, "", what, why);
    }

    pub(crate) fn warning(&mut self, place: Place, key: &str, what: String, why: &str) {
        self.push(Severity::Warning, place, key, what, why);
    }

    /// Whether the value of this key is already known to be wrong, so that a rule which
    /// combines it with others would only repeat the complaint.
    pub(crate) fn concern(&self, key: &str) -> bool {
        self.all.iter().any(|fault| fault.severity == Severity::Error && fault.key == key)
    }

    pub(crate) fn any_error(&self) -> bool {
        self.all.iter().any(|fault| fault.severity == Severity::Error)
    }

    pub(crate) fn into_sorted(mut self) -> Vec<Fault> {
        if self.unreadable {
            self.all.retain(|fault| fault.key.is_empty());
        }
        self.all.sort_by_key(|fault| match &fault.place {
            Place::File { line, column } => (0, *line, *column, String::new()),
            Place::Environment(name) => (1, 0, 0, name.clone()),
        });
        self.all
    }

    fn push(&mut self, severity: Severity, place: Place, key: &str, what: String, why: &str) {
        self.all.push(Fault { severity, place, key: key.to_owned(), what, why: why.to_owned() });
    }
}
