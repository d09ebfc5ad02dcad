//! A folder that says how to reach a cluster and who calls, so that a command needs no other option.
//!
//! ```text
//! ca.pem                         the authority
//! client-NAME.pem, .key          or operator-NAME: one of them, else `--as client/NAME` says which
//! endpoints                      TOML: data = ["10.0.0.1:7800", …] and control = ["10.0.0.1:7801", …]
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::failure::Failure;
use crate::config::HostPort;
use crate::identity::Party;

/// What a profile says. All of it may be missing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Data ports.
    pub data: Vec<HostPort>,
    /// Control ports.
    pub control: Vec<HostPort>,
    /// The authority's certificate.
    pub ca: Option<PathBuf>,
    /// The caller's certificate.
    pub cert: Option<PathBuf>,
    /// The caller's private key.
    pub key: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Endpoints {
    data: Vec<String>,
    control: Vec<String>,
}

/// Which certificate of the folder to call with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<'a> {
    /// The only one; there must not be two.
    Only,
    /// This party's.
    Of(&'a Party),
    /// None: certificate and key are given otherwise.
    Elsewhere,
}

impl Profile {
    /// Reads a folder.
    ///
    /// # Errors
    /// The folder cannot be read, or it leaves a choice.
    pub fn open(folder: &Path, choice: Choice<'_>) -> Result<Self, Failure> {
        let callers = callers(folder)?;
        let stem = match choice {
            Choice::Only => only(callers, folder)?,
            Choice::Of(party) => Some(of(party, &callers, folder)?),
            Choice::Elsewhere => None,
        };
        let file = |end: &str| stem.as_ref().map(|stem| folder.join(format!("{stem}.{end}")));
        let endpoints = endpoints(&folder.join("endpoints"))?;
        Ok(Self {
            data: addresses(&endpoints.data, folder)?,
            control: addresses(&endpoints.control, folder)?,
            ca: Some(folder.join("ca.pem")).filter(|file| file.is_file()),
            cert: file("pem"),
            key: file("key"),
        })
    }
}

/// The stems of clients' and operators' certificates, in order.
fn callers(folder: &Path) -> Result<Vec<String>, Failure> {
    let wrong = |error: std::io::Error| {
        Failure::usage(format!("profile {}: {error}", folder.display()))
            .remedy("name a folder with --profile DIR or ONESPEND_PROFILE: `onespend pki issue` makes its certificates")
    };
    let mut stems = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrong)? {
        let name = entry.map_err(wrong)?.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(".pem"));
        stems.extend(
            stem.filter(|stem| stem.starts_with("client-") || stem.starts_with("operator-")).map(str::to_owned),
        );
    }
    stems.sort_unstable();
    Ok(stems)
}

fn only(mut stems: Vec<String>, folder: &Path) -> Result<Option<String>, Failure> {
    if stems.len() <= 1 {
        return Ok(stems.pop());
    }
    Err(Failure::usage(format!("profile {} holds several certificates", folder.display()))
        .with("certificates", names(&stems))
        .remedy("say which one to call with: --as CALLER or ONESPEND_AS"))
}

/// The stem of a caller's certificate, which must be there.
fn of(party: &Party, stems: &[String], folder: &Path) -> Result<String, Failure> {
    let stem = party.to_string().replacen('/', "-", 1);
    if stems.contains(&stem) {
        return Ok(stem);
    }
    let failure = Failure::usage(format!("profile {} holds no certificate of {party}", folder.display()));
    Err(match stems {
        [] => failure.remedy("issue one with `onespend pki issue client NAME --dir DIR`, or `… operator NAME …`"),
        _ => failure.with("certificates", names(stems)).remedy("choose one of these: --as CALLER or ONESPEND_AS"),
    })
}

/// The callers as they are named.
fn names(stems: &[String]) -> String {
    let names: Vec<String> = stems.iter().map(|stem| stem.replacen('-', "/", 1)).collect();
    names.join(", ")
}

fn endpoints(file: &Path) -> Result<Endpoints, Failure> {
    match std::fs::read_to_string(file) {
        Ok(text) => toml::from_str(&text).map_err(|error| {
            Failure::usage(format!("{}: {}", file.display(), error.message().replace('\n', ", ")))
                .remedy("it must read: data = [\"10.0.0.1:7800\"] and control = [\"10.0.0.1:7801\"]")
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Endpoints::default()),
        Err(error) => Err(Failure::usage(format!("{}: {error}", file.display()))),
    }
}

fn addresses(texts: &[String], folder: &Path) -> Result<Vec<HostPort>, Failure> {
    let wrong =
        |text: &str, why: String| Failure::usage(format!("{}: {text:?}: {why}", folder.join("endpoints").display()));
    texts.iter().map(|text| text.parse().map_err(|why| wrong(text, why))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::pki::{self, Kind};

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        pki::init(folder.path(), "demo").unwrap();
        pki::issue(folder.path(), Kind::Client, "payouts", &[], 10).unwrap();
        folder
    }

    #[test]
    fn the_only_certificate_is_taken() {
        let folder = folder();
        std::fs::write(folder.path().join("endpoints"), "data = ['a:1', 'b:2']\ncontrol = ['c:3']\n").unwrap();
        let profile = Profile::open(folder.path(), Choice::Only).unwrap();
        assert_eq!(profile.cert, Some(folder.path().join("client-payouts.pem")));
        assert_eq!(profile.key, Some(folder.path().join("client-payouts.key")));
        assert_eq!((profile.data.len(), profile.control.len()), (2, 1));
    }

    #[test]
    fn of_several_one_must_be_named() {
        let folder = folder();
        pki::issue(folder.path(), Kind::Operator, "alice", &[], 10).unwrap();
        let failure = Profile::open(folder.path(), Choice::Only).unwrap_err();
        assert!(failure.text().contains("client/payouts, operator/alice"), "{}", failure.text());
        let profile = Profile::open(folder.path(), Choice::Of(&Party::Operator("alice".to_owned()))).unwrap();
        assert_eq!(profile.cert, Some(folder.path().join("operator-alice.pem")));
        assert!(profile.data.is_empty());
        assert_eq!(Profile::open(folder.path(), Choice::Elsewhere).unwrap().cert, None);
        let nobody = Profile::open(folder.path(), Choice::Of(&Party::Client("nobody".to_owned()))).unwrap_err().text();
        assert!(nobody.contains("no certificate of client/nobody"), "{nobody}");
        assert!(nobody.contains("client/payouts, operator/alice"), "{nobody}");
    }

    #[test]
    fn a_broken_profile_is_named() {
        let text = Profile::open(Path::new("/no/such/folder"), Choice::Only).unwrap_err().text();
        assert!(text.contains("/no/such/folder") && text.contains("remedy: "), "{text}");
        let folder = folder();
        for text in ["data = 'a:1'", "data = ['a']", "dat = []", "="] {
            std::fs::write(folder.path().join("endpoints"), text).unwrap();
            let failure = Profile::open(folder.path(), Choice::Only).unwrap_err();
            assert!(failure.text().contains("endpoints"), "{text}: {}", failure.text());
        }
    }
}
