//! One child process: its output in a log file, signals by name, and no way to outlive the harness.
//!
//! Three things end a child: `Drop`; the kernel, when the harness itself dies (`setpriv --pdeathsig`, because a killed
//! harness drops nothing); and the caller. A child has its own process group, so Ctrl-C reaches only the harness, which
//! then stops its children in order.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

/// How often a wait looks whether the child has ended.
const WAIT_POLL: Duration = Duration::from_millis(5);
const FREEZE_TIMEOUT: Duration = Duration::from_secs(5);
/// What [`Process::log_tail`] shows, at most.
const LOG_TAIL_BYTES: i64 = 4_000;

/// What [`Process::signal`] can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Asks for an orderly stop.
    Term,
    /// Ends it at once.
    Kill,
    /// Freezes it: sockets stay open and nobody answers.
    Stop,
    /// Lets a frozen one go on.
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Kill => "KILL",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// A running child. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program` with `args`; stdout and stderr are appended to `log`.
    ///
    /// # Errors
    /// The log file cannot be opened or the program cannot be started.
    pub fn spawn(name: &str, program: &Path, args: &[String], log: &Path) -> Result<Self> {
        Self::spawn_with(name, program, args, &[], log)
    }

    /// The same with these variables in its environment, beside those of the harness.
    ///
    /// # Errors
    /// As [`Self::spawn`].
    pub fn spawn_with(
        name: &str,
        program: &Path,
        args: &[String],
        variables: &[(String, String)],
        log: &Path,
    ) -> Result<Self> {
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let out = open().with_context(|| format!("cannot open {}", log.display()))?;
        let err = out.try_clone()?;
        let mut command = bound_to_this_process(program);
        command
            .args(args)
            .envs(variables.iter().cloned())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        let child = spawn_from_lasting_thread(command)
            .with_context(|| format!("cannot start {name} ({})", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_path_buf() })
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal. A child that has ended already is left alone.
    ///
    /// # Errors
    /// The signal could not be sent.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            return Ok(()); // its id may belong to somebody else by now
        }
        // `kill` of the shell: the one of procps is not on every machine, and a system call would need unsafe code.
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$1\" \"$2\"", "kill", signal.name()])
            .arg(self.pid().to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if status.success() || self.child.try_wait()?.is_some() {
            // Every thread stops at its own next moment; until then it may still answer.
            if signal == Signal::Stop { self.wait_until_frozen() } else { Ok(()) }
        } else {
            bail!("cannot send SIG{} to {}", signal.name(), self.name)
        }
    }

    fn wait_until_frozen(&mut self) -> Result<()> {
        let deadline = Instant::now() + FREEZE_TIMEOUT;
        while !threads_are_frozen(self.pid()) {
            if !self.is_running() || Instant::now() >= deadline {
                bail!("{} does not freeze", self.name);
            }
            thread::sleep(WAIT_POLL);
        }
        Ok(())
    }

    /// Whether it is still there (frozen counts as there).
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// It still runs after `timeout`; the message has the end of its log.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!("{} still runs after {timeout:?}\n{}", self.name, self.log_tail());
            }
            thread::sleep(WAIT_POLL);
        }
    }

    /// SIGTERM, then SIGKILL when `grace` is over. Returns the exit status.
    ///
    /// # Errors
    /// It cannot be signalled or waited for.
    pub fn stop(&mut self, grace: Duration) -> Result<ExitStatus> {
        self.signal(Signal::Term)?;
        self.wait(grace).or_else(|_| self.kill())
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        let _already_gone = self.child.kill();
        Ok(self.child.wait()?)
    }

    /// The end of its log, for messages.
    pub fn log_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = File::open(&self.log)?;
            let size = i64::try_from(file.metadata()?.len()).unwrap_or(i64::MAX);
            file.seek(SeekFrom::End(-size.min(LOG_TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let tail = read().unwrap_or_else(|error| format!("(unreadable: {error})"));
        format!("--- the end of {} ---\n{tail}", self.log.display())
    }

    /// Fails when it has ended, with the end of its log: for loops that wait until it is ready.
    ///
    /// # Errors
    /// It has ended.
    pub fn must_run(&mut self) -> Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        let how = status.signal().map_or_else(|| status.to_string(), |signal| format!("signal {signal}"));
        Err(anyhow!("{} ended ({how})\n{}", self.name, self.log_tail()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The state is the first letter after the name in parentheses (proc_pid_stat(5)); `T` is stopped.
fn threads_are_frozen(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    tasks.flatten().all(|task| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
    })
}

/// `program`, to be killed by the kernel when the thread that started it ends. `setpriv` replaces itself by the program,
/// so the process id stays.
fn bound_to_this_process(program: &Path) -> Command {
    static SETPRIV: OnceLock<bool> = OnceLock::new();
    let there = *SETPRIV.get_or_init(|| {
        let probe = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        probe.is_ok_and(|status| status.success())
    });
    if !there {
        return Command::new(program); // Drop still ends it, unless the harness is killed
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

type Spawned = io::Result<Child>;

/// The kernel's death signal goes by thread, not by process: a child started from a pool thread would die with it. So one
/// thread, which lives as long as the harness, starts all of them.
fn spawn_from_lasting_thread(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<(Command, mpsc::Sender<Spawned>)>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<(Command, mpsc::Sender<Spawned>)>();
        thread::spawn(move || {
            for (mut command, answer) in receiver {
                let _nobody_waits = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, child) = mpsc::channel();
    spawner.send((command, answer)).map_err(|_| anyhow!("the spawner thread is gone"))?;
    Ok(child.recv()??)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn shell(script: &str, log: &Path) -> Process {
        let args = ["-c".to_owned(), script.to_owned()];
        Process::spawn("sh", Path::new("/bin/sh"), &args, log).unwrap()
    }

    fn state_of(pid: u32) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(')').next()?.trim().chars().next()
    }

    #[test]
    fn output_goes_to_the_log_and_the_status_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut process = shell("echo out; echo err >&2; exit 3", &log);
        assert_eq!(process.wait(SOON).unwrap().code(), Some(3));
        assert_eq!(fs::read_to_string(&log).unwrap(), "out\nerr\n");
        assert!(process.must_run().unwrap_err().to_string().contains("err"));
    }

    #[test]
    fn a_dropped_process_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let process = shell("sleep 100", &folder.path().join("log"));
        let pid = process.pid();
        assert!(state_of(pid).is_some());
        drop(process);
        assert_eq!(state_of(pid), None);
    }

    #[test]
    fn a_process_outlives_the_thread_that_asked_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut process = thread::spawn(move || shell("sleep 100", &log)).join().unwrap();
        thread::sleep(Duration::from_millis(100));
        assert!(process.is_running());
    }

    /// A shell that is past its first line.
    fn ready_shell(script: &str, folder: &Path) -> Process {
        let log = folder.join("log");
        let process = shell(&format!("{script}; echo ready; while :; do sleep 0.02; done"), &log);
        while !fs::read_to_string(&log).unwrap().contains("ready") {
            thread::sleep(WAIT_POLL);
        }
        process
    }

    #[test]
    fn it_can_be_frozen_thawed_and_asked_to_stop() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = ready_shell("trap 'exit 7' TERM", folder.path());
        process.signal(Signal::Stop).unwrap();
        assert_eq!(state_of(process.pid()), Some('T'));
        process.signal(Signal::Continue).unwrap();
        assert_eq!(process.stop(SOON).unwrap().code(), Some(7));
    }

    #[test]
    fn one_that_ignores_sigterm_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let mut process = ready_shell("trap '' TERM", folder.path());
        let status = process.stop(Duration::from_millis(200)).unwrap();
        assert_eq!(status.signal(), Some(9));
    }

    /// Runs this very test in a second process, which is killed while it holds a child.
    #[test]
    fn a_killed_harness_leaves_no_child() {
        const HOLD: &str = "ONESPEND_TESTNET_HOLD";
        const NAME: &str = "process::tests::a_killed_harness_leaves_no_child";
        if let Ok(file) = std::env::var(HOLD) {
            let child = shell("sleep 100", &Path::new(&file).with_extension("log"));
            fs::write(format!("{file}.new"), child.pid().to_string()).unwrap();
            fs::rename(format!("{file}.new"), &file).unwrap();
            thread::sleep(Duration::from_mins(1));
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let mut harness = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env(HOLD, &file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !file.exists() {
            assert!(harness.try_wait().unwrap().is_none(), "the second process ended");
            thread::sleep(WAIT_POLL);
        }
        let child: u32 = fs::read_to_string(&file).unwrap().parse().unwrap();
        assert!(state_of(child).is_some_and(|state| state != 'Z'));
        // The kernel binds the child before setpriv becomes the program, and not before that.
        let deadline = Instant::now() + SOON;
        while fs::read_to_string(format!("/proc/{child}/comm")).unwrap().trim() == "setpriv" {
            assert!(Instant::now() < deadline, "the program does not begin");
            thread::sleep(WAIT_POLL);
        }
        harness.kill().unwrap();
        harness.wait().unwrap();
        let deadline = Instant::now() + SOON;
        while state_of(child).is_some_and(|state| state != 'Z') {
            assert!(Instant::now() < deadline, "the child outlived its harness");
            thread::sleep(WAIT_POLL);
        }
    }
}
