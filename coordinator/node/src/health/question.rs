//! What a request asks: path and parameters, read strictly.
//!
//! A load balancer that misspells a parameter must learn it at once. Ignoring it would answer a
//! weaker question than was asked, and so fail open.

use std::collections::BTreeMap;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// `/livez`
    Live,
    /// A yes-or-no question about the snapshot.
    Check(Check),
    /// The same with `?verbose`: the body has every fact that the answer may rest on.
    Verbose(Check),
    /// `/status`
    Status,
    /// `/cluster`
    Cluster,
    /// `/history`
    History,
    /// `/metrics`
    Metrics,
}

/// A yes-or-no question about the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// `/startupz`: is recovery done?
    Startup,
    /// `/readyz`: may requests be sent here?
    Ready {
        /// `?bitcoind=1`: and is bitcoind in sync?
        bitcoind: bool,
    },
    /// `/leader`
    Leader,
    /// `/primary`, `/read-write`: is it safe to send spends here?
    Primary {
        /// `?max_lag_blocks=`: a stricter bound for this request.
        max_lag_blocks: Option<u32>,
        /// `?bitcoind=ignore`
        ignore_bitcoind: bool,
    },
    /// `/replica`: may reads that tolerate some staleness be sent here?
    Replica {
        /// `?max_lag_entries=` instead of the configured bound.
        max_lag_entries: Option<u64>,
        /// `?max_lag_blocks=`: also bound bitcoind's lag.
        max_lag_blocks: Option<u32>,
        /// `?tag_KEY=VALUE`: the labels that the node must carry.
        tags: BTreeMap<String, String>,
    },
    /// `/read-only`: leader or replica.
    ReadOnly,
    /// `/bitcoind`
    Bitcoind,
}

impl Check {
    /// `/replica` without parameters.
    pub fn replica() -> Self {
        Self::Replica { max_lag_entries: None, max_lag_blocks: None, tags: BTreeMap::new() }
    }

    /// `/readyz` without parameters.
    pub fn ready() -> Self {
        Self::Ready { bitcoind: false }
    }

    /// `/primary` without parameters.
    pub fn primary() -> Self {
        Self::Primary { max_lag_blocks: None, ignore_bitcoind: false }
    }
}

/// Why a request is not a question.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Answered with 404.
    #[error("there is no such path")]
    UnknownPath,
    /// Answered with 400.
    #[error("parameter {name:?}: {why}")]
    BadParameter {
        /// The parameter's name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

impl Question {
    /// Reads a path and its decoded parameters.
    ///
    /// # Errors
    /// If the path is unknown; or a parameter is unknown there, given twice, malformed, or
    /// contradicts another.
    pub fn read(path: &str, parameters: Vec<(String, String)>) -> Result<Self, Refusal> {
        let mut given = Parameters::new(parameters)?;
        let is_verbose = given.word("verbose", &[("", true), ("1", true), ("0", false)])?;
        let question = match path {
            "/livez" => Self::Live,
            "/startupz" => Self::Check(Check::Startup),
            "/readyz" => Self::Check(Check::Ready {
                bitcoind: given.word("bitcoind", &[("1", true), ("0", false)])? == Some(true),
            }),
            "/leader" => Self::Check(Check::Leader),
            "/primary" | "/read-write" => Self::Check(given.primary()?),
            "/replica" => Self::Check(Check::Replica {
                max_lag_entries: given.number("max_lag_entries")?,
                max_lag_blocks: given.number("max_lag_blocks")?,
                tags: given.tags()?,
            }),
            "/read-only" => Self::Check(Check::ReadOnly),
            "/bitcoind" => Self::Check(Check::Bitcoind),
            "/status" => Self::Status,
            "/cluster" => Self::Cluster,
            "/history" => Self::History,
            "/metrics" => Self::Metrics,
            _ => return Err(Refusal::UnknownPath),
        };
        given.finish()?;
        match (question, is_verbose) {
            (Self::Check(check), Some(true)) => Ok(Self::Verbose(check)),
            (question @ Self::Check(_), _) | (question, None) => Ok(question),
            // They always say all.
            (_, Some(_)) => Err(bad("verbose", "unknown here")),
        }
    }
}

/// The parameters of a request that nobody has asked for yet.
struct Parameters(BTreeMap<String, String>);

impl Parameters {
    fn new(given: Vec<(String, String)>) -> Result<Self, Refusal> {
        let mut all = BTreeMap::new();
        for (name, value) in given {
            if all.insert(name.clone(), value).is_some() {
                return Err(bad(&name, "given more than once"));
            }
        }
        Ok(Self(all))
    }

    fn primary(&mut self) -> Result<Check, Refusal> {
        let max_lag_blocks = self.number("max_lag_blocks")?;
        let ignore_bitcoind = self.word("bitcoind", &[("ignore", true)])? == Some(true);
        if ignore_bitcoind && max_lag_blocks.is_some() {
            return Err(bad("max_lag_blocks", "contradicts bitcoind=ignore"));
        }
        Ok(Check::Primary { max_lag_blocks, ignore_bitcoind })
    }

    fn number<T: std::str::FromStr>(&mut self, name: &str) -> Result<Option<T>, Refusal> {
        let Some(text) = self.0.remove(name) else {
            return Ok(None);
        };
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits => Ok(Some(number)),
            _ => Err(bad(name, "must be a whole number from 0")),
        }
    }

    fn word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Refusal> {
        let Some(text) = self.0.remove(name) else {
            return Ok(None);
        };
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| Some(*value)).ok_or_else(|| bad(name, "has an unknown value"))
    }

    fn tags(&mut self) -> Result<BTreeMap<String, String>, Refusal> {
        let mut tags = BTreeMap::new();
        for (name, value) in std::mem::take(&mut self.0) {
            match name.strip_prefix("tag_") {
                Some("") => return Err(bad(&name, "names no tag")),
                Some(key) => {
                    tags.insert(key.to_owned(), value);
                }
                None => {
                    self.0.insert(name, value);
                }
            }
        }
        Ok(tags)
    }

    fn finish(self) -> Result<(), Refusal> {
        match self.0.first_key_value() {
            Some((name, _)) => Err(bad(name, "unknown here")),
            None => Ok(()),
        }
    }
}

fn bad(name: &str, why: &'static str) -> Refusal {
    Refusal::BadParameter { name: name.to_owned(), why }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(path: &str, parameters: &[(&str, &str)]) -> Result<Question, Refusal> {
        let parameters = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Question::read(path, parameters)
    }

    #[test]
    fn every_documented_question_is_understood() {
        let ready = |bitcoind| Question::Check(Check::Ready { bitcoind });
        let primary =
            |max_lag_blocks, ignore_bitcoind| Question::Check(Check::Primary { max_lag_blocks, ignore_bitcoind });
        for (path, parameters, question) in [
            ("/livez", &[][..], Question::Live),
            ("/startupz", &[], Question::Check(Check::Startup)),
            ("/readyz", &[], ready(false)),
            ("/readyz", &[("bitcoind", "1")], ready(true)),
            ("/readyz", &[("bitcoind", "0")], ready(false)),
            ("/leader", &[], Question::Check(Check::Leader)),
            ("/primary", &[], primary(None, false)),
            ("/read-write", &[("max_lag_blocks", "0")], primary(Some(0), false)),
            ("/primary", &[("bitcoind", "ignore")], primary(None, true)),
            ("/replica", &[], Question::Check(Check::replica())),
            ("/read-only", &[], Question::Check(Check::ReadOnly)),
            ("/bitcoind", &[], Question::Check(Check::Bitcoind)),
            ("/status", &[], Question::Status),
            ("/cluster", &[], Question::Cluster),
            ("/history", &[], Question::History),
            ("/metrics", &[], Question::Metrics),
        ] {
            assert_eq!(read(path, parameters), Ok(question), "{path} {parameters:?}");
        }
        for text in ["", "1"] {
            let verbose = Question::Verbose(Check::Leader);
            assert_eq!(read("/leader", &[("verbose", text)]), Ok(verbose));
        }
        assert_eq!(read("/leader", &[("verbose", "0")]), Ok(Question::Check(Check::Leader)));
        let replica =
            read("/replica", &[("max_lag_entries", "10"), ("tag_zone", "a"), ("max_lag_blocks", "1"), ("tag_x", "")]);
        let tags = [("x", ""), ("zone", "a")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        assert_eq!(
            replica.unwrap(),
            Question::Check(Check::Replica {
                max_lag_entries: Some(10),
                max_lag_blocks: Some(1),
                tags: BTreeMap::from(tags),
            })
        );
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for (path, parameters) in [
            ("/primary", &[("max_lag", "1")][..]),
            ("/primary", &[("max_lag_blocks", "")]),
            ("/primary", &[("max_lag_blocks", "-1")]),
            ("/primary", &[("max_lag_blocks", "+1")]),
            ("/primary", &[("max_lag_blocks", "1.5")]),
            ("/primary", &[("max_lag_blocks", " 1")]),
            ("/primary", &[("max_lag_blocks", "4294967296")]),
            ("/primary", &[("bitcoind", "1")]),
            ("/primary", &[("bitcoind", "ignore"), ("max_lag_blocks", "1")]),
            ("/primary", &[("tag_zone", "a")]),
            ("/primary", &[("max_lag_blocks", "1"), ("max_lag_blocks", "1")]),
            ("/readyz", &[("bitcoind", "yes")]),
            ("/readyz", &[("bitcoind", "")]),
            ("/replica", &[("max_lag_entries", "x")]),
            ("/replica", &[("tag_", "x")]),
            ("/replica", &[("tag", "x")]),
            ("/livez", &[("verbose", "1")]),
            ("/status", &[("verbose", "0")]),
            ("/primary", &[("verbose", "yes")]),
            ("/metrics", &[("", "")]),
        ] {
            let refusal = read(path, parameters).unwrap_err();
            let bad = matches!(refusal, Refusal::BadParameter { .. });
            assert!(bad, "{path} {parameters:?}: {refusal}");
        }
        for path in ["", "/", "/Primary", "/primary/", "//primary", "/health", "*"] {
            assert_eq!(read(path, &[]), Err(Refusal::UnknownPath), "{path}");
        }
    }
}
