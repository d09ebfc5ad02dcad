//! The very end, when everything has been judged: a reorganisation that reaches finality depth. What was final is not, so
//! the wallet has to be frozen until somebody has looked.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::runtime::Runtime;

use super::nodes::Nodes;
use super::stage::Stage;
use super::violation::{Oracle, Violation};
use crate::cluster::FINALITY_DEPTH;

/// How long a cluster without faults may take to follow the chain, and to answer.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
/// What the note of a wallet begins with that a reorganisation froze.
const NOTE: &str = "a reorganisation took away";

/// Replaces as many blocks as finality takes, and says what is wrong if the wallet goes on.
///
/// # Errors
/// The bitcoinds refuse, or the nodes do not tell of the wallet.
pub fn freeze(stage: &Stage, nodes: &Nodes, runtime: &Runtime) -> Result<Option<Violation>> {
    stage.blocks().reorganise(FINALITY_DEPTH, true)?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let note = runtime.block_on(nodes.frozen_note(PATIENCE))?;
        if note.starts_with(NOTE) {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            let what = format!("a reorganisation of {FINALITY_DEPTH} blocks does not freeze the wallet: {note:?}");
            return Ok(Some(Violation::new(Oracle::Recovery, &what)));
        }
        thread::sleep(POLL);
    }
}
