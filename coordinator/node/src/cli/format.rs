//! Amounts, times and hashes for people.

use std::time::{Duration, SystemTime};

/// `1,250,000 sat`.
pub fn sat(amount: i64) -> String {
    format!("{} sat", grouped(amount))
}

/// Digits in groups of three.
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    if number < 0 {
        text.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `2.5 sat/vB`.
pub fn feerate(sat_vb: f64) -> String {
    let text = format!("{sat_vb:.3}");
    format!("{} sat/vB", text.trim_end_matches('0').trim_end_matches('.'))
}

/// The two greatest units: `3 min 20 s`, `2 d 4 h`, `12 ms`.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let two = |big: u64, one: &str, small: u64, other: &str| match small {
        0 => format!("{big} {one}"),
        _ => format!("{big} {one} {small} {other}"),
    };
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "min", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// How long ago, or how far ahead.
pub fn ago(then: SystemTime) -> String {
    match SystemTime::now().duration_since(then) {
        Ok(past) if past.as_secs() == 0 => "just now".to_owned(),
        Ok(past) => format!("{} ago", span(past)),
        Err(ahead) => format!("in {}", span(ahead.duration())),
    }
}

/// How long ago a protobuf timestamp is; empty if it is unset or beyond any clock.
pub fn timestamp_ago(timestamp: Option<&prost_types::Timestamp>) -> String {
    timestamp.and_then(|then| SystemTime::try_from(*then).ok()).map(ago).unwrap_or_default()
}

/// A protobuf duration; negative ones, which nobody sends, are zero.
pub fn std_duration(duration: &prost_types::Duration) -> Duration {
    Duration::try_from(*duration).unwrap_or_default()
}

/// The first twelve characters of a hash: enough to recognise, too short to copy by mistake.
pub fn short(hash: &str) -> String {
    match hash.char_indices().nth(12) {
        Some((end, _)) => format!("{}…", &hash[..end]),
        None => hash.to_owned(),
    }
}

/// `1 wallet`, `2 wallets`.
pub fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_have_groups_and_a_unit() {
        let texts = [0, 7, 999, 1_000, 50_000, 2_100_000_000_000_000, -1_234].map(grouped);
        assert_eq!(texts, ["0", "7", "999", "1,000", "50,000", "2,100,000,000,000,000", "-1,234"]);
        assert_eq!(sat(1_000), "1,000 sat");
        assert_eq!(
            (feerate(2.5), feerate(10.0), feerate(0.1234)),
            ("2.5 sat/vB".into(), "10 sat/vB".into(), "0.123 sat/vB".into())
        );
    }

    #[test]
    fn spans_have_two_units() {
        let texts = [12, 1_000, 200_000, 3_600_000, 7_500_000, 187_200_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(texts, ["12 ms", "1 s", "3 min 20 s", "1 h", "2 h 5 min", "2 d 4 h"]);
        let now = SystemTime::now();
        assert_eq!(ago(now - Duration::from_secs(61)), "1 min 1 s ago");
        assert!(ago(now + Duration::from_secs(100)).starts_with("in 1 min"));
        assert_eq!(ago(now), "just now");
    }

    #[test]
    fn hashes_are_recognisable() {
        assert_eq!(short("00000000000000000abc"), "000000000000…");
        assert_eq!(short("abc"), "abc");
    }
}
