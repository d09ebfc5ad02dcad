//! The proof that the oracles can find something: each guard of the service is taken away once, and chaos must notice.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Oracle, Outcome, Plan, play};
use crate::programs;
use crate::progress::say;

/// The guards, by the names of the switches.
const GUARDS: [&str; 5] =
    ["anchor-rule", "ttl-frees-exposed", "request-cache", "sign-before-intent", "ack-before-fsync"];
const VARIABLE: &str = "ONESPEND_SABOTAGE";
/// Within this each of them must be noticed.
const PATIENCE: Duration = Duration::from_mins(2);
const CALLERS: usize = 16;

/// Takes one guard after the other away.
///
/// # Errors
/// One was not noticed, or something did not come up.
pub fn run(seed: u64, folder: &Path) -> Result<()> {
    say(&format!("seed {seed}"));
    let program = programs::onespend_sabotage()?;
    let mut missed = Vec::new();
    for guard in GUARDS {
        let outcome = play(&plan(seed, guard, folder, &program))?;
        let line = verdict(guard, &outcome);
        if line.starts_with("missed") {
            missed.push(guard);
        }
        say(&line);
    }
    ensure!(missed.is_empty(), "not noticed: {}", missed.join(", "));
    Ok(())
}

fn plan(seed: u64, guard: &str, folder: &Path, program: &Path) -> Plan {
    Plan {
        seed,
        duration: PATIENCE,
        callers: CALLERS,
        report: folder.join(guard).join("report.json"),
        program: PathBuf::from(program),
        variables: vec![(VARIABLE.to_owned(), guard.to_owned())],
        until_caught: true,
    }
}

/// The run's own shortcomings are nobody's catch.
fn verdict(guard: &str, outcome: &Outcome) -> String {
    match outcome.caught {
        Some((oracle, after)) if oracle != Oracle::Run && after <= PATIENCE => {
            format!("caught {guard} by {} after {} s", oracle.name(), after.as_secs())
        }
        _ => format!("missed {guard}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::Report;

    fn outcome(oracle: Option<Oracle>, after_s: u64) -> Outcome {
        let caught = oracle.map(|oracle| (oracle, Duration::from_secs(after_s)));
        Outcome { report: Report::default(), caught }
    }

    #[test]
    fn a_catch_names_its_oracle_and_a_miss_is_a_miss() {
        assert_eq!(
            verdict("request-cache", &outcome(Some(Oracle::Callers), 7)),
            "caught request-cache by callers after 7 s"
        );
        assert_eq!(verdict("request-cache", &outcome(None, 0)), "missed request-cache");
        assert_eq!(verdict("request-cache", &outcome(Some(Oracle::Signers), 121)), "missed request-cache");
        assert_eq!(verdict("request-cache", &outcome(Some(Oracle::Run), 7)), "missed request-cache");
    }
}
