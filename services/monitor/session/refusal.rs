//! How a stream or request is refused: canonical codes with `google.rpc` details.

use std::{collections::HashMap, time::Duration};

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt};

/// The request is not one; `field` and why are in the message and in the details.
pub(crate) fn invalid(field: &str, why: &str) -> Status {
    let details = ErrorDetails::with_bad_request_violation(field, why);
    Status::with_error_details(tonic::Code::InvalidArgument, format!("{field}: {why}"), details)
}

/// What the details of errors say they are from (google.rpc.ErrorInfo).
const DOMAIN: &str = "vantage.v1";

/// Something of the monitor's is used up that no setting bounds.
pub(crate) fn exhausted(subject: &str, why: String) -> Status {
    let details = ErrorDetails::with_quota_failure_violation(subject, &why);
    Status::with_error_details(tonic::Code::ResourceExhausted, why, details)
}

/// A limit of the monitor's is reached: `setting` is its name in the settings file ("limits.clients"), `value` what it is set to, and `what`
/// what there may be so many of ("clients that this monitor knows"). Message and details name all of them.
pub(crate) fn limit(subject: &str, setting: &str, value: impl ToString, what: &str) -> Status {
    let value = value.to_string();
    let why = format!("the limit of {what} is reached: {value} ({setting} in the monitor's settings)");
    let mut details = ErrorDetails::with_quota_failure_violation(subject, &why);
    let metadata = HashMap::from([("setting".to_owned(), setting.to_owned()), ("limit".to_owned(), value)]);
    details.set_error_info("LIMIT_REACHED", DOMAIN, metadata);
    Status::with_error_details(tonic::Code::ResourceExhausted, why, details)
}

/// A request could not be read: it is too long, or garbage.
pub(crate) fn unreadable(status: &Status, limit_bytes: usize) -> Status {
    if status.code() == tonic::Code::OutOfRange {
        return limit("request", "limits.request_bytes", limit_bytes, "bytes of one request");
    }
    invalid("request", &format!("can't be read: {}", status.message()))
}

/// The monitor is stopping: come back when another may stand in its place.
pub(crate) fn draining() -> Status {
    let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(1)));
    Status::with_error_details(tonic::Code::Unavailable, "the monitor is stopping", details)
}
