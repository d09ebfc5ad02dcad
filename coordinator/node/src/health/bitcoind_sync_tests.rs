//! Judgements over sequences of probes.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn rules(chain: &str) -> Rules {
    Rules {
        chain: chain.to_owned(),
        genesis: "g".to_owned(),
        max_lag_blocks: 2,
        min_peers: 1,
        max_silence: Duration::from_secs(14),
    }
}

fn good() -> ProbeFacts {
    ProbeFacts {
        chain: "main".to_owned(),
        genesis: "g".to_owned(),
        initial_block_download: false,
        blocks: 1_000,
        headers: 1_000,
        peers: 8,
        tip_age: Duration::from_mins(10),
        fork_depth: 0,
        log_lag: 0,
    }
}

/// A judge with a clock that moves two seconds per probe.
struct Judge {
    at: Judgement,
    now: Instant,
    rules: Rules,
}

impl Judge {
    fn new(chain: &str) -> Self {
        Self { at: Judgement::default(), now: Instant::now(), rules: rules(chain) }
    }

    fn probe(&mut self, probe: Result<ProbeFacts, ProbeFailure>) -> Option<SyncReason> {
        self.now += Duration::from_secs(2);
        self.at = self.at.next(probe, Some(1_000), &self.rules, self.now);
        assert_eq!(self.at.in_sync, self.at.reason.is_none());
        assert_eq!(self.at.view().judged_at, Some(self.now));
        self.at.reason
    }
}

#[test]
fn the_first_probe_decides_at_once() {
    let mut judge = Judge::new("main");
    assert_eq!(judge.at.view().reason, Some(SyncReason::NotProbed));
    assert_eq!(judge.probe(Ok(good())), None);
    let mut judge = Judge::new("main");
    assert_eq!(judge.probe(Err(ProbeFailure::Starting)), Some(SyncReason::Starting));
    assert_eq!(judge.probe(Ok(good())), None, "its first answer");
}

#[test]
fn every_fact_counts() {
    type Change = fn(&mut ProbeFacts);
    let changes: &[(Change, SyncReason)] = &[
        (|f| f.chain = "test".to_owned(), SyncReason::WrongChain),
        (|f| f.genesis = "h".to_owned(), SyncReason::WrongGenesis),
        (|f| f.fork_depth = 2, SyncReason::Fork),
        (|f| f.log_lag = 3, SyncReason::LogBehind),
        (|f| f.initial_block_download = true, SyncReason::InitialBlockDownload),
        (|f| f.headers = 1_003, SyncReason::BehindHeaders),
        (|f| (f.blocks, f.headers) = (997, 997), SyncReason::BehindCluster),
        (|f| f.peers = 0, SyncReason::TooFewPeers),
        (|f| f.tip_age = Duration::from_secs(7_201), SyncReason::TipOld),
    ];
    for (change, reason) in changes {
        let mut facts = good();
        change(&mut facts);
        assert_eq!(Judge::new("main").probe(Ok(facts)), Some(*reason));
    }
    let fine: &[Change] = &[
        |f| f.fork_depth = 1,
        |f| f.headers = 1_002,
        |f| (f.blocks, f.headers) = (998, 998),
        |f| (f.blocks, f.headers) = (2_000, 2_000),
        |f| f.peers = 1,
        |f| f.tip_age = Duration::from_hours(2),
    ];
    for (at, change) in fine.iter().enumerate() {
        let mut facts = good();
        change(&mut facts);
        assert_eq!(Judge::new("main").probe(Ok(facts)), None, "{at}");
    }
}

#[test]
fn regtest_needs_no_peers_no_recent_block_and_no_end_of_initial_download() {
    let facts = ProbeFacts {
        chain: "regtest".to_owned(),
        peers: 0,
        tip_age: Duration::from_hours(100_000),
        initial_block_download: true,
        ..good()
    };
    assert_eq!(Judge::new("regtest").probe(Ok(facts.clone())), None);
    let behind = ProbeFacts { blocks: 900, ..facts };
    let reason = Judge::new("regtest").probe(Ok(behind));
    assert_eq!(reason, Some(SyncReason::BehindHeaders));
}

#[test]
fn soft_reasons_need_two_probes_in_either_direction() {
    let behind = || ProbeFacts { headers: 1_005, ..good() };
    let mut judge = Judge::new("main");
    judge.probe(Ok(good()));
    assert_eq!(judge.probe(Ok(behind())), None, "once is a block on its way");
    assert_eq!(judge.at.view().lag_blocks, Some(5), "but the lag is told");
    assert_eq!(judge.probe(Ok(good())), None);
    assert_eq!(judge.probe(Ok(behind())), None, "the count began anew");
    assert_eq!(judge.probe(Ok(behind())), Some(SyncReason::BehindHeaders));
    assert_eq!(judge.probe(Ok(good())), Some(SyncReason::BehindHeaders), "once is not back");
    assert_eq!(judge.probe(Ok(behind())), Some(SyncReason::BehindHeaders));
    assert_eq!(judge.probe(Ok(good())), Some(SyncReason::BehindHeaders));
    assert_eq!(judge.probe(Ok(good())), None);
}

#[test]
fn hard_reasons_take_effect_at_once_and_still_need_two_probes_to_pass() {
    let fork = ProbeFacts { fork_depth: 3, ..good() };
    let mut judge = Judge::new("main");
    judge.probe(Ok(good()));
    assert_eq!(judge.probe(Ok(fork)), Some(SyncReason::Fork));
    assert_eq!(judge.probe(Ok(good())), Some(SyncReason::Fork));
    assert_eq!(judge.probe(Ok(good())), None);
}

#[test]
fn silence_is_forgiven_until_it_is_too_long() {
    let mut judge = Judge::new("main");
    judge.probe(Ok(good()));
    for _ in 0..7 {
        assert_eq!(judge.probe(Err(ProbeFailure::Timeout)), None);
    }
    assert_eq!(judge.probe(Err(ProbeFailure::Timeout)), Some(SyncReason::Timeout));
    let unreachable = judge.probe(Err(ProbeFailure::Unreachable));
    assert_eq!(unreachable, Some(SyncReason::Unreachable));
    assert_eq!(judge.at.view().height, Some(1_000), "the last facts stay visible");
    assert_eq!(judge.probe(Ok(good())), Some(SyncReason::Unreachable));
    assert_eq!(judge.probe(Ok(good())), None);
}

fn any_probe() -> impl Strategy<Value = Result<ProbeFacts, ProbeFailure>> {
    let answered = (990_u32..1_005, 990_u32..1_005, 0_u32..3, any::<bool>()).prop_map(
        |(blocks, headers, fork_depth, initial_block_download)| {
            Ok(ProbeFacts { initial_block_download, blocks, headers, fork_depth, ..good() })
        },
    );
    let failed = prop::sample::select(vec![ProbeFailure::Timeout, ProbeFailure::Starting]);
    prop_oneof![4 => answered, 1 => failed.prop_map(Err), 3 => Just(Ok(good()))]
}

proptest! {
    /// However probes come, two good ones in a row are in sync, two bad ones are not, and a bad
    /// one never brings a node back.
    #[test]
    fn two_probes_in_a_row_decide(probes in prop::collection::vec(any_probe(), 1..40)) {
        let mut judge = Judge::new("main");
        let mut streak = (None, 0);
        for probe in probes {
            let before = judge.at.in_sync;
            let found = probe.as_ref().ok().map(|facts| {
                fault(facts, Some(1_000), &judge.rules).is_none()
            });
            judge.probe(probe);
            streak = if found.is_some() && streak.0 == found {
                (found, streak.1 + 1)
            } else {
                (found, 1)
            };
            match streak {
                (Some(good), 2..) => prop_assert_eq!(judge.at.in_sync, good),
                (Some(false), _) => prop_assert!(before || !judge.at.in_sync),
                (None, _) => prop_assert!(before || !judge.at.in_sync),
                _ => {}
            }
        }
    }
}
