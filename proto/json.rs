//! Messages as data: by descriptor, and as canonical JSON (<https://protobuf.dev/programming-guides/json/>).

use prost::Name;
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::Value;

use crate::descriptors;

/// The message as fields by number and name, for readers that don't know its type.
pub fn dynamic<M: Name>(message: &M) -> DynamicMessage {
    let name = M::full_name();
    #[expect(clippy::expect_used, reason = "message and descriptor come from the same .proto file, in the same build")]
    let descriptor = descriptors().get_message_by_name(&name).expect("a message of the contract has a descriptor");
    let mut dynamic = DynamicMessage::new(descriptor);
    #[expect(clippy::expect_used, reason = "message and descriptor come from the same .proto file, in the same build")]
    dynamic.transcode_from(message).expect("a message fits its own descriptor");
    dynamic
}

/// The message as canonical JSON with the field names of the .proto files.
///
/// Fields without presence are always there, also at their defaults, so that readers find the same columns in every line: `0` and `""`
/// mean what the contract says of them. Fields with presence (messages, `optional`) are left out where they are unset. 64-bit integers are
/// text, as the canonical form wants it.
pub fn to_json<M: Name>(message: &M) -> Value {
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
    #[expect(clippy::expect_used, reason = "values of well-known types out of range are made valid where they are made")]
    dynamic(message).serialize_with_options(serde_json::value::Serializer, &options).expect("a message of the contract has a JSON form")
}

#[cfg(test)]
mod tests {
    use super::to_json;
    use crate::v1::{Outcome, PingReport, ProbeResult, probe_result::Report};

    #[test]
    fn a_result_is_written_with_the_names_of_the_contract() {
        let result = ProbeResult {
            check_name: "google".into(),
            sequence: 7,
            outcome: Outcome::Passed.into(),
            latency: Some(prost_types::Duration { seconds: 0, nanos: 71_300_000 }),
            report: Some(Report::Ping(Box::new(PingReport { sent_count: 3, ..PingReport::default() }))),
            ..ProbeResult::default()
        };
        let json = to_json(&result);
        assert_eq!(json["check_name"], "google");
        assert_eq!(json["sequence"], "7");
        assert_eq!(json["outcome"], "OUTCOME_PASSED");
        assert_eq!(json["reason"], "REASON_UNSPECIFIED");
        assert_eq!(json["latency"], "0.071300s");
        assert_eq!(json["ping"]["sent_count"], 3);
        assert_eq!(json["ping"]["answered_count"], 0);
        assert!(json.get("due_time").is_none());
    }
}
