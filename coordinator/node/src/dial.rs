//! Connections to other nodes, with one bound over all of the opening.
//!
//! tonic's own connector applies its time limit to TCP alone. Behind it a machine that accepts connections and answers
//! nothing, such as one that is paused, would hold the TLS handshake open for as long as TCP lives, and every request
//! that shares the connection would wait behind it.

use hyper_util::client::legacy::connect::HttpConnector;
use tonic::transport::{Channel, Endpoint};

/// A channel that connects when it is used, and connects again after a failure. The endpoint's connect timeout bounds
/// TCP and TLS together, because tonic puts it around a connector that it is given.
pub(crate) fn lazily(endpoint: &Endpoint) -> Channel {
    let mut tcp = HttpConnector::new();
    // The scheme is https; TLS is what tonic adds.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    endpoint.connect_with_connector_lazy(tcp)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::net::SocketAddr;
    use std::time::{Duration, Instant};

    use onespend_proto::v1::GetStatusRequest;
    use onespend_proto::v1::cluster_service_client::ClusterServiceClient;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;
    use tonic::transport::ClientTlsConfig;
    use tonic::{Code, Status};

    use super::*;

    /// The bound of the endpoint under test, and how late it may be noticed on a busy machine.
    const BOUND: Duration = Duration::from_millis(200);
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Accepts connections and says nothing on them, for as long as the test holds them.
    async fn mute() -> (SocketAddr, mpsc::UnboundedReceiver<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, accepted) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        (address, accepted)
    }

    async fn refused(channel: &Channel) -> (Status, Duration) {
        let mut client = ClusterServiceClient::new(channel.clone());
        let started = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, client.get_status(GetStatusRequest {})).await;
        (answer.expect("the handshake has a bound").unwrap_err(), started.elapsed())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_handshake_that_is_not_answered_fails_in_time_and_is_tried_again() {
        let (address, mut accepted) = mute().await;
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        let endpoint = endpoint.tls_config(ClientTlsConfig::new()).unwrap().connect_timeout(BOUND);
        let channel = lazily(&endpoint);
        let mut held = Vec::new();
        for attempt in 1..=2 {
            let (refused, took) = refused(&channel).await;
            // Which of the two tonic makes of it is its own affair: both mean unknown to `grpc/forward.rs` and to callers.
            assert!(matches!(refused.code(), Code::Unavailable | Code::Unknown), "attempt {attempt}: {refused:?}");
            assert!(took >= BOUND, "attempt {attempt}: {took:?}: it was not the bound that ended it");
            held.push(accepted.try_recv().expect("each attempt is a connection of its own"));
        }
    }
}
