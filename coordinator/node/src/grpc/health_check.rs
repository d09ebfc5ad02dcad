//! `grpc.health.v1`: the same verdicts as the HTTP endpoints, made when they are asked for. So a health feed that stalls is
//! not in health here either; a status that is kept until the feed changes it would vouch for it without end.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health as HealthService;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::health::{Check, Health};

/// Changes that wait for a slow watcher.
const BUFFER: usize = 4;

/// Answers for a node until it stops.
#[derive(Clone)]
pub(crate) struct HealthCheck {
    health: Arc<Health>,
    /// Cancelled when open streams should end.
    stopping: CancellationToken,
}

type Statuses = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

impl HealthCheck {
    pub(crate) fn new(health: Arc<Health>, stopping: CancellationToken) -> Self {
        Self { health, stopping }
    }

    fn status(&self, check: &Check) -> ServingStatus {
        let serving = !self.stopping.is_cancelled() && self.health.verdict(check).is_yes();
        if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
    }

    /// Tells a watcher of each change. The verdict is looked at as often as the snapshot is made.
    async fn tell(self, check: Option<Check>, watcher: mpsc::Sender<Result<HealthCheckResponse, Status>>) {
        let mut looks = tokio::time::interval(Health::PUBLISH_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            let last = self.stopping.is_cancelled();
            let status = check.as_ref().map_or(ServingStatus::ServiceUnknown, |check| self.status(check));
            if told.replace(status) != Some(status) {
                tokio::select! {
                    biased;
                    sent = watcher.send(Ok(answer(status))) => if sent.is_err() { return },
                    // One that reads nothing does not hold up the end of this node.
                    () = self.stopping.cancelled() => return,
                }
            }
            if last {
                return;
            }
            tokio::select! {
                _ = looks.tick() => {}
                () = self.stopping.cancelled() => {}
                () = watcher.closed() => return,
            }
        }
    }
}

#[tonic::async_trait]
impl HealthService for HealthCheck {
    type WatchStream = Statuses;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match check(&request.get_ref().service) {
            Some(check) => Ok(Response::new(answer(self.status(&check)))),
            None => Err(Status::not_found("service not registered")),
        }
    }

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Statuses>, Status> {
        let (sender, receiver) = mpsc::channel(BUFFER);
        tokio::spawn(self.clone().tell(check(&request.get_ref().service), sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

fn check(service: &str) -> Option<Check> {
    match service {
        "" => Some(Check::ready()),
        "primary" => Some(Check::primary()),
        "replica" => Some(Check::replica()),
        "read-only" => Some(Check::ReadOnly),
        _ => None,
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;
    use std::time::{Duration, Instant};

    use tokio_stream::StreamExt;

    use super::*;
    use crate::health::{BitcoindView, LeaderInfo, Limits, Role, Snapshot};

    const MAX_AGE: Duration = Duration::from_secs(2);
    const HOUR: Duration = Duration::from_hours(1);
    const YES: ServingStatus = ServingStatus::Serving;
    const NO: ServingStatus = ServingStatus::NotServing;
    /// Each service, and what it says of a leader, of a replica, and of a replica that drains.
    const BY_ROLE: [(&str, [ServingStatus; 3]); 4] =
        [("", [YES, YES, NO]), ("primary", [YES, NO, NO]), ("replica", [NO, YES, NO]), ("read-only", [YES, YES, NO])];

    fn leader() -> Snapshot {
        let now = Instant::now();
        Snapshot {
            role: Role::Leader,
            term: 3,
            leader: Some(LeaderInfo { id: 1, control: String::new(), data: String::new() }),
            last_quorum_ack: Some(now),
            own_term_applied: true,
            recovered: true,
            bitcoind: BitcoindView { judged_at: Some(now), in_sync: true, ..BitcoindView::default() },
            ..Snapshot::starting("demo", 1, BTreeMap::new())
        }
    }

    fn replica() -> Snapshot {
        let now = Some(Instant::now());
        let (leader_contact, caught_up) = (now, now);
        Snapshot { role: Role::Follower, last_quorum_ack: None, leader_contact, caught_up, ..leader() }
    }

    /// A node whose feed has made this snapshot, and makes no other by itself.
    fn node(first: Snapshot, max_age: Duration) -> HealthCheck {
        let limits = Limits {
            max_lag_entries: 10,
            quorum_ack: HOUR,
            leader_contact: HOUR,
            snapshot: max_age,
            bitcoind_view: HOUR,
        };
        HealthCheck::new(Arc::new(Health::new(first, limits, |_| String::new())), CancellationToken::new())
    }

    fn of(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.to_owned() })
    }

    async fn asked(node: &HealthCheck, service: &str) -> ServingStatus {
        node.check(of(service)).await.unwrap().into_inner().status()
    }

    async fn next(watch: &mut Statuses) -> ServingStatus {
        let told = tokio::time::timeout(Duration::from_secs(20), watch.next()).await;
        told.unwrap().unwrap().unwrap().status()
    }

    #[tokio::test]
    async fn a_feed_that_stalls_takes_the_node_out_over_grpc_too() {
        let node = node(leader(), MAX_AGE);
        let mut watch = node.watch(of("primary")).await.unwrap().into_inner();
        assert_eq!(next(&mut watch).await, ServingStatus::Serving);
        assert_eq!(next(&mut watch).await, ServingStatus::NotServing, "nobody has renewed the snapshot");
        assert_eq!(asked(&node, "").await, ServingStatus::NotServing);
        node.health.publish(leader());
        assert_eq!(next(&mut watch).await, ServingStatus::Serving);
    }

    /// One stream for each service, held from the first role to the last.
    #[tokio::test]
    async fn check_and_watch_follow_the_role() {
        let node = node(leader(), HOUR);
        let mut watches = Vec::new();
        for (service, _) in BY_ROLE {
            watches.push(node.watch(of(service)).await.unwrap().into_inner());
        }
        let drains = Snapshot { draining: true, ..replica() };
        let mut before = [None; BY_ROLE.len()];
        for (role, snapshot) in [leader(), replica(), drains].into_iter().enumerate() {
            node.health.publish(snapshot);
            for (((service, by_role), watch), before) in BY_ROLE.iter().zip(&mut watches).zip(&mut before) {
                assert_eq!(asked(&node, service).await, by_role[role], "{service:?}");
                // A watch tells of changes, and of nothing else.
                if before.replace(by_role[role]) != Some(by_role[role]) {
                    assert_eq!(next(watch).await, by_role[role], "{service:?}");
                }
            }
        }
        node.stopping.cancel();
        for mut watch in watches {
            assert!(watch.next().await.is_none(), "it has told of a change that there was not");
        }
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_not_found_and_watched_as_unknown() {
        let node = node(leader(), HOUR);
        let unknown = node.check(of("other")).await.unwrap_err();
        assert_eq!(unknown.code(), tonic::Code::NotFound);
        let mut watch = node.watch(of("other")).await.unwrap().into_inner();
        assert_eq!(next(&mut watch).await, ServingStatus::ServiceUnknown);
    }

    /// Before anything of it has ended, and whatever snapshot comes late.
    #[tokio::test]
    async fn a_node_that_begins_to_stop_serves_nobody_any_more() {
        let node = node(leader(), HOUR);
        assert_eq!(asked(&node, "primary").await, YES);
        node.health.stopping();
        node.health.publish(leader());
        for (service, _) in BY_ROLE {
            assert_eq!(asked(&node, service).await, NO, "{service:?}");
        }
    }

    #[tokio::test]
    async fn a_node_that_stops_says_so_and_ends_its_watches() {
        let node = node(leader(), HOUR);
        let mut watch = node.watch(of("")).await.unwrap().into_inner();
        assert_eq!(next(&mut watch).await, ServingStatus::Serving);
        node.stopping.cancel();
        assert_eq!(next(&mut watch).await, ServingStatus::NotServing);
        assert!(watch.next().await.is_none());
    }
}
