//! Raft: the only place that names openraft.
//!
//! | file | holds |
//! |---|---|
//! | `node` | [`RaftNode`]: starting, stopping, and what the rest of the process calls |
//! | `config`, `status`, `observer` | settings; what is known at one moment; what the metrics are told |
//! | `propose`, `leadership` | proposing commands; who leads, and the time that a leader gives |
//! | `linearizable` | reads of the latest state |
//! | `transfer`, `abstention`, `membership` | handing over; standing for no election; members |
//! | `doubt` | a state that may be wrong is given to no other node |
//! | `state_machine`, `view` | applying entries; the state and its news, for reading |
//! | `founding` | copies of the state, and a cluster that begins with one |
//! | `salvage` | what the stores of a stopped node hold, without a quorum |
//! | `log_store`, `codec`, `lag` | the log; stored forms; how long entries take |
//! | `contact`, `acks`, `dating` | when a leader was last heard; when the others were sent what they answered; how new it is |
//! | `acquaintance` | whether a node is who it was |
//! | `network`, `channels`, `append_stream`, `snapshot_send` | to other nodes |
//! | `peer_service`, `snapshot_receive` | from other nodes |
//! | `intake` | what fuzzers call |
//! | `specimen` | stores as a crash leaves them, and with any state, under test only |
//! | `simulated` | openraft's runtime and network in a simulation, under test only |
//! | `types`, `wire` | openraft's type parameters; messages between nodes |

mod abstention;
mod acks;
mod acquaintance;
mod append_stream;
mod channels;
mod codec;
mod config;
mod contact;
mod dating;
mod doubt;
mod founding;
#[cfg(test)]
mod golden_tests;
pub(crate) mod intake;
mod lag;
mod leadership;
mod linearizable;
mod log_store;
#[cfg(test)]
mod machine_tests;
mod membership;
mod network;
mod node;
mod observer;
mod peer_service;
mod propose;
mod reach;
mod salvage;
#[cfg(test)]
pub(crate) mod simulated;
mod snapshot_receive;
mod snapshot_send;
#[cfg(test)]
pub(crate) mod specimen;
mod state_machine;
mod status;
#[cfg(test)]
mod store_tests;
mod transfer;
mod types;
mod view;
mod wire;

pub use abstention::Abstention;
pub use acquaintance::INSTANCE_METADATA_KEY;
pub use config::{InvalidRaftConfig, RaftConfig};
pub use founding::{Founder, found, place_of};
pub use leadership::{LeaderHint, LeaderTerm, Leadership};
pub use linearizable::ReadError;
pub use membership::MembershipError;
pub use network::TARGET_METADATA_KEY;
pub use node::{BootstrapError, RaftFatal, RaftNode, RaftParts, StartError};
pub use observer::{NoObserver, ProposalEnd, RaftObserver};
pub use peer_service::{NodeView, PeerIdentity, PeerService};
pub use propose::{Draft, MAX_PROPOSAL_BYTES, ProposeError, Proposer};
pub use salvage::{Salvage, SalvagedMember, salvage};
pub use status::{MemberStatus, RaftStatus, Role};
pub use transfer::TransferError;
pub use types::{Addresses, Applied, NodeId};
pub use view::{HASH_EVERY, HashAt, News, Position, StateView};
