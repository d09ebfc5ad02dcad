//! WatchPayments: every payment that changed after an index, then each change as it is applied; see [`super::watch`].

use std::sync::Arc;

use onespend_core::ids::{LogIndex, Millis, PaymentId, PaymentKey, WalletId};
use onespend_core::state::State;
use onespend_proto::v1;
use tonic::Status;

use super::api::Api;
use super::fields::Fields;
use super::payment_view;
use super::watch::{self, Batch, Changes, Follow, Told};

/// What a stream follows.
#[derive(Default)]
pub(super) struct Filter {
    wallet: Option<WalletId>,
    payment: Option<PaymentId>,
}

pub(super) fn watch_payments(
    api: &Arc<Api>,
    message: &v1::WatchPaymentsRequest,
) -> Result<Changes<v1::WatchPaymentsResponse>, Status> {
    watch::open(api, parse(message)?, message.from_index)
}

pub(super) fn parse(message: &v1::WatchPaymentsRequest) -> Result<Filter, Status> {
    let mut fields = Fields::default();
    let wallet = fields.optional_wallet_id(&message.wallet_id);
    let payment = fields.optional_payment_id(&message.payment_id);
    if payment.is_some() && message.wallet_id.is_empty() {
        fields.fault("wallet_id", "must name the wallet of the payment");
    }
    fields.finish(Some(Filter { wallet, payment }))
}

impl Follow for Filter {
    type Key = PaymentKey;
    type Message = v1::WatchPaymentsResponse;

    fn changes(&self, state: &State, told: &Told<PaymentKey>, _: Millis) -> Batch<PaymentKey, Self::Message> {
        changes(state, self, told)
    }

    fn mark(index: LogIndex) -> Self::Message {
        v1::WatchPaymentsResponse { payment: None, applied_index: index.0 }
    }
}

fn changes(state: &State, filter: &Filter, told: &Told<PaymentKey>) -> Batch<PaymentKey, v1::WatchPaymentsResponse> {
    let later = state.payments_changed_after(told.index, told.within.as_ref());
    watch::batch(state, told, later, |key, applied_index| {
        let payment = filter.wants(key).then(|| state.payment(key)).flatten()?;
        let payment = Some(payment_view::payment(state, key, payment));
        Some(v1::WatchPaymentsResponse { payment, applied_index })
    })
}

impl Filter {
    fn wants(&self, key: &PaymentKey) -> bool {
        self.wallet.as_ref().is_none_or(|wallet| key.wallet == *wallet)
            && self.payment.as_ref().is_none_or(|payment| key.payment == *payment)
    }
}

#[cfg(test)]
#[path = "watch_payments_tests.rs"]
mod tests;
