//! Recovery mode.

use onespend_proto::v1;
use serde::Serialize;

use super::chain::Block;
use super::set;
use crate::cli::output::Show;
use crate::cli::table;
use crate::leader::sign::NOT_ACCEPTED;

/// `v1::Recovery`.
#[derive(Debug, Serialize)]
pub struct Recovery {
    active: bool,
    why: Option<String>,
    reconciled: Option<Block>,
    epoch: u32,
}

impl From<v1::Recovery> for Recovery {
    fn from(recovery: v1::Recovery) -> Self {
        Self {
            active: recovery.active,
            why: set(recovery.why),
            reconciled: recovery.reconciled.map(Block::from),
            epoch: recovery.epoch,
        }
    }
}

impl Show for Recovery {
    fn text(&self) -> String {
        let compared = self.reconciled.as_ref().map_or_else(|| "not yet".to_owned(), Block::line);
        if !self.active {
            return table::card([("recovery", "off".to_owned()), ("fence epoch", self.epoch.to_string())]);
        }
        table::card([
            ("recovery", "on: nothing is signed".to_owned()),
            ("why", self.why.clone().unwrap_or_default()),
            ("compared with bitcoind", compared),
            ("fence epoch", self.epoch.to_string()),
        ])
    }
}

/// `v1::ConfirmRecoveryResponse`: whose signers sign from now on, and what the others need.
#[derive(Debug, Serialize)]
pub struct Confirmed {
    #[serde(flatten)]
    recovery: Recovery,
    node_id: u64,
    accepted_signers: Vec<String>,
    /// What is to be done on every other node, for people.
    elsewhere: String,
}

impl Confirmed {
    /// Of an answer whose recovery mode this is.
    pub fn of(recovery: v1::Recovery, node_id: u64, accepted_signers: Vec<String>) -> Self {
        let epoch = recovery.epoch;
        let elsewhere = format!(
            "every other node that may lead signs nothing until its signers have accepted epoch {epoch} as well (alarm \
             {NOT_ACCEPTED}): copy a memory that knows what was signed (onespend signer copy); there, stop the node, \
             onespend signer merge, start it. Where you have checked that nothing is missing, onespend signer accept"
        );
        Self { recovery: recovery.into(), node_id, accepted_signers, elsewhere }
    }
}

impl Show for Confirmed {
    fn text(&self) -> String {
        let node_id = self.node_id;
        let signing = if self.accepted_signers.is_empty() {
            format!(
                "no signer of node {node_id} has accepted the epoch by this: it has none, its log says why not, or \
                 another node led when this was confirmed. If its alarm {NOT_ACCEPTED} stands, it needs what the \
                 others need"
            )
        } else {
            format!("signers of node {node_id}, from now on: {}", self.accepted_signers.join(", "))
        };
        let mode = if self.recovery.active { "on again: nothing is signed" } else { "off" };
        table::card([
            ("recovery", mode.to_owned()),
            ("fence epoch", self.recovery.epoch.to_string()),
            ("signing", signing),
            ("elsewhere", self.elsewhere.clone()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(accepted_signers: Vec<String>) -> String {
        let text = Confirmed::of(v1::Recovery { epoch: 3, ..Default::default() }, 2, accepted_signers).text();
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
        // Long lines are broken between words.
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn it_is_said_which_signers_sign_and_what_the_other_nodes_need() {
        let text = shown(vec!["hot".to_owned(), "warm".to_owned()]);
        assert!(text.contains("signers of node 2, from now on: hot, warm"), "{text}");
        assert!(text.contains("accepted epoch 3 as well") && text.contains("onespend signer merge"), "{text}");
    }

    #[test]
    fn an_answer_by_which_no_signer_accepted_anything_does_not_say_that_one_signs() {
        let text = shown(vec![]);
        assert!(text.contains("no signer of node 2 has accepted") && !text.contains("from now on"), "{text}");
    }
}
