//! The keys to the storage, from the environment or a file.

use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};

use crate::secret_file;

/// What the keys are called, in the environment and, in either case, in a file.
const NAMES: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];

/// Where the keys to the storage are. No secret is part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum S3Credentials {
    /// In `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, for keys that expire, `AWS_SESSION_TOKEN`.
    Environment,
    /// In a file that its owner alone may read, with lines `aws_access_key_id = …` and so on, as the tools of AWS write
    /// it for one profile.
    File(PathBuf),
}

/// The keys.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) id: String,
    pub(super) secret: SecretString,
    pub(super) token: Option<SecretString>,
}

impl S3Credentials {
    /// Looks whether the keys are there.
    ///
    /// # Errors
    /// In words: what is missing, or why a file is refused.
    pub fn check(&self, environment: impl Fn(&str) -> Option<String>) -> Result<(), String> {
        self.read(environment).map(drop)
    }

    pub(super) fn read(&self, environment: impl Fn(&str) -> Option<String>) -> Result<Keys, String> {
        match self {
            Self::Environment => {
                let set = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
                let needed = |name: &str| set(name).ok_or_else(|| format!("the variable {name} is not set"));
                Ok(Keys {
                    id: needed(NAMES[0])?,
                    secret: needed(NAMES[1])?.into(),
                    token: set(NAMES[2]).map(SecretString::from),
                })
            }
            Self::File(path) => {
                let text = secret_file::read(path).map_err(|why| format!("{}: {why}", path.display()))?;
                parse(&text).map_err(|why| format!("{}: {why}", path.display()))
            }
        }
    }
}

/// Lines `name = value`; what else stands there, as for a region, is left alone. One profile, whose name does not matter.
fn parse(text: &str) -> Result<Keys, String> {
    let mut found: [Option<SecretString>; 3] = [None, None, None];
    let mut profiles = 0;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if line.starts_with('[') {
            profiles += 1;
            if profiles > 1 {
                return Err(format!("line {}: a second profile; only one may be there", at + 1));
            }
            continue;
        }
        // The line is not repeated: it may be a secret.
        let (name, value) = line.split_once('=').ok_or_else(|| format!("line {}: no `name = value`", at + 1))?;
        let (name, value) = (name.trim().to_ascii_uppercase(), value.trim());
        if let Some(nth) = NAMES.iter().position(|known| *known == name)
            && found[nth].replace(SecretString::from(value.to_owned())).is_some()
        {
            return Err(format!("line {}: {} again", at + 1, name.to_ascii_lowercase()));
        }
    }
    let [id, secret, token] = found.map(|value| value.filter(|value| !value.expose_secret().is_empty()));
    let missing = |name: &str| format!("{} is missing", name.to_ascii_lowercase());
    let id = id.ok_or_else(|| missing(NAMES[0]))?;
    Ok(Keys { id: id.expose_secret().to_owned(), secret: secret.ok_or_else(|| missing(NAMES[1]))?, token })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn shown(keys: &Keys) -> (&str, &str, Option<&str>) {
        (&keys.id, keys.secret.expose_secret(), keys.token.as_ref().map(SecretString::expose_secret))
    }

    #[test]
    fn the_environment_must_have_both_keys_and_may_have_a_token() {
        let with = |set: &[(&str, &str)]| {
            let set: Vec<(String, String)> =
                set.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
            let look = move |name: &str| set.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
            S3Credentials::Environment.read(look)
        };
        let two = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];
        assert_eq!(shown(&with(&two).unwrap()), ("id", "secret", None));
        let three = [&two[..], &[("AWS_SESSION_TOKEN", "token")]].concat();
        assert_eq!(shown(&with(&three).unwrap()), ("id", "secret", Some("token")));
        assert!(with(&two[..1]).unwrap_err().contains("AWS_SECRET_ACCESS_KEY is not set"));
        assert!(with(&[("AWS_ACCESS_KEY_ID", " ")]).unwrap_err().contains("AWS_ACCESS_KEY_ID is not set"));
    }

    #[test]
    fn a_file_is_read_as_the_tools_of_aws_write_it_and_must_not_be_open_to_others() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("credentials");
        let read = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            S3Credentials::File(path.clone()).read(|_| None)
        };
        let text = "# ours\n[default]\naws_access_key_id = id\naws_secret_access_key=se=cret\nregion = x\n";
        assert_eq!(shown(&read(text, 0o600).unwrap()), ("id", "se=cret", None));
        let variables = "AWS_ACCESS_KEY_ID=id\nAWS_SECRET_ACCESS_KEY=secret\nAWS_SESSION_TOKEN=token\n";
        assert_eq!(shown(&read(variables, 0o400).unwrap()), ("id", "secret", Some("token")));
        for (text, mode, why) in [
            (text, 0o644, "chmod 600"),
            (text, 0o640, "others may read"),
            ("aws_access_key_id = id\n", 0o600, "aws_secret_access_key is missing"),
            ("aws_access_key_id =\naws_secret_access_key = s\n", 0o600, "aws_access_key_id is missing"),
            ("hush\n", 0o600, "line 1: no"),
            ("[a]\n[b]\n", 0o600, "line 2: a second profile"),
            ("aws_access_key_id = a\naws_access_key_id = b\n", 0o600, "line 2: aws_access_key_id again"),
        ] {
            let refused = read(text, mode).unwrap_err();
            assert!(refused.contains(why) && refused.contains("credentials"), "{refused}");
            assert!(!refused.contains("hush"), "{refused}");
        }
        assert!(S3Credentials::File(at.path().join("none")).read(|_| None).is_err());
    }

    #[test]
    fn keys_are_not_shown() {
        let keys = parse("aws_access_key_id = id\naws_secret_access_key = hush\naws_session_token = hush\n").unwrap();
        assert!(!format!("{keys:?}").contains("hush"));
    }
}
