//! The data folder: can it be written, and how long does the disk take to keep a promise? Every write to the cluster
//! waits for such a promise on a quorum.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::findings::{Area, Findings};

/// Writes that are timed.
const WRITES: usize = 20;
/// Size of each, like a small batch of the log.
const BYTES: usize = 4096;
/// Above this the median is warned about: callers wait at least so long for every write.
const SLOW: Duration = Duration::from_millis(10);

/// Writes a small file there and times how long the disk takes; the file is removed again.
pub fn check(data_dir: &Path, findings: &mut Findings) {
    if findings.failed(Area::DataFolder) {
        return;
    }
    let Some(folder) = existing(data_dir) else { return };
    let where_to = if folder == data_dir {
        data_dir.display().to_string()
    } else {
        format!("{} (which will be made in {})", data_dir.display(), folder.display())
    };
    match time_writes(folder, WRITES) {
        Ok(times) => judge(&where_to, &times, findings),
        Err(error) => {
            let remedy = "give the folder to the user that runs the node: chown, chmod 700; and mount it writable";
            findings.fail(Area::DataFolder, format!("{where_to} cannot be written: {error}"), remedy);
        }
    }
}

/// The folder, or the nearest one above it that exists.
pub(super) fn existing(data_dir: &Path) -> Option<&Path> {
    data_dir
        .ancestors()
        .map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
        .find(|folder| folder.is_dir())
}

/// Writes a small file there so many times, each time down to the disk, and removes it again. The times of all writes,
/// shortest first.
pub(super) fn time_writes(folder: &Path, writes: usize) -> std::io::Result<Vec<Duration>> {
    // Several nodes may share a folder, and processes in containers have the same few ids.
    let file = folder.join(format!(".onespend-doctor-{}", uuid::Uuid::new_v4()));
    let open = OpenOptions::new().write(true).create_new(true).open(&file)?;
    let times = write(open, writes);
    std::fs::remove_file(&file)?;
    let mut times = times?;
    times.sort_unstable();
    Ok(times)
}

fn write(mut file: File, writes: usize) -> std::io::Result<Vec<Duration>> {
    let block = [0x5a; BYTES];
    let mut times = Vec::with_capacity(writes);
    for _ in 0..writes {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    Ok(times)
}

fn judge(where_to: &str, times: &[Duration], findings: &mut Findings) {
    let (Some(median), Some(worst)) = (times.get(times.len() / 2), times.last()) else { return };
    let millis = |time: &Duration| format!("{:.2} ms", time.as_secs_f64() * 1000.0);
    let what = format!("{where_to} is writable; fdatasync of 4 KiB takes {} (worst {})", millis(median), millis(worst));
    if *median > SLOW {
        let remedy = "use a local SSD or NVMe with power-loss protection: every write waits for this on a quorum";
        findings.warn(Area::DataFolder, what, remedy);
    } else {
        findings.ok(Area::DataFolder, what);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::findings::Report;
    use super::*;
    use crate::cli::exit::Exit;
    use crate::cli::output::Show as _;

    #[test]
    fn a_folder_is_tried_and_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut findings = Findings::default();
        check(&folder.path().join("a/b"), &mut findings);
        let text = Report::of(findings).text();
        assert!(text.contains("is writable; fdatasync") && text.contains("will be made in"), "{text}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_slow_disk_is_warned_about() {
        let mut findings = Findings::default();
        judge("x", &[Duration::from_millis(1), Duration::from_millis(11), Duration::from_millis(12)], &mut findings);
        assert_eq!(Report::of(findings).exit(), Exit::Refused);
    }
}
