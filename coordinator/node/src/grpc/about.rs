//! What each request is about: what it names. The policy judges it by its wallet, or as one about the cluster; log and
//! traces show all of it.
//!
//! A name is as the caller wrote it: it is not known yet whether there is such a wallet. A reservation is named by its
//! id alone; that its owner asks is checked where the reservation changes (safety 28).

use onespend_policies::{Resource, WalletName};
use onespend_proto::v1;

/// What a request names; empty where it names nothing of the kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(clippy::struct_field_names)] // As in the messages.
pub(crate) struct Names<'a> {
    pub(crate) request_id: &'a str,
    pub(crate) wallet_id: &'a str,
    pub(crate) payment_id: &'a str,
    pub(crate) reservation_id: &'a str,
}

/// A request of a caller.
pub(crate) trait About {
    /// What it names.
    fn names(&self) -> Names<'_>;

    /// What it is about.
    fn resource(&self) -> Resource<'_> {
        match self.names().wallet_id {
            "" => Resource::Cluster,
            name => Resource::Wallet(WalletName(name)),
        }
    }
}

macro_rules! names {
    ($request:ident [$($field:ident)*]) => {
        impl About for v1::$request {
            #[allow(clippy::needless_update)] // SignPsbt has all of them.
            fn names(&self) -> Names<'_> {
                Names { $($field: &self.$field,)* ..Names::default() }
            }
        }
    };
}

macro_rules! about {
    ($($fields:tt => $($request:ident)*;)*) => {$($(names! { $request $fields })*)*};
}

about! {
    [] => ListWalletsRequest GetTipRequest EstimateFeeRequest GetNodeViewsRequest GetStatusRequest GetHistoryRequest
        GetRecoveryRequest;
    [request_id] => DrainNodeRequest UndrainNodeRequest TransferLeadershipRequest AddLearnerRequest
        PromoteLearnerRequest RemoveNodeRequest MoveNodeRequest ConfirmRecoveryRequest CreateBackupRequest;
    [wallet_id] => GetWalletRequest GetBalanceRequest ListUtxosRequest ListAuditEventsRequest ListPaymentsRequest;
    [reservation_id] => GetReservationRequest;
    [request_id reservation_id] => RenewReservationRequest ReleaseReservationRequest;
    [wallet_id payment_id] => ListReservationsRequest GetPaymentRequest WatchPaymentsRequest;
    [wallet_id reservation_id] => WatchReservationsRequest;
    [request_id wallet_id] => RegisterWalletRequest NewAddressRequest SetLimitsRequest FreezeWalletRequest
        UnfreezeWalletRequest RegisterOutpointsRequest ReleaseQuarantinedRequest DeclareLostRequest;
    [request_id wallet_id payment_id] => ReserveUtxosRequest CreatePaymentRequest BumpFeeRequest BumpFeeCpfpRequest
        CancelPaymentRequest AbortAttemptRequest SubmitSignedTransactionRequest;
    [request_id wallet_id payment_id reservation_id] => SignPsbtRequest;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use onespend_proto::FILE_DESCRIPTOR_SET;
    use prost::Message;
    use prost_types::{FieldDescriptorProto, FileDescriptorSet};

    use super::*;

    #[test]
    fn the_policy_is_told_which_wallet_a_request_names() {
        let pay = v1::CreatePaymentRequest { wallet_id: "hot".to_owned(), ..Default::default() };
        assert_eq!(pay.resource(), Resource::Wallet(WalletName("hot")));
        let of_all = v1::ListPaymentsRequest::default();
        assert_eq!(of_all.resource(), Resource::Cluster);
        assert_eq!(v1::GetTipRequest::default().resource(), Resource::Cluster);
    }

    #[test]
    fn each_name_is_the_field_of_that_name() {
        let sign = v1::SignPsbtRequest {
            request_id: "q".to_owned(),
            wallet_id: "w".to_owned(),
            payment_id: "p".to_owned(),
            reservation_id: "r-1".to_owned(),
            ..Default::default()
        };
        let names = Names { request_id: "q", wallet_id: "w", payment_id: "p", reservation_id: "r-1" };
        assert_eq!(sign.names(), names);
        assert_eq!(v1::GetTipRequest::default().names(), Names::default());
    }

    /// A request that gets a wallet later must not stay one about the cluster, nor one without the id that it gets. The
    /// other way round it does not compile.
    #[test]
    fn no_request_leaves_out_what_it_names() {
        let text = include_str!("about.rs");
        let listed = text.split("\nabout! {").nth(1).unwrap().split("\n}").next().unwrap();
        let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        let messages: Vec<_> = set.file.iter().flat_map(|file| &file.message_type).collect();
        let is_a_name = |field: &&str| ["request_id", "wallet_id", "payment_id", "reservation_id"].contains(field);
        let mut checked = 0;
        for group in listed.trim().trim_end_matches(';').split(';') {
            let (names, requests) = group.split_once("=>").unwrap();
            let names: BTreeSet<&str> = names.trim().trim_matches(['[', ']']).split_whitespace().collect();
            for request in requests.split_whitespace() {
                let message = messages.iter().find(|message| message.name() == request).unwrap();
                let fields = message.field.iter().map(FieldDescriptorProto::name);
                let wanted: BTreeSet<&str> = fields.filter(is_a_name).collect();
                assert_eq!(names, wanted, "{request}");
                checked += 1;
            }
        }
        assert!(checked > 40, "{checked} of {listed}");
    }
}
