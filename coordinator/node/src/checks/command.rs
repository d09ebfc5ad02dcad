//! Runs a program whose exit code is the answer. No shell, none of this process's environment (a signer's keys may be
//! in it), and no more than the head of what it says.

use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::Look;

/// Where programs find others.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Kept of what it says; the rest is read and dropped, so that it does not wait for a reader.
const MAX_OUTPUT_BYTES: usize = 1_024;
/// How long what it said is waited for once it has ended.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// One program, run again and again, never twice at a time.
#[derive(Debug)]
pub(super) struct Program {
    argv: Vec<String>,
    /// A run that was killed and has not ended: one that waits for a dead disk cannot be killed.
    left: Option<Child>,
}

impl Program {
    /// `argv` begins with the program.
    pub(super) fn new(argv: Vec<String>) -> Self {
        Self { argv, left: None }
    }

    /// Runs it once, with its children in a process group of their own, which is killed when its time is over.
    pub(super) async fn look(&mut self, within: Duration) -> Look {
        if let Some(left) = &mut self.left {
            if !matches!(left.try_wait(), Ok(Some(_))) {
                return Look::bad("an earlier run was killed and has not ended");
            }
            self.left = None;
        }
        let mut child = match self.spawn().await {
            Ok(child) => child,
            Err(error) => return Look::bad(&format!("cannot be started: {error}")),
        };
        let group = child.id();
        let mut said = Vec::new();
        let ended = timeout(within, end(&mut child, &mut said)).await;
        match ended {
            Ok(Ok(status)) => {
                // What it left behind would pile up, look by look.
                kill(group);
                Look { good: status.success(), value: shown(status, &said) }
            }
            Ok(Err(error)) => Look::bad(&format!("cannot be waited for: {error}")),
            Err(_) => {
                kill(group);
                self.left = Some(child);
                Look::bad(&format!("took more than {} ms and was killed", within.as_millis()))
            }
        }
    }

    /// On a thread of its own: the system calls that start a program wait for the disk that it is on.
    async fn spawn(&self) -> std::io::Result<Child> {
        let argv = self.argv.clone();
        let spawn = move || {
            let (program, arguments) =
                argv.split_first().ok_or_else(|| std::io::Error::other("no program is named"))?;
            Command::new(program)
                .args(arguments)
                .env_clear()
                .env("PATH", PATH)
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
        };
        tokio::task::spawn_blocking(spawn).await.map_err(std::io::Error::other)?
    }
}

/// Waits for its end; what it says before goes to `said`.
async fn end(child: &mut Child, said: &mut Vec<u8>) -> std::io::Result<ExitStatus> {
    let out = child.stdout.take();
    let mut reading = pin!(async {
        if let Some(out) = out {
            keep_the_head(out, said).await;
        }
    });
    let mut is_read = false;
    let status = loop {
        tokio::select! {
            () = &mut reading, if !is_read => is_read = true,
            status = child.wait() => break status,
        }
    };
    if !is_read {
        // A grandchild may hold its output open for ever.
        let _ = timeout(LAST_WORDS, reading).await;
    }
    status
}

async fn keep_the_head(mut out: ChildStdout, said: &mut Vec<u8>) {
    let mut buffer = [0_u8; 512];
    while let Ok(read) = out.read(&mut buffer).await {
        if read == 0 {
            return;
        }
        let room = MAX_OUTPUT_BYTES.saturating_sub(said.len());
        said.extend_from_slice(&buffer[..read.min(room)]);
    }
}

/// The process group of a program, which has its id.
fn kill(group: Option<u32>) {
    let id = group.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(group) = id {
        // It may have ended meanwhile.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// The first line that it said, and its exit code if that is not 0.
fn shown(status: ExitStatus, said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let line: String = text.lines().next().unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
    match (status.success(), line.is_empty()) {
        (true, false) => line,
        (_, true) => status.to_string(),
        (false, false) => format!("{status}: {line}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Program {
        Program::new(vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()])
    }

    #[tokio::test]
    async fn the_exit_code_decides_and_the_first_line_is_shown() {
        let look = shell("echo first; echo second").look(LONG).await;
        assert_eq!((look.good, look.value.as_str()), (true, "first"));
        let look = shell("echo why; exit 3").look(LONG).await;
        assert!(!look.good && look.value.contains('3') && look.value.contains("why"), "{look:?}");
        let look = Program::new(vec!["/nowhere/at/all".to_owned()]).look(LONG).await;
        assert!(!look.good && look.value.contains("cannot be started"), "{look:?}");
    }

    #[tokio::test]
    async fn arguments_are_no_shells_and_the_environment_is_not_ours() {
        let echo = |word: &str| Program::new(vec!["/bin/echo".to_owned(), word.to_owned()]);
        assert_eq!(echo("$HOME; exit 1").look(LONG).await.value, "$HOME; exit 1");
        // Cargo sets this for every test.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        assert!(shell("test -z \"$CARGO_MANIFEST_DIR\"").look(LONG).await.good);
    }

    #[tokio::test]
    async fn one_that_hangs_is_killed_with_its_children_and_then_run_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("child");
        // The child writes its id and holds the output open.
        let script = format!("test -e {0} && exit 0; sleep 600 & echo $! > {0}; wait", file.display());
        let mut program = shell(&script);
        let mut look = program.look(Duration::from_millis(500)).await;
        assert!(!look.good && look.value.contains("killed"), "{look:?}");
        let id: i32 = loop {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            if let Ok(id) = text.trim().parse() {
                break id;
            }
            // It was killed before it came that far.
            look = program.look(Duration::from_millis(500)).await;
            assert!(!look.good, "{look:?}");
        };
        let child = format!("/proc/{id}/stat");
        let is_gone = || std::fs::read_to_string(&child).map_or(true, |stat| stat.contains(") Z "));
        while !is_gone() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while !program.look(LONG).await.good {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn one_that_says_without_end_is_read_and_not_kept() {
        let look = shell("head -c 1000000 /dev/zero | tr '\\0' x").look(LONG).await;
        assert!(look.good, "{look:?}");
        assert!(look.value.len() <= MAX_OUTPUT_BYTES);
    }
}
