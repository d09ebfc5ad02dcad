//! What a person can do about each reason of a refusal.

use onespend_proto::client::Rejection;
use onespend_proto::reason;
use onespend_proto::v1::ErrorReason;
use tonic::Code;

use crate::agreement::{MISMATCH, UNDECIDED};
use crate::grpc::server::CLIENT_AT_CONTROL;

/// What rustls says of an answer that is no TLS; its type of error is not at hand here.
const NO_TLS: &str = "InvalidContentType";

/// A remedy in the imperative; `None` where the refusal says it all. Who is not known may be so for several causes, of which
/// only the message tells one.
pub fn of(rejection: &Rejection) -> Option<&'static str> {
    if rejection.reason.is_empty() && rejection.code == Code::Unimplemented {
        return Some(
            "is that the other port? status, cluster and recovery ask control ports (7801, --control), all else data ports \
             (7800, --endpoint); else use a command line of the node's version",
        );
    }
    let reason = reason::parse(&rejection.reason)?;
    if reason == ErrorReason::CallerUnknown && rejection.message == CLIENT_AT_CONTROL {
        return Some(
            "that is a control port; payments, wallets and reservations want a data port (7800, --endpoint). status over \
             control ports needs an operator: --as operator/alice; so do the other commands there",
        );
    }
    if reason == ErrorReason::FeeLimit {
        return fee(rejection.metadata.get("limit").map(String::as_str));
    }
    if reason == ErrorReason::OutputInvalid
        && let Some(remedy) = of_recipient(rejection)
    {
        return Some(remedy);
    }
    let alarm = rejection.metadata.get("alarm").map(String::as_str);
    alarmed(reason, alarm)
        .or_else(|| state_of_the_cluster(reason))
        .or_else(|| coins_and_payments(reason))
        .or_else(|| the_request(reason))
}

/// Of a recipient who was ordered and cannot be paid: nobody has built a transaction with change yet.
fn of_recipient(rejection: &Rejection) -> Option<&'static str> {
    let fault = rejection.field_violations.iter().find(|fault| fault.field.starts_with("recipients["))?;
    Some(if fault.description.contains("is dust") {
        "pay this recipient at least what is named, or leave it out"
    } else if fault.field.ends_with(".script") {
        "check the script with whoever gave it"
    } else {
        "check the amounts of the recipients"
    })
}

/// Of a mutation whose outcome is open, by what was heard last: to repeat it does not help while nodes are missing.
pub fn of_open(last: &str) -> Option<&'static str> {
    alarmed(ErrorReason::NotServing, last.contains(UNDECIDED).then_some(UNDECIDED))
}

/// Where nobody could be reached, if what was heard last is no TLS.
pub fn of_no_tls(last: &str) -> Option<&'static str> {
    last.contains(NO_TLS).then_some(
        "is that a health port? It speaks no TLS; name data ports (7800, --endpoint) or control ports (7801, --control)",
    )
}

/// Some limits are bounds above, some below: by the name that `metadata["limit"]` has.
fn fee(limit: Option<&str>) -> Option<&'static str> {
    Some(match limit? {
        "max_fee_sat" => {
            "lower the feerate, or allow more: --max-fee-sat up to the wallet's limit, `onespend wallet limits` above it"
        }
        "max_feerate_sat_vb" => "lower the feerate, or change the wallet's limits: `onespend wallet limits`",
        "max_fee_percent" => {
            "lower the feerate, pay more at once, or change the wallet's limits: `onespend wallet limits`"
        }
        "min_feerate_sat_vb" => "raise the feerate",
        "min_replacement_fee_sat" | "min_replacement_feerate_sat_vb" => {
            "raise the feerate: `onespend payment show` has what each attempt pays"
        }
        _ => return None,
    })
}

/// Of an alarm about the state. Both sides of a tie have it, so no other node helps.
fn alarmed(reason: ErrorReason, alarm: Option<&str>) -> Option<&'static str> {
    match (reason, alarm?) {
        (ErrorReason::NotServing, UNDECIDED) => Some(
            "bring back the nodes that are down, then repeat with the same --request-id; the operations book has \"Two \
             states, and nobody to decide\"",
        ),
        (ErrorReason::Alarm, UNDECIDED) => {
            Some("bring back the nodes that are down; the operations book has \"Two states, and nobody to decide\"")
        }
        (ErrorReason::Alarm, MISMATCH) => Some("see `onespend status`, and \"Alarms\" in the operations book"),
        _ => None,
    }
}

fn state_of_the_cluster(reason: ErrorReason) -> Option<&'static str> {
    use ErrorReason as R;
    Some(match reason {
        R::NotLeader => "give all nodes as --endpoint, or a load balancer that asks /primary",
        R::ChainNotSynced => {
            "repeat; then look at the leader's bitcoind (`onespend status`); without a fee estimate, name a --feerate"
        }
        R::RecoveryMode => "an operator must look at `onespend recovery show` and confirm first",
        R::RecoveryRefused => {
            "look at `onespend recovery show`; it is compared again at each new block, and whenever you confirm"
        }
        R::TransferRefused => "choose a voter that has caught up: `onespend status`",
        R::WrongCluster => "use the addresses and certificates of one cluster",
        R::MessageTooLarge => "send or ask for less at once, or raise api.max_message_bytes on every node",
        R::Overloaded => "repeat after the time that is named",
        R::Alarm => "see `onespend status`, and \"Alarms\" in the operations book; a node without one can lead instead",
        R::StorageLow => "make room on the nodes' disks: the operations book has \"When a disk is full\"",
        R::NoQuorum | R::ResultUnknown => "repeat with the same --request-id; see `onespend status`",
        R::TooStale => "allow more with --max-lag, or leave it out",
        R::NotServing => "ask another node",
        R::CallerUnknown => {
            "use a certificate that `onespend pki issue` made for this cluster, at the control port an operator's"
        }
        R::Role => "use a certificate whose role may do this: clients pay, operators administer",
        R::NodeUnknown => "the members are listed by `onespend status`",
        _ => return None,
    })
}

fn coins_and_payments(reason: ErrorReason) -> Option<&'static str> {
    use ErrorReason as R;
    Some(match reason {
        R::ReservationExpired | R::ReservationReleased => "reserve again",
        R::ReservationUsed => "follow the payment: `onespend payment show`",
        R::ReservedForOther => "reserve coins for this payment, or leave --payment-id out when reserving",
        R::StaleFence => "take the fence from `onespend reserve show`",
        R::OutpointSpent | R::OutpointReserved => {
            "choose other coins: `onespend utxo list --wallet WALLET --state available`"
        }
        R::OutpointImmature => "wait until the coins have matured, or choose others",
        R::OutpointUnknown => "the wallet's coins are listed by `onespend utxo list`",
        R::ReplacementMissingAnchor => "spend the outpoint that is named in every attempt of this payment",
        R::PaymentUnresolved => "look at its attempts, it may be paid already: `onespend payment show`",
        R::NotReplaceable | R::AbortUnsupported => "look at its attempts: `onespend payment show`",
        R::AttemptAborted => "order the payment again under its id: a new attempt is made",
        R::HasDescendants => "bump the payment that is named instead, or wait until this one confirms",
        R::ChainTooLong => "wait until some of the wallet's payments confirm",
        R::NotQuarantined => "the coins that are held back: `onespend utxo list --wallet WALLET --state quarantined`",
        R::NotLost => "look again: the operations book has \"A deposit that cannot come back\"",
        R::VelocityLimit => "wait, or change the wallet's limits: `onespend wallet limits`",
        R::WalletFrozen => "`onespend wallet unfreeze`, once the cause is understood",
        R::WalletWatchOnly | R::SignerExternal => "pay from a wallet that the service signs for",
        R::InsufficientFunds => {
            "`onespend wallet balance` shows what is reserved, unconfirmed or immature, `onespend reserve list` by whom; the \
             next block or a lower feerate may help"
        }
        R::PaymentIdReused => "this id was ordered with other recipients or amounts before: `onespend payment show`",
        R::WalletExists => "`onespend wallet list`",
        R::NotOwner => "act as its owner; an operator can only release a reservation",
        R::PaymentUnknown => "`onespend payment list` names the wallet's payments",
        R::WalletUnknown => "`onespend wallet list` names them",
        R::ReservationUnknown => "`onespend reserve list` names the active ones",
        R::ReservationQuota | R::ReservedShare => "release what is not needed: `onespend reserve list`",
        _ => return None,
    })
}

fn the_request(reason: ErrorReason) -> Option<&'static str> {
    use ErrorReason as R;
    Some(match reason {
        R::RequestIdReused => "use a new --request-id for a new request",
        R::WrongNetwork | R::AddressInvalid => "check the address with whoever gave it",
        R::SignerUnknown => "name one of [[signers]] in the nodes' configuration, `external`, or none",
        R::InputMissing | R::ForeignInput | R::DuplicateInput => "spend exactly the reserved coins, each once",
        R::PrevoutMismatch => "take values and scripts from `onespend reserve show`",
        R::SighashNotAllowed => "leave the sighash type out of the PSBT",
        R::OutputInvalid => {
            "pay the recipients as ordered, none of them dust, and change to an address of `wallet address --change`"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use onespend_proto::client::FieldViolation;

    use super::*;

    fn fee_limit(limit: &str) -> Rejection {
        Rejection {
            code: Code::PermissionDenied,
            reason: reason::FEE_LIMIT.to_owned(),
            message: String::new(),
            metadata: BTreeMap::from([("limit".to_owned(), limit.to_owned())]),
            field_violations: Vec::new(),
            retry_after: None,
            after_unknown: false,
        }
    }

    /// Of this reason, for this alarm.
    fn alarm(reason: &str, alarm: &str) -> Option<&'static str> {
        let metadata = BTreeMap::from([("alarm".to_owned(), alarm.to_owned())]);
        of(&Rejection { reason: reason.to_owned(), metadata, ..fee_limit("") })
    }

    #[test]
    fn where_all_nodes_have_the_alarm_nobody_is_sent_to_another_one() {
        for reason in [reason::NOT_SERVING, reason::ALARM] {
            let told = alarm(reason, UNDECIDED).unwrap();
            assert!(told.starts_with("bring back the nodes that are down"), "{reason}: {told}");
            assert!(!told.contains("another") && !told.contains("instead"), "{reason}: {told}");
        }
        assert_eq!(of_open(&format!("its alarm {UNDECIDED} stands")), alarm(reason::NOT_SERVING, UNDECIDED));
        assert_eq!(of_open("no answer within 400 ms"), None);
        assert_eq!(alarm(reason::NOT_SERVING, MISMATCH), Some("ask another node"));
        assert!(!alarm(reason::ALARM, MISMATCH).unwrap().contains("instead"));
        assert!(alarm(reason::ALARM, "SIGNER_FROZEN").unwrap().contains("instead"));
    }

    #[test]
    fn who_asks_a_port_of_another_kind_is_told_so() {
        let other = Rejection { reason: String::new(), code: Code::Unimplemented, ..fee_limit("") };
        assert!(of(&other).unwrap().contains("is that the other port?"));
        assert_eq!(of(&Rejection { code: Code::Internal, ..other }), None);
        let client = Rejection {
            reason: reason::CALLER_UNKNOWN.to_owned(),
            message: CLIENT_AT_CONTROL.to_owned(),
            ..fee_limit("")
        };
        assert!(of(&client).unwrap().contains("a data port (7800"));
        assert!(of_no_tls("received corrupt message of type InvalidContentType").unwrap().contains("a health port"));
        assert_eq!(of_no_tls("Connection refused"), None);
    }

    #[test]
    fn who_orders_dust_is_told_nothing_of_change() {
        let ordered = |field: &str, description: &str| Rejection {
            reason: reason::OUTPUT_INVALID.to_owned(),
            field_violations: vec![FieldViolation { field: field.to_owned(), description: description.to_owned() }],
            ..fee_limit("")
        };
        let dust =
            of(&ordered("recipients[0].amount_sat", "10 sat is dust: at least 294 sat for this script")).unwrap();
        assert!(dust.starts_with("pay this recipient at least") && !dust.contains("change"), "{dust}");
        let built = of(&ordered("psbt.outputs[1]", "output 1: change is dust")).unwrap();
        assert!(built.contains("`wallet address --change`"), "{built}");
    }

    #[test]
    fn a_feerate_that_is_too_low_is_to_be_raised_and_one_that_is_too_high_lowered() {
        for low in ["min_feerate_sat_vb", "min_replacement_fee_sat", "min_replacement_feerate_sat_vb"] {
            let told = of(&fee_limit(low)).unwrap();
            assert!(told.starts_with("raise the feerate") && !told.contains("lower"), "{low}: {told}");
        }
        for high in ["max_fee_sat", "max_feerate_sat_vb", "max_fee_percent"] {
            let told = of(&fee_limit(high)).unwrap();
            assert!(
                told.starts_with("lower the feerate") && told.contains("`onespend wallet limits`"),
                "{high}: {told}"
            );
        }
        assert!(of(&fee_limit("max_fee_sat")).unwrap().contains("--max-fee-sat"), "it may be the order's own bound");
        assert_eq!(of(&fee_limit("of a later version")), None, "no advice is better than a wrong one");
    }
}
