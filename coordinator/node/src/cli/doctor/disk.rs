//! Free space under the data folder. A full disk stops the node, since it must not acknowledge what it cannot keep.

use std::path::Path;
use std::process::Command;

use super::data_folder;
use super::findings::{Area, Findings};

/// Below this the node is about to stop.
const LEAST_MIB: u64 = 256;
/// Below this somebody should look: snapshots and the log need room for a copy of each.
const LOW_MIB: u64 = 4 * 1024;

/// Asks `df`, which every system has; the standard library cannot tell.
pub fn check(data_dir: &Path, findings: &mut Findings) {
    let Some(folder) = data_folder::existing(data_dir) else { return };
    let output = Command::new("df").arg("-Pk").arg(folder).output();
    let free = output
        .ok()
        .filter(|output| output.status.success())
        .and_then(|output| available_kib(&String::from_utf8_lossy(&output.stdout)));
    match free {
        Some(kib) => judge(folder, kib / 1024, findings),
        None => findings.warn(Area::Disk, "free space is not known: df gave no answer", "look yourself: df -h"),
    }
}

/// The number before the percentage, in the format of POSIX.
fn available_kib(text: &str) -> Option<u64> {
    let fields: Vec<&str> = text.lines().last()?.split_whitespace().collect();
    let percentage = fields.iter().rposition(|field| field.ends_with('%'))?;
    fields.get(percentage.checked_sub(1)?)?.parse().ok()
}

fn judge(folder: &Path, mib: u64, findings: &mut Findings) {
    let what = format!("{} has {mib} MiB free", folder.display());
    let remedy = "make room, or move the data folder while the node is stopped: a full disk stops the node";
    match mib {
        ..LEAST_MIB => findings.fail(Area::Disk, what, remedy),
        LEAST_MIB..LOW_MIB => findings.warn(Area::Disk, what, remedy),
        _ => findings.ok(Area::Disk, what),
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings::Report;
    use super::*;

    #[test]
    fn the_free_space_is_read_from_posix_output() {
        let head = "Filesystem 1024-blocks Used Available Capacity Mounted on\n";
        assert_eq!(available_kib(&format!("{head}/dev/sda1 100 40 60 40% /var/lib/one spend\n")), Some(60));
        assert_eq!(available_kib(head), None);
        assert_eq!(available_kib(""), None);
    }

    #[test]
    fn little_space_is_a_warning_and_none_a_failure() {
        let exit = |mib| {
            let mut findings = Findings::default();
            judge(Path::new("/"), mib, &mut findings);
            Report::of(findings).exit().code()
        };
        assert_eq!([exit(10_000), exit(1_000), exit(100)], [0, 1, 2]);
    }
}
