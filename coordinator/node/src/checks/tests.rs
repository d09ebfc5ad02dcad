//! What the rest of the node is told of checks.
#![allow(clippy::unwrap_used)]

use std::sync::mpsc;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn check(name: &str, purpose: Purpose) -> CheckConfig {
    CheckConfig {
        name: name.to_owned(),
        subject: Some(Subject::Bitcoind),
        purpose,
        interval: SECOND,
        timeout: SECOND,
        rise: 1,
        fall: 1,
    }
}

/// Without the built-in ones.
fn checks(for_primary: Aggregation, configured: Vec<CheckConfig>) -> Checks {
    let check = |config| Arc::new(Check { config, seen: ArcSwapOption::empty() });
    Checks {
        all: configured.into_iter().map(check).collect(),
        for_primary,
        for_readiness: Aggregation::All,
        fsync: Arc::new(FsyncWatch::new(0)),
    }
}

#[test]
fn a_check_that_was_never_looked_at_does_not_vouch_for_anything() {
    let checks = checks(Aggregation::All, vec![check("a", Purpose::Primary)]);
    let now = Instant::now();
    assert_eq!(checks.unfit(now).as_deref(), Some("a"));
    assert!(!checks.pass(Purpose::Primary, &checks.views(now)));
    checks.all[0].note(true, "fine".to_owned());
    let views = checks.views(Instant::now());
    assert!(views[0].passes && views[0].value == "fine" && views[0].looked_at.is_some());
    assert_eq!(checks.unfit(Instant::now()), None);
}

#[test]
fn a_check_whose_looks_stop_coming_fails_by_its_age() {
    let checks = checks(Aggregation::All, vec![check("a", Purpose::Primary)]);
    checks.all[0].note(true, "fine".to_owned());
    let at = Instant::now();
    assert!(checks.views(at + SECOND * 2)[0].passes);
    let old = checks.views(at + SECOND * 2 + PATIENCE + SECOND);
    assert!(!old[0].passes && old[0].value.contains("fine"), "{old:?}");
}

#[test]
fn a_failing_check_whose_last_look_was_good_does_not_say_that_all_is_well() {
    let mut hysteresis = Hysteresis::new(2, 3);
    let mut look = |good, value: &str| {
        hysteresis.note(good);
        told(value.to_owned(), &hysteresis)
    };
    assert_eq!(look(false, "few peers"), "few peers");
    assert_eq!(look(true, "in sync"), "in sync, 1 of 2 good looks");
    assert_eq!(look(true, "in sync"), "in sync");
    assert_eq!(look(false, "few peers"), "few peers", "a bad look that is forgiven");
}

#[test]
fn what_is_only_reported_decides_nothing() {
    let all = vec![check("a", Purpose::Report), check("b", Purpose::Primary), check("c", Purpose::Readiness)];
    let checks = checks(Aggregation::All, all);
    for (check, passes) in checks.all.iter().zip([false, true, true]) {
        check.note(passes, String::new());
    }
    assert_eq!(checks.unfit(Instant::now()), None);
    checks.all[2].note(false, String::new());
    let views = checks.views(Instant::now());
    assert_eq!(checks.unfit(Instant::now()).as_deref(), Some("c"));
    assert!(checks.pass(Purpose::Primary, &views) && !checks.pass(Purpose::Readiness, &views));
}

#[test]
fn a_quorum_of_checks_is_enough_where_it_is_asked_for() {
    let all = ["a", "b", "c"].map(|name| check(name, Purpose::Primary)).to_vec();
    let checks = checks(Aggregation::Quorum, all);
    for (check, passes) in checks.all.iter().zip([false, true, true]) {
        check.note(passes, String::new());
    }
    assert_eq!(checks.unfit(Instant::now()), None);
    checks.all[1].note(false, String::new());
    assert_eq!(checks.unfit(Instant::now()).as_deref(), Some("a, b"));
}

#[tokio::test]
async fn a_look_that_hangs_is_given_up_and_not_begun_a_second_time() {
    let (release, held) = mpsc::channel::<()>();
    let mut blocking = Blocking::default();
    let hangs = move || {
        let _ = held.recv();
        Look::good("late")
    };
    let short = Duration::from_millis(20);
    assert_eq!(in_time(short, on_a_thread(&mut blocking, hangs)).await, late(short));
    let second = || Look::good("a second one");
    assert_eq!(in_time(short, on_a_thread(&mut blocking, second)).await, late(short), "the first still hangs");
    release.send(()).unwrap();
    assert_eq!(in_time(SECOND * 30, on_a_thread(&mut blocking, second)).await, Look::good("late"));
    assert_eq!(in_time(SECOND * 30, on_a_thread(&mut blocking, second)).await, Look::good("a second one"));
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_bad() {
    let short = Duration::from_millis(20);
    assert_eq!(in_time(short, std::future::pending()).await, late(short));
    assert_eq!(in_time(SECOND * 30, async { Look::good("here") }).await, Look::good("here"));
}
