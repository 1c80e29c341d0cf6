//! A result as a person reads it: the verdict, where the time went, and the report field by field, as its descriptor names them.

use std::fmt::Write as _;

use jiff::tz::TimeZone;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, ReflectMessage, Value};
use prost_types::{Duration, Timestamp};
use vantage_contract::{
    json,
    v1::{Attribution, ProbeResult, TimingSource},
};

use crate::{
    human,
    tables::{plain, printable, text},
};

/// The longest bar, in characters.
const BAR: u128 = 40;

/// The whole result.
pub(super) fn result(result: &ProbeResult, zone: &TimeZone) -> String {
    let outcome = human::words(result.outcome().as_str_name(), "OUTCOME_");
    let mut out = format!("{outcome}: {}\n", printable(&result.summary));
    let mut facts = vec![format!("{} {}", printable(&result.kind), printable(&result.target))];
    if !result.address.is_empty() {
        facts.push(printable(&result.address));
    }
    if result.reason != 0 {
        facts.push(human::words(result.reason().as_str_name(), "REASON_"));
    }
    if result.attribution() != Attribution::Unspecified {
        facts.push(format!("fault: {}", human::words(result.attribution().as_str_name(), "ATTRIBUTION_")));
    }
    if let Some(latency) = &result.latency {
        let source = match result.timing_source() {
            TimingSource::Unspecified => String::new(),
            source => format!(" ({} stamps)", human::words(source.as_str_name(), "TIMING_SOURCE_")),
        };
        facts.push(format!("latency {}{source}", human::duration(latency)));
    }
    let from = result.start_time.as_ref().map(|at| format!(" at {}", human::instant(at, zone))).unwrap_or_default();
    facts.push(format!("from {}{from}", printable(&result.monitor)));
    let _ = writeln!(out, "{}", facts.join(" · "));
    phases(result, &mut out);
    report(result, "report", zone, &mut out);
    if !result.address_results.is_empty() {
        addresses(&result.address_results, &mut out);
        for address in &result.address_results {
            report(address, &format!("report of {}", printable(&address.address)), zone, &mut out);
        }
    }
    out
}

/// What the kind saw, below a title.
fn report(result: &ProbeResult, title: &str, zone: &TimeZone, out: &mut String) {
    for (field, value) in json::dynamic(result).fields() {
        if let (Some("report"), Value::Message(report)) = (field.containing_oneof().as_ref().map(|oneof| oneof.name()), value) {
            let _ = writeln!(out, "\n{title}");
            message(report, 1, zone, out);
        }
    }
}

/// The sub-results, a line for each address.
fn addresses(results: &[ProbeResult], out: &mut String) {
    let mut table = plain(&["", "", "", ""], &[2]);
    for result in results {
        let outcome = human::words(result.outcome().as_str_name(), "OUTCOME_");
        let latency = result.latency.as_ref().map_or_else(|| "-".to_owned(), human::duration);
        table.add_row([format!("  {}", printable(&result.address)), outcome, latency, printable(&result.summary)]);
    }
    out.push_str("\naddresses\n");
    out.extend(text(&table).lines().skip(1).map(|line| format!("{line}\n")));
}

fn phases(result: &ProbeResult, out: &mut String) {
    let nanos = |duration: &Option<Duration>| {
        let duration = duration.unwrap_or_default();
        u128::try_from(duration.seconds).unwrap_or(0) * 1_000_000_000 + u128::try_from(duration.nanos).unwrap_or(0)
    };
    let whole = nanos(&result.duration).max(1);
    let mut table = plain(&["", "", ""], &[1]);
    let rows = result.phases.iter().map(|phase| (phase.name.as_str(), &phase.duration)).chain([("in all", &result.duration)]);
    for (name, duration) in rows {
        let bar = usize::try_from((nanos(duration) * BAR).div_ceil(whole).min(BAR)).unwrap_or(0);
        table.add_row([format!("  {}", printable(name)), human::duration(&duration.unwrap_or_default()), "▪".repeat(bar)]);
    }
    out.push_str("\ntime\n");
    out.extend(text(&table).lines().skip(1).map(|line| format!("{line}\n")));
}

/// Each field on a line; messages and lists of them below their name.
fn message(shown: &DynamicMessage, depth: usize, zone: &TimeZone, out: &mut String) {
    let indent = "  ".repeat(depth);
    let is_line =
        |field: &FieldDescriptor| !matches!(field.kind(), Kind::Message(message) if !is_scalar(message.full_name())) && !field.is_map();
    let width = shown.descriptor().fields().filter(is_line).map(|field| field.name().len()).max().unwrap_or(0);
    for field in shown.descriptor().fields() {
        // Without presence a zero says something; what has presence and is unset says nothing, nor does an empty text or list.
        let value = shown.get_field(&field);
        let empty = match value.as_ref() {
            Value::String(text) => text.is_empty(),
            Value::List(list) => list.is_empty(),
            Value::Map(map) => map.is_empty(),
            _ => field.supports_presence() && !shown.has_field(&field),
        };
        if empty {
            continue;
        }
        match value.as_ref() {
            Value::Message(inner) if !is_scalar(inner.descriptor().full_name()) => {
                let _ = writeln!(out, "{indent}{}", field.name());
                message(inner, depth + 1, zone, out);
            }
            Value::List(items) if matches!(items.first(), Some(Value::Message(_))) => {
                let _ = writeln!(out, "{indent}{}", field.name());
                rows(items, &indent, zone, out);
            }
            value => {
                let _ = writeln!(out, "{indent}{:width$}  {}", field.name(), cell(value, &field, zone));
            }
        }
    }
}

/// A list of messages: a row for each, a column for each field that one of them has.
fn rows(items: &[Value], indent: &str, zone: &TimeZone, out: &mut String) {
    let messages: Vec<_> = items.iter().filter_map(Value::as_message).collect();
    let Some(first) = messages.first() else { return };
    let columns: Vec<_> = first.descriptor().fields().filter(|field| messages.iter().any(|message| message.has_field(field))).collect();
    let numbers: Vec<_> = columns.iter().enumerate().filter(|(_, field)| is_number(field)).map(|(index, _)| index).collect();
    let names: Vec<_> = columns.iter().map(|field| field.name().to_owned()).collect();
    let mut table = plain(&names, &numbers);
    for message in messages {
        table.add_row(columns.iter().map(|field| match message.has_field(field) || !field.supports_presence() {
            true => cell(message.get_field(field).as_ref(), field, zone),
            false => "-".to_owned(),
        }));
    }
    out.extend(text(&table).lines().map(|line| format!("{indent}  {line}\n")));
}

/// A value on one line; messages as their values, in parentheses where they stand within others.
fn cell(value: &Value, field: &FieldDescriptor, zone: &TimeZone) -> String {
    match value {
        Value::String(text) => printable(text),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        Value::I32(number) => number.to_string(),
        Value::I64(number) => number.to_string(),
        Value::U32(number) => with_unit(u64::from(*number), field),
        Value::U64(number) => with_unit(*number, field),
        Value::F32(number) => number.to_string(),
        Value::F64(number) => number.to_string(),
        Value::Bytes(bytes) => human::bytes(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
        Value::EnumNumber(number) => match field.kind() {
            Kind::Enum(values) => enum_words(&values, *number),
            _ => number.to_string(),
        },
        Value::List(items) => items.iter().map(|item| cell(item, field, zone)).collect::<Vec<_>>().join(", "),
        Value::Map(map) => {
            let mut pairs: Vec<_> =
                map.iter().map(|(key, value)| format!("{}={}", key.as_str().unwrap_or_default(), cell(value, field, zone))).collect();
            pairs.sort();
            printable(&pairs.join(", "))
        }
        Value::Message(inner) => match inner.descriptor().full_name() {
            "google.protobuf.Duration" => inner.transcode_to::<Duration>().map(|taken| human::duration(&taken)).unwrap_or_default(),
            "google.protobuf.Timestamp" => inner.transcode_to::<Timestamp>().map(|at| human::instant(&at, zone)).unwrap_or_default(),
            // Of several times one wants to know which is which.
            _ if inner.descriptor().fields().all(|field| is_time(&field)) => {
                let values = inner.fields().map(|(field, value)| format!("{} {}", field.name(), cell(value, &field, zone)));
                values.collect::<Vec<_>>().join(", ")
            }
            _ => {
                let values = inner.fields().map(|(field, value)| match value {
                    Value::Message(nested) if !is_scalar(nested.descriptor().full_name()) => format!("({})", cell(value, &field, zone)),
                    value => cell(value, &field, zone),
                });
                values.collect::<Vec<_>>().join(" ")
            }
        },
    }
}

fn with_unit(number: u64, field: &FieldDescriptor) -> String {
    if field.name().ends_with("_bytes") && number >= 1024 { format!("{number} ({})", human::bytes(number)) } else { number.to_string() }
}

/// "UDP_PORT_STATE_OPEN" is "open": what the values have in common with the unspecified one says nothing.
fn enum_words(values: &prost_reflect::EnumDescriptor, number: i32) -> String {
    let prefix = values.values().find_map(|value| value.name().strip_suffix("UNSPECIFIED").map(str::to_owned)).unwrap_or_default();
    values.get_value(number).map_or_else(|| number.to_string(), |value| human::words(value.name(), &prefix))
}

fn is_scalar(message: &str) -> bool {
    message.starts_with("google.protobuf.")
}

fn is_time(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(message) if message.full_name() == "google.protobuf.Duration") && !field.is_list()
}

fn is_number(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(_) => is_time(field),
        Kind::String | Kind::Bytes | Kind::Bool | Kind::Enum(_) => false,
        _ => !field.is_list(),
    }
}

#[cfg(test)]
mod tests;
