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

/// For a listener without tonic, as `Material::load` proves that it can be made.
fn acceptor(material: &Material) -> Arc<ServerConfig> {
    let nowhere = Config { ca: PathBuf::new(), cert: PathBuf::new(), key: PathBuf::new() };
    let roots = roots(&nowhere.ca, &material.ca_pem).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&material.key_pem).unwrap();
    Arc::new(pair_up(roots, &material.chain, &key, &nowhere).unwrap().0)
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
        let (address, served) = serve_once(acceptor(&node)).await;
        let client = material(dir.path(), stem).unwrap();
        assert_eq!(call(address, client.rustls_client()).await.unwrap(), "ok");
        assert_eq!(served.await.unwrap(), caller);
    }
}

#[tokio::test]
async fn a_caller_without_or_with_a_foreign_certificate_is_turned_away() {
    let (dir, foreign) = (cluster("demo"), cluster("demo"));
    let node = material(dir.path(), "node-1").unwrap();
    let (address, served) = serve_once(acceptor(&node)).await;
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
    let (address, served) = serve_once(acceptor(&node)).await;
    call(address, stranger.rustls_client()).await.unwrap_err();
    served.await.unwrap();
}

#[tokio::test]
async fn a_client_cannot_pose_as_a_node() {
    let dir = cluster("demo");
    let client = material(dir.path(), "client-payouts").unwrap();
    let (address, _served) = serve_once(acceptor(&client)).await;
    let node = material(dir.path(), "node-1").unwrap();
    let error = call(address, node.rustls_client()).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
}

/// Serves gRPC's health service as a node serves everything.
async fn serve_health(node: &Material) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("primary", tonic_health::ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .tls_config(node.server())
        .unwrap()
        .add_service(service)
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    (address, tokio::spawn(async move { server.await.unwrap() }))
}

async fn ask_health(address: SocketAddr, tls: ClientTlsConfig) -> Result<i32, tonic::Status> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("https://{address}")).unwrap();
    let channel = endpoint.tls_config(tls).unwrap().connect_lazy();
    let request = tonic_health::pb::HealthCheckRequest { service: "primary".to_owned() };
    let answer = tonic_health::pb::health_client::HealthClient::new(channel).check(request).await?;
    Ok(answer.into_inner().status)
}

/// Of a `HealthCheckResponse`.
const SERVING: i32 = 1;

#[tokio::test]
async fn tonic_talks_over_both_halves() {
    let dir = cluster("demo");
    let node = material(dir.path(), "node-1").unwrap();
    let (address, server) = serve_health(&node).await;
    let known = material(dir.path(), "client-payouts").unwrap();
    assert_eq!(ask_health(address, known.client()).await.unwrap(), SERVING);
    let nobody = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&node.ca_pem)).domain_name(SERVER_NAME);
    ask_health(address, nobody).await.unwrap_err();
    server.abort();
}

/// The book's way to replace an authority: for a while every file of authorities has both.
#[tokio::test]
async fn while_both_authorities_are_in_the_file_certificates_of_both_are_good() {
    let (old, new) = (cluster("demo"), cluster("demo"));
    let both = old.path().join("both.pem");
    let text = [&old, &new].map(|dir| std::fs::read_to_string(dir.path().join("ca.pem")).unwrap()).concat();
    std::fs::write(&both, text).unwrap();
    let of = |dir: &tempfile::TempDir, stem: &str| {
        let file = |end| dir.path().join(format!("{stem}.{end}"));
        Material::load(&Config { ca: both.clone(), cert: file("pem"), key: file("key") }).unwrap()
    };
    for issuer in [&old, &new] {
        let node = of(issuer, "node-1");
        let (address, server) = serve_health(&node).await;
        for caller in [&old, &new].into_iter().flat_map(|dir| [of(dir, "client-payouts"), of(dir, "node-1")]) {
            assert_eq!(ask_health(address, caller.client()).await.unwrap(), SERVING, "{caller:?}");
            let (own, served) = serve_once(acceptor(&node)).await;
            assert_eq!(call(own, caller.rustls_client()).await.unwrap(), "ok", "{caller:?}");
            served.await.unwrap();
        }
        server.abort();
    }
    // Once a node has the new one alone, the old certificates are worth nothing there.
    let (address, server) = serve_health(&material(new.path(), "node-1").unwrap()).await;
    ask_health(address, of(&old, "client-payouts").client()).await.unwrap_err();
    assert_eq!(ask_health(address, of(&new, "client-payouts").client()).await.unwrap(), SERVING);
    server.abort();
}

#[test]
fn debugging_shows_no_key() {
    let dir = cluster("demo");
    let shown = format!("{:?}", material(dir.path(), "node-1").unwrap());
    assert_eq!(shown, "Material { identity: Ok(\"spiffe://demo/node/1\"), .. }");
}
