//! The readers of requests, of messages between nodes, and of the log's records and markers, as far as they need no
//! state, no network and no disk: for the fuzzers in `testnet/fuzz`, which cannot reach private modules. The daemon does
//! not call these; they call what it calls.

pub use crate::grpc::intake::{Reading, read_request};
pub use crate::raft::intake::{read_marker, read_record};
