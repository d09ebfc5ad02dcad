//! `onespend doctor`: what would keep a node on this machine from working, and what to do about it. Changes nothing
//! but for one small file in the data folder and one in the folder for backups, which it removes again, and what
//! SQLite makes beside a signer's memory to read it (`-shm`, and an empty `-wal`). May run beside the node.
//!
//! One file per check; `dial` and `findings` serve them.

mod backups;
mod bitcoind;
mod certificates;
mod clock;
mod configuration;
mod data_folder;
mod dial;
mod disk;
mod findings;
mod memories;
mod ownership;
mod peers;
mod ports;
mod signers;

use std::path::PathBuf;

use clap::Args;
use onespend_adapters::store::Owner;

use self::clock::Clock;
use self::findings::{Findings, Report};
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::progress::Progress;
use crate::config::Config;
use crate::tls;

/// Exits 0 if all is well, 1 if there are warnings, 2 if there are failures.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The node's configuration file
    #[arg(long, value_name = "FILE", env = "ONESPEND_CONFIG")]
    config: PathBuf,
}

impl Doctor {
    /// Looks at everything.
    pub fn run(self, output: Output) -> Result<Exit, Failure> {
        let clock = Clock::start();
        let progress = Progress::start("configuration");
        let mut findings = Findings::default();
        if let Some(config) = configuration::check(&self.config, &mut findings) {
            look(&config, &clock, &progress, &mut findings);
        }
        drop(progress);
        let report = Report::of(findings);
        output.show(&report)?;
        Ok(report.exit())
    }
}

fn look(config: &Config, clock: &Clock, progress: &Progress, findings: &mut Findings) {
    let material = tls::Material::load(&config.tls).ok();
    certificates::check(config, material.as_ref(), findings);
    signers::check(config, findings);
    progress.say("what signers remember");
    memories::check(config, findings);
    progress.say("data folder");
    data_folder::check(&config.node.data_dir, findings);
    let owner = Owner { cluster_id: config.cluster.id.clone(), node_id: config.node.id };
    ownership::check(&config.node.data_dir, &owner, findings);
    if config.has_others() {
        ownership::check_peer_book(&config.node.data_dir, &owner, findings);
    }
    disk::check(&config.node.data_dir, config.storage, findings);
    progress.say("backups");
    backups::check(config.backup.place.as_ref(), findings);
    progress.say("ports");
    ports::check(config, material.as_ref(), findings);
    progress.say("peers");
    peers::check(config, material.as_ref(), findings);
    progress.say("bitcoind");
    let view = bitcoind::check(config, findings);
    clock.check(view.as_ref(), findings);
}
