//! Backups by schedule: every so often, on a node that has time for it.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onespend_adapters::backup::{BackupDepot, BackupError, Header, superfluous};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::contents::check_copy;
use super::{BackupSource, MakeError, wall_ms};
use crate::agreement;
use crate::alarms::Alarms;
use crate::metrics;
use crate::raft::{RaftStatus, Role};
use crate::replica::Replica;
use crate::runtime;

/// How often it is looked whether one is due and this node should make it.
const LOOK: Duration = Duration::from_secs(1);
/// After one that failed, the next is tried so much later, or when it is due if that is earlier.
const RETRY: Duration = Duration::from_mins(5);
/// One that takes longer than the pause between two counts as failed. No pause is taken for shorter or longer than this: a
/// copy takes its time, and what hangs for an hour is worth a look.
const PATIENCE: [Duration; 2] = [Duration::from_secs(10), Duration::from_hours(1)];
/// A replica that lacks more entries than this is not in sync.
const MAX_LAG_ENTRIES: u64 = 1_000;
/// And one that has not been heard for longer.
const MAX_SILENCE: Duration = Duration::from_secs(10);

/// What the worker works with.
pub(crate) struct Schedule {
    pub(crate) replica: Arc<Replica>,
    pub(crate) source: Arc<BackupSource>,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) depot: Arc<dyn BackupDepot>,
    pub(crate) cluster_id: String,
    pub(crate) node_id: u64,
    pub(crate) every: Duration,
    pub(crate) keep: usize,
}

/// Why a scheduled backup was not made or not kept.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Make(#[from] MakeError),
    /// It would be kept instead of older ones that are sound.
    #[error("the state that it would hold contradicts itself: {0}")]
    Unsound(String),
    #[error(transparent)]
    Keep(#[from] BackupError),
    /// The thread that waits for the place cannot be ended, and another one would wait beside it.
    #[error("it has not ended for {} s: the place for it may hang, and is waited for", waited.as_secs())]
    Hangs { waited: Duration },
    #[error("the node stops")]
    Stopped,
}

/// Makes backups, if there is a schedule, until the token is cancelled.
pub(crate) async fn run(schedule: Option<Schedule>, stop: CancellationToken) {
    let Some(schedule) = schedule.map(Arc::new) else { return };
    let [least, most] = PATIENCE;
    let waited = schedule.every.clamp(least, most);
    let mut failures = Failures::default();
    // A folder that hangs must not hold up the end.
    let mut due = tokio::select! {
        () = stop.cancelled() => return,
        wait = waited_for(first_wait(&schedule), waited, RETRY, || failures.count(&Failed::Hangs { waited })) => {
            Instant::now() + wait
        }
    };
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        if Instant::now() < due || !may_make(&schedule) {
            continue;
        }
        let made = tokio::select! {
            () = stop.cancelled() => return,
            made = waited_for(make(&schedule), waited, RETRY, || failures.count(&Failed::Hangs { waited })) => made,
        };
        match made {
            Ok(header) => {
                info!(index = header.index, size_bytes = header.size_bytes, "a scheduled backup was made");
                metrics::backup_made(Duration::from_millis(header.made_unix_ms));
                failures.end();
                due = Instant::now() + schedule.every;
            }
            // Somebody else is given one; there is time.
            Err(Failed::Make(MakeError::Busy)) => {}
            Err(error) => {
                failures.count(&error);
                due = Instant::now() + RETRY.min(schedule.every);
            }
        }
    }
}

/// Counts failures, and says the first of several in a row.
#[derive(Default)]
struct Failures {
    said: bool,
}

impl Failures {
    fn count(&mut self, error: &Failed) {
        metrics::backup_failed();
        if !std::mem::replace(&mut self.said, true) {
            warn!(%error, "a scheduled backup failed; it is tried again, and this is not said again");
        }
    }

    fn end(&mut self) {
        self.said = false;
    }
}

/// Waits for work however long it takes. It is late after `patience`, and then each time that `again` has passed, as often as
/// work that fails would be tried again: an alert that watches for failures must not miss one that goes on.
async fn waited_for<T>(
    work: impl Future<Output = T>,
    patience: Duration,
    again: Duration,
    mut late: impl FnMut(),
) -> T {
    let mut work = pin!(work);
    let mut wait = patience;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(wait) => {}
        }
        late();
        wait = again;
    }
}

/// Until the first one, as if the node had never been down. A depot that cannot be read shows when one is due.
async fn first_wait(schedule: &Arc<Schedule>) -> Duration {
    let own = Arc::clone(schedule);
    let listed = runtime::blocking(move || own.depot.list()).await;
    let kept = listed.ok().and_then(Result::ok).unwrap_or_default();
    let own = kept
        .iter()
        .filter_map(|kept| kept.header.as_ref().ok())
        .filter(|header| header.cluster_id == schedule.cluster_id && header.node_id == schedule.node_id);
    let now = wall_ms();
    // What a clock that was ahead has dated says nothing about how long ago it was.
    let latest = own.map(|header| header.made_unix_ms).filter(|made| *made <= now).max();
    let Some(latest) = latest else { return Duration::ZERO };
    metrics::backup_made(Duration::from_millis(latest));
    schedule.every.saturating_sub(Duration::from_millis(now - latest))
}

fn may_make(schedule: &Schedule) -> bool {
    let sound = schedule.alarms.current().iter().all(|alarm| alarm.code != agreement::MISMATCH);
    let heard = schedule.replica.staleness().is_some_and(|age| age <= MAX_SILENCE);
    sound && heard && is_its_turn(&schedule.replica.status(), Instant::now())
}

/// A node that follows makes one if it has nearly everything; a leader, which has enough to do, only where nobody else has.
fn is_its_turn(status: &RaftStatus, now: Instant) -> bool {
    let near = |has: Option<u64>, of: Option<u64>| has.is_some_and(|has| of.unwrap_or(0) <= has + MAX_LAG_ENTRIES);
    match status.role {
        Role::Replica | Role::Learner => status.leader.is_some() && near(status.applied, status.committed),
        Role::Leader => !status.members.iter().any(|member| {
            let heard = member.last_contact.is_some_and(|at| now.saturating_duration_since(at) <= MAX_SILENCE);
            member.node_id != status.node_id && heard && near(member.matched, status.last_log)
        }),
        Role::Candidate | Role::Stopped => false,
    }
}

async fn make(schedule: &Arc<Schedule>) -> Result<Header, Failed> {
    let doubt = schedule.alarms.doubt();
    let made = schedule.source.make(schedule.source.turn()?).await?;
    let own = Arc::clone(schedule);
    let keep = move || {
        check_copy(&made.header, &made.copy.path).map_err(Failed::Unsound)?;
        let name = own.depot.store(&made.header, &made.copy.path, &made.copy.digest.sha256)?;
        info!(name, "a backup is kept");
        // The doubt may have come while it was made.
        retire(&*own.depot, &made.header, own.keep, doubt.or_else(|| own.alarms.doubt()));
        Ok(made.header.clone())
    };
    runtime::blocking(keep).await.map_err(|_| Failed::Stopped)?
}

/// Removes what is superfluous. The new backup is made whether or not that succeeds: to make another one because an old
/// one stays would fill the place, and let younger ones drive out the history. Nothing is superfluous while an alarm
/// puts the state in doubt that the new one holds: an older one may be the last that is right.
fn retire(depot: &dyn BackupDepot, newest: &Header, keep: usize, doubt: Option<&'static str>) {
    if let Some(alarm) = doubt {
        return warn!(alarm, "old backups stay: the state of the new one may be wrong");
    }
    let kept = match depot.list() {
        Ok(kept) => kept,
        Err(error) => return warn!(%error, "old backups stay: those that there are cannot be listed"),
    };
    for old in superfluous(&kept, newest, keep) {
        match depot.remove(old) {
            Ok(()) => info!(name = old, "an old backup was removed"),
            Err(error) => warn!(name = old, %error, "an old backup stays: it cannot be removed"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;
    use std::sync::Mutex;

    use onespend_adapters::backup::{Backup, Kept, file_name};

    use super::*;
    use crate::raft::{Addresses, MemberStatus};

    fn member(node_id: u64, matched: u64, heard: Option<Instant>) -> MemberStatus {
        let (addresses, matched) = (Addresses::default(), Some(matched));
        MemberStatus { node_id, addresses, voter: true, matched, last_contact: heard }
    }

    fn status(role: Role, applied: u64, members: Vec<MemberStatus>) -> RaftStatus {
        RaftStatus {
            node_id: 1,
            role,
            term: 3,
            leader: Some(2),
            quorum_acked: None,
            own_term_applied: true,
            last_log: Some(5_000),
            committed: Some(5_000),
            applied: Some(applied),
            snapshot: None,
            purged: None,
            joint: false,
            members,
        }
    }

    /// Three old backups, of which one cannot be removed.
    struct Stubborn(Mutex<Vec<String>>);

    impl Stubborn {
        fn header(index: u64) -> Header {
            Header {
                cluster_id: "demo".to_owned(),
                node_id: 1,
                index,
                term: 1,
                state_hash: [0; 32],
                size_bytes: 1,
                made_unix_ms: index,
                version: String::new(),
            }
        }
    }

    impl BackupDepot for Stubborn {
        fn store(&self, header: &Header, _: &Path, _: &[u8; 32]) -> Result<String, BackupError> {
            Ok(file_name(header))
        }

        fn open(&self, name: &str) -> Result<Backup, BackupError> {
            Err(BackupError::Exists { path: name.into() })
        }

        fn list(&self) -> Result<Vec<Kept>, BackupError> {
            let kept =
                |index| Kept { name: file_name(&Self::header(index)), size_bytes: 1, header: Ok(Self::header(index)) };
            Ok((1..=4).map(kept).collect())
        }

        fn remove(&self, name: &str) -> Result<(), BackupError> {
            if name == file_name(&Self::header(2)) {
                return Err(BackupError::Exists { path: name.into() });
            }
            self.0.lock().unwrap().push(name.to_owned());
            Ok(())
        }
    }

    #[tokio::test]
    async fn work_that_hangs_is_late_again_and_again_and_is_waited_for() {
        let ms = Duration::from_millis(1);
        let (end, ended) = tokio::sync::oneshot::channel();
        let (mut end, mut told) = (Some(end), 0);
        let late = || {
            told += 1;
            if told == 3 {
                end.take().unwrap().send(7).unwrap();
            }
        };
        assert_eq!(waited_for(ended, ms, ms, late).await, Ok(7));
        assert_eq!(told, 3);
        let mut told = 0;
        assert_eq!(waited_for(async { 5 }, Duration::from_hours(1), ms, || told += 1).await, 5);
        assert_eq!(told, 0, "it was in time");
    }

    #[test]
    fn the_first_of_several_failures_is_said_and_after_a_success_the_next() {
        let mut failures = Failures::default();
        failures.count(&Failed::Hangs { waited: Duration::from_mins(1) });
        assert!(failures.said);
        failures.count(&Failed::Stopped);
        assert!(failures.said);
        failures.end();
        assert!(!failures.said);
    }

    #[test]
    fn one_old_backup_that_stays_keeps_no_other() {
        let depot = Stubborn(Mutex::default());
        retire(&depot, &Stubborn::header(4), 1, None);
        assert_eq!(*depot.0.lock().unwrap(), [3, 1].map(|index| file_name(&Stubborn::header(index))));
    }

    /// safety 31: while two states contradict each other, the one that backups are made of may be the wrong one.
    #[test]
    fn no_old_backup_goes_for_one_of_a_state_in_doubt() {
        let (depot, alarms) = (Stubborn(Mutex::default()), Alarms::default());
        alarms.raise(agreement::UNDECIDED, "on purpose");
        retire(&depot, &Stubborn::header(4), 1, alarms.doubt());
        assert_eq!(*depot.0.lock().unwrap(), [""; 0]);
        alarms.clear(agreement::UNDECIDED);
        retire(&depot, &Stubborn::header(4), 1, alarms.doubt());
        assert_eq!(depot.0.lock().unwrap().len(), 2);
    }

    #[test]
    fn a_replica_makes_one_and_a_leader_only_if_no_replica_can() {
        let now = Instant::now();
        let turn = |status: &RaftStatus| is_its_turn(status, now);
        assert!(turn(&status(Role::Replica, 4_999, vec![])));
        assert!(turn(&status(Role::Learner, 4_000, vec![])));
        assert!(!turn(&status(Role::Replica, 3_999, vec![])), "it lags");
        assert!(!turn(&RaftStatus { leader: None, ..status(Role::Replica, 5_000, vec![]) }));
        assert!(!turn(&status(Role::Candidate, 5_000, vec![])));
        let own = member(1, 5_000, None);
        let leads = |others: Vec<MemberStatus>| status(Role::Leader, 5_000, [vec![own.clone()], others].concat());
        assert!(turn(&leads(vec![])), "it is alone");
        assert!(!turn(&leads(vec![member(2, 4_990, Some(now))])));
        assert!(turn(&leads(vec![member(2, 3_000, Some(now)), member(3, 5_000, None)])), "they lag, or are away");
        let silent = now.checked_sub(MAX_SILENCE + Duration::from_secs(1));
        assert!(silent.is_none() || turn(&leads(vec![member(2, 5_000, silent)])));
    }
}
