//! BumpFeeCpfp: a child payment to the wallet itself that spends the change of a payment, and pays for both.

use std::sync::Arc;

use onespend_core::command::{BumpByChild, Command};
use onespend_core::ids::{AttemptNo, PaymentId, PaymentKey, RequestId};
use onespend_proto::v1::{self, bump_fee_cpfp_request::Fee};
use tonic::Status;

use super::api::{Api, Call};
use super::decide::Draft;
use super::fee_rule::{FeeRule, MaxFee};
use super::fields::Fields;
use super::{sign_payment, status};
use crate::replacement;

pub(super) struct Parsed {
    key: PaymentKey,
    child: PaymentId,
    fee: FeeRule,
    max_fee: MaxFee,
}

pub(super) async fn bump_fee_cpfp(
    api: Arc<Api>,
    call: Call,
    message: v1::BumpFeeCpfpRequest,
) -> Result<v1::BumpFeeCpfpResponse, Status> {
    let (request, parsed) = parse(&message)?;
    let gather = || std::future::ready(draft(&api, &parsed));
    let applied = api.decide(&call, call.request(request), gather).await?;
    let (payment, _) = sign_payment::finish(&api, &call, &applied).await?;
    Ok(v1::BumpFeeCpfpResponse { payment: Some(payment), applied_index: applied.index.0, term: applied.term })
}

pub(super) fn parse(message: &v1::BumpFeeCpfpRequest) -> Result<(RequestId, Parsed), Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    let key = fields.payment_key(&message.wallet_id, &message.payment_id);
    let child = fields.child_payment_id(&message.child_payment_id);
    let fee = match message.fee {
        Some(Fee::PackageFeerateSatVb(rate)) => FeeRule::rate(&mut fields, "package_feerate_sat_vb", rate),
        Some(Fee::ConfirmTargetBlocks(blocks)) => FeeRule::target(&mut fields, blocks),
        None => Some(FeeRule::DEFAULT),
    };
    let max_fee = MaxFee::parse(&mut fields, message.max_fee_sat);
    let parsed = || Some(Parsed { key: key?, child: child?, fee: fee?, max_fee: max_fee? });
    fields.finish(request.zip(parsed()))
}

fn draft(api: &Api, parsed: &Parsed) -> Result<Draft, Status> {
    let command = |parent, fee_sat| {
        let (key, child) = (parsed.key.clone(), parsed.child.clone());
        Draft::of(Command::BumpByChild(BumpByChild { key, parent, child, fee_sat }))
    };
    let own = PaymentKey { wallet: parsed.key.wallet.clone(), payment: parsed.child.clone() };
    if api.replica.read(|state| state.payment(&own).is_some()) {
        // A name that is taken needs no fee: `apply` compares and answers with the child, or refuses.
        return Ok(command(AttemptNo(1), 0));
    }
    api.demand_synced_chain()?;
    let feerate_sat_kvb = parsed.fee.sat_kvb(api)?;
    let planned = api.replica.read(|state| replacement::child_fee(state, &parsed.key, feerate_sat_kvb));
    let (parent, fee_sat) = planned.map_err(|rejection| status::rejected(&rejection))?;
    parsed.max_fee.check(fee_sat)?;
    Ok(command(parent, fee_sat))
}
