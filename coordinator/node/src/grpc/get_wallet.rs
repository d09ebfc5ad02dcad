//! GetWallet.

use onespend_core::ids::WalletId;
use onespend_proto::v1;
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::{status, wallet_view};

pub(super) fn get_wallet(
    api: &Api,
    info: v1::ReadInfo,
    message: &v1::GetWalletRequest,
) -> Result<v1::GetWalletResponse, Status> {
    let id = parse(message)?;
    let wallet = api.replica.read(|state| state.wallet(&id).map(|wallet| wallet_view::wallet(&id, wallet)));
    let wallet = wallet.map_err(|rejection| status::rejected(&rejection))?;
    Ok(v1::GetWalletResponse { wallet: Some(wallet), read_info: Some(info) })
}

pub(super) fn parse(message: &v1::GetWalletRequest) -> Result<WalletId, Status> {
    let mut fields = Fields::default();
    let id = fields.wallet_id(&message.wallet_id);
    fields.finish(id)
}
