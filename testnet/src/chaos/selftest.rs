//! The proof that the oracles can find something: each guard of the service is taken away once, and chaos must notice;
//! and with all of them in place it must not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Error, Result, ensure};

use super::{Oracle, Outcome, Plan, play};
use crate::programs;
use crate::progress::say;

/// Those who can notice a missing guard. That a process ends, or that the run itself lacks something, is nobody's catch.
const JUDGES: &[Oracle] = &[Oracle::Chain, Oracle::Signers, Oracle::Callers, Oracle::Endpoints, Oracle::Hashes];
/// A node that has lost what it acknowledged may be the first to say so: it ends when the others show it.
const JUDGES_OF_DISKS: &[Oracle] =
    &[Oracle::Chain, Oracle::Signers, Oracle::Callers, Oracle::Endpoints, Oracle::Hashes, Oracle::Processes];
/// The guards, by the names of the switches, and who may notice that one is missing.
const GUARDS: [(&str, &[Oracle]); 5] = [
    ("anchor-rule", JUDGES),
    ("ttl-frees-exposed", JUDGES),
    ("request-cache", JUDGES),
    ("sign-before-intent", JUDGES),
    ("ack-before-fsync", JUDGES_OF_DISKS),
];
const VARIABLE: &str = "ONESPEND_SABOTAGE";
/// Within this each of them must be noticed.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long nothing may be noticed where no guard is missing.
const CONTROL: Duration = Duration::from_secs(30);
const CALLERS: usize = 16;

/// Takes one guard after the other away; and then none, so that what is noticed comes from the guard and from nothing
/// else.
///
/// # Errors
/// One was not noticed, something was noticed without reason, or something did not come up.
pub fn run(seed: u64, folder: &Path) -> Result<()> {
    say(&format!("seed {seed}"));
    let program = programs::onespend_sabotage()?;
    let mut missed = Vec::new();
    for (guard, judges) in GUARDS {
        let variables = vec![(VARIABLE.to_owned(), guard.to_owned())];
        let (duration, until_caught_by) = (PATIENCE, judges);
        let plan = Plan { duration, variables, until_caught_by, ..control(seed, &folder.join(guard), &program) };
        // Of one that cannot be played nobody knows whether it would be noticed; the others are still to be.
        let line = play(&plan).map_or_else(|error| unplayed(guard, &error), |outcome| verdict(guard, &outcome));
        if line.starts_with("missed") {
            missed.push(guard);
        }
        say(&line);
    }
    let outcome = play(&control(seed, &folder.join("control"), &program))?;
    say(&verdict_of_control(&outcome));
    ensure!(missed.is_empty(), "not noticed: {}", missed.join(", "));
    ensure!(outcome.report.violations.is_empty(), "something was noticed though every guard was there");
    Ok(())
}

/// A run with every guard, by the same binary.
fn control(seed: u64, folder: &Path, program: &Path) -> Plan {
    Plan {
        seed,
        duration: CONTROL,
        callers: CALLERS,
        report: folder.join("report.json"),
        program: PathBuf::from(program),
        variables: Vec::new(),
        until_caught_by: &[],
    }
}

fn verdict(guard: &str, outcome: &Outcome) -> String {
    match outcome.caught {
        Some((oracle, after)) if is_judge_of(guard, oracle) && after <= PATIENCE => {
            format!("caught {guard} by {} after {} s", oracle.name(), after.as_secs())
        }
        _ => format!("missed {guard}"),
    }
}

fn unplayed(guard: &str, error: &Error) -> String {
    format!("missed {guard}: {error:#}")
}

fn is_judge_of(guard: &str, oracle: Oracle) -> bool {
    GUARDS.iter().any(|(name, judges)| *name == guard && judges.contains(&oracle))
}

fn verdict_of_control(outcome: &Outcome) -> String {
    match outcome.report.violations.first() {
        None => format!("control found nothing after {} s", outcome.report.seconds),
        Some(first) => format!("control found {} after {} s: {first}", first.oracle.name(), outcome.report.seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::{Report, Violation};

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
        assert_eq!(verdict("no-such-guard", &outcome(Some(Oracle::Callers), 7)), "missed no-such-guard");
    }

    #[test]
    fn a_guard_whose_run_fails_is_missed_and_the_cause_is_told() {
        let error = Error::msg("no port is free").context("cannot start node-1");
        assert_eq!(unplayed("request-cache", &error), "missed request-cache: cannot start node-1: no port is free");
    }

    #[test]
    fn only_judges_can_catch() {
        for (guard, _) in GUARDS {
            let line = |oracle| verdict(guard, &outcome(Some(oracle), 7));
            for judge in [Oracle::Chain, Oracle::Signers, Oracle::Callers, Oracle::Endpoints, Oracle::Hashes] {
                assert_eq!(line(judge), format!("caught {guard} by {} after 7 s", judge.name()));
            }
            for nobody in [Oracle::Recovery, Oracle::Run] {
                assert_eq!(line(nobody), format!("missed {guard}"));
            }
            // One that has lost what it acknowledged ends by itself; no other guard shows like that.
            assert_eq!(line(Oracle::Processes).starts_with("caught"), guard == "ack-before-fsync", "{guard}");
        }
    }

    #[test]
    fn the_control_run_says_what_it_found() {
        let mut control = outcome(None, 0);
        control.report.seconds = 30;
        assert_eq!(verdict_of_control(&control), "control found nothing after 30 s");
        control.report.violations.push(Violation::new(Oracle::Processes, "node-1 ended by itself"));
        let line = verdict_of_control(&control);
        assert_eq!(line, "control found processes after 30 s: processes: node-1 ended by itself");
    }
}
