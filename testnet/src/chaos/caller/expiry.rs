//! For how long a caller wants a reservation: as a time to live, or until a time of the wall clock. Of the latter the
//! leader makes a time to live by its own clock, and that is one that a fault makes wrong.

use std::time::{Duration, SystemTime};

use onespend_proto::v1::{renew_reservation_request, reserve_utxos_request};

use crate::chaos::operation::Operation;

pub(super) fn of_reservation(operation: &Operation) -> reserve_utxos_request::Expiration {
    use reserve_utxos_request::Expiration;
    if operation.until_a_time {
        Expiration::ExpireTime(time(operation.ttl_ms))
    } else {
        Expiration::Ttl(ttl(operation.ttl_ms))
    }
}

pub(super) fn of_renewal(operation: &Operation) -> renew_reservation_request::Expiration {
    use renew_reservation_request::Expiration;
    if operation.until_a_time {
        Expiration::ExpireTime(time(operation.ttl_ms))
    } else {
        Expiration::Ttl(ttl(operation.ttl_ms))
    }
}

fn ttl(ttl_ms: u64) -> prost_types::Duration {
    prost_types::Duration::try_from(Duration::from_millis(ttl_ms)).unwrap_or_default()
}

/// So far from now, by the clock of this machine.
fn time(ttl_ms: u64) -> prost_types::Timestamp {
    let now = SystemTime::now();
    prost_types::Timestamp::from(now.checked_add(Duration::from_millis(ttl_ms)).unwrap_or(now))
}
