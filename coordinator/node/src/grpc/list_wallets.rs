//! ListWallets.

use onespend_core::ids::WalletId;
use onespend_proto::v1;
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::{page, wallet_view};

pub(super) fn list_wallets(
    api: &Api,
    info: v1::ReadInfo,
    message: &v1::ListWalletsRequest,
) -> Result<v1::ListWalletsResponse, Status> {
    let mut fields = Fields::default();
    let size = fields.page_size(message.page_size);
    let size = fields.finish(size)?;
    let first = page::start(&message.page_token, |text| WalletId::parse(text).ok())?;
    let (wallets, next_page_token) = api.replica.read(|state| {
        let rows = state.wallets().skip_while(|(id, _)| first.as_ref().is_some_and(|first| *id < first));
        page::take(rows.map(|(id, wallet)| (id, wallet_view::wallet(id, wallet))), size, ToString::to_string)
    });
    Ok(v1::ListWalletsResponse { wallets, next_page_token, read_info: Some(info) })
}
