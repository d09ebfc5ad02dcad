//! `onespend status`: every node's word, in one screen, once or again and again.

use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use onespend_proto::client::{Client, ClientConfig, ClientError};
use onespend_proto::{reason, v1};
use serde::Serialize;

use super::connection::Need;
use super::exit::Exit;
use super::failure::{Failure, of_one_node};
use super::output::{self, Output, Show};
use super::remedy;
use super::session::{Freshness, Session};
use super::values;
use super::view::chain::NodeViews;
use super::view::quorum::Complaint;
use super::view::status::Cluster;

/// Seconds between two looks, if `--watch` names none.
const WATCH_EVERY: &str = "2";

/// Asks every node on its control port, also those that only other nodes know of. With data ports alone it shows the
/// tip and every node's bitcoind.
#[derive(Debug, Args)]
pub struct Status {
    /// With data ports alone, else it changes nothing: accept a tip that is up to so old, from any node; works without
    /// a quorum [default: linearizable]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    max_lag: Option<Duration>,
    /// Look again every so many seconds until Ctrl-C: in place on a terminal, else one block after the other
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = WATCH_EVERY,
        value_parser = clap::value_parser!(u64).range(1..=3_600))]
    watch: Option<u64>,
}

/// What is shown: what the control ports tell, or what the data ports tell.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Screen {
    Cluster(Box<Cluster>),
    Views(NodeViews),
}

/// One look: what is shown, and what is wrong with it, by which the command ends.
#[derive(Debug)]
struct Look {
    screen: Screen,
    complaint: Option<Failure>,
}

impl Show for Screen {
    fn text(&self) -> String {
        match self {
            Self::Cluster(cluster) => cluster.text(),
            Self::Views(views) => views.text(),
        }
    }
}

impl Status {
    /// Shows it.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        let config = session.connection.settings(Need::Any)?;
        let client = Client::connect(config.clone()).map_err(Failure::of_read)?;
        let Some(seconds) = self.watch else {
            let look = self.look(&client, &config).await?;
            session.output.show(&look.screen)?;
            return look.complaint.map_or(Ok(()), Err);
        };
        tokio::select! {
            ended = self.follow(&client, &config, session.output, Duration::from_secs(seconds)) => ended,
            // The way to end it, so no failure.
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(|error| Failure::usage(error.to_string())),
        }
    }

    /// Until it is interrupted, or nobody reads any more. That no node answers is told, and looked at again: that is
    /// when people watch.
    async fn follow(
        &self,
        client: &Client,
        config: &ClientConfig,
        output: Output,
        every: Duration,
    ) -> Result<(), Failure> {
        let mut looks = tokio::time::interval(every);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut frame = output.frame();
        loop {
            looks.tick().await;
            match self.look(client, config).await {
                Ok(look) => frame.show(&look.screen)?,
                Err(failure) if failure.exit == Exit::Usage => return Err(failure),
                Err(failure) => frame.fail(&failure)?,
            }
        }
    }

    async fn look(&self, client: &Client, config: &ClientConfig) -> Result<Look, Failure> {
        if config.control_endpoints.is_empty() {
            return self.ask_data_ports(client).await;
        }
        let answers = ask_all(client, config).await;
        if answers.iter().any(|(_, answer)| answer.is_ok()) {
            let told = |(address, answer): Answer| (address, answer.map_err(|error| of_one_node(&error)));
            let cluster = Cluster::new(answers.into_iter().map(told).collect());
            let complaint = cluster.complaint().map(nothing_works);
            return Ok(Look { screen: Screen::Cluster(Box::new(cluster)), complaint });
        }
        // A client may not ask for status, but for what the data ports tell.
        let not_allowed = answers.iter().any(|(_, answer)| answer.as_ref().is_err_and(|error| error.is(reason::ROLE)));
        if not_allowed && !config.endpoints.is_empty() {
            return self.ask_data_ports(client).await;
        }
        Err(nobody(answers))
    }

    async fn ask_data_ports(&self, client: &Client) -> Result<Look, Failure> {
        let views = client.get_node_views(v1::GetNodeViewsRequest {}).await.map_err(Failure::of_read)?;
        let tip = client.get_tip(v1::GetTipRequest { consistency: Freshness::up_to(self.max_lag).consistency() }).await;
        let (tip, complaint) = match tip {
            Ok(answer) => (Ok(answer.tip), None),
            // What is said before the first block.
            Err(error) if error.is(reason::CHAIN_NOT_SYNCED) => (Ok(None), None),
            Err(error) => (Err(error.to_string()), Some(unknown_tip(error))),
        };
        self.note("with --control and an operator's certificate there is more to see");
        Ok(Look { screen: Screen::Views(NodeViews::new(tip, views)), complaint })
    }

    /// Not into a screen that is drawn again and again.
    fn note(&self, remark: &str) {
        if self.watch.is_none() {
            output::note(remark);
        }
    }
}

fn nothing_works(Complaint { what, why, remedy }: Complaint) -> Failure {
    Failure::new(Exit::Unreachable, format!("{what}: {why}")).remedy(remedy)
}

fn unknown_tip(error: ClientError) -> Failure {
    let mut failure = Failure::of_read(error);
    failure.sentence = format!("the tip is not known: {}", failure.sentence);
    if failure.exit != Exit::Unreachable {
        return failure;
    }
    failure.remedy("bring most of the voters back, or take an older tip with --max-lag")
}

/// What one node's control port answered.
pub(super) type Answer = (String, Result<v1::GetStatusResponse, ClientError>);

/// No good answer at all: a refusal if there is one, else what became of each.
pub(super) fn nobody(answers: Vec<Answer>) -> Failure {
    let mut silence = Failure::new(Exit::Unreachable, "no node answered on its control port");
    let mut remedy = "check that the nodes run, the addresses and the certificates";
    for (address, answer) in answers {
        match answer {
            Err(error @ ClientError::Rejected(_)) => return Failure::of_read(error),
            Err(error) => {
                let why = of_one_node(&error);
                remedy = remedy::of_no_tls(&why).unwrap_or(remedy);
                silence = silence.with(&address, why);
            }
            Ok(_) => {}
        }
    }
    silence.remedy(remedy)
}

/// The nodes that are configured, then the members that these name and that were not asked yet.
pub(super) async fn ask_all(client: &Client, config: &ClientConfig) -> Vec<Answer> {
    let mut answers = ask(client, config.control_endpoints.clone()).await;
    let known = |answers: &[Answer], member: &v1::Member| {
        answers.iter().any(|(address, answer)| {
            *address == member.control_address || answer.as_ref().is_ok_and(|answer| answer.node_id == member.node_id)
        })
    };
    let members = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok()).flat_map(|answer| &answer.members);
    let mut others: Vec<String> =
        members.filter(|member| !known(&answers, member)).map(|member| member.control_address.clone()).collect();
    others.sort_unstable();
    others.dedup();
    answers.extend(ask(client, others).await);
    answers
}

async fn ask(client: &Client, addresses: Vec<String>) -> Vec<Answer> {
    let each = addresses.into_iter().map(|address| async {
        let answer = client.get_status_of(&address).await;
        (address, answer)
    });
    join_all(each).await
}
