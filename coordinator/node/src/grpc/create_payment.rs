//! CreatePayment: selects, reserves, builds and permits by one entry of the log, then signs and broadcasts.

use std::sync::Arc;

use bitcoin::Network;
use onespend_core::command::{Command, CreatePayment, Recipient};
use onespend_core::ids::{PaymentKey, RequestId, WalletId};
use onespend_core::outcome::{FeeLimit, Rejection};
use onespend_core::state::State;
use onespend_core::transaction::check_recipients;
use onespend_proto::v1::{self, create_payment_request::Fee};
use tonic::Status;

use super::api::{Api, Call};
use super::decide::Draft;
use super::fee_rule::{FeeRule, MaxFee};
use super::fields::Fields;
use super::reserve_utxos::strategy;
use super::selection_status::unselected;
use super::{sign_payment, status};
use crate::selection::{self, Order, Strategy};

pub(super) struct Parsed {
    key: PaymentKey,
    recipients: Vec<Recipient>,
    fee: FeeRule,
    max_fee: MaxFee,
    min_depth: u32,
    strategy: Strategy,
}

pub(super) async fn create_payment(
    api: Arc<Api>,
    call: Call,
    message: v1::CreatePaymentRequest,
) -> Result<v1::CreatePaymentResponse, Status> {
    let (request, parsed) = parse(&message, api.settings.network)?;
    let applied = api.decide(&call, call.request(request), || std::future::ready(draft(&api, &parsed))).await?;
    let (payment, _) = sign_payment::finish(&api, &call, &applied).await?;
    Ok(v1::CreatePaymentResponse { payment: Some(payment), applied_index: applied.index.0, term: applied.term })
}

pub(super) fn parse(message: &v1::CreatePaymentRequest, network: Network) -> Result<(RequestId, Parsed), Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    let wallet = fields.wallet_id(&message.wallet_id);
    let payment = fields.payment_id(&message.payment_id);
    let recipients = fields.recipients(&message.recipients, network)?;
    let fee = match message.fee {
        Some(Fee::FeerateSatVb(rate)) => FeeRule::rate(&mut fields, "feerate_sat_vb", rate),
        Some(Fee::ConfirmTargetBlocks(blocks)) => FeeRule::target(&mut fields, blocks),
        None => Some(FeeRule::DEFAULT),
    };
    let max_fee = MaxFee::parse(&mut fields, message.max_fee_sat);
    let strategy = fields.known("strategy", message.strategy).map(strategy);
    let parsed = || {
        Some(Parsed {
            key: PaymentKey { wallet: wallet?, payment: payment? },
            recipients: recipients?,
            fee: fee?,
            max_fee: max_fee?,
            min_depth: message.min_depth,
            strategy: strategy?,
        })
    };
    let (request, parsed) = fields.finish(request.zip(parsed()))?;
    check_recipients(&parsed.recipients).map_err(|rejection| status::order_refused(&rejection))?;
    Ok((request, parsed))
}

fn draft(api: &Api, parsed: &Parsed) -> Result<Draft, Status> {
    let command = |outpoints, fee_sat| {
        let (key, recipients) = (parsed.key.clone(), parsed.recipients.clone());
        Command::CreatePayment(CreatePayment { key, recipients, outpoints, fee_sat })
    };
    // A payment that is there already needs no coins: `apply` compares and answers with its attempt.
    let is_known =
        api.replica.read(|state| state.payment(&parsed.key).is_some_and(|payment| payment.live_attempt().is_some()));
    if is_known {
        return Ok(Draft::of(command(Vec::new(), 0)));
    }
    api.demand_synced_chain()?;
    let feerate_sat_kvb = parsed.fee.sat_kvb(api)?;
    let capped = api.replica.read(|state| check_cap(state, &parsed.key.wallet, feerate_sat_kvb));
    capped.map_err(|rejection| status::rejected(&rejection))?;
    let order = Order {
        wallet: &parsed.key.wallet,
        recipients: &parsed.recipients,
        feerate_sat_kvb,
        min_depth: parsed.min_depth,
        strategy: parsed.strategy,
    };
    let selected = selection::select(api.replica.raft().view(), &api.busy, &order);
    let selected = selected.map_err(|rejection| unselected(&rejection, &order))?;
    parsed.max_fee.check(selected.fee_sat)?;
    Ok(Draft::holding(command(selected.outpoints.clone(), selected.fee_sat), selected))
}

/// Above the wallet's cap `apply` refuses whatever coins are chosen. Without this the coins would be blamed, of which a
/// feerate may leave none that is worth spending.
fn check_cap(state: &State, wallet: &WalletId, feerate_sat_kvb: u64) -> Result<(), Rejection> {
    let bound = state.active_wallet(wallet)?.limits.max_feerate_sat_kvb;
    if feerate_sat_kvb <= bound {
        return Ok(());
    }
    Err(Rejection::FeeLimit { limit: FeeLimit::Feerate, got: feerate_sat_kvb, bound })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::specimen::{accept, register, started, wallet};

    #[test]
    fn a_feerate_above_the_cap_is_refused_for_itself_and_not_for_the_coins() {
        let view = started();
        accept(&view, register("w", &[]));
        view.read(|state| {
            let bound = state.wallet(&wallet("w")).unwrap().limits.max_feerate_sat_kvb;
            assert_eq!(check_cap(state, &wallet("w"), bound), Ok(()));
            let refused = Rejection::FeeLimit { limit: FeeLimit::Feerate, got: bound + 1, bound };
            assert_eq!(check_cap(state, &wallet("w"), bound + 1), Err(refused));
            let unknown = check_cap(state, &wallet("nobody"), bound);
            assert!(matches!(unknown, Err(Rejection::WalletUnknown { .. })), "{unknown:?}");
        });
    }
}
