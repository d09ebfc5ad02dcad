//! The clocks. Nothing that keeps money safe rests on them, but certificates do, and people read the times.

use std::time::{Duration, Instant, SystemTime};

use onespend_adapters::chain::ChainView;

use super::findings::{Area, Findings};
use crate::cli::format::span;

/// How long both clocks are watched at least.
const WATCH: Duration = Duration::from_millis(250);
/// They may differ by so much meanwhile; a step or a broken clock differs by more.
const TOLERANCE: Duration = Duration::from_millis(50);
/// 2025-01-01T00:00:00Z: before this software was written.
const TOO_EARLY: Duration = Duration::from_hours(482_136);
/// How far a block's time may be ahead of the clocks of those who accept it (Bitcoin's consensus rule).
const BLOCK_AHEAD: Duration = Duration::from_hours(2);

/// Both clocks as they were when the doctor began.
#[derive(Debug)]
pub struct Clock {
    monotonic: Instant,
    wall: SystemTime,
}

impl Clock {
    /// Begins to watch.
    pub fn start() -> Self {
        Self { monotonic: Instant::now(), wall: SystemTime::now() }
    }

    /// Compares them, and the wall clock with the newest block.
    pub fn check(&self, view: Option<&ChainView>, findings: &mut Findings) {
        std::thread::sleep(WATCH.saturating_sub(self.monotonic.elapsed()));
        let now = SystemTime::now();
        let elapsed = self.monotonic.elapsed();
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        judge(elapsed, now.duration_since(self.wall).ok(), since_1970, view.map(|view| view.tip_time_s), findings);
    }
}

fn judge(
    monotonic: Duration,
    wall: Option<Duration>,
    since_1970: Duration,
    tip_time_s: Option<u64>,
    findings: &mut Findings,
) {
    const REMEDY: &str = "set the clock and keep it in step with chrony or systemd-timesyncd";
    let before = findings.failed(Area::Clock);
    let mut well = !before;
    if since_1970 < TOO_EARLY {
        findings.fail(Area::Clock, "the wall clock is in the past: certificates would not be valid yet", REMEDY);
        well = false;
    }
    match wall {
        Some(wall) if wall.abs_diff(monotonic) <= TOLERANCE => {}
        Some(wall) => {
            let off = span(wall.abs_diff(monotonic));
            let what = format!("the wall clock moved by {off} against the monotonic one in {}", span(monotonic));
            findings.warn(Area::Clock, what, REMEDY);
            well = false;
        }
        None => {
            findings.warn(Area::Clock, "the wall clock was set back just now", REMEDY);
            well = false;
        }
    }
    let ahead = tip_time_s.map_or(Duration::ZERO, |tip| Duration::from_secs(tip).saturating_sub(since_1970));
    if ahead > BLOCK_AHEAD {
        let what = format!("the newest block is {} in the future: the wall clock is late", span(ahead));
        findings.warn(Area::Clock, what, REMEDY);
        well = false;
    }
    if well {
        findings.ok(Area::Clock, "wall and monotonic clock agree");
    }
}

#[cfg(test)]
mod tests {
    use super::super::findings::Report;
    use super::*;

    #[test]
    fn steps_and_wrong_years_are_seen() {
        let second = Duration::from_secs(1);
        let now = TOO_EARLY + Duration::from_hours(24);
        let exit = |wall, since_1970, tip| {
            let mut findings = Findings::default();
            judge(second, wall, since_1970, tip, &mut findings);
            Report::of(findings).exit().code()
        };
        assert_eq!(exit(Some(second), now, Some(now.as_secs() + 7_000)), 0);
        assert_eq!(exit(Some(second), now, Some(now.as_secs() + 7_300)), 1);
        assert_eq!(exit(Some(second * 3), now, None), 1);
        assert_eq!(exit(None, now, None), 1);
        assert_eq!(exit(Some(second), second, None), 2);
    }
}
