//! A replicated state with wallets and coins, for the tests of what reads it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bitcoin::bip32::{Xpriv, Xpub};
use bitcoin::hashes::Hash;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{BlockHash, Network, OutPoint, ScriptBuf, Transaction, Txid};
use onespend_adapters::chain::Chain as _;
use onespend_adapters::chain::fake::FakeChain;
use onespend_adapters::signer::{Signer, SignerError};
use onespend_adapters::store::PeerBook;
use onespend_adapters::store::memory::{MemoryLog, MemoryState};
use onespend_core::apply::apply;
use onespend_core::command::{BlockRef, Command, Entry, Received, RegisterWallet, Request};
use onespend_core::ids::{CallerId, Height, LogIndex, Millis, RequestId, RequestKey, WalletId};
use onespend_core::limits::{MAX_FEERATE_SAT_KVB, WalletLimits};
use onespend_core::outcome::Outcome;
use onespend_core::signing::SigningPermit;
use onespend_core::state::State;
use onespend_core::wallet::{Keychain, SignerRef, WalletDescriptor};
use onespend_policies::RoleTable;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::transport::ClientTlsConfig;

use crate::backup::BackupSource;
use crate::bitcoind::{self, BitcoindWatch};
use crate::checks::judgement::Aggregation;
use crate::grpc::api::{Api, Settings};
use crate::grpc::decide::Decisions;
use crate::grpc::forward::Forward;
use crate::health::bitcoind_sync::Rules;
use crate::health::{self, Health, Limits, Snapshot};
use crate::leader::broadcast;
use crate::leader::scripts::SharedScripts;
use crate::leader::sign::Signing;
use crate::peers::Peers;
use crate::raft::{Addresses, LeaderHint, NoObserver, Position, RaftConfig, RaftNode, RaftParts, StateView};
use crate::replica::Replica;
use crate::selection::Busy;

/// Height of the block that the cluster starts from.
pub(crate) const TIP: u32 = 200;

/// A coin of a wallet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Coin {
    pub(crate) value_sat: u64,
    /// Confirmations.
    pub(crate) depth: u32,
    pub(crate) coinbase: bool,
}

impl Coin {
    /// A deep one that no coinbase made.
    pub(crate) fn of(value_sat: u64) -> Self {
        Self { value_sat, depth: 150, coinbase: false }
    }
}

/// The block that the cluster starts from.
pub(crate) fn tip() -> BlockRef {
    BlockRef { height: Height(TIP), hash: BlockHash::from_byte_array([7; 32]) }
}

pub(crate) fn wallet(name: &str) -> WalletId {
    WalletId::parse(name).unwrap()
}

/// The coin of a wallet at a position of its list.
pub(crate) fn coin(n: u32) -> OutPoint {
    let mut txid = [1; 32];
    txid[..4].copy_from_slice(&n.to_be_bytes());
    OutPoint::new(Txid::from_byte_array(txid), 0)
}

fn private_key(name: &str) -> Xpriv {
    let mut seed = [9; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    Xpriv::new_master(Network::Regtest, &seed).unwrap()
}

fn descriptor(name: &str) -> String {
    format!("wpkh({}/<0;1>/*)", Xpub::from_priv(&Secp256k1::new(), &private_key(name)))
}

/// What a signer has to know to sign for the wallet of that name.
pub(crate) fn private_descriptor(name: &str) -> String {
    format!("wpkh({}/<0;1>/*)", private_key(name))
}

/// An address of the wallet of that name.
pub(crate) fn script(name: &str, keychain: Keychain, index: u32) -> ScriptBuf {
    WalletDescriptor::parse(&descriptor(name), Network::Regtest).unwrap().script(keychain, index).unwrap()
}

/// The command that makes a wallet with keys of its own. Its caps on fees are out of the way.
pub(crate) fn register(name: &str, coins: &[Coin]) -> Command {
    let script = script(name, Keychain::External, 0);
    let found = (0_u32..).zip(coins).map(|(n, made)| Received {
        outpoint: coin(n),
        wallet: wallet(name),
        value_sat: made.value_sat,
        script: script.clone(),
        keychain: Keychain::External,
        index: 0,
        coinbase: made.coinbase,
        height: Height(TIP + 1 - made.depth),
    });
    Command::RegisterWallet(RegisterWallet {
        wallet: wallet(name),
        descriptor: descriptor(name),
        signer: SignerRef::Named("hot".to_owned()),
        limits: WalletLimits {
            max_fee_sat: u64::MAX,
            max_feerate_sat_kvb: MAX_FEERATE_SAT_KVB,
            max_fee_percent: 100,
            ..WalletLimits::default()
        },
        basis: tip(),
        found: found.collect(),
        fence_key: None,
    })
}

/// A request of one caller.
pub(crate) fn request(name: &str) -> Request {
    let caller = CallerId::parse("client/test").unwrap();
    let key = RequestKey { caller, request: RequestId::parse(name).unwrap() };
    Request { key, digest: [0; 32], for_others: false }
}

/// A cluster that has started to follow the chain.
pub(crate) fn started() -> StateView {
    let view = StateView::new(State::default(), Position::default());
    accept(&view, Command::Start { network: Network::Regtest, tip: tip() });
    view
}

/// The next entry of the log.
pub(crate) fn apply_to(view: &StateView, request: Option<Request>, command: Command) -> Outcome {
    view.change(|state| {
        let index = LogIndex(state.applied().0 + 1);
        apply(state, index, &Entry { at: Millis(1), wall_ms: 0, request, command })
    })
}

/// The next entry, which must not be refused.
pub(crate) fn accept(view: &StateView, command: Command) {
    let outcome = apply_to(view, None, command);
    assert!(!matches!(outcome, Outcome::Rejected(_)), "{outcome:?}");
}

/// No test waits this long for what it expects.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// The leader of a cluster of one node that has started to follow the chain.
pub(crate) async fn leader(folder: &TempDir) -> Arc<Replica> {
    leader_at(folder, tip()).await
}

/// The same with a block to start from.
pub(crate) async fn leader_at(folder: &TempDir, tip: BlockRef) -> Arc<Replica> {
    found(waiting(folder).await, tip).await
}

/// Makes a node that has heard of no cluster yet the leader of one.
pub(crate) async fn found(replica: Arc<Replica>, tip: BlockRef) -> Arc<Replica> {
    replica.raft().initialize([(1, Addresses::default())].into()).await.unwrap();
    leads(&replica).await;
    let start = Command::Start { network: Network::Regtest, tip };
    replica.propose(None, start, soon()).await.unwrap();
    replica
}

/// Waits until a node leads.
pub(crate) async fn leads(replica: &Replica) {
    replica.leaderships().wait_for(|known| known.leader_term().is_some()).await.unwrap();
}

/// A node that has heard of no cluster yet.
pub(crate) async fn waiting(folder: &TempDir) -> Arc<Replica> {
    over(folder, MemoryLog::default()).await.0
}

/// A node over this log, and the log.
pub(crate) async fn over(folder: &TempDir, log: MemoryLog) -> (Arc<Replica>, Arc<MemoryLog>) {
    let log = Arc::new(log);
    let node = RaftNode::start(RaftParts {
        config: RaftConfig::default(),
        cluster_id: "test".to_owned(),
        node_id: 1,
        log: log.clone(),
        state: Arc::new(MemoryState::open(folder.path(), "test").unwrap()),
        instance: "one".to_owned(),
        peers: PeerBook::default(),
        tls: ClientTlsConfig::new(),
        observer: Arc::new(NoObserver),
    })
    .await
    .unwrap();
    let hint = LeaderHint { node_id: 1, addresses: Addresses::default(), term: 0 };
    (Arc::new(Replica::new(node, hint)), log)
}

/// Puts the cluster of this leader into recovery mode, compared with bitcoind: an operator may confirm it.
pub(crate) async fn recover(replica: &Replica) {
    let basis = replica.read(State::tip).unwrap();
    let enter = Command::EnterRecovery { why: "on purpose".to_owned() };
    for command in [enter, Command::Reconcile { basis, spent_outside: vec![] }] {
        assert_eq!(replica.propose(None, command, soon()).await.unwrap().outcome, Outcome::Recorded);
    }
}

/// Ends recovery mode with this epoch, as a replica sees it whose leader is asked: no signer here accepts it by that.
pub(crate) async fn confirm(replica: &Replica, epoch: u32) {
    let confirm = Command::ConfirmRecovery { epoch, note: "checked".to_owned() };
    assert_eq!(replica.propose(None, confirm, soon()).await.unwrap().outcome, Outcome::Recorded);
}

/// A signer with a memory that signs nothing, and notes how often it is asked to, and which epochs it accepts.
#[derive(Default)]
pub(crate) struct Careful {
    accepted: AtomicU32,
    asked: AtomicUsize,
    told: Mutex<Vec<(u32, String)>>,
    spent: Mutex<Vec<(OutPoint, Txid)>>,
    /// Its memory cannot be written.
    broken: bool,
    /// Its memory cannot be read.
    unreadable: AtomicBool,
}

impl Careful {
    /// One whose memory cannot be written.
    pub(crate) fn broken() -> Self {
        Self { broken: true, ..Self::default() }
    }

    /// How often it was asked to sign.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// The epochs that it accepted, and on whose word.
    pub(crate) fn told(&self) -> Vec<(u32, String)> {
        self.told.lock().unwrap().clone()
    }

    /// Makes it remember that it signed a coin away by a transaction.
    pub(crate) fn remember(&self, coin: OutPoint, by: Txid) {
        self.spent.lock().unwrap().push((coin, by));
    }

    /// Makes its memory unreadable.
    pub(crate) fn forget(&self) {
        self.unreadable.store(true, Ordering::SeqCst);
    }

    fn refusal(&self, why: &str) -> SignerError {
        SignerError::Unavailable { signer: self.name().to_owned(), why: why.to_owned() }
    }
}

impl Signer for Careful {
    fn name(&self) -> &'static str {
        "careful"
    }

    fn holds(&self, _: &WalletDescriptor) -> bool {
        true
    }

    fn sign(&self, _: &SigningPermit) -> Result<Transaction, SignerError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Err(self.refusal("it never signs"))
    }

    fn spenders(&self, coins: &[OutPoint]) -> Result<Vec<(OutPoint, Txid)>, SignerError> {
        if self.unreadable.load(Ordering::SeqCst) {
            return Err(self.refusal("its memory cannot be read"));
        }
        let spent = self.spent.lock().unwrap();
        Ok(spent.iter().filter(|(coin, _)| coins.contains(coin)).copied().collect())
    }

    fn accepted_epoch(&self) -> Option<u32> {
        Some(self.accepted.load(Ordering::SeqCst))
    }

    fn accept_epoch(&self, epoch: u32, who: &str) -> Result<(), SignerError> {
        if self.broken {
            return Err(self.refusal("its memory cannot be written"));
        }
        self.told.lock().unwrap().push((epoch, who.to_owned()));
        self.accepted.fetch_max(epoch, Ordering::SeqCst);
        Ok(())
    }
}

/// The health of a node that has just started, for as long as nobody publishes any other.
fn unpublished_health() -> Health {
    let hour = Duration::from_hours(1);
    let limits =
        Limits { max_lag_entries: 1_000, quorum_ack: hour, leader_contact: hour, snapshot: hour, bitcoind_view: hour };
    Health::new(Snapshot::starting("test", 1, BTreeMap::new()), limits, |_| String::new())
}

/// `[health]`.
pub(crate) fn health_config() -> health::Config {
    health::Config {
        max_lag_entries: 1_000,
        max_lag_blocks: 2,
        hand_over_after: Duration::from_secs(2),
        hand_over_pause: Duration::from_mins(1),
        checks_for_primary: Aggregation::All,
        checks_for_readiness: Aggregation::All,
    }
}

/// The rpcs of a node whose bitcoind is a fake, which nobody watches until its threads are started.
pub(crate) fn api(replica: Arc<Replica>, chain: FakeChain) -> Arc<Api> {
    let rules = Rules {
        chain: "regtest".to_owned(),
        genesis: chain.block_hash_at(0).unwrap().unwrap().to_string(),
        max_lag_blocks: 2,
        min_peers: 0,
        max_silence: Duration::from_secs(1),
    };
    let (poll, timeout) = (Duration::from_millis(50), Duration::from_secs(1));
    let watch = bitcoind::Settings { network: Network::Regtest, rules, poll, timeout };
    let state = Arc::clone(&replica);
    let read: bitcoind::ReadState = Arc::new(move |look| state.read(|state| look(state)));
    let (outbox, _inbox) = broadcast::queue();
    Arc::new(Api {
        signing: Arc::new(Signing::new(Arc::clone(&replica), vec![], outbox.clone(), Arc::default())),
        outbox,
        decisions: Decisions::new(Arc::clone(&replica)),
        backups: Arc::new(BackupSource::new(Arc::clone(&replica), "test", 1)),
        replica,
        peers: Arc::new(Peers::new("test", ClientTlsConfig::new())),
        policy: Arc::new(RoleTable),
        forward: Forward::new(ClientTlsConfig::new(), 1_000),
        bitcoind: BitcoindWatch::new(Arc::new(chain), read, watch),
        alarms: Arc::default(),
        health: Arc::new(unpublished_health()),
        scripts: SharedScripts::default(),
        busy: Busy::default(),
        stopping: CancellationToken::new(),
        settings: Settings {
            cluster_id: "test".to_owned(),
            network: Network::Regtest,
            node_id: 1,
            finality_depth: 6,
            forward_writes: false,
            request_timeout: Duration::from_secs(5),
            max_message_bytes: 4 << 20,
            started: Instant::now(),
            warnings: vec![],
        },
    })
}
