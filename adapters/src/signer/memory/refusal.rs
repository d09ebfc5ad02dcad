//! Why a signer that remembers does not sign.

use bitcoin::{OutPoint, Txid};
use onespend_core::ids::{AttemptNo, Fence, PaymentKey};

/// What the memory has against a permit. None of these passes by itself: somebody has to look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A coin was signed away before, and not all that was signed is proven dead (safety 6).
    #[error(
        "coin {outpoint} was signed away for {} before, and nothing proves that this can no longer confirm",
        list(earlier)
    )]
    SecondPayment {
        /// The first such coin.
        outpoint: OutPoint,
        /// The payments whose attempts are not all proven dead, of all coins of the permit.
        earlier: Vec<PaymentKey>,
    },
    /// One attempt number is one unsigned transaction, for ever (safety 11).
    #[error("attempt {attempt} of {key} was signed as {recorded} before, and this one is {asked}")]
    OtherTransaction {
        /// The payment.
        key: PaymentKey,
        /// The attempt.
        attempt: AttemptNo,
        /// What was signed.
        recorded: Txid,
        /// What the permit asks for.
        asked: Txid,
    },
    /// Two attempts of one payment that share no coin could both confirm (safety 8, 9).
    #[error(
        "attempt {earlier} of {key} was signed as {recorded} before, attempt {attempt} spends none of its coins, and \
         nothing proves that the earlier one can no longer confirm"
    )]
    NoSharedCoin {
        /// The payment.
        key: PaymentKey,
        /// The attempt of the permit.
        attempt: AttemptNo,
        /// An attempt that was signed.
        earlier: AttemptNo,
        /// Its transaction.
        recorded: Txid,
    },
    /// A later intent for this coin was signed before (safety 12).
    #[error(
        "coin {outpoint} was signed away under fence {} before, and this permit has fence {}",
        .recorded.spelled(), .asked.spelled()
    )]
    LowerFence {
        /// The first such coin.
        outpoint: OutPoint,
        /// The highest fence under which it was signed away.
        recorded: Fence,
        /// The permit's.
        asked: Fence,
    },
    /// The cluster's log lacks what this signer has signed: nothing more is signed until an operator has looked.
    #[error(
        "it is frozen: the cluster's log stood at {} when it was asked, and it has signed at {} before; \
         so the log is older than the signer's memory, as after a restored backup or a copied data folder. Compare \
         wallets and payments with the chain and the mempool; then stop this node and run: onespend signer unfreeze \
         --config FILE --name {signer} --i-have-checked",
        .position.spelled(), .recorded.spelled()
    )]
    Frozen {
        /// Which signer.
        signer: String,
        /// The position of the permit that froze it.
        position: Fence,
        /// The fence that the log must have reached.
        recorded: Fence,
    },
    /// The log was recovered since, and nobody has said that this memory knows what was signed before (safety 8, 30).
    #[error(
        "the log is of epoch {epoch}, and the memory of signer {signer} is accepted up to epoch {accepted} only: what \
         was signed before a recovery and is lost from the log may not be known here, and would be paid a second time. \
         Stop this node. If another node's signer is accepted, run on that machine: onespend signer copy --config FILE \
         --name {signer} COPY; bring COPY here, and run: onespend signer merge --config FILE --name {signer} COPY. If \
         none is, merge what all other memories of this signer know, compare wallets and payments with the chain and \
         the mempool, and run: onespend signer accept --config FILE --name {signer} --epoch {epoch} --i-have-checked"
    )]
    EpochNotAccepted {
        /// Which signer.
        signer: String,
        /// The epoch of the log when the permit was made.
        epoch: u32,
        /// The highest epoch that is accepted.
        accepted: u32,
    },
}

impl Refusal {
    /// What [`Refusal::rule`] may be.
    pub const RULES: [&'static str; 6] =
        ["second_payment", "other_transaction", "no_shared_coin", "lower_fence", "frozen", "epoch_not_accepted"];

    /// The rule that is broken, as one word for counters.
    pub fn rule(&self) -> &'static str {
        let [second_payment, other_transaction, no_shared_coin, lower_fence, frozen, epoch_not_accepted] = Self::RULES;
        match self {
            Self::SecondPayment { .. } => second_payment,
            Self::OtherTransaction { .. } => other_transaction,
            Self::NoSharedCoin { .. } => no_shared_coin,
            Self::LowerFence { .. } => lower_fence,
            Self::Frozen { .. } => frozen,
            Self::EpochNotAccepted { .. } => epoch_not_accepted,
        }
    }
}

fn list(keys: &[PaymentKey]) -> String {
    keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
