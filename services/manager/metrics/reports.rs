//! The numbers of reports, by descriptor. Which there are is read from the contract once: a kind that is added there has its figures
//! without a line here.
//!
//! A figure is called `vantage_<kind>_<field>_<unit>`; the fields of nested messages are joined by `_`. Numbers are as they are; durations
//! are in `_seconds`, instants in `_timestamp_seconds` since 1970, booleans are 0 or 1, and an enumeration has a series for each of its
//! values, named by the label `value`, with 1 for the one that is. Text and repeated fields have none. A field with presence that is unset
//! has no series; other fields always have one. The help is the first sentence of the field's comment in the contract.

use std::{collections::BTreeMap, sync::LazyLock};

use prometheus_client::registry::Unit;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use vantage_contract::{descriptors, json, v1::ProbeResult};

use super::{
    checks::seconds,
    sheet::{Labels, Sheet, with},
};
use crate::words::Words;

/// How deep nested messages are followed. The contract's reports nest two deep; a message that holds itself must not hold us.
const DEPTH: usize = 4;

/// One number of a report.
pub(super) struct Figure {
    /// The fields that lead to it.
    path: Vec<FieldDescriptor>,
    /// Its name without the unit.
    pub(super) name: String,
    unit: Option<Unit>,
    help: String,
    shape: Shape,
}

enum Shape {
    Number,
    Duration,
    Timestamp,
    Enumeration(Words),
}

/// The figures of each kind, by the field's number in `ProbeResult`.
pub(super) static FIGURES: LazyLock<BTreeMap<u32, Vec<Figure>>> = LazyLock::new(|| {
    let result = descriptors().get_message_by_name("vantage.v1.ProbeResult");
    let report = result.and_then(|result| result.oneofs().find(|oneof| oneof.name() == "report"));
    let Some(report) = report else { return BTreeMap::new() };
    let of_kind = |field: FieldDescriptor| {
        let mut figures = Vec::new();
        if let Kind::Message(message) = field.kind() {
            walk(&message, &format!("vantage_{}", field.name()), &[], &mut figures);
        }
        (field.number(), figures)
    };
    report.fields().map(of_kind).collect()
});

/// Adds the numbers of a result's report.
pub(super) fn write(result: &ProbeResult, common: &Labels, sheet: &mut Sheet) {
    let result = json::dynamic(result);
    for (number, figures) in FIGURES.iter() {
        if !result.has_field_by_number(*number) {
            continue;
        }
        let Some(report) = result.get_field_by_number(*number) else { continue };
        let Value::Message(report) = &*report else { continue };
        for figure in figures {
            if let Some(value) = read(report, &figure.path) {
                figure.write(&value, common, sheet);
            }
        }
    }
}

impl Figure {
    fn write(&self, value: &Value, common: &Labels, sheet: &mut Sheet) {
        let mut gauge = |labels, number| sheet.gauge(&self.name, self.unit.clone(), &self.help, labels, number);
        match (&self.shape, value) {
            (Shape::Enumeration(words), Value::EnumNumber(number)) => {
                for (other, word) in words.all() {
                    gauge(with(common, [("value", &word)]), if other == *number { 1.0 } else { 0.0 });
                }
            }
            (Shape::Duration | Shape::Timestamp, Value::Message(message)) => gauge(common.clone(), time(message)),
            (Shape::Number, value) => {
                if let Some(number) = number(value) {
                    gauge(common.clone(), number);
                }
            }
            _ => {}
        }
    }
}

/// Finds the figures of a message.
fn walk(message: &MessageDescriptor, prefix: &str, path: &[FieldDescriptor], figures: &mut Vec<Figure>) {
    if path.len() >= DEPTH {
        return;
    }
    for field in message.fields().filter(|field| !field.is_list() && !field.is_map()) {
        let (name, path) = (format!("{prefix}_{}", field.name()), [path, std::slice::from_ref(&field)].concat());
        let (name, unit, shape) = match field.kind() {
            Kind::String | Kind::Bytes => continue,
            Kind::Message(message) => match message.full_name() {
                "google.protobuf.Duration" => (name, Some(Unit::Seconds), Shape::Duration),
                "google.protobuf.Timestamp" => {
                    (format!("{}_timestamp", name.trim_end_matches("_time")), Some(Unit::Seconds), Shape::Timestamp)
                }
                _ => {
                    walk(&message, &name, &path, figures);
                    continue;
                }
            },
            Kind::Enum(values) => (name, None, Shape::Enumeration(Words::of(values))),
            // A unit in the field's name is the figure's unit, and not said twice.
            _ => match name.strip_suffix("_bytes") {
                Some(name) => (name.to_owned(), Some(Unit::Bytes), Shape::Number),
                None => (name, None, Shape::Number),
            },
        };
        figures.push(Figure { help: comment(&field), path, name, unit, shape });
    }
}

/// The value at the end of a path. None where something on the way is unset.
fn read(message: &DynamicMessage, path: &[FieldDescriptor]) -> Option<Value> {
    let (field, rest) = path.split_first()?;
    if field.supports_presence() && !message.has_field(field) {
        return None;
    }
    let value = message.get_field(field);
    match (&*value, rest) {
        (value, []) => Some(value.clone()),
        (Value::Message(message), rest) => read(message, rest),
        _ => None,
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(truth) => Some(if *truth { 1.0 } else { 0.0 }),
        Value::I32(number) => Some(f64::from(*number)),
        Value::U32(number) => Some(f64::from(*number)),
        // Exact up to 2^53.
        Value::I64(number) => Some(*number as f64),
        Value::U64(number) => Some(*number as f64),
        Value::F32(number) => Some(f64::from(*number)),
        Value::F64(number) => Some(*number),
        _ => None,
    }
}

/// A duration, or an instant since 1970, in seconds: both messages have the same two fields.
fn time(message: &DynamicMessage) -> f64 {
    let whole = message.get_field_by_name("seconds").and_then(|value| value.as_i64()).unwrap_or_default();
    let nanos = message.get_field_by_name("nanos").and_then(|value| value.as_i32()).unwrap_or_default();
    seconds(whole, nanos)
}

/// The first sentence of a field's comment in the contract.
fn comment(field: &FieldDescriptor) -> String {
    let file = field.parent_message().parent_file();
    let locations = file.file_descriptor_proto().source_code_info.as_ref().map(|info| info.location.as_slice()).unwrap_or_default();
    let comment = locations.iter().find(|location| location.path == field.path()).map(|location| location.leading_comments());
    let words = comment.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    match words.split_once(". ") {
        Some((first, _)) => format!("{first}."),
        None if words.is_empty() => format!("{} of the newest report.", field.name()),
        None => words,
    }
}
