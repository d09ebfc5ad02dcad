//! `[[checks]]`: what else a node's health rests on.

use std::time::Duration;

use axum::http::Uri;

use crate::config::Section;
use crate::identity;

/// Most checks that a file may have, besides those that every node has.
pub const MAX_CHECKS: usize = 32;

/// Bytes that should stay free: a snapshot of a large state, and time to react.
const MIN_FREE_BYTES: u64 = 1 << 30;
/// A leader that waits longer for its disk is worse than one on another machine.
const MAX_FSYNC_MS: u64 = 500;
const MAX_LAG_ENTRIES: u64 = 1_000;
const MAX_ERRORS_PERCENT: u64 = 50;
const MIN_REQUESTS: u64 = 20;
const HTTP_OK: u64 = 200;

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckConfig {
    /// Its name in answers and metrics.
    pub name: String,
    /// What is looked at; `None` only while faults are being collected.
    pub subject: Option<Subject>,
    /// What it decides.
    pub purpose: Purpose,
    /// From the end of one look to the begin of the next.
    pub interval: Duration,
    /// Longest look; one that takes longer is bad.
    pub timeout: Duration,
    /// Good looks in a row after which it passes again.
    pub rise: u32,
    /// Bad looks in a row after which it fails.
    pub fall: u32,
}

/// What a check looks at, and the bound that makes a look good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// This node's bitcoind is in sync.
    Bitcoind,
    /// The file system of the data folder has room.
    DiskFree {
        /// Least bytes that this user may still write there.
        min_bytes: u64,
    },
    /// The log reaches the disk in time.
    FsyncLatency {
        /// Longest group commit since the last look, one that is under way included.
        longest: Duration,
    },
    /// What is committed is applied.
    ApplyLag {
        /// Most entries that wait.
        max_entries: u64,
    },
    /// Requests do not end with a defect of this node.
    ErrorRate {
        /// Most of a hundred requests since the last look.
        max_percent: u64,
        /// Fewer requests than this say nothing.
        min_requests: u64,
    },
    /// The process fits its memory.
    Memory {
        /// Most resident bytes; nine tenths of the machine's memory if `None`.
        max_bytes: Option<u64>,
    },
    /// A URL answers.
    Http {
        /// `http://host[:port]/path`.
        url: String,
        /// The status that it must have.
        status: u16,
    },
    /// A program ends with 0.
    Command {
        /// The program, an absolute path, and its arguments. No shell reads them.
        argv: Vec<String>,
    },
    /// A gRPC service says `SERVING` (`grpc.health.v1`).
    Grpc {
        /// `http://host:port`.
        url: String,
        /// The name that is asked for; empty is the whole server.
        service: String,
    },
}

/// What a check decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Whether the node may be primary, and lead.
    Primary,
    /// Whether it may be sent anything.
    Readiness,
    /// Nothing: it is shown.
    Report,
}

impl Purpose {
    const WORDS: [(&str, Self); 3] =
        [("primary", Self::Primary), ("readiness", Self::Readiness), ("report", Self::Report)];

    /// The word of the configuration, of answers and of metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Readiness => "readiness",
            Self::Report => "report",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bitcoind,
    DiskFree,
    FsyncLatency,
    ApplyLag,
    ErrorRate,
    Memory,
    Http,
    Command,
    Grpc,
}

impl Kind {
    const WORDS: [(&str, Self); 9] = [
        ("bitcoind", Self::Bitcoind),
        ("disk_free", Self::DiskFree),
        ("fsync_latency", Self::FsyncLatency),
        ("apply_lag", Self::ApplyLag),
        ("error_rate", Self::ErrorRate),
        ("memory", Self::Memory),
        ("http", Self::Http),
        ("command", Self::Command),
        ("grpc", Self::Grpc),
    ];
    /// Those that every node has, and what they decide unless they are configured otherwise.
    const BUILT_IN: [(Self, Purpose); 6] = [
        (Self::Bitcoind, Purpose::Report),
        (Self::DiskFree, Purpose::Report),
        (Self::FsyncLatency, Purpose::Primary),
        (Self::ApplyLag, Purpose::Report),
        (Self::ErrorRate, Purpose::Primary),
        (Self::Memory, Purpose::Report),
    ];

    fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }

    /// The keys that only some kinds know.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Bitcoind => &[],
            Self::DiskFree => &["min_free_bytes"],
            Self::FsyncLatency => &["max_fsync_ms"],
            Self::ApplyLag => &["max_lag_entries"],
            Self::ErrorRate => &["max_errors_percent", "min_requests"],
            Self::Memory => &["max_memory_bytes"],
            Self::Http => &["url", "status"],
            Self::Command => &["argv"],
            Self::Grpc => &["url", "service"],
        }
    }

    /// Without anything said of it.
    fn built_in(self) -> Option<Subject> {
        Keys::default().subject(self).ok()
    }
}

/// The keys that only some kinds know, as far as they were given.
#[derive(Default)]
struct Keys {
    min_free_bytes: Option<u64>,
    max_fsync_ms: Option<u64>,
    max_lag_entries: Option<u64>,
    max_errors_percent: Option<u64>,
    min_requests: Option<u64>,
    max_memory_bytes: Option<u64>,
    url: Option<String>,
    status: Option<u64>,
    argv: Option<Vec<String>>,
    service: Option<String>,
}

/// The key that is wrong or missing, what it is, and why that matters.
type Wrong = (&'static str, String, String);

impl Keys {
    fn read(section: &mut Section<'_>) -> Self {
        Self {
            min_free_bytes: section.optional_integer("min_free_bytes", 1..=1 << 50),
            max_fsync_ms: section.optional_integer("max_fsync_ms", 1..=60_000),
            max_lag_entries: section.optional_integer("max_lag_entries", 0..=1_000_000_000),
            max_errors_percent: section.optional_integer("max_errors_percent", 0..=99),
            min_requests: section.optional_integer("min_requests", 1..=1_000_000),
            max_memory_bytes: section.optional_integer("max_memory_bytes", 1 << 20..=1 << 50),
            url: section.optional_text("url"),
            status: section.optional_integer("status", 100..=599),
            argv: section.optional_texts("argv"),
            service: section.optional_text("service"),
        }
    }

    fn given(&self) -> Vec<&'static str> {
        [
            ("min_free_bytes", self.min_free_bytes.is_some()),
            ("max_fsync_ms", self.max_fsync_ms.is_some()),
            ("max_lag_entries", self.max_lag_entries.is_some()),
            ("max_errors_percent", self.max_errors_percent.is_some()),
            ("min_requests", self.min_requests.is_some()),
            ("max_memory_bytes", self.max_memory_bytes.is_some()),
            ("url", self.url.is_some()),
            ("status", self.status.is_some()),
            ("argv", self.argv.is_some()),
            ("service", self.service.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, given)| given.then_some(key))
        .collect()
    }

    fn subject(self, kind: Kind) -> Result<Subject, Wrong> {
        Ok(match kind {
            Kind::Bitcoind => Subject::Bitcoind,
            Kind::DiskFree => Subject::DiskFree { min_bytes: self.min_free_bytes.unwrap_or(MIN_FREE_BYTES) },
            Kind::FsyncLatency => {
                Subject::FsyncLatency { longest: Duration::from_millis(self.max_fsync_ms.unwrap_or(MAX_FSYNC_MS)) }
            }
            Kind::ApplyLag => Subject::ApplyLag { max_entries: self.max_lag_entries.unwrap_or(MAX_LAG_ENTRIES) },
            Kind::ErrorRate => Subject::ErrorRate {
                max_percent: self.max_errors_percent.unwrap_or(MAX_ERRORS_PERCENT),
                min_requests: self.min_requests.unwrap_or(MIN_REQUESTS),
            },
            Kind::Memory => Subject::Memory { max_bytes: self.max_memory_bytes },
            Kind::Http => Subject::Http {
                url: plain_url(self.url)?,
                status: u16::try_from(self.status.unwrap_or(HTTP_OK)).unwrap_or(200),
            },
            Kind::Command => Subject::Command { argv: program(self.argv)? },
            Kind::Grpc => Subject::Grpc { url: plain_url(self.url)?, service: self.service.unwrap_or_default() },
        })
    }
}

/// `http://` alone: what is watched is on this machine or in this network, and one TLS stack is enough.
fn plain_url(url: Option<String>) -> Result<String, Wrong> {
    let url = url.ok_or_else(|| ("url", "missing".to_owned(), "this kind asks a URL".to_owned()))?;
    let wrong = |why: &str| ("url", format!("{url:?} is not acceptable"), why.to_owned());
    let parsed: Uri = url.parse().map_err(|_| wrong("it must be http://host:port/path"))?;
    if parsed.scheme_str() != Some("http") {
        return Err(wrong("it must begin with http://: checks speak no TLS"));
    }
    let authority = parsed.authority().ok_or_else(|| wrong("it names no host"))?;
    if authority.as_str().contains('@') {
        return Err(wrong("it must not hold credentials"));
    }
    Ok(url)
}

fn program(argv: Option<Vec<String>>) -> Result<Vec<String>, Wrong> {
    let why = "it must be the absolute path of a program and its arguments: [\"/usr/bin/test\", \"-e\", \"/run/ok\"]";
    match argv {
        None => Err(("argv", "missing".to_owned(), why.to_owned())),
        Some(argv) if argv.first().is_some_and(|program| program.starts_with('/')) => Ok(argv),
        Some(_) => Err(("argv", "does not begin with an absolute path".to_owned(), why.to_owned())),
    }
}

impl CheckConfig {
    /// Reads one element.
    pub fn read(section: &mut Section<'_>) -> Self {
        let name = section.checked_text("name", identity::check_name);
        let kind = section.choice("kind", &Kind::WORDS, None);
        let usual = usual(kind);
        let purpose = section.choice("for", &Purpose::WORDS, Some(usual.word())).unwrap_or(usual);
        let keys = Keys::read(section);
        if let Some(kind) = kind {
            for key in keys.given().into_iter().filter(|key| !kind.keys().contains(key)) {
                let why = format!("checks of the kind {} do not know it", kind.word());
                section.refuse(key, "is set".to_owned(), &why);
            }
            if let Some(other) =
                Kind::BUILT_IN.iter().find(|(other, _)| *other != kind && built_in_name(*other) == name)
            {
                let why = format!("the check of the kind {} that every node has is called so", other.0.word());
                section.refuse("name", format!("{name:?} is taken"), &why);
            }
        }
        let subject =
            kind.and_then(|kind| keys.subject(kind).map_err(|(key, what, why)| section.refuse(key, what, &why)).ok());
        Self {
            name,
            subject,
            purpose,
            interval: section.millis("interval_ms", 100..=3_600_000, 1_000),
            timeout: section.millis("timeout_ms", 10..=60_000, 1_000),
            rise: section.integer32("rise", 1..=100, 2),
            fall: section.integer32("fall", 1..=100, 3),
        }
    }
}

/// What a check decides where the file does not say: as much as the one that it takes the place of.
fn usual(kind: Option<Kind>) -> Purpose {
    Kind::BUILT_IN.iter().find(|(known, _)| Some(*known) == kind).map_or(Purpose::Report, |(_, purpose)| *purpose)
}

fn built_in_name(kind: Kind) -> String {
    kind.word().replace('_', "-")
}

/// What is watched: the checks of the file, and of those that every node has each whose kind the file does not name.
pub fn with_built_in(configured: &[CheckConfig]) -> Vec<CheckConfig> {
    let mut all = configured.to_vec();
    for (kind, purpose) in Kind::BUILT_IN {
        let Some(subject) = kind.built_in() else { continue };
        let is_kind = |known: &CheckConfig| {
            known
                .subject
                .as_ref()
                .is_some_and(|known| std::mem::discriminant(known) == std::mem::discriminant(&subject))
        };
        if !configured.iter().any(is_kind) {
            all.push(CheckConfig {
                name: built_in_name(kind),
                subject: Some(subject),
                purpose,
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                rise: 2,
                fall: 3,
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, subject: Subject, purpose: Purpose) -> CheckConfig {
        let second = Duration::from_secs(1);
        CheckConfig {
            name: name.to_owned(),
            subject: Some(subject),
            purpose,
            interval: second,
            timeout: second,
            rise: 1,
            fall: 1,
        }
    }

    #[test]
    fn every_node_has_the_built_in_checks_and_two_of_them_decide() {
        let all = with_built_in(&[]);
        let names: Vec<&str> = all.iter().map(|check| check.name.as_str()).collect();
        assert_eq!(names, ["bitcoind", "disk-free", "fsync-latency", "apply-lag", "error-rate", "memory"]);
        let deciding = all.iter().filter(|check| check.purpose != Purpose::Report).map(|check| check.name.as_str());
        assert_eq!(deciding.collect::<Vec<_>>(), ["fsync-latency", "error-rate"]);
        let longest = Duration::from_millis(500);
        assert!(all.iter().any(|check| check.subject == Some(Subject::FsyncLatency { longest })));
    }

    #[test]
    fn a_check_whose_bound_alone_is_configured_decides_as_much_as_the_one_before() {
        assert_eq!(usual(Some(Kind::FsyncLatency)), Purpose::Primary);
        assert_eq!(usual(Some(Kind::ErrorRate)), Purpose::Primary);
        for kind in
            [Kind::Bitcoind, Kind::DiskFree, Kind::ApplyLag, Kind::Memory, Kind::Http, Kind::Command, Kind::Grpc]
        {
            assert_eq!(usual(Some(kind)), Purpose::Report, "{}", kind.word());
        }
    }

    #[test]
    fn a_check_of_the_file_takes_the_place_of_the_built_in_one_of_its_kind() {
        let own = named("disk", Subject::DiskFree { min_bytes: 5 }, Purpose::Readiness);
        let http = Subject::Http { url: "http://127.0.0.1/".to_owned(), status: 200 };
        let all = with_built_in(&[own.clone(), named("proxy", http, Purpose::Report)]);
        assert_eq!(all[0], own);
        assert_eq!(all.len(), 2 + 5);
        assert!(!all.iter().any(|check| check.name == "disk-free"));
    }

    #[test]
    fn only_plain_urls_without_credentials_are_asked() {
        let answer = |url: &str| plain_url(Some(url.to_owned())).is_ok();
        for good in ["http://127.0.0.1:80/x?y=1", "http://node-2", "http://[::1]:7802/livez"] {
            assert!(answer(good), "{good}");
        }
        for bad in ["https://127.0.0.1/", "http://a:b@127.0.0.1/", "/livez", "127.0.0.1:80", "", "http://", "ftp://a/"]
        {
            assert!(!answer(bad), "{bad}");
        }
    }
}
