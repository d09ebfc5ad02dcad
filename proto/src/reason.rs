//! The reasons of errors: `reason` of `google.rpc.ErrorInfo`. Each is the name of a value of
//! [`crate::v1::ErrorReason`] without its prefix; a test keeps the two alike.

use crate::v1::ErrorReason;

/// `domain` of every `ErrorInfo` of this service.
pub const DOMAIN: &str = "onespend";

const PREFIX: &str = "ERROR_REASON_";

/// The reason's name as it stands in `ErrorInfo`.
pub fn name(reason: ErrorReason) -> &'static str {
    let full = reason.as_str_name();
    full.strip_prefix(PREFIX).unwrap_or(full)
}

/// The reason behind a name of `ErrorInfo`; `None` for one that this version does not know.
pub fn parse(name: &str) -> Option<ErrorReason> {
    ErrorReason::from_str_name(&format!("{PREFIX}{name}")).filter(|reason| *reason != ErrorReason::Unspecified)
}

/// This node does not lead, and forwarding is off or the leader is not known (`FAILED_PRECONDITION`).
pub const NOT_LEADER: &str = "NOT_LEADER";
/// The leader's bitcoind is not in sync, or the facts that the request was decided on changed too often meanwhile (`FAILED_PRECONDITION`).
pub const CHAIN_NOT_SYNCED: &str = "CHAIN_NOT_SYNCED";
/// The reservation's time is over; its coins may be somebody else's by now (`FAILED_PRECONDITION`).
pub const RESERVATION_EXPIRED: &str = "RESERVATION_EXPIRED";
/// The reservation was given back (`FAILED_PRECONDITION`).
pub const RESERVATION_RELEASED: &str = "RESERVATION_RELEASED";
/// The reservation's coins belong to a payment whose intent is committed (`FAILED_PRECONDITION`).
pub const RESERVATION_USED: &str = "RESERVATION_USED";
/// The reservation was made for another payment (`FAILED_PRECONDITION`).
pub const RESERVED_FOR_OTHER: &str = "RESERVED_FOR_OTHER";
/// The fence is not the one of the grant (`FAILED_PRECONDITION`).
pub const STALE_FENCE: &str = "STALE_FENCE";
/// Coins are spent in a block (`FAILED_PRECONDITION`).
pub const OUTPOINT_SPENT: &str = "OUTPOINT_SPENT";
/// Coins cannot be spent yet (`FAILED_PRECONDITION`).
pub const OUTPOINT_IMMATURE: &str = "OUTPOINT_IMMATURE";
/// A further attempt does not spend the payment's anchor (`FAILED_PRECONDITION`).
pub const REPLACEMENT_MISSING_ANCHOR: &str = "REPLACEMENT_MISSING_ANCHOR";
/// An earlier attempt may still confirm, or has, so nothing else may pay this payment (`FAILED_PRECONDITION`).
pub const PAYMENT_UNRESOLVED: &str = "PAYMENT_UNRESOLVED";
/// The change of a transaction that would be replaced is spent by another payment (`FAILED_PRECONDITION`).
pub const HAS_DESCENDANTS: &str = "HAS_DESCENDANTS";
/// The wallet's signer cannot prove that it has not signed, or the attempt is past that (`FAILED_PRECONDITION`).
pub const ABORT_UNSUPPORTED: &str = "ABORT_UNSUPPORTED";
/// The wallet is frozen (`FAILED_PRECONDITION`).
pub const WALLET_FROZEN: &str = "WALLET_FROZEN";
/// The wallet has no signer (`FAILED_PRECONDITION`).
pub const WALLET_WATCH_ONLY: &str = "WALLET_WATCH_ONLY";
/// Reserved: no call refuses for this any more (`FAILED_PRECONDITION`).
pub const SIGNER_EXTERNAL: &str = "SIGNER_EXTERNAL";
/// The coins that may be spent are not worth enough (`FAILED_PRECONDITION`).
pub const INSUFFICIENT_FUNDS: &str = "INSUFFICIENT_FUNDS";
/// The state may be older than what the cluster did, and waits for an operator (`FAILED_PRECONDITION`).
pub const RECOVERY_MODE: &str = "RECOVERY_MODE";
/// Leadership cannot go to this node (`FAILED_PRECONDITION`).
pub const TRANSFER_REFUSED: &str = "TRANSFER_REFUSED";
/// This change of the members would do harm, or another one is under way (`FAILED_PRECONDITION`).
pub const MEMBERSHIP_REFUSED: &str = "MEMBERSHIP_REFUSED";
/// The peer belongs to another cluster (`FAILED_PRECONDITION`).
pub const WRONG_CLUSTER: &str = "WRONG_CLUSTER";
/// There is no attempt that could be replaced or paid for by a child now (`FAILED_PRECONDITION`).
pub const NOT_REPLACEABLE: &str = "NOT_REPLACEABLE";
/// The signer proved that it would never sign this attempt (`FAILED_PRECONDITION`).
pub const ATTEMPT_ABORTED: &str = "ATTEMPT_ABORTED";
/// There is nothing to confirm, or not yet (`FAILED_PRECONDITION`).
pub const RECOVERY_REFUSED: &str = "RECOVERY_REFUSED";
/// Coins that were to be released are not held back (`FAILED_PRECONDITION`).
pub const NOT_QUARANTINED: &str = "NOT_QUARANTINED";
/// The wallet has descriptors, so its coins are found by themselves (`FAILED_PRECONDITION`).
pub const WALLET_HAS_DESCRIPTORS: &str = "WALLET_HAS_DESCRIPTORS";
/// Too many unconfirmed transactions would hang together (`FAILED_PRECONDITION`).
pub const CHAIN_TOO_LONG: &str = "CHAIN_TOO_LONG";
/// Nothing proves that a coin is lost for good (`FAILED_PRECONDITION`).
pub const NOT_LOST: &str = "NOT_LOST";
/// Others claim coins that were asked for; try other coins (`ABORTED`).
pub const OUTPOINT_RESERVED: &str = "OUTPOINT_RESERVED";
/// The payment id is bound to other recipients or amounts, for ever (`ALREADY_EXISTS`).
pub const PAYMENT_ID_REUSED: &str = "PAYMENT_ID_REUSED";
/// A wallet with this id or this descriptor exists (`ALREADY_EXISTS`).
pub const WALLET_EXISTS: &str = "WALLET_EXISTS";
/// Fields are missing, malformed or out of bounds; BadRequest names them all (`INVALID_ARGUMENT`).
pub const FIELD_INVALID: &str = "FIELD_INVALID";
/// The PSBT does not parse or breaks a rule (`INVALID_ARGUMENT`).
pub const PSBT_INVALID: &str = "PSBT_INVALID";
/// An outpoint is named twice (`INVALID_ARGUMENT`).
pub const DUPLICATE_INPUT: &str = "DUPLICATE_INPUT";
/// A reserved coin is not spent by the transaction (`INVALID_ARGUMENT`).
pub const INPUT_MISSING: &str = "INPUT_MISSING";
/// UTXO data in the PSBT differs from the service's own view (`INVALID_ARGUMENT`).
pub const PREVOUT_MISMATCH: &str = "PREVOUT_MISMATCH";
/// An input asks for another sighash type than ALL or taproot's DEFAULT (`INVALID_ARGUMENT`).
pub const SIGHASH_NOT_ALLOWED: &str = "SIGHASH_NOT_ALLOWED";
/// An output is below dust, or is neither a recipient's nor the one change output of this wallet (`INVALID_ARGUMENT`).
pub const OUTPUT_INVALID: &str = "OUTPUT_INVALID";
/// The request id was used before for another request (`INVALID_ARGUMENT`).
pub const REQUEST_ID_REUSED: &str = "REQUEST_ID_REUSED";
/// An address, key or descriptor of another network (`INVALID_ARGUMENT`).
pub const WRONG_NETWORK: &str = "WRONG_NETWORK";
/// Text that is no address at all (`INVALID_ARGUMENT`).
pub const ADDRESS_INVALID: &str = "ADDRESS_INVALID";
/// The descriptor cannot be used (`INVALID_ARGUMENT`).
pub const DESCRIPTOR_INVALID: &str = "DESCRIPTOR_INVALID";
/// No signer of this name is configured (`INVALID_ARGUMENT`).
pub const SIGNER_UNKNOWN: &str = "SIGNER_UNKNOWN";
/// A signed transaction is not the one that was permitted, or not validly signed (`INVALID_ARGUMENT`).
pub const SIGNATURE_MISMATCH: &str = "SIGNATURE_MISMATCH";
/// The proof is not a signature of the wallet's fence key over this attempt (`INVALID_ARGUMENT`).
pub const ABORT_PROOF_INVALID: &str = "ABORT_PROOF_INVALID";
/// The transaction spends a coin that the reservation does not hold (`PERMISSION_DENIED`).
pub const FOREIGN_INPUT: &str = "FOREIGN_INPUT";
/// Reserved for policies about recipients, of which there are none yet (`PERMISSION_DENIED`).
pub const RECIPIENT_NOT_ALLOWED: &str = "RECIPIENT_NOT_ALLOWED";
/// A cap on fees, or what a replacement has to pay at least (`PERMISSION_DENIED`).
pub const FEE_LIMIT: &str = "FEE_LIMIT";
/// A cap on amounts over time (`PERMISSION_DENIED`).
pub const VELOCITY_LIMIT: &str = "VELOCITY_LIMIT";
/// Another caller owns it (`PERMISSION_DENIED`).
pub const NOT_OWNER: &str = "NOT_OWNER";
/// The caller's role does not allow this rpc (`PERMISSION_DENIED`).
pub const ROLE: &str = "ROLE";
/// Outpoints are not coins of the wallet (`NOT_FOUND`).
pub const OUTPOINT_UNKNOWN: &str = "OUTPOINT_UNKNOWN";
/// No such payment (`NOT_FOUND`).
pub const PAYMENT_UNKNOWN: &str = "PAYMENT_UNKNOWN";
/// No such wallet (`NOT_FOUND`).
pub const WALLET_UNKNOWN: &str = "WALLET_UNKNOWN";
/// No such reservation, or one that ended long ago (`NOT_FOUND`).
pub const RESERVATION_UNKNOWN: &str = "RESERVATION_UNKNOWN";
/// The leader takes no spends while an alarm stands on it (`FAILED_PRECONDITION`).
pub const ALARM: &str = "ALARM";
/// No such node in the cluster (`NOT_FOUND`).
pub const NODE_UNKNOWN: &str = "NODE_UNKNOWN";
/// The wallet has as many active reservations as it may (`RESOURCE_EXHAUSTED`).
pub const RESERVATION_QUOTA: &str = "RESERVATION_QUOTA";
/// Too many requests at once; RetryInfo says when to come back (`RESOURCE_EXHAUSTED`).
pub const OVERLOADED: &str = "OVERLOADED";
/// The message, or the answer to a read that was passed on, is larger than the service reads; sending it again does not help (`RESOURCE_EXHAUSTED`).
pub const MESSAGE_TOO_LARGE: &str = "MESSAGE_TOO_LARGE";
/// The cluster's disks have too little room to order anything more; RetryInfo says when to come back (`RESOURCE_EXHAUSTED`).
pub const STORAGE_LOW: &str = "STORAGE_LOW";
/// More of the wallet's balance would be reserved than may be (`RESOURCE_EXHAUSTED`).
pub const RESERVED_SHARE: &str = "RESERVED_SHARE";
/// No quorum answered: a read cannot be served; a write may have been applied or may be later (`UNAVAILABLE`).
pub const NO_QUORUM: &str = "NO_QUORUM";
/// The write may have been applied or may be later (`UNAVAILABLE or DEADLINE_EXCEEDED`).
pub const RESULT_UNKNOWN: &str = "RESULT_UNKNOWN";
/// This node is older than the read's bound allows (`UNAVAILABLE`).
pub const TOO_STALE: &str = "TOO_STALE";
/// This node is starting or stopping, or its state differs from what most others have; ask another one (`UNAVAILABLE`).
pub const NOT_SERVING: &str = "NOT_SERVING";
/// The certificate names no caller of this cluster (`UNAUTHENTICATED`).
pub const CALLER_UNKNOWN: &str = "CALLER_UNKNOWN";
/// Every reason, in the order of the enum.
pub const ALL: [&str; 67] = [
    NOT_LEADER,
    CHAIN_NOT_SYNCED,
    RESERVATION_EXPIRED,
    RESERVATION_RELEASED,
    RESERVATION_USED,
    RESERVED_FOR_OTHER,
    STALE_FENCE,
    OUTPOINT_SPENT,
    OUTPOINT_IMMATURE,
    REPLACEMENT_MISSING_ANCHOR,
    PAYMENT_UNRESOLVED,
    HAS_DESCENDANTS,
    ABORT_UNSUPPORTED,
    WALLET_FROZEN,
    WALLET_WATCH_ONLY,
    SIGNER_EXTERNAL,
    INSUFFICIENT_FUNDS,
    RECOVERY_MODE,
    TRANSFER_REFUSED,
    MEMBERSHIP_REFUSED,
    WRONG_CLUSTER,
    NOT_REPLACEABLE,
    ATTEMPT_ABORTED,
    RECOVERY_REFUSED,
    NOT_QUARANTINED,
    WALLET_HAS_DESCRIPTORS,
    CHAIN_TOO_LONG,
    ALARM,
    NOT_LOST,
    OUTPOINT_RESERVED,
    PAYMENT_ID_REUSED,
    WALLET_EXISTS,
    FIELD_INVALID,
    PSBT_INVALID,
    DUPLICATE_INPUT,
    INPUT_MISSING,
    PREVOUT_MISMATCH,
    SIGHASH_NOT_ALLOWED,
    OUTPUT_INVALID,
    REQUEST_ID_REUSED,
    WRONG_NETWORK,
    ADDRESS_INVALID,
    DESCRIPTOR_INVALID,
    SIGNER_UNKNOWN,
    SIGNATURE_MISMATCH,
    ABORT_PROOF_INVALID,
    FOREIGN_INPUT,
    RECIPIENT_NOT_ALLOWED,
    FEE_LIMIT,
    VELOCITY_LIMIT,
    NOT_OWNER,
    ROLE,
    OUTPOINT_UNKNOWN,
    PAYMENT_UNKNOWN,
    WALLET_UNKNOWN,
    RESERVATION_UNKNOWN,
    NODE_UNKNOWN,
    RESERVATION_QUOTA,
    OVERLOADED,
    MESSAGE_TOO_LARGE,
    STORAGE_LOW,
    RESERVED_SHARE,
    NO_QUORUM,
    RESULT_UNKNOWN,
    TOO_STALE,
    NOT_SERVING,
    CALLER_UNKNOWN,
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn constants_are_the_values_of_the_enum() {
        for constant in ALL {
            assert_eq!(name(parse(constant).unwrap()), constant);
        }
        let known = (1..=1000).filter(|number| ErrorReason::try_from(*number).is_ok()).count();
        assert_eq!(known, ALL.len(), "a reason of errors.proto has no constant");
    }

    #[test]
    fn names_from_elsewhere_are_not_reasons() {
        assert_eq!(parse("UNSPECIFIED"), None);
        assert_eq!(parse("ERROR_REASON_ROLE"), None);
        assert_eq!(parse(""), None);
    }
}
