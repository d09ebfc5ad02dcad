//! A node in this process that follows a script.

use std::collections::HashMap;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::Stream;
use onespend_proto::client::TlsConfig;
use onespend_proto::v1::payment_service_server::{PaymentService, PaymentServiceServer};
use onespend_proto::v1::reservation_service_server::{ReservationService, ReservationServiceServer};
use onespend_proto::{LEADER_METADATA_KEY, detail, reason, v1};
use tokio::runtime::Runtime;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// What the node does with a ReserveUtxos; a WatchPayments is answered, unless it fails.
pub enum Script {
    Answer,
    /// Answers as a replica that forwarded to this leader.
    AnswerFor(String),
    Hang,
    Fail(Status),
}

pub struct Mock {
    address: String,
    node: Node,
    /// A runtime of its own, so that ending it ends connections too.
    runtime: Option<Runtime>,
}

#[derive(Clone)]
struct Node {
    script: Arc<dyn Fn(usize) -> Script + Send + Sync>,
    asked: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Mock {
    pub fn start(script: impl Fn(usize) -> Script + Send + Sync + 'static) -> Self {
        Self::serve(bind(), None, script)
    }

    pub fn serve(
        listener: TcpListener,
        tls: Option<ServerTlsConfig>,
        script: impl Fn(usize) -> Script + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap().to_string();
        let node = Node { script: Arc::new(script), asked: Arc::default(), seen: Arc::default() };
        let mut builder = Server::builder();
        if let Some(tls) = tls {
            builder = builder.tls_config(tls).unwrap();
        }
        let router = builder
            .add_service(ReservationServiceServer::new(node.clone()))
            .add_service(PaymentServiceServer::new(node.clone()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            router.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        });
        Self { address, node, runtime: Some(runtime) }
    }

    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Request ids in the order of the tries.
    pub fn seen(&self) -> Vec<String> {
        self.node.seen.lock().unwrap().iter().map(|(id, _)| id.clone()).collect()
    }

    /// The `traceparent` of each try.
    pub fn traces(&self) -> Vec<String> {
        self.node.seen.lock().unwrap().iter().map(|(_, trace)| trace.clone()).collect()
    }

    /// Ends the node and its connections, like a process that is killed.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tonic::async_trait]
impl ReservationService for Node {
    type WatchReservationsStream = Pin<Box<dyn Stream<Item = Result<v1::WatchReservationsResponse, Status>> + Send>>;

    async fn watch_reservations(
        &self,
        request: Request<v1::WatchReservationsRequest>,
    ) -> Result<Response<Self::WatchReservationsStream>, Status> {
        if let Script::Fail(status) = (self.script)(self.asked.fetch_add(1, Ordering::Relaxed)) {
            return Err(status);
        }
        let from = request.into_inner().from_index;
        let told =
            (1..=2).map(move |n| Ok(v1::WatchReservationsResponse { reservation: None, applied_index: from + n }));
        let broken = std::iter::once(Err(Status::unavailable("the node stops")));
        Ok(Response::new(Box::pin(futures::stream::iter(told.chain(broken)))))
    }

    async fn reserve_utxos(
        &self,
        request: Request<v1::ReserveUtxosRequest>,
    ) -> Result<Response<v1::ReserveUtxosResponse>, Status> {
        let trace = request.metadata().get("traceparent").map(|value| value.to_str().unwrap().to_owned());
        let id = request.into_inner().request_id;
        self.seen.lock().unwrap().push((id, trace.unwrap_or_default()));
        let reservation = v1::Reservation { reservation_id: "r-7".to_owned(), fence: 7, ..Default::default() };
        let answer = v1::ReserveUtxosResponse { reservation: Some(reservation), applied_index: 7, term: 1 };
        match (self.script)(self.asked.fetch_add(1, Ordering::Relaxed)) {
            Script::Answer => Ok(Response::new(answer)),
            Script::AnswerFor(leader) => {
                let mut response = Response::new(answer);
                response.metadata_mut().insert(LEADER_METADATA_KEY, leader.parse().unwrap());
                Ok(response)
            }
            Script::Hang => {
                tokio::time::sleep(Duration::from_mins(1)).await;
                Err(Status::unavailable("woke up"))
            }
            Script::Fail(status) => Err(status),
        }
    }

    async fn renew_reservation(
        &self,
        _: Request<v1::RenewReservationRequest>,
    ) -> Result<Response<v1::RenewReservationResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn release_reservation(
        &self,
        _: Request<v1::ReleaseReservationRequest>,
    ) -> Result<Response<v1::ReleaseReservationResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_reservation(
        &self,
        _: Request<v1::GetReservationRequest>,
    ) -> Result<Response<v1::GetReservationResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_reservations(
        &self,
        _: Request<v1::ListReservationsRequest>,
    ) -> Result<Response<v1::ListReservationsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tonic::async_trait]
impl PaymentService for Node {
    type WatchPaymentsStream = Pin<Box<dyn Stream<Item = Result<v1::WatchPaymentsResponse, Status>> + Send>>;

    async fn watch_payments(
        &self,
        request: Request<v1::WatchPaymentsRequest>,
    ) -> Result<Response<Self::WatchPaymentsStream>, Status> {
        if let Script::Fail(status) = (self.script)(self.asked.fetch_add(1, Ordering::Relaxed)) {
            return Err(status);
        }
        let from = request.into_inner().from_index;
        let told = (1..=2).map(move |n| Ok(v1::WatchPaymentsResponse { payment: None, applied_index: from + n }));
        let broken = std::iter::once(Err(Status::unavailable("the node stops")));
        Ok(Response::new(Box::pin(futures::stream::iter(told.chain(broken)))))
    }

    async fn create_payment(
        &self,
        _: Request<v1::CreatePaymentRequest>,
    ) -> Result<Response<v1::CreatePaymentResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn sign_psbt(&self, _: Request<v1::SignPsbtRequest>) -> Result<Response<v1::SignPsbtResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn bump_fee(&self, _: Request<v1::BumpFeeRequest>) -> Result<Response<v1::BumpFeeResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn bump_fee_cpfp(
        &self,
        _: Request<v1::BumpFeeCpfpRequest>,
    ) -> Result<Response<v1::BumpFeeCpfpResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn cancel_payment(
        &self,
        _: Request<v1::CancelPaymentRequest>,
    ) -> Result<Response<v1::CancelPaymentResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn abort_attempt(
        &self,
        _: Request<v1::AbortAttemptRequest>,
    ) -> Result<Response<v1::AbortAttemptResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn submit_signed_transaction(
        &self,
        _: Request<v1::SubmitSignedTransactionRequest>,
    ) -> Result<Response<v1::SubmitSignedTransactionResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_payment(&self, _: Request<v1::GetPaymentRequest>) -> Result<Response<v1::GetPaymentResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_payments(
        &self,
        _: Request<v1::ListPaymentsRequest>,
    ) -> Result<Response<v1::ListPaymentsResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

pub fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// An address where nobody listens.
pub fn unused_address() -> String {
    bind().local_addr().unwrap().to_string()
}

/// A refusal with its `ErrorInfo`.
pub fn refusal(code: Code, reason: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, reason::DOMAIN, HashMap::new());
    Status::with_error_details(code, "refused by the script", details)
}

pub fn not_leader(leader: Option<&str>) -> Status {
    let metadata = leader.map(|address| (detail::LEADER_DATA_ADDR.to_owned(), address.to_owned()));
    let details = ErrorDetails::with_error_info(reason::NOT_LEADER, reason::DOMAIN, HashMap::from_iter(metadata));
    Status::with_error_details(Code::FailedPrecondition, "not the leader", details)
}

/// An authority, a node's certificate and a client's.
pub struct Pki {
    ca: String,
    node: (String, String),
    client: (String, String),
}

impl Pki {
    pub fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
        let issue = |names: Vec<String>| {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(names).unwrap();
            (params.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
        };
        let (node, client) = (issue(vec!["onespend".to_owned()]), issue(vec!["payouts".to_owned()]));
        Self { ca: authority.pem(), node, client }
    }

    pub fn server(&self) -> ServerTlsConfig {
        let (cert, key) = &self.node;
        ServerTlsConfig::new().identity(Identity::from_pem(cert, key)).client_ca_root(Certificate::from_pem(&self.ca))
    }

    pub fn client(&self) -> TlsConfig {
        let (cert, key) = self.client.clone();
        TlsConfig { ca: self.ca.clone(), cert, key }
    }
}
