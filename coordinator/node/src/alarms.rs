//! What a human must look at. While one stands, this node takes no spends (`/primary` says so).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tracing::{error, info};

use crate::health::Alarm;

/// Alarms by their code.
#[derive(Default)]
pub struct Alarms(Mutex<BTreeMap<&'static str, String>>);

impl Alarms {
    /// Raises an alarm, or renews its text. It is logged once.
    pub fn raise(&self, code: &'static str, message: &str) {
        let mut alarms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if alarms.insert(code, message.to_owned()).is_none() {
            error!(code, message, "alarm");
        }
    }

    /// Takes an alarm back, once what it said is no longer true.
    pub fn clear(&self, code: &'static str) {
        let mut alarms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if alarms.remove(code).is_some() {
            info!(code, "the alarm is over");
        }
    }

    /// Those that stand.
    pub fn current(&self) -> Vec<Alarm> {
        let alarms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        alarms.iter().map(|(code, message)| Alarm { code, message: message.clone() }).collect()
    }
}
