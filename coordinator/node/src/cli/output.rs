//! The one place that writes to standard output: a table for people or JSON for programs.

use std::io::{IsTerminal as _, Write as _};

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

    /// A place for answers that take each other's place.
    pub fn frame(self) -> Frame {
        Frame {
            format: self.format,
            in_place: self.format == Format::Table && std::io::stdout().is_terminal(),
            shown: 0,
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

/// Goes to the top left corner of a terminal (ECMA-48, CUP).
const HOME: &str = "\x1b[H";
/// Clears from there on to the end of the line (EL), or of the screen (ED).
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";

/// Where one answer is shown after the other: drawn over it on a terminal, else a block per answer with an empty line
/// between them, or a line of JSON.
#[derive(Debug)]
pub struct Frame {
    format: Format,
    in_place: bool,
    shown: usize,
}

impl Frame {
    /// Shows the next answer.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn show(&mut self, answer: &impl Show) -> Result<(), Failure> {
        match self.format {
            Format::Table => self.draw(&answer.text()),
            Format::Json => write(&encode(serde_json::to_string(answer))?),
        }
    }

    /// Shows that there is none: where the answer would be on a terminal, else on standard error.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn fail(&mut self, failure: &Failure) -> Result<(), Failure> {
        if self.in_place {
            return self.draw(&failure.text());
        }
        Output { format: self.format }.fail(failure);
        Ok(())
    }

    fn draw(&mut self, text: &str) -> Result<(), Failure> {
        let first = self.shown == 0;
        self.shown += 1;
        write(&self.drawn(text, first))
    }

    fn drawn(&self, text: &str, first: bool) -> String {
        if self.in_place {
            let lines: Vec<String> = text.lines().map(|line| format!("{line}{CLEAR_LINE}")).collect();
            return format!("{HOME}{}{CLEAR_REST}\n", lines.join("\n"));
        }
        if first { text.to_owned() } else { format!("\n{text}") }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_terminal_nothing_of_the_last_answer_is_left() {
        let frame = Frame { format: Format::Table, in_place: true, shown: 1 };
        assert_eq!(frame.drawn("a\nbc", false), "\x1b[Ha\x1b[K\nbc\x1b[K\x1b[J\n");
    }

    #[test]
    fn elsewhere_an_empty_line_is_between_two_answers() {
        let frame = Frame { format: Format::Table, in_place: false, shown: 0 };
        assert_eq!((frame.drawn("a", true), frame.drawn("b", false)), ("a".to_owned(), "\nb".to_owned()));
    }
}
