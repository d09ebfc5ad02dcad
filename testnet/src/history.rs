//! What callers saw: each try of each call with its beginning, its end and its answer, on one monotonic clock. Oracles
//! judge it; a file with a JSON line for each keeps it for people.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;

/// Nanoseconds since the history began.
pub type Nanos = u64;

/// One try of one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Call {
    /// Number of the caller.
    pub caller: usize,
    /// The caller's id of the request: tries of one request share it.
    pub request_id: String,
    /// The way that it took, such as `node-2` or `haproxy`.
    pub via: String,
    /// When it was sent: nothing came of it earlier.
    pub start_ns: Nanos,
    /// When its answer was there, or when the caller gave up.
    pub end_ns: Nanos,
    /// What was asked.
    #[serde(flatten)]
    pub asked: Asked,
    /// Why it has to be refused, if it has to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub must_fail: Option<&'static str>,
    /// What was answered.
    #[serde(flatten)]
    pub answer: Answer,
}

/// What was asked. Outpoints are `txid:vout`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "asked", rename_all = "snake_case")]
pub enum Asked {
    /// ReserveUtxos: these coins, or a selection by the service if there are none.
    Reserve {
        /// Which coins.
        outpoints: Vec<String>,
        /// For how long, in milliseconds; `None`: until a time of the wall clock, which makes it as long as the leader's
        /// clock says, and that may be wrong.
        ttl_ms: Option<u64>,
    },
    /// RenewReservation.
    Renew {
        /// Which one.
        reservation_id: String,
        /// Its fence, as the caller has it.
        fence: u64,
        /// For how long from now, in milliseconds; `None` as above.
        ttl_ms: Option<u64>,
    },
    /// ReleaseReservation.
    Release {
        /// Which one.
        reservation_id: String,
        /// Its fence, as the caller has it.
        fence: u64,
    },
    /// NewAddress.
    Address,
    /// CreatePayment.
    Pay {
        /// The caller's id of the payment.
        payment_id: String,
        /// Sum of what is ordered, in satoshi.
        amount_sat: i64,
    },
    /// SignPsbt.
    Sign {
        /// The caller's id of the payment.
        payment_id: String,
        /// Sum of what is ordered, in satoshi.
        amount_sat: i64,
        /// Whose coins it spends.
        reservation_id: String,
        /// Its fence, as the caller has it.
        fence: u64,
    },
    /// BumpFee.
    Bump {
        /// Which payment.
        payment_id: String,
    },
    /// CancelPayment.
    Cancel {
        /// Which payment.
        payment_id: String,
    },
    /// GetPayment.
    Look {
        /// Which payment.
        payment_id: String,
    },
}

impl Asked {
    /// Whether it names a time of the wall clock.
    pub fn names_a_time(&self) -> bool {
        matches!(self, Self::Reserve { ttl_ms: None, .. } | Self::Renew { ttl_ms: None, .. })
    }
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// A reservation.
    Granted {
        /// Its id.
        reservation_id: String,
        /// Its fence.
        fence: u64,
        /// Its coins, as `txid:vout`.
        outpoints: Vec<String>,
        /// Where in the log the answering node was.
        at: Position,
    },
    /// Renewed or released.
    Done {
        /// Where in the log the answering node was.
        at: Position,
    },
    /// An address of the wallet.
    Address {
        /// Its script, in hex.
        script: String,
        /// Where in the log the answering node was.
        at: Position,
    },
    /// A payment, as far as it was.
    Paid {
        /// The payment.
        payment: PaymentSeen,
        /// Where in the log the answering node was.
        at: Position,
    },
    /// A payment with a further attempt, as far as it was.
    Replaced {
        /// The payment.
        payment: PaymentSeen,
        /// Number of the attempt that this request made.
        attempt: u32,
        /// Where in the log the answering node was.
        at: Position,
    },
    /// The payment that was asked for.
    Seen {
        /// The payment.
        payment: PaymentSeen,
    },
    /// Not applied.
    Refused {
        /// gRPC's code.
        code: String,
        /// The service's reason; empty if it gave none.
        reason: String,
        /// For people.
        message: String,
        /// The coins that are in the way, as `txid:vout`, if the reason is that somebody holds them.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        conflicts: Vec<String>,
    },
    /// Nobody knows whether it was applied.
    Unknown {
        /// gRPC's code.
        code: String,
        /// What was said.
        message: String,
    },
}

impl Answer {
    /// None yet.
    pub fn open() -> Self {
        Self::Unknown { code: "Open".to_owned(), message: String::new() }
    }

    /// The payment that it shows, if it shows one.
    pub fn payment(&self) -> Option<&PaymentSeen> {
        match self {
            Self::Paid { payment, .. } | Self::Replaced { payment, .. } | Self::Seen { payment } => Some(payment),
            Self::Granted { .. }
            | Self::Done { .. }
            | Self::Address { .. }
            | Self::Refused { .. }
            | Self::Unknown { .. } => None,
        }
    }
}

/// A place in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Position {
    /// Index of an entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// A payment, as the service showed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PaymentSeen {
    /// The caller's id of it.
    pub payment_id: String,
    /// Its state, by the name of the interface without its prefix.
    pub state: String,
    /// Sum of what is ordered, in satoshi.
    pub amount_sat: i64,
    /// Its attempts, in the order of their numbers.
    pub attempts: Vec<AttemptSeen>,
}

/// An attempt, as the service showed it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AttemptSeen {
    /// From 1.
    pub number: u32,
    /// Log index of the intent.
    pub fence: u64,
    /// Its transaction.
    pub txid: String,
    /// Its state, by the name of the interface without its prefix.
    pub state: String,
    /// What it is for, by the name of the interface without its prefix.
    pub purpose: String,
    /// The coins that it spends, as `txid:vout`.
    pub inputs: Vec<String>,
}

impl Call {
    /// Where the log was, if the answer says that something was decided.
    pub fn position(&self) -> Option<Position> {
        match &self.answer {
            Answer::Granted { at, .. }
            | Answer::Done { at }
            | Answer::Address { at, .. }
            | Answer::Paid { at, .. }
            | Answer::Replaced { at, .. } => Some(*at),
            Answer::Seen { .. } | Answer::Refused { .. } | Answer::Unknown { .. } => None,
        }
    }

    /// Whether it may have been applied: acknowledged, or nobody knows.
    pub fn may_be_applied(&self) -> bool {
        !matches!(self.answer, Answer::Refused { .. })
    }

    /// Whether there is a good answer.
    pub fn is_acknowledged(&self) -> bool {
        !matches!(self.answer, Answer::Refused { .. } | Answer::Unknown { .. })
    }
}

/// Something that the harness did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultSeen {
    /// Its kind.
    pub fault: &'static str,
    /// What it hit, for people.
    pub on: String,
    /// When it began to begin.
    pub start_ns: Nanos,
    /// When it had ended.
    pub end_ns: Nanos,
}

/// Collects what is seen, in memory and in a file.
#[derive(Debug)]
pub struct History {
    began: Instant,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    calls: Vec<Call>,
    /// Calls without an answer yet, by a ticket.
    open: BTreeMap<u64, Call>,
    tickets: u64,
    faults: Vec<FaultSeen>,
    file: BufWriter<File>,
}

impl History {
    /// Begins one; its clock starts now.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn begin(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let (calls, open, faults) = (Vec::new(), BTreeMap::new(), Vec::new());
        let seen = Seen { calls, open, tickets: 0, faults, file: BufWriter::new(file) };
        Ok(Self { began: Instant::now(), seen: Mutex::new(seen) })
    }

    /// The time on its clock.
    pub fn now(&self) -> Nanos {
        self.at(Instant::now())
    }

    /// A moment on its clock; what was before it began is 0.
    pub fn at(&self, moment: Instant) -> Nanos {
        u64::try_from(moment.saturating_duration_since(self.began).as_nanos()).unwrap_or(Nanos::MAX)
    }

    /// A call is about to be sent. From now on it may have been applied. Its start is set here; its answer is open.
    pub fn open(&self, call: Call) -> u64 {
        let mut seen = self.lock();
        seen.tickets += 1;
        let (ticket, start_ns) = (seen.tickets, self.now());
        seen.open.insert(ticket, Call { start_ns, end_ns: Nanos::MAX, answer: Answer::open(), ..call });
        ticket
    }

    /// Its answer is there. A line that cannot be written is found missing when the file is finished.
    pub fn close(&self, ticket: u64, answer: Answer) {
        let end_ns = self.now();
        let mut seen = self.lock();
        if let Some(open) = seen.open.remove(&ticket) {
            let call = Call { end_ns, answer, ..open };
            seen.write(&call);
            seen.calls.push(call);
        }
    }

    /// Adds a fault that has ended.
    pub fn record_fault(&self, fault: FaultSeen) {
        let mut seen = self.lock();
        seen.write(&fault);
        seen.faults.push(fault);
    }

    /// All calls until now, in the order in which they ended, and then those that are open: nobody knows what comes of
    /// them.
    pub fn calls(&self) -> Vec<Call> {
        let seen = self.lock();
        seen.calls.iter().chain(seen.open.values()).cloned().collect()
    }

    /// All faults that have ended.
    pub fn faults(&self) -> Vec<FaultSeen> {
        self.lock().faults.clone()
    }

    /// Writes what is left to the file.
    ///
    /// # Errors
    /// The disk is full, or the like.
    pub fn finish(&self) -> Result<()> {
        self.lock().file.flush().context("the history cannot be written")
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn write(&mut self, line: &impl Serialize) {
        // A full disk fails the run at its end, in `finish`: the buffer keeps what it cannot write.
        if let Ok(mut bytes) = serde_json::to_vec(line) {
            bytes.push(b'\n');
            let _told_by_finish = self.file.write_all(&bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_call_and_a_fault_are_a_line_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.jsonl");
        let history = History::begin(&path).unwrap();
        let ticket = history.open(Call {
            caller: 3,
            request_id: "a".into(),
            via: "node-1".into(),
            start_ns: 0,
            end_ns: 0,
            asked: Asked::Release { reservation_id: "r-7".into(), fence: 7 },
            must_fail: None,
            answer: Answer::open(),
        });
        let open = history.calls();
        assert!(open.len() == 1 && open[0].may_be_applied() && !open[0].is_acknowledged());
        history.close(ticket, Answer::Done { at: Position { index: 9, term: 2 } });
        let now = history.now();
        history.record_fault(FaultSeen { fault: "kill", on: "node-1".into(), start_ns: 0, end_ns: now });
        history.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["asked"], &lines[0]["answer"]), (&"release".into(), &"done".into()));
        assert_eq!((&lines[0]["fence"], &lines[0]["at"]["index"]), (&7.into(), &9.into()));
        assert_eq!(lines[1]["fault"], "kill");
        let (calls, faults) = (history.calls(), history.faults());
        assert!(calls.len() == 1 && faults.len() == 1 && calls[0].is_acknowledged());
        assert!(calls[0].start_ns > 0 && calls[0].end_ns >= calls[0].start_ns);
    }
}
