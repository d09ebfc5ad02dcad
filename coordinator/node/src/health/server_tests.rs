//! Real HTTP over loopback: as curl, as a load balancer, and as someone who means harm.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::{Mutex, mpsc};

use super::*;
use crate::checks::config::Purpose;
use crate::health::snapshot::{BitcoindView, CheckView, LeaderInfo, Role, Snapshot};
use crate::health::verdict::Limits;

/// Longer than anything takes on a busy machine.
const LONG: Duration = Duration::from_secs(20);
const LIMITS: Limits = Limits {
    max_lag_entries: 10,
    quorum_ack: Duration::from_millis(500),
    leader_contact: Duration::from_secs(1),
    snapshot: Duration::from_secs(1),
    bitcoind_view: Duration::from_secs(5),
};

fn leader() -> Snapshot {
    let now = Instant::now();
    Snapshot {
        role: Role::Leader,
        term: 3,
        leader: Some(LeaderInfo { id: 1, control: "10.0.0.1:7801".to_owned(), data: "10.0.0.1:7800".to_owned() }),
        last_quorum_ack: Some(now),
        own_term_applied: true,
        recovered: true,
        bitcoind: BitcoindView {
            judged_at: Some(now),
            in_sync: true,
            height: Some(101),
            lag_blocks: Some(0),
            ..BitcoindView::default()
        },
        ..Snapshot::starting("demo", 1, BTreeMap::new())
    }
}

fn serve(first: Snapshot) -> (Health, HealthServer) {
    serve_with(first, |_| "onespend_term 3\n".to_owned())
}

fn serve_with(first: Snapshot, metrics: impl Fn(bool) -> String + Send + Sync + 'static) -> (Health, HealthServer) {
    let health = Health::new(first, LIMITS, metrics);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = health.serve(listener).unwrap();
    (health, server)
}

struct Reply {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// HTTP/1.1 by hand, so that nothing hides what is on the wire.
fn call(server: &HealthServer, method: &str, target: &str) -> Reply {
    let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = exchange(server, head.as_bytes());
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    Reply { status, headers, body: body.to_owned() }
}

fn exchange(server: &HealthServer, request: &[u8]) -> Vec<u8> {
    let mut socket = std::net::TcpStream::connect(server.address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.write_all(request).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn every_path_answers_completely() {
    let (health, server) = serve(leader());
    for (target, status) in [
        ("/livez", 200),
        ("/startupz", 200),
        ("/readyz", 200),
        ("/readyz?bitcoind=1", 200),
        ("/leader", 200),
        ("/primary", 200),
        ("/primary?max_lag_blocks=0", 200),
        ("/read-write?bitcoind=ignore", 200),
        ("/replica", 503),
        ("/replica?tag_zone=a%20b", 503),
        ("/read-only", 200),
        ("/bitcoind", 200),
        ("/status", 200),
        ("/cluster", 200),
        ("/history", 200),
        ("/metrics", 200),
        ("/primary?max_lag_blocks=-1", 400),
        ("/primary?max_lag_block=1", 400),
        ("/primary?", 200),
        ("/leader?x", 400),
        ("/", 404),
        ("/primary/", 404),
    ] {
        health.publish(leader());
        let get = call(&server, "GET", target);
        assert_eq!(get.status, status, "{target}: {}", get.body);
        let length = get.headers.get("content-length").unwrap();
        assert_eq!(length, &get.body.len().to_string(), "{target}");
        assert!(!get.headers.contains_key("transfer-encoding"));
        assert_eq!(get.headers.get("cache-control").unwrap(), "no-store");
        if target != "/metrics" {
            assert_eq!(get.headers.get("content-type").unwrap(), JSON);
            assert!(get.json().is_object(), "{target}");
        }
        let head = call(&server, "HEAD", target);
        assert_eq!((head.status, head.body.as_str()), (status, ""), "{target}");
        assert!(head.headers.contains_key("content-length"));
        let options = call(&server, "OPTIONS", target);
        assert_eq!((options.status, options.body.as_str()), (status, ""), "{target}");
        assert_eq!(options.headers.get("content-length").unwrap(), "0");
        assert_eq!(options.headers.get("allow").unwrap(), ALLOWED);
        for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
            let refused = call(&server, method, target);
            assert_eq!(refused.status, 405, "{method} {target}");
            assert_eq!(refused.headers.get("allow").unwrap(), ALLOWED);
        }
    }
    server.stop();
}

#[test]
fn bodies_say_who_leads_and_why_not() {
    let (health, server) = serve(leader());
    let body = call(&server, "GET", "/primary").json();
    assert_eq!(body["role"], "leader");
    assert_eq!(body["term"], 3);
    assert_eq!(body["leader"]["data"], "10.0.0.1:7800");
    assert_eq!(body["applied_lag"], 0);
    assert_eq!(body["bitcoind"]["height"], 101);
    assert_eq!(body["reason"], Value::Null);

    let mut cut_off = leader();
    cut_off.last_quorum_ack = cut_off.taken_at.checked_sub(Duration::from_millis(600));
    health.publish(cut_off);
    let reply = call(&server, "GET", "/primary");
    assert_eq!(reply.status, 503);
    assert_eq!(reply.json()["reason"], "QUORUM_LOST");
    let body = call(&server, "GET", "/leader?nope=1").json();
    assert_eq!(body["reason"], "BAD_PARAMETER");
    assert!(body["message"].as_str().unwrap().contains("nope"), "{body}");

    let metrics = call(&server, "GET", "/metrics");
    assert_eq!(metrics.body, "onespend_term 3\n");
    assert_eq!(metrics.headers.get("content-type").unwrap(), PROMETHEUS);
}

/// Both believe to lead for as long as anybody asks: a leader that has lost its quorum, and one that is stuck.
#[test]
fn a_scrape_says_whether_the_node_is_primary_at_that_moment() {
    let (health, server) = serve_with(leader(), |primary| format!("{primary}\n"));
    let told = |change: fn(&mut Snapshot)| {
        let mut snapshot = leader();
        change(&mut snapshot);
        health.publish(snapshot);
        call(&server, "GET", "/metrics").body
    };
    assert_eq!(told(|_| {}), "true\n");
    assert_eq!(told(|s| s.last_quorum_ack = s.taken_at.checked_sub(LIMITS.quorum_ack * 2)), "false\n");
    assert_eq!(told(|_| {}), "true\n");
    assert_eq!(told(|s| s.taken_at = s.taken_at.checked_sub(LIMITS.snapshot * 2).unwrap()), "false\n");
    server.stopping();
    assert_eq!(told(|_| {}), "false\n");
}

/// The metrics wait for a lock, or for the disk of a log; whether this node is primary is said meanwhile.
#[test]
fn metrics_that_hang_delay_no_other_answer_and_no_stop() {
    let (go, wait) = mpsc::channel::<()>();
    let (begun, has_begun) = mpsc::channel();
    let wait = Mutex::new(wait);
    let (_health, server) = serve_with(leader(), move |_| {
        let _nobody_listens = begun.send(());
        let _ended = wait.lock().unwrap().recv();
        "late\n".to_owned()
    });
    let scrape = |server: &HealthServer| {
        let mut socket = std::net::TcpStream::connect(server.address()).unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket
    };
    let mut scrapes: Vec<_> = (0..3).map(|_| scrape(&server)).collect();
    has_begun.recv_timeout(LONG).unwrap();
    for target in ["/primary", "/livez", "/status", "/readyz"] {
        assert_eq!(call(&server, "GET", target).json()["role"], "leader", "{target}");
    }
    // One after the other, all three are rendered.
    for _ in &scrapes {
        go.send(()).unwrap();
    }
    for socket in &mut scrapes {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("late\n"), "{answer}");
    }
    let _hangs = scrape(&server);
    for _ in 0..3 {
        has_begun.recv_timeout(LONG).unwrap();
    }
    let (stopped, has_stopped) = mpsc::channel();
    std::thread::spawn(move || {
        server.stop();
        stopped.send(()).unwrap();
    });
    has_stopped.recv_timeout(LONG).unwrap();
}

#[test]
fn metrics_that_are_late_are_a_503_with_what_every_503_has() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let mut health = Health::new(leader(), LIMITS, move |_| {
        let _ended = wait.lock().unwrap().recv();
        "late\n".to_owned()
    });
    health.metrics.max_wait = Duration::from_millis(50);
    let server = health.serve(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let late = call(&server, "GET", "/metrics");
    assert_eq!(late.status, 503);
    let body = late.json();
    assert_eq!(body["reason"], "METRICS_LATE");
    assert_eq!((&body["role"], &body["term"]), (&Value::from("leader"), &Value::from(3)));
    for field in ["leader", "applied_lag", "bitcoind"] {
        assert!(!body[field].is_null(), "{field}: {body}");
    }
    drop(go);
}

#[test]
fn status_cluster_and_history_show_what_is_known() {
    let mut snapshot = leader();
    snapshot.members = vec![crate::health::Member {
        id: 1,
        voter: true,
        control: "a:1".to_owned(),
        data: "a:2".to_owned(),
        lag_entries: Some(0),
    }];
    snapshot.history = vec![crate::health::LeadershipChange { term: 3, leader_id: 1, at_unix_ms: 5 }];
    snapshot.counts.payments.insert("settled", 200);
    let (_health, server) = serve(snapshot);
    let status = call(&server, "GET", "/status").json();
    assert_eq!(status["counts"]["payments"]["settled"], 200);
    assert_eq!(status["snapshot_stale"], false);
    assert!(status["last_quorum_ack_age_ms"].as_u64().unwrap() < 500);
    let cluster = call(&server, "GET", "/cluster").json();
    assert_eq!(cluster["members"][0]["leader"], true);
    let history = call(&server, "GET", "/history").json();
    assert_eq!(history["leadership"][0]["leader_id"], 1);
}

/// Raft knows the last leader until another one is elected, which is never where too few voters are left.
#[test]
fn a_leader_that_is_not_heard_any_more_is_named_nowhere() {
    let (health, server) = serve(leader());
    let heard = |ago: Duration| {
        let member = |id: u64| crate::health::Member {
            id,
            voter: true,
            control: format!("10.0.0.{id}:7801"),
            data: format!("10.0.0.{id}:7800"),
            lag_entries: None,
        };
        let now = Instant::now();
        Snapshot {
            node_id: 2,
            role: Role::Follower,
            leader_contact: now.checked_sub(ago),
            caught_up: Some(now),
            members: vec![member(1), member(2)],
            ..leader()
        }
    };
    for target in ["/readyz", "/replica", "/leader", "/primary?verbose", "/livez", "/status", "/cluster"] {
        health.publish(heard(LIMITS.leader_contact * 2));
        let silent = call(&server, "GET", target).json();
        assert_eq!(silent["leader"], Value::Null, "{target}: {silent}");
        health.publish(heard(Duration::ZERO));
        let known = call(&server, "GET", target).json();
        assert_eq!(known["leader"]["id"], 1, "{target}: {known}");
    }
    health.publish(heard(LIMITS.leader_contact * 2));
    assert_eq!(call(&server, "GET", "/readyz").json()["reason"], "NO_LEADER");
    assert_eq!(call(&server, "GET", "/cluster").json()["members"][0]["leader"], false);
}

/// Why it is out of rotation, and what it rests on, without and with `?verbose`.
#[test]
fn a_check_that_fails_is_named() {
    let mut snapshot = leader();
    let check = |name: &str, purpose, passes| CheckView {
        name: name.to_owned(),
        purpose,
        passes,
        value: "700 ms".to_owned(),
        looked_at: Some(Instant::now()),
    };
    snapshot.checks = vec![
        check("fsync-latency", Purpose::Primary, false),
        check("memory", Purpose::Report, false),
        check("a", Purpose::Primary, true),
    ];
    snapshot.fit_for_primary = false;
    let (_health, server) = serve(snapshot);
    let short = call(&server, "GET", "/primary");
    assert_eq!((short.status, &short.json()["reason"]), (503, &Value::from("CHECK_FAILED")));
    assert_eq!(short.json()["failed_checks"], serde_json::json!(["fsync-latency"]));
    assert_eq!(short.json()["checks"], Value::Null);
    for target in ["/primary?verbose", "/primary?verbose=1&max_lag_blocks=3"] {
        let long = call(&server, "GET", target);
        assert_eq!((long.status, &long.json()["reason"]), (503, &Value::from("CHECK_FAILED")), "{target}");
        let first = &long.json()["checks"][0];
        assert_eq!((&first["value"], &first["for"]), (&Value::from("700 ms"), &Value::from("primary")));
        assert!(first["age_ms"].as_u64().is_some(), "{first}");
    }
    assert_eq!(call(&server, "GET", "/status").json()["checks"][1]["name"], "memory");
    assert_eq!(call(&server, "GET", "/leader?verbose").status, 200);
}

#[test]
fn a_snapshot_that_nobody_renews_fails_everything_but_facts_and_liveness() {
    let mut old = leader();
    old.taken_at = Instant::now().checked_sub(Duration::from_millis(1_001)).unwrap();
    let (_health, server) = serve(old);
    for target in ["/startupz", "/readyz", "/leader", "/primary", "/replica", "/read-only", "/bitcoind"] {
        let reply = call(&server, "GET", target);
        assert_eq!(reply.status, 503, "{target}");
        assert_eq!(reply.json()["reason"], "SNAPSHOT_STALE", "{target}");
    }
    for target in ["/livez", "/status", "/cluster", "/history", "/metrics"] {
        assert_eq!(call(&server, "GET", target).status, 200, "{target}");
    }
    assert_eq!(call(&server, "GET", "/status").json()["snapshot_stale"], true);
}

/// What makes snapshots ends long before the last step of an orderly end may be done.
#[test]
fn a_node_that_stops_says_draining_from_the_first_moment_to_the_last() {
    let (health, server) = serve(leader());
    assert_eq!(call(&server, "GET", "/primary").status, 200);
    server.stopping();
    let mut old = leader();
    old.taken_at = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
    // One that was under way when the node began to stop, and the last one when nobody has renewed it for long.
    for last in [leader(), old] {
        health.publish(last);
        for target in ["/readyz", "/readyz?bitcoind=1", "/leader", "/primary", "/replica", "/read-only"] {
            let reply = call(&server, "GET", target);
            assert_eq!((reply.status, &reply.json()["reason"]), (503, &"DRAINING".into()), "{target}");
        }
        let status = call(&server, "GET", "/status").json();
        assert_eq!((&status["stopping"], &status["snapshot_stale"]), (&true.into(), &false.into()), "{status}");
    }
    for target in ["/startupz", "/bitcoind"] {
        assert_eq!(call(&server, "GET", target).json()["reason"], "DRAINING", "{target}");
    }
    assert_eq!(call(&server, "GET", "/livez").status, 200);
    server.stop();
}

/// Its one snapshot is old, and says for how long it has been loading.
#[test]
fn a_node_that_loads_its_state_lives_and_has_not_started() {
    let mut starting = Snapshot::starting("demo", 1, BTreeMap::new());
    starting.taken_at = Instant::now().checked_sub(Duration::from_millis(1_001)).unwrap();
    let (_health, server) = serve(starting);
    for target in ["/startupz", "/readyz", "/primary", "/bitcoind"] {
        let reply = call(&server, "GET", target);
        assert_eq!((reply.status, &reply.json()["reason"]), (503, &"NOT_RECOVERED".into()), "{target}");
    }
    for target in ["/livez", "/metrics"] {
        assert_eq!(call(&server, "GET", target).status, 200, "{target}");
    }
    let status = call(&server, "GET", "/status").json();
    assert_eq!((&status["recovered"], &status["snapshot_stale"]), (&false.into(), &false.into()));
    assert!(status["snapshot_age_ms"].as_u64().unwrap() > 1_000, "{status}");
}

#[test]
fn a_stalled_loop_fails_liveness_by_name() {
    let (health, server) = serve(leader());
    let quick = health.progress().register("apply", Duration::from_millis(50));
    let slow = health.progress().register("watch_chain", Duration::from_mins(1));
    quick.beat();
    assert_eq!(call(&server, "GET", "/livez").status, 200);
    std::thread::sleep(Duration::from_millis(80));
    let reply = call(&server, "GET", "/livez");
    assert_eq!((reply.status, &reply.json()["reason"]), (503, &"STALLED".into()));
    assert_eq!(reply.json()["loops"][0]["name"], "apply");
    assert_eq!(reply.json()["loops"][0]["alive"], false);
    assert_eq!(reply.json()["loops"][1]["alive"], true);
    quick.beat();
    assert_eq!(call(&server, "GET", "/livez").status, 200);
    slow.finish();
}

#[tokio::test]
async fn http2_without_tls_gets_the_same_answers() {
    let (_health, server) = serve(leader());
    let uri = format!("http://{}", server.address());
    let channel = tonic::transport::Endpoint::from_shared(uri.clone()).unwrap();
    let mut channel = channel.connect().await.unwrap();
    for (method, path, status, has_body) in [
        ("GET", "/primary", 200, true),
        ("HEAD", "/primary", 200, false),
        ("OPTIONS", "/replica", 503, false),
        ("GET", "/replica", 503, true),
        ("GET", "/primary?bitcoind=no", 400, true),
        ("POST", "/primary", 405, true),
    ] {
        let request =
            Request::builder().method(method).uri(format!("{uri}{path}")).body(tonic::body::Body::empty()).unwrap();
        let answer = tower::ServiceExt::ready(&mut channel).await.unwrap();
        let answer = tower::Service::call(answer, request).await.unwrap();
        assert_eq!(answer.version(), axum::http::Version::HTTP_2);
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
        let length: usize = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
        let body = axum::body::to_bytes(Body::new(answer.into_body()), 1 << 20).await.unwrap();
        assert_eq!(!body.is_empty(), has_body, "{method} {path}");
        if has_body {
            assert_eq!(body.len(), length);
        }
    }
}

#[test]
fn a_busy_or_broken_client_does_not_keep_others_from_answers() {
    let (health, server) = serve(leader());
    // Silent, half a head, rubbish, a head beyond all bounds.
    let _silent = std::net::TcpStream::connect(server.address()).unwrap();
    let mut half = std::net::TcpStream::connect(server.address()).unwrap();
    half.write_all(b"GET /primary HTTP/1.1\r\nHos").unwrap();
    assert!(exchange(&server, b"\x16\x03\x01 rubbish\r\n\r\n").starts_with(b"HTTP/1.1 400"));
    let endless = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(30_000));
    let answer = exchange(&server, endless.as_bytes());
    assert!(answer.starts_with(b"HTTP/1.1 431"), "{:?}", String::from_utf8_lossy(&answer));
    health.publish(leader());
    assert_eq!(call(&server, "GET", "/primary").status, 200);
}

#[test]
fn a_connection_serves_many_requests_one_after_the_other() {
    let (_health, server) = serve(leader());
    let request = "GET /leader HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /leader HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = exchange(&server, format!("{request}{request}{last}").as_bytes());
    let text = String::from_utf8(answer).unwrap();
    assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 3, "{text}");
}

#[test]
fn stopping_is_prompt_and_frees_the_port() {
    let (_health, server) = serve(leader());
    let address = server.address();
    let _idle = std::net::TcpStream::connect(address).unwrap();
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < CLOSE_WITHIN + Duration::from_secs(1));
    TcpListener::bind(address).unwrap();
}
