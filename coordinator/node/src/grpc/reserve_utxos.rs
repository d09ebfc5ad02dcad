//! ReserveUtxos: coins by name, or coins that the leader selects, claimed by one entry of the log.

use std::sync::Arc;

use bitcoin::{OutPoint, ScriptBuf};
use onespend_core::command::{Command, Recipient, Reserve};
use onespend_core::ids::{PaymentId, RequestId, WalletId};
use onespend_core::outcome::Outcome;
use onespend_proto::v1::{self, reserve_utxos_request};
use tonic::Status;

use super::api::{Api, Call};
use super::decide::Draft;
use super::expiry::{Expiration, Expiry};
use super::fields::Fields;
use super::selection_status::unselected;
use super::{reservation_view, status};
use crate::selection::{self, Order, Strategy};

/// A P2WSH or P2TR output, the largest standard kind: what a selection by amount assumes that it pays to.
const ASSUMED_SCRIPT: [u8; 34] = [0x51; 34];

pub(super) struct Parsed {
    wallet: WalletId,
    what: What,
    expiry: Expiry,
    payment: Option<PaymentId>,
}

enum What {
    Coins(Vec<OutPoint>),
    Selection { target_sat: u64, feerate_sat_kvb: u64, min_depth: u32, strategy: Strategy },
}

pub(super) async fn reserve_utxos(
    api: Arc<Api>,
    call: Call,
    message: v1::ReserveUtxosRequest,
) -> Result<v1::ReserveUtxosResponse, Status> {
    let (request, parsed) = parse(&message)?;
    let applied = api.decide(&call, call.request(request), || std::future::ready(draft(&api, &parsed))).await?;
    let Outcome::Reserved { reservation: id, outpoints, .. } = &applied.outcome else {
        return Err(status::unexpected());
    };
    let now = api.now();
    // A retry may come when the reservation has ended; its coins were the same.
    let reservation = api.replica.read(|state| v1::Reservation {
        utxos: reservation_view::coins(state, outpoints),
        wallet_id: parsed.wallet.to_string(),
        owner: call.caller.to_string(),
        ..reservation_view::granted(state, *id, now)
    });
    Ok(v1::ReserveUtxosResponse { reservation: Some(reservation), applied_index: applied.index.0, term: applied.term })
}

pub(super) fn parse(message: &v1::ReserveUtxosRequest) -> Result<(RequestId, Parsed), Status> {
    let mut fields = Fields::default();
    let request = fields.request_id(&message.request_id);
    let wallet = fields.wallet_id(&message.wallet_id);
    let payment = fields.optional_payment_id(&message.payment_id);
    let expiration = message.expiration.as_ref().map(|expiration| match expiration {
        reserve_utxos_request::Expiration::Ttl(ttl) => Expiration::For(*ttl),
        reserve_utxos_request::Expiration::ExpireTime(time) => Expiration::Until(*time),
    });
    let expiry = fields.expiry(expiration);
    let what = match &message.what {
        Some(reserve_utxos_request::What::Outpoints(list)) => {
            fields.outpoints("outpoints", &list.outpoints).map(What::Coins)
        }
        Some(reserve_utxos_request::What::Selection(selection)) => parse_selection(&mut fields, selection),
        None => {
            fields.fault("what", "names neither outpoints nor a selection");
            None
        }
    };
    let parsed = || Some(Parsed { wallet: wallet?, what: what?, expiry: expiry?, payment });
    fields.finish(request.zip(parsed()))
}

fn parse_selection(fields: &mut Fields, selection: &v1::Selection) -> Option<What> {
    let target_sat = fields.positive_sat("selection.target_sat", selection.target_sat);
    let feerate_sat_kvb = fields.feerate_sat_kvb("selection.feerate_sat_vb", selection.feerate_sat_vb);
    let strategy = fields.known("selection.strategy", selection.strategy).map(strategy);
    Some(What::Selection {
        target_sat: target_sat?,
        feerate_sat_kvb: feerate_sat_kvb?,
        min_depth: selection.min_depth,
        strategy: strategy?,
    })
}

/// The strategy by its name on the wire.
pub(super) fn strategy(strategy: v1::SelectionStrategy) -> Strategy {
    match strategy {
        v1::SelectionStrategy::Unspecified | v1::SelectionStrategy::LowestFee => Strategy::LowestFee,
        v1::SelectionStrategy::LargestFirst => Strategy::LargestFirst,
        v1::SelectionStrategy::OldestFirst => Strategy::OldestFirst,
    }
}

fn draft(api: &Api, parsed: &Parsed) -> Result<Draft, Status> {
    api.demand_synced_chain()?;
    let ttl = parsed.expiry.ttl()?;
    let reserve = |outpoints, selected| {
        Command::Reserve(Reserve {
            wallet: parsed.wallet.clone(),
            outpoints,
            ttl,
            payment: parsed.payment.clone(),
            selected,
        })
    };
    match &parsed.what {
        What::Coins(outpoints) => Ok(Draft::of(reserve(outpoints.clone(), false))),
        What::Selection { target_sat, feerate_sat_kvb, min_depth, strategy } => {
            let script = ScriptBuf::from_bytes(ASSUMED_SCRIPT.to_vec());
            let order = Order {
                wallet: &parsed.wallet,
                recipients: &[Recipient { script, amount_sat: *target_sat }],
                feerate_sat_kvb: *feerate_sat_kvb,
                min_depth: *min_depth,
                strategy: *strategy,
            };
            let selected = selection::select(api.replica.raft().view(), &api.busy, &order);
            let selected = selected.map_err(|rejection| unselected(&rejection, &order))?;
            Ok(Draft::holding(reserve(selected.outpoints.clone(), true), selected))
        }
    }
}
