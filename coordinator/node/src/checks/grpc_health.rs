//! Asks a gRPC server for its health (`grpc.health.v1`), without TLS, over a connection each time.

use hyper_util::client::legacy::connect::HttpConnector;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::resolver::Resolver;
use super::{Look, chain};

/// Asks once; the caller bounds the time.
pub(super) async fn look(url: &str, service: &str, resolver: Resolver) -> Look {
    let endpoint = match Endpoint::from_shared(url.to_owned()) {
        Ok(endpoint) => endpoint,
        Err(error) => return Look::bad(&error.to_string()),
    };
    let channel = match endpoint.connect_with_connector(HttpConnector::new_with_resolver(resolver)).await {
        Ok(channel) => channel,
        Err(error) => return Look::bad(&chain(&error)),
    };
    let request = HealthCheckRequest { service: service.to_owned() };
    match HealthClient::new(channel).check(request).await {
        Ok(answer) => {
            let status = answer.get_ref().status();
            Look { good: status == ServingStatus::Serving, value: status.as_str_name().to_owned() }
        }
        Err(status) => Look::bad(&format!("{:?}: {}", status.code(), status.message())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::transport::Server;

    use super::*;

    async fn ask(url: &str, service: &str) -> Look {
        look(url, service, Resolver::new()).await
    }

    #[tokio::test]
    async fn only_serving_is_good() {
        let (reporter, service) = tonic_health::server::health_reporter();
        reporter.set_service_status("up", tonic_health::ServingStatus::Serving).await;
        reporter.set_service_status("down", tonic_health::ServingStatus::NotServing).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
        assert_eq!(ask(&url, "up").await, Look::good("SERVING"));
        assert_eq!(ask(&url, "down").await, Look::bad("NOT_SERVING"));
        let unknown = ask(&url, "other").await;
        assert!(!unknown.good && unknown.value.contains("NotFound"), "{unknown:?}");
    }

    #[tokio::test]
    async fn nobody_there_is_bad() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        assert!(!ask(&url, "").await.good);
    }
}
