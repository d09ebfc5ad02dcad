//! Free space under the data folder, by the marks of `[storage]`: where the node would raise `DISK_LOW`, this is a failure.

use std::path::Path;

use onespend_adapters::store::{SpaceReserve, free_bytes};

use super::data_folder;
use super::findings::{Area, Findings};
use crate::room::{Config, DISK_LOW};

/// Below this somebody should look, whatever the configuration says: snapshots and the log need room for a copy of each.
const LITTLE_BYTES: u64 = 4 << 30;
const MIB: u64 = 1 << 20;

/// Looks as the node does.
pub fn check(data_dir: &Path, config: Config, findings: &mut Findings) {
    let Some(folder) = data_folder::existing(data_dir) else { return };
    let is_held = SpaceReserve::of(data_dir, config.reserve_bytes).is_held();
    match free_bytes(folder) {
        Ok(free) => judge(folder, free, is_held, config, findings),
        Err(error) => {
            findings.warn(Area::Disk, format!("free space is not known: {error}"), "look yourself: df -h");
        }
    }
}

fn judge(folder: &Path, free: u64, is_held: bool, config: Config, findings: &mut Findings) {
    let mark = config.least_free(is_held);
    let reserve = if is_held { "" } else { ", with storage.reserve_bytes, which is not held back yet" };
    let (folder, free_mib, mark_mib) = (folder.display(), free / MIB, mark.div_ceil(MIB));
    let what = format!(
        "{folder} has {free_mib} MiB free; {DISK_LOW} stands below {mark_mib} MiB (storage.low_bytes{reserve})"
    );
    let remedy = "make room, or move the data folder while the node is stopped: a full disk stops the node";
    if free < mark {
        findings.fail(Area::Disk, what, remedy);
    } else if free < config.clear_free(is_held).max(LITTLE_BYTES) {
        findings.warn(Area::Disk, what, remedy);
    } else {
        findings.ok(Area::Disk, what);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::super::findings::Report;
    use super::*;
    use crate::alarms::Alarms;
    use crate::room::Room;

    const GIB: u64 = 1 << 30;
    const CONFIG: Config = Config { reserve_bytes: 2 * GIB, low_bytes: 8 * GIB };

    fn exit(look: impl FnOnce(&mut Findings)) -> u8 {
        let mut findings = Findings::default();
        look(&mut findings);
        Report::of(findings).exit().code()
    }

    #[test]
    fn the_marks_are_those_of_the_configuration() {
        let judged = |free, is_held, config| exit(|findings| judge(Path::new("/"), free, is_held, config, findings));
        let held = |free| judged(free, true, CONFIG);
        assert_eq!([held(8 * GIB - 1), held(8 * GIB), held(10 * GIB - 1), held(10 * GIB)], [2, 1, 1, 0]);
        let not_held = |free| judged(free, false, CONFIG);
        assert_eq!([not_held(10 * GIB - 1), not_held(10 * GIB), not_held(12 * GIB)], [2, 1, 0]);
        // Marks that are low do not make little space much.
        let small = Config { reserve_bytes: 0, low_bytes: MIB };
        assert_eq!([MIB - 1, MIB, 4 * GIB - 1, 4 * GIB].map(|free| judged(free, true, small)), [2, 1, 1, 0]);
    }

    /// On this machine's disk, whatever is free there: marks that are out of reach, one for itself and both together.
    #[test]
    fn where_the_node_would_raise_its_alarm_the_doctor_fails() {
        for (reserve_bytes, low_bytes) in [(0, 1 << 60), (1 << 60, 0), (MIB, 1 << 60), (MIB, 0), (0, 0)] {
            let (folder, config) = (tempfile::tempdir().unwrap(), Config { reserve_bytes, low_bytes });
            let look = || exit(|findings| check(folder.path(), config, findings));
            let before = look();
            let is_low = Room::new(folder.path(), config, Arc::new(Alarms::default())).is_low();
            assert_eq!(is_low, low_bytes.max(reserve_bytes) == 1 << 60, "{config:?}");
            for code in [before, look()] {
                assert_eq!(code == 2, is_low, "{config:?}");
            }
        }
    }
}
