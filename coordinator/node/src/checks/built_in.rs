//! Looks at what this process and its machine know of themselves. What reads files or asks the kernel may hang with the
//! disk; `mod.rs` runs it on a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onespend_adapters::store::free_bytes;

use super::Look;
use super::fsync::FsyncWatch;
use crate::bitcoind::BitcoindWatch;
use crate::grpc;
use crate::replica::Replica;

/// Of the machine's memory, what a process may take unless told otherwise.
const MEMORY_TENTHS: u64 = 9;

/// Where the built-in checks look.
pub struct Figures {
    /// Raft: what is committed and applied.
    pub replica: Arc<Replica>,
    /// This node's bitcoind.
    pub bitcoind: Arc<BitcoindWatch>,
    /// How long the log's commits take.
    pub fsync: Arc<FsyncWatch>,
    /// The data folder, on whose file system there must be room.
    pub data_dir: PathBuf,
}

impl Figures {
    pub(super) fn bitcoind(&self) -> Look {
        match self.bitcoind.fit() {
            Ok(()) => Look::good("in sync"),
            // The log of any other leader would have to begin anew.
            Err(_) if self.bitcoind.is_catching_up() => Look::good("in sync, and the log catches up with it"),
            Err(reason) => Look::bad(reason),
        }
    }

    pub(super) fn apply_lag(&self, most: u64) -> Look {
        let status = self.replica.status();
        let lag = status.committed.unwrap_or(0).saturating_sub(status.applied.unwrap_or(0));
        Look { good: lag <= most, value: format!("{lag} entries") }
    }

    pub(super) fn fsync(&self, reader: usize, most: Duration) -> Look {
        let longest = self.fsync.take_longest(reader, Instant::now());
        Look { good: longest <= most, value: format!("{} ms", longest.as_millis()) }
    }
}

/// Counts from one look to the next.
#[derive(Debug, Default)]
pub(super) struct ErrorRate {
    answered: u64,
    defects: u64,
}

impl ErrorRate {
    /// From now on.
    pub(super) fn start() -> Self {
        let grpc::Answered { answered, defects } = grpc::answered();
        Self { answered, defects }
    }

    pub(super) fn look(&mut self, max_percent: u64, min_requests: u64) -> Look {
        let now = Self::start();
        let look = rate(now.answered - self.answered, now.defects - self.defects, max_percent, min_requests);
        *self = now;
        look
    }
}

/// So few requests that they say nothing are a good look: a node that nobody asks has no errors.
fn rate(answered: u64, defects: u64, max_percent: u64, min_requests: u64) -> Look {
    let says_something = answered >= min_requests;
    let good = !says_something || defects.saturating_mul(100) <= answered.saturating_mul(max_percent);
    Look { good, value: format!("{defects} of {answered} requests") }
}

/// Room for this user on the file system of a folder.
pub(super) fn disk_free(folder: &Path, least: u64) -> Look {
    match free_bytes(folder) {
        Ok(free) => Look { good: free >= least, value: format!("{free} bytes free") },
        Err(error) => Look::bad(&error.to_string()),
    }
}

/// Resident memory of this process.
pub(super) fn memory(most: Option<u64>) -> Look {
    let read = |path: &str| std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let figures = || -> Result<(u64, u64), String> {
        let statm = read("/proc/self/statm")?;
        let pages = resident_pages(&statm).ok_or("/proc/self/statm is not understood")?;
        let resident = pages.saturating_mul(rustix::param::page_size() as u64);
        let most = match most {
            Some(most) => most,
            None => total_bytes(&read("/proc/meminfo")?).ok_or("/proc/meminfo is not understood")? / 10 * MEMORY_TENTHS,
        };
        Ok((resident, most))
    };
    match figures() {
        Ok((resident, most)) => Look { good: resident <= most, value: format!("{resident} of {most} bytes") },
        Err(error) => Look::bad(&error),
    }
}

/// The second number of `/proc/self/statm` (proc(5)).
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_whitespace().nth(1)?.parse().ok()
}

/// `MemTotal` of `/proc/meminfo`, which is in KiB.
fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_rate_needs_enough_requests_to_say_anything() {
        let good = |answered, defects| rate(answered, defects, 50, 20).good;
        assert!(good(0, 0));
        assert!(good(19, 19), "too few");
        assert!(good(20, 10), "just not above");
        assert!(!good(20, 11));
        assert_eq!(rate(20, 11, 50, 20).value, "11 of 20 requests");
    }

    #[test]
    fn this_process_and_its_disk_have_figures() {
        let folder = std::env::temp_dir();
        assert!(disk_free(&folder, 1).good, "{:?}", disk_free(&folder, 1));
        assert!(!disk_free(&folder, u64::MAX).good);
        assert!(!disk_free(Path::new("/nowhere/at/all"), 1).good);
        assert!(memory(None).good, "{:?}", memory(None));
        assert!(!memory(Some(1)).good);
    }

    #[test]
    fn the_kernels_figures_are_read() {
        assert_eq!(resident_pages("1000 250 30 1 0 90 0\n"), Some(250));
        assert_eq!(resident_pages("1000"), None);
        assert_eq!(total_bytes("MemTotal:       16318412 kB\nMemFree: 1 kB\n"), Some(16_318_412 * 1024));
        assert_eq!(total_bytes("MemFree: 1 kB\n"), None);
    }
}
