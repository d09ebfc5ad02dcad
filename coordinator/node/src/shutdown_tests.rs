//! Real signals to real processes: this test binary, run again as a child.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, ChildStdout, Command, Stdio};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// The child's behaviour; only set for a child.
const ROLE: &str = "ONESPEND_TEST_SHUTDOWN_ROLE";

fn config(deadline: Duration) -> Config {
    Config { drain: Duration::from_millis(100), deadline }
}

#[test]
fn the_last_traces_take_two_seconds_at_most_and_leave_time_until_the_deadline() {
    for (drain, deadline, most) in [
        (SECOND * 5, SECOND * 15, SECOND * 2),
        (SECOND * 300, SECOND * 600, SECOND * 2),
        (SECOND, SECOND * 15, SECOND),
        (SECOND * 5, SECOND * 6, SECOND / 2),
        (Duration::ZERO, SECOND * 15, Duration::ZERO),
    ] {
        assert_eq!(Config { drain, deadline }.last_traces(), most, "{drain:?} of {deadline:?}");
    }
}

/// What a child does. The parent starts it by name.
#[test]
#[ignore = "a process that the other tests start"]
#[allow(clippy::print_stdout)]
fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return; // run by hand with --ignored: there is nothing to do
    };
    let deadline = if role == "hang" { SECOND / 2 } else { SECOND * 60 };
    let shutdown = Shutdown::listen(config(deadline)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    notify_ready();
    println!("\nlistening");
    runtime.block_on(async {
        if role == "give up" {
            shutdown.request("the node gave up");
        }
        shutdown.requested().await;
        println!("\nstopping");
        if role != "drain" && role != "give up" {
            // A worker that hangs, not a task that waits: nothing else runs any more.
            std::thread::sleep(SECOND * 60);
        }
        let drain = shutdown.drain();
        assert_eq!(drain.step("quick", async { 7 }).await, Some(7));
        println!("\ndrained");
    });
}

struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(role: &str, notify_socket: Option<&std::path::Path>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "shutdown::tests::child", "--ignored", "--nocapture"])
            .env(ROLE, role)
            .env_remove("NOTIFY_SOCKET")
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(path) = notify_socket {
            command.env("NOTIFY_SOCKET", path);
        }
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    fn wait_for(&mut self, line: &str) {
        let mut seen = String::new();
        loop {
            let mut next = String::new();
            let length = self.output.read_line(&mut next).unwrap();
            assert!(length > 0, "the child ended before {line}: {seen}");
            if next.trim() == line {
                return;
            }
            seen += &next;
        }
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Its exit code; it must end by itself.
    fn code(mut self) -> Option<i32> {
        let deadline = Instant::now() + SECOND * 20;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the child does not end");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn either_signal_drains_and_ends_orderly() {
    for name in ["TERM", "INT"] {
        let mut process = Process::start("drain", None);
        process.wait_for("listening");
        process.signal(name);
        process.wait_for("drained");
        assert_eq!(process.code(), Some(0), "SIG{name}");
    }
}

#[test]
fn a_drain_that_hangs_is_cut_off_at_the_deadline() {
    let mut process = Process::start("hang", None);
    process.wait_for("listening");
    process.signal("TERM");
    process.wait_for("stopping");
    assert_eq!(process.code(), Some(EXIT_DEADLINE));
}

#[test]
fn a_second_signal_ends_a_hanging_drain_at_once() {
    let mut process = Process::start("hang for long", None);
    process.wait_for("listening");
    process.signal("INT");
    process.wait_for("stopping");
    process.signal("TERM");
    assert_eq!(process.code(), Some(EXIT_SECOND_SIGNAL));
}

#[test]
fn the_node_may_end_by_itself_and_the_service_manager_hears_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(SECOND * 20)).unwrap();
    let mut process = Process::start("give up", Some(&path));
    process.wait_for("drained");
    let heard = || {
        let mut bytes = [0; 64];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    };
    assert_eq!(heard(), "READY=1");
    assert_eq!(heard(), "STOPPING=1");
    assert_eq!(process.code(), Some(0));
}

#[tokio::test]
async fn a_late_step_is_abandoned_and_the_next_one_still_gets_a_turn() {
    let shutdown = Shutdown::new(config(SECOND));
    let drain = shutdown.drain();
    let late = drain.step("late", std::future::pending::<()>()).await;
    assert_eq!(late, None);
    assert_eq!(drain.step("next", async { "polled" }).await, Some("polled"));
}

#[tokio::test]
async fn all_that_wait_are_told_once_the_end_is_asked_for() {
    let shutdown = Shutdown::new(config(SECOND));
    let waiting = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { shutdown.requested().await }
    });
    shutdown.request("a test");
    shutdown.request("a test, again");
    waiting.await.unwrap();
    // Also who asks late.
    shutdown.requested().await;
}
