//! Which coins there are, as every caller may know: asked of the nodes now and then, and a little old.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use onespend_proto::v1::read_consistency::Level;
use onespend_proto::v1::wallet_service_client::WalletServiceClient;
use onespend_proto::v1::{BoundedStaleness, ListUtxosRequest, ReadConsistency, Utxo, UtxoState};
use tonic::transport::Channel;

use crate::cluster::Credentials;
use crate::grpc;
use crate::hot::WALLET;

/// Coins that everybody wants.
const HOT_COINS: usize = 5;
const PAGE: i32 = 1_000;
const PACE: Duration = Duration::from_millis(500);
/// Old coins do no harm: the service refuses what is gone.
const STALENESS_MS: u32 = 60_000;

/// Coins, by what they are good for. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Coins>>);

#[derive(Debug, Default)]
struct Coins {
    /// Wanted by everybody; replaced only when they are spent.
    hot: Vec<Utxo>,
    /// Free, or so it seemed.
    free: Vec<Utxo>,
}

impl Board {
    /// One of the coins that everybody wants.
    pub fn hot(&self, pick: u64) -> Option<Utxo> {
        chosen(&self.lock().hot, pick).cloned()
    }

    /// So many different coins that seemed free.
    pub fn free(&self, pick: u64, count: usize) -> Vec<Utxo> {
        let coins = self.lock();
        let first = usize::try_from(pick % u64::try_from(coins.free.len()).unwrap_or(1).max(1)).unwrap_or(0);
        coins.free.iter().cycle().skip(first).take(count.min(coins.free.len())).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Coins> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_note(&self, utxos: &[Utxo]) {
        let mut coins = self.lock();
        let there = |coin: &Utxo| utxos.iter().any(|utxo| utxo.outpoint == coin.outpoint);
        coins.hot.retain(there);
        let free: Vec<Utxo> = utxos.iter().filter(|utxo| utxo.state() == UtxoState::Available).cloned().collect();
        let missing = HOT_COINS.saturating_sub(coins.hot.len());
        let is_hot = |utxo: &&Utxo| coins.hot.iter().any(|hot| hot.outpoint == utxo.outpoint);
        let fresh: Vec<Utxo> = free.iter().filter(|utxo| !is_hot(utxo)).take(missing).cloned().collect();
        coins.hot.extend(fresh);
        coins.free = free;
    }

    /// Asks one node after the other, for ever.
    ///
    /// # Errors
    /// The certificate cannot be read.
    pub async fn follow(self, nodes: Vec<SocketAddr>, credentials: Credentials) -> Result<()> {
        let clients = nodes.iter().map(|node| Ok(WalletServiceClient::new(grpc::channel(*node, &credentials)?)));
        let clients: Vec<WalletServiceClient<Channel>> = clients.collect::<Result<_>>()?;
        for client in clients.into_iter().cycle() {
            // A node that is down, cut off or too old tells nothing; the next one does.
            if let Ok(utxos) = grpc::bounded(list(client)).await {
                self.take_note(&utxos);
            }
            tokio::time::sleep(PACE).await;
        }
        Ok(())
    }
}

/// One of a list, by a number.
pub fn chosen<T>(list: &[T], pick: u64) -> Option<&T> {
    let count = u64::try_from(list.len()).ok()?;
    list.get(usize::try_from(pick.checked_rem(count)?).ok()?)
}

async fn list(mut client: WalletServiceClient<Channel>) -> Result<Vec<Utxo>, tonic::Status> {
    let request = ListUtxosRequest {
        wallet_id: WALLET.to_owned(),
        states: vec![UtxoState::Available.into(), UtxoState::Reserved.into()],
        page_size: PAGE,
        consistency: Some(ReadConsistency {
            level: Some(Level::BoundedStaleness(BoundedStaleness { max_lag_ms: STALENESS_MS })),
        }),
        ..ListUtxosRequest::default()
    };
    Ok(client.list_utxos(request).await?.into_inner().utxos)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use onespend_proto::v1::Outpoint;

    fn coin(vout: u32, state: UtxoState) -> Utxo {
        let outpoint = Some(Outpoint { txid: "c".to_owned(), vout });
        Utxo { outpoint, state: state.into(), ..Utxo::default() }
    }

    #[test]
    fn hot_coins_stay_while_they_are_there_and_are_replaced_when_spent() {
        let board = Board::default();
        assert_eq!(board.hot(3), None);
        assert_eq!(board.free(3, 2), Vec::new());
        let coins: Vec<Utxo> = (0..8).map(|vout| coin(vout, UtxoState::Available)).collect();
        board.take_note(&coins);
        let hot = board.hot(0).unwrap();
        let mut later: Vec<Utxo> = (1..8).map(|vout| coin(vout, UtxoState::Available)).collect();
        later[0] = coin(1, UtxoState::Reserved);
        board.take_note(&later);
        let now: Vec<u32> = (0..5).filter_map(|pick| board.hot(pick)?.outpoint).map(|outpoint| outpoint.vout).collect();
        assert!(!now.contains(&hot.outpoint.unwrap().vout) && now.contains(&1) && now.len() == 5, "{now:?}");
        assert_eq!(board.free(13, 3).len(), 3);
        assert_eq!(board.free(13, 30).len(), 6, "each once");
    }
}
