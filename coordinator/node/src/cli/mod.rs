//! The command line: one file per group of commands.
//!
//! | files | hold |
//! |---|---|
//! | `mod.rs` | the commands, and how one is run |
//! | `serve` | the daemon |
//! | `pki`, `config_check`, `signer`, `signer_log`, `signer_new`, `manual` | commands that need no cluster |
//! | `backup`, `restore` | the cluster's state in a file, and a new cluster out of it |
//! | `survivor` | `cluster recover`: a new cluster out of what one node is left with |
//! | `doctor/` | what is wrong with this machine |
//! | `health` | what one node's health port says |
//! | `status`, `wallet`, `utxo`, `reserve`, `pay`, `payment`, `audit`, `recovery`, `cluster` | commands that talk to a cluster |
//! | `replacement`, `outside`, `fee`, `caps` | parts of those |
//! | `connection`, `profile`, `session` | how to reach it |
//! | `local` | which commands need none of that |
//! | `values`, `words` | what may be written on the command line |
//! | `output`, `view/`, `answer`, `table`, `format` | how answers look, for people and as JSON |
//! | `failure`, `remedy`, `exit` | what is said when there is no good answer |
//!
//! Standard output carries answers and nothing else; everything else goes to standard error.

mod answer;
mod audit;
mod backup;
mod caps;
mod cluster;
mod config_check;
mod connection;
mod doctor;
mod exit;
mod failure;
mod fee;
mod format;
mod health;
mod local;
mod manual;
mod output;
mod outside;
mod pay;
mod payment;
mod pki;
mod profile;
mod progress;
mod recovery;
mod remedy;
mod replacement;
mod reserve;
mod restore;
mod serve;
mod session;
#[cfg(test)]
mod shown_tests;
mod signer;
mod signer_log;
mod signer_new;
mod status;
mod storage;
mod survivor;
mod table;
mod utxo;
mod values;
mod view;
mod wallet;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use connection::Connection;
use exit::Exit;
use failure::Failure;
use output::{Format, Output};
use session::Session;

/// Reserves UTXOs and pays from them, so that no coin is spent twice and no payment is paid twice.
#[derive(Debug, Parser)]
#[command(name = "onespend", version, after_help = exit::help(), max_term_width = 100)]
struct Cli {
    /// How answers are written
    #[arg(short, long, value_enum, default_value = "table", env = "ONESPEND_OUTPUT", global = true)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Serve(serve::Serve),
    /// Make certificates
    #[command(subcommand)]
    Pki(pki::Command),
    /// Look at configuration files
    #[command(subcommand)]
    Config(config_check::Command),
    /// Make a signer's key, and look after what this machine's signers remember
    #[command(subcommand)]
    Signer(signer::Command),
    /// Check this machine: configuration, certificates, signers, data folder, backups, ports, peers, bitcoind, clock
    Doctor(doctor::Doctor),
    /// Ask one node's health port: exits 0 when it says yes, 1 when it says no
    Health(health::Health),
    /// Show the whole cluster in one screen
    Status(status::Status),
    /// Register and look after wallets
    #[command(subcommand)]
    Wallet(wallet::Command),
    /// Look at coins, and free those that were held back
    #[command(subcommand)]
    Utxo(utxo::Command),
    /// Claim coins for a while
    #[command(subcommand)]
    Reserve(reserve::Command),
    /// Pay: choose coins, sign, broadcast
    Pay(pay::Pay),
    /// Look at payments, have a PSBT signed, bump fees, cancel
    #[command(subcommand)]
    Payment(payment::Command),
    /// Look at what operators did, and must see
    #[command(subcommand)]
    Audit(audit::Command),
    /// Make and look at backups
    #[command(subcommand)]
    Backup(backup::Command),
    /// Begin a new cluster with a backup
    Restore(restore::Restore),
    /// Put a restored cluster back to use
    #[command(subcommand)]
    Recovery(recovery::Command),
    /// Administer the cluster
    #[command(subcommand)]
    Cluster(cluster::Command),
    /// Write a shell's completions to standard output
    Completions(manual::Completions),
    /// Write man pages into a folder
    Man(manual::Man),
}

/// Runs one command line. The process must have a rustls provider.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match local::parse(arguments) {
        Ok(cli) => cli,
        Err(refusal) => {
            // Help and version go to standard output and are no failure; clap knows which is which.
            let _ = refusal.print();
            return if refusal.use_stderr() { Exit::Usage } else { Exit::Done }.into();
        }
    };
    let output = Output { format: cli.output };
    let session = Session { output, connection: cli.connection };
    cli.command
        .run(&session)
        .unwrap_or_else(|failure| {
            output.fail(&failure);
            failure.exit
        })
        .into()
}

impl Command {
    fn run(self, session: &Session) -> Result<Exit, Failure> {
        let output = session.output;
        match self {
            Self::Serve(command) => command.run(),
            Self::Pki(command) => command.run(output),
            Self::Config(command) => command.run(output),
            Self::Signer(command) => command.run(output),
            Self::Doctor(command) => command.run(output),
            Self::Completions(command) => command.run(),
            Self::Man(command) => command.run(),
            Self::Health(command) => with_runtime(command.run(output, session.connection.timeout())),
            Self::Status(command) => with_runtime(command.run(session)),
            Self::Wallet(command) => with_runtime(command.run(session)),
            Self::Utxo(command) => with_runtime(command.run(session)),
            Self::Reserve(command) => with_runtime(command.run(session)),
            Self::Pay(command) => with_runtime(command.run(session)),
            Self::Payment(command) => with_runtime(command.run(session)),
            Self::Audit(command) => with_runtime(command.run(session)),
            Self::Backup(command) => command.run(session),
            Self::Restore(command) => command.run(output),
            Self::Recovery(command) => command.run(session),
            Self::Cluster(command) => command.run(session),
        }
    }
}

/// Runs a command that talks to a cluster.
fn with_runtime(command: impl Future<Output = Result<(), Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::usage(format!("cannot start: {error}")))?;
    let done = runtime.block_on(command).map(|()| Exit::Done);
    // The lookup of a name may hang; nobody waits for it.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        local::command().debug_assert();
    }

    /// The commands that the table of a page names. Where a row names several, the words after the first are its
    /// siblings: `wallet register`, `list`.
    fn listed(page: &str) -> BTreeSet<String> {
        let mut commands = BTreeSet::new();
        for row in page.lines().filter(|line| line.starts_with("| `")) {
            let cell = row.split('|').nth(1).unwrap_or_default();
            let mut parent = "";
            for name in cell.split('`').skip(1).step_by(2) {
                parent = name.split_once(' ').map_or(parent, |(parent, _)| parent);
                let sibling = format!("{parent} {name}");
                commands.insert(if name.contains(' ') || parent.is_empty() { name.to_owned() } else { sibling });
            }
        }
        commands
    }

    /// The commands that do something, and those that the page lacks.
    fn missing(page: &str) -> Vec<String> {
        let listed = listed(page);
        let paths = Cli::command()
            .get_subcommands()
            .flat_map(|command| {
                let name = command.get_name();
                let inner: Vec<_> =
                    command.get_subcommands().map(|inner| format!("{name} {}", inner.get_name())).collect();
                if inner.is_empty() { vec![name.to_owned()] } else { inner }
            })
            .collect::<Vec<_>>();
        paths.into_iter().filter(|path| !listed.contains(path)).collect()
    }

    #[test]
    fn the_page_about_the_command_line_has_every_command() {
        let page = include_str!("../../../../docs/src/cli.md");
        assert_eq!(missing(page), Vec::<String>::new());
        let shorter = page.replace("`cluster add`, `promote`", "`cluster add`");
        assert_eq!(missing(&shorter), ["cluster promote"]);
    }
}
