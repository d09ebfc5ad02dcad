//! ListWallets.

use onespend_core::ids::WalletId;
use onespend_proto::v1;
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::page::{self, Page};
use super::wallet_view;

pub(super) fn list_wallets(
    api: &Api,
    info: v1::ReadInfo,
    message: &v1::ListWalletsRequest,
) -> Result<v1::ListWalletsResponse, Status> {
    let (size, first) = parse(message)?;
    let mut page = Page::begin(first, api.page_bounds(size));
    while page.is_open() {
        api.replica
            .read(|state| page.look(state.wallets_from(page.at()), |id, wallet| Some(wallet_view::wallet(id, wallet))));
    }
    let (wallets, next_page_token) = page.finish(ToString::to_string);
    Ok(v1::ListWalletsResponse { wallets, next_page_token, read_info: Some(info) })
}

/// The size of the page, and the wallet that it begins with.
pub(super) fn parse(message: &v1::ListWalletsRequest) -> Result<(usize, Option<WalletId>), Status> {
    let mut fields = Fields::default();
    let size = fields.page_size(message.page_size);
    let size = fields.finish(size)?;
    let first = page::start(&message.page_token, |text| WalletId::parse(text).ok())?;
    Ok((size, first))
}
