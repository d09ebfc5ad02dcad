//! Handshakes over loopback, with real certificates.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::SocketAddr;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;
use crate::pki::{self, Kind};

fn material(dir: &Path, stem: &str) -> Result<Material, TlsError> {
    Material::load(&Config {
        ca: dir.join("ca.pem"),
        cert: dir.join(format!("{stem}.pem")),
        key: dir.join(format!("{stem}.key")),
    })
}

fn cluster(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    pki::init(dir.path(), name).unwrap();
    pki::issue(dir.path(), Kind::Node, "1", &[], 10).unwrap();
    pki::issue(dir.path(), Kind::Client, "payouts", &[], 10).unwrap();
    dir
}

#[test]
fn the_ends_of_both_certificates_are_known() {
    let dir = cluster("demo");
    let now = UnixTime::now().as_secs().cast_signed();
    let days: Vec<(&str, i64)> = material(dir.path(), "node-1")
        .unwrap()
        .expiries()
        .into_iter()
        .map(|(certificate, at)| (certificate, (at - now) / 86_400))
        .collect();
    assert_eq!(days.len(), 2);
    assert!(matches!(days[0], ("node", 9..=10)), "{days:?}");
    assert!(matches!(days[1], ("ca", 3_640..=3_660)), "{days:?}");
}

/// Accepts one connection and answers with the caller id, or with why there is none.
async fn serve_once(server: Arc<ServerConfig>) -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut stream = match TlsAcceptor::from(server).accept(socket).await {
            Ok(stream) => stream,
            Err(error) => return error.to_string(),
        };
        let peer = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        let _ = stream.write_all(b"ok").await;
        let _ = stream.shutdown().await;
        Identity::from_certificate(&peer).unwrap().party.to_string()
    });
    (address, task)
}

async fn call(address: SocketAddr, client: Arc<ClientConfig>) -> std::io::Result<String> {
    let socket = TcpStream::connect(address).await?;
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let mut stream = TlsConnector::from(client).connect(name, socket).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test]
async fn both_ends_learn_who_the_other_is() {
    let dir = cluster("demo");
    let node = material(dir.path(), "node-1").unwrap();
    for (stem, caller) in [("client-payouts", "client/payouts"), ("node-1", "node/1")] {
        let (address, served) = serve_once(node.rustls_server()).await;
        let client = material(dir.path(), stem).unwrap();
        assert_eq!(call(address, client.rustls_client()).await.unwrap(), "ok");
        assert_eq!(served.await.unwrap(), caller);
    }
}

#[tokio::test]
async fn a_caller_without_or_with_a_foreign_certificate_is_turned_away() {
    let (dir, foreign) = (cluster("demo"), cluster("demo"));
    let node = material(dir.path(), "node-1").unwrap();
    let (address, served) = serve_once(node.rustls_server()).await;
    let roots = roots(&dir.path().join("ca.pem"), &node.ca_pem).unwrap();
    let mut nobody = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    nobody.alpn_protocols = vec![ALPN_H2.to_vec()];
    call(address, Arc::new(nobody)).await.unwrap_err();
    assert!(served.await.unwrap().contains("no certificates"));

    // Same cluster name, other authority: each end refuses the other.
    let stranger = material(foreign.path(), "client-payouts").unwrap();
    let (address, served) = serve_once(node.rustls_server()).await;
    call(address, stranger.rustls_client()).await.unwrap_err();
    served.await.unwrap();
}

#[tokio::test]
async fn a_client_cannot_pose_as_a_node() {
    let dir = cluster("demo");
    let client = material(dir.path(), "client-payouts").unwrap();
    let (address, _served) = serve_once(client.rustls_server()).await;
    let node = material(dir.path(), "node-1").unwrap();
    let error = call(address, node.rustls_client()).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[tokio::test]
async fn tonic_talks_over_both_halves() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = cluster("demo");
    let node = material(dir.path(), "node-1").unwrap();
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("primary", tonic_health::ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .tls_config(node.server())
        .unwrap()
        .add_service(service)
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    let server = tokio::spawn(server);

    let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{address}")).unwrap();
    let known = material(dir.path(), "client-payouts").unwrap();
    let channel = endpoint.clone().tls_config(known.client()).unwrap();
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel.connect_lazy());
    let request = || tonic_health::pb::HealthCheckRequest { service: "primary".to_owned() };
    let status = client.check(request()).await.unwrap().into_inner().status;
    assert_eq!(status, 1, "SERVING");

    let nobody = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&node.ca_pem)).domain_name(SERVER_NAME);
    let channel = endpoint.tls_config(nobody).unwrap();
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel.connect_lazy());
    client.check(request()).await.unwrap_err();
    server.abort();
}

#[test]
fn debugging_shows_no_key() {
    let dir = cluster("demo");
    let shown = format!("{:?}", material(dir.path(), "node-1").unwrap());
    assert_eq!(shown, "Material { identity: Ok(\"spiffe://demo/node/1\"), .. }");
}
