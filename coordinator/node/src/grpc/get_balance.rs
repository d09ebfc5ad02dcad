//! GetBalance: the sums of a wallet's coins by what may be done with them.
//!
//! One hold of the state's lock over the wallet's coins: sums over two moments would count a coin and its change, or
//! neither.

use onespend_core::ids::WalletId;
use onespend_core::state::State;
use onespend_core::utxo::UtxoState;
use onespend_proto::v1;
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::list_utxos::FIRST;
use super::utxo_view::{sat, state_of, tip};
use super::{chain_view, status};

pub(super) fn get_balance(
    api: &Api,
    info: v1::ReadInfo,
    message: &v1::GetBalanceRequest,
) -> Result<v1::GetBalanceResponse, Status> {
    let id = parse(message)?;
    api.replica.read(|state| {
        state.wallet(&id).map_err(|rejection| status::rejected(&rejection))?;
        let balance = Sums::of(state, &id, message.min_depth).show();
        Ok(v1::GetBalanceResponse { balance: Some(balance), tip: chain_view::tip(state), read_info: Some(info) })
    })
}

pub(super) fn parse(message: &v1::GetBalanceRequest) -> Result<WalletId, Status> {
    let mut fields = Fields::default();
    let id = fields.wallet_id(&message.wallet_id);
    fields.finish(id)
}

#[derive(Default)]
struct Sums {
    available: u64,
    available_count: u64,
    reserved: u64,
    exposed: u64,
    immature: u64,
    quarantined: u64,
    unconfirmed: u64,
}

impl Sums {
    /// Of a wallet's coins that are at least so deep.
    fn of(state: &State, wallet: &WalletId, min_depth: u32) -> Self {
        let mut sums = Self::default();
        for (_, utxo) in state.utxos_of(wallet, FIRST()).filter(|(_, utxo)| utxo.depth(tip(state)) >= min_depth) {
            sums.add(state_of(state, utxo), utxo.value_sat);
        }
        sums
    }

    fn add(&mut self, state: UtxoState, value_sat: u64) {
        let sum = match state {
            UtxoState::Available => {
                self.available_count += 1;
                &mut self.available
            }
            UtxoState::Immature => &mut self.immature,
            UtxoState::Unconfirmed => &mut self.unconfirmed,
            UtxoState::Reserved => &mut self.reserved,
            UtxoState::Exposed => &mut self.exposed,
            UtxoState::Quarantined => &mut self.quarantined,
            UtxoState::SpentPending | UtxoState::Spent => return,
        };
        *sum = sum.saturating_add(value_sat);
    }

    fn show(&self) -> v1::Balance {
        let parts = [self.available, self.reserved, self.exposed, self.immature, self.quarantined, self.unconfirmed];
        v1::Balance {
            total_sat: sat(parts.into_iter().fold(0, u64::saturating_add)),
            available_sat: sat(self.available),
            reserved_sat: sat(self.reserved),
            exposed_sat: sat(self.exposed),
            immature_sat: sat(self.immature),
            quarantined_sat: sat(self.quarantined),
            unconfirmed_sat: sat(self.unconfirmed),
            available_count: self.available_count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::specimen::{Coin, accept, register, started, wallet};

    #[test]
    fn coins_that_are_not_deep_enough_count_nowhere() {
        let view = started();
        let coin = |value_sat, depth, coinbase| Coin { value_sat, depth, coinbase };
        let coins = [coin(1_000, 6, false), coin(200, 2, false), coin(40, 8, true), coin(5, 2, true)];
        accept(&view, register("w", &coins));
        let sums = |min_depth| {
            let balance = view.read(|state| Sums::of(state, &wallet("w"), min_depth)).show();
            (balance.available_sat, balance.available_count, balance.immature_sat, balance.total_sat)
        };
        assert_eq!(sums(0), (1_200, 2, 45, 1_245));
        assert_eq!(sums(6), (1_000, 1, 40, 1_040));
        assert_eq!(sums(7), (0, 0, 40, 40));
        assert_eq!(sums(9), (0, 0, 0, 0));
    }
}
