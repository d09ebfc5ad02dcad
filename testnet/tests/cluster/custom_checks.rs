//! `[[checks]]` on running nodes: servers and programs of an operator's decide who is primary and who is sent anything.
//!
//! The first node is the one that is looked at. The others are fit to lead only while a file is there, so the test says
//! when a hand-over finds somebody.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use onespend_proto::v1;
use onespend_testnet::health;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::scene::{Scene, eventually, need};

const ASK: Duration = Duration::from_secs(2);
/// The node whose checks are looked at.
const OURS: usize = 0;
/// What the HTTP check wants; no server says it by chance.
const WANTED: u16 = 202;
/// The service that the gRPC check asks for.
const SERVICE: &str = "payments";

/// A URL whose every answer the test gives.
struct Door {
    address: SocketAddr,
    answers: watch::Sender<Answers>,
}

struct Answers {
    /// Each for one request.
    once: VecDeque<u16>,
    /// For all others; they wait while there is none.
    always: Option<u16>,
}

impl Door {
    async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answers = watch::Sender::new(Answers { once: VecDeque::new(), always: Some(WANTED) });
        let given = answers.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, given.clone()));
            }
        });
        Self { address, answers }
    }

    fn always(&self, status: u16) {
        self.answers.send_modify(|answers| answers.always = Some(status));
    }

    /// From now on each request waits for its own answer.
    fn hold(&self) {
        self.answers.send_modify(|answers| answers.always = None);
    }

    fn once(&self, status: u16) {
        self.answers.send_modify(|answers| answers.once.push_back(status));
    }
}

async fn answer(mut stream: TcpStream, answers: watch::Sender<Answers>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_buf(&mut head).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let status = next(&answers).await;
    let text = format!("HTTP/1.1 {status} Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let _gone = stream.write_all(text.as_bytes()).await;
}

async fn next(answers: &watch::Sender<Answers>) -> u16 {
    let mut changes = answers.subscribe();
    loop {
        let mut found = None;
        answers.send_if_modified(|answers| {
            found = answers.once.pop_front().or(answers.always);
            false
        });
        match found {
            Some(status) => return status,
            None => changes.changed().await.unwrap(),
        }
    }
}

/// A server of `grpc.health.v1`, and who tells it what to say.
async fn health_server() -> (String, HealthReporter) {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status(SERVICE, ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    (url, reporter)
}

/// What is said of `[health]`, and a node that gives up the lead without delay. What every node has for primary is only
/// shown: a busy machine fails it now and then.
fn sections(health: &str, checks: &[String]) -> String {
    let mut text = format!("\n[health]\nhand_over_after_ms = 0\nhand_over_pause_ms = 0\n{health}\n");
    for (name, kind) in [("fsync", "fsync_latency"), ("errors", "error_rate")] {
        let _infallible = write!(text, "\n[[checks]]\nname = '{name}'\nkind = '{kind}'\nfor = 'report'\n");
    }
    text + &checks.concat()
}

/// The time limit is for machines that are busy, not for a look that hangs.
fn check(name: &str, purpose: &str, (rise, fall): (u32, u32), what: &str) -> String {
    format!(
        "\n[[checks]]\nname = '{name}'\nfor = '{purpose}'\nrise = {rise}\nfall = {fall}\ninterval_ms = 300\n\
         timeout_ms = 60000\n{what}\n"
    )
}

/// Passes while a file is there, by a program.
struct FileCheck {
    name: &'static str,
    purpose: &'static str,
    file: PathBuf,
}

impl FileCheck {
    /// The file is there.
    fn new(scene: &Scene, name: &'static str, purpose: &'static str) -> Self {
        let this = Self { name, purpose, file: scene.cluster.folder().join(format!("{name}-is-fine")) };
        this.pass();
        this
    }

    fn section(&self, script: &Path) -> String {
        let what = format!("kind = 'command'\nargv = ['/bin/sh', '{}', '{}']", script.display(), self.file.display());
        check(self.name, self.purpose, (1, 1), &what)
    }

    fn pass(&self) {
        fs::write(&self.file, "").unwrap();
    }

    fn fail(&self) {
        fs::remove_file(&self.file).unwrap();
    }
}

/// The program of the checks.
fn script(scene: &Scene) -> PathBuf {
    let path = scene.cluster.folder().join("is-there.sh");
    fs::write(&path, "test -e \"$1\" || { echo missing; exit 3; }\necho there\n").unwrap();
    path
}

/// Restarts a node with these sections, and waits until it is in rotation.
async fn configure(scene: &mut Scene, index: usize, sections: &str) {
    scene.node(index).reconfigure(sections).unwrap();
    until(scene, index, "/readyz", "the node is back", |status, _| status == 200).await;
}

/// Makes the others fit to lead while the file of the check is there, and only then.
async fn configure_others(scene: &mut Scene, script: &Path) -> FileCheck {
    let spare = FileCheck::new(scene, "spare", "primary");
    spare.fail();
    for index in Scene::others(OURS) {
        configure(scene, index, &sections("", &[spare.section(script)])).await;
    }
    spare
}

/// Asks a node until its status and its body are as they should be; the body.
async fn until(scene: &Scene, index: usize, path: &str, what: &str, holds: impl Fn(u16, &Value) -> bool) -> Value {
    eventually(what, async || {
        let answer = health::get(scene.addresses(index).health, path, ASK).map_err(|error| error.to_string())?;
        let body = answer.json();
        need(holds(answer.status, &body), || format!("{path}: {} {}", answer.status, answer.body)).map(|()| body)
    })
    .await
}

/// Whether a check passes, and what it saw last, as `?verbose` has it.
fn seen<'a>(body: &'a Value, name: &str) -> Option<(bool, &'a str)> {
    let check = body["checks"].as_array()?.iter().find(|check| check["name"] == name)?;
    Some((check["passes"].as_bool()?, check["value"].as_str()?))
}

fn refused_by(names: &[&str], status: u16, body: &Value) -> bool {
    status == 503 && body["reason"] == "CHECK_FAILED" && body["failed_checks"] == json!(names)
}

/// A metric with labels, as the node has it now; 0 for one that was never counted.
fn metric(scene: &Scene, name: &str, labels: &[&str]) -> Result<u64, String> {
    let answer = health::get(scene.addresses(OURS).health, "/metrics", ASK).map_err(|error| error.to_string())?;
    let is_it = |line: &&str| {
        let is_named = line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        is_named && labels.iter().all(|label| line.contains(label))
    };
    let Some(line) = answer.body.lines().find(is_it) else { return Ok(0) };
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).ok_or_else(|| line.to_owned())
}

async fn metric_is(scene: &Scene, name: &str, labels: &[&str], value: u64) {
    eventually("the metric follows", async || {
        let found = metric(scene, name, labels)?;
        need(found == value, || format!("{name} is {found}, not {value}"))
    })
    .await;
}

async fn another_leads(scene: &Scene) {
    eventually("another node is primary", async || {
        let is_primary = |index| health::status(scene.addresses(index).health, "/primary", ASK) == 200;
        need(Scene::others(OURS).into_iter().any(is_primary), || "none is".to_owned())
    })
    .await;
}

async fn ours_leads(scene: &Scene) {
    until(scene, OURS, "/primary", "the lead comes to the node that is fit", |status, _| status == 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_fails_a_check_of_its_operators_goes_out_of_rotation_and_comes_back() {
    let mut scene = Scene::start("custom-checks");
    let script = script(&scene);
    let (door, (grpc_url, reporter)) = (Door::open().await, health_server().await);
    let disk = FileCheck::new(&scene, "disk", "readiness");
    let http = format!("kind = 'http'\nurl = 'http://{}/healthy'\nstatus = {WANTED}", door.address);
    let grpc = format!("kind = 'grpc'\nurl = '{grpc_url}'\nservice = '{SERVICE}'");
    let ours =
        [check("gateway", "primary", (2, 3), &http), disk.section(&script), check("backend", "report", (1, 1), &grpc)];
    configure(&mut scene, OURS, &sections("", &ours)).await;
    let spare = configure_others(&mut scene, &script).await;
    // Nobody told it to lead: the others are not fit, and it is.
    ours_leads(&scene).await;
    let wanted = format!("status {WANTED}");
    until(&scene, OURS, "/primary?verbose", "every check passes", |status, body| {
        let all = [("gateway", wanted.as_str()), ("disk", "there"), ("backend", "SERVING")];
        status == 200 && all.iter().all(|(name, value)| seen(body, name) == Some((true, *value)))
    })
    .await;

    what_is_only_reported_is_shown(&scene, &reporter).await;
    a_primary_check_moves_the_lead(&scene, &door, &spare).await;
    a_readiness_check_takes_it_out_of_rotation(&scene, &disk, &spare).await;
    scene.finish();
}

async fn what_is_only_reported_is_shown(scene: &Scene, reporter: &HealthReporter) {
    let labels = ["check=\"backend\"", "purpose=\"report\""];
    for (says, passes, value) in
        [(ServingStatus::NotServing, false, "NOT_SERVING"), (ServingStatus::Serving, true, "SERVING")]
    {
        reporter.set_service_status(SERVICE, says).await;
        for path in ["/primary?verbose", "/readyz?verbose"] {
            until(scene, OURS, path, "the check is shown and decides nothing", |status, body| {
                let shown = seen(body, "backend") == Some((passes, value));
                status == 200 && shown && body["failed_checks"] == json!([])
            })
            .await;
        }
        metric_is(scene, "onespend_check_failing", &labels, u64::from(!passes)).await;
    }
}

async fn a_primary_check_moves_the_lead(scene: &Scene, door: &Door, spare: &FileCheck) {
    // Look by look: two bad ones are forgiven, the third is not.
    door.hold();
    for status in [501_u16, 502] {
        door.once(status);
        until(scene, OURS, "/primary?verbose", "a bad look is seen and forgiven", |code, body| {
            code == 200 && seen(body, "gateway") == Some((true, format!("status {status}").as_str()))
        })
        .await;
    }
    door.always(503);
    let body = until(scene, OURS, "/primary?verbose", "the check fails", |status, body| {
        refused_by(&["gateway"], status, body) && seen(body, "gateway") == Some((false, "status 503"))
    })
    .await;
    // The others fail theirs, so it stays and says what is the matter.
    assert_eq!((&body["role"], &body["fit_for_primary"]), (&json!("leader"), &json!(false)), "{body}");
    metric_is(scene, "onespend_checks_passing", &["purpose=\"primary\""], 0).await;
    operators_are_told_what_balancers_are(scene).await;

    let (hand_overs, by_check) = ("onespend_raft_hand_overs_total", ["reason=\"check\""]);
    let before = metric(scene, hand_overs, &by_check).unwrap();
    spare.pass();
    another_leads(scene).await;
    metric_is(scene, hand_overs, &by_check, before + 1).await;
    for path in ["/replica?verbose", "/readyz?verbose"] {
        until(scene, OURS, path, "a replica needs no check for primary", |status, body| {
            status == 200 && seen(body, "gateway").is_some_and(|(passes, _)| !passes)
        })
        .await;
    }

    // One good look is not enough, two are.
    door.hold();
    for (passes, counted) in [(false, ", 1 of 2 good looks"), (true, "")] {
        door.once(WANTED);
        until(scene, OURS, "/replica?verbose", "good looks are counted", |_, body| {
            seen(body, "gateway") == Some((passes, format!("status {WANTED}{counted}").as_str()))
        })
        .await;
    }
    door.always(WANTED);
    spare.fail();
    ours_leads(scene).await;
    metric_is(scene, "onespend_checks_passing", &["purpose=\"primary\""], 1).await;
}

/// By GetStatus: that the leader is no primary, why, and what the check saw.
async fn operators_are_told_what_balancers_are(scene: &Scene) {
    let (operator, control) = (scene.operator(), scene.addresses(OURS).control.to_string());
    eventually("GetStatus names the check", async || {
        let status = operator.get_status_of(&control).await.map_err(|error| error.to_string())?;
        let health = status.health.unwrap_or_default();
        let answer = |answer: &Option<v1::HealthAnswer>| answer.clone().map(|answer| (answer.ok, answer.reason));
        let answers = [&health.primary, &health.replica, &health.ready].map(answer);
        let wanted = [(false, "CHECK_FAILED"), (false, "IS_LEADER"), (true, "")];
        let same = answers == wanted.map(|(ok, reason)| Some((ok, reason.to_owned())));
        let gateway = v1::FailingCheck {
            name: "gateway".to_owned(),
            purpose: v1::CheckPurpose::Primary.into(),
            value: "status 503".to_owned(),
        };
        need(same && health.failing_checks.contains(&gateway), || format!("{health:?}"))
    })
    .await;
}

async fn a_readiness_check_takes_it_out_of_rotation(scene: &Scene, disk: &FileCheck, spare: &FileCheck) {
    let out = |status: u16, body: &Value| refused_by(&["disk"], status, body);
    disk.fail();
    for path in ["/readyz", "/primary", "/read-only"] {
        until(scene, OURS, path, "the leader is out of rotation", out).await;
    }
    let body = until(scene, OURS, "/readyz?verbose", "the program's word is shown", out).await;
    let said = seen(&body, "disk").map(|(_, value)| value.to_owned()).unwrap_or_default();
    assert!(said.contains("missing") && said.contains('3'), "{said:?}");
    spare.pass();
    another_leads(scene).await;
    for path in ["/readyz", "/replica", "/read-only"] {
        until(scene, OURS, path, "the replica is out of rotation", out).await;
    }
    assert_eq!(health::status(scene.addresses(OURS).health, "/livez", ASK), 200);
    disk.pass();
    for path in ["/readyz", "/replica", "/read-only"] {
        until(scene, OURS, path, "it is in rotation again", |status, _| status == 200).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_checks_have_to_pass_as_the_configuration_says() {
    let mut scene = Scene::start("custom-checks-together");
    let script = script(&scene);
    let primary = ["p-one", "p-two", "p-three"].map(|name| FileCheck::new(&scene, name, "primary"));
    let readiness = ["r-one", "r-two", "r-three"].map(|name| FileCheck::new(&scene, name, "readiness"));
    let checks: Vec<String> = primary.iter().chain(&readiness).map(|check| check.section(&script)).collect();
    configure_others(&mut scene, &script).await;
    for (word, needed) in [("all", 3), ("quorum", 2), ("any", 1)] {
        let health = format!("checks_for_primary = '{word}'\nchecks_for_readiness = '{word}'");
        configure(&mut scene, OURS, &sections(&health, &checks)).await;
        ours_leads(&scene).await;
        for (group, path) in [(&primary, "/primary?verbose"), (&readiness, "/readyz?verbose")] {
            fails_below(needed, group, &scene, path).await;
        }
    }
    scene.finish();
}

/// Lets one check after the other fail: the path is 200 as long as `needed` of them pass. Then all pass again.
async fn fails_below(needed: usize, group: &[FileCheck], scene: &Scene, path: &str) {
    let mut failing = Vec::new();
    for check in group {
        check.fail();
        failing.push(check.name);
        let enough = group.len() - failing.len() >= needed;
        until(scene, OURS, path, "as many pass as are needed, or fewer", |status, body| {
            let failed = body["failed_checks"] == json!(failing);
            if enough { status == 200 && failed } else { refused_by(&failing, status, body) }
        })
        .await;
    }
    for check in group {
        check.pass();
    }
    until(scene, OURS, path, "all pass", |status, body| status == 200 && body["failed_checks"] == json!([])).await;
}
