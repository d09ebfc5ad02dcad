//! Reserved coins, and transactions of a caller's own that spend them.

use std::time::Duration;

use bitcoin::absolute::LockTime;
use bitcoin::consensus::deserialize;
use bitcoin::psbt::Psbt;
use bitcoin::transaction::Version;
use bitcoin::{Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxOut};
use onespend_proto::client::{Client, ClientError};
use onespend_proto::v1::{self, UtxoState};
use onespend_testnet::hot::{MAX_FEE, WALLET};

use crate::scene::{AMOUNT_SAT, Call, Scene, fresh_id, payee, recipient};

/// About 3 sat/vB for two inputs.
pub const FEE_SAT: u64 = 700;
/// Every state that a coin can be in.
const STATES: [UtxoState; 8] = [
    UtxoState::Available,
    UtxoState::Reserved,
    UtxoState::Exposed,
    UtxoState::SpentPending,
    UtxoState::Spent,
    UtxoState::Quarantined,
    UtxoState::Immature,
    UtxoState::Unconfirmed,
];

impl Scene {
    /// So many coins that are free, each enough for a payment and the highest fee that is allowed: change of change is not.
    pub async fn free_coins(&self, count: usize) -> Vec<v1::Utxo> {
        let mut free = self.coins().await;
        free.retain(|coin| {
            coin.state() == UtxoState::Available && coin.value_sat >= AMOUNT_SAT + MAX_FEE.to_sat().cast_signed()
        });
        assert!(free.len() >= count, "{count} free coins wanted, {} there", free.len());
        free.truncate(count);
        free
    }

    /// All coins of the wallet.
    pub async fn coins(&self) -> Vec<v1::Utxo> {
        let request = v1::ListUtxosRequest {
            wallet_id: WALLET.to_owned(),
            states: STATES.map(i32::from).to_vec(),
            page_size: 1_000,
            ..Default::default()
        };
        self.client.list_utxos(request).await.unwrap().utxos
    }

    /// A coin as the service shows it.
    pub async fn coin(&self, outpoint: &v1::Outpoint) -> v1::Utxo {
        let all = self.coins().await;
        all.into_iter().find(|coin| coin.outpoint.as_ref() == Some(outpoint)).expect("the coin is known")
    }

    /// Reserves so many coins.
    pub async fn reserve(&self, coins: usize, ttl: Duration) -> v1::Reservation {
        let coins: Vec<v1::Outpoint> = names(&self.free_coins(coins).await);
        reserve(&self.client, &coins, ttl).await.unwrap()
    }

    /// A new script of the wallet, for change.
    pub async fn change_script(&self) -> ScriptBuf {
        let keychain = v1::Keychain::Internal.into();
        let request = v1::NewAddressRequest { wallet_id: WALLET.to_owned(), keychain, ..Default::default() };
        ScriptBuf::from_bytes(self.client.new_address(request).await.unwrap().script.to_vec())
    }

    /// A payment of a reservation's coins by a transaction of the caller's own.
    pub async fn sign_request(&mut self, payment_id: &str, held: &v1::Reservation, fee: u64) -> v1::SignPsbtRequest {
        let psbt = draft(&held.utxos, payment_id, &self.change_script().await, fee);
        v1::SignPsbtRequest {
            reservation_id: held.reservation_id.clone(),
            fence: held.fence,
            ..self.replacement(payment_id, &psbt)
        }
    }

    /// The same without a reservation: it spends coins of the payment's own attempts.
    pub fn replacement(&mut self, payment_id: &str, psbt: &Psbt) -> v1::SignPsbtRequest {
        self.expect_payee(payment_id);
        v1::SignPsbtRequest {
            request_id: fresh_id(),
            wallet_id: WALLET.to_owned(),
            payment_id: payment_id.to_owned(),
            recipients: vec![recipient(payment_id)],
            psbt: psbt.serialize().into(),
            ..Default::default()
        }
    }
}

/// Reserves these coins.
pub async fn reserve(client: &Client, coins: &[v1::Outpoint], ttl: Duration) -> Result<v1::Reservation, ClientError> {
    client.reserve_utxos(wanted(coins, ttl)).await.map(|answer| answer.reservation.unwrap())
}

/// A request for these coins.
pub fn wanted(coins: &[v1::Outpoint], ttl: Duration) -> v1::ReserveUtxosRequest {
    let outpoints = coins.to_vec();
    v1::ReserveUtxosRequest {
        request_id: fresh_id(),
        wallet_id: WALLET.to_owned(),
        what: Some(v1::reserve_utxos_request::What::Outpoints(v1::OutpointList { outpoints })),
        expiration: Some(v1::reserve_utxos_request::Expiration::Ttl(ttl.try_into().unwrap())),
        ..Default::default()
    }
}

/// Gives a reservation back.
pub async fn release(client: &Client, held: &v1::Reservation) {
    let request = v1::ReleaseReservationRequest {
        reservation_id: held.reservation_id.clone(),
        fence: held.fence,
        ..Default::default()
    };
    client.release_reservation(request).await.unwrap();
}

/// Asks for a signature, and does not wait for the answer.
pub fn ask_to_sign(client: &Client, request: &v1::SignPsbtRequest) -> Call<v1::SignPsbtResponse> {
    let (client, request) = (client.clone(), request.clone());
    tokio::spawn(async move { client.sign_psbt(request).await })
}

pub fn names(coins: &[v1::Utxo]) -> Vec<v1::Outpoint> {
    coins.iter().map(|coin| coin.outpoint.clone().unwrap()).collect()
}

pub fn outpoint(shown: &v1::Outpoint) -> OutPoint {
    OutPoint { txid: shown.txid.parse().unwrap(), vout: shown.vout }
}

/// Spends these coins: the payment's amount, the fee, and the rest is change.
pub fn draft(coins: &[v1::Utxo], payment_id: &str, change: &ScriptBuf, fee_sat: u64) -> Psbt {
    let input_sat: i64 = coins.iter().map(|coin| coin.value_sat).sum();
    let paid = Amount::from_sat(AMOUNT_SAT.unsigned_abs());
    let left = Amount::from_sat(input_sat.unsigned_abs()) - paid - Amount::from_sat(fee_sat);
    let input = |coin: &v1::Utxo| TxIn {
        previous_output: outpoint(coin.outpoint.as_ref().unwrap()),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        ..Default::default()
    };
    let transaction = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: coins.iter().map(input).collect(),
        output: vec![
            TxOut { value: paid, script_pubkey: payee(payment_id) },
            TxOut { value: left, script_pubkey: change.clone() },
        ],
    };
    Psbt::from_unsigned_tx(transaction).unwrap()
}

/// The signed transaction of an attempt.
pub fn signed(attempt: &v1::Attempt) -> Transaction {
    deserialize(&attempt.raw_transaction).unwrap()
}
