//! The contract of [`LogStore`].

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::store::{Callback, LogKey, LogStore, Purged, Record, StoreError};

/// An acknowledgement that takes longer never comes.
const PATIENCE: Duration = Duration::from_secs(20);

/// An implementation, with what a test must be able to do to it.
pub(crate) trait LogFixture {
    fn fresh() -> Self;
    fn log(&self) -> &dyn LogStore;
    /// Stops the log and opens it again.
    fn restart(&mut self);
    /// From now on the disk refuses writes.
    fn break_disk(&self);
}

macro_rules! log_contract {
    ($fixture:ty) => {
        crate::store::contract::log::log_contract!($fixture:
            a_fresh_log_is_empty
            records_are_seen_at_once_and_after_a_restart
            callbacks_come_in_the_order_of_the_calls
            a_hole_is_refused_and_nothing_is_written
            a_log_may_start_anywhere
            truncating_beyond_the_last_does_nothing
            what_is_appended_after_a_truncation_replaces
            purging_in_the_middle_keeps_the_rest
            purging_beyond_the_end_empties_and_moves_on
            purging_backwards_does_nothing
            a_read_is_clipped_and_bounded
            named_values_are_kept
            the_last_named_value_wins
            a_stopped_log_refuses
            a_failure_is_final
            any_history_reads_as_the_model_says
        );
    };
    ($fixture:ty: $($check:ident)*) => {
        $(#[test]
        fn $check() {
            crate::store::contract::log::$check(<$fixture as crate::store::contract::log::LogFixture>::fresh());
        })*
    };
}
pub(crate) use log_contract;

/// Calls with a callback and waits for it.
pub(crate) fn acked(call: impl FnOnce(Callback)) -> Result<(), StoreError> {
    let (tell, told) = mpsc::channel();
    call(Box::new(move |result| tell.send(result).unwrap()));
    told.recv_timeout(PATIENCE).expect("acknowledged")
}

pub(crate) fn nobody() -> Callback {
    Box::new(|_| {})
}

/// Records whose content names their index and a generation.
pub(crate) fn records(range: Range<u64>, generation: &str) -> Vec<Record> {
    range.map(|index| (index, format!("{generation}{index}").into_bytes().into())).collect()
}

pub(crate) fn append(log: &dyn LogStore, range: Range<u64>, generation: &str) {
    acked(|done| log.append(records(range, generation), done)).unwrap();
}

pub(crate) fn all(log: &dyn LogStore) -> Vec<Record> {
    log.read(0..u64::MAX, usize::MAX).unwrap()
}

fn bounds(log: &dyn LogStore) -> (Option<u64>, Option<u64>, Option<u64>) {
    let state = log.state();
    (state.first, state.last, state.purged.map(|purged| purged.index))
}

pub(crate) fn a_fresh_log_is_empty(mut at: impl LogFixture) {
    for _ in 0..2 {
        assert_eq!(bounds(at.log()), (None, None, None));
        assert_eq!(all(at.log()), []);
        assert_eq!(at.log().get(LogKey::Vote), None);
        assert!(at.log().failed().is_none());
        at.restart();
    }
}

pub(crate) fn records_are_seen_at_once_and_after_a_restart(mut at: impl LogFixture) {
    at.log().append(records(0..3, "a"), nobody());
    assert_eq!(all(at.log()), records(0..3, "a"));
    at.log().append(vec![(3, Arc::from([]))], nobody());
    let seen = all(at.log());
    assert_eq!(seen.len(), 4);
    at.restart();
    assert_eq!(all(at.log()), seen);
    assert_eq!(bounds(at.log()), (Some(0), Some(3), None));
}

pub(crate) fn callbacks_come_in_the_order_of_the_calls(at: impl LogFixture) {
    let log = at.log();
    let order = Arc::new(Mutex::new(Vec::new()));
    let note = |n: usize| -> Callback {
        let order = order.clone();
        Box::new(move |result| {
            result.unwrap();
            order.lock().unwrap().push(n);
        })
    };
    for round in 0..50_usize {
        let base = round as u64 * 4;
        log.append(records(base..base + 4, "a"), note(round * 6));
        log.put(LogKey::Vote, vec![1], note(round * 6 + 1));
        log.truncate_from(base + 4, note(round * 6 + 2));
        log.purge_through(base / 2, vec![2], note(round * 6 + 3));
        log.append(vec![], note(round * 6 + 4));
        log.truncate_from(u64::MAX, note(round * 6 + 5));
    }
    acked(|done| log.append(vec![], done)).unwrap();
    assert_eq!(*order.lock().unwrap(), (0..300).collect::<Vec<_>>());
}

pub(crate) fn a_hole_is_refused_and_nothing_is_written(mut at: impl LogFixture) {
    append(at.log(), 0..3, "a");
    for bad in [records(4..6, "b"), records(2..4, "b"), vec![(3, Arc::from([1])), (5, Arc::from([1]))]] {
        let refused = acked(|done| at.log().append(bad, done)).unwrap_err();
        assert!(matches!(refused, StoreError::Hole { .. }), "{refused}");
    }
    assert_eq!(all(at.log()), records(0..3, "a"));
    assert!(at.log().failed().is_none(), "refusing is not failing");
    append(at.log(), 3..4, "a");
    at.restart();
    assert_eq!(all(at.log()), records(0..4, "a"));
}

pub(crate) fn a_log_may_start_anywhere(mut at: impl LogFixture) {
    append(at.log(), 7..9, "a");
    at.restart();
    assert_eq!(bounds(at.log()), (Some(7), Some(8), None));
    acked(|done| at.log().purge_through(6, vec![6], done)).unwrap();
    at.restart();
    assert_eq!(bounds(at.log()), (Some(7), Some(8), Some(6)));
    assert_eq!(all(at.log()), records(7..9, "a"));
}

pub(crate) fn truncating_beyond_the_last_does_nothing(mut at: impl LogFixture) {
    acked(|done| at.log().truncate_from(0, done)).unwrap();
    append(at.log(), 0..3, "a");
    acked(|done| at.log().truncate_from(3, done)).unwrap();
    acked(|done| at.log().truncate_from(u64::MAX, done)).unwrap();
    assert_eq!(bounds(at.log()), (Some(0), Some(2), None));
    append(at.log(), 3..4, "a");
    at.restart();
    assert_eq!(all(at.log()), records(0..4, "a"));
}

pub(crate) fn what_is_appended_after_a_truncation_replaces(mut at: impl LogFixture) {
    let log = at.log();
    log.append(records(0..10, "a"), nobody());
    log.truncate_from(4, nobody());
    log.append(records(4..6, "b"), nobody());
    log.truncate_from(5, nobody());
    log.append(records(5..9, "c"), nobody());
    let expected = [records(0..4, "a"), records(4..5, "b"), records(5..9, "c")].concat();
    assert_eq!(all(log), expected);
    at.restart();
    assert_eq!(all(at.log()), expected);
    acked(|done| at.log().truncate_from(0, done)).unwrap();
    assert_eq!(bounds(at.log()), (None, None, None));
    append(at.log(), 0..1, "d");
    at.restart();
    assert_eq!(all(at.log()), records(0..1, "d"));
}

pub(crate) fn purging_in_the_middle_keeps_the_rest(mut at: impl LogFixture) {
    append(at.log(), 0..10, "a");
    acked(|done| at.log().purge_through(4, b"at 4".to_vec(), done)).unwrap();
    for _ in 0..2 {
        assert_eq!(bounds(at.log()), (Some(5), Some(9), Some(4)));
        assert_eq!(&*at.log().state().purged.unwrap().marker, b"at 4");
        assert_eq!(all(at.log()), records(5..10, "a"));
        at.restart();
    }
    acked(|done| at.log().truncate_from(2, done)).unwrap();
    assert_eq!(bounds(at.log()), (None, None, Some(4)));
    append(at.log(), 5..6, "b");
}

pub(crate) fn purging_beyond_the_end_empties_and_moves_on(mut at: impl LogFixture) {
    append(at.log(), 0..10, "a");
    acked(|done| at.log().purge_through(99, vec![99], done)).unwrap();
    for _ in 0..2 {
        assert_eq!(bounds(at.log()), (None, None, Some(99)));
        assert_eq!(all(at.log()), []);
        at.restart();
    }
    let refused = acked(|done| at.log().append(records(10..11, "b"), done)).unwrap_err();
    assert!(matches!(refused, StoreError::Hole { expected: 100, found: 10 }), "{refused}");
    append(at.log(), 100..102, "b");
    at.restart();
    assert_eq!(all(at.log()), records(100..102, "b"));
}

pub(crate) fn purging_backwards_does_nothing(mut at: impl LogFixture) {
    append(at.log(), 0..10, "a");
    acked(|done| at.log().purge_through(5, vec![5], done)).unwrap();
    acked(|done| at.log().purge_through(5, vec![0], done)).unwrap();
    acked(|done| at.log().purge_through(3, vec![3], done)).unwrap();
    at.restart();
    assert_eq!(at.log().state().purged, Some(Purged { index: 5, marker: Arc::from([5]) }));
    assert_eq!(all(at.log()), records(6..10, "a"));
}

pub(crate) fn a_read_is_clipped_and_bounded(mut at: impl LogFixture) {
    let ten: Vec<Record> = (0..10).map(|index| (index, Arc::from([7_u8; 100]))).collect();
    acked(|done| at.log().append(ten.clone(), done)).unwrap();
    for _ in 0..2 {
        let read = |range: Range<u64>, max_bytes| at.log().read(range, max_bytes).unwrap();
        assert_eq!(read(3..5, usize::MAX), ten[3..5]);
        assert_eq!(read(8..50, usize::MAX), ten[8..]);
        assert_eq!(read(10..50, usize::MAX), []);
        assert_eq!(read(5..5, usize::MAX), []);
        #[allow(clippy::reversed_empty_ranges)]
        let reversed = 6..3;
        assert_eq!(read(reversed, usize::MAX), []);
        assert_eq!(read(2..9, 0), ten[2..3], "never empty while there is something");
        assert_eq!(read(2..9, 100), ten[2..3]);
        assert_eq!(read(2..9, 101), ten[2..4]);
        assert_eq!(read(2..9, 300), ten[2..5]);
        at.restart();
    }
}

pub(crate) fn named_values_are_kept(mut at: impl LogFixture) {
    acked(|done| at.log().put(LogKey::Vote, vec![1, 2], done)).unwrap();
    at.log().put_lazily(LogKey::Committed, vec![3]);
    for _ in 0..2 {
        assert_eq!(at.log().get(LogKey::Vote).as_deref(), Some(&[1, 2][..]));
        assert_eq!(at.log().get(LogKey::Committed).as_deref(), Some(&[3][..]), "stopping writes lazy values");
        at.restart();
    }
}

pub(crate) fn the_last_named_value_wins(mut at: impl LogFixture) {
    let log = at.log();
    log.put_lazily(LogKey::Vote, vec![1]);
    log.put(LogKey::Vote, vec![2], nobody());
    log.put(LogKey::Committed, vec![3], nobody());
    log.put_lazily(LogKey::Committed, vec![4]);
    for _ in 0..2 {
        assert_eq!(at.log().get(LogKey::Vote).as_deref(), Some(&[2][..]));
        assert_eq!(at.log().get(LogKey::Committed).as_deref(), Some(&[4][..]));
        at.restart();
    }
}

pub(crate) fn a_stopped_log_refuses(at: impl LogFixture) {
    let log = at.log();
    let (tell, told) = mpsc::channel();
    log.append(records(0..3, "a"), Box::new(move |result| tell.send(result).unwrap()));
    log.stop();
    told.try_recv().expect("stopping waits for what was called before").unwrap();
    assert!(matches!(acked(|done| log.append(records(3..4, "a"), done)), Err(StoreError::Stopped)));
    assert!(matches!(acked(|done| log.put(LogKey::Vote, vec![1], done)), Err(StoreError::Stopped)));
    assert_eq!(all(log), records(0..3, "a"));
    assert!(log.failed().is_none());
    log.stop();
}

pub(crate) fn a_failure_is_final(mut at: impl LogFixture) {
    append(at.log(), 0..3, "a");
    let (tell, told) = mpsc::channel();
    let before = tell.clone();
    at.log().on_failure(Box::new(move |error| before.send(error).unwrap()));
    at.break_disk();
    acked(|done| at.log().append(records(3..4, "a"), done)).unwrap_err();
    told.recv_timeout(PATIENCE).expect("the watcher hears of it");
    at.log().on_failure(Box::new(move |error| tell.send(error).unwrap()));
    told.recv_timeout(PATIENCE).expect("a late watcher too");
    for _ in 0..3 {
        let refused = acked(|done| at.log().put(LogKey::Vote, vec![1], done)).unwrap_err();
        assert!(matches!(refused, StoreError::Failed { .. }), "{refused}");
    }
    let first = at.log().failed().expect("remembered");
    assert!(!matches!(first, StoreError::Failed { .. }), "{first}");
    at.restart();
    assert_eq!(all(at.log()), records(0..3, "a"), "nothing that was refused is there");
}

#[derive(Debug, Clone)]
enum Step {
    Append(u8),
    Truncate(u8),
    Purge(u8),
    Put(u8),
    PutLazily(u8),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1..20_u8).prop_map(Step::Append),
        2 => any::<u8>().prop_map(Step::Truncate),
        2 => any::<u8>().prop_map(Step::Purge),
        1 => any::<u8>().prop_map(Step::Put),
        1 => any::<u8>().prop_map(Step::PutLazily),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..40)
}

/// The log as one would describe it to a person.
#[derive(Default)]
struct Model {
    records: BTreeMap<u64, Arc<[u8]>>,
    next: u64,
    purged: Option<u64>,
    vote: Option<u8>,
}

impl Model {
    fn truncate(&mut self, from: u64) {
        let from = from.max(self.purged.map_or(0, |purged| purged + 1));
        self.records.retain(|index, _| *index < from);
        self.next = self.next.min(from);
    }

    fn purge(&mut self, through: u64) {
        if self.purged.is_none_or(|purged| purged < through) {
            self.records.retain(|index, _| *index > through);
            self.next = self.next.max(through + 1);
            self.purged = Some(through);
        }
    }
}

pub(crate) fn any_history_reads_as_the_model_says<F: LogFixture>(_: F) {
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        let mut at = F::fresh();
        let mut model = Model::default();
        for (n, step) in steps.into_iter().enumerate() {
            play(&mut at, &mut model, n, &step);
            let expected: Vec<Record> = model.records.clone().into_iter().collect();
            prop_assert_eq!(all(at.log()), expected);
            prop_assert_eq!(at.log().state().purged.map(|purged| purged.index), model.purged);
            prop_assert_eq!(at.log().get(LogKey::Vote).map(|vote| vote[0]), model.vote);
        }
        Ok(())
    });
    outcome.unwrap();
}

fn play<F: LogFixture>(at: &mut F, model: &mut Model, n: usize, step: &Step) {
    match *step {
        Step::Append(count) => {
            let entries = records(model.next..model.next + u64::from(count), &format!("{n}."));
            model.next += u64::from(count);
            model.records.extend(entries.iter().cloned());
            at.log().append(entries, nobody());
        }
        Step::Truncate(from) => {
            model.truncate(from.into());
            at.log().truncate_from(from.into(), nobody());
        }
        Step::Purge(through) => {
            model.purge(through.into());
            at.log().purge_through(through.into(), vec![through], nobody());
        }
        Step::Put(value) => {
            model.vote = Some(value);
            at.log().put(LogKey::Vote, vec![value], nobody());
        }
        Step::PutLazily(value) => {
            model.vote = Some(value);
            at.log().put_lazily(LogKey::Vote, vec![value]);
        }
        Step::Restart => at.restart(),
    }
}
