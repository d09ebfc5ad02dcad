//! What an exit code means. Scripts decide by it whether to try again, so it is part of the interface.

use std::fmt::Write as _;
use std::process::ExitCode;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Refused, and not applied; the reason is on stderr. `doctor`: there are warnings. `health`: the node says no.
    Refused = 1,
    /// The command line or a configuration is wrong; nothing was sent. `doctor`: there are failures. `serve`: the node cannot
    /// go on under this id, so that starting it again does not help.
    Usage = 2,
    /// The outcome is not known: it may have been applied or may be later. stderr names the request id to ask again with.
    Unknown = 3,
    /// No node answered, and nothing was applied. `status`: nodes answer, and none leads a quorum.
    Unreachable = 4,
}

impl Exit {
    /// Every code, in order.
    pub const ALL: [Self; 5] = [Self::Done, Self::Refused, Self::Usage, Self::Unknown, Self::Unreachable];

    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        self as u8
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused, not applied; the reason is on stderr (doctor: warnings; health: no)",
            Self::Usage => "wrong usage or configuration, nothing was sent (doctor: failures)",
            Self::Unknown => "outcome unknown; ask again with the --request-id that stderr names",
            Self::Unreachable => "no node answered, nothing was applied (status: also where none leads a quorum)",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The end of `--help`.
pub fn help() -> String {
    let mut text = "Exit codes:".to_owned();
    for exit in Exit::ALL {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n  {}  {}", exit.code(), exit.meaning());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_code_once() {
        let help = help();
        for exit in Exit::ALL {
            assert_eq!(help.matches(&format!("\n  {}  ", exit.code())).count(), 1, "{help}");
        }
        assert_eq!(Exit::ALL.map(Exit::code), [0, 1, 2, 3, 4]);
    }
}
