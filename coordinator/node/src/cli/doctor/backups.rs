//! Where scheduled backups go: does it take them? A node starts in any case, and its backups fail.

use std::path::Path;
use std::time::Duration;

use onespend_adapters::backup::{S3Depot, S3Settings};

use super::data_folder;
use super::findings::{Area, Findings};
use crate::backup::Place;

/// How long the storage may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries the place, if there is one.
pub fn check(place: Option<&Place>, findings: &mut Findings) {
    if findings.failed(Area::Backups) {
        return;
    }
    match place {
        None => findings.ok(Area::Backups, "this node makes none by itself: [backup] names no place"),
        Some(Place::Folder(folder)) => try_folder(folder, findings),
        Some(Place::S3(settings)) => ask_storage(settings, findings),
    }
}

/// Writes one small file there, under a name that no backup and no part of one has, and removes it again.
fn try_folder(folder: &Path, findings: &mut Findings) {
    let shown = folder.display();
    match data_folder::time_writes(folder, 1) {
        Ok(_) => findings.ok(Area::Backups, format!("{shown} takes files of this user")),
        Err(error) => findings.fail(
            Area::Backups,
            format!("{shown} takes no file: {error}"),
            "give it to the user that runs the node, mount it writable, make room; under systemd name it in \
             ReadWritePaths",
        ),
    }
}

/// Lists what is there. Whether it takes something only a backup tells.
fn ask_storage(settings: &S3Settings, findings: &mut Findings) {
    let place = &settings.place;
    let hasty = S3Settings { timeout: settings.timeout.min(PATIENCE), retries: 0, ..settings.clone() };
    match S3Depot::new(hasty).look() {
        Ok(objects) => {
            let what = format!("{place} answers and lists {objects} objects; that it takes new ones was not tried");
            findings.ok(Area::Backups, what);
        }
        Err(error) => findings.warn(
            Area::Backups,
            error.to_string(),
            "see s3_endpoint, s3_region and the keys, which need s3:ListBucket and what the book of operations lists",
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt as _;

    use onespend_adapters::backup::{S3Address, S3Credentials};

    use super::super::findings::Report;
    use super::*;
    use crate::cli::output::Show as _;

    fn tells(place: Option<&Place>, code: u8, words: &str) {
        let mut findings = Findings::default();
        check(place, &mut findings);
        let report = Report::of(findings);
        let text = report.text().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(report.exit().code() == code && text.contains(words), "{code} {words}: {:?} {text}", report.exit());
    }

    #[test]
    fn a_folder_that_takes_files_is_left_as_it_was() {
        tells(None, 0, "[backup] names no place");
        let folder = tempfile::tempdir().unwrap();
        tells(Some(&Place::Folder(folder.path().to_owned())), 0, "takes files of this user");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// For whoever runs the tests no folder may be read-only, so this is one where nobody may make a file.
    #[test]
    fn a_folder_that_takes_no_file_is_a_failure() {
        for nowhere in ["/proc", "/no/such/folder"] {
            tells(Some(&Place::Folder(nowhere.into())), 2, "takes no file");
        }
    }

    #[test]
    fn what_the_configuration_says_of_the_folder_is_not_said_again() {
        let mut findings = Findings::default();
        findings.fail(Area::Backups, "/mnt is not a folder", "no backup is made");
        check(Some(&Place::Folder("/no/such/folder".into())), &mut findings);
        assert!(Report::of(findings).text().ends_with("0 ok, 0 warnings, 1 failure"));
    }

    #[test]
    fn a_storage_that_does_not_answer_is_a_warning() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        fs::write(&keys, "aws_access_key_id = testing\naws_secret_access_key = testing\n").unwrap();
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
        let settings = S3Settings {
            place: S3Address::parse("s3://money/demo").unwrap(),
            endpoint: Some(format!("http://127.0.0.1:{port}")),
            region: "us-east-1".to_owned(),
            allow_http: true,
            timeout: Duration::from_mins(1),
            retries: 3,
            credentials: S3Credentials::File(keys),
        };
        tells(Some(&Place::S3(settings)), 1, "cannot list s3://money/demo");
    }
}
