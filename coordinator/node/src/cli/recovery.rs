//! `onespend recovery`: a cluster whose state may be older than what it did.

use std::path::PathBuf;

use clap::Subcommand;
use onespend_adapters::store::sqlite::RestoredMark;
use onespend_proto::v1;
use serde::Serialize;

use super::answer::Changed;
use super::connection::Need;
use super::exit::Exit;
use super::failure::Failure;
use super::output::Show;
use super::session::{Freshness, Repeat, Session, mutation, present};
use super::view::recovery::{Confirmed, Recovery};
use super::with_runtime;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show whether the cluster is in recovery mode, why, and how far the comparison with bitcoind is
    Show {
        #[command(flatten)]
        freshness: Freshness,
    },
    /// End recovery mode: the signers of the node that leads sign again
    Confirm {
        /// What was checked, for the audit
        #[arg(long, value_name = "TEXT")]
        note: String,
        /// You have asked those who order payments what they ordered after the backup, and looked at what is held back
        #[arg(long, required = true)]
        i_have_checked: bool,
        #[command(flatten)]
        repeat: Repeat,
    },
    /// Mark a data folder that came out of a backup, before its node is started: the cluster enters recovery mode
    Mark {
        /// The data folder, of a node that does not run
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
    },
}

/// A folder that is marked now.
#[derive(Debug, Serialize)]
struct Marked {
    data_dir: String,
}

impl Show for Marked {
    fn text(&self) -> String {
        format!("{} is marked as restored; put together what the signers remember, then start all nodes", self.data_dir)
    }
}

impl Command {
    /// Runs it.
    pub fn run(self, session: &Session) -> Result<Exit, Failure> {
        match self {
            Self::Mark { data_dir } => {
                let refused = |error: onespend_adapters::store::StoreError| {
                    Failure::usage(error.to_string())
                        .remedy("name node.data_dir of a node that is stopped, after the backup is copied into it")
                };
                Failure::refuse_root(&data_dir)?;
                RestoredMark::set(&data_dir).map_err(refused)?;
                session.output.show(&Marked { data_dir: data_dir.display().to_string() }).map(|()| Exit::Done)
            }
            Self::Show { freshness } => with_runtime(show(freshness, session)),
            Self::Confirm { note, i_have_checked, repeat } => {
                with_runtime(confirm(note, i_have_checked, repeat.id(), session))
            }
        }
    }
}

async fn show(freshness: Freshness, session: &Session) -> Result<(), Failure> {
    let client = session.connection.client(Need::Control)?;
    let request = v1::GetRecoveryRequest { consistency: freshness.consistency() };
    let answer = client.get_recovery(request).await.map_err(Failure::of_read)?;
    session.output.show(&Recovery::from(present(answer.recovery)?))
}

async fn confirm(note: String, i_have_checked: bool, request_id: String, session: &Session) -> Result<(), Failure> {
    let client = session.connection.client(Need::Control)?;
    let request = v1::ConfirmRecoveryRequest { request_id: request_id.clone(), note, i_have_checked };
    let answer = mutation(&request_id, client.confirm_recovery(request)).await?;
    session.output.show(&Changed {
        resource: Confirmed::of(present(answer.recovery)?, answer.node_id, answer.accepted_signers),
        applied_index: answer.applied_index,
        term: answer.term,
        request_id,
    })
}
