//! The one place that writes to standard output: a table for people or JSON for programs.

use std::io::Write as _;

use clap::ValueEnum;
use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people, within 100 columns
    Table,
    /// For programs: one JSON document, or one per line from commands that follow
    Json,
}

/// An answer. Its JSON is stable: names and meaning of fields stay, further ones may come.
pub trait Show: Serialize {
    /// For people.
    fn text(&self) -> String;
}

/// Where answers go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// How they are written.
    pub format: Format,
}

impl Output {
    /// Writes a whole answer.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn show(self, answer: &impl Show) -> Result<(), Failure> {
        match self.format {
            Format::Table => write(&answer.text()),
            Format::Json => write(&encode(serde_json::to_string_pretty(answer))?),
        }
    }

    /// Writes one of many answers that come one after the other.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn show_line(self, answer: &impl Show) -> Result<(), Failure> {
        match self.format {
            Format::Table => write(&answer.text()),
            Format::Json => write(&encode(serde_json::to_string(answer))?),
        }
    }

    /// Writes a failure to standard error. Nobody is left to be told when that fails.
    pub fn fail(self, failure: &Failure) {
        if failure.exit == Exit::Done {
            return;
        }
        let text = match self.format {
            Format::Table => failure.text(),
            Format::Json => format!("{}\n", failure.json()),
        };
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

/// Writes a remark to standard error, beside the answer.
pub fn note(note: &str) {
    let _ = writeln!(std::io::stderr(), "onespend: {note}");
}

/// Writes text as it is, with a newline at its end.
///
/// # Errors
/// Standard output cannot be written. A reader that has gone away (`| head`) ends the command without a complaint.
pub fn write(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    out.write_all(text.as_bytes()).and_then(|()| out.write_all(end.as_bytes())).and_then(|()| out.flush()).map_err(
        |error| {
            let exit = if error.kind() == std::io::ErrorKind::BrokenPipe { Exit::Done } else { Exit::Usage };
            Failure::new(exit, format!("standard output cannot be written: {error}"))
        },
    )
}

fn encode(encoded: serde_json::Result<String>) -> Result<String, Failure> {
    encoded.map_err(|error| Failure::new(Exit::Usage, format!("the answer cannot be written as JSON: {error}")))
}
