//! ListUtxos.

use std::str::FromStr;

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, Txid};
use onespend_core::ids::WalletId;
use onespend_core::utxo::Utxo;
use onespend_proto::v1;
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::page::{self, Page};
use super::status;
use super::utxo_view::{self, state_of, tip};

/// The first outpoint in order.
pub(super) const FIRST: fn() -> OutPoint = || OutPoint { txid: Txid::all_zeros(), vout: 0 };

pub(super) fn list_utxos(
    api: &Api,
    info: v1::ReadInfo,
    message: &v1::ListUtxosRequest,
) -> Result<v1::ListUtxosResponse, Status> {
    let Parsed { id, size, least, first } = parse(message)?;
    let known = api.replica.read(|state| state.wallet(&id).map(|_| ()));
    known.map_err(|rejection| status::rejected(&rejection))?;
    let mut page = Page::begin(first, api.page_bounds(size));
    while page.is_open() {
        api.replica.read(|state| {
            let states = |utxo: &Utxo| {
                let shown = utxo_view::state(state_of(state, utxo));
                message.states.is_empty() || message.states.contains(&shown.into())
            };
            page.look(state.utxos_of(&id, page.at().unwrap_or_else(FIRST)), |outpoint, utxo| {
                let wanted = utxo.value_sat >= least && utxo.depth(tip(state)) >= message.min_depth && states(utxo);
                wanted.then(|| utxo_view::utxo(state, outpoint, utxo))
            });
        });
    }
    let (utxos, next_page_token) = page.finish(OutPoint::to_string);
    Ok(v1::ListUtxosResponse { utxos, next_page_token, read_info: Some(info) })
}

/// Which coins are asked for.
pub(super) struct Parsed {
    id: WalletId,
    size: usize,
    /// The least value in sat.
    least: u64,
    first: Option<OutPoint>,
}

pub(super) fn parse(message: &v1::ListUtxosRequest) -> Result<Parsed, Status> {
    let mut fields = Fields::default();
    let id = fields.wallet_id(&message.wallet_id);
    let size = fields.page_size(message.page_size);
    fields.states::<v1::UtxoState>(&message.states);
    let least = u64::try_from(message.min_value_sat).map_err(|_| fields.fault("min_value_sat", "must not be negative"));
    let ((id, size), least) = fields.finish(id.zip(size).zip(least.ok()))?;
    let first = page::start(&message.page_token, |text| OutPoint::from_str(text).ok())?;
    Ok(Parsed { id, size, least, first })
}
