//! `grpc.health.v1` Watch, one stream for each service of each node, held while the lead changes hands.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus::{self, NotServing, Serving};
use tonic_health::pb::health_client::HealthClient;

use crate::scene::{NODES, Scene, eventually, need};

/// Each service, what a leader says, and what a replica says.
const PICTURE: [(&str, ServingStatus, ServingStatus); 4] = [
    ("", Serving, Serving),
    ("primary", Serving, NotServing),
    ("replica", NotServing, Serving),
    ("read-only", Serving, Serving),
];

/// What one stream has told, in order.
#[derive(Clone, Debug, Default)]
struct Told {
    statuses: Vec<ServingStatus>,
    has_ended: bool,
}

struct Stream {
    node: usize,
    service: &'static str,
    told: Arc<Mutex<Told>>,
}

impl Stream {
    /// Whether the last that it told is what its node is.
    fn fits(&self, leader: usize, dead: Option<usize>) -> bool {
        let told = held(&self.told);
        if Some(self.node) == dead {
            return told.has_ended;
        }
        let (_, as_leader, as_replica) = PICTURE.into_iter().find(|(service, _, _)| *service == self.service).unwrap();
        let expected = if self.node == leader { as_leader } else { as_replica };
        !told.has_ended && told.statuses.last() == Some(&expected)
    }
}

/// Streams that are not begun anew when they end. Dropping them ends them.
pub struct Watches {
    streams: Vec<Stream>,
    _readers: JoinSet<()>,
}

impl Watches {
    /// On the data port of every node.
    pub fn start(scene: &Scene) -> Self {
        let (mut streams, mut readers) = (Vec::new(), JoinSet::new());
        for node in 0..NODES {
            let channel = scene.direct(node);
            for (service, _, _) in PICTURE {
                let told = Arc::<Mutex<Told>>::default();
                readers.spawn(read(channel.clone(), service, Arc::clone(&told)));
                streams.push(Stream { node, service, told });
            }
        }
        Self { streams, _readers: readers }
    }

    /// Waits until every stream says what its node is, and those of a dead node have ended.
    pub async fn follow(&self, leader: usize, dead: Option<usize>, when: &str) {
        eventually(&format!("every watch is right {when}"), async || {
            let wrong = self.streams.iter().filter(|stream| !stream.fits(leader, dead));
            let wrong: Vec<String> =
                wrong.map(|one| format!("node {} {:?}: {:?}", one.node + 1, one.service, *held(&one.told))).collect();
            need(wrong.is_empty(), || wrong.join("; "))
        })
        .await;
    }

    /// What a node's stream has told of a service until now.
    pub fn told(&self, node: usize, service: &str) -> Vec<ServingStatus> {
        let stream = self.streams.iter().find(|stream| stream.node == node && stream.service == service).unwrap();
        held(&stream.told).statuses.clone()
    }
}

fn held(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read(channel: Channel, service: &'static str, told: Arc<Mutex<Told>>) {
    let request = HealthCheckRequest { service: service.to_owned() };
    if let Ok(answer) = HealthClient::new(channel).watch(request).await {
        let mut stream = answer.into_inner();
        while let Ok(Some(next)) = stream.message().await {
            held(&told).statuses.push(next.status());
        }
    }
    held(&told).has_ended = true;
}
