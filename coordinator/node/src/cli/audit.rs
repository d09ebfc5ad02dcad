//! `onespend audit`: what operators did, and what they must see.

use clap::{Args, Subcommand};
use onespend_proto::v1;

use super::answer::{Limit, Pages};
use super::failure::Failure;
use super::session::{Freshness, Session};
use super::values;
use super::view::audit::Events;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List what operators did and must see, in order of the log
    List(List),
}

#[derive(Debug, Args)]
pub struct List {
    /// Only events after this log index
    #[arg(long, value_name = "N", default_value_t = 0)]
    from_index: u64,
    /// Only of this wallet
    #[arg(long, value_name = "WALLET", value_parser = values::wallet_id)]
    wallet: Option<String>,
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
            let request = v1::ListAuditEventsRequest {
                from_index: list.from_index,
                wallet_id: list.wallet.clone().unwrap_or_default(),
                page_size,
                page_token,
                consistency: list.freshness.consistency(),
            };
            let answer = client.list_audit_events(request).await.map_err(Failure::of_lagged_read)?;
            if pages.take(answer.events, answer.next_page_token) {
                return session.output.show(&Events::new(pages.finish()));
            }
        }
    }
}
