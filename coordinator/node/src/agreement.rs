//! Compares this node with the others, all the time.
//!
//! Replicas that applied the same entries must have the same state (safety 31): the node that most others contradict
//! stops serving, and where as many differ as agree, all of these take no spends and sign nothing. A bitcoind that is
//! cut off from the network is at its own tip, so how far the others' are is what tells. A leader whose bitcoind is
//! worse than another's hands over, and one whose members all can do more raises the feature level.

use std::fmt::Display;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use onespend_adapters::store::StoreError;
use onespend_adapters::store::sqlite::DifferingMark;
use onespend_core::command::BlockRef;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::alarms::Alarms;
use crate::bitcoind::BitcoindWatch;
use crate::feature_level;
use crate::handover::HandOver;
use crate::health::Beat;
use crate::peers::{self, Fork, Peers, Report};
use crate::raft::{Abstention, HashAt, RaftNode, RaftStatus};
use crate::replica::Replica;
use crate::room::Room;
use crate::runtime::{self, WorkLost};

/// How often the others are asked.
const INTERVAL: Duration = Duration::from_secs(2);
/// How long finishing a change of the voters may take at once, raising the feature level, and marking the data folder.
const FINISH: Duration = Duration::from_secs(2);
/// Longest turn before `/livez` calls the loop dead: it asks and hands over with time limits of a few seconds.
pub const LONGEST_TURN: Duration = Duration::from_secs(30);
/// The alarm's code.
pub const MISMATCH: &str = "STATE_HASH_MISMATCH";
/// The alarm where as many nodes contradict this one as agree with it, so that nobody can say which of them is right.
pub const UNDECIDED: &str = "STATE_HASH_UNDECIDED";

/// Keeps a node whose state differs away from callers and signers. It goes on to store the log, which is sound.
pub struct Quarantine {
    alarms: Arc<Alarms>,
    /// Outlives the process: the state cannot heal by itself.
    mark: Mark,
    /// Outlives the process as well, and goes with the tie: it holds the index of the first one that was found.
    undecided: Mark,
    /// The index of the tie that was found last, as long as nothing has decided it.
    tie: Option<u64>,
}

impl Quarantine {
    /// Before the node does anything: what was found earlier, and is marked in the data folder, holds.
    pub fn resume(alarms: &Arc<Alarms>, data_dir: &Path, raft: &RaftNode) -> Self {
        let mark = Mark::of(DifferingMark::of(data_dir), "do not start this node again with it");
        let forgets = "a restart would forget that states differ for a while";
        let undecided = Mark::of(DifferingMark::undecided(data_dir), forgets);
        if let Some(why) = &mark.wanted {
            alarms.raise(MISMATCH, why);
            raft.abstain(Abstention::Differs);
        }
        // The first tie after a start is told at once: what happened to the disk meanwhile is found so the sooner.
        let mut quarantine = Self { alarms: Arc::clone(alarms), mark, undecided, tie: Some(0) };
        quarantine.resume_tie(raft.view().position().index.0);
        quarantine.tell(raft);
        quarantine
    }

    /// A tie that was found before the start stands until it is decided, by what is compared from this index on.
    fn resume_tie(&mut self, applied: u64) {
        let Some(found) = self.undecided.wanted.clone().filter(|_| !self.alarms.stands(MISMATCH)) else { return };
        let found = found.trim();
        let message =
            format!("before this start as many nodes contradicted this node's state as agreed with it: {found}");
        self.alarms.raise(UNDECIDED, &message);
        self.tie = Some(found.parse().map_or(applied, |index: u64| index.max(applied)));
    }

    /// A node that gets its state from here holds the same, right or wrong, and would decide a tie by that.
    fn tell(&self, raft: &RaftNode) {
        raft.withhold_snapshots(self.alarms.doubt().is_some());
    }

    /// Acts on what this node's hashes and those of the other voters say.
    async fn judge(&mut self, replica: &Replica, reports: &[Report]) {
        let status = replica.status();
        let (ours, theirs) = (replica.hashes(), of_voters(&status, reports));
        let alone = status.voters().all(|id| id == status.node_id);
        if let Some(index) = outvoted(&ours, &theirs) {
            self.begin(replica.raft(), index);
        }
        let theirs = not_outvoted(&ours, &theirs, status.voters().count());
        self.hear_of_tie(tied(&ours, &theirs), |since| alone || decided(&ours, &theirs, since));
        self.tell(replica.raft());
        // After what keeps callers, signers and other nodes away, for a disk may stall. A state that is outvoted is no
        // more undecided: of its two marks one is there all the time.
        if self.mark.keep().await {
            self.undecided.keep().await;
        }
    }

    /// Tells of a tie once it has lasted: where some node was at another index, the next round may decide it. Then it
    /// stands until it is `decided`, and not only until nobody contradicts, who may just be silent.
    ///
    /// Both sides of it stay where they are: one of them is right, and nobody knows which. So to hand the lead over
    /// from one to the other would help nobody.
    fn hear_of_tie(&mut self, tie: Option<u64>, decided: impl Fn(u64) -> bool) {
        let before = self.tie.filter(|_| !self.alarms.stands(MISMATCH));
        match (before, tie) {
            (Some(_), Some(index)) => {
                let message =
                    format!("as many nodes contradict this node's state at log index {index} as agree with it");
                self.alarms.raise(UNDECIDED, &message);
                self.undecided.wanted.get_or_insert_with(|| index.to_string());
                self.tie = Some(index);
            }
            (Some(since), None) if self.alarms.stands(UNDECIDED) && !decided(since) => {}
            (_, tie) => {
                self.tie = tie;
                self.alarms.clear(UNDECIDED);
                self.undecided.wanted = None;
            }
        }
    }

    fn begin(&mut self, raft: &RaftNode, index: u64) {
        let message = format!("this node's state at log index {index} differs from what most others have");
        self.alarms.raise(MISMATCH, &message);
        raft.abstain(Abstention::Differs);
        self.mark.wanted.get_or_insert(message);
    }
}

/// A write of a mark that has begun; it goes on when nobody waits for it.
type Writing = Pin<Box<dyn Future<Output = Result<Result<(), StoreError>, WorkLost>> + Send>>;

/// A mark of the data folder, as it should be and as it is. The disk is asked at the start alone, and written to on a
/// thread for that: one that stalls holds up neither other tasks nor, for long, the comparison, which hands over.
struct Mark {
    file: DifferingMark,
    /// What it should say; none where it should not be there.
    wanted: Option<String>,
    /// Whether it is there.
    stands: bool,
    /// What is being written, and whether the mark is there after that. One at a time, or one could overtake another.
    writing: Option<(bool, Writing)>,
    /// What it means that it cannot be set.
    otherwise: &'static str,
}

impl Mark {
    /// As it is now.
    fn of(file: DifferingMark, otherwise: &'static str) -> Self {
        let wanted = file.why();
        let stands = wanted.is_some();
        Self { file, wanted, stands, writing: None, otherwise }
    }

    /// Makes it what it should be, and says whether it is that now. A write that fails is tried again the next time, and
    /// one that takes long is waited for then.
    async fn keep(&mut self) -> bool {
        while let Some((set, mut writing)) = self.writing.take().or_else(|| self.outstanding()) {
            let ended = runtime::timeout(FINISH, &mut writing).await;
            match ended {
                Ok(Ok(Ok(()))) => self.stands = set,
                Ok(Ok(Err(error))) => return self.failed(set, &error),
                Ok(Err(error)) => return self.failed(set, &error),
                Err(_) => {
                    warn!("the disk has not taken a mark of the data folder yet");
                    self.writing = Some((set, writing));
                    return false;
                }
            }
        }
        true
    }

    /// What has to be written, and whether the mark is there after it.
    fn outstanding(&self) -> Option<(bool, Writing)> {
        let set = self.wanted.is_some();
        if set == self.stands {
            return None;
        }
        let (file, wanted) = (self.file.clone(), self.wanted.clone());
        let write = move || wanted.map_or_else(|| file.clear(), |why| file.set(&why));
        let writing: Writing = Box::pin(runtime::blocking(write));
        Some((set, writing))
    }

    fn failed(&self, set: bool, error: &dyn Display) -> bool {
        if set {
            error!(%error, "the data folder cannot be marked: {}", self.otherwise);
        } else {
            error!(%error, "the mark that states differ cannot be taken away: the alarm would be back after a restart");
        }
        false
    }
}

/// What is compared, and what acts on it.
pub struct Compared {
    /// Raft and the state.
    pub replica: Arc<Replica>,
    /// The other nodes.
    pub peers: Arc<Peers>,
    /// This node's bitcoind.
    pub bitcoind: Arc<BitcoindWatch>,
    /// The room on this node's disk, and what is known of the others'.
    pub room: Arc<Room>,
    /// Where another state than most have leads.
    pub quarantine: Quarantine,
    /// Where a worse bitcoind than others have leads.
    pub hand_over: HandOver,
}

/// Compares until the token is cancelled. From a mismatch on, the node does not answer, signs nothing, performs no duty
/// and stands for no election, unless nobody else can win one.
pub async fn run(compared: Compared, beat: Beat, stop: CancellationToken) {
    let Compared { replica, peers, bitcoind, room, mut quarantine, mut hand_over } = compared;
    let mut leaderless = 0;
    loop {
        beat.beat();
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let reports = peers.reports(&replica.status().others(), peers::TIMEOUT).await;
        if let Some(highest) = reports.iter().filter_map(|report| report.in_sync_height).max() {
            bitcoind.hear_of_height(highest, Instant::now());
        }
        let contradicted = replica.read(|state| contradicted(&reports, |fork| fork.contradicts(state)));
        bitcoind.hear_of_fork(contradicted, Instant::now());
        room.hear(&replica.status(), &reports);
        quarantine.judge(&replica, &reports).await;
        hand_over.consider(&reports).await;
        leaderless = if may_be_needed(&replica) { leaderless + 1 } else { 0 };
        if leaderless > 1 {
            warn!("nobody leads: this node stands for election although it abstains, for its log may be the furthest");
            replica.raft().stand_once().await;
        }
        look_after(&replica, &reports).await;
    }
    beat.finish();
}

/// What a leader sees to when there is nothing more urgent. Both wait for a quorum, so neither may take long: the next
/// round is what finds a state that differs, and hands over.
async fn look_after(replica: &Replica, reports: &[Report]) {
    finish_change(replica).await;
    if runtime::timeout(FINISH, feature_level::consider(replica, reports)).await.is_err() {
        warn!("whether the feature level is raised is not known yet");
    }
}

/// Whether nobody leads, and this node might be the only one that can, although it abstains. One that stops looks by
/// itself, and sooner, see [`crate::handover::while_it_ends`].
fn may_be_needed(replica: &Replica) -> bool {
    let raft = replica.raft();
    // openraft goes on naming a leader that is gone until somebody else stands, which nobody does if all abstain.
    let silent = raft.leader_heard_at().is_none_or(|at| at.elapsed() > INTERVAL);
    raft.abstains() && !replica.stops() && !raft.leads() && silent
}

/// A leader that died in the middle of a change of the voters left it half done.
pub(crate) async fn finish_change(replica: &Replica) {
    if replica.leader_term().is_none() || !replica.status().joint {
        return;
    }
    match replica.raft().finish_change(runtime::now() + FINISH).await {
        Ok(()) => info!("a change of the voters that was half done is finished"),
        Err(error) => warn!(%error, "a change of the voters is half done, and could not be finished yet"),
    }
}

/// A block of the log, if more of the other nodes' bitcoinds contradict the log as it is now than there are that follow it,
/// with this node's own among these. `contradicts` tells which block of the log it is that one contradicts.
fn contradicted(reports: &[Report], contradicts: impl Fn(Fork) -> Option<BlockRef>) -> Option<BlockRef> {
    let blocks: Vec<BlockRef> = reports.iter().filter_map(|report| report.fork.and_then(&contradicts)).collect();
    let follows = |report: &&Report| report.in_sync_height.is_some() || report.fork == Some(Fork::WithLog);
    let following = reports.iter().filter(follows).count();
    // The lowest: it is there for as long as any of them is.
    blocks.iter().min_by_key(|block| block.height).copied().filter(|_| blocks.len() > following + 1)
}

/// The hashes of the other voters. A learner has what its leader gave it, right or wrong, so it has no say.
fn of_voters(status: &RaftStatus, reports: &[Report]) -> Vec<Vec<HashAt>> {
    let votes = |report: &&Report| status.voters().any(|id| id == report.node_id);
    reports.iter().filter(votes).map(|report| report.hashes.clone()).collect()
}

/// The newest index at which another node has a hash that contradicts ours.
pub(crate) fn differing(ours: &[HashAt], theirs: &[HashAt]) -> Option<u64> {
    let contradicts = |own: &&HashAt| theirs.iter().any(|hash| hash.index == own.index && hash.hash != own.hash);
    ours.iter().find(contradicts).map(|own| own.index.0)
}

/// The newest index at which more nodes contradict our hash than hold it, this node included.
fn outvoted(ours: &[HashAt], theirs: &[Vec<HashAt>]) -> Option<u64> {
    let against = |own: &&HashAt| {
        let (agree, differ) = votes(own, theirs);
        differ > agree
    };
    ours.iter().find(against).map(|own| own.index.0)
}

/// Those whose word counts in a tie: all but who contradicts us where most of *all* voters hold our hash.
///
/// Beside such a node a third one that is merely slow would leave one against one at each newer index. That it differs
/// says nothing: it is outvoted there, for ever, and its state differs from ours ever after, whether ours stays right or
/// not. If ours goes wrong later, those that agreed there are who can tell, and none of them is left out by that: a tie
/// with one of them is a tie. Votes that were not heard are not held, so where nodes are down nobody is left out.
fn not_outvoted(ours: &[HashAt], theirs: &[Vec<HashAt>], voters: usize) -> Vec<Vec<HashAt>> {
    let held: Vec<HashAt> = ours.iter().filter(|own| 2 * votes(own, theirs).0 > voters).copied().collect();
    theirs.iter().filter(|peer| differing(&held, peer).is_none()).cloned().collect()
}

/// The newest index at which our hash is contradicted at all, if there are as many for it as against it.
fn tied(ours: &[HashAt], theirs: &[Vec<HashAt>]) -> Option<u64> {
    let mut counted = ours.iter().map(|own| (own.index.0, votes(own, theirs)));
    let (index, (agree, differ)) = counted.find(|(_, (_, differ))| *differ > 0)?;
    (differ == agree).then_some(index)
}

/// Whether another node holds a hash of ours that is at least as new as that index, and more do than contradict it.
fn decided(ours: &[HashAt], theirs: &[Vec<HashAt>], since: u64) -> bool {
    let since_then = ours.iter().filter(|own| own.index.0 >= since);
    since_then.map(|own| votes(own, theirs)).any(|(agree, differ)| agree > 1 && agree > differ)
}

/// How many nodes hold this hash of ours, this node included, and how many have another one at its index.
fn votes(own: &HashAt, theirs: &[Vec<HashAt>]) -> (usize, usize) {
    let (mut agree, mut differ) = (1, 0);
    for hash in theirs.iter().filter_map(|peer| peer.iter().find(|hash| hash.index == own.index)) {
        if hash.hash == own.hash { agree += 1 } else { differ += 1 }
    }
    (agree, differ)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::BlockHash;
    use bitcoin::hashes::Hash;
    use onespend_core::ids::{Height, LogIndex};
    use tokio::sync::oneshot;

    use super::*;
    use crate::raft::{Addresses, MemberStatus, Role};
    use crate::simulation::executor::Executor;
    use crate::specimen;

    fn at(index: u64, byte: u8) -> HashAt {
        HashAt { index: LogIndex(index), hash: [byte; 32] }
    }

    #[test]
    fn most_bitcoinds_contradict_the_log_only_if_they_outnumber_those_that_follow_it() {
        let block = |height| BlockRef { height: Height(height), hash: BlockHash::from_byte_array([1; 32]) };
        let forked =
            |height| Report { fork: Some(Fork::FromLog { block: block(height), tip: 9 }), ..Report::default() };
        let following = || Report { in_sync_height: Some(7), ..Report::default() };
        let outnumbered = || Report { fork: Some(Fork::WithLog), ..Report::default() };
        let judged = |reports: &[Report]| {
            contradicted(reports, |fork| match fork {
                Fork::FromLog { block, .. } => Some(block).filter(|block| block.height.0 < 9),
                Fork::WithLog => None,
            })
        };
        assert_eq!(judged(&[forked(8), forked(7)]), Some(block(7)));
        assert_eq!(judged(&[forked(8)]), None, "one against one");
        assert_eq!(judged(&[forked(8), forked(7), following()]), None);
        assert_eq!(judged(&[forked(8), forked(7), outnumbered(), outnumbered()]), None, "they follow the log as well");
        assert_eq!(judged(&[forked(8), forked(8), forked(7), following()]), Some(block(7)));
        assert_eq!(judged(&[forked(9), forked(9)]), None, "of a branch that the log has left");
        assert_eq!(judged(&[Report::default(), Report::default()]), None, "they cannot say");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_drained_node_stands_where_nobody_leads_and_one_that_stops_does_not() {
        let folder = tempfile::TempDir::new().unwrap();
        let replica = specimen::waiting(&folder).await;
        assert!(!may_be_needed(&replica), "it stands anyhow");
        replica.set_drained(true);
        assert!(may_be_needed(&replica));
        replica.drain();
        assert!(replica.raft().abstains() && !may_be_needed(&replica));
        replica.set_drained(false);
        assert!(replica.raft().abstains() && !may_be_needed(&replica));

        let folder = tempfile::TempDir::new().unwrap();
        let leader = specimen::leader(&folder).await;
        leader.drain();
        assert!(leader.raft().leads() && !may_be_needed(&leader), "alone, it leads to its end");
    }

    /// safety 31.
    #[test]
    fn the_node_that_all_others_contradict_is_outvoted() {
        assert_eq!(outvoted(&[at(128, 1)], &[vec![at(128, 2)], vec![at(128, 2)]]), Some(128));
    }

    /// safety 31: one that is added while one of three is down would decide between the two others, and always for the
    /// leader that gave it its state.
    #[test]
    fn a_learner_does_not_say_which_of_two_states_is_right() {
        let report = |node_id, hash| Report { node_id, hashes: vec![at(300, hash)], ..Report::default() };
        let member = |node_id| MemberStatus {
            node_id,
            addresses: Addresses::default(),
            voter: node_id < 4,
            matched: None,
            last_contact: None,
        };
        let status = RaftStatus {
            node_id: 1,
            role: Role::Replica,
            term: 2,
            leader: Some(2),
            quorum_acked: None,
            own_term_applied: true,
            last_log: Some(300),
            committed: Some(300),
            applied: Some(300),
            snapshot: None,
            purged: None,
            joint: false,
            members: (1..=5).map(member).collect(),
        };
        let (ours, reports) = ([at(300, 1)], [report(2, 2), report(4, 2), report(5, 2)]);
        let all: Vec<_> = reports.iter().map(|report| report.hashes.clone()).collect();
        assert_eq!(outvoted(&ours, &all), Some(300));
        let theirs = of_voters(&status, &reports);
        assert_eq!((outvoted(&ours, &theirs), tied(&ours, &theirs)), (None, Some(300)));
    }

    #[test]
    fn a_node_with_one_ally_is_not_outvoted_by_one_other() {
        assert_eq!(outvoted(&[at(128, 1)], &[vec![at(128, 1)], vec![at(128, 2)]]), None);
    }

    #[test]
    fn hashes_of_other_indexes_say_nothing() {
        assert_eq!(outvoted(&[at(128, 1)], &[vec![at(256, 2)], vec![]]), None);
    }

    /// safety 31: where no majority says which of two states is wrong, both are told.
    #[test]
    fn one_against_one_is_a_tie_and_the_newest_index_that_somebody_contradicts_decides() {
        let ours = [at(300, 1), at(256, 1), at(128, 1)];
        assert_eq!(tied(&ours, &[vec![at(300, 2)]]), Some(300));
        assert_eq!(tied(&ours, &[vec![at(301, 2), at(256, 2)]]), Some(256), "under load they meet at the multiples");
        assert_eq!(tied(&ours, &[vec![at(300, 1), at(256, 1)]]), None);
        assert_eq!(tied(&ours, &[vec![at(300, 2)], vec![at(300, 1)]]), None, "most agree");
        assert_eq!(tied(&ours, &[vec![at(300, 2)], vec![at(300, 2)]]), None, "most differ: outvoted");
        assert_eq!(tied(&ours, &[vec![at(300, 2), at(128, 2)], vec![at(300, 1)]]), None, "decided since");
        assert_eq!(tied(&ours, &[vec![at(300, 2)], vec![at(300, 2)], vec![at(300, 1)]]), Some(300), "two against two");
        assert_eq!(tied(&ours, &[]), None);
    }

    /// safety 31: B lost a row before 256 and is outvoted. C agreed with us there, and stores each entry a little later.
    #[test]
    fn a_slow_node_beside_one_that_is_outvoted_makes_no_tie() {
        let ours = [at(300, 1), at(256, 1), at(128, 1)];
        let (outvoted_b, slow_c) = (vec![at(300, 2), at(256, 2), at(128, 1)], vec![at(299, 7), at(256, 1), at(128, 1)]);
        let both = [outvoted_b.clone(), slow_c.clone()];
        assert_eq!(tied(&ours, &both), Some(300), "if both counted");
        assert_eq!(not_outvoted(&ours, &both, 3), std::slice::from_ref(&slow_c));
        assert_eq!(tied(&ours, &not_outvoted(&ours, &both, 3)), None);

        // Where C is down nobody knows which of the two is right.
        let alone = [outvoted_b.clone()];
        assert_eq!(not_outvoted(&ours, &alone, 3), alone);
        assert_eq!(tied(&ours, &not_outvoted(&ours, &alone, 3)), Some(300));
        // Two of five agree, and the two that are down may be on the other side.
        assert_eq!(not_outvoted(&ours, &both, 5), both);
        let three = [outvoted_b, slow_c.clone(), slow_c.clone()];
        assert_eq!(not_outvoted(&ours, &three, 5), [slow_c.clone(), slow_c]);
    }

    /// safety 31: who agreed with us against B is right still, and our state has gone wrong since.
    #[test]
    fn a_state_that_goes_wrong_beside_one_that_was_outvoted_is_found() {
        let ours = [at(300, 1), at(256, 1)];
        let (outvoted_b, right_c) = (vec![at(300, 2), at(256, 2)], vec![at(300, 3), at(256, 1)]);
        let both = [outvoted_b, right_c.clone()];
        assert_eq!(outvoted(&ours, &both), Some(300), "all say so, and B is heard for that");
        let counted = not_outvoted(&ours, &both, 3);
        assert_eq!(counted, [right_c]);
        assert_eq!(tied(&ours, &counted), Some(300));
        assert!(!decided(&ours, &counted, 300));

        // Wrong before any index at which most held our hash: nobody is left out.
        let (b, c) = (vec![at(300, 2), at(256, 2)], vec![at(299, 2), at(256, 2)]);
        assert_eq!(not_outvoted(&ours, &[b.clone(), c.clone()], 3), [b, c]);
    }

    /// safety 31: that nobody contradicts a state for a moment does not make it right.
    #[test]
    fn a_tie_is_decided_by_who_agrees_and_not_by_who_is_silent() {
        let ours = [at(300, 1), at(256, 1), at(128, 1)];
        let decided = |theirs: &[Vec<HashAt>]| decided(&ours, theirs, 256);
        assert!(decided(&[vec![at(300, 1)]]));
        assert!(decided(&[vec![at(300, 1)], vec![at(300, 2)]]), "most agree");
        assert!(decided(&[vec![at(301, 1), at(256, 1)]]), "under load they meet at the multiples");
        assert!(!decided(&[]), "nobody answers");
        assert!(!decided(&[vec![at(301, 2)]]), "nothing to compare");
        assert!(!decided(&[vec![at(301, 2), at(128, 1)]]), "they agreed before");
        assert!(!decided(&[vec![at(300, 2)], vec![at(300, 2)], vec![at(300, 1)]]), "two against two");
    }

    /// safety 31: a voter that was away would come back with this state, and outvote whoever has the other one.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_state_in_doubt_is_withheld_from_other_nodes_until_that_is_over() {
        let (folder, alarms) = (tempfile::tempdir().unwrap(), Arc::new(Alarms::default()));
        let replica = specimen::waiting(&folder).await;
        let quarantine = Quarantine::resume(&alarms, folder.path(), replica.raft());
        assert!(!replica.raft().withholds_snapshots());
        for doubt in [UNDECIDED, MISMATCH] {
            alarms.raise(doubt, "on purpose");
            quarantine.tell(replica.raft());
            assert!(replica.raft().withholds_snapshots(), "{doubt}");
            alarms.clear(doubt);
            quarantine.tell(replica.raft());
            assert!(!replica.raft().withholds_snapshots(), "{doubt}");
        }
        DifferingMark::of(folder.path()).set("at index 7").unwrap();
        Quarantine::resume(&alarms, folder.path(), replica.raft());
        assert!(replica.raft().withholds_snapshots(), "found before the last start");
    }

    /// safety 31: else a wrong node led, granted and signed until it had compared again.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_tie_outlives_a_restart_and_ends_when_it_is_decided() {
        let folder = tempfile::tempdir().unwrap();
        let replica = specimen::waiting(&folder).await;
        let start = || {
            let alarms = Arc::new(Alarms::default());
            (Quarantine::resume(&alarms, folder.path(), replica.raft()), alarms)
        };
        let (mut quarantine, alarms) = start();
        quarantine.hear_of_tie(Some(300), |_| false);
        assert!(alarms.stands(UNDECIDED), "the first one after a start is told at once");
        assert!(quarantine.undecided.keep().await);

        let (mut quarantine, alarms) = start();
        assert!(alarms.current()[0].message.contains("300"), "{:?}", alarms.current());
        assert!(replica.raft().withholds_snapshots());
        quarantine.hear_of_tie(None, |_| false);
        assert!(alarms.stands(UNDECIDED), "nobody has decided it");
        assert!(quarantine.undecided.keep().await);
        assert!(start().1.stands(UNDECIDED));
        quarantine.hear_of_tie(None, |since| since == 300);
        assert!(!alarms.stands(UNDECIDED));
        assert!(quarantine.undecided.keep().await);

        let (mut quarantine, alarms) = start();
        assert!(alarms.current().is_empty() && !replica.raft().withholds_snapshots());
        quarantine.hear_of_tie(None, |_| false);
        quarantine.hear_of_tie(Some(305), |_| false);
        assert!(!alarms.stands(UNDECIDED), "one round, and not the first");
    }

    /// safety 31: else the node would not hand over, and the mark of a tie could be taken away after it was set anew.
    #[test]
    fn a_disk_that_stalls_holds_up_the_comparison_for_a_moment_and_gets_one_mark_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut mark = Mark::of(DifferingMark::undecided(folder.path()), "on purpose");
        let (go_on, stalled) = oneshot::channel::<()>();
        let written = |()| Ok::<(), StoreError>(());
        let writing: Writing = Box::pin(async move { stalled.await.map(written).map_err(|_| WorkLost) });
        mark.wanted = Some("300".to_owned());
        mark.writing = Some((true, writing));
        Executor::new(1).run(async move {
            let began = runtime::now();
            assert!(!mark.keep().await);
            assert!(runtime::now().duration_since(began) < 2 * FINISH);
            mark.wanted = None;
            assert!(!mark.keep().await && mark.writing.is_some(), "it waits for its turn");
            go_on.send(()).unwrap();
            while !mark.keep().await {}
            assert!(!mark.stands && mark.writing.is_none());

            mark.wanted = Some("305".to_owned());
            while !mark.keep().await {}
            assert!(mark.stands && mark.file.why().as_deref() == Some("305"));
        });
    }

    #[tokio::test]
    async fn a_mark_that_cannot_be_written_is_tried_again() {
        let at = tempfile::tempdir().unwrap();
        let folder = at.path().join("data");
        let mut mark = Mark::of(DifferingMark::of(&folder), "on purpose");
        mark.wanted = Some("at index 7".to_owned());
        assert!(!mark.keep().await && !mark.stands, "there is no folder");
        std::fs::create_dir(&folder).unwrap();
        assert!(mark.keep().await);
        assert_eq!(DifferingMark::of(&folder).why().as_deref(), Some("at index 7"));
    }

    /// safety 31: while it lasts the node takes no spends. A node that is outvoted needs no second alarm.
    #[test]
    fn a_tie_is_told_once_it_has_lasted_and_until_it_is_decided() {
        let (folder, alarms) = (tempfile::tempdir().unwrap(), Arc::new(Alarms::default()));
        let mark = Mark::of(DifferingMark::of(folder.path()), "on purpose");
        let undecided = Mark::of(DifferingMark::undecided(folder.path()), "on purpose");
        let mut quarantine = Quarantine { alarms: Arc::clone(&alarms), mark, undecided, tie: None };
        quarantine.hear_of_tie(Some(300), |_| false);
        assert!(!alarms.stands(UNDECIDED), "one round");
        quarantine.hear_of_tie(None, |_| false);
        quarantine.hear_of_tie(Some(301), |_| false);
        assert!(!alarms.stands(UNDECIDED), "another one");
        quarantine.hear_of_tie(Some(301), |_| false);
        assert!(alarms.current()[0].message.contains("301"), "{:?}", alarms.current());
        assert_eq!(alarms.stopping(), Some(UNDECIDED));
        quarantine.hear_of_tie(None, |_| false);
        assert!(alarms.stands(UNDECIDED), "whoever contradicts is silent");
        quarantine.hear_of_tie(Some(305), |_| false);
        quarantine.hear_of_tie(None, |since| since == 305);
        assert!(!alarms.stands(UNDECIDED), "decided");

        quarantine.hear_of_tie(Some(306), |_| false);
        quarantine.hear_of_tie(Some(306), |_| false);
        alarms.raise(MISMATCH, "outvoted");
        for _ in 0..3 {
            quarantine.hear_of_tie(Some(306), |_| false);
            assert!(!alarms.stands(UNDECIDED));
        }
        assert_eq!(alarms.stopping(), Some(MISMATCH));
    }
}
