//! Whether a node is who it was: it must come with the data folder that it came with first (raft-and-storage.md, trap 5).
//!
//! Every message between nodes names the sender's folder, and the folder that the sender knows the receiver by. Whoever
//! is known by another folder has lost its disk and must not take part under its old id: it is refused, and stops.

use std::sync::Arc;

use onespend_adapters::store::{Meeting, PeerBook, StoreError};
use tokio::sync::watch;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use super::types::NodeId;

/// Metadata key that names the sender's data folder.
pub const INSTANCE_METADATA_KEY: &str = "onespend-instance";
/// Metadata key of the data folder that the sender knows the receiver by.
const EXPECTED_KEY: &str = "onespend-expected-instance";

/// This node's folder, and those of the others. Clones share what they know.
#[derive(Clone)]
pub(crate) struct Acquaintance {
    instance: MetadataValue<Ascii>,
    book: PeerBook,
    outcast: Arc<watch::Sender<Option<String>>>,
}

/// Why a node is not let in.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Refused {
    /// It came with another folder than before.
    #[error(
        "node {node} came with the data folder {found}, and was known with {before}: a node whose disk was lost must come back under a new id"
    )]
    Stranger {
        /// Which node.
        node: NodeId,
        /// Its folder now.
        found: String,
        /// Its folder before.
        before: String,
    },
    /// It did not say with which folder it comes.
    #[error("node {node} does not say which data folder it has")]
    Nameless {
        /// Which node.
        node: NodeId,
    },
    /// It cannot be remembered.
    #[error("the node cannot be remembered: {0}")]
    Store(#[from] StoreError),
}

impl Acquaintance {
    /// `instance` names this node's data folder, in plain ASCII.
    pub(crate) fn new(instance: &str, book: PeerBook) -> Result<Self, tonic::metadata::errors::InvalidMetadataValue> {
        Ok(Self { instance: instance.parse()?, book, outcast: Arc::new(watch::Sender::new(None)) })
    }

    /// Says which folder this node has, and by which it knows the receiver.
    pub(crate) fn introduce(&self, to: NodeId, metadata: &mut MetadataMap) {
        self.sign(metadata);
        if let Some(known) = self.book.known(to).and_then(|known| known.parse().ok()) {
            metadata.insert(EXPECTED_KEY, known);
        }
    }

    /// Says which folder this node has.
    pub(crate) fn sign(&self, metadata: &mut MetadataMap) {
        metadata.insert(INSTANCE_METADATA_KEY, self.instance.clone());
    }

    /// Checks what a message of another node says of itself.
    pub(crate) fn meet(&self, node: NodeId, metadata: &MetadataMap) -> Result<(), Refused> {
        let found = says(metadata, INSTANCE_METADATA_KEY).ok_or(Refused::Nameless { node })?;
        match self.book.meet(node, found)? {
            Meeting::Known => Ok(()),
            Meeting::Stranger { before } => Err(Refused::Stranger { node, found: found.to_owned(), before }),
        }
    }

    /// Checks whether the sender knows this node by another folder than the one it has. Then this node is the one whose
    /// disk was lost, and it stops.
    pub(crate) fn check_own(&self, from: NodeId, metadata: &MetadataMap) -> Result<(), String> {
        let own = self.instance.to_str().unwrap_or_default();
        match says(metadata, EXPECTED_KEY) {
            Some(expected) if expected != own => {
                let why = format!(
                    "node {from} knows this node by the data folder {expected}, and it has {own}: a node whose disk was \
                     lost must come back under a new id"
                );
                self.outcast.send_replace(Some(why.clone()));
                Err(why)
            }
            _ => Ok(()),
        }
    }

    /// Why this node may not take part, once another has said so.
    pub(crate) fn outcast(&self) -> watch::Receiver<Option<String>> {
        self.outcast.subscribe()
    }
}

fn says<'a>(metadata: &'a MetadataMap, key: &str) -> Option<&'a str> {
    metadata.get(key).and_then(|value| value.to_str().ok())
}
