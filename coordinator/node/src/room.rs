//! Room on the disk of the data folder. A log that cannot be written ends the node, and with a full disk on a majority of
//! the nodes the cluster could not even be told what to give back. So a node that is about to run out takes no new spends,
//! and space that was held back all the time carries what makes room and what is owed: releases, renewals, blocks,
//! signatures of what is committed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use onespend_adapters::store::{SpaceReserve, free_bytes};
use tracing::{info, warn};

use crate::alarms::Alarms;
use crate::checks::judgement::Hysteresis;
use crate::config::Section;
use crate::metrics;
use crate::peers::Report;
use crate::raft::{RaftStatus, Role};

/// The alarm's code.
pub const DISK_LOW: &str = "DISK_LOW";

/// From one look to the next.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The reserve is given up when less than this part of it is free besides.
const GIVE_UP_PART: u64 = 4;
/// Above the mark by this part of it, the alarm is over.
const CLEAR_PART: u64 = 4;
/// Looks in a row at what the other nodes say before it counts: one that is late is not full.
const OTHERS_RISE: u32 = 2;
const OTHERS_FALL: u32 = 2;

/// `[storage]`: how much room a node needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Held back for when the disk is full, in bytes; 0 for none.
    pub reserve_bytes: u64,
    /// With less free besides, the node takes no new spends.
    pub low_bytes: u64,
}

impl Config {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            reserve_bytes: section.integer("reserve_bytes", 0..=1 << 40, Some(64 << 20)),
            low_bytes: section.integer("low_bytes", 0..=1 << 40, Some(256 << 20)),
        }
    }

    fn has_to_give_up(self, free: u64) -> bool {
        free < self.reserve_bytes / GIVE_UP_PART
    }

    /// With fewer bytes free than this the alarm stands. A reserve that is not held has to find room as well.
    pub fn least_free(self, held: bool) -> u64 {
        if held { self.low_bytes } else { self.low_bytes.saturating_add(self.reserve_bytes) }
    }

    /// With as many an alarm that stood is over: well above the mark.
    pub fn clear_free(self, held: bool) -> u64 {
        self.least_free(held).saturating_add(self.low_bytes / CLEAR_PART)
    }

    fn can_hold(self, free: u64) -> bool {
        free >= self.least_free(false)
    }

    /// Hysteresis: what falls below the mark must get well above it, and the reserve be held again.
    fn is_low(self, was_low: bool, free: u64, held: bool) -> bool {
        let mark = if was_low { self.clear_free(true) } else { self.least_free(true) };
        free < mark || !held
    }
}

/// Before the log is opened, which writes: if the disk is full, there is room afterwards.
///
/// # Errors
/// The reserve cannot be removed: a disk that may not be written.
pub fn make_way(data_dir: &Path, config: Config) -> anyhow::Result<()> {
    let reserve = SpaceReserve::of(data_dir, config.reserve_bytes);
    if config.reserve_bytes == 0 || free_bytes(data_dir).is_ok_and(|free| config.has_to_give_up(free)) {
        reserve.give_up()?;
    }
    Ok(())
}

/// What is known of the room on this node's disk, and on the others'.
pub struct Room {
    folder: PathBuf,
    config: Config,
    reserve: SpaceReserve,
    alarms: Arc<Alarms>,
    standing: Mutex<Standing>,
}

struct Standing {
    /// Why this node is low.
    own: Option<String>,
    /// Why the others are, for a leader.
    others: Option<String>,
    hearsay: Hysteresis,
    /// The reserve could not be taken; said once.
    refused: bool,
}

impl Room {
    /// Looks once.
    pub fn new(data_dir: &Path, config: Config, alarms: Arc<Alarms>) -> Arc<Self> {
        let hearsay = Hysteresis::new(OTHERS_RISE, OTHERS_FALL);
        let room = Self {
            folder: data_dir.to_owned(),
            config,
            reserve: SpaceReserve::of(data_dir, config.reserve_bytes),
            alarms,
            standing: Mutex::new(Standing { own: None, others: None, hearsay, refused: false }),
        };
        room.look();
        Arc::new(room)
    }

    /// Looks again and again, on a thread of its own: a disk that hangs holds up nothing else. It ends with the room.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn watch(self: &Arc<Self>) -> std::io::Result<()> {
        let watched = Arc::downgrade(self);
        let look = move || {
            while let Some(room) = watched.upgrade() {
                room.look();
                drop(room);
                thread::sleep(LOOK_EVERY);
            }
        };
        thread::Builder::new().name("room".to_owned()).spawn(look).map(|_| ())
    }

    /// Whether this node's own disk is about to be full.
    pub fn is_low(&self) -> bool {
        self.standing().own.is_some()
    }

    /// What the other nodes say, to be told every few seconds. A leader whose quorum is about to run out of room takes no
    /// spends either: they would be what fills it.
    pub fn hear(&self, status: &RaftStatus, reports: &[Report]) {
        let mut standing = self.standing();
        let short = too_few_with_room(status, standing.own.is_some(), reports);
        let fine = standing.hearsay.note(short.is_none());
        if fine || short.is_some() {
            standing.others = short.filter(|_| !fine);
        }
        self.show(&standing);
    }

    fn standing(&self) -> std::sync::MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self) {
        // Before the lock: this is what may hang.
        let Ok(free) = free_bytes(&self.folder) else { return };
        let held = self.keep_reserve(free);
        let Ok(free) = free_bytes(&self.folder) else { return };
        let mut standing = self.standing();
        let low = self.config.is_low(standing.own.is_some(), free, held);
        standing.own = low.then(|| {
            let (folder, least) = (self.folder.display(), self.config.low_bytes);
            let reserve = if held { "" } else { ", and nothing is held back any more (storage.reserve_bytes)" };
            format!("{free} bytes are free for {folder}; storage.low_bytes is {least}{reserve}")
        });
        metrics::disk(free, if held { self.config.reserve_bytes } else { 0 });
        self.show(&standing);
    }

    /// Gives the reserve up, or takes it again; whether it is held then.
    fn keep_reserve(&self, free: u64) -> bool {
        let held = self.reserve.is_held();
        if self.reserve.takes_space() && self.config.has_to_give_up(free) {
            match self.reserve.give_up() {
                Ok(()) => warn!(free, bytes = self.config.reserve_bytes, "the disk is full: the reserve is given up"),
                Err(error) => warn!(%error, "the disk is full, and the reserve cannot be given up"),
            }
            return self.reserve.is_held();
        }
        if held || !self.config.can_hold(free) {
            return held;
        }
        let taken = self.reserve.hold();
        let was_refused = std::mem::replace(&mut self.standing().refused, taken.is_err());
        match taken {
            Ok(()) => info!(bytes = self.config.reserve_bytes, "space on the disk is held back"),
            Err(error) if !was_refused => warn!(%error, "space on the disk cannot be held back"),
            Err(_) => {}
        }
        self.reserve.is_held()
    }

    fn show(&self, standing: &Standing) {
        match standing.own.as_ref().or(standing.others.as_ref()) {
            Some(why) => self.alarms.raise(DISK_LOW, why),
            None => self.alarms.clear(DISK_LOW),
        }
    }
}

/// Why a leader's quorum is about to have no room. Voters that say nothing cannot be counted on; without one that says
/// that it is low, that is another matter.
fn too_few_with_room(status: &RaftStatus, own_is_low: bool, reports: &[Report]) -> Option<String> {
    if status.role != Role::Leader {
        return None;
    }
    let said = |id: u64| reports.iter().find(|report| report.node_id == id).map(|report| report.disk_low);
    let is_low = |id: u64| if id == status.node_id { Some(own_is_low) } else { said(id) };
    let voters: Vec<Option<bool>> = status.voters().map(is_low).collect();
    let with_room = voters.iter().filter(|low| **low == Some(false)).count();
    let needed = voters.len() / 2 + 1;
    let any_is_low = voters.contains(&Some(true));
    (any_is_low && with_room < needed).then(|| {
        format!("{with_room} of {} voters have room on their disks, and every write needs {needed}", voters.len())
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::raft::{Addresses, MemberStatus};

    const CONFIG: Config = Config { reserve_bytes: 400, low_bytes: 1_000 };

    #[test]
    fn a_disk_is_low_below_the_mark_and_until_it_is_well_above_it_with_the_reserve_held() {
        assert!(!CONFIG.is_low(false, 1_000, true));
        assert!(CONFIG.is_low(false, 999, true));
        assert!(CONFIG.is_low(true, 1_249, true));
        assert!(!CONFIG.is_low(true, 1_250, true));
        assert!(CONFIG.is_low(false, 5_000, false) && CONFIG.is_low(true, 5_000, false));
    }

    #[test]
    fn the_reserve_goes_when_there_is_next_to_nothing_and_comes_when_there_is_enough_for_both() {
        assert!(CONFIG.has_to_give_up(99) && !CONFIG.has_to_give_up(100));
        assert!(CONFIG.can_hold(1_400) && !CONFIG.can_hold(1_399));
        let none = Config { reserve_bytes: 0, ..CONFIG };
        assert!(!none.has_to_give_up(0));
    }

    #[test]
    fn a_node_with_too_little_room_says_so_and_holds_back_what_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let alarms = Arc::new(Alarms::default());
        let enough = Config { reserve_bytes: 1 << 20, low_bytes: 1 };
        let room = Room::new(folder.path(), enough, Arc::clone(&alarms));
        assert!(!room.is_low() && folder.path().join("RESERVE").exists());
        make_way(folder.path(), enough).unwrap();
        assert!(folder.path().join("RESERVE").exists(), "there is room");

        let low = Config { reserve_bytes: 1 << 20, low_bytes: 1 << 60 };
        let room = Room::new(folder.path(), low, Arc::clone(&alarms));
        assert!(room.is_low() && alarms.stands(DISK_LOW));
        assert!(alarms.current()[0].message.contains("storage.low_bytes"), "{:?}", alarms.current());
        assert!(folder.path().join("RESERVE").exists(), "low is not full");
        make_way(folder.path(), Config { reserve_bytes: 1 << 62, ..low }).unwrap();
        assert!(!folder.path().join("RESERVE").exists());
    }

    fn leader() -> RaftStatus {
        let addresses = Addresses { control: String::new(), data: String::new() };
        let member = |node_id| MemberStatus {
            node_id,
            addresses: addresses.clone(),
            voter: node_id < 4,
            matched: None,
            last_contact: None,
        };
        RaftStatus {
            node_id: 1,
            role: Role::Leader,
            term: 1,
            leader: Some(1),
            quorum_acked: None,
            own_term_applied: true,
            last_log: None,
            committed: None,
            applied: None,
            snapshot: None,
            purged: None,
            joint: false,
            members: (1..=4).map(member).collect(),
        }
    }

    fn report(node_id: u64, disk_low: bool) -> Report {
        Report { node_id, disk_low, ..Report::default() }
    }

    #[test]
    fn a_leader_needs_a_quorum_with_room() {
        let short = |own, reports: &[Report]| too_few_with_room(&leader(), own, reports).is_some();
        assert!(!short(false, &[report(2, false), report(3, true)]), "two of three have room");
        assert!(short(false, &[report(2, true), report(3, true)]));
        assert!(short(true, &[report(2, false), report(3, true)]));
        assert!(short(false, &[report(3, true)]), "the second voter is away");
        assert!(!short(false, &[report(3, false)]), "nobody is low");
        assert!(!short(false, &[report(2, false), report(3, false), report(4, true)]), "a learner does not count");
        let follower = RaftStatus { role: Role::Replica, ..leader() };
        assert_eq!(too_few_with_room(&follower, false, &[report(2, true), report(3, true)]), None);
    }

    #[test]
    fn what_the_others_say_counts_when_they_say_it_twice() {
        let folder = tempfile::tempdir().unwrap();
        let alarms = Arc::new(Alarms::default());
        let room = Room::new(folder.path(), Config { reserve_bytes: 0, low_bytes: 0 }, Arc::clone(&alarms));
        let (low, fine) = ([report(2, true), report(3, true)], [report(2, false), report(3, true)]);
        room.hear(&leader(), &fine);
        room.hear(&leader(), &low);
        assert!(!alarms.stands(DISK_LOW));
        room.hear(&leader(), &low);
        assert!(alarms.stands(DISK_LOW) && !room.is_low());
        room.hear(&leader(), &fine);
        assert!(alarms.stands(DISK_LOW));
        room.look();
        assert!(alarms.stands(DISK_LOW), "its own disk was never the reason");
        room.hear(&leader(), &fine);
        assert!(!alarms.stands(DISK_LOW));
    }
}
