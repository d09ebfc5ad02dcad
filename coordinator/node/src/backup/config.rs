//! `[backup]`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use onespend_adapters::backup::{BackupDepot, FolderDepot, S3Address, S3Credentials, S3Depot, S3Settings};

use crate::config::Section;
use crate::metrics;

/// The region that storages which have none expect.
pub(crate) const DEFAULT_REGION: &str = "us-east-1";
/// How long one request to the storage may take, in milliseconds: a part of 8 MiB at 1.2 Mbit/s.
pub(crate) const DEFAULT_TIMEOUT_MS: u64 = 60_000;
/// How often a request is sent again.
pub(crate) const DEFAULT_RETRIES: u32 = 3;

/// `[backup]`: what this node does by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where scheduled backups go; none are made without it.
    pub place: Option<Place>,
    /// From one scheduled backup to the next.
    pub every: Duration,
    /// How many scheduled backups of this node are kept.
    pub keep: usize,
}

/// Where scheduled backups go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder.
    Folder(PathBuf),
    /// A bucket of S3-compatible storage.
    S3(S3Settings),
}

impl Place {
    /// The depot there.
    pub(crate) fn depot(&self) -> Arc<dyn BackupDepot> {
        match self {
            Self::Folder(folder) => Arc::new(FolderDepot::new(folder)),
            Self::S3(settings) => Arc::new(S3Depot::new(settings.clone())),
        }
    }
}

impl Config {
    /// Reads the section.
    pub fn read(section: &mut Section<'_>) -> Self {
        Self {
            place: place(section),
            every: section.millis("every_ms", 1_000..=2_592_000_000, 86_400_000),
            keep: usize::try_from(section.integer("keep", 1..=10_000, Some(14))).unwrap_or(usize::MAX),
        }
    }

    /// Where there is a schedule, its failures are counted from 0, on the first page of metrics already: Prometheus does
    /// not see a counter that comes with its first event as a rise.
    pub(crate) fn begin_counters(&self) {
        if self.place.is_some() {
            metrics::backups_begin();
        }
    }
}

fn place(section: &mut Section<'_>) -> Option<Place> {
    let folder = section.optional_path("folder");
    match (folder, s3(section)) {
        (Some(_), Some(_)) => {
            section.refuse("folder", "stands beside s3_bucket".to_owned(), "scheduled backups go to one place");
            None
        }
        (Some(folder), None) => Some(Place::Folder(folder)),
        (None, s3) => s3.map(Place::S3),
    }
}

fn s3(section: &mut Section<'_>) -> Option<S3Settings> {
    let bucket = section.optional_text("s3_bucket");
    let prefix = section.text("s3_prefix", Some(""));
    let endpoint = section.optional_text("s3_endpoint");
    let region = section.text("s3_region", Some(DEFAULT_REGION));
    let credentials = section.optional_path("s3_credentials_file");
    let allow_http = section.flag("s3_allow_http", false);
    let timeout = section.millis("s3_timeout_ms", 1_000..=600_000, DEFAULT_TIMEOUT_MS);
    let retries = section.integer32("s3_retries", 0..=10, DEFAULT_RETRIES);
    let Some(bucket) = bucket else {
        let lonely = [
            ("s3_prefix", !prefix.is_empty()),
            ("s3_endpoint", endpoint.is_some()),
            ("s3_credentials_file", credentials.is_some()),
        ];
        for (key, _) in lonely.iter().filter(|(_, set)| *set) {
            section.refuse(key, "stands without s3_bucket".to_owned(), "a bucket says where backups go");
        }
        return None;
    };
    if let Err(fault) = S3Address::check_bucket(&bucket) {
        section.refuse("s3_bucket", format!("{bucket:?} is not acceptable"), &fault.to_string());
    }
    if let Err(fault) = S3Address::check_prefix(&prefix) {
        section.refuse("s3_prefix", format!("{prefix:?} is not acceptable"), &fault.to_string());
    }
    // Whether http is allowed is another key's word: `config/rules.rs`.
    if let Some(Err(fault)) = endpoint.as_deref().map(|endpoint| S3Settings::check_endpoint(endpoint, true)) {
        section.refuse("s3_endpoint", "is no endpoint".to_owned(), &fault.to_string());
    }
    if let Err(why) = check_region(&region) {
        section.refuse("s3_region", format!("{region:?} is not acceptable"), why);
    }
    let place = S3Address { bucket, key: prefix };
    let credentials = credentials.map_or(S3Credentials::Environment, S3Credentials::File);
    Some(S3Settings { place, endpoint, region, allow_http, timeout, retries, credentials })
}

/// Whether requests can be signed for a region of this name.
pub(crate) fn check_region(region: &str) -> Result<(), &'static str> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let right = (1..=32).contains(&region.len()) && region.bytes().all(fits);
    if right { Ok(()) } else { Err("a region has 1 to 32 of a-z 0-9 - in its name") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::metrics::Metrics;

    /// `OnespendBackupTooOld` takes the counter for a schedule.
    #[test]
    fn failures_are_counted_from_0_where_there_is_a_schedule_and_only_there() {
        let page = |place: Option<Place>| {
            let metrics = Metrics::new().unwrap();
            let config = Config { place, every: Duration::from_hours(1), keep: 1 };
            metrics.record(|| config.begin_counters());
            metrics.render()
        };
        let counted = |page: &str| page.lines().any(|line| line == "onespend_backup_failures_total 0");
        let with = page(Some(Place::Folder("backups".into())));
        assert!(counted(&with), "{with}");
        let without = page(None);
        assert!(!without.contains("\nonespend_backup_failures_total"), "{without}");
    }
}
