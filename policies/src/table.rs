//! The built-in policy: a table from role to classes of actions.
//!
//! | class | client | operator | node |
//! |---|---|---|---|
//! | read | yes | yes | |
//! | receive | yes | yes | |
//! | spend | its own | | |
//! | release | its own | any | |
//! | wallet administration | | yes | |
//! | cluster administration | | yes | |
//! | peer | | | yes |
//!
//! Whose a reservation or a payment is, the replicated state knows, and checks there. SubmitSignedTransaction is the
//! exception: any client may bring what an external signer made, for only the permitted transaction with valid signatures
//! is taken, and one that exists can confirm whoever knows it.
//!
//! Those who administer cannot spend, and those who spend cannot raise their own limits. Nodes
//! act for others only by naming them; the action is then judged as that caller's.

use crate::{Action, Authorized, Class, Denied, Policy, Resource, Role, Subject};

/// The policy of a cluster without policies of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RoleTable;

/// How far a role's right reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    No,
    Own,
    Any,
}

impl Policy for RoleTable {
    /// All wallets are alike to it.
    fn authorize(&self, subject: &Subject<'_>, action: Action, _: &Resource<'_>) -> Result<Authorized, Denied> {
        match reach(subject.role, action.class()) {
            Reach::No => Err(Denied::Role { caller: subject.caller.0.to_owned(), role: subject.role, action }),
            Reach::Own => Ok(Authorized::new(subject, action, false)),
            Reach::Any => Ok(Authorized::new(subject, action, true)),
        }
    }
}

fn reach(role: Role, class: Class) -> Reach {
    match (role, class) {
        (Role::Client | Role::Operator, Class::Read | Class::Receive)
        | (Role::Operator, Class::Release | Class::WalletAdministration | Class::ClusterAdministration)
        | (Role::Node, Class::Peer) => Reach::Any,
        (Role::Client, Class::Spend | Class::Release) => Reach::Own,
        (Role::Client, Class::WalletAdministration | Class::ClusterAdministration | Class::Peer)
        | (Role::Operator, Class::Spend | Class::Peer)
        | (
            Role::Node,
            Class::Read
            | Class::Receive
            | Class::Spend
            | Class::Release
            | Class::WalletAdministration
            | Class::ClusterAdministration,
        ) => Reach::No,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use super::*;
    use crate::{CallerId, WalletName};

    const CLIENT: Subject<'_> = Subject { caller: CallerId("client/payouts"), role: Role::Client };
    const OPERATOR: Subject<'_> = Subject { caller: CallerId("operator/alice"), role: Role::Operator };
    const NODE: Subject<'_> = Subject { caller: CallerId("node/1"), role: Role::Node };

    /// Rpc by rpc: client, operator, node. `o` = only what it owns, `a` = any, `-` = never.
    const TABLE: &[(Action, &str)] = &[
        (Action::RegisterWallet, "-a-"),
        (Action::GetWallet, "aa-"),
        (Action::ListWallets, "aa-"),
        (Action::GetBalance, "aa-"),
        (Action::ListUtxos, "aa-"),
        (Action::NewAddress, "aa-"),
        (Action::SetLimits, "-a-"),
        (Action::FreezeWallet, "-a-"),
        (Action::UnfreezeWallet, "-a-"),
        (Action::RegisterOutpoints, "-a-"),
        (Action::ReleaseQuarantined, "-a-"),
        (Action::DeclareLost, "-a-"),
        (Action::ListAuditEvents, "-a-"),
        (Action::ReserveUtxos, "o--"),
        (Action::RenewReservation, "o--"),
        (Action::ReleaseReservation, "oa-"),
        (Action::GetReservation, "aa-"),
        (Action::ListReservations, "aa-"),
        (Action::WatchReservations, "aa-"),
        (Action::CreatePayment, "o--"),
        (Action::SignPsbt, "o--"),
        (Action::BumpFee, "o--"),
        (Action::BumpFeeCpfp, "o--"),
        (Action::CancelPayment, "o--"),
        (Action::AbortAttempt, "o--"),
        (Action::SubmitSignedTransaction, "o--"),
        (Action::GetPayment, "aa-"),
        (Action::ListPayments, "aa-"),
        (Action::WatchPayments, "aa-"),
        (Action::GetTip, "aa-"),
        (Action::EstimateFee, "aa-"),
        (Action::GetNodeViews, "aa-"),
        (Action::GetStatus, "-a-"),
        (Action::GetHistory, "-a-"),
        (Action::DrainNode, "-a-"),
        (Action::UndrainNode, "-a-"),
        (Action::TransferLeadership, "-a-"),
        (Action::AddLearner, "-a-"),
        (Action::PromoteLearner, "-a-"),
        (Action::RemoveNode, "-a-"),
        (Action::MoveNode, "-a-"),
        (Action::GetRecovery, "-a-"),
        (Action::ConfirmRecovery, "-a-"),
        (Action::CreateBackup, "-a-"),
        (Action::AppendStream, "--a"),
        (Action::Vote, "--a"),
        (Action::PreVote, "--a"),
        (Action::InstallSnapshot, "--a"),
        (Action::TransferLeader, "--a"),
        (Action::GetNodeView, "--a"),
        (Action::ForwardCall, "--a"),
    ];

    #[test]
    fn every_action_has_a_row() {
        let rows: Vec<Action> = TABLE.iter().map(|(action, _)| *action).collect();
        assert_eq!(rows, Action::ALL);
    }

    /// safety 28: the permit says whether it holds for what others own.
    #[test]
    fn each_role_may_do_what_its_column_says() {
        for (action, row) in TABLE {
            for (subject, right) in [CLIENT, OPERATOR, NODE].iter().zip(row.chars()) {
                for resource in [Resource::Cluster, Resource::Wallet(WalletName("hot"))] {
                    let decision = RoleTable.authorize(subject, *action, &resource);
                    match (right, decision) {
                        ('-', Err(denied)) => {
                            assert_eq!(denied.reason(), "ROLE", "{action}");
                        }
                        ('o' | 'a', Ok(permit)) => {
                            assert_eq!(permit.caller(), subject.caller.0);
                            assert_eq!(permit.action(), *action);
                            assert_eq!(permit.any_owner(), right == 'a', "{action}");
                        }
                        (right, other) => panic!("{action} {right}: {other:?}"),
                    }
                }
            }
        }
    }

    #[test]
    fn a_refusal_names_who_asked_for_what() {
        let role = RoleTable.authorize(&OPERATOR, Action::CreatePayment, &Resource::Cluster);
        assert_eq!(
            role.map_err(|denied| denied.to_string()),
            Err("operator/alice is operator and may not call CreatePayment".to_owned())
        );
    }
}
