//! Commands that call no cluster. The options that say how to reach one are declared once, for all commands; here they
//! are hidden and refused. Variables of the same meaning may be set, for they are meant for other commands.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory as _, Error, FromArgMatches as _};

use super::Cli;
use super::connection::HEADING;

/// They work on files of this machine, or on backups in a bucket; `health` asks one port, which `--at` names. Of some
/// groups all are such, of others only some.
const LOCAL: [&str; 13] = [
    "serve",
    "pki",
    "config",
    "signer",
    "doctor",
    "health",
    "restore",
    "completions",
    "man",
    "backup verify",
    "backup list",
    "recovery mark",
    "cluster recover",
];
/// The one of these that waits for an answer.
const HEALTH: &str = "health";

/// All commands, each with the options that it takes in its help.
pub fn command() -> Command {
    let command = Cli::command();
    let connection: Vec<Arg> = command.get_arguments().filter(|argument| is_connection(argument)).cloned().collect();
    command.mut_subcommands(|group| {
        let name = group.get_name().to_owned();
        hide(group, &name, &connection).mut_subcommands(|inner| {
            let path = format!("{name} {}", inner.get_name());
            hide(inner, &path, &connection)
        })
    })
}

/// Hides what is pointless for the command that these names lead to. An argument that a command has itself is not
/// handed down to it.
fn hide(command: Command, path: &str, connection: &[Arg]) -> Command {
    let pointless = connection.iter().filter(|argument| is_pointless(path, argument));
    command.args(pointless.map(|argument| argument.clone().hide(true)))
}

/// Reads a command line.
///
/// # Errors
/// What clap refuses, and an option that says how to reach a cluster where none is called.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, Error> {
    let mut command = command();
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    if let Some(refusal) = refusal(&mut command, &matches) {
        return Err(refusal);
    }
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

fn is_connection(argument: &Arg) -> bool {
    argument.get_help_heading() == Some(HEADING)
}

fn is_pointless(path: &str, argument: &Arg) -> bool {
    LOCAL.contains(&path) && !(path == HEALTH && argument.get_id().as_str() == "timeout")
}

/// The names that lead to a local command, if one was called.
fn called(matches: &ArgMatches) -> Option<String> {
    let (group, inner) = matches.subcommand()?;
    let path = inner.subcommand_name().map(|inner| format!("{group} {inner}"));
    [Some(group.to_owned()), path].into_iter().flatten().find(|path| LOCAL.contains(&path.as_str()))
}

fn refusal(command: &mut Command, matches: &ArgMatches) -> Option<Error> {
    let path = called(matches)?;
    let source = |argument: &Arg| matches.value_source(argument.get_id().as_str());
    let option = command
        .get_arguments()
        .filter(|argument| is_connection(argument) && is_pointless(&path, argument))
        .find(|argument| source(argument) == Some(ValueSource::CommandLine))
        .and_then(|argument| argument.get_long().map(str::to_owned))?;
    let instead = if path == HEALTH { "; --at names the port that it asks" } else { "" };
    let what = format!("`{path}` calls no cluster, so it takes no --{option}{instead}");
    let refused = path.split(' ').try_fold(command, |command, name| command.find_subcommand_mut(name))?;
    Some(refused.error(ErrorKind::UnknownArgument, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Cli, Error> {
        parse(line.split(' ').map(OsString::from))
    }

    /// The help of a command, by the names that lead to it.
    fn help(names: &[&str]) -> String {
        let line = [&["onespend"][..], names, &["--help"]].concat();
        let shown = parse(line.into_iter().map(OsString::from)).expect_err("help ends the parsing");
        assert_eq!(shown.kind(), ErrorKind::DisplayHelp);
        shown.to_string()
    }

    #[test]
    fn every_local_command_exists() {
        let command = Cli::command();
        for path in LOCAL {
            let found = path.split(' ').try_fold(&command, |command, name| command.find_subcommand(name));
            assert!(found.is_some(), "{path}");
        }
    }

    #[test]
    fn a_local_command_hides_and_refuses_how_to_reach_a_cluster() {
        for names in [
            &["serve"][..],
            &["config", "check"],
            &["doctor"],
            &["health"],
            &["signer", "show"],
            &["backup", "verify"],
            &["backup", "list"],
            &["recovery", "mark"],
            &["cluster", "recover"],
        ] {
            let help = help(names);
            assert!(!help.contains("--endpoint") && !help.contains("--profile"), "{names:?}: {help}");
            assert!(help.contains("--output"), "{names:?}: {help}");
        }
        for line in [
            "onespend health --endpoint 127.0.0.1:15949",
            "onespend --endpoint 127.0.0.1:15949 health",
            "onespend doctor --config node.toml --ca ca.pem",
            "onespend config check node.toml --as operator/alice",
            "onespend serve --config node.toml --timeout 5s",
            "onespend backup verify a.backup --profile pki",
            "onespend backup --profile pki verify a.backup",
            "onespend --endpoint 127.0.0.1:15949 backup list folder",
            "onespend recovery mark --data-dir data --control 127.0.0.1:1",
            "onespend cluster recover --from-this-node --config node.toml --dry-run --as operator/alice",
        ] {
            let refused = read(line).expect_err(line);
            let text = refused.to_string();
            assert!(text.contains("calls no cluster") && refused.exit_code() == 2, "{line}: {text}");
        }
        let refused = read("onespend backup list folder --timeout 5s").expect_err("nobody is waited for");
        assert!(refused.to_string().contains("`backup list` calls no cluster, so it takes no --timeout"), "{refused}");
        let refused = read("onespend health --control 127.0.0.1:1").expect_err("a control port");
        assert!(refused.to_string().contains("takes no --control; --at names the port"), "{refused}");
    }

    #[test]
    fn other_commands_take_it_and_health_a_bound() {
        let help = [["wallet", "list"], ["cluster", "members"], ["backup", "create"], ["recovery", "show"]]
            .map(|names| help(&names));
        assert!(help.iter().all(|help| help.contains("--endpoint")), "{help:?}");
        for line in [
            "onespend wallet list --endpoint 127.0.0.1:1",
            "onespend backup create --out a.backup --profile pki",
            "onespend recovery show --control 127.0.0.1:1",
            "onespend backup verify a.backup",
            "onespend --timeout 5s health",
            "onespend health",
        ] {
            assert!(read(line).is_ok(), "{line}: {:?}", read(line));
        }
        let bounded = read("onespend health --timeout 5s").expect("a bound");
        assert_eq!(bounded.connection.timeout(), Some(std::time::Duration::from_secs(5)));
    }
}
