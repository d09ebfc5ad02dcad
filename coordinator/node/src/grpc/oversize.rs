//! Messages above the bound. tonic refuses them before any code of this service runs, with a bare `OUT_OF_RANGE`; here
//! that becomes an error with a reason like every other.

use tonic::codegen::http::Response;
use tonic::{Code, Status};

use super::status;

/// The answer, with a reason if it is tonic's refusal of a message above `max_bytes`.
pub(super) fn name<Body: Default>(answer: Response<Body>, max_bytes: usize) -> Response<Body> {
    // Only an answer that is nothing but a refusal has its status among the headers.
    match Status::from_header_map(answer.headers()) {
        Some(told) if is_refusal_of_size(&told, max_bytes) => status::message_too_large(max_bytes).into_http(),
        Some(_) | None => answer,
    }
}

/// The service itself never says `OUT_OF_RANGE`. The bound is compared because other services on the same port have
/// their own.
fn is_refusal_of_size(told: &Status, max_bytes: usize) -> bool {
    told.code() == Code::OutOfRange
        && told.details().is_empty()
        && told.message().contains(&format!("the limit is: {max_bytes} bytes"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use onespend_proto::v1::ErrorReason;
    use tonic_types::StatusExt;

    use super::*;

    fn named(told: Status) -> Status {
        let answer: Response<String> = name(told.into_http(), 100);
        Status::from_header_map(answer.headers()).unwrap()
    }

    /// The words are tonic's: `testnet/tests/bad_input` has them from a running node.
    fn too_large(limit: usize) -> Status {
        Status::out_of_range(format!(
            "Error, decoded message length too large: found 101 bytes, the limit is: {limit} bytes"
        ))
    }

    #[test]
    fn a_message_above_the_bound_is_refused_with_a_reason() {
        let told = named(too_large(100));
        assert_eq!(told.code(), Code::ResourceExhausted);
        assert!(status::is_for(&told, ErrorReason::MessageTooLarge), "{told:?}");
        assert_eq!(told.get_details_error_info().unwrap().metadata.get("max_bytes").unwrap(), "100");
    }

    #[test]
    fn other_answers_pass_as_they_are() {
        for told in [too_large(101), Status::out_of_range("something else"), status::no_quorum()] {
            let passed = named(told.clone());
            assert_eq!((passed.code(), passed.message()), (told.code(), told.message()));
        }
        let answer: Response<String> = name(Response::new("fine".to_owned()), 100);
        assert_eq!(answer.into_body(), "fine");
    }
}
