//! Who should lead instead of this node: a voter that stands for election and whose own bitcoind is in sync, for the
//! leader takes spends only on what its own bitcoind says, whose disk has room, whose checks pass, and whose signers
//! have accepted the log.
//!
//! A leader that alone has a bitcoind out of sync, a disk that is about to be full, checks that fail (a slow disk,
//! defects), or a signer that has not accepted the log, hands over, once, and then not for a while. Where no other
//! voter is fit either it stays, and refuses new spends only: releases and reads need none.

mod planned;

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::alarms::Alarms;
use crate::bitcoind::BitcoindWatch;
use crate::checks::Checks;
use crate::health;
use crate::leader::sign::NOT_ACCEPTED;
use crate::metrics;
use crate::peers::{Fork, Report};
use crate::raft::{LeaderHint, RaftStatus, TransferError};
use crate::replica::Replica;
use crate::room::{DISK_LOW, Room};

#[cfg(test)]
pub use planned::stand_if_nobody_can;
pub use planned::{abstains, before_the_end, drain, preferred, report_of, while_it_ends};

/// How long one hand-over may take: it is over for this node when its disk has the vote that it gave, and the disk may be
/// why it hands over.
const WITHIN: Duration = Duration::from_secs(5);

/// Why a node gave up the lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandOverReason {
    /// Its bitcoind is out of sync.
    Bitcoind,
    /// One of its checks fails.
    Check,
    /// Its disk is about to be full.
    Disk,
    /// It was told to.
    Operator,
    /// One of its signers has not accepted the log.
    Signer,
    /// It stops.
    Stop,
}

impl HandOverReason {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Bitcoind, Self::Check, Self::Disk, Self::Operator, Self::Signer, Self::Stop];

    /// The word in metrics and in the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bitcoind => "bitcoind",
            Self::Check => "check",
            Self::Disk => "disk",
            Self::Operator => "operator",
            Self::Signer => "signer",
            Self::Stop => "stop",
        }
    }
}

/// Gives up the lead when this node is not fit for it and another one is.
pub struct HandOver {
    replica: Arc<Replica>,
    bitcoind: Arc<BitcoindWatch>,
    checks: Arc<Checks>,
    room: Arc<Room>,
    alarms: Arc<Alarms>,
    decision: Decision,
}

impl HandOver {
    /// Nothing was handed over yet.
    pub fn new(
        replica: &Arc<Replica>,
        bitcoind: &Arc<BitcoindWatch>,
        checks: &Arc<Checks>,
        room: &Arc<Room>,
        alarms: &Arc<Alarms>,
        config: health::Config,
    ) -> Self {
        Self {
            replica: Arc::clone(replica),
            bitcoind: Arc::clone(bitcoind),
            checks: Arc::clone(checks),
            room: Arc::clone(room),
            alarms: Arc::clone(alarms),
            decision: Decision::new(config),
        }
    }

    /// Why this node should not lead.
    fn fault(&self) -> Option<(HandOverReason, String)> {
        // First, for of all faults this one stands until an operator has acted.
        if self.alarms.stands(NOT_ACCEPTED) {
            return Some((HandOverReason::Signer, NOT_ACCEPTED.to_owned()));
        }
        // A log that catches up would have to begin anew.
        if let Err(why) = self.bitcoind.fit()
            && !self.bitcoind.is_catching_up()
        {
            return Some((HandOverReason::Bitcoind, why.to_owned()));
        }
        if self.room.is_low() {
            return Some((HandOverReason::Disk, DISK_LOW.to_owned()));
        }
        self.checks.unfit(Instant::now()).map(|names| (HandOverReason::Check, names))
    }

    /// To be called every few seconds, with what the others say of themselves now.
    pub async fn consider(&mut self, reports: &[Report]) {
        // The end hands over by itself; two at once would be in each other's way.
        if self.replica.stops() {
            return;
        }
        let leads = self.replica.leader_term().is_some();
        if leads && self.replica.raft().abstains() {
            return self.hand_on(reports).await;
        }
        let fault = self.fault().filter(|_| leads);
        let Some((reason, fault)) = self.decision.due(fault, Instant::now()) else { return };
        let status = self.replica.status();
        let contradicts = |fork: Fork| self.replica.read(|state| fork.contradicts(state)).is_some();
        let mut to = best(&status, reports);
        if to.is_empty() && self.bitcoind.is_outnumbered() {
            to = on_the_other_branch(&status, reports, contradicts);
        }
        if to.is_empty() {
            return;
        }
        let handed = hand_to(&self.replica, &to, Instant::now() + WITHIN).await;
        self.decision.note(&handed, Instant::now());
        match handed {
            Ok(leader) => {
                metrics::handed_over(reason);
                warn!(why = reason.word(), fault, leader = leader.node_id, "leadership handed over");
            }
            Err(error) => {
                warn!(why = reason.word(), fault, ?to, %error, "not fit to lead, and leadership was not taken over");
            }
        }
    }
}

impl HandOver {
    /// Gives up a lead that this node should not have: it won an election while it was drained, or its state differs from
    /// what most others have.
    async fn hand_on(&self, reports: &[Report]) {
        let status = self.replica.status();
        let to = willing(&status, reports);
        if to.is_empty() {
            return;
        }
        match hand_to(&self.replica, &to, Instant::now() + WITHIN).await {
            Ok(leader) => info!(leader = leader.node_id, "leadership handed on: this node should not lead"),
            Err(error) => warn!(?to, %error, "this node should not lead, and leadership was not taken over"),
        }
    }
}

/// Hands over to the first of these voters that takes the lead. All of them share the time: one that lags far behind is
/// waited for no longer than its part of it.
///
/// # Errors
/// What became of the last one that was tried; [`TransferError::NoSuchVoter`] for none at all.
pub async fn hand_to(replica: &Replica, to: &[u64], deadline: Instant) -> Result<LeaderHint, TransferError> {
    first_taken(to, deadline, |one, ready_by| replica.transfer(Some(one), ready_by, deadline)).await
}

/// Goes on to the next one for as long as the tries change nothing. After one that did, the lead is not this node's to
/// give any more. Each try is told until when its voter has to be ready.
async fn first_taken<T, Try>(
    to: &[u64],
    deadline: Instant,
    transfer: impl Fn(u64, Instant) -> Try,
) -> Result<T, TransferError>
where
    Try: Future<Output = Result<T, TransferError>>,
{
    let mut last = TransferError::NoSuchVoter;
    for (tries_left, one) in (1..=to.len()).rev().zip(to) {
        match transfer(*one, share(Instant::now(), deadline, tries_left)).await {
            Err(error) if error.changed_nothing() => last = error,
            ended => return ended,
        }
    }
    Err(last)
}

/// When the first of so many tries has had its part of the time that is left.
fn share(now: Instant, deadline: Instant, tries_left: usize) -> Instant {
    let left = deadline.saturating_duration_since(now);
    now + left / u32::try_from(tries_left.max(1)).unwrap_or(u32::MAX)
}

/// When the lead is given up.
#[derive(Debug)]
struct Decision {
    /// How long the fault lasts before that. Judgements of bitcoind, and checks, have a hysteresis of their own.
    after: Duration,
    /// Nodes that are fit by turns must not pass the lead to and fro.
    pause: Duration,
    /// When this node was first found unfit while it leads.
    out_since: Option<Instant>,
    /// When the lead was last given up, or the cluster was without a leader because it was to be.
    acted: Option<Instant>,
}

impl Decision {
    fn new(config: health::Config) -> Self {
        Self { after: config.hand_over_after, pause: config.hand_over_pause, out_since: None, acted: None }
    }

    /// The fault, once it has lasted and there was no hand-over lately.
    fn due<F>(&mut self, fault: Option<F>, now: Instant) -> Option<F> {
        let Some(fault) = fault else {
            self.out_since = None;
            return None;
        };
        let since = *self.out_since.get_or_insert(now);
        let paused = self.acted.is_some_and(|at| now.saturating_duration_since(at) < self.pause);
        (!paused && now.saturating_duration_since(since) >= self.after).then_some(fault)
    }

    /// The pause begins with a try that cost the cluster something, and with no other: the next one may help.
    fn note<T>(&mut self, handed: &Result<T, TransferError>, now: Instant) {
        if matches!(handed, Ok(_) | Err(TransferError::NotTaken { .. })) {
            self.acted = Some(now);
        }
    }
}

/// The voters with a bitcoind in sync and nothing else against them that would take the lead: first the one that has
/// caught up best, the lowest id of equals.
fn best(status: &RaftStatus, reports: &[Report]) -> Vec<u64> {
    let is_fit = |report: &Report| report.in_sync_height.is_some() && report.unfit.is_none();
    ranked(status, reports, |report| !report.abstains && is_fit(report))
}

/// The voters whose bitcoind is not on the branch that the log follows; for a leader that is alone with that.
fn on_the_other_branch(status: &RaftStatus, reports: &[Report], contradicts: impl Fn(Fork) -> bool) -> Vec<u64> {
    ranked(status, reports, |report| {
        !report.abstains && report.unfit.is_none() && report.fork.is_some_and(&contradicts)
    })
}

/// Where the lead goes anyhow: the best, and then those that would take it whatever their bitcoinds and checks do.
fn willing(status: &RaftStatus, reports: &[Report]) -> Vec<u64> {
    let mut all = best(status, reports);
    let others = ranked(status, reports, |report| !report.abstains && !all.contains(&report.node_id));
    all.extend(others);
    all
}

fn ranked(status: &RaftStatus, reports: &[Report], fits: impl Fn(&Report) -> bool) -> Vec<u64> {
    let fits = |id: u64| reports.iter().any(|report| report.node_id == id && fits(report));
    let others = status.members.iter().filter(|member| member.voter && member.node_id != status.node_id);
    let mut ranked: Vec<_> = others.filter(|member| fits(member.node_id)).collect();
    ranked.sort_by_key(|member| (Reverse(member.matched), member.node_id));
    ranked.into_iter().map(|member| member.node_id).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::{Cell, RefCell};

    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;
    use onespend_adapters::chain::fake::FakeChain;
    use onespend_core::command::BlockRef;
    use onespend_core::ids::Height;

    use super::*;
    use crate::raft::{Addresses, MemberStatus, Role};
    use crate::room;
    use crate::specimen;

    fn member(node_id: u64, voter: bool, matched: u64) -> MemberStatus {
        let addresses = Addresses { control: String::new(), data: String::new() };
        MemberStatus { node_id, addresses, voter, matched: Some(matched), last_contact: None }
    }

    fn status() -> RaftStatus {
        RaftStatus {
            node_id: 1,
            role: Role::Leader,
            term: 1,
            leader: Some(1),
            quorum_acked: None,
            own_term_applied: true,
            last_log: Some(9),
            committed: Some(9),
            applied: Some(9),
            snapshot: None,
            purged: None,
            joint: false,
            members: vec![member(1, true, 9), member(2, true, 7), member(3, true, 8), member(4, false, 9)],
        }
    }

    fn report(node_id: u64, in_sync_height: Option<u32>) -> Report {
        Report { node_id, in_sync_height, ..Report::default() }
    }

    #[test]
    fn the_furthest_voter_whose_bitcoind_is_in_sync_is_the_next_leader() {
        let all = [report(2, Some(5)), report(3, Some(5)), report(4, Some(5))];
        assert_eq!(best(&status(), &all), [3, 2]);
        assert_eq!(best(&status(), &[report(2, Some(5)), report(3, None), report(4, Some(5))]), [2]);
        let equal =
            RaftStatus { members: vec![member(1, true, 9), member(3, true, 8), member(2, true, 8)], ..status() };
        assert_eq!(best(&equal, &all), [2, 3]);
    }

    #[test]
    fn a_voter_that_stands_for_no_election_is_not_handed_to() {
        let drained = |node_id| Report { abstains: true, ..report(node_id, Some(5)) };
        assert_eq!(best(&status(), &[report(2, Some(5)), drained(3)]), [2]);
        let reports = [report(2, None), drained(3)];
        assert_eq!((best(&status(), &reports), willing(&status(), &reports)), (vec![], vec![2]));
        assert_eq!(willing(&status(), &[drained(2), drained(3), report(4, None)]), [0; 0]);
        assert_eq!(willing(&status(), &[report(2, Some(5)), report(3, None)]), [2, 3], "the fit one first");
    }

    #[test]
    fn where_no_other_voters_bitcoind_is_in_sync_there_is_nobody_to_hand_over_to() {
        assert_eq!(best(&status(), &[report(2, None), report(4, Some(5))]), [0; 0]);
        assert_eq!(best(&status(), &[report(1, Some(5))]), [0; 0]);
    }

    #[test]
    fn a_leader_alone_on_its_branch_hands_over_to_one_on_the_other() {
        let block = |height| BlockRef { height: Height(height), hash: BlockHash::from_byte_array([1; 32]) };
        let forked = |node_id, height| {
            let fork = Some(Fork::FromLog { block: block(height), tip: height + 2 });
            Report { fork, ..report(node_id, None) }
        };
        let next = |reports: &[Report]| {
            on_the_other_branch(&status(), reports, |fork| matches!(fork, Fork::FromLog { tip, .. } if tip > 6))
        };
        let reports = [forked(2, 5), forked(3, 5), report(4, Some(5))];
        assert_eq!((best(&status(), &reports), next(&reports)), (vec![], vec![3, 2]));
        assert_eq!(next(&[forked(2, 5), forked(3, 4)]), [2], "the branch of the other is too short to be followed");
        assert_eq!(next(&[report(2, None), report(3, Some(5))]), [0; 0]);
    }

    #[test]
    fn a_voter_whose_checks_fail_is_not_handed_the_lead() {
        let unfit = |node_id| Report { unfit: Some("fsync-latency".to_owned()), ..report(node_id, Some(5)) };
        assert_eq!(best(&status(), &[report(2, Some(5)), unfit(3)]), [2]);
        assert_eq!(best(&status(), &[unfit(2), unfit(3)]), [0; 0]);
    }

    /// What becomes of hand-overs to two voters whose tries end so, and whom of them was tried.
    async fn handed(ends: [Result<u64, TransferError>; 2]) -> (Result<u64, TransferError>, usize) {
        let tried = Cell::new(0);
        let transfer = |to: u64, _: Instant| {
            tried.set(tried.get() + 1);
            std::future::ready(ends[usize::try_from(to).unwrap()].clone())
        };
        let handed = first_taken(&[0, 1], Instant::now() + AFTER, transfer).await;
        (handed, tried.get())
    }

    #[tokio::test]
    async fn a_voter_that_is_silent_or_lags_leaves_the_lead_to_the_next_and_one_that_does_not_take_it_ends_the_try() {
        let not_taken = || TransferError::NotTaken { node_id: 0 };
        for harmless in [TransferError::Silent, TransferError::NotCaughtUp { node_id: 0 }, TransferError::NoSuchVoter] {
            assert_eq!(handed([Err(harmless.clone()), Ok(1)]).await, (Ok(1), 2), "{harmless}");
            let last = Err(TransferError::Silent);
            assert_eq!(handed([Err(harmless), last.clone()]).await, (last, 2));
        }
        for over in [not_taken(), TransferError::NotLeader, TransferError::Stopped] {
            assert_eq!(handed([Err(over.clone()), Ok(1)]).await, (Err(over), 1));
        }
        assert_eq!(handed([Ok(0), Ok(1)]).await, (Ok(0), 1));
    }

    #[tokio::test]
    async fn a_voter_that_lags_far_behind_leaves_time_for_the_next() {
        let (start, asked) = (Instant::now(), RefCell::new(Vec::new()));
        let deadline = start + 3 * PAUSE;
        let transfer = |node_id: u64, ready_by: Instant| {
            asked.borrow_mut().push(ready_by);
            std::future::ready(Err::<(), _>(TransferError::NotCaughtUp { node_id }))
        };
        let last = first_taken(&[2, 3, 4], deadline, transfer).await;
        assert_eq!(last, Err(TransferError::NotCaughtUp { node_id: 4 }));
        let asked = asked.into_inner();
        assert!(asked[0] >= start + PAUSE && asked[0] < start + 3 * PAUSE / 2, "a third of the time");
        assert!(asked[1] >= start + 3 * PAUSE / 2 && asked[1] < deadline, "half of the rest");
        assert_eq!(asked[2], deadline);
    }

    #[test]
    fn only_a_try_that_cost_the_cluster_something_begins_the_pause() {
        let (mut decision, start) = decision();
        assert_eq!(decision.due(Some(()), start), None);
        for harmless in [TransferError::Silent, TransferError::NotCaughtUp { node_id: 2 }, TransferError::NotLeader] {
            decision.note::<()>(&Err(harmless), start + AFTER);
            assert_eq!(decision.due(Some(()), start + AFTER), Some(()), "the next round tries again");
        }
        for costly in [Ok(()), Err(TransferError::NotTaken { node_id: 2 })] {
            decision.acted = None;
            decision.note(&costly, start + AFTER);
            assert_eq!(decision.due(Some(()), start + AFTER + PAUSE / 2), None);
            assert_eq!(decision.due(Some(()), start + AFTER + PAUSE), Some(()));
        }
    }

    /// safety 8: it asks its signers for nothing, and only an operator can end that.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_leader_whose_signer_has_not_accepted_the_log_hands_over() {
        let folder = tempfile::TempDir::new().unwrap();
        let api = specimen::api(specimen::leader(&folder).await, FakeChain::new());
        let config = specimen::health_config();
        let checks = Checks::new(&[], &config);
        let room = Room::new(folder.path(), room::Config { reserve_bytes: 0, low_bytes: 0 }, Arc::default());
        let hand_over = HandOver::new(&api.replica, &api.bitcoind, &checks, &room, &api.alarms, config);
        let reason = || hand_over.fault().map(|(reason, _)| reason);
        assert_eq!(reason(), Some(HandOverReason::Bitcoind), "nobody watches its bitcoind here");
        api.alarms.raise(NOT_ACCEPTED, "on purpose");
        assert_eq!(reason(), Some(HandOverReason::Signer));
        api.alarms.clear(NOT_ACCEPTED);
        assert_eq!(reason(), Some(HandOverReason::Bitcoind));
    }

    const AFTER: Duration = Duration::from_secs(2);
    const PAUSE: Duration = Duration::from_mins(1);

    fn decision() -> (Decision, Instant) {
        (Decision { after: AFTER, pause: PAUSE, out_since: None, acted: None }, Instant::now())
    }

    #[test]
    fn the_lead_is_given_up_after_a_while_and_then_not_for_a_while() {
        let (mut decision, start) = decision();
        assert_eq!(decision.due(Some("TIMEOUT"), start), None);
        assert_eq!(decision.due(Some("TIMEOUT"), start + AFTER), Some("TIMEOUT"));
        decision.acted = Some(start + AFTER);
        assert_eq!(decision.due(Some("TIMEOUT"), start + AFTER + PAUSE / 2), None);
        assert_eq!(decision.due(Some("TIMEOUT"), start + AFTER + PAUSE), Some("TIMEOUT"));
    }

    #[test]
    fn a_bitcoind_that_recovers_begins_anew() {
        let (mut decision, start) = decision();
        assert_eq!(decision.due(Some(()), start), None);
        assert_eq!(decision.due(None::<()>, start + AFTER / 2), None);
        assert_eq!(decision.due(Some(()), start + AFTER), None);
    }
}
