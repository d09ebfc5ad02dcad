//! One operation's way to the storage, with its bounds.

use std::error::Error as _;
use std::future::Future;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::path::Path as Key;
use object_store::{
    BackoffConfig, ClientOptions, Error, GetOptions, GetRange, ObjectMeta, ObjectStore as _, ObjectStoreExt as _,
    RetryConfig,
};
use secrecy::ExposeSecret as _;
use tokio::runtime::Runtime;

use super::{S3Address, S3Credentials};
use crate::backup::BackupError;

/// Longest time until there is a connection; less if a whole request may take less.
const MAX_CONNECT: Duration = Duration::from_secs(10);
/// Bytes of an answer that are shown: some storages send whole pages.
const MAX_SHOWN_BYTES: usize = 600;

/// Where the storage is, and how long it may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Settings {
    /// The bucket, and what keys in it begin with.
    pub place: S3Address,
    /// `https://host:port` of the storage, which is asked by path (`/bucket/key`); `None` is AWS itself.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// Whether the endpoint may be `http://`. Then backups, though no keys, can be read on their way.
    pub allow_http: bool,
    /// How long one request may take, of which each part of a backup is one.
    pub timeout: Duration,
    /// How often a request is sent again that failed in a way that may pass.
    pub retries: u32,
    /// The keys.
    pub credentials: S3Credentials,
}

/// Why there is no storage behind an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EndpointFault {
    /// It is not a URL of the web.
    #[error("it must begin with https:// (or http://, where that is allowed)")]
    Scheme,
    /// It is `http://`, and that is not allowed.
    #[error("a backup would travel unencrypted, unless http is allowed explicitly")]
    Plain,
    /// Something beside host and port.
    #[error("it must be a host and perhaps a port, without path, user or password")]
    Host,
}

impl S3Settings {
    /// Whether a text can be an endpoint.
    ///
    /// # Errors
    /// [`EndpointFault`].
    pub fn check_endpoint(endpoint: &str, allow_http: bool) -> Result<(), EndpointFault> {
        let plain = endpoint.strip_prefix("http://");
        let host = plain.or_else(|| endpoint.strip_prefix("https://")).ok_or(EndpointFault::Scheme)?;
        let host = host.strip_suffix('/').unwrap_or(host);
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b':' | b'[' | b']');
        if host.is_empty() || !host.bytes().all(fits) {
            return Err(EndpointFault::Host);
        }
        if plain.is_some() && !allow_http { Err(EndpointFault::Plain) } else { Ok(()) }
    }
}

/// The way to a bucket. It has a runtime of its own, which runs while somebody waits: callers block, and must not be
/// tasks of another runtime.
pub(super) struct Connection {
    pub(super) store: AmazonS3,
    place: S3Address,
    runtime: Runtime,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The rest knows the keys.
        f.debug_tuple("Connection").field(&self.place).finish()
    }
}

impl Connection {
    /// Reads the keys, and sends nothing yet.
    pub(super) fn open(settings: &S3Settings) -> Result<Self, BackupError> {
        let at = PathBuf::from(settings.place.to_string());
        let refused = |why: String| BackupError::io(&at, "connect to")(io::Error::other(why));
        if let Some(endpoint) = &settings.endpoint {
            S3Settings::check_endpoint(endpoint, settings.allow_http).map_err(|fault| refused(fault.to_string()))?;
        }
        // ring is the only provider of this program. It fails only if there is one already, which would be ring as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let keys = settings.credentials.read(|name| std::env::var(name).ok()).map_err(refused)?;
        let times = settings.retries.saturating_add(1);
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: usize::try_from(settings.retries).unwrap_or(usize::MAX),
            retry_timeout: settings.timeout.saturating_mul(times),
        };
        let client = ClientOptions::new()
            .with_timeout(settings.timeout)
            .with_connect_timeout(settings.timeout.min(MAX_CONNECT))
            .with_allow_http(settings.allow_http);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&settings.place.bucket)
            .with_region(&settings.region)
            .with_access_key_id(keys.id)
            .with_secret_access_key(keys.secret.expose_secret())
            .with_client_options(client)
            .with_retry(retry)
            // A bucket with object lock takes nothing without one.
            .with_checksum_algorithm(Checksum::SHA256)
            // One at a time: not every storage takes several in one request.
            .with_disable_bulk_delete(true);
        if let Some(token) = keys.token {
            builder = builder.with_token(token.expose_secret());
        }
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        let store = builder.build().map_err(|error| BackupError::io(&at, "connect to")(said(&error)))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(BackupError::io(&at, "connect to"))?;
        Ok(Self { store, place: settings.place.clone(), runtime })
    }

    /// Waits for requests.
    pub(super) fn wait<T>(&self, requests: impl Future<Output = T>) -> T {
        self.runtime.block_on(requests)
    }

    /// Waits for one that does something to what has this name.
    pub(super) fn ask<T>(
        &self,
        action: &'static str,
        name: &str,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, BackupError> {
        self.wait(request).map_err(|error| BackupError::io(&self.shown(name), action)(said(&error)))
    }

    /// The key of what has this name.
    pub(super) fn key(&self, name: &str) -> Key {
        self.place.key.split('/').chain([name]).filter(|part| !part.is_empty()).collect()
    }

    /// What it is called in messages.
    pub(super) fn shown(&self, name: &str) -> PathBuf {
        let slash = if name.is_empty() { "" } else { "/" };
        PathBuf::from(format!("{}{slash}{name}", self.place))
    }

    /// The object of this name, if there is one.
    pub(super) fn find(&self, name: &str) -> Result<Option<ObjectMeta>, BackupError> {
        let key = self.key(name);
        let look = async {
            match self.store.head(&key).await {
                Ok(found) => Ok(Some(found)),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.ask("look at", name, look)
    }

    /// Every object of the place itself, by name.
    pub(super) fn names(&self) -> Result<Vec<(String, ObjectMeta)>, BackupError> {
        let prefix = (!self.place.key.is_empty()).then(|| Key::from(self.place.key.as_str()));
        let listed = self.ask("list", "", self.store.list_with_delimiter(prefix.as_ref()))?;
        let named = |found: ObjectMeta| Some((found.location.filename()?.to_owned(), found));
        let mut names: Vec<_> = listed.objects.into_iter().filter_map(named).collect();
        names.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        Ok(names)
    }

    /// Some bytes of an object, as long as it is the one that was found.
    pub(super) async fn bytes(&self, key: Key, e_tag: Option<String>, range: Range<u64>) -> io::Result<Vec<u8>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let options = GetOptions { if_match: e_tag, range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
        let found = self.store.get_opts(&key, options).await.map_err(|error| said(&error))?;
        found.bytes().await.map(|bytes| bytes.to_vec()).map_err(|error| said(&error))
    }

    /// Removes what has this name.
    pub(super) fn remove(&self, name: &str) -> Result<(), BackupError> {
        self.ask("remove", name, self.store.delete(&self.key(name)))
    }
}

/// What the storage said, or why it said nothing, in a line.
pub(super) fn said(error: &Error) -> io::Error {
    let (kind, what) = match error {
        Error::NotFound { .. } => (io::ErrorKind::NotFound, "there is no such object, bucket or upload"),
        Error::PermissionDenied { .. } => {
            (io::ErrorKind::PermissionDenied, "the storage does not allow it with these keys")
        }
        Error::Unauthenticated { .. } => (io::ErrorKind::PermissionDenied, "the storage does not know these keys"),
        Error::Precondition { .. } => (io::ErrorKind::Other, "another object has taken its place meanwhile"),
        _ => (io::ErrorKind::Other, ""),
    };
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = (0..=MAX_SHOWN_BYTES.min(line.len())).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    let line = &line[..end];
    io::Error::new(kind, if what.is_empty() { line.to_owned() } else { format!("{what} ({line})") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_over_tls_unless_http_is_allowed() {
        use EndpointFault::{Host, Plain, Scheme};
        for (endpoint, allow_http, expected) in [
            ("https://s3.example.com", false, Ok(())),
            ("https://s3.example.com:9000/", false, Ok(())),
            ("https://[::1]:9000", false, Ok(())),
            ("http://127.0.0.1:9000", true, Ok(())),
            ("http://127.0.0.1:9000", false, Err(Plain)),
            ("s3.example.com", true, Err(Scheme)),
            ("ftp://s3.example.com", true, Err(Scheme)),
            ("https://", false, Err(Host)),
            ("https://user:secret@s3.example.com", false, Err(Host)),
            ("https://s3.example.com/path", false, Err(Host)),
        ] {
            assert_eq!(S3Settings::check_endpoint(endpoint, allow_http), expected, "{endpoint}");
        }
    }
}
