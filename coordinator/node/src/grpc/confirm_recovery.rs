//! ConfirmRecovery: an operator has checked what no chain can show, and signing is allowed again (safety 30).
//!
//! Whoever confirms speaks of the node that leads then: its signers accept the new epoch at once (safety 8). A later
//! leader that answers a retry has other signers, of which nobody has said anything.
//!
//! Just before, the state is compared once more: with the mempool as it is now, and with what the signers of this node
//! remember, which may be others than led at the comparison before. A state that may be the wrong one is not compared,
//! and not confirmed (safety 31).

use std::sync::Arc;
use std::time::Duration;

use onespend_core::command::Command;
use onespend_core::ids::{RequestId, RequestKey};
use onespend_core::outcome::Rejection;
use onespend_core::state::State;
use onespend_proto::v1;
use tonic::Status;
use tracing::{error, warn};

use super::api::{Api, Call};
use super::decide::Draft;
use super::fields::Fields;
use super::get_recovery::recovery;
use super::{alarm_status, status};
use crate::leader::recover::{Comparison, NotCompared};
use crate::peers::{self, Report};
use crate::replica::Replica;
use crate::runtime;

/// How often it is compared again, at most, while bitcoind's tip is another than the log's.
const MAX_TRIES: u32 = 20;
/// Wait between two tries.
const RETRY: Duration = Duration::from_millis(100);

pub(super) async fn confirm_recovery(
    api: Arc<Api>,
    call: Call,
    message: v1::ConfirmRecoveryRequest,
) -> Result<v1::ConfirmRecoveryResponse, Status> {
    let request = call.request(parse(&message)?);
    let key = request.key.clone();
    let applied = api.decide(&call, request, || draft(&api, &message.note)).await?;
    let accepted_signers = accept(&api, &call, &key).await?;
    let recovery = Some(api.replica.read(recovery));
    let node_id = api.settings.node_id;
    Ok(v1::ConfirmRecoveryResponse {
        recovery,
        applied_index: applied.index.0,
        term: applied.term,
        node_id,
        accepted_signers,
    })
}

pub(super) fn parse(message: &v1::ConfirmRecoveryRequest) -> Result<RequestId, Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    fields.checked(&message.note, message.i_have_checked);
    fields.finish(request)
}

async fn draft(api: &Api, note: &str) -> Result<Draft, Status> {
    demand_state_beyond_doubt(api)?;
    let others = api.peers.reports(&api.replica.status().others(), peers::TIMEOUT).await;
    compare(api).await?;
    // That takes a while, in which the other nodes' states may have been found to differ.
    demand_state_beyond_doubt(api)?;
    // Above every fence that this state has granted, and all that this node's signers remember or have accepted.
    let epoch = epoch_above(api.replica.read(State::epoch).max(api.signing.epoch()), &others);
    Ok(Draft::of(Command::ConfirmRecovery { epoch, note: note.to_owned() }))
}

/// An epoch above this one, and above all that signers of nodes which answer have accepted, in a log that is lost
/// perhaps: they would take this log for that one, and sign, though nobody has vouched for them in this recovery.
fn epoch_above(own: u32, others: &[Report]) -> u32 {
    let accepted = others.iter().map(|report| report.signer_epoch);
    accepted.fold(own, u32::max).saturating_add(1)
}

/// One of two states is wrong, and it may be this one: its comparison would end the recovery of all (safety 31).
fn demand_state_beyond_doubt(api: &Api) -> Result<(), Status> {
    api.alarms.doubt().map_or(Ok(()), |alarm| Err(alarm_status::no_confirmation(alarm)))
}

/// Compares the state once more, where it is not confirmed. Else the log refuses by itself.
async fn compare(api: &Api) -> Result<(), Status> {
    let Some(term) = api.replica.leader_term() else {
        return Err(status::not_leader(api.replica.leader_hint().as_ref()));
    };
    let (replica, chain, signing) = (Arc::clone(&api.replica), api.bitcoind.chain(), Arc::clone(&api.signing));
    let comparison = Comparison { replica, chain, signing };
    let mut tries = 0;
    loop {
        let tip = api.replica.read(|state| state.recovery().and_then(|_| state.tip().ok()));
        let Some(basis) = tip else { return Ok(()) };
        match comparison.make(&term, basis).await {
            Ok(_) => return Ok(()),
            // The log is about to reach bitcoind's tip.
            Err(NotCompared::OtherTip) if tries < MAX_TRIES => {
                tries += 1;
                runtime::sleep(RETRY).await;
            }
            Err(NotCompared::Proposing(error)) => return Err(status::proposing(&error)),
            Err(error) => {
                let why = format!("the state cannot be compared with chain, mempool and signers now: {error}");
                return Err(status::rejected(&Rejection::RecoveryRefused { why }));
            }
        }
    }
}

/// Has this node's signers accept the epoch that was confirmed; the names of those that did. It goes on when the caller
/// has gone, and a retry in the same term has them accept it again, which changes nothing.
async fn accept(api: &Api, call: &Call, request: &RequestKey) -> Result<Vec<String>, Status> {
    let Some(epoch) = epoch_of_this_term(&api.replica, request) else {
        warn!(request = %request.request, "confirmed in another term: the signers of this node accept nothing by that");
        return Ok(Vec::new());
    };
    let (signing, who) = (Arc::clone(&api.signing), call.caller.to_string());
    let work = runtime::blocking(move || signing.accept(epoch, &who));
    match runtime::timeout_at(call.deadline.into(), work).await {
        Ok(Ok(accepted)) => Ok(accepted),
        Ok(Err(lost)) => {
            error!(%lost, epoch, "the signers of this node have not accepted the epoch of the log; they sign nothing");
            Ok(Vec::new())
        }
        Err(_) => Err(status::unknown("the signers of this node did not accept the new epoch in time")),
    }
}

/// The epoch of the state, if this node leads and the request became an entry of the log in its own term. So every
/// epoch since that entry is of this term as well, and was confirmed here.
fn epoch_of_this_term(replica: &Replica, request: &RequestKey) -> Option<u32> {
    let term = replica.leader_term()?;
    replica.read(|state| {
        let decided_at = state.cached(request)?.at;
        term.wrote(decided_at).then(|| state.epoch())
    })
}

#[cfg(test)]
#[path = "confirm_recovery_tests.rs"]
mod tests;
