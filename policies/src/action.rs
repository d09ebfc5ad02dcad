//! Everything that can be asked of the service, and of what kind it is.

/// One rpc. Closed: a new rpc does not compile into a handler before someone has said here who may
/// call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // Each is the rpc of the same name; the .proto files document them.
pub enum Action {
    RegisterWallet,
    GetWallet,
    ListWallets,
    GetBalance,
    ListUtxos,
    NewAddress,
    SetLimits,
    FreezeWallet,
    UnfreezeWallet,
    RegisterOutpoints,
    ReleaseQuarantined,
    DeclareLost,
    ListAuditEvents,
    ReserveUtxos,
    RenewReservation,
    ReleaseReservation,
    GetReservation,
    ListReservations,
    WatchReservations,
    CreatePayment,
    SignPsbt,
    BumpFee,
    BumpFeeCpfp,
    CancelPayment,
    AbortAttempt,
    SubmitSignedTransaction,
    GetPayment,
    ListPayments,
    WatchPayments,
    GetTip,
    EstimateFee,
    GetNodeViews,
    GetStatus,
    GetHistory,
    DrainNode,
    UndrainNode,
    TransferLeadership,
    AddLearner,
    PromoteLearner,
    RemoveNode,
    MoveNode,
    GetRecovery,
    ConfirmRecovery,
    CreateBackup,
    AppendStream,
    Vote,
    PreVote,
    InstallSnapshot,
    TransferLeader,
    GetNodeView,
    /// Not an rpc: to name, in any rpc, another caller in whose name it is made.
    ForwardCall,
}

/// Actions that the same roles may perform.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Looks at wallets, coins, reservations, payments or the chain.
    Read,
    /// Hands out an address: harmless, but it moves an index through the log.
    Receive,
    /// Reserves, signs, pays, replaces or cancels: money may move.
    Spend,
    /// Gives up a claim on coins.
    Release,
    /// Creates wallets, changes their limits, freezes them, frees what was held back, gives up what is lost, and reads what
    /// was audited.
    WalletAdministration,
    /// Looks at or changes the cluster itself.
    ClusterAdministration,
    /// Between members only.
    Peer,
}

impl Action {
    /// Every action.
    pub const ALL: &'static [Self] = &[
        Self::RegisterWallet,
        Self::GetWallet,
        Self::ListWallets,
        Self::GetBalance,
        Self::ListUtxos,
        Self::NewAddress,
        Self::SetLimits,
        Self::FreezeWallet,
        Self::UnfreezeWallet,
        Self::RegisterOutpoints,
        Self::ReleaseQuarantined,
        Self::DeclareLost,
        Self::ListAuditEvents,
        Self::ReserveUtxos,
        Self::RenewReservation,
        Self::ReleaseReservation,
        Self::GetReservation,
        Self::ListReservations,
        Self::WatchReservations,
        Self::CreatePayment,
        Self::SignPsbt,
        Self::BumpFee,
        Self::BumpFeeCpfp,
        Self::CancelPayment,
        Self::AbortAttempt,
        Self::SubmitSignedTransaction,
        Self::GetPayment,
        Self::ListPayments,
        Self::WatchPayments,
        Self::GetTip,
        Self::EstimateFee,
        Self::GetNodeViews,
        Self::GetStatus,
        Self::GetHistory,
        Self::DrainNode,
        Self::UndrainNode,
        Self::TransferLeadership,
        Self::AddLearner,
        Self::PromoteLearner,
        Self::RemoveNode,
        Self::MoveNode,
        Self::GetRecovery,
        Self::ConfirmRecovery,
        Self::CreateBackup,
        Self::AppendStream,
        Self::Vote,
        Self::PreVote,
        Self::InstallSnapshot,
        Self::TransferLeader,
        Self::GetNodeView,
        Self::ForwardCall,
    ];

    /// Of what kind it is.
    pub fn class(self) -> Class {
        match self {
            Self::GetWallet
            | Self::ListWallets
            | Self::GetBalance
            | Self::ListUtxos
            | Self::GetReservation
            | Self::ListReservations
            | Self::WatchReservations
            | Self::GetPayment
            | Self::ListPayments
            | Self::WatchPayments
            | Self::GetTip
            | Self::EstimateFee
            | Self::GetNodeViews => Class::Read,
            Self::NewAddress => Class::Receive,
            Self::ReserveUtxos
            | Self::RenewReservation
            | Self::CreatePayment
            | Self::SignPsbt
            | Self::BumpFee
            | Self::BumpFeeCpfp
            | Self::CancelPayment
            | Self::AbortAttempt
            | Self::SubmitSignedTransaction => Class::Spend,
            Self::ReleaseReservation => Class::Release,
            Self::RegisterWallet
            | Self::SetLimits
            | Self::FreezeWallet
            | Self::UnfreezeWallet
            | Self::RegisterOutpoints
            | Self::ReleaseQuarantined
            | Self::DeclareLost
            | Self::ListAuditEvents => Class::WalletAdministration,
            Self::GetStatus
            | Self::GetHistory
            | Self::DrainNode
            | Self::UndrainNode
            | Self::TransferLeadership
            | Self::AddLearner
            | Self::PromoteLearner
            | Self::RemoveNode
            | Self::MoveNode
            | Self::GetRecovery
            | Self::ConfirmRecovery
            | Self::CreateBackup => Class::ClusterAdministration,
            Self::AppendStream
            | Self::Vote
            | Self::PreVote
            | Self::InstallSnapshot
            | Self::TransferLeader
            | Self::GetNodeView
            | Self::ForwardCall => Class::Peer,
        }
    }

    /// The rpc's name, as in the `.proto` files.
    pub fn name(self) -> &'static str {
        match self {
            Self::RegisterWallet => "RegisterWallet",
            Self::GetWallet => "GetWallet",
            Self::ListWallets => "ListWallets",
            Self::GetBalance => "GetBalance",
            Self::ListUtxos => "ListUtxos",
            Self::NewAddress => "NewAddress",
            Self::SetLimits => "SetLimits",
            Self::FreezeWallet => "FreezeWallet",
            Self::UnfreezeWallet => "UnfreezeWallet",
            Self::RegisterOutpoints => "RegisterOutpoints",
            Self::ReleaseQuarantined => "ReleaseQuarantined",
            Self::DeclareLost => "DeclareLost",
            Self::ListAuditEvents => "ListAuditEvents",
            Self::ReserveUtxos => "ReserveUtxos",
            Self::RenewReservation => "RenewReservation",
            Self::ReleaseReservation => "ReleaseReservation",
            Self::GetReservation => "GetReservation",
            Self::ListReservations => "ListReservations",
            Self::WatchReservations => "WatchReservations",
            Self::CreatePayment => "CreatePayment",
            Self::SignPsbt => "SignPsbt",
            Self::BumpFee => "BumpFee",
            Self::BumpFeeCpfp => "BumpFeeCpfp",
            Self::CancelPayment => "CancelPayment",
            Self::AbortAttempt => "AbortAttempt",
            Self::SubmitSignedTransaction => "SubmitSignedTransaction",
            Self::GetPayment => "GetPayment",
            Self::ListPayments => "ListPayments",
            Self::WatchPayments => "WatchPayments",
            Self::GetTip => "GetTip",
            Self::EstimateFee => "EstimateFee",
            Self::GetNodeViews => "GetNodeViews",
            Self::GetStatus => "GetStatus",
            Self::GetHistory => "GetHistory",
            Self::DrainNode => "DrainNode",
            Self::UndrainNode => "UndrainNode",
            Self::TransferLeadership => "TransferLeadership",
            Self::AddLearner => "AddLearner",
            Self::PromoteLearner => "PromoteLearner",
            Self::RemoveNode => "RemoveNode",
            Self::MoveNode => "MoveNode",
            Self::GetRecovery => "GetRecovery",
            Self::ConfirmRecovery => "ConfirmRecovery",
            Self::CreateBackup => "CreateBackup",
            Self::AppendStream => "AppendStream",
            Self::Vote => "Vote",
            Self::PreVote => "PreVote",
            Self::InstallSnapshot => "InstallSnapshot",
            Self::TransferLeader => "TransferLeader",
            Self::GetNodeView => "GetNodeView",
            Self::ForwardCall => "ForwardCall",
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn all_lists_each_action_once_and_under_its_own_name() {
        let names: BTreeSet<&str> = Action::ALL.iter().map(|action| action.name()).collect();
        assert_eq!(names.len(), Action::ALL.len());
        for (at, action) in Action::ALL.iter().enumerate() {
            assert_eq!(*action as usize, at, "{action} is out of order or missing before");
            assert_eq!(format!("{action:?}"), action.name());
        }
        assert_eq!(Action::ALL.last(), Some(&Action::ForwardCall));
    }
}
