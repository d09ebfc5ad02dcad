//! What a person sees while something takes long: a bar on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Without a terminal, at most so many lines for one count.
const LINES: u64 = 10;
const TICK: Duration = Duration::from_millis(100);

/// Prints a line to stdout. A closed pipe ends nothing.
pub fn say(line: &str) {
    let _nobody_listens = writeln!(std::io::stdout(), "{line}");
}

/// The same with the seconds since the first such line: one clock for all steps and counts of a command.
fn say_when(text: &str) {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let first = FIRST.get_or_init(Instant::now);
    say(&format!("  {:>5.1} s  {text}", first.elapsed().as_secs_f64()));
}

/// A sequence of steps, or a count towards a total.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    what: &'static str,
    total: u64,
    printed: u64,
}

impl Progress {
    /// Steps whose number is not known: a spinner.
    pub fn steps() -> Self {
        let bar = on_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, what: "", total: 0, printed: 0 }
    }

    /// A count from 0 to `total`, named `what`.
    pub fn count(what: &'static str, total: u64) -> Self {
        let bar = on_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let template = "  {prefix:<10} [{bar:40.green}] {pos:>4}/{len}  {elapsed_precise}  {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style.progress_chars("━╸ "));
            }
            bar.set_prefix(what);
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, what, total, printed: 0 }
    }

    /// What happens next.
    pub fn step(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{text} …")),
            None => say_when(text),
        }
    }

    /// How far the count is.
    pub fn reach(&mut self, done: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            return;
        }
        let tenth = done * LINES / self.total.max(1);
        if tenth > self.printed {
            self.printed = tenth;
            say_when(&format!("{} {done}/{}", self.what, self.total));
        }
    }

    /// Something worth a line of its own, above the bar.
    pub fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("  {text}")),
            None => say_when(text),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}

fn on_terminal() -> bool {
    std::io::stderr().is_terminal()
}
