//! `onespend serve`: the daemon.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;

use super::exit::Exit;
use super::failure::Failure;
use super::format::counted;
use crate::app;
use crate::config::{Config, ConfigFaults, Fault, Severity};
use crate::raft::RaftFatal;

#[derive(Debug, Args)]
pub struct Serve {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "ONESPEND_CONFIG")]
    config: PathBuf,
}

impl Serve {
    /// Runs the node until it is told to stop.
    pub fn run(self) -> Result<Exit, Failure> {
        let config = Config::load(&self.config).map_err(|faults| refuse(&faults))?;
        match app::serve(config) {
            Ok(()) => Ok(Exit::Done),
            Err(error) => Err(ended(&error, &self.config)),
        }
    }
}

fn ended(error: &anyhow::Error, config: &Path) -> Failure {
    let failure = Failure::new(exit_of(error), format!("the node ended: {error:#}"));
    match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(ErrorKind::AddrInUse) => failure.remedy(format!(
            "is this node running already? `onespend doctor --config {}` tells; else end who holds the port (ss -ltnp), or change [listen]",
            config.display()
        )),
        _ => failure,
    }
}

/// A supervisor starts a node again unless it ends as one with a wrong configuration does (`RestartPreventExitStatus` of the
/// unit), and so must one that another start cannot help.
fn exit_of(error: &anyhow::Error) -> Exit {
    match error.downcast_ref::<RaftFatal>() {
        Some(fault) if !fault.ends_with_a_restart() => Exit::Usage,
        _ => Exit::Refused,
    }
}

fn refuse(faults: &ConfigFaults) -> Failure {
    let errors = counted(faults.errors().count(), "error", "errors");
    let failure = Failure::usage(format!("the configuration has {errors}, so the node does not start"));
    let name = |fault: &Fault| match fault.severity {
        Severity::Error => "fault",
        Severity::Warning => "warning",
    };
    let told = faults.faults.iter().fold(failure, |failure, fault| failure.with(name(fault), fault.line(&faults.file)));
    told.remedy("mend the file until `onespend config check` has nothing to say")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Place;

    #[test]
    fn warnings_are_not_called_faults() {
        let fault = |severity| Fault {
            severity,
            place: Place::START,
            key: "node.id".to_owned(),
            what: "is odd".to_owned(),
            why: "for a test".to_owned(),
        };
        let faults = [Severity::Error, Severity::Warning].map(fault).to_vec();
        let refused = refuse(&ConfigFaults { file: "node.toml".into(), faults });
        let names: Vec<&str> = refused.details.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["fault", "warning"]);
    }

    #[test]
    fn a_supervisor_starts_again_what_a_restart_can_mend_and_nothing_else() {
        let ended = |fault: RaftFatal| exit_of(&anyhow::Error::from(fault).context("the node cannot go on"));
        assert_eq!(ended(RaftFatal::Outcast("its disk was lost".to_owned())), Exit::Usage);
        assert_eq!(ended(RaftFatal::Raft("a task panicked".to_owned())), Exit::Refused);
        assert_eq!(exit_of(&anyhow::anyhow!("binding listen.data")), Exit::Refused);
    }

    #[test]
    fn a_port_in_use_has_a_remedy_and_other_ends_have_none() {
        let of = |kind: ErrorKind| {
            let error = anyhow::Error::from(std::io::Error::from(kind)).context("binding listen.data 10.0.0.1:7800");
            ended(&error, Path::new("node.toml"))
        };
        let used = of(ErrorKind::AddrInUse);
        assert!(used.sentence.starts_with("the node ended: binding listen.data 10.0.0.1:7800: "), "{used:?}");
        assert!(used.remedy.is_some_and(|remedy| remedy.contains("`onespend doctor --config node.toml`")));
        assert_eq!(of(ErrorKind::PermissionDenied).remedy, None);
    }
}
