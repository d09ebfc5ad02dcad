//! Questions that make no sense.

use anyhow::Result;
use onespend_proto::v1;

use crate::door::{Clients, Who};
use crate::refusal::{invalid, refusal};
use crate::stage::{HOT, Stage};

const TOKENS: [&str; 8] = ["x", "zz", "123", "ff", "00", "é", " ", "7261636b"];

fn wallet_id() -> String {
    HOT.to_owned()
}

/// Pages.
pub async fn pages(stage: &mut Stage) -> Result<()> {
    let sizes = [-1, i32::MIN].map(|size| (size, String::new(), "page_size"));
    let tokens = TOKENS.map(|token| (10, token.to_owned(), "page_token"));
    let long = [(10, "61".repeat(50_000), "page_token")];
    for (page_size, page_token, field) in sizes.into_iter().chain(tokens).chain(long) {
        let wanted = invalid(&[field]);
        let what =
            |rpc: &str| format!("{rpc}, page of {page_size} at {:?}", page_token.chars().take(10).collect::<String>());
        // What is no outpoint may be a fine name of a wallet, so names are tried with what cannot be one.
        if page_token != "7261636b" {
            let ask = async |mut to: Clients| {
                let page_token = page_token.clone();
                to.wallet.list_wallets(v1::ListWalletsRequest { page_size, page_token, consistency: None }).await
            };
            stage.refuses(Who::Client, &what("ListWallets"), &wanted, ask).await;
        }
        let ask = async |mut to: Clients| {
            let (wallet_id, page_token) = (wallet_id(), page_token.clone());
            to.wallet.list_utxos(v1::ListUtxosRequest { wallet_id, page_size, page_token, ..Default::default() }).await
        };
        stage.refuses(Who::Client, &what("ListUtxos"), &wanted, ask).await;
        let ask = async |mut to: Clients| {
            let page_token = page_token.clone();
            let request = v1::ListReservationsRequest { page_size, page_token, ..Default::default() };
            to.reservation.list_reservations(request).await
        };
        stage.refuses(Who::Client, &what("ListReservations"), &wanted, ask).await;
        let ask = async |mut to: Clients| {
            let (wallet_id, page_token) = (wallet_id(), page_token.clone());
            let request = v1::ListPaymentsRequest { wallet_id, page_size, page_token, ..Default::default() };
            to.payment.list_payments(request).await
        };
        stage.refuses(Who::Client, &what("ListPayments"), &wanted, ask).await;
    }
    Ok(())
}

/// Filters and bounds.
pub async fn filters(stage: &mut Stage) -> Result<()> {
    let ask = async |mut to: Clients| {
        let request = v1::ListUtxosRequest { wallet_id: wallet_id(), min_value_sat: -1, ..Default::default() };
        to.wallet.list_utxos(request).await
    };
    stage.refuses(Who::Client, "a negative value", &invalid(&["min_value_sat"]), ask).await;
    for state in [0, 99, -1, i32::MAX] {
        let wanted = invalid(&["states[0]"]);
        let ask = async |mut to: Clients| {
            let request = v1::ListUtxosRequest { wallet_id: wallet_id(), states: vec![state], ..Default::default() };
            to.wallet.list_utxos(request).await
        };
        stage.refuses(Who::Client, "an unknown state of coins", &wanted, ask).await;
        let ask = async |mut to: Clients| {
            let request = v1::ListReservationsRequest { states: vec![state], ..Default::default() };
            to.reservation.list_reservations(request).await
        };
        stage.refuses(Who::Client, "an unknown state of reservations", &wanted, ask).await;
        let ask = async |mut to: Clients| {
            let request = v1::ListPaymentsRequest { wallet_id: wallet_id(), states: vec![state], ..Default::default() };
            to.payment.list_payments(request).await
        };
        stage.refuses(Who::Client, "an unknown state of payments", &wanted, ask).await;
    }
    for wallet in ["a b", "ü"] {
        let ask = async |mut to: Clients| {
            let request = v1::ListReservationsRequest { wallet_id: wallet.to_owned(), ..Default::default() };
            to.reservation.list_reservations(request).await
        };
        stage.refuses(Who::Client, "a malformed wallet", &invalid(&["wallet_id"]), ask).await;
    }
    for confirm_target_blocks in [1009, u32::MAX] {
        let ask = async |mut to: Clients| to.chain.estimate_fee(v1::EstimateFeeRequest { confirm_target_blocks }).await;
        stage.refuses(Who::Client, "a far target", &invalid(&["confirm_target_blocks"]), ask).await;
    }
    let fee = stage.leader(Who::Client).chain.estimate_fee(v1::EstimateFeeRequest::default()).await;
    let told =
        fee.as_ref().map_err(|status| status.message().to_owned()).map(|fee| fee.get_ref().confirm_target_blocks);
    stage.check("no target means 6 blocks", told == Ok(6), || format!("{told:?}"));
    Ok(())
}

/// Ages that a read may have.
pub async fn staleness(stage: &mut Stage) -> Result<()> {
    for max_lag_ms in [0, 3_600_001, u32::MAX] {
        let bound = v1::BoundedStaleness { max_lag_ms };
        let consistency =
            Some(v1::ReadConsistency { level: Some(v1::read_consistency::Level::BoundedStaleness(bound)) });
        let wanted = invalid(&["consistency.bounded_staleness.max_lag_ms"]);
        let ask = async |mut to: Clients| {
            to.wallet.get_wallet(v1::GetWalletRequest { wallet_id: wallet_id(), consistency }).await
        };
        stage.refuses(Who::Client, "GetWallet", &wanted, ask).await;
        let ask = async |mut to: Clients| to.chain.get_tip(v1::GetTipRequest { consistency }).await;
        stage.refuses(Who::Client, "GetTip", &wanted, ask).await;
    }
    Ok(())
}

/// Streams of changes.
pub async fn watches(stage: &mut Stage) -> Result<()> {
    let cases = [
        ("a malformed wallet", "a b", "", invalid(&["wallet_id"])),
        ("a malformed payment", HOT, "a b", invalid(&["payment_id"])),
        ("a payment of no wallet", "", "p", invalid(&["wallet_id"])),
    ];
    for (what, wallet, payment, wanted) in cases {
        let ask = async |mut to: Clients| {
            let (wallet_id, payment_id) = (wallet.to_owned(), payment.to_owned());
            let stream = to.payment.watch_payments(v1::WatchPaymentsRequest { wallet_id, payment_id, from_index: 0 });
            stream.await.map(|_| tonic::Response::new(()))
        };
        stage.refuses(Who::Client, what, &wanted, ask).await;
    }
    let cases = [("a malformed wallet", "a b", "", "wallet_id"), ("a malformed id", "", "17", "reservation_id")];
    for (what, wallet, reservation, field) in cases {
        let ask = async |mut to: Clients| {
            let (wallet_id, reservation_id) = (wallet.to_owned(), reservation.to_owned());
            let watch = v1::WatchReservationsRequest { wallet_id, reservation_id, from_index: 0 };
            to.reservation.watch_reservations(watch).await.map(|_| tonic::Response::new(()))
        };
        stage.refuses(Who::Client, &format!("{what} of reservations"), &invalid(&[field]), ask).await;
    }
    Ok(())
}

/// What only an operator may ask of the cluster, asked wrongly.
pub async fn transfers(stage: &mut Stage) -> Result<()> {
    let operator = stage.cluster.operator().clone();
    let controls = stage.doors().each_ref().map(|door| door.addresses.control);
    let mut leader = Clients::new(onespend_testnet::grpc::channel(controls[0], &operator)?);
    let mut replica = Clients::new(onespend_testnet::grpc::channel(controls[1], &operator)?);
    let ask = |request_id: &str, node_id| v1::TransferLeadershipRequest { request_id: request_id.to_owned(), node_id };
    let refused = leader.cluster.transfer_leadership(ask("", 0)).await.err();
    let fault = refused.map_or(Some("was accepted".to_owned()), |status| invalid(&["request_id"]).fault(&status));
    stage.check("no request id", fault.is_none(), || fault.unwrap_or_default());
    for node_id in [99, u64::MAX] {
        let refused = leader.cluster.transfer_leadership(ask(&crate::stage::id(), node_id)).await.err();
        let wanted = refusal("NODE_UNKNOWN").with("node_id", node_id);
        let fault = refused.map_or(Some("was accepted".to_owned()), |status| wanted.fault(&status));
        stage.check("to a node that is not there", fault.is_none(), || fault.unwrap_or_default());
    }
    let refused = replica.cluster.transfer_leadership(ask(&crate::stage::id(), 0)).await.err();
    let wanted = refusal("NOT_LEADER").with("leader_data_addr", stage.doors()[0].addresses.data);
    let fault = refused.map_or(Some("was accepted".to_owned()), |status| wanted.fault(&status));
    stage.check("asked of a replica", fault.is_none(), || fault.unwrap_or_default());
    Ok(())
}
