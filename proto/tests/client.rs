//! The client against nodes that misbehave: in-process servers that follow a script.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod mock;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use mock::{Mock, Script, not_leader, refusal};
use onespend_proto::client::{Client, ClientConfig, ClientError};
use onespend_proto::{reason, v1};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

fn config(mocks: &[&Mock]) -> ClientConfig {
    let mut config = ClientConfig::new(mocks.iter().map(|mock| mock.address()));
    config.try_timeout = Duration::from_millis(150);
    config.deadline = Duration::from_secs(5);
    config
}

fn connect(mocks: &[&Mock]) -> Client {
    Client::connect(config(mocks)).unwrap()
}

fn reserve() -> v1::ReserveUtxosRequest {
    v1::ReserveUtxosRequest { wallet_id: "hot".to_owned(), ..Default::default() }
}

#[tokio::test]
async fn a_hint_is_followed_and_remembered() {
    let leader = Mock::start(|_| Script::Answer);
    let hint = leader.address();
    let replica = Mock::start(move |_| Script::Fail(not_leader(Some(&hint))));
    let client = connect(&[&replica, &leader]);

    let answer = client.reserve_utxos(reserve()).await.unwrap();
    assert_eq!(answer.reservation.unwrap().reservation_id, "r-7");
    client.reserve_utxos(reserve()).await.unwrap();

    assert_eq!((replica.seen().len(), leader.seen().len()), (1, 2));
    assert_eq!(client.preferred_endpoint(), leader.address());
    assert_eq!((client.stats().calls, client.stats().tries, client.stats().hints_followed), (2, 3, 1));
}

#[tokio::test]
async fn a_hint_to_a_node_that_is_not_configured_is_followed() {
    let leader = Mock::start(|_| Script::Answer);
    let hint = leader.address();
    let replica = Mock::start(move |_| Script::Fail(not_leader(Some(&hint))));
    let client = connect(&[&replica]);
    client.reserve_utxos(reserve()).await.unwrap();
    assert_eq!(client.preferred_endpoint(), leader.address());
}

#[tokio::test]
async fn a_replica_that_forwarded_names_the_leader() {
    let leader = Mock::start(|_| Script::Answer);
    let address = leader.address();
    let replica = Mock::start(move |_| Script::AnswerFor(address.clone()));
    let client = connect(&[&replica, &leader]);
    client.reserve_utxos(reserve()).await.unwrap();
    client.reserve_utxos(reserve()).await.unwrap();
    assert_eq!((replica.seen().len(), leader.seen().len()), (1, 1));
}

#[tokio::test]
async fn a_hang_is_retried_elsewhere_with_the_same_request_id() {
    let paused = Mock::start(|_| Script::Hang);
    let hint = paused.address();
    // The replica still takes the paused node for the leader when it is asked first.
    let replica = Mock::start(move |n| match n {
        0 => Script::Fail(not_leader(Some(&hint))),
        _ => Script::Answer,
    });
    let client = connect(&[&paused, &replica]);

    let begun = Instant::now();
    client.reserve_utxos(reserve()).await.unwrap();

    assert!(begun.elapsed() < Duration::from_secs(2), "took {:?}", begun.elapsed());
    let ids: BTreeSet<_> = paused.seen().into_iter().chain(replica.seen()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(ids.first().unwrap().len(), 36, "a UUID");
    assert!(client.stats().tries_without_answer >= 1);
}

#[tokio::test]
async fn results_that_are_unknown_are_asked_again() {
    let node = Mock::start(|n| match n {
        0 => Script::Fail(Status::unavailable("leader gone")),
        1 => Script::Fail(refusal(Code::DeadlineExceeded, reason::RESULT_UNKNOWN)),
        2 => Script::Fail(refusal(Code::Unavailable, reason::NO_QUORUM)),
        _ => Script::Answer,
    });
    let client = connect(&[&node]);
    let begun = Instant::now();
    client.reserve_utxos(v1::ReserveUtxosRequest { request_id: "mine".to_owned(), ..reserve() }).await.unwrap();
    assert_eq!(node.seen(), ["mine", "mine", "mine", "mine"]);
    assert!(begun.elapsed() < Duration::from_secs(2), "took {:?}", begun.elapsed());
}

/// safety 27, in the client.
#[tokio::test]
async fn the_outcome_is_unknown_after_the_deadline() {
    let one = Mock::start(|_| Script::Hang);
    let two = Mock::start(|_| Script::Fail(not_leader(None)));
    let client = connect(&[&one, &two]).with_deadline(Duration::from_millis(600));

    let begun = Instant::now();
    let request = v1::ReserveUtxosRequest { request_id: "again".to_owned(), ..reserve() };
    let error = client.reserve_utxos(request).await.unwrap_err();

    assert!(error.may_be_applied());
    let ClientError::Unknown { request_id, tries, .. } = error else { panic!("{error}") };
    assert_eq!(request_id, "again");
    assert!(tries >= 3, "{tries} tries");
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(300) && took < Duration::from_secs(3), "took {took:?}");
    assert_eq!(client.stats().calls_unknown, 1);
}

#[tokio::test]
async fn a_refusal_is_not_retried() {
    let node = Mock::start(|_| {
        let mut details = ErrorDetails::new();
        details.set_error_info(reason::FIELD_INVALID, reason::DOMAIN, HashMap::new());
        details.add_bad_request_violation("wallet_id", "is empty");
        Script::Fail(Status::with_error_details(Code::InvalidArgument, "bad request", details))
    });
    let client = connect(&[&node]);
    let error = client.reserve_utxos(reserve()).await.unwrap_err();

    assert_eq!(node.seen().len(), 1);
    assert!(error.is(reason::FIELD_INVALID) && !error.may_be_applied());
    let rejection = error.rejection().unwrap();
    assert_eq!(rejection.code, Code::InvalidArgument);
    assert_eq!(rejection.field_violations[0].field, "wallet_id");
}

/// safety 27, in the client.
#[tokio::test]
async fn a_refusal_after_a_try_without_answer_does_not_claim_that_nothing_was_applied() {
    let node = Mock::start(|n| match n {
        0 => Script::Fail(Status::unavailable("gone")),
        _ => Script::Fail(refusal(Code::FailedPrecondition, reason::INSUFFICIENT_FUNDS)),
    });
    let error = connect(&[&node]).reserve_utxos(reserve()).await.unwrap_err();
    assert!(error.is(reason::INSUFFICIENT_FUNDS) && error.may_be_applied());
}

#[tokio::test]
async fn retry_info_is_honoured_while_the_deadline_allows_it() {
    let wait = Duration::from_millis(1500);
    let script = move |n| match n {
        0 => {
            let mut details = ErrorDetails::new();
            details.set_error_info(reason::OVERLOADED, reason::DOMAIN, HashMap::new());
            details.set_retry_info(Some(wait));
            Script::Fail(Status::with_error_details(Code::ResourceExhausted, "later", details))
        }
        _ => Script::Answer,
    };
    let node = Mock::start(script);
    let begun = Instant::now();
    connect(&[&node]).reserve_utxos(reserve()).await.unwrap();
    assert!(begun.elapsed() >= wait);

    let node = Mock::start(script);
    let client = connect(&[&node]).with_deadline(Duration::from_secs(1));
    let begun = Instant::now();
    let error = client.reserve_utxos(reserve()).await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_millis(900), "an answer that cannot come in time is not waited for");
    assert!(error.is(reason::OVERLOADED) && !error.may_be_applied());
}

/// HTTP/2's ENHANCE_YOUR_CALM comes as this code, whatever had become of the request before.
#[tokio::test]
async fn a_lack_of_resources_without_the_services_word_is_unknown() {
    let bare = || Script::Fail(Status::resource_exhausted("calm down"));
    let node = Mock::start(move |n| if n == 0 { bare() } else { Script::Answer });
    connect(&[&node]).reserve_utxos(reserve()).await.unwrap();

    let node = Mock::start(move |_| bare());
    let client = connect(&[&node]).with_deadline(Duration::from_millis(300));
    let error = client.reserve_utxos(reserve()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unknown { .. }), "{error:?}");
    assert!(error.may_be_applied());
}

#[tokio::test]
async fn nobody_leads_is_a_refusal_and_nobody_listens_is_not_sent() {
    let replica = Mock::start(|_| Script::Fail(not_leader(None)));
    let client = connect(&[&replica]).with_deadline(Duration::from_millis(300));
    let error = client.reserve_utxos(reserve()).await.unwrap_err();
    assert!(error.is(reason::NOT_LEADER) && !error.may_be_applied());

    let closed = mock::unused_address();
    let client = Client::connect(ClientConfig::new([closed])).unwrap().with_deadline(Duration::from_millis(300));
    let error = client.reserve_utxos(reserve()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { tries: 2.., .. }), "{error}");
    assert!(client.stats().tries_not_sent >= 2);
}

#[tokio::test]
async fn a_node_that_dies_is_left_at_once() {
    let mut leader = Mock::start(|_| Script::Answer);
    let next = Mock::start(|_| Script::Answer);
    let client = connect(&[&leader, &next]);
    client.reserve_utxos(reserve()).await.unwrap();
    leader.kill();
    let begun = Instant::now();
    client.reserve_utxos(reserve()).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1), "took {:?}", begun.elapsed());
    assert_eq!(next.seen().len(), 1);
}

#[tokio::test]
async fn two_nodes_that_name_each_other_do_not_spin() {
    let (one, two) = (mock::bind(), mock::bind());
    let names = |listener: &std::net::TcpListener| listener.local_addr().unwrap().to_string();
    let (first, second) = (names(&one), names(&two));
    let one = Mock::serve(one, None, move |_| Script::Fail(not_leader(Some(&second))));
    let two = Mock::serve(two, None, move |_| Script::Fail(not_leader(Some(&first))));
    let client = connect(&[&one, &two]).with_deadline(Duration::from_millis(500));
    client.reserve_utxos(reserve()).await.unwrap_err();
    // No pause is shorter than ten milliseconds, or than a sixteenth of what was waited.
    assert!(client.stats().tries <= 40, "{} tries", client.stats().tries);
}

#[tokio::test]
async fn the_interceptor_sees_every_try() {
    let node = Mock::start(|n| if n == 0 { Script::Fail(Status::unavailable("gone")) } else { Script::Answer });
    let config = config(&[&node]).with_interceptor(|metadata| {
        metadata.insert("traceparent", "00-1-2-01".parse().unwrap());
    });
    Client::connect(config).unwrap().reserve_utxos(reserve()).await.unwrap();
    assert_eq!(node.traces(), ["00-1-2-01", "00-1-2-01"]);
}

#[tokio::test]
async fn a_watch_goes_on_from_the_last_index() {
    // Every stream of the mock tells the two indices after `from_index` and then breaks.
    let node = Mock::start(|_| Script::Answer);
    let client = connect(&[&node]);
    let mut watch = client.watch_payments(v1::WatchPaymentsRequest { from_index: 40, ..Default::default() });
    let mut indices = Vec::new();
    for _ in 0..5 {
        indices.push(watch.next().await.unwrap().applied_index);
    }
    assert_eq!(indices, [41, 42, 43, 44, 45]);
    assert_eq!(watch.resume_index(), 45);
    let mut watch = client.watch_reservations(v1::WatchReservationsRequest { from_index: 7, ..Default::default() });
    for index in 8..=11 {
        assert_eq!(watch.next().await.unwrap().applied_index, index);
    }
    assert_eq!(watch.resume_index(), 11);
}

#[tokio::test]
async fn a_watch_goes_on_elsewhere_when_its_node_falls_behind() {
    let too_stale = || refusal(Code::Unavailable, reason::TOO_STALE);
    let cut_off = Mock::start(move |asked| if asked == 0 { Script::Answer } else { Script::Fail(too_stale()) });
    let other = Mock::start(|_| Script::Answer);
    let client = connect(&[&cut_off, &other]);
    let mut watch = client.watch_payments(v1::WatchPaymentsRequest { from_index: 40, ..Default::default() });
    for index in 41..=46 {
        assert_eq!(watch.next().await.unwrap().applied_index, index);
    }
}

#[tokio::test]
async fn configurations_that_cannot_work_are_refused() {
    let refuse = |config: ClientConfig, expected: &str| {
        let Err(ClientError::Config(fault)) = Client::connect(config) else { panic!("accepted: {expected}") };
        assert!(fault.contains(expected), "{fault}");
    };
    refuse(ClientConfig::new(Vec::<String>::new()), "no endpoints");
    refuse(ClientConfig::new(["127.0.0.1"]), "no port");
    refuse(ClientConfig::new(["http://127.0.0.1:1"]), "without a scheme");
    refuse(ClientConfig::new((0..33).map(|port| format!("127.0.0.1:{port}"))), "more than 32");
    refuse(ClientConfig { deadline: Duration::ZERO, ..ClientConfig::new(["127.0.0.1:1"]) }, "zero");
    let client = Client::connect(ClientConfig::new(["127.0.0.1:1"])).unwrap().with_deadline(Duration::from_millis(50));
    let error = client.get_status(v1::GetStatusRequest {}).await.unwrap_err();
    assert!(error.to_string().contains("no endpoint is configured"), "{error}");
}

#[tokio::test]
async fn mutual_tls_accepts_any_address_and_only_the_clusters_certificates() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let pki = mock::Pki::new();
    let node = Mock::serve(mock::bind(), Some(pki.server()), |_| Script::Answer);

    let client = Client::connect(config(&[&node]).with_tls(pki.client())).unwrap();
    client.reserve_utxos(reserve()).await.unwrap();

    let mut stranger = mock::Pki::new().client();
    stranger.ca = pki.client().ca;
    let client = Client::connect(config(&[&node]).with_tls(stranger)).unwrap();
    client.with_deadline(Duration::from_millis(300)).reserve_utxos(reserve()).await.unwrap_err();

    let wrong_authority = mock::Pki::new().client();
    let client = Client::connect(config(&[&node]).with_tls(wrong_authority)).unwrap();
    // The deadline may cut a handshake off, of which nobody can say that nothing was sent.
    for asked in 1.. {
        let error = client.with_deadline(Duration::from_millis(300)).reserve_utxos(reserve()).await.unwrap_err();
        if matches!(error, ClientError::Unreachable { .. }) {
            break;
        }
        assert!(asked < 10, "{error}");
    }
    assert_eq!(node.seen().len(), 1);
}

/// The bound of the try ends the wait, and must not leave the connection in the handshake for as long as TCP lives.
#[tokio::test]
async fn a_node_that_left_a_handshake_without_an_answer_is_reached_when_it_answers() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let pki = mock::Pki::new();
    let listener = mock::bind();
    let mut config = ClientConfig::new([listener.local_addr().unwrap().to_string()]).with_tls(pki.client());
    config.connect_timeout = Duration::from_millis(100);
    config.try_timeout = Duration::from_millis(150);
    let client = Client::connect(config).unwrap();
    let call = tokio::spawn(async move { client.reserve_utxos(reserve()).await });
    let (_held, listener) = tokio::task::spawn_blocking(move || (listener.accept().unwrap(), listener)).await.unwrap();
    let _node = Mock::serve(listener, Some(pki.server()), |_| Script::Answer);
    call.await.unwrap().expect("a later connection is answered");
}
