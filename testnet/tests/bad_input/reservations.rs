//! Coins that cannot be had, times that cannot be, and reservations that are not the caller's or are over.

use std::time::Duration;

use anyhow::{Context, Result};
use bitcoin::OutPoint;
use bitcoin::hashes::Hash;
use onespend_proto::v1;
use onespend_proto::v1::reserve_utxos_request::{Expiration, What};

use crate::door::{Clients, Who};
use crate::draft::{Draft, reserve};
use crate::refusal::{Refusal, invalid, refusal, too_many_to_name};
use crate::stage::{HOT, Stage, TAP, WATCH, id, on_wire, outpoint};

const DAY_S: i64 = 24 * 60 * 60;
const MAX_OUTPOINTS: u32 = 400;
/// 21 million bitcoin.
const ALL_MONEY_SAT: i64 = 2_100_000_000_000_000;

async fn refuse(stage: &mut Stage, what: &str, request: v1::ReserveUtxosRequest, wanted: &Refusal) {
    stage.refuses(Who::Client, what, wanted, async |mut to| to.reservation.reserve_utxos(request.clone()).await).await;
}

/// An outpoint of no transaction.
fn nowhere(vout: u32) -> OutPoint {
    OutPoint::new(bitcoin::Txid::from_byte_array([3; 32]), vout)
}

/// Coins by name that are taken, spent, unknown or named wrongly.
pub async fn coins(stage: &mut Stage) -> Result<()> {
    let free = stage.coins(HOT).await?.iter().map(outpoint).collect::<Result<Vec<_>>>()?;
    let [first, second, third, fourth] = free[..4] else { anyhow::bail!("too few coins") };
    let one = stage.reserve(reserve(HOT, &[first])).await?;
    let two = stage.reserve(reserve(HOT, &[second, third])).await?;

    let taken = refusal("OUTPOINT_RESERVED");
    let holders = format!("{},{}", one.reservation_id, two.reservation_id);
    let both = taken.clone().naming(&[first, third]).with("holders", holders);
    refuse(stage, "two conflicts of two holders", reserve(HOT, &[fourth, first, third]), &both).await;
    refuse(stage, "a coin that somebody has", reserve(HOT, &[second]), &taken.naming(&[second])).await;

    let unknown = refusal("OUTPOINT_UNKNOWN");
    let strange = [nowhere(0), nowhere(1)];
    let partly = reserve(HOT, &[fourth, strange[0], strange[1]]);
    refuse(stage, "partly unknown coins", partly, &unknown.clone().naming(&strange)).await;
    let theirs = [outpoint(stage.coins(TAP).await?.first().context("a coin")?)?];
    refuse(stage, "a coin of another wallet", reserve(HOT, &theirs), &unknown.naming(&theirs)).await;
    let twice = refusal("DUPLICATE_INPUT").naming(&[fourth]);
    refuse(stage, "a coin twice", reserve(HOT, &[fourth, fourth]), &twice).await;
    let no_wallet = refusal("WALLET_UNKNOWN");
    refuse(stage, "no such wallet", reserve("nobody", &[fourth]), &no_wallet).await;

    refuse(stage, "no coin", reserve(HOT, &[]), &invalid(&["outpoints"])).await;
    let many: Vec<OutPoint> = (0..=MAX_OUTPOINTS).map(nowhere).collect();
    refuse(stage, "401 coins", reserve(HOT, &many), &invalid(&["outpoints"])).await;
    let nothing = v1::ReserveUtxosRequest { what: None, ..reserve(HOT, &[]) };
    refuse(stage, "neither coins nor a selection", nothing, &invalid(&["what"])).await;
    let many = &many[1..];
    let unknown = too_many_to_name("OUTPOINT_UNKNOWN", many.len());
    refuse(stage, "400 unknown coins", reserve(HOT, many), &unknown).await;
    let outpoints = vec![v1::Outpoint { txid: "x".repeat(1_000), vout: 0 }; many.len()];
    let what = Some(What::Outpoints(v1::OutpointList { outpoints }));
    let malformed = v1::ReserveUtxosRequest { what, ..reserve(HOT, &[]) };
    refuse(stage, "400 malformed txids", malformed, &too_many_to_name("FIELD_INVALID", many.len())).await;
    let txids = ["", "zz", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(66), "é"];
    let mut outpoints: Vec<v1::Outpoint> =
        txids.into_iter().map(|txid| v1::Outpoint { txid: txid.to_owned(), vout: 0 }).collect();
    outpoints.push(on_wire(&fourth));
    let fields: Vec<String> = (0..txids.len()).map(|at| format!("outpoints[{at}].txid")).collect();
    let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
    let what = Some(What::Outpoints(v1::OutpointList { outpoints }));
    let malformed = v1::ReserveUtxosRequest { what, ..reserve(HOT, &[]) };
    refuse(stage, "malformed txids, all named", malformed, &invalid(&fields)).await;

    stage.release(&one).await?;
    stage.release(&two).await
}

/// A coinbase that has not matured.
pub async fn immature(stage: &mut Stage) -> Result<()> {
    let script = stage.address(HOT, v1::Keychain::External).await?;
    stage.mine_to(1, &script).await?;
    let coins = stage.coins_in(HOT, v1::UtxoState::Immature).await?;
    let coin = [outpoint(coins.first().context("no coinbase")?)?];
    refuse(stage, "a young coinbase", reserve(HOT, &coin), &refusal("OUTPOINT_IMMATURE").naming(&coin)).await;
    let draft = Draft::new(stage, HOT, "immature").await?;
    let mut spoilt = draft.clone();
    spoilt.psbt.unsigned_tx.input[1].previous_output = coin[0];
    spoilt.psbt.inputs[1].witness_utxo = None;
    let wanted = refusal("FOREIGN_INPUT").naming(&coin);
    stage
        .refuses(Who::Client, "a young coinbase in a PSBT", &wanted, async |mut to| {
            to.payment.sign_psbt(spoilt.request()).await
        })
        .await;
    stage.release(&draft.reservation).await
}

/// Selections that make no sense or cannot be met.
pub async fn selections(stage: &mut Stage) -> Result<()> {
    let good = v1::Selection { target_sat: 50_000, feerate_sat_vb: 2.0, ..Default::default() };
    let select = |selection| v1::ReserveUtxosRequest { what: Some(What::Selection(selection)), ..reserve(HOT, &[]) };
    let target = |target_sat| v1::Selection { target_sat, ..good };
    let feerate = |feerate_sat_vb| v1::Selection { feerate_sat_vb, ..good };
    for target_sat in [0, -1, i64::MIN, i64::MAX, ALL_MONEY_SAT + 1] {
        refuse(stage, "a target", select(target(target_sat)), &invalid(&["selection.target_sat"])).await;
    }
    for rate in [0.0, -2.0, 0.05, f64::NAN, f64::INFINITY, 1e9] {
        refuse(stage, "a feerate", select(feerate(rate)), &invalid(&["selection.feerate_sat_vb"])).await;
    }
    let strategy = v1::Selection { strategy: 99, ..good };
    refuse(stage, "an unknown strategy", select(strategy), &invalid(&["selection.strategy"])).await;
    let poor = refusal("INSUFFICIENT_FUNDS").with("available_sat", stage.free_sat(HOT).await?);
    for target_sat in [ALL_MONEY_SAT, 50_000_000] {
        refuse(stage, "more than there is", select(target(target_sat)), &poor).await;
    }
    let deep = v1::Selection { min_depth: u32::MAX, ..good };
    refuse(stage, "a great depth", select(deep), &refusal("INSUFFICIENT_FUNDS").with("available_sat", 0)).await;
    Ok(())
}

/// Times to live.
pub async fn times(stage: &mut Stage) -> Result<()> {
    let coin = [outpoint(stage.coins(HOT).await?.first().context("a coin")?)?];
    let held = stage.reserve(reserve(HOT, &coin)).await?;
    let free = [outpoint(stage.coins(HOT).await?.first().context("a coin")?)?];
    let second = |seconds, nanos| prost_types::Duration { seconds, nanos };
    let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs())?;
    let at = |seconds, nanos| Expiration::ExpireTime(prost_types::Timestamp { seconds, nanos });
    let cases = [
        ("no time", Expiration::Ttl(second(0, 0)), "ttl"),
        ("less than a second", Expiration::Ttl(second(0, 999_000_000)), "ttl"),
        ("less than no time", Expiration::Ttl(second(-1, 0)), "ttl"),
        ("nanoseconds of the other sign", Expiration::Ttl(second(5, -1)), "ttl"),
        ("more nanoseconds than a second has", Expiration::Ttl(second(1, 2_000_000_000)), "ttl"),
        ("more than a day", Expiration::Ttl(second(DAY_S + 1, 0)), "ttl"),
        ("the greatest duration", Expiration::Ttl(second(i64::MAX, 999_999_999)), "ttl"),
        ("the least duration", Expiration::Ttl(second(i64::MIN, i32::MIN)), "ttl"),
        ("a moment that is over", at(now - 1, 0), "expire_time"),
        ("the beginning of time", at(i64::MIN, 0), "expire_time"),
        ("the end of time", at(i64::MAX, 0), "expire_time"),
        ("the day after tomorrow", at(now + 2 * DAY_S, 0), "expire_time"),
        ("no moment at all", at(now + 60, -5), "expire_time"),
    ];
    for (what, expiration, field) in cases {
        let request = v1::ReserveUtxosRequest { expiration: Some(expiration), ..reserve(HOT, &free) };
        refuse(stage, what, request, &invalid(&[field])).await;
        let request = v1::RenewReservationRequest { expiration: Some(renewal(&expiration)), ..renew(&held) };
        let what = format!("{what}, to renew");
        stage
            .refuses(Who::Client, &what, &invalid(&[field]), async |mut to| {
                to.reservation.renew_reservation(request.clone()).await
            })
            .await;
    }
    // The whole life is at most a day, so even a day from now is a moment too long.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let ttl = v1::renew_reservation_request::Expiration::Ttl(second(DAY_S, 0));
    let request = v1::RenewReservationRequest { expiration: Some(ttl), ..renew(&held) };
    stage
        .refuses(Who::Client, "a day more", &invalid(&["ttl"]).saying("24 hours"), async |mut to| {
            to.reservation.renew_reservation(request.clone()).await
        })
        .await;
    stage.release(&held).await
}

fn renewal(expiration: &Expiration) -> v1::renew_reservation_request::Expiration {
    match expiration {
        Expiration::Ttl(ttl) => v1::renew_reservation_request::Expiration::Ttl(*ttl),
        Expiration::ExpireTime(time) => v1::renew_reservation_request::Expiration::ExpireTime(*time),
    }
}

fn renew(held: &v1::Reservation) -> v1::RenewReservationRequest {
    v1::RenewReservationRequest {
        request_id: id(),
        reservation_id: held.reservation_id.clone(),
        fence: held.fence,
        expiration: None,
    }
}

fn release(held: &v1::Reservation) -> v1::ReleaseReservationRequest {
    v1::ReleaseReservationRequest { request_id: id(), reservation_id: held.reservation_id.clone(), fence: held.fence }
}

async fn renewing(
    mut to: Clients,
    held: &v1::Reservation,
) -> Result<tonic::Response<v1::RenewReservationResponse>, tonic::Status> {
    to.reservation.renew_reservation(renew(held)).await
}

async fn releasing(
    mut to: Clients,
    held: &v1::Reservation,
) -> Result<tonic::Response<v1::ReleaseReservationResponse>, tonic::Status> {
    to.reservation.release_reservation(release(held)).await
}

/// Reservations of others, of another fence, and such as never were.
pub async fn owners(stage: &mut Stage) -> Result<()> {
    let coin = [outpoint(stage.coins(HOT).await?.first().context("a coin")?)?];
    let held = stage.reserve(reserve(HOT, &coin)).await?;
    let theirs = refusal("NOT_OWNER").with("owner", "client/payouts");
    stage.refuses(Who::Other, "renewing what another has", &theirs, async |to| renewing(to, &held).await).await;
    stage.refuses(Who::Other, "releasing what another has", &theirs, async |to| releasing(to, &held).await).await;
    for fence in [held.fence + 1, held.fence - 1, 1, u64::MAX] {
        let stale = v1::Reservation { fence, ..held.clone() };
        let wanted = refusal("STALE_FENCE").with("fence", held.fence);
        stage.refuses(Who::Client, "renewing by another fence", &wanted, async |to| renewing(to, &stale).await).await;
        stage.refuses(Who::Client, "releasing by another fence", &wanted, async |to| releasing(to, &stale).await).await;
    }
    for name in ["r-999999999", "r-0", "r-18446744073709551615"] {
        let never = v1::Reservation { reservation_id: name.to_owned(), fence: 1, ..held.clone() };
        let wanted = refusal("RESERVATION_UNKNOWN");
        stage.refuses(Who::Client, "renewing nothing", &wanted, async |to| renewing(to, &never).await).await;
        stage.refuses(Who::Client, "releasing nothing", &wanted, async |to| releasing(to, &never).await).await;
        stage
            .refuses(Who::Client, "reading nothing", &wanted, async |mut to| {
                let request = v1::GetReservationRequest { reservation_id: name.to_owned(), ..Default::default() };
                to.reservation.get_reservation(request).await
            })
            .await;
    }
    stage.release(&held).await?;
    let over = refusal("RESERVATION_RELEASED");
    stage.refuses(Who::Client, "renewing what was released", &over, async |to| renewing(to, &held).await).await;
    let before = stage.ledger().await;
    let again = releasing(stage.leader(Who::Client), &held).await;
    stage.check("releasing twice is no error", again.is_ok(), || format!("{again:?}"));
    stage.unchanged("releasing twice", before).await;
    Ok(())
}

/// A short reservation after its time.
pub async fn expired(stage: &mut Stage) -> Result<()> {
    let free = stage.coins(HOT).await?.len();
    let draft = Draft::new(stage, HOT, "expired").await?;
    let soon = v1::renew_reservation_request::Expiration::Ttl(prost_types::Duration { seconds: 1, nanos: 0 });
    let request = v1::RenewReservationRequest { expiration: Some(soon), ..renew(&draft.reservation) };
    stage.leader(Who::Client).reservation.renew_reservation(request).await.context("RenewReservation")?;
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    for round in ["at once", "after the leader has freed the coins"] {
        let held = &draft.reservation;
        let wanted = refusal("RESERVATION_EXPIRED");
        let what = |action: &str| format!("{action} {round}");
        stage.refuses_now(Who::Client, &what("renewing"), &wanted, async |to| renewing(to, held).await).await;
        stage.refuses_now(Who::Client, &what("releasing"), &wanted, async |to| releasing(to, held).await).await;
        stage
            .refuses_now(Who::Client, &what("signing"), &wanted, async |mut to| {
                to.payment.sign_psbt(draft.request()).await
            })
            .await;
        let request = v1::GetReservationRequest { reservation_id: held.reservation_id.clone(), ..Default::default() };
        let shown = stage.leader(Who::Client).reservation.get_reservation(request).await?.into_inner().reservation;
        let state = shown.map(|reservation| reservation.state());
        stage.check(&what("reading"), state == Some(v1::ReservationState::Expired), || format!("{state:?}"));
        wait_for_free(stage, free).await?;
    }
    Ok(())
}

async fn wait_for_free(stage: &mut Stage, wanted: usize) -> Result<()> {
    for _ in 0..500 {
        if stage.coins(HOT).await?.len() == wanted {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("the coins of an expired reservation are not freed")
}

/// As many reservations as the wallet may have.
pub async fn quota(stage: &mut Stage) -> Result<()> {
    let limits = |max_reservations| v1::SetLimitsRequest {
        request_id: id(),
        wallet_id: WATCH.to_owned(),
        limits: Some(v1::WalletLimits { max_reservations, ..Default::default() }),
    };
    stage.leader(Who::Operator).wallet.set_limits(limits(1)).await.context("SetLimits")?;
    let coins = stage.coins(WATCH).await?.iter().map(outpoint).collect::<Result<Vec<_>>>()?;
    let held = stage.reserve(reserve(WATCH, &coins[..1])).await?;
    let full = refusal("RESERVATION_QUOTA").with("active", 1);
    refuse(stage, "one reservation too many", reserve(WATCH, &coins[1..2]), &full).await;
    stage.release(&held).await?;
    stage.leader(Who::Operator).wallet.set_limits(limits(0)).await.context("SetLimits")?;
    Ok(())
}
