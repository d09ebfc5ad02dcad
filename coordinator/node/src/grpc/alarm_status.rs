//! What callers are told while an alarm stands on the node that leads.

use std::time::Duration;

use onespend_policies::{Action, Class};
use onespend_proto::v1::ErrorReason;
use tonic::{Code, Status};
use tonic_types::ErrorDetails;

use super::details::{build, is_for, refuse};
use crate::agreement::{MISMATCH, UNDECIDED};
use crate::room::DISK_LOW;

/// How long a caller should wait before it asks again where disks were about to be full.
const ROOM_RETRY: Duration = Duration::from_secs(1);

/// This node's state differs from what most others have. What it knows of earlier tries may be wrong, so it cannot say
/// that nothing was applied.
pub(super) fn unsound() -> Status {
    let message = format!("this node answers nothing while the alarm {MISMATCH} stands; ask another one");
    not_serving(MISMATCH, message)
}

/// A spend is refused for an alarm of this node. Nothing was applied, unless the state itself is in doubt: then what it
/// knows of earlier tries is as well.
pub(super) fn no_spends(alarm: &str) -> Status {
    let message = format!("the leader takes no spends while its alarm {alarm} stands");
    match alarm {
        DISK_LOW => return storage_low(),
        UNDECIDED => {
            let advice = "nobody knows whether its state is right: ask again under the same request id when it is over";
            return not_serving(UNDECIDED, format!("{message}; {advice}"));
        }
        _ => {}
    }
    refuse(Code::FailedPrecondition, ErrorReason::Alarm, message, vec![("alarm", alarm.to_owned())])
}

/// What is answered in place of a refusal while the state is in doubt, if it sounds final and rests on the state: what
/// it says is not there, or is there otherwise, may be what this state has lost. A caller who believes it may pay
/// elsewhere.
pub(super) fn instead_of(refused: Status, action: Action, doubt: Option<&str>) -> Status {
    // The cluster's members, and what was copied of it, are not in the state. Recovery mode is.
    let rests_on_state = action == Action::ConfirmRecovery || action.class() != Class::ClusterAdministration;
    let Some(alarm) = doubt.filter(|_| rests_on_state && sounds_final(&refused)) else {
        return refused;
    };
    let advice = "nobody knows whether its state is right: ask again when that is over";
    not_serving(alarm, format!("not certain while the alarm {alarm} stands ({}); {advice}", refused.message()))
}

/// By what a code promises. Two reasons say nothing of the state: the request itself is faulty, another node leads.
fn sounds_final(refused: &Status) -> bool {
    let open = [Code::Unavailable, Code::DeadlineExceeded, Code::Cancelled, Code::Unknown, Code::Internal];
    let harmless = [ErrorReason::FieldInvalid, ErrorReason::NotLeader];
    !open.contains(&refused.code()) && !harmless.iter().any(|reason| is_for(refused, *reason))
}

/// Leaves the outcome of earlier tries open.
fn not_serving(alarm: &str, message: String) -> Status {
    refuse(Code::Unavailable, ErrorReason::NotServing, message, vec![("alarm", alarm.to_owned())])
}

/// No node is taken in, or given a vote, for an alarm about the leader's state: nothing was changed.
pub(super) fn no_new_members(alarm: &str) -> Status {
    let message = format!("the leader takes no node in while its alarm {alarm} stands: its state may be wrong");
    refuse(Code::FailedPrecondition, ErrorReason::Alarm, message, vec![("alarm", alarm.to_owned())])
}

/// Nobody's word is taken for a state that may be the wrong one: what it lacks is missing in what it was compared with,
/// and the others, whose state may be right, would end their recovery by that.
pub(super) fn no_confirmation(alarm: &str) -> Status {
    let message = format!("nothing is confirmed while the leader's alarm {alarm} stands: its state may be wrong");
    not_serving(alarm, format!("{message}; ask again under the same request id when that is over"))
}

/// Too little room on disks for new orders: not on this leader's, or not on a quorum's.
fn storage_low() -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(ROOM_RETRY));
    let message = format!("the alarm {DISK_LOW} stands: too little room on disks to order anything more");
    let metadata = vec![("alarm", DISK_LOW.to_owned())];
    build(Code::ResourceExhausted, ErrorReason::StorageLow, &message, metadata, details)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use onespend_adapters::chain::fake::FakeChain;
    use onespend_core::outcome::Rejection;
    use onespend_proto::reason;
    use tempfile::TempDir;
    use tonic_types::StatusExt;

    use super::*;
    use crate::grpc::api::Api;
    use crate::grpc::status;
    use crate::leader::sign::{FROZEN, NOT_ACCEPTED};
    use crate::leader::watch_chain::UNFOLLOWABLE;
    use crate::reorganised::REORGANISED;
    use crate::restored::RESTORED;
    use crate::specimen::{self, request, soon};

    /// What a spend is told while only this alarm stands.
    async fn told(api: &Arc<Api>, alarm: &'static str) -> (Code, String, Option<String>, bool) {
        api.alarms.raise(alarm, "on purpose");
        let gather = || {
            let facts = api.demand_synced_chain();
            std::future::ready(facts.and(Err(Status::internal("nothing stopped it"))))
        };
        let refused = api.decisions.decide(soon(), request(alarm), gather).await.unwrap_err();
        api.alarms.clear(alarm);
        let info = refused.get_details_error_info().unwrap();
        let waits = refused.get_details_retry_info().is_some();
        (refused.code(), info.reason, info.metadata.get("alarm").cloned(), waits)
    }

    /// safety 26, 27, 31: the state may lack the payment, the reservation or the order that it was asked for.
    #[test]
    fn a_refusal_that_rests_on_a_state_in_doubt_is_not_final() {
        let alarm = |refused: &Status| refused.get_details_error_info().unwrap().metadata.get("alarm").cloned();
        for rejection in [Rejection::PaymentUnknown, Rejection::ReservationUnknown, Rejection::PaymentIdReused] {
            for doubt in [MISMATCH, UNDECIDED] {
                for action in
                    [Action::GetPayment, Action::ReleaseReservation, Action::CreatePayment, Action::ConfirmRecovery]
                {
                    let told = instead_of(status::rejected(&rejection), action, Some(doubt));
                    assert!(is_for(&told, ErrorReason::NotServing) && told.code() == Code::Unavailable, "{told:?}");
                    assert_eq!(alarm(&told).as_deref(), Some(doubt));
                }
            }
            let refused = status::rejected(&rejection);
            let sound = instead_of(refused.clone(), Action::GetPayment, None);
            assert_eq!((sound.code(), sound.message()), (refused.code(), refused.message()));
        }
        let kept = |refused: Status, action| {
            let told = instead_of(refused.clone(), action, Some(UNDECIDED));
            assert_eq!((told.code(), told.message()), (refused.code(), refused.message()));
        };
        kept(status::no_quorum(), Action::GetPayment);
        kept(status::not_leader(None), Action::CreatePayment);
        kept(no_new_members(UNDECIDED), Action::AddLearner);
        kept(no_confirmation(UNDECIDED), Action::ConfirmRecovery);
    }

    /// safety 27: of a sound state a refusal is known to be final, and is told as such; of another one nothing is.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_alarm_refuses_for_certain_unless_the_state_itself_is_in_doubt() {
        let folder = TempDir::new().unwrap();
        let api = specimen::api(specimen::leader(&folder).await, FakeChain::new());
        for alarm in [UNFOLLOWABLE, FROZEN, NOT_ACCEPTED, RESTORED] {
            let wanted = (Code::FailedPrecondition, reason::ALARM.to_owned(), Some(alarm.to_owned()), false);
            assert_eq!(told(&api, alarm).await, wanted);
        }
        let wanted = (Code::ResourceExhausted, reason::STORAGE_LOW.to_owned(), Some(DISK_LOW.to_owned()), true);
        assert_eq!(told(&api, DISK_LOW).await, wanted);
        let wanted = (Code::Unavailable, reason::NOT_SERVING.to_owned(), Some(MISMATCH.to_owned()), false);
        assert_eq!(told(&api, MISMATCH).await, wanted);
        // Also beside an alarm that would refuse for certain.
        api.alarms.raise(UNFOLLOWABLE, "on purpose");
        assert_eq!(told(&api, MISMATCH).await, wanted);
        api.alarms.clear(UNFOLLOWABLE);
        // One of two states is wrong, and may lack an earlier try.
        let wanted = (Code::Unavailable, reason::NOT_SERVING.to_owned(), Some(UNDECIDED.to_owned()), false);
        assert_eq!(told(&api, UNDECIDED).await, wanted);
        // Also beside those that would refuse for certain, whose codes come before in the alphabet.
        for other in [UNFOLLOWABLE, DISK_LOW, FROZEN, NOT_ACCEPTED, RESTORED] {
            api.alarms.raise(other, "on purpose");
            assert_eq!(told(&api, UNDECIDED).await, wanted, "beside {other}");
            api.alarms.clear(other);
        }
        // What is only reported stops nothing: next comes the bitcoind, which nobody watches here.
        assert_eq!(told(&api, REORGANISED).await.1, reason::CHAIN_NOT_SYNCED);
    }
}
