//! GetBalance: the sums of a wallet's coins by what may be done with them.
//!
//! One hold of the state's lock over the wallet's coins: sums over two moments would count a coin and its change, or
//! neither.

use onespend_core::ids::WalletId;
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
        let mut sums = Sums::default();
        for (_, utxo) in state.utxos_of(&id, FIRST()) {
            let deep = utxo.depth(tip(state)) >= message.min_depth;
            sums.add(state_of(state, utxo), utxo.value_sat, deep);
        }
        Ok(v1::GetBalanceResponse { balance: Some(sums.show()), tip: chain_view::tip(state), read_info: Some(info) })
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
    fn add(&mut self, state: UtxoState, value_sat: u64, deep: bool) {
        let sum = match state {
            UtxoState::Available if deep => {
                self.available_count += 1;
                &mut self.available
            }
            UtxoState::Available | UtxoState::Immature => &mut self.immature,
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
