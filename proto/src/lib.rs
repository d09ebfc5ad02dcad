//! The gRPC interface of onespend and its leader-following client.
//!
//! | module | holds |
//! |---|---|
//! | [`v1`] | messages and services for wallet back ends and operators |
//! | [`peer::v1`] | Raft between the nodes of one cluster |
//! | [`client`] | the leader-following client |
//! | [`reason`] | the reasons of errors, as they stand in `google.rpc.ErrorInfo` |
//! | `payment` | what a [`v1::Payment`] says beyond its fields |
//!
//! The `.proto` files under `proto/` are the source of truth and document every field. `build.rs` compiles them
//! with protox, so building needs no protoc.

pub mod client;
mod payment;
pub mod reason;

/// Messages and services for wallet back ends and operators (package `onespend.v1`).
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("onespend.v1");
}

/// What the nodes of one cluster say to each other.
pub mod peer {
    /// Raft (package `onespend.peer.v1`).
    #[allow(missing_docs, clippy::all, clippy::pedantic)]
    pub mod v1 {
        tonic::include_proto!("onespend.peer.v1");
    }
}

/// The encoded `FileDescriptorSet` of both packages and their imports, with comments: for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("onespend_descriptor");

/// Metadata key under which a peer request names its cluster.
pub const CLUSTER_METADATA_KEY: &str = "onespend-cluster";

/// Metadata key under which a node that forwards a request names the caller, such as `client/payouts`. Only a node
/// certificate may set it.
pub const CALLER_METADATA_KEY: &str = "onespend-caller";

/// Metadata key of an answer under which a replica that forwarded a request names the leader's data port, or for
/// ClusterService its control port, so that the caller can go there directly next time.
pub const LEADER_METADATA_KEY: &str = "onespend-leader";

/// Keys of `ErrorInfo.metadata` that programs read; errors.proto says which reason carries which.
pub mod detail {
    /// NOT_LEADER: id of the leader's node.
    pub const LEADER_ID: &str = "leader_id";
    /// NOT_LEADER: `host:port` of the leader's data port.
    pub const LEADER_DATA_ADDR: &str = "leader_data_addr";
    /// NOT_LEADER: `host:port` of the leader's control port.
    pub const LEADER_CONTROL_ADDR: &str = "leader_control_addr";
    /// NOT_LEADER: the term.
    pub const TERM: &str = "term";
    /// Reasons about coins: comma-separated `txid:vout`, as many as fit; `outpoints_total` says how many there are.
    pub const OUTPOINTS: &str = "outpoints";
}

// Compiles the Rust examples of the API guide.
#[cfg(doctest)]
#[doc = include_str!("../../docs/src/api.md")]
struct ApiGuide;
