//! Every message that comes over the wire, read from its bytes as far as it can be read without looking at the state.
//! Nothing in the daemon calls this: it is what the fuzzers and the replay of their findings call, because the readers
//! of the rpcs are private. It calls those same readers and adds nothing to them.

use bitcoin::Network;
use onespend_policies::Action;
use onespend_proto::peer::v1 as peer;
use onespend_proto::v1;
use prost::Message;
use tonic::Status;

use super::{
    abort_attempt, bump_fee, bump_fee_cpfp, cancel_payment, chain_view, change_wallet, confirm_recovery, create_backup,
    create_payment, declare_lost, drain_node, get_balance, get_payment, get_reservation, get_wallet, list_audit_events,
    list_payments, list_reservations, list_utxos, list_wallets, membership, new_address, reads, register_outpoints,
    register_wallet, release_quarantined, release_reservation, renew_reservation, reserve_utxos, sign_psbt,
    submit_signed_transaction, transfer_leadership, watch_payments, watch_reservations,
};
use crate::raft;

/// What became of bytes that should be a message.
#[derive(Debug)]
pub enum Reading {
    /// They are not that message: gRPC answers before any code of ours runs.
    Undecodable,
    /// The caller is refused, with this status.
    Refused(Status),
    /// A node's message breaks the protocol between nodes, and its stream ends.
    Malformed(String),
    /// The message makes sense as far as it can be judged without the state.
    Read,
}

/// Reads the request of an rpc, on a network, with a default depth of finality in blocks. What is no rpc reads nothing.
pub fn read_request(action: Action, bytes: &[u8], network: Network, finality_depth: u32) -> Reading {
    match action {
        Action::RegisterWallet => caller(bytes, |m| register_wallet::parse(m, network, finality_depth)),
        Action::NewAddress => caller(bytes, new_address::parse),
        Action::SetLimits => caller(bytes, |m| change_wallet::parse_limits(m, finality_depth)),
        Action::FreezeWallet => caller(bytes, change_wallet::parse_freeze),
        Action::UnfreezeWallet => caller(bytes, change_wallet::parse_unfreeze),
        Action::RegisterOutpoints => caller(bytes, register_outpoints::parse),
        Action::ReleaseQuarantined => caller(bytes, release_quarantined::parse),
        Action::DeclareLost => caller(bytes, declare_lost::parse),
        Action::ReserveUtxos => caller(bytes, reserve_utxos::parse),
        Action::RenewReservation => caller(bytes, renew_reservation::parse),
        Action::ReleaseReservation => caller(bytes, release_reservation::parse),
        Action::CreatePayment => caller(bytes, |m| create_payment::parse(m, network)),
        Action::SignPsbt => caller(bytes, |m| sign_psbt::parse(m, network)),
        Action::BumpFee => caller(bytes, bump_fee::parse),
        Action::BumpFeeCpfp => caller(bytes, bump_fee_cpfp::parse),
        Action::CancelPayment => caller(bytes, cancel_payment::parse),
        Action::AbortAttempt => caller(bytes, abort_attempt::parse),
        Action::SubmitSignedTransaction => caller(bytes, submit_signed_transaction::parse),
        Action::TransferLeadership => caller(bytes, transfer_leadership::parse),
        Action::ConfirmRecovery => caller(bytes, confirm_recovery::parse),
        Action::CreateBackup => caller(bytes, create_backup::parse),
        Action::AddLearner => caller(bytes, membership::parse_add),
        Action::PromoteLearner => caller(bytes, membership::parse_promote),
        Action::RemoveNode => caller(bytes, membership::parse_remove),
        Action::MoveNode => caller(bytes, membership::parse_move),
        Action::DrainNode => caller(bytes, drain_node::parse_drain),
        Action::UndrainNode => caller(bytes, drain_node::parse_undrain),
        Action::GetWallet
        | Action::ListWallets
        | Action::GetBalance
        | Action::ListUtxos
        | Action::ListAuditEvents
        | Action::GetReservation
        | Action::ListReservations
        | Action::WatchReservations
        | Action::GetPayment
        | Action::ListPayments
        | Action::WatchPayments
        | Action::GetTip
        | Action::EstimateFee
        | Action::GetNodeViews
        | Action::GetStatus
        | Action::GetHistory
        | Action::GetRecovery => read_read(action, bytes),
        Action::AppendStream
        | Action::Vote
        | Action::PreVote
        | Action::InstallSnapshot
        | Action::TransferLeader
        | Action::GetNodeView
        | Action::ForwardCall => read_peer(action, bytes),
    }
}

/// The request of a read, and the age that it allows.
fn read_read(action: Action, bytes: &[u8]) -> Reading {
    /// Staleness first, as on the way of a read.
    macro_rules! read {
        ($message:ty, $parse:expr) => {
            caller(bytes, |m: &$message| {
                reads::staleness_bound(m.consistency.as_ref())?;
                $parse(m)
            })
        };
    }
    match action {
        Action::GetWallet => read!(v1::GetWalletRequest, get_wallet::parse),
        Action::ListWallets => read!(v1::ListWalletsRequest, list_wallets::parse),
        Action::GetBalance => read!(v1::GetBalanceRequest, get_balance::parse),
        Action::ListUtxos => read!(v1::ListUtxosRequest, list_utxos::parse),
        Action::ListAuditEvents => read!(v1::ListAuditEventsRequest, list_audit_events::parse),
        Action::GetReservation => read!(v1::GetReservationRequest, get_reservation::parse),
        Action::ListReservations => read!(v1::ListReservationsRequest, list_reservations::parse),
        Action::GetPayment => caller(bytes, get_payment::parse),
        Action::ListPayments => read!(v1::ListPaymentsRequest, list_payments::parse),
        Action::WatchPayments => caller(bytes, watch_payments::parse),
        Action::WatchReservations => caller(bytes, watch_reservations::parse),
        Action::GetTip => read!(v1::GetTipRequest, |_| Ok::<_, Status>(())),
        Action::EstimateFee => caller(bytes, chain_view::parse_target),
        Action::GetNodeViews => caller(bytes, |_: &v1::GetNodeViewsRequest| Ok(())),
        Action::GetStatus => caller(bytes, |_: &v1::GetStatusRequest| Ok(())),
        Action::GetHistory => caller(bytes, |_: &v1::GetHistoryRequest| Ok(())),
        Action::GetRecovery => read!(v1::GetRecoveryRequest, |_| Ok::<_, Status>(())),
        _ => Reading::Undecodable,
    }
}

/// A message from another node.
fn read_peer(action: Action, bytes: &[u8]) -> Reading {
    match action {
        Action::AppendStream => node(bytes, raft::intake::append),
        Action::Vote => node(bytes, |m: peer::VoteRequest| raft::intake::ballot(m.ballot)),
        Action::PreVote => node(bytes, |m: peer::PreVoteRequest| raft::intake::ballot(m.ballot)),
        Action::InstallSnapshot => node(bytes, raft::intake::snapshot_part),
        Action::TransferLeader => node(bytes, raft::intake::transfer),
        Action::GetNodeView => node(bytes, |_: peer::GetNodeViewRequest| Ok(())),
        _ => Reading::Undecodable,
    }
}

fn caller<M: Message + Default, T>(bytes: &[u8], parse: impl FnOnce(&M) -> Result<T, Status>) -> Reading {
    let Ok(message) = M::decode(bytes) else { return Reading::Undecodable };
    parse(&message).map_or_else(Reading::Refused, |_| Reading::Read)
}

fn node<M: Message + Default>(bytes: &[u8], parse: impl FnOnce(M) -> Result<(), String>) -> Reading {
    let Ok(message) = M::decode(bytes) else { return Reading::Undecodable };
    parse(message).map_or_else(Reading::Malformed, |()| Reading::Read)
}
