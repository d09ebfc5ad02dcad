//! How fresh a read is: linearizable through the leader, or as old as the caller allows.

use std::time::{Duration, Instant};

use onespend_proto::v1;
use tonic::{Code, Status};

use super::api::Api;
use super::fields::Fields;
use super::status;

/// The greatest age that a read may allow: an hour.
const MAX_LAG_MS: u32 = 3_600_000;

/// The age that a read allows; `None` for a linearizable one, which is the default.
///
/// # Errors
/// `FIELD_INVALID` for an age out of bounds.
pub(crate) fn staleness_bound(consistency: Option<&v1::ReadConsistency>) -> Result<Option<Duration>, Status> {
    let bound = match consistency.and_then(|consistency| consistency.level.as_ref()) {
        Some(v1::read_consistency::Level::BoundedStaleness(bound)) => bound.max_lag_ms,
        Some(v1::read_consistency::Level::Linearizable(_)) | None => return Ok(None),
    };
    let mut fields = Fields::default();
    if !(1..=MAX_LAG_MS).contains(&bound) {
        let rule = format!("{bound} ms: must be 1 to {MAX_LAG_MS}");
        fields.fault("consistency.bounded_staleness.max_lag_ms", rule);
    }
    fields.finish(Some(Some(Duration::from_millis(u64::from(bound)))))
}

/// Waits until this node may answer: by a round to a quorum (`ReadIndex`, section 6.4 of the Raft dissertation), or at
/// once when it is young enough.
pub(crate) async fn confirm(api: &Api, bound: Option<Duration>, deadline: Instant) -> Result<v1::ReadInfo, Status> {
    api.demand_sound_state()?;
    let staleness = match bound {
        None => {
            api.replica.linearizable(deadline).await.map_err(|_| status::no_quorum())?;
            Duration::ZERO
        }
        Some(bound) => {
            let staleness = api.replica.staleness();
            staleness.filter(|staleness| *staleness <= bound).ok_or_else(|| too_stale(staleness, bound))?
        }
    };
    Ok(info(api, Some(staleness)))
}

/// Whether this may be answered from a state that is old. What it lacks may exist: that there is nothing is said of the
/// newest state alone.
pub(super) fn may_be_stale<T>(answer: &Result<T, Status>) -> bool {
    answer.as_ref().err().is_none_or(|refused| refused.code() != Code::NotFound)
}

/// What an answer of this node is based on that waited for nobody.
pub(super) fn unconfirmed(api: &Api) -> v1::ReadInfo {
    info(api, api.replica.staleness())
}

fn info(api: &Api, staleness: Option<Duration>) -> v1::ReadInfo {
    let applied_index = api.replica.read(|state| state.applied().0);
    let staleness_ms = staleness.map_or(u64::MAX, whole_ms);
    v1::ReadInfo { applied_index, staleness_ms, served_by: api.settings.node_id }
}

/// This node is older than may be, or does not know how old it is.
pub(super) fn too_stale(staleness: Option<Duration>, bound: Duration) -> Status {
    status::too_stale(staleness.map(whole_ms), whole_ms(bound))
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use onespend_adapters::chain::fake::FakeChain;
    use onespend_core::outcome::Rejection;
    use tempfile::TempDir;
    use tonic_types::StatusExt as _;

    use super::*;
    use crate::specimen::{self, soon};

    const MS: Duration = Duration::from_millis(1);

    fn refused(staleness: Option<Duration>, bound: Duration) -> (Code, Option<String>) {
        let refused = too_stale(staleness, bound);
        assert!(status::is_for(&refused, v1::ErrorReason::TooStale), "{refused:?}");
        let mut info = refused.get_details_error_info().unwrap();
        (refused.code(), info.metadata.remove("staleness_ms"))
    }

    #[test]
    fn a_node_that_is_too_old_says_how_old_it_is_if_it_knows() {
        assert_eq!(refused(Some(1_501 * MS), 1_500 * MS), (Code::Unavailable, Some("1501".to_owned())));
        assert_eq!(refused(None, MS), (Code::Unavailable, None));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_that_does_not_know_its_age_answers_no_bounded_read_and_a_leader_does() {
        let folder = TempDir::new().unwrap();
        let waiting = specimen::api(specimen::waiting(&folder).await, FakeChain::new());
        let longest = Duration::from_millis(MAX_LAG_MS.into());
        let refused = confirm(&waiting, Some(longest), soon()).await.unwrap_err();
        assert!(status::is_for(&refused, v1::ErrorReason::TooStale), "{refused:?}");

        let folder = TempDir::new().unwrap();
        let leader = specimen::api(specimen::leader(&folder).await, FakeChain::new());
        let info = confirm(&leader, Some(longest), soon()).await.unwrap();
        assert!(info.staleness_ms <= u64::from(MAX_LAG_MS), "{info:?}");
        assert_eq!(info.served_by, 1);
    }

    /// safety 26.
    #[test]
    fn what_a_replica_lacks_is_not_called_unknown_before_the_leader_has_looked() {
        for unknown in [
            Rejection::WalletUnknown { wallet: Some("w".to_owned()) },
            Rejection::ReservationUnknown,
            Rejection::PaymentUnknown,
        ] {
            assert!(!may_be_stale::<()>(&Err(status::rejected(&unknown))), "{unknown:?}");
        }
        assert!(may_be_stale(&Ok(())));
        assert!(may_be_stale::<()>(&Err(status::rejected(&Rejection::NotStarted))));
    }
}
