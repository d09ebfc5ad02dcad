//! `onespend utxo`: the coins of a wallet, those that are held back, and those that are lost.

use clap::Subcommand;
use onespend_proto::v1;

use super::answer::{Changed, Limit, Pages};
use super::failure::Failure;
use super::session::{Freshness, Repeat, Session, mutation};
use super::view::utxo::Utxos;
use super::{values, words};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List coins in order of their outpoints
    List(List),
    /// Free coins that were held back, once you know that nobody else will spend them
    Release(Release),
    /// Give up a coin that was reorganised away and double-spent, so that payments which spend it end
    Lost(Lost),
}

#[derive(Debug, clap::Args)]
pub struct Lost {
    /// The wallet
    #[arg(long, value_name = "WALLET", value_parser = values::wallet_id)]
    wallet: String,
    /// The coin, as txid:vout
    #[arg(value_name = "OUTPOINT", value_parser = values::outpoint)]
    outpoint: v1::Outpoint,
    /// The transaction that made the coin: hex, or a file in hex or binary; - for standard input
    #[arg(long, value_name = "TRANSACTION")]
    deposit_tx: String,
    /// The transaction that spends what that one would spend
    #[arg(long, value_name = "TXID")]
    by: bitcoin::Txid,
    /// The block that has it
    #[arg(long, value_name = "HASH")]
    in_block: bitcoin::BlockHash,
    /// What was found out, for the audit
    #[arg(long, value_name = "TEXT")]
    note: String,
    #[command(flatten)]
    repeat: Repeat,
}

#[derive(Debug, clap::Args)]
pub struct Release {
    /// The wallet
    #[arg(long, value_name = "WALLET", value_parser = values::wallet_id)]
    wallet: String,
    /// The coins, as txid:vout
    #[arg(required = true, value_name = "OUTPOINT", value_parser = values::outpoint)]
    outpoints: Vec<v1::Outpoint>,
    /// What was checked, for the audit
    #[arg(long, value_name = "TEXT")]
    note: String,
    /// You have checked that nobody outside this service will spend these coins
    #[arg(long, required = true)]
    i_have_checked: bool,
    #[command(flatten)]
    repeat: Repeat,
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
        match self {
            Self::List(list) => list.run(session).await,
            Self::Release(release) => release.run(session).await,
            Self::Lost(lost) => lost.run(session).await,
        }
    }
}

impl Lost {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.data()?;
        let request_id = self.repeat.id();
        let request = v1::DeclareLostRequest {
            request_id: request_id.clone(),
            wallet_id: self.wallet,
            outpoint: Some(self.outpoint),
            raw_deposit: values::transaction(&self.deposit_tx)?.into(),
            conflicting_txid: self.by.to_string(),
            block_hash: self.in_block.to_string(),
            note: self.note,
        };
        let answer = mutation(&request_id, client.declare_lost(request)).await?;
        session.output.show(&Changed {
            resource: Utxos::new((answer.utxos, false)),
            applied_index: answer.applied_index,
            term: answer.term,
            request_id,
        })
    }
}

impl Release {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let client = session.data()?;
        let request_id = self.repeat.id();
        let request = v1::ReleaseQuarantinedRequest {
            request_id: request_id.clone(),
            wallet_id: self.wallet,
            outpoints: self.outpoints,
            note: self.note,
            i_have_checked: self.i_have_checked,
        };
        let answer = mutation(&request_id, client.release_quarantined(request)).await?;
        session.output.show(&Changed {
            resource: Utxos::new((answer.utxos, false)),
            applied_index: answer.applied_index,
            term: answer.term,
            request_id,
        })
    }
}

impl List {
    async fn run(self, session: &Session) -> Result<(), Failure> {
        let list = self;
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
            let answer = client.list_utxos(request).await.map_err(Failure::of_lagged_read)?;
            if pages.take(answer.utxos, answer.next_page_token) {
                return session.output.show(&Utxos::new(pages.finish()));
            }
        }
    }
}
