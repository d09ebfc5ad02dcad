//! What each request is about, as the policy judges it: the wallet that it names, or the cluster.
//!
//! The name is as the caller wrote it: it is not known yet whether there is such a wallet. A reservation is named by its
//! id alone; that its owner asks is checked where the reservation changes (safety 28).

use onespend_policies::{Resource, WalletName};
use onespend_proto::v1;

/// A request of a caller.
pub(crate) trait About {
    /// What it is about.
    fn resource(&self) -> Resource<'_>;
}

macro_rules! wallet {
    ($($request:ident)*) => {$(
        impl About for v1::$request {
            fn resource(&self) -> Resource<'_> {
                match self.wallet_id.as_str() {
                    "" => Resource::Cluster,
                    name => Resource::Wallet(WalletName(name)),
                }
            }
        }
    )*};
}

macro_rules! cluster {
    ($($request:ident)*) => {$(
        impl About for v1::$request {
            fn resource(&self) -> Resource<'_> {
                Resource::Cluster
            }
        }
    )*};
}

wallet! {
    RegisterWalletRequest GetWalletRequest GetBalanceRequest ListUtxosRequest NewAddressRequest SetLimitsRequest
    FreezeWalletRequest UnfreezeWalletRequest RegisterOutpointsRequest ReleaseQuarantinedRequest DeclareLostRequest
    ListAuditEventsRequest ReserveUtxosRequest ListReservationsRequest CreatePaymentRequest SignPsbtRequest
    BumpFeeRequest BumpFeeCpfpRequest CancelPaymentRequest AbortAttemptRequest SubmitSignedTransactionRequest
    GetPaymentRequest ListPaymentsRequest WatchPaymentsRequest WatchReservationsRequest
}

cluster! {
    ListWalletsRequest RenewReservationRequest ReleaseReservationRequest GetReservationRequest GetTipRequest
    EstimateFeeRequest GetNodeViewsRequest GetStatusRequest GetHistoryRequest DrainNodeRequest UndrainNodeRequest
    TransferLeadershipRequest AddLearnerRequest PromoteLearnerRequest RemoveNodeRequest MoveNodeRequest
    GetRecoveryRequest ConfirmRecoveryRequest CreateBackupRequest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use onespend_proto::FILE_DESCRIPTOR_SET;
    use prost::Message;
    use prost_types::{DescriptorProto, FileDescriptorSet};

    use super::*;

    #[test]
    fn the_policy_is_told_which_wallet_a_request_names() {
        let pay = v1::CreatePaymentRequest { wallet_id: "hot".to_owned(), ..Default::default() };
        assert_eq!(pay.resource(), Resource::Wallet(WalletName("hot")));
        let of_all = v1::ListPaymentsRequest::default();
        assert_eq!(of_all.resource(), Resource::Cluster);
        assert_eq!(v1::GetTipRequest::default().resource(), Resource::Cluster);
    }

    /// A request that gets a wallet later must not stay one about the cluster. The other way round it does not compile.
    #[test]
    fn no_request_that_names_a_wallet_is_about_the_cluster() {
        let text = include_str!("about.rs");
        let listed = text.split("\ncluster! {").nth(1).unwrap().split('}').next().unwrap();
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let names_a_wallet = |message: &&DescriptorProto| message.field.iter().any(|field| field.name() == "wallet_id");
        let messages: Vec<_> = set.file.iter().flat_map(|file| &file.message_type).collect();
        let named: Vec<_> = messages.into_iter().filter(names_a_wallet).map(DescriptorProto::name).collect();
        assert!(named.contains(&"CreatePaymentRequest"), "{named:?}");
        let wrong: Vec<_> = listed.split_whitespace().filter(|request| named.contains(request)).collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}
