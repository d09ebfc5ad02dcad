//! The tonic services: one line per rpc, which says what it is and where it runs. The work is in each rpc's own file.

use std::sync::Arc;

use onespend_policies::Action;
use onespend_proto::v1;
use onespend_proto::v1::chain_service_server::ChainService;
use onespend_proto::v1::cluster_service_server::ClusterService;
use onespend_proto::v1::payment_service_server::PaymentService;
use onespend_proto::v1::reservation_service_server::ReservationService;
use onespend_proto::v1::wallet_service_server::WalletService;
use tonic::{Request, Response, Status};
use tracing::Instrument;

use super::abort_attempt::abort_attempt;
use super::api::Api;
use super::bump_fee::bump_fee;
use super::bump_fee_cpfp::bump_fee_cpfp;
use super::cancel_payment::cancel_payment;
use super::chain_view::{estimate_fee, get_node_views, get_tip};
use super::change_wallet::{freeze_wallet, set_limits, unfreeze_wallet};
use super::confirm_recovery::confirm_recovery;
use super::create_backup::{Parts, create_backup};
use super::create_payment::create_payment;
use super::declare_lost::declare_lost;
use super::drain_node::{drain_node, undrain_node};
use super::get_balance::get_balance;
use super::get_history::get_history;
use super::get_payment::get_payment;
use super::get_recovery::get_recovery;
use super::get_reservation::get_reservation;
use super::get_status::get_status;
use super::get_wallet::get_wallet;
use super::list_audit_events::list_audit_events;
use super::list_payments::list_payments;
use super::list_reservations::list_reservations;
use super::list_utxos::list_utxos;
use super::list_wallets::list_wallets;
use super::membership::{add_learner, move_node, promote_learner, remove_node};
use super::new_address::new_address;
use super::observe;
use super::register_outpoints::register_outpoints;
use super::register_wallet::register_wallet;
use super::release_quarantined::release_quarantined;
use super::release_reservation::release_reservation;
use super::renew_reservation::renew_reservation;
use super::reserve_utxos::reserve_utxos;
use super::sign_psbt::sign_psbt;
use super::submit_signed_transaction::submit_signed_transaction;
use super::transfer_leadership::transfer_leadership;
use super::watch::Changes;
use super::watch_payments::watch_payments;
use super::watch_reservations::watch_reservations;

/// All services, over one [`Api`].
#[derive(Clone)]
pub(crate) struct Services(pub(crate) Arc<Api>);

type Answer<T> = Result<Response<T>, Status>;

/// A mutation: runs on the leader, here or there.
macro_rules! mutation {
    ($self:ident, $request:ident, $action:ident, $run:path, $client:ident . $method:ident) => {
        $self
            .0
            .mutate(Action::$action, $request, $run, |mut leader, request| async move {
                leader.$client.$method(request).await
            })
            .await
    };
}

/// A read with the consistency that its caller names.
macro_rules! read {
    ($self:ident, $request:ident, $action:ident, $run:path, $client:ident . $method:ident) => {{
        let consistency = $request.get_ref().consistency.clone();
        read!($self, $request, $action, $run, $client.$method, consistency)
    }};
    ($self:ident, $request:ident, $action:ident, $run:path, $client:ident . $method:ident, $consistency:expr) => {
        $self
            .0
            .read(Action::$action, $consistency, $request, $run, |mut leader, request| async move {
                leader.$client.$method(request).await
            })
            .await
    };
}

/// What the node that the request names does, whoever leads.
macro_rules! named {
    ($self:ident, $request:ident, $action:ident, $run:path, $client:ident . $method:ident) => {{
        let node = $request.get_ref().node_id;
        $self
            .0
            .at_node(Action::$action, node, $request, $run, |mut there, request| async move {
                there.$client.$method(request).await
            })
            .await
    }};
}

/// What this node answers of itself, whoever leads.
macro_rules! here {
    ($self:ident, $request:ident, $action:ident, $run:expr) => {{
        let observed = observe::start(Action::$action, &$request);
        let span = observed.span();
        let answer = async {
            let (_, call) = $self.0.admit(Action::$action, &$request)?;
            $run(Arc::clone(&$self.0), call, $request.into_inner()).await.map(Response::new)
        };
        observed.end(answer.instrument(span).await)
    }};
}

#[tonic::async_trait]
impl WalletService for Services {
    async fn register_wallet(&self, r: Request<v1::RegisterWalletRequest>) -> Answer<v1::RegisterWalletResponse> {
        mutation!(self, r, RegisterWallet, register_wallet, wallet.register_wallet)
    }

    async fn get_wallet(&self, r: Request<v1::GetWalletRequest>) -> Answer<v1::GetWalletResponse> {
        read!(self, r, GetWallet, get_wallet, wallet.get_wallet)
    }

    async fn list_wallets(&self, r: Request<v1::ListWalletsRequest>) -> Answer<v1::ListWalletsResponse> {
        read!(self, r, ListWallets, list_wallets, wallet.list_wallets)
    }

    async fn get_balance(&self, r: Request<v1::GetBalanceRequest>) -> Answer<v1::GetBalanceResponse> {
        read!(self, r, GetBalance, get_balance, wallet.get_balance)
    }

    async fn list_utxos(&self, r: Request<v1::ListUtxosRequest>) -> Answer<v1::ListUtxosResponse> {
        read!(self, r, ListUtxos, list_utxos, wallet.list_utxos)
    }

    async fn new_address(&self, r: Request<v1::NewAddressRequest>) -> Answer<v1::NewAddressResponse> {
        mutation!(self, r, NewAddress, new_address, wallet.new_address)
    }

    async fn set_limits(&self, r: Request<v1::SetLimitsRequest>) -> Answer<v1::SetLimitsResponse> {
        mutation!(self, r, SetLimits, set_limits, wallet.set_limits)
    }

    async fn freeze_wallet(&self, r: Request<v1::FreezeWalletRequest>) -> Answer<v1::FreezeWalletResponse> {
        mutation!(self, r, FreezeWallet, freeze_wallet, wallet.freeze_wallet)
    }

    async fn unfreeze_wallet(&self, r: Request<v1::UnfreezeWalletRequest>) -> Answer<v1::UnfreezeWalletResponse> {
        mutation!(self, r, UnfreezeWallet, unfreeze_wallet, wallet.unfreeze_wallet)
    }

    async fn register_outpoints(
        &self,
        r: Request<v1::RegisterOutpointsRequest>,
    ) -> Answer<v1::RegisterOutpointsResponse> {
        mutation!(self, r, RegisterOutpoints, register_outpoints, wallet.register_outpoints)
    }

    async fn release_quarantined(
        &self,
        r: Request<v1::ReleaseQuarantinedRequest>,
    ) -> Answer<v1::ReleaseQuarantinedResponse> {
        mutation!(self, r, ReleaseQuarantined, release_quarantined, wallet.release_quarantined)
    }

    async fn declare_lost(&self, r: Request<v1::DeclareLostRequest>) -> Answer<v1::DeclareLostResponse> {
        mutation!(self, r, DeclareLost, declare_lost, wallet.declare_lost)
    }

    async fn list_audit_events(&self, r: Request<v1::ListAuditEventsRequest>) -> Answer<v1::ListAuditEventsResponse> {
        read!(self, r, ListAuditEvents, list_audit_events, wallet.list_audit_events)
    }
}

#[tonic::async_trait]
impl ReservationService for Services {
    type WatchReservationsStream = Changes<v1::WatchReservationsResponse>;

    async fn reserve_utxos(&self, r: Request<v1::ReserveUtxosRequest>) -> Answer<v1::ReserveUtxosResponse> {
        mutation!(self, r, ReserveUtxos, reserve_utxos, reservation.reserve_utxos)
    }

    async fn renew_reservation(&self, r: Request<v1::RenewReservationRequest>) -> Answer<v1::RenewReservationResponse> {
        mutation!(self, r, RenewReservation, renew_reservation, reservation.renew_reservation)
    }

    async fn release_reservation(
        &self,
        r: Request<v1::ReleaseReservationRequest>,
    ) -> Answer<v1::ReleaseReservationResponse> {
        mutation!(self, r, ReleaseReservation, release_reservation, reservation.release_reservation)
    }

    async fn get_reservation(&self, r: Request<v1::GetReservationRequest>) -> Answer<v1::GetReservationResponse> {
        read!(self, r, GetReservation, get_reservation, reservation.get_reservation)
    }

    async fn list_reservations(&self, r: Request<v1::ListReservationsRequest>) -> Answer<v1::ListReservationsResponse> {
        read!(self, r, ListReservations, list_reservations, reservation.list_reservations)
    }

    async fn watch_reservations(
        &self,
        r: Request<v1::WatchReservationsRequest>,
    ) -> Answer<Self::WatchReservationsStream> {
        // Observed until the stream is open, as the other one.
        here!(self, r, WatchReservations, |api: Arc<Api>, _, message| std::future::ready(watch_reservations(
            &api, &message
        )))
    }
}

#[tonic::async_trait]
impl PaymentService for Services {
    type WatchPaymentsStream = Changes<v1::WatchPaymentsResponse>;

    async fn create_payment(&self, r: Request<v1::CreatePaymentRequest>) -> Answer<v1::CreatePaymentResponse> {
        mutation!(self, r, CreatePayment, create_payment, payment.create_payment)
    }

    async fn sign_psbt(&self, r: Request<v1::SignPsbtRequest>) -> Answer<v1::SignPsbtResponse> {
        mutation!(self, r, SignPsbt, sign_psbt, payment.sign_psbt)
    }

    async fn bump_fee(&self, r: Request<v1::BumpFeeRequest>) -> Answer<v1::BumpFeeResponse> {
        mutation!(self, r, BumpFee, bump_fee, payment.bump_fee)
    }

    async fn bump_fee_cpfp(&self, r: Request<v1::BumpFeeCpfpRequest>) -> Answer<v1::BumpFeeCpfpResponse> {
        mutation!(self, r, BumpFeeCpfp, bump_fee_cpfp, payment.bump_fee_cpfp)
    }

    async fn cancel_payment(&self, r: Request<v1::CancelPaymentRequest>) -> Answer<v1::CancelPaymentResponse> {
        mutation!(self, r, CancelPayment, cancel_payment, payment.cancel_payment)
    }

    async fn abort_attempt(&self, r: Request<v1::AbortAttemptRequest>) -> Answer<v1::AbortAttemptResponse> {
        mutation!(self, r, AbortAttempt, abort_attempt, payment.abort_attempt)
    }

    async fn submit_signed_transaction(
        &self,
        r: Request<v1::SubmitSignedTransactionRequest>,
    ) -> Answer<v1::SubmitSignedTransactionResponse> {
        mutation!(self, r, SubmitSignedTransaction, submit_signed_transaction, payment.submit_signed_transaction)
    }

    async fn get_payment(&self, r: Request<v1::GetPaymentRequest>) -> Answer<v1::GetPaymentResponse> {
        read!(self, r, GetPayment, get_payment, payment.get_payment, None)
    }

    async fn list_payments(&self, r: Request<v1::ListPaymentsRequest>) -> Answer<v1::ListPaymentsResponse> {
        read!(self, r, ListPayments, list_payments, payment.list_payments)
    }

    async fn watch_payments(&self, r: Request<v1::WatchPaymentsRequest>) -> Answer<Self::WatchPaymentsStream> {
        // Observed until the stream is open: how long it then lasts is up to the caller.
        here!(self, r, WatchPayments, |api: Arc<Api>, _, message| std::future::ready(watch_payments(&api, &message)))
    }
}

#[tonic::async_trait]
impl ChainService for Services {
    async fn get_tip(&self, r: Request<v1::GetTipRequest>) -> Answer<v1::GetTipResponse> {
        read!(self, r, GetTip, get_tip, chain.get_tip)
    }

    async fn estimate_fee(&self, r: Request<v1::EstimateFeeRequest>) -> Answer<v1::EstimateFeeResponse> {
        read!(self, r, EstimateFee, estimate_fee, chain.estimate_fee, None)
    }

    async fn get_node_views(&self, r: Request<v1::GetNodeViewsRequest>) -> Answer<v1::GetNodeViewsResponse> {
        here!(self, r, GetNodeViews, |api, _, _| get_node_views(api))
    }
}

#[tonic::async_trait]
impl ClusterService for Services {
    type CreateBackupStream = Parts;

    async fn get_status(&self, r: Request<v1::GetStatusRequest>) -> Answer<v1::GetStatusResponse> {
        here!(self, r, GetStatus, |api: Arc<Api>, _, _| std::future::ready(Ok(get_status(&api))))
    }

    async fn get_history(&self, r: Request<v1::GetHistoryRequest>) -> Answer<v1::GetHistoryResponse> {
        here!(self, r, GetHistory, |api: Arc<Api>, _, _| std::future::ready(Ok(get_history(&api))))
    }

    async fn drain_node(&self, r: Request<v1::DrainNodeRequest>) -> Answer<v1::DrainNodeResponse> {
        named!(self, r, DrainNode, drain_node, cluster.drain_node)
    }

    async fn undrain_node(&self, r: Request<v1::UndrainNodeRequest>) -> Answer<v1::UndrainNodeResponse> {
        named!(self, r, UndrainNode, undrain_node, cluster.undrain_node)
    }

    async fn transfer_leadership(
        &self,
        r: Request<v1::TransferLeadershipRequest>,
    ) -> Answer<v1::TransferLeadershipResponse> {
        here!(self, r, TransferLeadership, transfer_leadership)
    }

    async fn add_learner(&self, r: Request<v1::AddLearnerRequest>) -> Answer<v1::AddLearnerResponse> {
        here!(self, r, AddLearner, add_learner)
    }

    async fn promote_learner(&self, r: Request<v1::PromoteLearnerRequest>) -> Answer<v1::PromoteLearnerResponse> {
        here!(self, r, PromoteLearner, promote_learner)
    }

    async fn remove_node(&self, r: Request<v1::RemoveNodeRequest>) -> Answer<v1::RemoveNodeResponse> {
        here!(self, r, RemoveNode, remove_node)
    }

    async fn move_node(&self, r: Request<v1::MoveNodeRequest>) -> Answer<v1::MoveNodeResponse> {
        here!(self, r, MoveNode, move_node)
    }

    async fn get_recovery(&self, r: Request<v1::GetRecoveryRequest>) -> Answer<v1::GetRecoveryResponse> {
        read!(self, r, GetRecovery, get_recovery, cluster.get_recovery)
    }

    async fn confirm_recovery(&self, r: Request<v1::ConfirmRecoveryRequest>) -> Answer<v1::ConfirmRecoveryResponse> {
        mutation!(self, r, ConfirmRecovery, confirm_recovery, cluster.confirm_recovery)
    }

    async fn create_backup(&self, r: Request<v1::CreateBackupRequest>) -> Answer<Parts> {
        // Observed until the stream is open: how long it then lasts is up to the caller.
        here!(self, r, CreateBackup, |api: Arc<Api>, call, message| std::future::ready(create_backup(
            &api, &call, &message
        )))
    }
}

#[cfg(test)]
mod tests {
    use onespend_policies::{Action, Class};

    /// Each of the macros admits the caller, and notes latency, code and span.
    #[test]
    fn every_rpc_is_observed() {
        let text = include_str!("services.rs").split("#[cfg(test)]").next().unwrap_or_default();
        let rpcs: Vec<&str> = text.split("    async fn ").skip(1).collect();
        let public = Action::ALL.iter().filter(|action| action.class() != Class::Peer);
        assert_eq!(rpcs.len(), public.count());
        for rpc in rpcs {
            let observed =
                ["mutation!(self", "read!(self", "named!(self", "here!(self"].iter().any(|by| rpc.contains(by));
            assert!(observed, "{rpc}");
        }
    }
}
