//! `onespend utxo`: the coins of a wallet.

use clap::Subcommand;
use onespend_proto::v1;

use super::answer::{Limit, Pages};
use super::failure::Failure;
use super::session::{Freshness, Session};
use super::view::utxo::Utxos;
use super::{values, words};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List coins in order of their outpoints
    List(List),
}

#[derive(Debug, clap::Args)]
pub struct List {
    /// The wallet
    #[arg(long, value_name = "WALLET", value_parser = values::wallet_id)]
    wallet: String,
    /// Only in this state; may be repeated [default: all but spent]
    #[arg(long = "state", value_name = "STATE", value_parser = words::parser::<v1::UtxoState>())]
    states: Vec<v1::UtxoState>,
    /// Only of at least this value, in satoshi
    #[arg(long, value_name = "SAT", value_parser = values::amount_sat)]
    min_sat: Option<i64>,
    /// Only of at least this many confirmations
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_depth: u32,
    #[command(flatten)]
    limit: Limit,
    #[command(flatten)]
    freshness: Freshness,
}

impl Command {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self::List(list) = self;
        let client = session.data()?;
        let mut pages = Pages::new(&list.limit);
        loop {
            let (page_size, page_token) = pages.next();
            let request = v1::ListUtxosRequest {
                wallet_id: list.wallet.clone(),
                states: list.states.iter().map(|state| *state as i32).collect(),
                min_value_sat: list.min_sat.unwrap_or_default(),
                min_depth: list.min_depth,
                page_size,
                page_token,
                consistency: list.freshness.consistency(),
            };
            let answer = client.list_utxos(request).await.map_err(Failure::of_read)?;
            if pages.take(answer.utxos, answer.next_page_token) {
                return session.output.show(&Utxos::new(pages.finish()));
            }
        }
    }
}
