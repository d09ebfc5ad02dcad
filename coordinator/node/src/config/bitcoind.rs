//! How this node reaches its own bitcoind.

use std::path::PathBuf;
use std::time::Duration;

use onespend_adapters::chain::BitcoindAuth;

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

impl BitcoindLogin {
    /// How the adapter logs in. The password is read now, the cookie whenever it is needed.
    ///
    /// # Errors
    /// The file with the password cannot be read; named, for people.
    pub fn auth(&self) -> Result<BitcoindAuth, String> {
        match self {
            Self::Cookie(path) => Ok(BitcoindAuth::CookieFile(path.clone())),
            Self::User { user, password_file } => {
                let text = std::fs::read_to_string(password_file)
                    .map_err(|error| format!("bitcoind.password_file {}: {error}", password_file.display()))?;
                let password = text.lines().next().unwrap_or_default();
                Ok(BitcoindAuth::UserPass { user: user.clone(), password: password.to_owned().into() })
            }
        }
    }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use onespend_adapters::chain::BitcoindAuth;

    use super::*;

    #[test]
    fn a_password_is_the_first_line_as_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        let password_file = folder.path().join("password");
        let login = BitcoindLogin::User { user: "u".to_owned(), password_file: password_file.clone() };
        assert!(login.auth().unwrap_err().contains("password"));
        std::fs::write(&password_file, "pass word \r\n# a note\n").unwrap();
        let BitcoindAuth::UserPass { user, password } = login.auth().unwrap() else { panic!("another way") };
        assert_eq!((user.as_str(), secrecy::ExposeSecret::expose_secret(&password)), ("u", "pass word "));
    }
}
