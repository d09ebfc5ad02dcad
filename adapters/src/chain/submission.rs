//! What a node says about a transaction that it is given.

use bitcoin::{OutPoint, Txid};

/// What became of a broadcast. All of these are answers; errors are [`ChainError`](super::ChainError).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BroadcastOutcome {
    /// It is in the mempool now and announced to peers.
    Accepted,
    /// It was there before (perhaps with another witness), and is announced again.
    AlreadyInMempool,
    /// It is in a block of the active chain.
    AlreadyConfirmed,
    /// An input does not exist or is spent by another transaction. Not applied. This is not death: a reorg can bring
    /// the inputs back.
    InputsMissingOrSpent {
        /// The inputs whose spender the node could name. Empty if it could not, in which case the transaction itself
        /// may be confirmed with all of its outputs spent (a node without `-txospenderindex` and `-txindex` answers
        /// both alike).
        conflicts: Vec<Conflict>,
    },
    /// Policy or consensus refused it. Not applied.
    Rejected {
        /// Bitcoin Core's RPC error code: -22 undecodable, -25 above the node's own fee or burn ceiling, -26 refused
        /// by the mempool.
        code: i32,
        /// Bitcoin Core's message, such as `insufficient fee, rejecting replacement …`.
        reason: String,
    },
}

/// An input that another transaction spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The input.
    pub outpoint: OutPoint,
    /// Who spends it.
    pub spender: Txid,
}
