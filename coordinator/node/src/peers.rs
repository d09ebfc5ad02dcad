//! What the other nodes say of themselves: their bitcoind, and the hashes of their state.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use onespend_core::command::BlockRef;
use onespend_core::ids::{Height, LogIndex};
use onespend_core::state::State;
use onespend_proto::CLUSTER_METADATA_KEY;
use onespend_proto::peer::v1::raft_service_client::RaftServiceClient;
use onespend_proto::peer::v1::{GetNodeViewRequest, GetNodeViewResponse};
use onespend_proto::v1;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::bitcoind::has_block;
use crate::dial;
use crate::raft::{HashAt, MemberStatus, TARGET_METADATA_KEY};

/// Longest wait for one node's answer, where nothing shorter is asked for.
pub const TIMEOUT: Duration = Duration::from_secs(1);

/// What another node says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Which node.
    pub node_id: u64,
    /// Hashes of its state: as it was when it answered, and at earlier indexes.
    pub hashes: Vec<HashAt>,
    /// Height of its bitcoind's tip, if it calls that bitcoind in sync: one on a fork, on another chain or without
    /// peers says nothing about how far the cluster's chain is.
    pub in_sync_height: Option<u32>,
    /// Whether its bitcoind is on a fork several blocks deep, and against what.
    pub fork: Option<Fork>,
    /// The highest feature level that it knows.
    pub feature_level: u32,
    /// Why it should not lead, if something but its bitcoind speaks against that.
    pub unfit: Option<String>,
    /// Whether it stands for no election.
    pub abstains: bool,
    /// Whether its own disk is about to be full.
    pub disk_low: bool,
    /// The codes of the alarms that stand on it.
    pub alarms: Vec<String>,
    /// The highest fence epoch that a signer of it has signed under or accepted.
    pub signer_epoch: u32,
}

/// How a bitcoind is on a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// Against the log: it has another block than this one, which is the highest such.
    FromLog {
        /// The log's block.
        block: BlockRef,
        /// Height of its own tip.
        tip: u32,
    },
    /// With the log, against most other bitcoinds.
    WithLog,
}

impl Fork {
    /// The log's block that it has another one for, if the log still has it and its branch is as long as the log: what is
    /// behind may be about to follow, and could not be followed.
    pub fn contradicts(self, log: &State) -> Option<BlockRef> {
        let Self::FromLog { block, tip } = self else { return None };
        let as_long = log.tip().is_ok_and(|logged| tip >= logged.height.0);
        Some(block).filter(|block| as_long && has_block(log, *block))
    }
}

fn report(node_id: u64, answer: &GetNodeViewResponse) -> Report {
    let hash = |at: &v1::StateHash| Some(HashAt { index: LogIndex(at.index), hash: at.hash.as_ref().try_into().ok()? });
    let bitcoind = answer.view.as_ref().and_then(|view| view.bitcoind.as_ref());
    let in_sync = bitcoind.filter(|bitcoind| bitcoind.state() == v1::BitcoindState::InSync);
    Report {
        node_id,
        hashes: answer.state_hashes.iter().filter_map(hash).collect(),
        fork: bitcoind.filter(|bitcoind| bitcoind.state() == v1::BitcoindState::Forked).map(|bitcoind| {
            let block = answer
                .contradicts
                .as_ref()
                .and_then(|block| Some(BlockRef { height: Height(block.height), hash: block.hash.parse().ok()? }));
            let tip = bitcoind.tip.as_ref().map_or(0, |tip| tip.height);
            block.map_or(Fork::WithLog, |block| Fork::FromLog { block, tip })
        }),
        in_sync_height: in_sync.and_then(|bitcoind| bitcoind.tip.as_ref()).map(|tip| tip.height),
        feature_level: answer.feature_level,
        unfit: Some(answer.unfit.clone()).filter(|why| !why.is_empty()),
        abstains: answer.abstains,
        disk_low: answer.disk_low,
        alarms: answer.alarms.clone(),
        signer_epoch: answer.signer_epoch,
    }
}

/// Connections to the other nodes' control ports, for questions that have nothing to do with Raft.
pub struct Peers {
    cluster_id: String,
    tls: ClientTlsConfig,
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl Peers {
    /// No connection is made yet.
    pub fn new(cluster_id: &str, tls: ClientTlsConfig) -> Self {
        Self { cluster_id: cluster_id.to_owned(), tls, channels: Mutex::default() }
    }

    /// Every other member's view of its own bitcoind; a node that does not answer is shown as such.
    pub async fn views(&self, others: &[MemberStatus]) -> Vec<v1::NodeView> {
        join_all(others.iter().map(|member| async move {
            match self.ask(member, TIMEOUT).await {
                Ok(answer) => answer.view.unwrap_or_default(),
                Err(error) => v1::NodeView { node_id: member.node_id, error, ..v1::NodeView::default() },
            }
        }))
        .await
    }

    /// What every other member says of itself; nothing of those that do not answer in time.
    pub async fn reports(&self, others: &[MemberStatus], within: Duration) -> Vec<Report> {
        let asked = others.iter().map(|member| async move {
            self.ask(member, within).await.ok().map(|answer| report(member.node_id, &answer))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    async fn ask(&self, member: &MemberStatus, within: Duration) -> Result<GetNodeViewResponse, String> {
        let channel = self.channel(&member.addresses.control).ok_or("its address is not one")?;
        let mut request = Request::new(GetNodeViewRequest {});
        request.set_timeout(within);
        let value = |text: &str| AsciiMetadataValue::try_from(text).map_err(|error| error.to_string());
        request.metadata_mut().insert(CLUSTER_METADATA_KEY, value(&self.cluster_id)?);
        request.metadata_mut().insert(TARGET_METADATA_KEY, value(&member.node_id.to_string())?);
        let (mut client, started) = (RaftServiceClient::new(channel), Instant::now());
        match tokio::time::timeout(within, client.get_node_view(request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err(format!("no answer within {} ms", started.elapsed().as_millis())),
        }
    }

    fn channel(&self, address: &str) -> Option<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(address) {
            return Some(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}")).ok()?;
        let endpoint = endpoint.tls_config(self.tls.clone()).ok()?.connect_timeout(TIMEOUT);
        // A node that vanished without a word may be back at another address.
        let endpoint =
            endpoint.http2_keep_alive_interval(TIMEOUT).keep_alive_timeout(TIMEOUT).keep_alive_while_idle(true);
        let channel = dial::lazily(&endpoint);
        channels.insert(address.to_owned(), channel.clone());
        Some(channel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn height_of(state: v1::BitcoindState, height: Option<u32>) -> Option<u32> {
        let tip = height.map(|height| v1::BlockRef { height, ..v1::BlockRef::default() });
        let bitcoind = v1::BitcoindView { state: state.into(), tip, ..v1::BitcoindView::default() };
        let view = v1::NodeView { bitcoind: Some(bitcoind), ..v1::NodeView::default() };
        report(2, &GetNodeViewResponse { view: Some(view), ..GetNodeViewResponse::default() }).in_sync_height
    }

    #[test]
    fn only_a_bitcoind_in_sync_says_how_far_the_chain_is() {
        assert_eq!(height_of(v1::BitcoindState::InSync, Some(7)), Some(7));
        assert_eq!(height_of(v1::BitcoindState::InSync, None), None);
        for state in [v1::BitcoindState::Forked, v1::BitcoindState::WrongChain, v1::BitcoindState::Starting] {
            assert_eq!(height_of(state, Some(7)), None, "{state:?}");
        }
        let unfit = GetNodeViewResponse { unfit: "disk-free".to_owned(), ..GetNodeViewResponse::default() };
        assert_eq!(report(2, &unfit).unfit.as_deref(), Some("disk-free"));
        let alarms = vec!["DISK_LOW".to_owned()];
        let alarmed = GetNodeViewResponse { alarms: alarms.clone(), ..GetNodeViewResponse::default() };
        assert_eq!(report(2, &alarmed).alarms, alarms);
        let accepted = GetNodeViewResponse { signer_epoch: 3, ..GetNodeViewResponse::default() };
        assert_eq!(report(2, &accepted).signer_epoch, 3);
        assert_eq!(report(2, &GetNodeViewResponse::default()), Report { node_id: 2, ..Report::default() });
    }
}
