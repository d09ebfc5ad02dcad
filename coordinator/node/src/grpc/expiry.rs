//! When a reservation is to end. A duration says so by itself; a time of the wall clock only once it is compared with this
//! node's, and that is left to the moment of the decision: a request that was decided before must get its answer again
//! also when the time has come meanwhile, or when another leader's clock is ahead (safety 16, 27).

use std::time::SystemTime;

use onespend_core::ids::Millis;
use onespend_core::limits::{DEFAULT_RESERVATION_TTL, MAX_RESERVATION_LIFE, MIN_RESERVATION_TTL};
use tonic::Status;

use super::fields::{Fields, millis};

/// As the wire has it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expiration {
    For(prost_types::Duration),
    Until(prost_types::Timestamp),
}

/// As far as it can be judged without a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Within the bounds.
    For(Millis),
    /// Not compared with any clock yet.
    Until(SystemTime),
}

/// The field that is wrong, and why.
type Wrong = (&'static str, String);

impl Expiry {
    /// Without any it is the default.
    pub(super) fn read(asked: Option<Expiration>) -> Result<Self, Wrong> {
        match asked {
            None => Ok(Self::For(DEFAULT_RESERVATION_TTL)),
            Some(Expiration::For(ttl)) => fitting("ttl", whole_millis(&ttl)).map(Self::For),
            Some(Expiration::Until(time)) => instant(time).map(Self::Until).ok_or_else(|| {
                (
                    "expire_time",
                    "it is no time between the years 1970 and 9999, with 0 to 999999999 nanoseconds".to_owned(),
                )
            }),
        }
    }

    /// How long that is from now, by this node's wall clock.
    pub(crate) fn ttl(self) -> Result<Millis, Status> {
        self.ttl_at(crate::clock::wall())
    }

    fn ttl_at(self, now: SystemTime) -> Result<Millis, Status> {
        let time = match self {
            Self::For(ttl) => return Ok(ttl),
            Self::Until(time) => time,
        };
        let mut fields = Fields::default();
        let ttl = fitting("expire_time", time.duration_since(now).ok().map(millis));
        let ttl = ttl.map_err(|(field, why)| fields.fault(field, why)).ok();
        fields.finish(ttl)
    }
}

fn fitting(field: &'static str, ttl: Option<Millis>) -> Result<Millis, Wrong> {
    ttl.filter(|ttl| (MIN_RESERVATION_TTL..=MAX_RESERVATION_LIFE).contains(ttl)).ok_or_else(|| {
        let (min, max) = (MIN_RESERVATION_TTL.0 / 1000, MAX_RESERVATION_LIFE.0 / 1000);
        let given = ttl.map_or_else(|| "that is no time to come".to_owned(), |ttl| format!("{ttl} ms from now"));
        (field, format!("{given}: must be {min} s to {max} s from now"))
    })
}

/// Nanoseconds within a second, as both well-known types demand; `prost_types` would carry over or turn the sign.
const NANOS: std::ops::Range<i32> = 0..1_000_000_000;

/// A duration in milliseconds, unless it is negative or no duration.
pub(super) fn whole_millis(ttl: &prost_types::Duration) -> Option<Millis> {
    let nanos = Some(ttl.nanos).filter(|nanos| NANOS.contains(nanos))?;
    let (seconds, nanos) = (u64::try_from(ttl.seconds).ok()?, u64::try_from(nanos).ok()?);
    Some(Millis(seconds.saturating_mul(1000).saturating_add(nanos / 1_000_000)))
}

/// The last second that a timestamp may have (`google/protobuf/timestamp.proto`): the end of the year 9999.
const LAST_SECOND: i64 = 253_402_300_799;

fn instant(time: prost_types::Timestamp) -> Option<SystemTime> {
    let sound = NANOS.contains(&time.nanos) && (0..=LAST_SECOND).contains(&time.seconds);
    if sound { SystemTime::try_from(time).ok() } else { None }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, UNIX_EPOCH};

    use onespend_proto::v1::ErrorReason;

    use super::*;
    use crate::grpc::status;

    fn until(seconds: i64, nanos: i32) -> Result<Expiry, Wrong> {
        Expiry::read(Some(Expiration::Until(prost_types::Timestamp { seconds, nanos })))
    }

    #[test]
    fn a_duration_is_judged_at_once_and_a_time_when_it_is_used() {
        let lasting = |seconds, nanos| Expiry::read(Some(Expiration::For(prost_types::Duration { seconds, nanos })));
        assert_eq!(Expiry::read(None), Ok(Expiry::For(DEFAULT_RESERVATION_TTL)));
        assert_eq!(lasting(60, 5_000_000), Ok(Expiry::For(Millis(60_005))));
        for wrong in [lasting(0, 0), lasting(-1, 0), lasting(60, -1), lasting(i64::MAX, 0)] {
            assert_eq!(wrong.unwrap_err().0, "ttl");
        }
        for wrong in [until(100, -1), until(100, 1_000_000_000), until(-1, 0), until(LAST_SECOND + 1, 0)] {
            assert_eq!(wrong.unwrap_err().0, "expire_time");
        }
        until(0, 0).unwrap();
    }

    #[test]
    fn a_time_is_so_long_from_now_by_the_clock_of_the_moment() {
        let (expiry, at) = (until(1_000, 0).unwrap(), |seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(expiry.ttl_at(at(940)).unwrap(), Millis(60_000));
        for now in [1_000, 1_001, 2_000_000] {
            let refused = expiry.ttl_at(at(now)).unwrap_err();
            assert!(status::is_for(&refused, ErrorReason::FieldInvalid), "{refused}");
        }
        assert!(until(10_000_000, 0).unwrap().ttl_at(at(0)).is_err(), "too far away");
        assert_eq!(Expiry::For(Millis(7)).ttl_at(at(0)).unwrap(), Millis(7));
    }
}
