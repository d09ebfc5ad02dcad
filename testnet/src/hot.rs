//! Gets a wallet ready to pay: registers it as an operator would, and sends it coins from the harness.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bitcoin::{Amount, ScriptBuf};
use onespend_proto::v1::wallet_service_client::WalletServiceClient;
use onespend_proto::v1::{GetBalanceRequest, NewAddressRequest, RegisterWalletRequest, WalletLimits};
use tonic::transport::Channel;

use crate::bitcoind::wait_for_same_tip;
use crate::cluster::{Cluster, FINALITY_DEPTH, SIGNER};
use crate::grpc::{channel, channel_for, until_answered, until_answered_for};

/// What the wallet is called.
pub const WALLET: &str = "hot";
/// Coins are spread over so many addresses.
const ADDRESSES: usize = 10;
/// Outputs of one funding transaction: far below the size that relays.
const OUTPUTS_PER_TRANSACTION: usize = 250;
/// Above the load that the benchmark makes.
const MAX_RESERVATIONS: u32 = 10_000;
/// The wallet's cap on fees: far above what anything here pays, and far below what a coin is worth, so that the judges
/// notice a transaction that leaves much of a coin to miners.
pub const MAX_FEE: Amount = Amount::from_sat(100_000);
/// For registering a wallet, which scans the chain: seconds, and more on a busy machine.
const SCAN_PATIENCE: Duration = Duration::from_mins(1);
const CALL_PATIENCE: Duration = Duration::from_secs(30);
const COINS_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

/// Registers the wallet and gives it `coins` coins of `value` each, confirmed and seen by the cluster.
///
/// # Errors
/// The cluster refuses, or does not see the coins in time.
pub async fn prepare(cluster: &mut Cluster, coins: usize, value: Amount) -> Result<()> {
    let patient = channel_for(cluster.primary_address(), cluster.operator(), SCAN_PATIENCE)?;
    register(&WalletServiceClient::new(patient), cluster.wallet().public_descriptor()).await?;
    let mut client = WalletServiceClient::new(channel(cluster.primary_address(), cluster.operator())?);
    let scripts = addresses(&mut client).await?;
    let outputs: Vec<(ScriptBuf, Amount)> =
        scripts.iter().cycle().take(coins).map(|script| (script.clone(), value)).collect();
    let (funds, bitcoind) = cluster.funds()?;
    for chunk in outputs.chunks(OUTPUTS_PER_TRANSACTION) {
        funds.fan_out(bitcoind, chunk)?;
    }
    let miner = funds.script().clone();
    bitcoind.mine(1, &miner)?;
    wait_for_same_tip(cluster.bitcoinds())?;
    wait_for_coins(&mut client, coins).await
}

async fn register(client: &WalletServiceClient<Channel>, descriptor: &str) -> Result<()> {
    let deadline = Instant::now() + SCAN_PATIENCE;
    let registered = until_answered_for(deadline, SCAN_PATIENCE, |request_id| {
        let request = RegisterWalletRequest {
            request_id,
            wallet_id: WALLET.to_owned(),
            descriptor: descriptor.to_owned(),
            signer: SIGNER.to_owned(),
            limits: Some(WalletLimits {
                max_fee_sat: MAX_FEE.to_sat().cast_signed(),
                finality_depth: FINALITY_DEPTH,
                max_reservations: MAX_RESERVATIONS,
                ..WalletLimits::default()
            }),
            ..RegisterWalletRequest::default()
        };
        let mut client = client.clone();
        async move { client.register_wallet(request).await }
    });
    registered.await.context("RegisterWallet").map(drop)
}

async fn addresses(client: &mut WalletServiceClient<Channel>) -> Result<Vec<ScriptBuf>> {
    let mut scripts = Vec::new();
    for _ in 0..ADDRESSES {
        let deadline = Instant::now() + CALL_PATIENCE;
        let address = until_answered(deadline, |request_id| {
            let request =
                NewAddressRequest { request_id, wallet_id: WALLET.to_owned(), ..NewAddressRequest::default() };
            let mut client = client.clone();
            async move { client.new_address(request).await }
        });
        let script = address.await.context("NewAddress")?.answer.into_inner().script;
        scripts.push(ScriptBuf::from_bytes(script.to_vec()));
    }
    Ok(scripts)
}

async fn wait_for_coins(client: &mut WalletServiceClient<Channel>, coins: usize) -> Result<()> {
    let deadline = Instant::now() + COINS_PATIENCE;
    loop {
        let request = GetBalanceRequest { wallet_id: WALLET.to_owned(), ..GetBalanceRequest::default() };
        let seen = match client.get_balance(request).await {
            Ok(answer) => answer.into_inner().balance.unwrap_or_default().available_count,
            Err(_) => 0, // asked again until the deadline
        };
        if seen >= u64::try_from(coins)? {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the cluster sees {seen} of {coins} coins after {COINS_PATIENCE:?}");
        tokio::time::sleep(POLL).await;
    }
}
