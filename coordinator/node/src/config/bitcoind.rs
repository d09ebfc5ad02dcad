//! How this node reaches its own bitcoind.

use std::path::PathBuf;
use std::time::Duration;

use super::Section;

/// `[bitcoind]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BitcoindConfig {
    /// `http://host:port` of the RPC server.
    pub url: String,
    /// How to log in; `None` only while faults are being collected.
    pub login: Option<BitcoindLogin>,
    /// How long one RPC call may take; afterwards its result is unknown.
    pub timeout: Duration,
    /// Pause between two probes.
    pub poll: Duration,
    /// Fewer peers than this means out of sync. Not judged on regtest.
    pub min_peers: u32,
}

/// Credentials for bitcoind's RPC. Only paths: no secret is ever part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BitcoindLogin {
    /// The file that bitcoind writes at each start.
    Cookie(PathBuf),
    /// A user of `rpcauth`, with the password in a file.
    User {
        /// The user's name.
        user: String,
        /// The file whose first line is the password.
        password_file: PathBuf,
    },
}

impl BitcoindConfig {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            url: section.checked_text("url", check_url),
            login: login(section),
            timeout: section.millis("timeout_ms", 100..=120_000, 10_000),
            poll: section.millis("poll_ms", 100..=60_000, 2_000),
            min_peers: section.integer32("min_peers", 0..=125, 1),
        }
    }
}

fn login(section: &mut Section<'_>) -> Option<BitcoindLogin> {
    let cookie = section.optional_path("cookie_file");
    let user = section.optional_text("user");
    let password = section.optional_path("password_file");
    match (cookie, user, password) {
        (Some(cookie), None, None) => Some(BitcoindLogin::Cookie(cookie)),
        (None, Some(user), Some(password_file)) => Some(BitcoindLogin::User { user, password_file }),
        (Some(_), _, _) => {
            let what = "stands beside user or password_file".to_owned();
            section.refuse("cookie_file", what, "there must be one way to log in");
            None
        }
        (None, user, _) => {
            let (key, what) = match user {
                Some(_) => ("password_file", "missing"),
                None => ("cookie_file", "missing"),
            };
            let why = "bitcoind wants a cookie_file, or a user and a password_file";
            section.refuse(key, what.to_owned(), why);
            None
        }
    }
}

fn check_url(url: &str) -> Result<(), String> {
    let rest = url.strip_prefix("http://").ok_or("it must begin with http://: bitcoind speaks no TLS")?;
    if rest.contains('@') {
        return Err("it must not hold credentials: use cookie_file or password_file".to_owned());
    }
    let address = rest.strip_suffix('/').unwrap_or(rest);
    address.parse::<super::HostPort>().map(|_| ()).map_err(|why| format!("after http://, {why}"))
}
