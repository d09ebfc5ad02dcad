//! ListPayments, by wallet and name.

use onespend_core::ids::{PaymentId, PaymentKey, WalletId};
use onespend_core::payment::Payment;
use onespend_core::state::State;
use onespend_proto::v1;
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::page::{self, Page};
use super::{payment_view, status};

pub(super) fn list_payments(
    api: &Api,
    info: v1::ReadInfo,
    message: &v1::ListPaymentsRequest,
) -> Result<v1::ListPaymentsResponse, Status> {
    let Parsed { size, wallet, first } = parse(message)?;
    if let Some(wallet) = &wallet {
        let known = api.replica.read(|state| state.wallet(wallet).map(|_| ()));
        known.map_err(|rejection| status::rejected(&rejection))?;
    }
    let mut page = Page::begin(first, api.page_bounds(size));
    while page.is_open() {
        api.replica.read(|state| {
            let of_wallet = |key: &PaymentKey| wallet.as_ref().is_none_or(|wallet| key.wallet == *wallet);
            let rows = state.payments_from(page.at()).take_while(|(key, _)| of_wallet(key));
            page.look(rows, |key, payment| {
                let shown = wanted(state, payment, message);
                shown.then(|| payment_view::payment(state, key, payment))
            });
        });
    }
    let (payments, next_page_token) = page.finish(ToString::to_string);
    Ok(v1::ListPaymentsResponse { payments, next_page_token, read_info: Some(info) })
}

/// Which payments are asked for.
pub(super) struct Parsed {
    size: usize,
    wallet: Option<WalletId>,
    first: Option<PaymentKey>,
}

pub(super) fn parse(message: &v1::ListPaymentsRequest) -> Result<Parsed, Status> {
    let mut fields = Fields::default();
    let size = fields.page_size(message.page_size);
    let wallet = fields.optional_wallet_id(&message.wallet_id);
    fields.states::<v1::PaymentState>(&message.states);
    let size = fields.finish(size)?;
    let first = page::start(&message.page_token, read_key)?;
    // A token of another wallet's list, or of the list of all, does not lead before the wallet's first payment.
    let first = first.max(wallet.clone().and_then(lowest_of));
    Ok(Parsed { size, wallet, first })
}

fn wanted(state: &State, payment: &Payment, message: &v1::ListPaymentsRequest) -> bool {
    let owner = message.owner.is_empty() || payment.owner.as_str() == message.owner;
    owner && (message.states.is_empty() || message.states.contains(&payment_view::payment_state(state, payment).into()))
}

/// The name that no payment of a wallet comes before: `!` is the lowest character that a payment's name may hold.
fn lowest_of(wallet: WalletId) -> Option<PaymentKey> {
    Some(PaymentKey { wallet, payment: PaymentId::parse("!").ok()? })
}

/// The form that `PaymentKey` is shown in: a wallet's name holds no slash.
fn read_key(text: &str) -> Option<PaymentKey> {
    let (wallet, payment) = text.split_once('/')?;
    Some(PaymentKey { wallet: WalletId::parse(wallet).ok()?, payment: PaymentId::parse(payment).ok()? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_name_comes_before_the_lowest() {
        let wallet = WalletId::parse("w").unwrap();
        let lowest = lowest_of(wallet.clone()).unwrap();
        let names = (0..=u8::MAX).filter_map(|byte| PaymentId::parse(&char::from(byte).to_string()).ok());
        let keys = names.map(|payment| PaymentKey { wallet: wallet.clone(), payment });
        assert_eq!(keys.min(), Some(lowest));
    }
}
