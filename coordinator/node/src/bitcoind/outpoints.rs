//! Single coins as bitcoind has them, at the tip that the log stands on.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::OutPoint;
use onespend_adapters::chain::ChainError;
use onespend_core::command::Received;
use onespend_core::ids::{Height, WalletId};
use onespend_core::wallet::Keychain;
use tokio::task::spawn_blocking;

use super::BitcoindWatch;
use super::scan::Found;

/// How often it is asked again while bitcoind's tip is another than the log's.
const MAX_TRIES: u32 = 20;
/// Wait between two tries.
const RETRY: Duration = Duration::from_millis(100);

/// Why coins were not found.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// bitcoind did not answer, or refused.
    #[error("looking up coins: {0}")]
    Chain(#[from] ChainError),
    /// These are no unspent outputs of the chain.
    #[error("{} outpoints are not unspent in the chain", .outpoints.len())]
    Missing {
        /// All of them.
        outpoints: Vec<OutPoint>,
    },
    /// bitcoind's tip is not the log's.
    #[error("bitcoind is at another block than the log; it is asked again")]
    OtherTip,
    /// The thread ended.
    #[error("the look-up was stopped")]
    Stopped,
}

impl BitcoindWatch {
    /// Asks for each coin; what is only in the mempool does not count.
    ///
    /// # Errors
    /// [`LookupError`].
    pub async fn look_up(self: &Arc<Self>, wallet: &WalletId, outpoints: &[OutPoint]) -> Result<Found, LookupError> {
        let mut tries = 0;
        loop {
            let (watch, wallet, outpoints) = (Arc::clone(self), wallet.clone(), outpoints.to_vec());
            let found = spawn_blocking(move || watch.look_up_blocking(&wallet, &outpoints)).await;
            match found.map_err(|_| LookupError::Stopped)? {
                // The log is about to reach bitcoind's tip.
                Err(LookupError::OtherTip) if tries < MAX_TRIES => {
                    tries += 1;
                    tokio::time::sleep(RETRY).await;
                }
                done => return done,
            }
        }
    }

    fn look_up_blocking(&self, wallet: &WalletId, outpoints: &[OutPoint]) -> Result<Found, LookupError> {
        let mut tip = None;
        (self.read)(&mut |state| tip = state.tip().ok());
        let basis = tip.ok_or(LookupError::OtherTip)?;
        let (mut coins, mut missing) = (Vec::new(), Vec::new());
        for outpoint in outpoints {
            let Some(output) = self.chain.tx_out(*outpoint, false)? else {
                missing.push(*outpoint);
                continue;
            };
            let above = output.confirmations.checked_sub(1).and_then(|above| basis.height.0.checked_sub(above));
            let height = above.filter(|_| output.best_block == basis.hash).ok_or(LookupError::OtherTip)?;
            coins.push(Received {
                outpoint: *outpoint,
                wallet: wallet.clone(),
                value_sat: output.value.to_sat(),
                script: output.script,
                keychain: Keychain::External,
                index: 0,
                coinbase: output.coinbase,
                height: Height(height),
            });
        }
        if missing.is_empty() { Ok(Found { basis, coins }) } else { Err(LookupError::Missing { outpoints: missing }) }
    }
}
