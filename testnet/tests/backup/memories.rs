//! What signers remember: kept when a cluster is lost, and given to the next one's by the command line, as the book of
//! operations says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use onespend_proto::v1;
use onespend_testnet::cluster::{CLUSTER_ID, signer_memory};
use onespend_testnet::health;
use onespend_testnet::oracle::signer_log;

use crate::scene::{ASK, Scene, eventually};
use crate::second::Second;

/// The alarm of a node whose signer has not been told that it knows what was signed before.
const NOT_ACCEPTED: &str = "SIGNER_NOT_ACCEPTED";

/// What the signers of these nodes remember, in one file of each, once the nodes are killed.
pub fn keep(scene: &mut Scene, nodes: [usize; 2]) -> [PathBuf; 2] {
    let folder = scene.cluster.folder().to_path_buf();
    nodes.map(|index| {
        let kept = folder.join(format!("kept-{}.db", index + 1));
        let node = scene.cluster.node(index).unwrap();
        node.kill().unwrap();
        signer_memory(&node.config_file(), &["copy", kept.to_str().unwrap()]).unwrap();
        kept
    })
}

impl Second {
    fn memory(&self, index: usize, what: &[&str]) {
        signer_memory(&self.config(index), what).unwrap();
    }

    /// Adds what a signer of the old cluster remembers to the memory of a node that is down.
    pub fn merge_old(&self, index: usize, memory: &Path) {
        self.memory(index, &["merge", memory.to_str().unwrap(), "--from", CLUSTER_ID]);
    }

    /// The same with what another node's signer remembers.
    pub fn merge(&self, index: usize, memory: &Path) {
        self.memory(index, &["merge", memory.to_str().unwrap()]);
    }

    /// A copy of what a node's signer remembers, while the node runs.
    pub fn copy_memory(&self, index: usize) -> PathBuf {
        let copy = self.folder().join(format!("copied-{}.db", self.id(index)));
        self.memory(index, &["copy", copy.to_str().unwrap()]);
        copy
    }

    /// An operator's word, for a node that is down, that its signer remembers what it must.
    pub fn accept(&self, index: usize, epoch: u32) {
        self.memory(index, &["accept", "--epoch", &epoch.to_string(), "--i-have-checked"]);
    }

    /// Whether a node's health port says yes.
    pub fn says(&self, index: usize, path: &str) -> bool {
        health::status(self.health(index), path, ASK) == 200
    }

    fn alarms(&self, index: usize) -> Result<Vec<String>, String> {
        health::alarms(self.health(index), ASK).map_err(|error| error.to_string())
    }

    /// Waits until a node says that its signer has not accepted the log; then it takes no spends.
    pub async fn lacks_acceptance(&self, index: usize) {
        eventually("the node warns of its signer", async || {
            let alarms = self.alarms(index)?;
            if alarms.iter().any(|code| code == NOT_ACCEPTED) { Ok(()) } else { Err(format!("{alarms:?}")) }
        })
        .await;
        assert!(!self.says(index, "/primary"), "it would be sent spends");
    }

    /// Waits until a node is there and has nothing against its signer.
    pub async fn has_accepted(&self, index: usize) {
        eventually("the node is there, and its signer has accepted the log", async || {
            let (ready, alarms) = (self.says(index, "/readyz"), self.alarms(index)?);
            let lacks = alarms.iter().any(|code| code == NOT_ACCEPTED);
            if ready && !lacks { Ok(()) } else { Err(format!("ready: {ready}, {alarms:?}")) }
        })
        .await;
    }

    /// The transactions that the nodes' signers signed for a payment.
    pub fn transactions(&self, payment_id: &str) -> BTreeSet<String> {
        let logs = self.signer_logs();
        let signatures = logs.iter().flat_map(|log| signer_log::read(log).unwrap());
        signatures.filter(|one| one.payment_id == payment_id).map(|one| one.txid).collect()
    }

    fn hand_overs(&self, index: usize) -> Result<u64, String> {
        health::hand_overs(self.health(index), "signer", ASK).map_err(|error| error.to_string())
    }

    /// Gives the lead to a node whose signer lacks something, and waits until that node has given it to the first one
    /// by itself. Nobody is sent spends meanwhile but the first.
    pub async fn gives_the_lead_back(&self, index: usize) {
        let (operator, node_id, before) = (self.operator(), self.id(index), self.hand_overs(index).unwrap());
        let led = eventually("the lead is handed over", async || {
            let transfer = v1::TransferLeadershipRequest { node_id, ..Default::default() };
            operator.transfer_leadership(transfer).await.map_err(|error| error.to_string())
        })
        .await;
        assert_eq!(led.leader_id, node_id, "it leads when it is asked to");
        eventually("it has given the lead back", async || {
            assert!(!self.says(1, "/primary") && !self.says(2, "/primary"), "it is sent spends");
            let (given, back) = (self.hand_overs(index)?, self.says(0, "/primary"));
            if given > before && back { Ok(()) } else { Err(format!("given {given} times; back: {back}")) }
        })
        .await;
    }
}
