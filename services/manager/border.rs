//! What comes from a monitor is data from elsewhere: times and lengths that no calendar has would break whoever shows them.

mod times;

use prost::Message as _;
use prost_reflect::{DynamicMessage, ReflectMessage as _, Value};
use prost_types::{Duration, Timestamp};
use vantage_contract::{json, v1::ProbeResult};

/// The range of google.protobuf.Timestamp: the years 1 to 9999.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// The range of google.protobuf.Duration: about 10,000 years.
const DURATION_SECONDS: std::ops::RangeInclusive<i64> = -315_576_000_000..=315_576_000_000;
const NANOS: std::ops::RangeInclusive<i32> = -999_999_999..=999_999_999;

/// The result as it came where all its times and lengths are sound; otherwise without its report, its sub-results, its phases and what is
/// unsound. The run is accounted for either way.
pub(crate) fn admit(mut result: ProbeResult) -> ProbeResult {
    // The first look costs a tenth of the second, and is enough for all that comes from a sound monitor.
    if times::are_sound(&result.encode_to_vec()) || sound(&json::dynamic(&result)) {
        return result;
    }
    tracing::error!(
        monitor = result.monitor,
        check = result.check_name,
        run = result.run,
        "the monitor sent times out of range: they are left out, with the reports"
    );
    result.report = None;
    result.address_results.clear();
    result.phases.clear();
    for time in [&mut result.due_time, &mut result.start_time] {
        *time = time.filter(timestamp_is_sound);
    }
    for length in [&mut result.lateness, &mut result.duration, &mut result.latency] {
        *length = length.filter(duration_is_sound);
    }
    result
}

fn sound(message: &DynamicMessage) -> bool {
    match message.descriptor().full_name() {
        "google.protobuf.Duration" => message.transcode_to().is_ok_and(|duration| duration_is_sound(&duration)),
        "google.protobuf.Timestamp" => message.transcode_to().is_ok_and(|timestamp| timestamp_is_sound(&timestamp)),
        _ => message.fields().all(|(_, value)| value_is_sound(value)),
    }
}

fn value_is_sound(value: &Value) -> bool {
    match value {
        Value::Message(message) => sound(message),
        Value::List(values) => values.iter().all(value_is_sound),
        Value::Map(values) => values.values().all(value_is_sound),
        _ => true,
    }
}

fn timestamp_is_sound(timestamp: &Timestamp) -> bool {
    TIMESTAMP_SECONDS.contains(&timestamp.seconds) && NANOS.contains(&timestamp.nanos) && timestamp.nanos >= 0
}

fn duration_is_sound(duration: &Duration) -> bool {
    let signs_agree = duration.seconds.signum() * i64::from(duration.nanos.signum()) >= 0;
    DURATION_SECONDS.contains(&duration.seconds) && NANOS.contains(&duration.nanos) && signs_agree
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vantage_contract::v1::{Phase, PingReport, PingRequest, probe_result::Report};

    use super::*;

    fn result(round_trip: Duration) -> ProbeResult {
        let requests = vec![PingRequest { sequence: 0, round_trip: Some(round_trip), ..PingRequest::default() }];
        ProbeResult {
            check_name: "a".into(),
            due_time: Some(Timestamp { seconds: 1, nanos: 0 }),
            report: Some(Report::Ping(Box::new(PingReport { requests, ..PingReport::default() }))),
            ..ProbeResult::default()
        }
    }

    #[test]
    fn a_sound_result_is_not_touched() {
        let sound = result(Duration { seconds: -1, nanos: -5 });
        assert_eq!(admit(sound.clone()), sound);
    }

    #[test]
    fn a_length_out_of_range_deep_in_a_report_costs_the_report_and_not_the_manager() {
        for wrong in
            [Duration { seconds: i64::MAX, nanos: 0 }, Duration { seconds: 1, nanos: -1 }, Duration { seconds: 0, nanos: i32::MIN }]
        {
            let admitted = admit(result(wrong));
            assert_eq!(admitted, ProbeResult { report: None, ..result(wrong) });
            json::to_json(&admitted);
        }
    }

    #[test]
    fn what_is_unsound_in_a_sub_result_costs_the_sub_results() {
        let wrong = result(Duration { seconds: i64::MAX, nanos: 0 });
        let outer = ProbeResult { address_results: vec![result(Duration::default()), wrong], ..result(Duration::default()) };
        let admitted = admit(outer.clone());
        assert_eq!(admitted, ProbeResult { report: None, address_results: Vec::new(), ..outer });
        json::to_json(&admitted);
    }

    #[test]
    fn sub_results_of_sub_results_without_end_are_no_way_to_end_the_manager() {
        // As deep as the wire lets a monitor nest them.
        let mut deep = result(Duration::default());
        loop {
            let outer = ProbeResult { address_results: vec![deep.clone()], ..ProbeResult::default() };
            let Ok(read) = ProbeResult::decode(&*outer.encode_to_vec()) else { break };
            deep = read;
        }
        assert_eq!(admit(deep.clone()), deep);
        json::to_json(&deep);
    }

    #[test]
    fn instants_out_of_range_are_left_out_one_by_one() {
        let wrong = ProbeResult { start_time: Some(Timestamp { seconds: 1, nanos: -1 }), ..result(Duration::default()) };
        let admitted = admit(wrong);
        assert_eq!((admitted.start_time, admitted.due_time), (None, Some(Timestamp { seconds: 1, nanos: 0 })));
        json::to_json(&admitted);
    }

    proptest! {
        #[test]
        fn the_quick_look_and_the_thorough_one_agree(
            seconds in prop_oneof![Just(0), Just(-1), any::<i64>(), -400_000_000_000i64..400_000_000_000],
            nanos in prop_oneof![Just(0), Just(1), any::<i32>(), -1_100_000_000..1_100_000_000],
            place in 0..5,
        ) {
            let (time, length) = (Timestamp { seconds, nanos }, Duration { seconds, nanos });
            let mut wrong = result(Duration::default());
            match place {
                0 => wrong = result(length),
                1 => wrong.start_time = Some(time),
                2 => wrong.latency = Some(length),
                3 => wrong.address_results = vec![ProbeResult::default(), result(length)],
                _ => wrong.phases.push(Phase { duration: Some(length), ..Phase::default() }),
            }
            prop_assert_eq!(times::are_sound(&wrong.encode_to_vec()), sound(&json::dynamic(&wrong)));
        }
    }
}
