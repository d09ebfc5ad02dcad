//! Which faults strike when: a plan that follows from the seed alone. Whom a fault hits that is meant for the leader is
//! known only when it strikes.
//!
//! Three tracks run beside each other, so that faults of different kinds meet: one for nodes, their network and their
//! disks, one for the bitcoinds, one for clocks. Each deals its kinds like cards, so that none comes up the third time
//! before every one came up twice.

use std::time::Duration;

use crate::seed::Seeded;

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One node is cut off from the others and from its callers.
    Partition,
    /// One node is not heard, but hears; or the other way round.
    OneWayCut,
    /// The leader is cut off from the others, and its callers still reach it.
    LeaderWithMinority,
    /// Two nodes do not hear each other, and both hear the third.
    Bridge,
    /// Everything between nodes takes longer.
    Delay,
    /// Little goes through between one node and the others.
    Throttle,
    /// Callers do not reach a node.
    CallersCut,
    /// SIGKILL, and a restart.
    Kill,
    /// SIGKILL of all nodes at once, and a restart.
    PowerCut,
    /// SIGSTOP, and SIGCONT.
    Pause,
    /// SIGTERM, and a restart.
    Restart,
    /// A disk takes long to synchronise.
    SlowDisk,
    /// A disk fails to synchronise: the node must stop.
    FailingDisk,
    /// A disk has no room left: the node must stop.
    FullDisk,
    /// SIGKILL, and the disk is lost: the node is removed, comes back under a new id, learns, and gets its vote.
    WipedDisk,
    /// A leader is held up between the intent and the signer, and cut off meanwhile, so that another one signs.
    LateSignature,
    /// The wall clock of a node is wrong by days or years.
    ClockJump,
    /// SIGSTOP of a bitcoind, and SIGCONT.
    BitcoindPause,
    /// A node does not reach its bitcoind.
    BitcoindCut,
    /// SIGKILL of a bitcoind, and a restart.
    BitcoindRestart,
    /// A bitcoind has no peers, and falls behind.
    BitcoindLag,
    /// A bitcoind has no peers, and is on a branch of its own, which is longer for a while.
    BitcoindFork,
    /// Blocks below finality depth are replaced by others.
    Reorg,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::Partition,
        Self::OneWayCut,
        Self::LeaderWithMinority,
        Self::Bridge,
        Self::Delay,
        Self::Throttle,
        Self::CallersCut,
        Self::Kill,
        Self::PowerCut,
        Self::Pause,
        Self::Restart,
        Self::SlowDisk,
        Self::FailingDisk,
        Self::FullDisk,
        Self::WipedDisk,
        Self::LateSignature,
        Self::ClockJump,
        Self::BitcoindPause,
        Self::BitcoindCut,
        Self::BitcoindRestart,
        Self::BitcoindLag,
        Self::BitcoindFork,
        Self::Reorg,
    ];

    /// Its name in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::OneWayCut => "one_way_cut",
            Self::LeaderWithMinority => "leader_with_minority",
            Self::Bridge => "bridge",
            Self::Delay => "delay",
            Self::Throttle => "throttle",
            Self::CallersCut => "callers_cut",
            Self::Kill => "kill",
            Self::PowerCut => "power_cut",
            Self::Pause => "pause",
            Self::Restart => "restart",
            Self::SlowDisk => "slow_disk",
            Self::FailingDisk => "failing_disk",
            Self::FullDisk => "full_disk",
            Self::WipedDisk => "wiped_disk",
            Self::LateSignature => "late_signature",
            Self::ClockJump => "clock_jump",
            Self::BitcoindPause => "bitcoind_pause",
            Self::BitcoindCut => "bitcoind_cut",
            Self::BitcoindRestart => "bitcoind_restart",
            Self::BitcoindLag => "bitcoind_lag",
            Self::BitcoindFork => "bitcoind_fork",
            Self::Reorg => "reorg",
        }
    }

    /// Whether it must not strike while the other one is not over. Those of bitcoinds go one after the other also where one
    /// struck late, on a busy machine: one that is paused could not be told that it is on the network again. Those of
    /// nodes wait for one that may not be over when its time is: what strikes a process that still ends, or a signer that
    /// is still held up, would take its effect away, or be taken for its end. And such a one waits for the others of nodes:
    /// what is killed or frozen cannot end by itself, and whoever brings it up again would not know that it has to.
    pub fn waits_for(self, other: Self) -> bool {
        match self.track() {
            Track::Bitcoinds => other.track() == Track::Bitcoinds,
            Track::Nodes => {
                // A new node is taken in under faults.
                let is_nodes = other.track() == Track::Nodes && other != Self::WipedDisk;
                other.may_outlast() || (self.may_outlast() && is_nodes)
            }
            Track::Clocks => false,
        }
    }

    /// Whether it may not be over when its time is: a process has to end, or a signature to come.
    pub fn may_outlast(self) -> bool {
        matches!(self, Self::Restart | Self::FailingDisk | Self::FullDisk | Self::LateSignature)
    }

    fn track(self) -> Track {
        match self {
            Self::BitcoindPause
            | Self::BitcoindCut
            | Self::BitcoindRestart
            | Self::BitcoindLag
            | Self::BitcoindFork
            | Self::Reorg => Track::Bitcoinds,
            Self::ClockJump => Track::Clocks,
            _ => Track::Nodes,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Track {
    Nodes,
    Bitcoinds,
    Clocks,
}

impl Track {
    /// How long a fault lasts and how long the next one waits after it, in milliseconds.
    fn pace(self) -> [(u64, u64); 2] {
        match self {
            Self::Nodes => [(600, 3_000), (400, 2_200)],
            Self::Bitcoinds => [(500, 4_000), (1_000, 3_500)],
            Self::Clocks => [(2_000, 8_000), (4_000, 10_000)],
        }
    }
}

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Whoever leads when it strikes.
    Leader,
    /// The node, or the bitcoind beside the node, at this index.
    At(usize),
}

/// A fault that is to strike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What.
    pub kind: Kind,
    /// Whom.
    pub target: Target,
    /// When, after the beginning.
    pub at: Duration,
    /// For how long.
    pub lasts: Duration,
    /// Chooses how exactly.
    pub detail: u64,
}

/// Nothing strikes before callers are under way.
const HEAD_START_MS: u64 = 1_000;
/// More than half of the faults are meant for the leader.
const LEADER_PER_CENT: u64 = 55;
/// From here on every kind comes up, however the cards fall: a deal of the kinds for nodes takes 50 s, and of 20 000 seeds
/// the slowest takes 65.
pub const ALL_KINDS_FROM: Duration = Duration::from_secs(75);

/// The faults of a run, in the order in which they strike. The last of them ends before the run does.
pub fn plan(seed: u64, duration: Duration, nodes: usize) -> Vec<Planned> {
    let mut all = Vec::new();
    for (track, salt) in [(Track::Nodes, 0xA), (Track::Bitcoinds, 0xB), (Track::Clocks, 0xC)] {
        all.extend(plan_track(Seeded::new(seed ^ (salt << 40)), track, duration, nodes));
    }
    all.sort_by_key(|fault: &Planned| fault.at);
    all
}

fn plan_track(mut seeded: Seeded, track: Track, duration: Duration, nodes: usize) -> Vec<Planned> {
    let [lasts_ms, gap_ms] = track.pace();
    let mut planned = Vec::new();
    let mut hand = Vec::new();
    let mut at = Duration::from_millis(HEAD_START_MS + seeded.between(0, gap_ms.1));
    loop {
        let lasts = Duration::from_millis(seeded.between(lasts_ms.0, lasts_ms.1));
        if at + lasts >= duration {
            return planned;
        }
        let kind = draw(&mut seeded, &mut hand, track);
        let count = u64::try_from(nodes).unwrap_or(1);
        let target = if seeded.between(0, 100) < LEADER_PER_CENT {
            Target::Leader
        } else {
            Target::At(usize::try_from(seeded.between(0, count)).unwrap_or(0))
        };
        planned.push(Planned { kind, target, at, lasts, detail: seeded.next_u64() });
        at += lasts + Duration::from_millis(seeded.between(gap_ms.0, gap_ms.1));
    }
}

/// The next card; a new deck is shuffled when the last one is out.
fn draw(seeded: &mut Seeded, hand: &mut Vec<Kind>, track: Track) -> Kind {
    if hand.is_empty() {
        hand.extend(Kind::ALL.into_iter().filter(|kind| kind.track() == track));
    }
    let count = u64::try_from(hand.len()).unwrap_or(1);
    hand.swap_remove(usize::try_from(seeded.between(0, count)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_same_seed_plans_the_same_faults() {
        let minute = Duration::from_mins(1);
        assert_eq!(plan(7, minute, 3), plan(7, minute, 3));
        assert_ne!(plan(7, minute, 3), plan(8, minute, 3));
    }

    #[test]
    fn every_kind_comes_up_in_a_long_run_and_ends_before_it() {
        for seed in 0..500 {
            let faults = plan(seed, ALL_KINDS_FROM, 3);
            let kinds: BTreeSet<Kind> = faults.iter().map(|fault| fault.kind).collect();
            assert_eq!(kinds.len(), Kind::ALL.len(), "seed {seed} lacks some: {kinds:?}");
            assert!(faults.iter().all(|fault| fault.at + fault.lasts < ALL_KINDS_FROM));
            assert!(faults.windows(2).all(|pair| pair[0].at <= pair[1].at));
        }
    }

    #[test]
    fn a_track_has_one_fault_at_a_time() {
        let faults = plan(7, Duration::from_mins(5), 3);
        for track in [Track::Nodes, Track::Bitcoinds, Track::Clocks] {
            let own: Vec<&Planned> = faults.iter().filter(|fault| fault.kind.track() == track).collect();
            assert!(own.len() > 10, "{track:?} has {}", own.len());
            assert!(own.windows(2).all(|pair| pair[0].at + pair[0].lasts <= pair[1].at));
        }
    }

    #[test]
    fn what_is_not_over_is_waited_for_by_its_own_track_alone() {
        let waits = |one: Kind, other: Kind| one.waits_for(other);
        for late in [Kind::Restart, Kind::FailingDisk, Kind::FullDisk, Kind::LateSignature] {
            let waiting: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.waits_for(late)).collect();
            assert!(waiting.iter().all(|kind| kind.track() == Track::Nodes) && waiting.len() == 16, "{waiting:?}");
        }
        assert!(waits(Kind::Reorg, Kind::BitcoindPause) && waits(Kind::BitcoindLag, Kind::BitcoindPause));
        assert!(waits(Kind::Reorg, Kind::BitcoindFork) && waits(Kind::BitcoindFork, Kind::Reorg));
        assert!(!waits(Kind::Kill, Kind::BitcoindPause) && !waits(Kind::Kill, Kind::Partition));
        assert!(waits(Kind::FailingDisk, Kind::PowerCut) && waits(Kind::LateSignature, Kind::Pause));
        assert!(!waits(Kind::FailingDisk, Kind::WipedDisk) && !waits(Kind::FailingDisk, Kind::ClockJump));
        assert!(!waits(Kind::Kill, Kind::WipedDisk), "a new node is taken in under faults");
        assert!(!waits(Kind::ClockJump, Kind::Restart) && !waits(Kind::Reorg, Kind::Restart));
    }

    #[test]
    fn the_safety_page_names_every_kind() {
        let page = include_str!("../../../docs/src/safety.md");
        let missing = Kind::ALL.into_iter().map(Kind::name).filter(|name| !page.contains(&format!("`{name}`")));
        assert_eq!(missing.collect::<Vec<_>>(), Vec::<&str>::new());
    }

    #[test]
    fn names_are_different() {
        let names: BTreeSet<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
