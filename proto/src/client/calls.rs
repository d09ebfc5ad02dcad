//! A typed method for every rpc.

use super::retry::{self, Bounds};
use super::{Client, ClientError, fill_request_id};
use crate::v1;
use crate::v1::chain_service_client::ChainServiceClient;
use crate::v1::cluster_service_client::ClusterServiceClient;
use crate::v1::payment_service_client::PaymentServiceClient;
use crate::v1::reservation_service_client::ReservationServiceClient;
use crate::v1::wallet_service_client::WalletServiceClient;

/// Sends one unary rpc on a plane.
macro_rules! send {
    ($self:ident, $plane:ident, $bounds:expr, $request_id:expr, $request:ident, $service:ident, $method:ident) => {{
        let limit = $self.inner.config.max_message_bytes;
        let send = move |channel, request| async move {
            let client = $service::new(channel).max_decoding_message_size(limit).max_encoding_message_size(limit);
            let mut client = client;
            client.$method(request).await
        };
        retry::call($self.$plane(), $bounds, $request_id, $request, send).await
    }};
}

/// Methods for mutations: an empty request id is filled in, and all tries carry the same one.
macro_rules! mutations {
    ($($(#[$doc:meta])* $plane:ident $service:ident $method:ident($request:ident) -> $response:ident, $bounds:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// An empty `request_id` is filled in with a UUID.
                ///
                /// # Errors
                /// [`ClientError::Rejected`] with the reasons that the rpc names, or [`ClientError::Unknown`] with the
                /// request id to ask again with.
                pub async fn $method(&self, mut request: v1::$request) -> Result<v1::$response, ClientError> {
                    fill_request_id(&mut request.request_id);
                    let id = request.request_id.clone();
                    send!(self, $plane, self.$bounds(), &id, request, $service, $method)
                }
            )*
        }
    };
}

/// Methods for reads.
macro_rules! reads {
    ($($(#[$doc:meta])* $plane:ident $service:ident $method:ident($request:ident) -> $response:ident, $bounds:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// [`ClientError::Rejected`] with the reasons that the rpc names, or [`ClientError::Unknown`] when no
                /// node answered in time.
                pub async fn $method(&self, request: v1::$request) -> Result<v1::$response, ClientError> {
                    send!(self, $plane, self.$bounds(), "", request, $service, $method)
                }
            )*
        }
    };
}

mutations! {
    /// Adds a wallet; waits for the scan of the UTXO set, up to `long_deadline`.
    data_plane WalletServiceClient register_wallet(RegisterWalletRequest) -> RegisterWalletResponse, long_bounds;
    /// Hands out an address.
    data_plane WalletServiceClient new_address(NewAddressRequest) -> NewAddressResponse, quick_bounds;
    /// Replaces a wallet's limits.
    data_plane WalletServiceClient set_limits(SetLimitsRequest) -> SetLimitsResponse, bounds;
    /// Stops new reservations and intents of a wallet.
    data_plane WalletServiceClient freeze_wallet(FreezeWalletRequest) -> FreezeWalletResponse, bounds;
    /// Allows them again.
    data_plane WalletServiceClient unfreeze_wallet(UnfreezeWalletRequest) -> UnfreezeWalletResponse, bounds;
    /// Follows single coins for a wallet without descriptors.
    data_plane WalletServiceClient register_outpoints(RegisterOutpointsRequest) -> RegisterOutpointsResponse, bounds;
    /// Frees coins that were held back.
    data_plane WalletServiceClient release_quarantined(ReleaseQuarantinedRequest) -> ReleaseQuarantinedResponse, bounds;
    /// Gives up a coin that cannot come back.
    data_plane WalletServiceClient declare_lost(DeclareLostRequest) -> DeclareLostResponse, bounds;
    /// Claims coins.
    data_plane ReservationServiceClient reserve_utxos(ReserveUtxosRequest) -> ReserveUtxosResponse, quick_bounds;
    /// Moves a reservation's expiry.
    data_plane ReservationServiceClient renew_reservation(RenewReservationRequest) -> RenewReservationResponse, quick_bounds;
    /// Gives coins back.
    data_plane ReservationServiceClient release_reservation(ReleaseReservationRequest) -> ReleaseReservationResponse, quick_bounds;
    /// Orders a payment.
    data_plane PaymentServiceClient create_payment(CreatePaymentRequest) -> CreatePaymentResponse, bounds;
    /// Asks for a signature on the caller's own transaction.
    data_plane PaymentServiceClient sign_psbt(SignPsbtRequest) -> SignPsbtResponse, bounds;
    /// Pays more fees by a replacement.
    data_plane PaymentServiceClient bump_fee(BumpFeeRequest) -> BumpFeeResponse, bounds;
    /// Lets a child pay more fees.
    data_plane PaymentServiceClient bump_fee_cpfp(BumpFeeCpfpRequest) -> BumpFeeCpfpResponse, bounds;
    /// Gives a payment's coins back.
    data_plane PaymentServiceClient cancel_payment(CancelPaymentRequest) -> CancelPaymentResponse, bounds;
    /// Brings an external signer's word that it has fenced an attempt.
    data_plane PaymentServiceClient abort_attempt(AbortAttemptRequest) -> AbortAttemptResponse, bounds;
    /// Brings the signed transaction of a wallet that is signed for outside.
    data_plane PaymentServiceClient submit_signed_transaction(SubmitSignedTransactionRequest) -> SubmitSignedTransactionResponse, bounds;
    /// Ends recovery mode; waits for the comparison of every coin, up to `long_deadline`, but for a
    /// node that takes the call no longer than `deadline`. Needs control endpoints.
    control_plane ClusterServiceClient confirm_recovery(ConfirmRecoveryRequest) -> ConfirmRecoveryResponse, patient_bounds;
    /// Lets a new node receive the log. Needs control endpoints.
    control_plane ClusterServiceClient add_learner(AddLearnerRequest) -> AddLearnerResponse, bounds;
    /// Gives a learner its vote. Needs control endpoints.
    control_plane ClusterServiceClient promote_learner(PromoteLearnerRequest) -> PromoteLearnerResponse, bounds;
    /// Removes a node. Needs control endpoints.
    control_plane ClusterServiceClient remove_node(RemoveNodeRequest) -> RemoveNodeResponse, bounds;
    /// Changes where a member is reached. Needs control endpoints.
    control_plane ClusterServiceClient move_node(MoveNodeRequest) -> MoveNodeResponse, bounds;
    /// Takes a node out of rotation. Needs control endpoints.
    control_plane ClusterServiceClient drain_node(DrainNodeRequest) -> DrainNodeResponse, bounds;
    /// Puts a drained node back into rotation. Needs control endpoints.
    control_plane ClusterServiceClient undrain_node(UndrainNodeRequest) -> UndrainNodeResponse, bounds;
}

reads! {
    /// Reads one wallet.
    data_plane WalletServiceClient get_wallet(GetWalletRequest) -> GetWalletResponse, quick_bounds;
    /// Lists wallets.
    data_plane WalletServiceClient list_wallets(ListWalletsRequest) -> ListWalletsResponse, bounds;
    /// Sums a wallet's coins.
    data_plane WalletServiceClient get_balance(GetBalanceRequest) -> GetBalanceResponse, quick_bounds;
    /// Lists a wallet's coins.
    data_plane WalletServiceClient list_utxos(ListUtxosRequest) -> ListUtxosResponse, bounds;
    /// Lists what operators did, and must see.
    data_plane WalletServiceClient list_audit_events(ListAuditEventsRequest) -> ListAuditEventsResponse, bounds;
    /// Reads one reservation.
    data_plane ReservationServiceClient get_reservation(GetReservationRequest) -> GetReservationResponse, quick_bounds;
    /// Lists reservations.
    data_plane ReservationServiceClient list_reservations(ListReservationsRequest) -> ListReservationsResponse, bounds;
    /// Reads one payment; always linearizable.
    data_plane PaymentServiceClient get_payment(GetPaymentRequest) -> GetPaymentResponse, quick_bounds;
    /// Lists payments.
    data_plane PaymentServiceClient list_payments(ListPaymentsRequest) -> ListPaymentsResponse, bounds;
    /// Reads the tip.
    data_plane ChainServiceClient get_tip(GetTipRequest) -> GetTipResponse, quick_bounds;
    /// Asks for a feerate estimate.
    data_plane ChainServiceClient estimate_fee(EstimateFeeRequest) -> EstimateFeeResponse, slow_bounds;
    /// Asks for every node's view of its own bitcoind.
    data_plane ChainServiceClient get_node_views(GetNodeViewsRequest) -> GetNodeViewsResponse, slow_bounds;
    /// Reads whether the cluster is in recovery mode. Needs control endpoints.
    control_plane ClusterServiceClient get_recovery(GetRecoveryRequest) -> GetRecoveryResponse, bounds;
    /// Asks whichever node answers for its status. Needs control endpoints.
    control_plane ClusterServiceClient get_status(GetStatusRequest) -> GetStatusResponse, bounds;
    /// Asks whichever node answers who led. Needs control endpoints.
    control_plane ClusterServiceClient get_history(GetHistoryRequest) -> GetHistoryResponse, bounds;
}

impl Client {
    /// Hands leadership over. Name the node: a try without an answer is repeated then. Without a name it is not, for the
    /// new leader would hand on again. Needs control endpoints.
    ///
    /// An empty `request_id` is filled in with a UUID.
    ///
    /// # Errors
    /// As [`Client::confirm_recovery`].
    pub async fn transfer_leadership(
        &self,
        mut request: v1::TransferLeadershipRequest,
    ) -> Result<v1::TransferLeadershipResponse, ClientError> {
        fill_request_id(&mut request.request_id);
        let id = request.request_id.clone();
        let bounds = if request.node_id == 0 { self.bounds_of_one_try() } else { self.bounds() };
        send!(self, control_plane, bounds, &id, request, ClusterServiceClient, transfer_leadership)
    }

    fn bounds(&self) -> Bounds {
        let config = &self.inner.config;
        let try_timeout = config.try_timeout;
        let deadline = self.deadline;
        Bounds { deadline, last_begin: deadline, first_try: try_timeout, try_timeout, announced: true, repeats: true }
    }

    /// For what is not repeated once a try had no answer: it has all the time.
    fn bounds_of_one_try(&self) -> Bounds {
        Bounds { first_try: self.deadline, try_timeout: self.deadline, repeats: false, ..self.bounds() }
    }

    /// For what a leader answers from memory or by one entry of the log: one that is silent is left soon.
    fn quick_bounds(&self) -> Bounds {
        Bounds { first_try: self.inner.config.first_try_timeout, ..self.bounds() }
    }

    /// For reads that make the node ask others, which it does for up to a second.
    fn slow_bounds(&self) -> Bounds {
        let try_timeout = self.inner.config.try_timeout * 3;
        Bounds { first_try: try_timeout, try_timeout, ..self.bounds() }
    }

    /// For what takes as long as there are coins: one answer is waited for, because each try would begin again.
    fn long_bounds(&self) -> Bounds {
        let bound = self.inner.config.long_deadline;
        Bounds { deadline: bound, last_begin: bound, first_try: bound, try_timeout: bound, ..self.bounds() }
    }

    /// The same for whoever looks on: what is refused, or reaches nobody, is not tried for as long as that.
    fn patient_bounds(&self) -> Bounds {
        Bounds { last_begin: self.deadline, ..self.long_bounds() }
    }

    /// For opening a stream: the bound is on its first answer, and the node must not hear of it.
    pub(super) fn stream_bounds(&self) -> Bounds {
        Bounds { announced: false, ..self.bounds() }
    }

    /// Asks one node, by its control address, for its status, for as long as one try may take.
    ///
    /// # Errors
    /// As [`Client::get_status`].
    pub async fn get_status_of(&self, address: &str) -> Result<v1::GetStatusResponse, ClientError> {
        let alone = Client::alone(&self.inner.config, address, self.inner.config.try_timeout)?;
        alone.get_status(v1::GetStatusRequest {}).await
    }

    /// Asks one node, by its control address, who led, for as long as one try may take.
    ///
    /// # Errors
    /// As [`Client::get_history`].
    pub async fn get_history_of(&self, address: &str) -> Result<v1::GetHistoryResponse, ClientError> {
        let alone = Client::alone(&self.inner.config, address, self.inner.config.try_timeout)?;
        alone.get_history(v1::GetHistoryRequest {}).await
    }
}
