//! A node in this process. It answers every call with something fixed, unless it is told to refuse, to be silent or
//! to answer otherwise, and keeps what it was asked.

use std::any::{Any, TypeId};
use std::collections::{HashMap, VecDeque};
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use onespend::identity::Identity;
use onespend::tls::{Config, Material};
use onespend_proto::v1::chain_service_server::{ChainService, ChainServiceServer};
use onespend_proto::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use onespend_proto::v1::payment_service_server::{PaymentService, PaymentServiceServer};
use onespend_proto::v1::reservation_service_server::{ReservationService, ReservationServiceServer};
use onespend_proto::v1::wallet_service_server::{WalletService, WalletServiceServer};
use onespend_proto::{reason, v1};
use tokio::runtime::Runtime;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::run::Authority;

pub const TXID: &str = "5df6e0e2761359d30a8275058e299fcc0381534545f55cf43e41983f5d4c9456";
pub const ADDRESS: &str = "bcrt1q6rhpng9evdsfnn833a4f4vej0asu6dk5srld6x";

pub struct Node {
    address: String,
    desk: Desk,
    runtime: Option<Runtime>,
}

type Boxed = Box<dyn Any + Send>;

/// What the services share.
#[derive(Clone, Default)]
struct Desk {
    asked: Arc<Mutex<Vec<(String, Boxed)>>>,
    answers: Arc<Mutex<VecDeque<Boxed>>>,
    refusal: Arc<Mutex<Option<Status>>>,
    /// By the type of the request.
    refusals: Arc<Mutex<HashMap<TypeId, Status>>>,
    /// What each answer waits for.
    pause: Arc<Mutex<Duration>>,
}

impl Node {
    /// On a free port, with the certificate of node `id`.
    pub fn start(authority: &Authority, id: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let files = Config {
            ca: authority.file("ca.pem"),
            cert: authority.file(&format!("node-{id}.pem")),
            key: authority.file(&format!("node-{id}.key")),
        };
        let tls = Material::load(&files).unwrap().server();
        let desk = Desk::default();
        let router = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(WalletServiceServer::new(desk.clone()))
            .add_service(ReservationServiceServer::new(desk.clone()))
            .add_service(PaymentServiceServer::new(desk.clone()))
            .add_service(ChainServiceServer::new(desk.clone()))
            .add_service(ClusterServiceServer::new(desk.clone()));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.spawn(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            router.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap();
        });
        Self { address, desk, runtime: Some(runtime) }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// The last request of this kind.
    pub fn last<T: Clone + 'static>(&self) -> T {
        self.all::<T>().pop().expect("never asked")
    }

    /// All requests of this kind, in order.
    pub fn all<T: Clone + 'static>(&self) -> Vec<T> {
        let asked = self.desk.asked.lock().unwrap();
        asked.iter().filter_map(|(_, request)| request.downcast_ref::<T>().cloned()).collect()
    }

    /// Who asked last.
    pub fn caller(&self) -> String {
        self.desk.asked.lock().unwrap().last().expect("never asked").0.clone()
    }

    /// Answers the next call whose answer is of this type with this one. Several are given in order.
    pub fn answer<T: Send + 'static>(&self, answer: T) {
        self.desk.answers.lock().unwrap().push_back(Box::new(answer));
    }

    /// Refuses everything from now on.
    pub fn refuse(&self, code: Code, reason: &str, metadata: &[(&str, &str)], fields: &[(&str, &str)]) {
        self.refuse_saying("no, said the node", code, reason, metadata, fields);
    }

    /// Refuses everything from now on as a control port refuses a client.
    pub fn refuse_a_client(&self) {
        let message = "clients are served on the data port";
        self.refuse_saying(message, Code::Unauthenticated, reason::CALLER_UNKNOWN, &[], &[]);
    }

    fn refuse_saying(
        &self,
        message: &str,
        code: Code,
        reason: &str,
        metadata: &[(&str, &str)],
        fields: &[(&str, &str)],
    ) {
        let metadata: HashMap<String, String> =
            metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut details = ErrorDetails::with_error_info(reason, reason::DOMAIN, metadata);
        for (field, what) in fields {
            details.add_bad_request_violation(*field, *what);
        }
        *self.desk.refusal.lock().unwrap() = Some(Status::with_error_details(code, message, details));
    }

    /// Refuses every request of this kind from now on.
    pub fn refuse_only<T: 'static>(&self, code: Code, reason: &str) {
        let details = ErrorDetails::with_error_info(reason, reason::DOMAIN, HashMap::<String, String>::new());
        let status = Status::with_error_details(code, "not this, said the node", details);
        self.desk.refusals.lock().unwrap().insert(TypeId::of::<T>(), status);
    }

    /// Takes every request and never answers.
    pub fn be_silent(&self) {
        self.take_its_time(Duration::from_mins(1));
    }

    /// Answers every call so much later.
    pub fn take_its_time(&self, pause: Duration) {
        *self.desk.pause.lock().unwrap() = pause;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Desk {
    async fn take<T: Clone + Send + 'static, R: Send + 'static>(
        &self,
        request: Request<T>,
        usual: R,
    ) -> Result<Response<R>, Status> {
        let certificates = request.peer_certs().expect("a certificate");
        let caller = Identity::of_member(&certificates[0], "demo").unwrap().party.to_string();
        self.asked.lock().unwrap().push((caller, Box::new(request.into_inner())));
        let pause = *self.pause.lock().unwrap();
        tokio::time::sleep(pause).await;
        if let Some(status) = self.refusal.lock().unwrap().clone() {
            return Err(status);
        }
        if let Some(status) = self.refusals.lock().unwrap().get(&TypeId::of::<T>()) {
            return Err(status.clone());
        }
        let mut answers = self.answers.lock().unwrap();
        let told = answers.iter().position(|answer| answer.is::<R>()).and_then(|at| answers.remove(at));
        Ok(Response::new(told.map_or(usual, |answer| *answer.downcast::<R>().unwrap())))
    }
}

/// A method that answers with the fields that are given. Written without `async`, since the attribute for async traits
/// does not look into macros.
macro_rules! calls {
    ($($rpc:ident($request:ident) -> $response:ident { $($field:ident: $value:expr),* })*) => {
        $(#[allow(clippy::needless_update)] // Some answers are given whole.
        fn $rpc<'a, 'b>(
            &'a self,
            request: Request<v1::$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<v1::$response>, Status>> + Send + 'b>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(self.take(request, v1::$response { $($field: $value,)* ..Default::default() }))
        })*
    };
}

pub fn outpoint() -> v1::Outpoint {
    v1::Outpoint { txid: TXID.to_owned(), vout: 1 }
}

pub fn wallet() -> v1::Wallet {
    let limits = v1::WalletLimits {
        max_fee_sat: 100_000,
        max_feerate_sat_vb: 200.0,
        max_fee_percent: 10,
        finality_depth: 6,
        max_reservations: 100,
        ..Default::default()
    };
    v1::Wallet {
        wallet_id: "hot".to_owned(),
        descriptor: "wpkh(tpub/<0;1>/*)".to_owned(),
        signer: "hot".to_owned(),
        limits: Some(limits),
        birth_height: 101,
        ..Default::default()
    }
}

pub fn utxo(value_sat: i64) -> v1::Utxo {
    v1::Utxo {
        outpoint: Some(outpoint()),
        value_sat,
        depth: 12,
        state: v1::UtxoState::Available.into(),
        keychain: v1::Keychain::External.into(),
        address: ADDRESS.to_owned(),
        ..Default::default()
    }
}

pub fn reservation() -> v1::Reservation {
    v1::Reservation {
        reservation_id: "r-77".to_owned(),
        fence: 77,
        wallet_id: "hot".to_owned(),
        owner: "client/payouts".to_owned(),
        utxos: vec![utxo(150_000)],
        state: v1::ReservationState::Active.into(),
        remaining: Some(prost_types::Duration { seconds: 581, nanos: 0 }),
        ..Default::default()
    }
}

pub fn payment(state: v1::PaymentState, update_index: u64) -> v1::Payment {
    let attempt = v1::Attempt {
        number: 1,
        txid: TXID.to_owned(),
        state: v1::AttemptState::Broadcast.into(),
        purpose: v1::AttemptPurpose::Pay.into(),
        inputs: vec![outpoint()],
        fee_sat: 705,
        vsize: 141,
        feerate_sat_vb: 5.0,
        depth: u32::from(state == v1::PaymentState::Confirming),
        ..Default::default()
    };
    let recipient = v1::Recipient {
        destination: Some(v1::recipient::Destination::Address(ADDRESS.to_owned())),
        amount_sat: 50_000,
    };
    v1::Payment {
        payment_id: "order-7".to_owned(),
        wallet_id: "hot".to_owned(),
        owner: "client/payouts".to_owned(),
        recipients: vec![recipient],
        state: state.into(),
        anchor: Some(outpoint()),
        attempts: vec![attempt],
        txid: TXID.to_owned(),
        update_index,
        amount_sat: 50_000,
        ..Default::default()
    }
}

pub fn audit_event() -> v1::AuditEvent {
    v1::AuditEvent {
        index: 55,
        caller: "operator/alice".to_owned(),
        event: "freeze_wallet".to_owned(),
        wallet_id: "hot".to_owned(),
        detail: "a key may have leaked".to_owned(),
        time: None,
    }
}

pub fn recovery() -> v1::Recovery {
    v1::Recovery {
        active: true,
        why: "a backup was put back".to_owned(),
        reconciled: Some(v1::BlockRef { height: 130, hash: TXID.to_owned(), time: None }),
        epoch: 0,
    }
}

impl WalletService for Desk {
    calls! {
        register_wallet(RegisterWalletRequest) -> RegisterWalletResponse { wallet: Some(wallet()), applied_index: 9, term: 2 }
        get_wallet(GetWalletRequest) -> GetWalletResponse { wallet: Some(wallet()) }
        list_wallets(ListWalletsRequest) -> ListWalletsResponse { wallets: vec![wallet()] }
        get_balance(GetBalanceRequest) -> GetBalanceResponse {
            balance: Some(v1::Balance { total_sat: 250_000, available_sat: 150_000, reserved_sat: 100_000, available_count: 3, ..Default::default() })
        }
        list_utxos(ListUtxosRequest) -> ListUtxosResponse { utxos: vec![utxo(150_000)] }
        new_address(NewAddressRequest) -> NewAddressResponse { address: ADDRESS.to_owned(), index: 4, applied_index: 9, term: 2 }
        set_limits(SetLimitsRequest) -> SetLimitsResponse { wallet: Some(wallet()) }
        freeze_wallet(FreezeWalletRequest) -> FreezeWalletResponse { wallet: Some(v1::Wallet { frozen: true, frozen_note: "audit".to_owned(), ..wallet() }) }
        unfreeze_wallet(UnfreezeWalletRequest) -> UnfreezeWalletResponse { wallet: Some(wallet()) }
        register_outpoints(RegisterOutpointsRequest) -> RegisterOutpointsResponse { utxos: vec![utxo(150_000)], applied_index: 9, term: 2 }
        release_quarantined(ReleaseQuarantinedRequest) -> ReleaseQuarantinedResponse { utxos: vec![utxo(150_000)], applied_index: 9, term: 2 }
        declare_lost(DeclareLostRequest) -> DeclareLostResponse { utxos: vec![utxo(150_000)], applied_index: 9, term: 2 }
        list_audit_events(ListAuditEventsRequest) -> ListAuditEventsResponse { events: vec![audit_event()] }
    }
}

/// A stream of these; afterwards it stays open.
fn told<T: Send + 'static>(messages: impl Iterator<Item = T>) -> Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>> {
    let messages: Vec<Result<T, Status>> = messages.map(Ok).collect();
    Box::pin(futures::stream::iter(messages).chain(futures::stream::pending()))
}

/// What a watch of reservations tells after a mark of progress.
#[derive(Clone)]
pub struct ToldReservations(pub Vec<v1::ReservationState>);

#[tonic::async_trait]
impl ReservationService for Desk {
    type WatchReservationsStream = Pin<Box<dyn Stream<Item = Result<v1::WatchReservationsResponse, Status>> + Send>>;

    async fn watch_reservations(
        &self,
        request: Request<v1::WatchReservationsRequest>,
    ) -> Result<Response<Self::WatchReservationsStream>, Status> {
        let from = request.get_ref().from_index;
        let ToldReservations(states) = self.take(request, ToldReservations(Vec::new())).await?.into_inner();
        let mark = v1::WatchReservationsResponse { reservation: None, applied_index: from };
        let changes = (from + 1..).zip(states).map(|(applied_index, state)| v1::WatchReservationsResponse {
            reservation: Some(v1::Reservation { state: state.into(), ..reservation() }),
            applied_index,
        });
        Ok(Response::new(told(std::iter::once(mark).chain(changes))))
    }

    calls! {
        reserve_utxos(ReserveUtxosRequest) -> ReserveUtxosResponse { reservation: Some(reservation()), applied_index: 77, term: 2 }
        renew_reservation(RenewReservationRequest) -> RenewReservationResponse { reservation: Some(reservation()) }
        release_reservation(ReleaseReservationRequest) -> ReleaseReservationResponse {
            reservation: Some(v1::Reservation { state: v1::ReservationState::Released.into(), ..reservation() })
        }
        get_reservation(GetReservationRequest) -> GetReservationResponse { reservation: Some(reservation()) }
        list_reservations(ListReservationsRequest) -> ListReservationsResponse { reservations: vec![reservation()] }
    }
}

/// What a watch of payments tells after a mark of progress.
#[derive(Clone)]
pub struct Told(pub Vec<v1::PaymentState>);

#[tonic::async_trait]
impl PaymentService for Desk {
    type WatchPaymentsStream = Pin<Box<dyn Stream<Item = Result<v1::WatchPaymentsResponse, Status>> + Send>>;

    async fn watch_payments(
        &self,
        request: Request<v1::WatchPaymentsRequest>,
    ) -> Result<Response<Self::WatchPaymentsStream>, Status> {
        let from = request.get_ref().from_index;
        let Told(states) = self.take(request, Told(Vec::new())).await?.into_inner();
        let mark = v1::WatchPaymentsResponse { payment: None, applied_index: from };
        let changes = (from + 1..).zip(states).map(|(applied_index, state)| v1::WatchPaymentsResponse {
            payment: Some(payment(state, applied_index)),
            applied_index,
        });
        Ok(Response::new(told(std::iter::once(mark).chain(changes))))
    }

    calls! {
        create_payment(CreatePaymentRequest) -> CreatePaymentResponse { payment: Some(payment(v1::PaymentState::Broadcast, 80)), applied_index: 80, term: 2 }
        sign_psbt(SignPsbtRequest) -> SignPsbtResponse { payment: Some(payment(v1::PaymentState::Signed, 80)), attempt_number: 1, applied_index: 80, term: 2 }
        bump_fee(BumpFeeRequest) -> BumpFeeResponse { payment: Some(payment(v1::PaymentState::Broadcast, 80)), attempt_number: 2, applied_index: 80, term: 2 }
        bump_fee_cpfp(BumpFeeCpfpRequest) -> BumpFeeCpfpResponse {
            payment: Some(v1::Payment { payment_id: "child-7".to_owned(), bumps_payment_id: "order-7".to_owned(), ..payment(v1::PaymentState::Broadcast, 80) }),
            applied_index: 80,
            term: 2
        }
        cancel_payment(CancelPaymentRequest) -> CancelPaymentResponse { payment: Some(payment(v1::PaymentState::Broadcast, 80)), attempt_number: 2, applied_index: 80, term: 2 }
        abort_attempt(AbortAttemptRequest) -> AbortAttemptResponse { payment: Some(payment(v1::PaymentState::Dead, 80)), applied_index: 80, term: 2 }
        submit_signed_transaction(SubmitSignedTransactionRequest) -> SubmitSignedTransactionResponse {
            payment: Some(payment(v1::PaymentState::Signed, 80)), attempt_number: 1, applied_index: 80, term: 2
        }
        get_payment(GetPaymentRequest) -> GetPaymentResponse { payment: Some(payment(v1::PaymentState::Confirming, 80)) }
        list_payments(ListPaymentsRequest) -> ListPaymentsResponse { payments: vec![payment(v1::PaymentState::Confirming, 80)] }
    }
}

impl ChainService for Desk {
    calls! {
        get_tip(GetTipRequest) -> GetTipResponse { tip: Some(v1::BlockRef { height: 130, hash: TXID.to_owned(), time: None }) }
        estimate_fee(EstimateFeeRequest) -> EstimateFeeResponse { feerate_sat_vb: 2.0 }
        get_node_views(GetNodeViewsRequest) -> GetNodeViewsResponse {
            views: vec![
                v1::NodeView {
                    node_id: 1,
                    reachable: true,
                    bitcoind: Some(v1::BitcoindView { state: v1::BitcoindState::InSync.into(), peers: 8, ..Default::default() }),
                    applied_index: 80,
                    ..Default::default()
                },
                v1::NodeView { node_id: 2, error: "timed out".to_owned(), ..Default::default() },
            ]
        }
    }
}

fn members() -> Vec<v1::Member> {
    let member = |node_id: u64, voter| v1::Member {
        node_id,
        control_address: format!("10.0.0.{node_id}:7801"),
        data_address: format!("10.0.0.{node_id}:7800"),
        voter,
        lag_entries: Some(7),
        ..Default::default()
    };
    vec![member(1, true), member(4, false)]
}

fn history() -> Vec<v1::LeadershipChange> {
    let change = |term, leader_id, seconds| {
        let time = Some(prost_types::Timestamp { seconds, nanos: 0 });
        v1::LeadershipChange { term, leader_id, time }
    };
    vec![change(1, 2, 1_700_000_000), change(2, 1, 1_700_003_600)]
}

/// The messages of a backup, in order; afterwards the stream ends.
#[derive(Clone, Default)]
pub struct Parts(pub Vec<v1::create_backup_response::Part>);

#[tonic::async_trait]
impl ClusterService for Desk {
    type CreateBackupStream = Pin<Box<dyn Stream<Item = Result<v1::CreateBackupResponse, Status>> + Send>>;

    async fn create_backup(
        &self,
        request: Request<v1::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        let Parts(parts) = self.take(request, Parts::default()).await?.into_inner();
        let message = |part| Ok(v1::CreateBackupResponse { part: Some(part), applied_index: 81, term: 2 });
        let parts: Vec<_> = parts.into_iter().map(message).collect();
        Ok(Response::new(Box::pin(futures::stream::iter(parts))))
    }

    calls! {
        get_status(GetStatusRequest) -> GetStatusResponse {
            cluster_id: "demo".to_owned(), node_id: 1, role: v1::NodeRole::Leader.into(), term: 2, leader_id: 1, network: "regtest".to_owned()
        }
        get_recovery(GetRecoveryRequest) -> GetRecoveryResponse { recovery: Some(recovery()) }
        confirm_recovery(ConfirmRecoveryRequest) -> ConfirmRecoveryResponse {
            recovery: Some(v1::Recovery { epoch: 1, ..Default::default() }), applied_index: 82, term: 2,
            node_id: 2, accepted_signers: vec!["hot".to_owned()]
        }
        get_history(GetHistoryRequest) -> GetHistoryResponse { node_id: 1, leadership: history() }
        drain_node(DrainNodeRequest) -> DrainNodeResponse { leader_id: 1, applied_index: 86, term: 3 }
        undrain_node(UndrainNodeRequest) -> UndrainNodeResponse { leader_id: 1, applied_index: 86, term: 3 }
        move_node(MoveNodeRequest) -> MoveNodeResponse { members: members(), applied_index: 87, term: 3 }
        add_learner(AddLearnerRequest) -> AddLearnerResponse { members: members(), applied_index: 83, term: 2 }
        promote_learner(PromoteLearnerRequest) -> PromoteLearnerResponse {
            members: members(), applied_index: 84, term: 2, warnings: vec!["its bitcoind is not in sync".to_owned()]
        }
        remove_node(RemoveNodeRequest) -> RemoveNodeResponse { members: members(), applied_index: 85, term: 2 }
        transfer_leadership(TransferLeadershipRequest) -> TransferLeadershipResponse { leader_id: 2, applied_index: 81, term: 3 }
    }
}
