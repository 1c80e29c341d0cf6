//! How a stream or request is refused: canonical codes with `google.rpc` details.

use std::time::Duration;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

/// The request is not one; `field` and why are in the message and in the details.
pub(crate) fn invalid(field: &str, why: &str) -> Status {
    let details = ErrorDetails::with_bad_request_violation(field, why);
    Status::with_error_details(tonic::Code::InvalidArgument, format!("{field}: {why}"), details)
}

/// A limit of the monitor is reached.
pub(crate) fn exhausted(subject: &str, why: String) -> Status {
    let details = ErrorDetails::with_quota_failure_violation(subject, &why);
    Status::with_error_details(tonic::Code::ResourceExhausted, why, details)
}

/// The monitor is stopping: come back when another may stand in its place.
pub(crate) fn draining() -> Status {
    let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(1)));
    Status::with_error_details(tonic::Code::Unavailable, "the monitor is stopping", details)
}
