//! The two listeners: what each serves, and its bounds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use onespend_proto::peer::v1::raft_service_server::{RaftService, RaftServiceServer};
use onespend_proto::v1::chain_service_server::ChainServiceServer;
use onespend_proto::v1::cluster_service_server::ClusterServiceServer;
use onespend_proto::v1::payment_service_server::PaymentServiceServer;
use onespend_proto::v1::reservation_service_server::ReservationServiceServer;
use onespend_proto::v1::wallet_service_server::WalletServiceServer;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::InterceptorLayer;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Status};
use tonic_health::pb::health_server::HealthServer;
use tower::util::MapResponseLayer;

use super::api::Api;
use super::health_check::HealthCheck;
use super::services::Services;
use super::{caller, oversize, reflection, status};
use crate::health::Health;
use crate::identity::Party;

/// How often an idle connection is probed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A connection whose probe is not answered in this time is closed.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests of one connection that may be under way at once.
const MAX_STREAMS: u32 = 1024;
/// How often TCP probes a connection whose other end may be gone.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Binds early, so that a port that is taken is known before anything else starts.
pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<TcpIncoming> {
    let listener = TcpListener::bind(address).await?;
    // Without it, small answers between nodes wait for the sender's 40 ms timer.
    Ok(TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(TCP_KEEPALIVE)))
}

/// What both servers share.
#[derive(Clone)]
pub(crate) struct Bounds {
    pub(crate) tls: ServerTlsConfig,
    pub(crate) max_message_bytes: usize,
}

fn builder(bounds: &Bounds) -> Result<Server, tonic::transport::Error> {
    Server::builder().tls_config(bounds.tls.clone()).map(|server| {
        server
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .max_concurrent_streams(MAX_STREAMS)
    })
}

macro_rules! data_plane {
    ($router:expr, $services:expr, $limit:expr) => {
        $router
            .add_service(WalletServiceServer::new($services.clone()).max_decoding_message_size($limit))
            .add_service(ReservationServiceServer::new($services.clone()).max_decoding_message_size($limit))
            .add_service(PaymentServiceServer::new($services.clone()).max_decoding_message_size($limit))
            .add_service(ChainServiceServer::new($services.clone()).max_decoding_message_size($limit))
    };
}

/// Serves wallet back ends until the token is cancelled and every request has its answer.
pub(crate) async fn serve_data(
    incoming: TcpIncoming,
    bounds: Bounds,
    api: Arc<Api>,
    health: Arc<Health>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let services = Services(api);
    let health = HealthServer::new(HealthCheck::new(health, stop.clone()));
    let about = tonic_reflection::server::Builder::configure()
        .register_file_descriptor_set(reflection::shown()?)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let max_bytes = bounds.max_message_bytes;
    let router = builder(&bounds)?
        .layer(MapResponseLayer::new(move |answer| oversize::name(answer, max_bytes)))
        .add_service(health)
        .add_service(about);
    data_plane!(router, services, bounds.max_message_bytes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await?;
    Ok(())
}

/// Serves nodes and operators: Raft, the cluster's administration, and what other nodes pass on.
pub(crate) async fn serve_control<R: RaftService>(
    incoming: TcpIncoming,
    bounds: Bounds,
    api: Arc<Api>,
    raft: RaftServiceServer<R>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let cluster_id = api.settings.cluster_id.clone();
    let members = InterceptorLayer::new(move |request| members_only(request, &cluster_id));
    let services = Services(api);
    let max_bytes = bounds.max_message_bytes;
    let router = builder(&bounds)?
        .layer(members)
        .layer(MapResponseLayer::new(move |answer| oversize::name(answer, max_bytes)))
        .add_service(raft)
        .add_service(ClusterServiceServer::new(services.clone()).max_decoding_message_size(bounds.max_message_bytes));
    data_plane!(router, services, bounds.max_message_bytes)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await?;
    Ok(())
}

/// What a client is told at the control port. The command line knows a remedy by it.
pub(crate) const CLIENT_AT_CONTROL: &str = "clients are served on the data port";

/// The control port is for nodes and operators; callers belong to the data port.
#[allow(clippy::result_large_err, clippy::needless_pass_by_value)] // The interceptor's signature.
fn members_only(request: Request<()>, cluster_id: &str) -> Result<Request<()>, Status> {
    let caller = caller::identify(&request, cluster_id)?;
    match caller.party {
        Party::Client(_) if !caller.forwarded => Err(status::unauthenticated(CLIENT_AT_CONTROL)),
        Party::Client(_) | Party::Operator(_) | Party::Node(_) => Ok(request),
    }
}
