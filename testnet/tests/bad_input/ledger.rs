//! Everything that a caller can see of the cluster's state, to show that a refusal changed nothing.

use std::collections::BTreeMap;
use std::fmt::Debug;

use anyhow::{Result, ensure};
use onespend_proto::v1;

use crate::door::Clients;

/// More rows than any check makes.
const PAGE: i32 = 1000;
/// Every state that a coin can be in.
const UTXO_STATES: [v1::UtxoState; 8] = [
    v1::UtxoState::Available,
    v1::UtxoState::Reserved,
    v1::UtxoState::Exposed,
    v1::UtxoState::SpentPending,
    v1::UtxoState::Spent,
    v1::UtxoState::Quarantined,
    v1::UtxoState::Immature,
    v1::UtxoState::Unconfirmed,
];

/// Wallets, balances, coins, reservations, payments and the tip, by name, as text.
#[derive(Debug, PartialEq, Eq)]
pub struct Ledger(BTreeMap<String, String>);

impl Ledger {
    /// Reads it, linearizably.
    pub async fn read(clients: &mut Clients) -> Result<Self> {
        let mut rows = Rows::default();
        let wallets = v1::ListWalletsRequest { page_size: PAGE, ..Default::default() };
        let wallets = clients.wallet.list_wallets(wallets).await?.into_inner();
        for wallet in wallets.wallets {
            read_wallet(clients, &wallet.wallet_id, &mut rows).await?;
            rows.add(format!("wallet {}", wallet.wallet_id), &wallet);
        }
        let reservations = v1::ListReservationsRequest { page_size: PAGE, ..Default::default() };
        let reservations = clients.reservation.list_reservations(reservations).await?.into_inner();
        for reservation in reservations.reservations {
            // Shown relative to the clock of the moment.
            let timeless = v1::Reservation {
                create_time: None,
                expire_time: None,
                remaining: None,
                max_expire_time: None,
                ..reservation
            };
            rows.add(format!("reservation {}", timeless.reservation_id), &timeless);
        }
        let tip = clients.chain.get_tip(v1::GetTipRequest::default()).await?.into_inner().tip;
        rows.add("tip".to_owned(), &tip);
        Ok(Self(rows.0))
    }

    /// What differs, by name; empty if nothing does.
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let mut all: Vec<&String> = self.0.keys().chain(later.0.keys()).collect();
        all.sort();
        all.dedup();
        let changed = all.into_iter().filter(|name| self.0.get(*name) != later.0.get(*name));
        changed.map(|name| format!("{name}: {:?} → {:?}", self.0.get(name), later.0.get(name))).collect()
    }
}

#[derive(Default)]
struct Rows(BTreeMap<String, String>);

impl Rows {
    fn add(&mut self, name: String, value: &impl Debug) {
        self.0.insert(name, format!("{value:?}"));
    }
}

async fn read_wallet(clients: &mut Clients, wallet: &str, rows: &mut Rows) -> Result<()> {
    let wallet_id = wallet.to_owned();
    let balance = v1::GetBalanceRequest { wallet_id: wallet_id.clone(), ..Default::default() };
    let balance = clients.wallet.get_balance(balance).await?.into_inner().balance;
    rows.add(format!("balance {wallet}"), &balance);
    let utxos = v1::ListUtxosRequest {
        wallet_id: wallet_id.clone(),
        states: UTXO_STATES.map(i32::from).to_vec(),
        page_size: PAGE,
        ..Default::default()
    };
    let utxos = clients.wallet.list_utxos(utxos).await?.into_inner();
    ensure!(utxos.next_page_token.is_empty(), "{wallet} has more coins than this compares");
    for utxo in utxos.utxos {
        rows.add(format!("utxo {:?}", utxo.outpoint), &utxo);
    }
    let payments = v1::ListPaymentsRequest { wallet_id, page_size: PAGE, ..Default::default() };
    let payments = clients.payment.list_payments(payments).await?.into_inner();
    ensure!(payments.next_page_token.is_empty(), "{wallet} has more payments than this compares");
    for payment in payments.payments {
        rows.add(format!("payment {wallet}/{}", payment.payment_id), &payment);
    }
    Ok(())
}
