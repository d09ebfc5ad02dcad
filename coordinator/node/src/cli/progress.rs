//! A line on standard error that moves while something takes long, if a person watches.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often the line moves.
const TICK: Duration = Duration::from_millis(120);

/// The line. It goes away when it is dropped.
pub struct Progress(ProgressBar);

impl Progress {
    /// Shows a line, unless standard error is not a terminal.
    pub fn start(what: impl Into<String>) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner().with_message(what.into());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// From here on a bar: so many bytes of so many.
    pub fn bytes(&self, done: u64, of: u64) {
        if self.0.is_hidden() {
            return;
        }
        if self.0.length() != Some(of) {
            self.0.set_length(of);
            let bar = "{spinner} {msg}  {bar:30} {bytes} of {total_bytes}  {bytes_per_sec}  {elapsed}";
            if let Ok(style) = ProgressStyle::with_template(bar) {
                self.0.set_style(style);
            }
        }
        self.0.set_position(done);
    }

    /// Says something else.
    pub fn say(&self, what: impl Into<String>) {
        self.0.set_message(what.into());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
