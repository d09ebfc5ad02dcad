//! What a human must look at. While one stands, this node takes no spends (`/primary` says so), but for those that are
//! only reported.

use std::collections::BTreeMap;

use tokio::sync::watch;
use tracing::{error, info};

use crate::agreement::{MISMATCH, UNDECIDED};
use crate::health::Alarm;
use crate::leader::sign::{FROZEN, NOT_ACCEPTED};
use crate::leader::watch_chain::UNFOLLOWABLE;
use crate::reorganised::REORGANISED;
use crate::restored::{RECOVERY, RESTORED};
use crate::room::DISK_LOW;

/// Every code that an alarm of `/status` may have. Each has a series of `onespend_alarm`, and a row in the page for
/// operators.
pub const CODES: [&str; 9] =
    [UNFOLLOWABLE, MISMATCH, UNDECIDED, FROZEN, NOT_ACCEPTED, REORGANISED, RECOVERY, RESTORED, DISK_LOW];
/// The one that is only reported: what a reorganisation froze takes no spends already, and other wallets go on.
const REPORTED_ONLY: [&str; 1] = [REORGANISED];
/// Those of a state that is wrong or may be wrong.
const DOUBT: [&str; 2] = [MISMATCH, UNDECIDED];
/// Those of a state that is wrong, may be wrong, or may be older than what the cluster did.
const SIGN_NOTHING: [&str; 3] = [MISMATCH, UNDECIDED, RESTORED];

/// Whether a node takes no spends while an alarm of this code stands.
pub fn stops_spends(code: &str) -> bool {
    !REPORTED_ONLY.contains(&code)
}

/// Alarms by their code.
#[derive(Default)]
pub struct Alarms(watch::Sender<BTreeMap<&'static str, String>>);

impl Alarms {
    /// Raises an alarm, or renews its text. It is logged once.
    pub fn raise(&self, code: &'static str, message: &str) {
        debug_assert!(CODES.contains(&code), "{code} is missing from the list of alarms");
        let is_new = self.0.send_if_modified(|alarms| alarms.insert(code, message.to_owned()).is_none());
        if is_new {
            error!(code, message, "alarm");
        }
    }

    /// Takes an alarm back, once what it said is no longer true.
    pub fn clear(&self, code: &'static str) {
        if self.0.send_if_modified(|alarms| alarms.remove(code).is_some()) {
            info!(code, "the alarm is over");
        }
    }

    /// Whether it stands.
    pub fn stands(&self, code: &'static str) -> bool {
        self.0.borrow().contains_key(code)
    }

    /// The code of one that stands and is not only reported. One of a state in doubt comes first: beside it nothing
    /// that another one says is certain (safety 27).
    pub fn stopping(&self) -> Option<&'static str> {
        let first = || self.0.borrow().keys().copied().find(|code| stops_spends(code));
        self.doubt().or_else(first)
    }

    /// The code of one by which this node's state is wrong or may be wrong, as the other nodes' states say (safety 31).
    pub fn doubt(&self) -> Option<&'static str> {
        DOUBT.into_iter().find(|&code| self.stands(code))
    }

    /// Waits until the state is in doubt, or until it is not.
    pub async fn doubt_is(&self, wanted: bool) {
        let mut alarms = self.0.subscribe();
        let in_doubt = |alarms: &BTreeMap<&'static str, String>| DOUBT.iter().any(|code| alarms.contains_key(code));
        // The sender is this one, so it does not go while it is waited for.
        let _reached = alarms.wait_for(|alarms| in_doubt(alarms) == wanted).await;
    }

    /// Whether one stands under which this node permits nothing and has nothing signed (safety 30, 31).
    pub fn stop_signing(&self) -> bool {
        SIGN_NOTHING.into_iter().any(|code| self.stands(code))
    }

    /// Waits until it stands.
    #[cfg(test)]
    pub(crate) async fn raised(&self, code: &'static str) {
        let mut alarms = self.0.subscribe();
        // The sender is this one, so it does not go while it is waited for.
        let _standing = alarms.wait_for(|alarms| alarms.contains_key(code)).await;
    }

    /// Those that stand.
    pub fn current(&self) -> Vec<Alarm> {
        self.0.borrow().iter().map(|(code, message)| Alarm { code, message: message.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    #[tokio::test]
    async fn an_alarm_stands_from_when_it_is_raised_until_it_is_cleared() {
        let alarms = Alarms::default();
        alarms.raise(FROZEN, "first");
        alarms.raise(FROZEN, "second");
        alarms.raised(FROZEN).await;
        assert_eq!(alarms.current(), vec![Alarm { code: FROZEN, message: "second".to_owned() }]);
        assert!(alarms.stands(FROZEN) && !alarms.stands(MISMATCH));
        alarms.clear(FROZEN);
        assert!(alarms.current().is_empty());
        let raise = async { alarms.raise(MISMATCH, "later") };
        tokio::join!(alarms.raised(MISMATCH), raise);
    }

    #[tokio::test]
    async fn the_state_is_in_doubt_from_the_first_alarm_about_it_to_the_last() {
        let alarms = Alarms::default();
        alarms.raise(FROZEN, "another one");
        alarms.doubt_is(false).await;
        alarms.raise(UNDECIDED, "first");
        alarms.raise(MISMATCH, "second");
        alarms.doubt_is(true).await;
        alarms.clear(UNDECIDED);
        alarms.doubt_is(true).await;
        let clear = async { alarms.clear(MISMATCH) };
        tokio::join!(alarms.doubt_is(false), clear);
    }

    /// safety 31: a state that may be wrong gives no coin away, whichever side of it is right.
    #[test]
    fn all_but_a_reorganisation_stop_spends_and_a_state_in_doubt_stops_signing_too() {
        for code in CODES {
            let alarms = Alarms::default();
            alarms.raise(code, "on purpose");
            assert_eq!(alarms.stopping().is_some(), code != REORGANISED, "{code}");
            assert_eq!(alarms.doubt().is_some(), [MISMATCH, UNDECIDED].contains(&code), "{code}");
            assert_eq!(alarms.stop_signing(), [MISMATCH, UNDECIDED, RESTORED].contains(&code), "{code}");
        }
    }

    /// safety 27: what that one refuses may have been applied.
    #[test]
    fn an_alarm_about_the_state_comes_before_all_others() {
        for other in CODES {
            for doubt in [MISMATCH, UNDECIDED] {
                let alarms = Alarms::default();
                alarms.raise(other, "on purpose");
                alarms.raise(doubt, "on purpose");
                let told = if other == MISMATCH { MISMATCH } else { doubt };
                assert_eq!(alarms.stopping(), Some(told), "beside {other}");
            }
        }
    }

    /// The table for operators has every code, and no other.
    #[test]
    fn the_page_for_operators_says_what_to_do_about_each_alarm() {
        let page = include_str!("../../../docs/src/operations.md");
        let section = page.split("\n## Alarms\n").nth(1).unwrap().split("\n## ").next().unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
        let named: BTreeSet<&str> = rows.map(|(code, _)| code).collect();
        assert_eq!(named, BTreeSet::from(CODES));
    }
}
