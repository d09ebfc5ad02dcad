//! How to be let in by bitcoind.

use std::path::PathBuf;

use bitcoin::base64::prelude::{BASE64_STANDARD, Engine as _};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::chain::ChainError;

/// Credentials for bitcoind's RPC. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub enum BitcoindAuth {
    /// The file `.cookie` that bitcoind writes at every start. It is read again whenever bitcoind refuses what it
    /// held before.
    CookieFile(PathBuf),
    /// `rpcauth=` (or `rpcuser=`/`rpcpassword=`) of bitcoind's configuration.
    UserPass {
        /// User name; must not contain a colon.
        user: String,
        /// Password.
        password: SecretString,
    },
}

impl BitcoindAuth {
    /// The value of the `Authorization: Basic` header, from the file as it is now.
    ///
    /// A cookie file that cannot be read is [`ChainError::Unauthorized`], because bitcoind removes it when it stops:
    /// it may be there later.
    pub(super) fn read(&self, method: &'static str) -> Result<SecretString, ChainError> {
        let plain = match self {
            Self::UserPass { user, password } => Zeroizing::new(format!("{user}:{}", password.expose_secret())),
            Self::CookieFile(path) => Zeroizing::new(std::fs::read_to_string(path).map_err(|error| {
                let detail = format!("cannot read the cookie file {}: {error}", path.display());
                ChainError::Unauthorized { method, asked: false, detail }
            })?),
        };
        Ok(BASE64_STANDARD.encode(plain.trim_end_matches(['\r', '\n'])).into())
    }

    /// Where the credentials come from, for people.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::CookieFile(path) => format!("cookie file {}", path.display()),
            Self::UserPass { user, .. } => format!("user {user:?} with a password"),
        }
    }

    /// Faults that no bitcoind can accept.
    pub(super) fn check(&self) -> Result<(), ChainError> {
        match self {
            Self::UserPass { user, .. } if user.is_empty() || user.contains(':') => {
                Err(ChainError::Config { detail: format!("user {user:?} must not be empty or contain a colon") })
            }
            _ => Ok(()),
        }
    }
}
