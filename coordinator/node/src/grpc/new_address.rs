//! NewAddress: indices are handed out through the log, so no failover gives one out twice.

use std::sync::Arc;

use onespend_core::command::Command;
use onespend_core::ids::{RequestId, WalletId};
use onespend_core::outcome::{Outcome, Rejection};
use onespend_core::wallet::{DescriptorFault, Keychain};
use onespend_proto::v1;
use tonic::Status;

use super::api::{Api, Call};
use super::fields::Fields;
use super::status;

pub(super) async fn new_address(
    api: Arc<Api>,
    call: Call,
    message: v1::NewAddressRequest,
) -> Result<v1::NewAddressResponse, Status> {
    let ((request, wallet), keychain) = parse(&message)?;
    // A descriptor is there from the beginning or never.
    let has_none = api.replica.read(|state| state.wallet(&wallet).is_ok_and(|wallet| wallet.descriptor.is_none()));
    if has_none {
        return Err(status::rejected(&Rejection::DescriptorInvalid(DescriptorFault::Missing)));
    }
    let command = Command::GiveAddresses { wallet: wallet.clone(), keychain, count: 1 };
    let applied = api.decide_plain(&call, call.request(request), command).await?;
    let Outcome::AddressesGiven { keychain, first, .. } = applied.outcome else { return Err(status::unexpected()) };
    let script = api.replica.read(|state| state.wallet(&wallet).ok()?.descriptor.script(keychain, first));
    let script = script.ok_or_else(status::unexpected)?;
    let address = bitcoin::Address::from_script(&script, api.settings.network).map_err(|_| status::unexpected())?;
    Ok(v1::NewAddressResponse {
        address: address.to_string(),
        index: first,
        script: script.to_bytes().into(),
        applied_index: applied.index.0,
        term: applied.term,
    })
}

pub(super) fn parse(message: &v1::NewAddressRequest) -> Result<((RequestId, WalletId), Keychain), Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    let wallet = fields.wallet_id(&message.wallet_id);
    let keychain = fields.known("keychain", message.keychain).map(|keychain| match keychain {
        v1::Keychain::Unspecified | v1::Keychain::External => Keychain::External,
        v1::Keychain::Internal => Keychain::Internal,
    });
    fields.finish(request.zip(wallet).zip(keychain))
}
