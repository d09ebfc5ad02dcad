//! `onespend cluster`: administration, on the control ports.

use clap::Subcommand;
use onespend_proto::client::Client;
use onespend_proto::v1;
use serde::Serialize;

use super::answer::Changed;
use super::connection::Need;
use super::failure::Failure;
use super::output::Show;
use super::session::{Repeat, Session, mutation};
use super::status::{ask_all, nobody};
use super::view::members::Members;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the members: vote, lag, bitcoind, version
    Members,
    /// Let a new node receive the log; it must have an id that was never used, and `join = true`
    Add {
        /// The new node's id
        #[arg(value_name = "ID", value_parser = node_ids())]
        node: u64,
        /// Where nodes and operators reach it
        #[arg(long, value_name = "HOST:PORT")]
        control_address: String,
        /// Where wallet back ends reach it
        #[arg(long, value_name = "HOST:PORT")]
        data_address: String,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// Give a learner that has caught up its vote
    Promote {
        /// Which learner
        #[arg(value_name = "ID", value_parser = node_ids())]
        node: u64,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// Remove a node, also a dead one; its id is never used again
    Remove {
        /// Which node
        #[arg(value_name = "ID", value_parser = node_ids())]
        node: u64,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// Hand leadership to another voter, and wait until it leads
    Transfer {
        /// Node that should lead [default: the voter that has caught up best]
        #[arg(long, value_name = "ID", value_parser = node_ids())]
        to: Option<u64>,
        #[command(flatten)]
        repeat: Repeat,
    },
}

fn node_ids() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..)
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
        let client = session.connection.client(Need::Control)?;
        match self {
            Self::Members => members(&client, session).await,
            Self::Add { node, control_address, data_address, repeat } => {
                let request_id = repeat.id();
                let asked = request_id.clone();
                let request = v1::AddLearnerRequest { request_id: asked, node_id: node, control_address, data_address };
                let answer = mutation(&request_id, client.add_learner(request)).await?;
                show(session, answer.members, answer.applied_index, answer.term, request_id)
            }
            Self::Promote { node, repeat } => {
                let request_id = repeat.id();
                let request = v1::PromoteLearnerRequest { request_id: request_id.clone(), node_id: node };
                let answer = mutation(&request_id, client.promote_learner(request)).await?;
                show(session, answer.members, answer.applied_index, answer.term, request_id)
            }
            Self::Remove { node, repeat } => {
                let request_id = repeat.id();
                let request = v1::RemoveNodeRequest { request_id: request_id.clone(), node_id: node };
                let answer = mutation(&request_id, client.remove_node(request)).await?;
                show(session, answer.members, answer.applied_index, answer.term, request_id)
            }
            Self::Transfer { to, repeat } => transfer(&client, session, to, repeat.id()).await,
        }
    }
}

async fn members(client: &Client, session: &Session) -> Result<(), Failure> {
    let answers = ask_all(client, &session.connection.settings(Need::Control)?).await;
    if answers.iter().all(|(_, answer)| answer.is_err()) {
        return Err(nobody(answers));
    }
    session.output.show(&Members::of_all(answers.into_iter().filter_map(|(_, answer)| answer.ok()).collect()))
}

fn show(
    session: &Session,
    members: Vec<v1::Member>,
    applied_index: u64,
    term: u64,
    request_id: String,
) -> Result<(), Failure> {
    session.output.show(&Changed { resource: Members::of_leader(members), applied_index, term, request_id })
}

async fn transfer(client: &Client, session: &Session, to: Option<u64>, request_id: String) -> Result<(), Failure> {
    let request = v1::TransferLeadershipRequest { request_id: request_id.clone(), node_id: to.unwrap_or_default() };
    let answer = mutation(&request_id, client.transfer_leadership(request)).await?;
    session.output.show(&Changed {
        resource: Leader { leader_id: answer.leader_id },
        applied_index: answer.applied_index,
        term: answer.term,
        request_id,
    })
}
