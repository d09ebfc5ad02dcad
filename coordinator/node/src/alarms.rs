//! What a human must look at. While one stands, this node takes no spends (`/primary` says so).

use std::collections::BTreeMap;

use tokio::sync::watch;
use tracing::{error, info};

use crate::health::Alarm;

/// Alarms by their code.
#[derive(Default)]
pub struct Alarms(watch::Sender<BTreeMap<&'static str, String>>);

impl Alarms {
    /// Raises an alarm, or renews its text. It is logged once.
    pub fn raise(&self, code: &'static str, message: &str) {
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

    /// Waits until it stands.
    pub async fn raised(&self, code: &'static str) {
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
    use super::*;

    #[tokio::test]
    async fn an_alarm_stands_from_when_it_is_raised_until_it_is_cleared() {
        let alarms = Alarms::default();
        alarms.raise("A", "first");
        alarms.raise("A", "second");
        alarms.raised("A").await;
        assert_eq!(alarms.current(), vec![Alarm { code: "A", message: "second".to_owned() }]);
        assert!(alarms.stands("A") && !alarms.stands("B"));
        alarms.clear("A");
        assert!(alarms.current().is_empty());
        let raise = async { alarms.raise("B", "later") };
        tokio::join!(alarms.raised("B"), raise);
    }
}
