//! A coin is looked up at one block and registered while the next one comes.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use bitcoin::{Amount, BlockHash, ScriptBuf, Sequence, Transaction, TxIn, TxOut, Witness};
use onespend_adapters::chain::Chain as _;
use onespend_adapters::chain::fake::FakeChain;
use onespend_core::command::{BlockRef, RegisterWallet};
use onespend_core::ids::Height;
use onespend_core::limits::WalletLimits;
use onespend_core::outcome::Outcome;
use onespend_core::utxo::UtxoState;
use onespend_core::wallet::SignerRef;
use tempfile::TempDir;

use super::*;
use crate::grpc::decide::Draft;
use crate::health::Progress;
use crate::leader::block_facts;
use crate::specimen::{self, request, soon, wallet};

/// Blocks after which a coinbase may be spent.
const MATURITY: u32 = 100;

/// A leader whose wallet follows single coins, and a coin that it might follow.
struct Scene {
    chain: FakeChain,
    api: Arc<Api>,
    wallet: WalletId,
    coin: OutPoint,
    _folder: TempDir,
}

fn somebody() -> ScriptBuf {
    ScriptBuf::from_hex("00140102030405060708090a0b0c0d0e0f1011121314").unwrap()
}

impl Scene {
    async fn set() -> Self {
        let folder = TempDir::new().unwrap();
        let chain = FakeChain::new();
        let blocks = chain.mine(MATURITY + 1, &somebody());
        let coin = OutPoint::new(chain.block(blocks[0]).unwrap().txdata[0].compute_txid(), 0);
        let tip = BlockRef { height: Height(MATURITY + 1), hash: *blocks.last().unwrap() };
        let api = specimen::api(specimen::leader_at(&folder, tip).await, chain.clone());
        let scene = Self { chain, api, wallet: wallet("single"), coin, _folder: folder };
        let register = RegisterWallet {
            wallet: scene.wallet.clone(),
            descriptor: String::new(),
            signer: SignerRef::WatchOnly,
            limits: WalletLimits::default(),
            basis: tip,
            found: vec![],
            fence_key: None,
        };
        assert_eq!(scene.propose(Command::RegisterWallet(register)).await, Outcome::WalletChanged);
        // Its threads end with the test's process.
        drop(scene.api.bitcoind.start(&Progress::default()).unwrap());
        while scene.api.bitcoind.in_sync().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        scene
    }

    async fn propose(&self, command: Command) -> Outcome {
        self.api.replica.propose(None, command, soon()).await.unwrap().outcome
    }

    async fn look_up(&self) -> Result<Draft, Status> {
        draft(&self.api, &self.wallet, &[self.coin]).await
    }

    /// Somebody spends the coin in the next block.
    fn spend(&self) -> BlockHash {
        let input = TxIn {
            previous_output: self.coin,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        };
        let output = TxOut { value: Amount::from_sat(10_000), script_pubkey: somebody() };
        let (version, lock_time) = (Version::TWO, LockTime::ZERO);
        let spending = Transaction { version, lock_time, input: vec![input], output: vec![output] };
        self.chain.mine_with(&[spending], &somebody()).unwrap()
    }

    /// What the leader finds in a block, by the state as it is.
    fn search(&self, hash: BlockHash) -> Command {
        let block = self.chain.block(hash).unwrap();
        let covered = self.api.scripts.cover(self.api.replica.raft().view());
        let at = BlockRef { height: Height(self.chain.header(hash).unwrap().height), hash };
        let received = block_facts::received(&block, at.height, &self.api.scripts);
        self.api.replica.read(|state| block_facts::connect(&block, at, received, covered, state))
    }

    fn state_of_coin(&self) -> Option<UtxoState> {
        self.api.replica.read(|state| {
            let depth = state.wallet(&self.wallet).unwrap().limits.finality_depth;
            state.utxo(&self.coin).map(|utxo| utxo.state(state.tip().unwrap().height, depth))
        })
    }
}

/// The leader has searched the block that spends the coin when nobody followed it. Connected like that, the coin would
/// look available for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spend_in_a_block_that_was_searched_before_the_coin_was_registered_is_seen() {
    let scene = Scene::set().await;
    let looked_up = scene.look_up().await.unwrap_or_else(|refused| panic!("{refused}"));
    let block = scene.spend();
    let searched = scene.search(block);
    assert_eq!(scene.propose(looked_up.command).await, Outcome::WalletChanged);
    let refused = scene.propose(searched).await;
    assert!(matches!(refused, Outcome::Rejected(Rejection::StaleBasis { .. })), "{refused:?}");
    assert_eq!(scene.propose(scene.search(block)).await, Outcome::Recorded);
    assert_eq!(scene.state_of_coin(), Some(UtxoState::SpentPending));
}

/// Whatever the block did with the coin, the answer is of the tip that the log stands on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coin_is_looked_up_again_when_a_block_came_first() {
    for spent in [false, true] {
        let scene = Scene::set().await;
        let looks = std::sync::atomic::AtomicU32::new(0);
        let gather = || async {
            let drafted = scene.look_up().await?;
            if looks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                let block = if spent { scene.spend() } else { scene.chain.mine(1, &somebody())[0] };
                assert_eq!(scene.propose(scene.search(block)).await, Outcome::Recorded);
            }
            Ok(drafted)
        };
        let decided = scene.api.decisions.decide(soon(), request("r"), gather).await;
        if spent {
            let refused = decided.unwrap_err();
            assert!(status::is_for(&refused, v1::ErrorReason::OutpointUnknown), "{refused}");
            assert_eq!(scene.state_of_coin(), None);
        } else {
            assert_eq!(decided.unwrap().outcome, Outcome::WalletChanged);
            assert_eq!(looks.into_inner(), 2);
            assert_eq!(scene.state_of_coin(), Some(UtxoState::Available));
        }
    }
}
