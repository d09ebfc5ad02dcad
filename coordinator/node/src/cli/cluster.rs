//! `onespend cluster`: administration, on the control ports.

use clap::Subcommand;
use onespend_proto::v1;
use serde::Serialize;

use super::answer::Changed;
use super::connection::Need;
use super::failure::Failure;
use super::output::Show;
use super::session::{Repeat, Session, mutation};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Hand leadership to another voter, and wait until it leads
    Transfer {
        /// Node that should lead [default: the voter that has caught up best]
        #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
        to: Option<u64>,
        #[command(flatten)]
        repeat: Repeat,
    },
}

/// Who leads now.
#[derive(Debug, Serialize)]
struct Leader {
    leader_id: u64,
}

impl Show for Leader {
    fn text(&self) -> String {
        format!("node {} leads", self.leader_id)
    }
}

impl Command {
    /// Runs it.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        let Self::Transfer { to, repeat } = self;
        let client = session.connection.client(Need::Control)?;
        let request_id = repeat.id();
        let request = v1::TransferLeadershipRequest { request_id: request_id.clone(), node_id: to.unwrap_or_default() };
        let answer = mutation(&request_id, client.transfer_leadership(request)).await?;
        session.output.show(&Changed {
            resource: Leader { leader_id: answer.leader_id },
            applied_index: answer.applied_index,
            term: answer.term,
            request_id,
        })
    }
}
