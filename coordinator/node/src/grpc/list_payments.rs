//! ListPayments, by wallet and name.

use onespend_core::ids::{PaymentId, PaymentKey, WalletId};
use onespend_proto::v1;
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::{page, payment_view, status};

pub(super) fn list_payments(
    api: &Api,
    info: v1::ReadInfo,
    message: &v1::ListPaymentsRequest,
) -> Result<v1::ListPaymentsResponse, Status> {
    let mut fields = Fields::default();
    let size = fields.page_size(message.page_size);
    let wallet = fields.optional_wallet_id(&message.wallet_id);
    fields.states::<v1::PaymentState>(&message.states);
    let size = fields.finish(size)?;
    let first = page::start(&message.page_token, read_key)?;
    api.replica.read(|state| {
        if let Some(wallet) = &wallet {
            state.wallet(wallet).map_err(|rejection| status::rejected(&rejection))?;
        }
        let rows = state
            .payments()
            .skip_while(|(key, _)| first.as_ref().is_some_and(|first| *key < first))
            .filter(|(key, _)| wallet.as_ref().is_none_or(|wallet| key.wallet == *wallet))
            .filter(|(_, payment)| message.owner.is_empty() || payment.owner.as_str() == message.owner)
            .filter(|(_, payment)| {
                let shown = payment_view::payment_state(state, payment);
                message.states.is_empty() || message.states.contains(&shown.into())
            })
            .map(|(key, payment)| (key, payment_view::payment(state, key, payment)));
        let (payments, next_page_token) = page::take(rows, size, ToString::to_string);
        Ok(v1::ListPaymentsResponse { payments, next_page_token, read_info: Some(info) })
    })
}

/// The form that `PaymentKey` is shown in: a wallet's name holds no slash.
fn read_key(text: &str) -> Option<PaymentKey> {
    let (wallet, payment) = text.split_once('/')?;
    Some(PaymentKey { wallet: WalletId::parse(wallet).ok()?, payment: PaymentId::parse(payment).ok()? })
}
