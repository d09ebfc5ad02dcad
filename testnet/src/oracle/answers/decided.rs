//! Whether one request was refused for reasons that cannot both be its answer.
//!
//! A refusal comes from one of two places. Where the log decided, the refusal is remembered with the request, and every
//! later try gets it again. Before that, the leader looks at the request by itself, against its view of that moment (coins
//! to choose from, what a PSBT says of its coins, which attempt is the newest, whether it pays more), and what it refuses
//! then is remembered nowhere: another try may be refused for something else, or be decided. So tries that are under way at
//! one time, and one whose answer was lost before a next one was refused so, may differ. These may not:
//!
//! - Two reasons that only the log's decision has: it decides a request once.
//! - Any other reason, for a try that began when such a decision had been answered: whoever leads looks for the remembered
//!   answer first, and tells of no refusal of its own before it has applied all that was committed.

use std::collections::BTreeMap;

use super::{is_passing, said};
use crate::history::{Answer, Call};

/// Reasons that only the log's decision has, whatever callers ask for here: no leader refuses for them by itself. A passing
/// one, as `CHAIN_NOT_SYNCED`, is not remembered. What either of the two may say is not among them: `FOREIGN_INPUT`,
/// `OUTPUT_INVALID`, `FEE_LIMIT`, `NOT_REPLACEABLE`, `PAYMENT_UNKNOWN`, `WALLET_FROZEN` and the like.
const DECIDED: [&str; 16] = [
    "OUTPOINT_UNKNOWN",
    "OUTPOINT_RESERVED",
    "OUTPOINT_SPENT",
    "OUTPOINT_IMMATURE",
    "RESERVATION_QUOTA",
    "RESERVATION_UNKNOWN",
    "RESERVATION_EXPIRED",
    "RESERVATION_RELEASED",
    "RESERVATION_USED",
    "RESERVED_FOR_OTHER",
    "RESERVED_SHARE",
    "STALE_FENCE",
    "NOT_OWNER",
    "PAYMENT_ID_REUSED",
    "INPUT_MISSING",
    "REPLACEMENT_MISSING_ANCHOR",
];

/// Every refusal that contradicts what the log had decided, in words. A caller's lie under an id that it used before is a
/// request of its own.
pub(super) fn judge(calls: &[Call]) -> Vec<String> {
    let mut decided: BTreeMap<(usize, &str, Option<&str>), (&Call, &str)> = BTreeMap::new();
    let mut faults = Vec::new();
    for call in calls {
        let Answer::Refused { reason, .. } = &call.answer else { continue };
        if is_passing(&call.asked, reason) {
            continue;
        }
        let (request, reason) = ((call.caller, call.request_id.as_str(), call.must_fail), reason.as_str());
        let is_decided = DECIDED.contains(&reason);
        match decided.get(&request) {
            None if is_decided => {
                decided.insert(request, (call, reason));
            }
            Some((first, then)) if *then != reason && (is_decided || first.end_ns < call.start_ns) => {
                faults.push(said(call, &format!("was refused for {reason}, and before that for {then}")));
            }
            None | Some(_) => {}
        }
    }
    faults
}
