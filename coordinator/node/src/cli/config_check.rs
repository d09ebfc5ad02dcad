//! `onespend config check`: every fault of a configuration file, with its place.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde::Serialize;

use super::exit::Exit;
use super::failure::Failure;
use super::format::counted;
use super::output::{Output, Show};
use crate::config::{Config, Fault, Place, Severity};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Print every fault of a file as file:line:column, before a node meets it at its start; exits 2 if there are errors
    Check {
        /// The configuration file
        #[arg(required_unless_present = "config")]
        file: Option<PathBuf>,
        /// The same, as `serve` takes it; if both are given, FILE alone is checked
        #[arg(long, value_name = "FILE", env = "ONESPEND_CONFIG")]
        config: Option<PathBuf>,
    },
}

impl Command {
    /// Checks the file.
    pub fn run(self, output: Output) -> Result<Exit, Failure> {
        let Self::Check { file, config } = self;
        let file = file.or(config).ok_or_else(|| Failure::usage("no configuration file is named"))?;
        let report = Report::of(&file);
        output.show(&report)?;
        Ok(if report.ok { Exit::Done } else { Exit::Usage })
    }
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    file: PathBuf,
    /// Whether there is no error. A node also starts without its backup folder, which is one.
    ok: bool,
    faults: Vec<FaultView>,
    #[serde(skip)]
    summary: String,
}

/// One fault. `line` and `column` count from 1, columns in characters; or the value came from `variable`.
#[derive(Debug, Serialize)]
struct FaultView {
    severity: &'static str,
    line: Option<usize>,
    column: Option<usize>,
    variable: Option<String>,
    key: String,
    what: String,
    why: String,
    #[serde(skip)]
    text: String,
}

impl Report {
    fn of(file: &Path) -> Self {
        let (summary, ok, faults) = match Config::load_strictly(file) {
            Ok(config) => (summary(&config), true, config.warnings),
            Err(faults) => {
                let errors = faults.errors().count();
                let warnings = faults.faults.len() - errors;
                let warnings = if warnings == 0 {
                    String::new()
                } else {
                    format!(", {}", counted(warnings, "warning", "warnings"))
                };
                (format!("{}{warnings}", counted(errors, "error", "errors")), false, faults.faults)
            }
        };
        let faults = faults.iter().map(|fault| FaultView::of(fault, file)).collect();
        Self { file: file.to_owned(), ok, faults, summary }
    }
}

/// `ok: node 1 of cluster demo on regtest; 3 members; signers: hot`.
fn summary(config: &Config) -> String {
    let signers: Vec<&str> = config.signers.iter().map(|signer| signer.name.as_str()).collect();
    let signers = if signers.is_empty() { "none".to_owned() } else { signers.join(", ") };
    let warnings = match config.warnings.len() {
        0 => String::new(),
        number => format!("; {}", counted(number, "warning", "warnings")),
    };
    format!(
        "ok: node {} of cluster {} on {}; {}; signers: {signers}{warnings}",
        config.node.id,
        config.cluster.id,
        config.cluster.network,
        counted(config.peers.len(), "member", "members"),
    )
}

impl FaultView {
    fn of(fault: &Fault, file: &Path) -> Self {
        let (line, column, variable) = match &fault.place {
            Place::File { line, column } => (Some(*line), Some(*column), None),
            Place::Environment(name) => (None, None, Some(name.clone())),
        };
        let severity = match fault.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let (key, what, why) = (fault.key.clone(), fault.what.clone(), fault.why.clone());
        Self { severity, line, column, variable, key, what, why, text: fault.line(file) }
    }
}

impl Show for Report {
    fn text(&self) -> String {
        let lines: Vec<&str> =
            self.faults.iter().map(|fault| fault.text.as_str()).chain([self.summary.as_str()]).collect();
        lines.join("\n")
    }
}
