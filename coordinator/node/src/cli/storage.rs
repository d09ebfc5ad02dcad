//! Backups that the command line takes: files, and objects of S3-compatible storage.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use onespend_adapters::backup::{
    Backup, BackupDepot, BackupError, FolderDepot, S3Address, S3Credentials, S3Depot, S3Settings,
};

use super::failure::Failure;
use crate::backup::{DEFAULT_REGION, DEFAULT_RETRIES, DEFAULT_TIMEOUT_MS, check_region};

/// Opens a backup, which may take a while.
pub(super) type Opening = Box<dyn FnOnce() -> Result<Backup, BackupError>>;

/// The storage that addresses of the form s3://BUCKET/… are of.
#[derive(Debug, Args)]
#[allow(clippy::struct_field_names, reason = "they stand among all other options, and --endpoint is another one")]
pub struct Storage {
    /// Endpoint of the storage that s3:// is of [default: AWS in the region]
    #[arg(long, value_name = "URL", env = "AWS_ENDPOINT_URL", help_heading = "S3-compatible storage")]
    s3_endpoint: Option<String>,
    /// Region that requests are signed for
    #[arg(
        long,
        value_name = "REGION",
        env = "AWS_REGION",
        default_value = DEFAULT_REGION,
        help_heading = "S3-compatible storage"
    )]
    s3_region: String,
    /// File with the keys, readable by you alone [default: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN]
    #[arg(long, value_name = "FILE", help_heading = "S3-compatible storage")]
    s3_credentials: Option<PathBuf>,
    /// Take an endpoint that begins with http://: backups travel unencrypted
    #[arg(long, help_heading = "S3-compatible storage")]
    s3_allow_http: bool,
}

impl Storage {
    /// What opens a backup.
    ///
    /// # Errors
    /// It is an address, and wrong, or one of the arguments about its storage is.
    pub(super) fn backup(&self, at: &Path) -> Result<Opening, Failure> {
        let Some(address) = address(at)? else {
            let file = at.to_owned();
            return Ok(Box::new(move || Backup::open(&file)));
        };
        let (place, name) = address.into_place_and_name().map_err(|fault| wrong(at, &fault))?;
        let depot = S3Depot::new(self.settings(place)?);
        Ok(Box::new(move || depot.open(&name)))
    }

    /// A folder, or a part of a bucket.
    ///
    /// # Errors
    /// As [`Storage::backup`].
    pub(super) fn depot(&self, at: &Path) -> Result<Box<dyn BackupDepot>, Failure> {
        Ok(match address(at)? {
            None => Box::new(FolderDepot::new(at)),
            Some(place) => Box::new(S3Depot::new(self.settings(place)?)),
        })
    }

    fn settings(&self, place: S3Address) -> Result<S3Settings, Failure> {
        let endpoint = self.s3_endpoint.clone().filter(|endpoint| !endpoint.is_empty());
        if let Some(endpoint) = &endpoint {
            // It is not repeated: it may hold a password.
            S3Settings::check_endpoint(endpoint, self.s3_allow_http).map_err(|fault| {
                let failure = Failure::usage(format!("the endpoint is none: {fault}"));
                failure.remedy("use https, or add --s3-allow-http where nobody else can listen")
            })?;
        }
        check_region(&self.s3_region).map_err(|why| Failure::usage(format!("--s3-region: {why}")))?;
        let credentials = self.s3_credentials.clone().map_or(S3Credentials::Environment, S3Credentials::File);
        credentials.check(|name| std::env::var(name).ok()).map_err(|why| {
            let failure = Failure::usage(format!("no keys to the storage: {why}"));
            failure.remedy("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a file: --s3-credentials FILE")
        })?;
        Ok(S3Settings {
            place,
            endpoint,
            region: self.s3_region.clone(),
            allow_http: self.s3_allow_http,
            timeout: Duration::from_millis(DEFAULT_TIMEOUT_MS),
            retries: DEFAULT_RETRIES,
            credentials,
        })
    }
}

/// The address, if it is meant as one.
fn address(at: &Path) -> Result<Option<S3Address>, Failure> {
    let text = at.to_str().filter(|text| S3Address::is_meant(text));
    text.map(|text| S3Address::parse(text).map_err(|fault| wrong(at, &fault))).transpose()
}

fn wrong(at: &Path, fault: &dyn std::fmt::Display) -> Failure {
    Failure::usage(format!("{} is no address: {fault}", at.display()))
}
