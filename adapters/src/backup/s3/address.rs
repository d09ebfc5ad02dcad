//! `s3://bucket/prefix/name`, and which names are taken.

use std::fmt;

/// What an address begins with.
const SCHEME: &str = "s3://";
/// Bytes of the longest key that S3 has.
const MAX_KEY_BYTES: usize = 1024;
/// Of which a backup's own name takes less than this.
const MAX_PREFIX_BYTES: usize = MAX_KEY_BYTES - 256;

/// Where in a bucket: a backup, or where backups are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Address {
    /// The bucket.
    pub bucket: String,
    /// What follows it, without a slash at either end; may be empty.
    pub key: String,
}

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// It begins with something else.
    #[error("it must begin with s3://")]
    Scheme,
    /// No bucket can be called so.
    #[error("a bucket has 3 to 63 of a-z 0-9 . - in its name, and a letter or digit at both ends")]
    Bucket,
    /// Storages disagree about other keys, so none is taken.
    #[error(
        "a prefix has parts of A-Z a-z 0-9 . _ - with one / between two of them, no . or .. among them, and at most 768 bytes"
    )]
    Prefix,
    /// It ends with the bucket.
    #[error("it names no backup: s3://BUCKET/PREFIX/NAME")]
    NoName,
}

impl S3Address {
    /// Whether a text is meant as an address, and not as a path.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// Reads an address. A slash at its end means nothing.
    ///
    /// # Errors
    /// [`AddressFault`].
    pub fn parse(text: &str) -> Result<Self, AddressFault> {
        let rest = text.strip_prefix(SCHEME).ok_or(AddressFault::Scheme)?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        let key = key.strip_suffix('/').unwrap_or(key);
        Self::check_bucket(bucket)?;
        Self::check_prefix(key)?;
        Ok(Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }

    /// Whether a bucket can be called so.
    ///
    /// # Errors
    /// [`AddressFault::Bucket`]. The rule is that of
    /// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>.
    pub fn check_bucket(bucket: &str) -> Result<(), AddressFault> {
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = bucket.as_bytes();
        let ends = bytes.first().is_some_and(|byte| word(*byte)) && bytes.last().is_some_and(|byte| word(*byte));
        let all = bytes.iter().all(|byte| word(*byte) || matches!(byte, b'.' | b'-'));
        let fits = (3..=63).contains(&bytes.len());
        if ends && all && fits && !bucket.contains("..") { Ok(()) } else { Err(AddressFault::Bucket) }
    }

    /// Whether keys may begin so. The empty one is fine.
    ///
    /// # Errors
    /// [`AddressFault::Prefix`].
    pub fn check_prefix(prefix: &str) -> Result<(), AddressFault> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain);
        let right = prefix.is_empty() || (prefix.len() <= MAX_PREFIX_BYTES && prefix.split('/').all(part));
        if right { Ok(()) } else { Err(AddressFault::Prefix) }
    }

    /// Of a backup: where backups are, and its name there.
    ///
    /// # Errors
    /// [`AddressFault::NoName`].
    pub fn into_place_and_name(self) -> Result<(Self, String), AddressFault> {
        let Self { bucket, key } = self;
        let (prefix, name) = key.rsplit_once('/').unwrap_or(("", &key));
        if name.is_empty() {
            return Err(AddressFault::NoName);
        }
        let name = name.to_owned();
        Ok((Self { bucket, key: prefix.to_owned() }, name))
    }
}

impl fmt::Display for S3Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.bucket)?;
        if self.key.is_empty() { Ok(()) } else { write!(f, "/{}", self.key) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_is_a_bucket_and_what_follows_it() {
        let of = |bucket: &str, key: &str| S3Address { bucket: bucket.to_owned(), key: key.to_owned() };
        for (text, expected) in [
            ("s3://money", of("money", "")),
            ("s3://money/", of("money", "")),
            ("s3://money/a/b_c/d.backup", of("money", "a/b_c/d.backup")),
            ("s3://money.example-1/a/", of("money.example-1", "a")),
        ] {
            assert_eq!(S3Address::parse(text), Ok(expected), "{text}");
        }
        assert_eq!(of("money", "a/b").to_string(), "s3://money/a/b");
        let (place, name) = of("money", "a/b/c").into_place_and_name().unwrap();
        assert_eq!((place, name.as_str()), (of("money", "a/b"), "c"));
        let (place, name) = of("money", "c").into_place_and_name().unwrap();
        assert_eq!((place, name.as_str()), (of("money", ""), "c"));
        assert_eq!(of("money", "").into_place_and_name(), Err(AddressFault::NoName));
    }

    #[test]
    fn what_storages_disagree_about_is_no_address() {
        use AddressFault::{Bucket, Prefix, Scheme};
        for (text, fault) in [
            ("money/a", Scheme),
            ("S3://money", Scheme),
            ("s3://", Bucket),
            ("s3://ab", Bucket),
            ("s3://Money", Bucket),
            ("s3://-money", Bucket),
            ("s3://a..b", Bucket),
            ("s3://user:secret@money", Bucket),
            ("s3://money//a", Prefix),
            ("s3://money/a//b", Prefix),
            ("s3://money/a/../b", Prefix),
            ("s3://money/a b", Prefix),
            ("s3://money/a?b", Prefix),
        ] {
            assert_eq!(S3Address::parse(text), Err(fault), "{text}");
        }
        assert!(
            S3Address::check_prefix(&"a".repeat(768)).is_ok() && S3Address::check_prefix(&"a".repeat(769)).is_err()
        );
    }
}
