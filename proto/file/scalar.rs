//! Single values: which of those that JSON and YAML can write a field takes.
//!
//! Types are strict: the text "80" is no number, and the number 80 no text, but for the few fields whose values people write as numbers.

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Field};

use super::{
    error::quote,
    node::{Member, Node, Value},
    words::{either, suggestion},
};
use crate::duration::{self, DurationError};

/// Text fields that take a whole number as well, as it is written: DNS numbers its types, classes and response codes, and so many
/// addresses may be required.
pub(super) const NUMBERS_AS_TEXT: &[&str] = &["type", "class", "rcodes", "require"];

/// Values of enums that have another spelling in files beside their own short name.
pub(super) const SPELLINGS: &[(&str, &str)] =
    &[("ANY", "ADDRESS_FAMILY_UNSPECIFIED"), ("4", "ADDRESS_FAMILY_IPV4"), ("6", "ADDRESS_FAMILY_IPV6")];

/// Whether a value of this kind is written as one value, rather than as an object.
pub(super) fn is_scalar(kind: &Kind) -> bool {
    match kind {
        Kind::Message(message) => is_duration(message.full_name()) || is_timestamp(message.full_name()) || is_json(message.full_name()),
        _ => true,
    }
}

pub(super) fn is_duration(message: &str) -> bool {
    message == "google.protobuf.Duration"
}

pub(super) fn is_timestamp(message: &str) -> bool {
    message == "google.protobuf.Timestamp"
}

/// Whether it stands for whatever JSON can say.
pub(super) fn is_json(message: &str) -> bool {
    message == "google.protobuf.Value"
}

/// Whether files can say it at all: bytes they can't.
pub(super) fn is_writable(field: &FieldDescriptor) -> bool {
    field.kind() != Kind::Bytes
}

/// The value as the field's kind has it, or the end of a sentence that says why it is none.
pub(super) fn value(node: &Node, field: &FieldDescriptor) -> Result<Field, String> {
    if let Kind::Message(message) = field.kind()
        && is_json(message.full_name())
    {
        return json(node, &message).map(Field::Message);
    }
    if let Value::Null = node.value {
        return Err("has no value; give one, or leave the field out".into());
    }
    match field.kind() {
        Kind::Bool => match node.value {
            Value::Bool(value) => Ok(Field::Bool(value)),
            _ => Err(expected("true or false", node)),
        },
        Kind::String => text(node, field),
        Kind::Uint32 | Kind::Fixed32 => whole(node, 0, u32::MAX.into()).and_then(|n| u32::try_from(n).map(Field::U32).map_err(odd)),
        Kind::Uint64 | Kind::Fixed64 => whole(node, 0, u64::MAX.into()).and_then(|n| u64::try_from(n).map(Field::U64).map_err(odd)),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            whole(node, i32::MIN.into(), i32::MAX.into()).and_then(|n| i32::try_from(n).map(Field::I32).map_err(odd))
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            whole(node, i64::MIN.into(), i64::MAX.into()).and_then(|n| i64::try_from(n).map(Field::I64).map_err(odd))
        }
        Kind::Double => number(node).map(Field::F64),
        #[expect(clippy::cast_possible_truncation, reason = "a field of single precision takes the nearest")]
        Kind::Float => number(node).map(|number| Field::F32(number as f32)),
        Kind::Enum(values) => choice(node, &values),
        Kind::Bytes => Err("bytes can't be written in a file of checks".into()),
        Kind::Message(message) if is_duration(message.full_name()) => length(node, message),
        Kind::Message(message) if is_timestamp(message.full_name()) => instant(node, message),
        Kind::Message(_) => Err(expected("one value", node)),
    }
}

/// The value of a label or a header: text, or what is as good as text, as it is written.
pub(super) fn map_value(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) | Value::Number(text) => Some(text.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::List(_) | Value::Object(_) => None,
    }
}

fn expected(what: &str, node: &Node) -> String {
    format!("expected {what}, found {}", node.found())
}

/// For numbers whose range has been checked.
fn odd(error: std::num::TryFromIntError) -> String {
    error.to_string()
}

fn text(node: &Node, field: &FieldDescriptor) -> Result<Field, String> {
    match &node.value {
        Value::Text(text) => Ok(Field::String(text.to_string())),
        Value::Number(number) if NUMBERS_AS_TEXT.contains(&field.name()) && number.bytes().all(|byte| byte.is_ascii_digit()) => {
            Ok(Field::String(number.to_string()))
        }
        Value::Number(_) | Value::Bool(_) => Err(format!("{}; put it in quotes", expected("text", node))),
        _ => Err(expected("text", node)),
    }
}

fn whole(node: &Node, least: i128, most: i128) -> Result<i128, String> {
    const WHAT: &str = "a whole number";
    let Value::Number(number) = &node.value else { return Err(without_quotes(WHAT, node)) };
    let digits = number.strip_prefix('-').unwrap_or(number);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(expected(WHAT, node));
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return Err(format!("{}; some would read it as octal", expected("a whole number without a leading zero", node)));
    }
    match number.parse::<i128>() {
        Ok(value) if value < 0 && least == 0 => Err(format!("must not be negative, is {value}")),
        Ok(value) if (least..=most).contains(&value) => Ok(value),
        _ => Err(expected(&format!("{WHAT} from {least} to {most}"), node)),
    }
}

fn number(node: &Node) -> Result<f64, String> {
    let Value::Number(number) = &node.value else { return Err(without_quotes("a number", node)) };
    number.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| expected("a number", node))
}

fn without_quotes(what: &str, node: &Node) -> String {
    let hint = if node.text().is_some_and(|text| text.parse::<f64>().is_ok()) { "; leave the quotes away" } else { "" };
    format!("{}{hint}", expected(what, node))
}

fn length(node: &Node, descriptor: MessageDescriptor) -> Result<Field, String> {
    let (read, said) = match &node.value {
        Value::Text(text) => (duration::parse(text), quote(text)),
        Value::Number(number) => (duration::parse_seconds(number), number.to_string()),
        _ => return Err(expected("a duration (\"250ms\", \"1m 30s\", or a number of seconds)", node)),
    };
    read.map(|length| moment(descriptor, length.seconds, length.nanos)).map_err(|error: DurationError| format!("{said} {error}"))
}

fn instant(node: &Node, descriptor: MessageDescriptor) -> Result<Field, String> {
    let instant = node.text().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let instant = instant.ok_or_else(|| expected("a time as in RFC 3339 (\"2026-11-22T08:19:05Z\")", node))?;
    // Before 1970 the crate counts nanoseconds backwards, protobuf never does.
    let (mut seconds, mut nanos) = (instant.as_second(), instant.subsec_nanosecond());
    if nanos < 0 {
        (seconds, nanos) = (seconds - 1, nanos + 1_000_000_000);
    }
    Ok(moment(descriptor, seconds, nanos))
}

/// A Duration or a Timestamp: both have seconds as field 1 and nanoseconds as field 2.
fn moment(descriptor: MessageDescriptor, seconds: i64, nanos: i32) -> Field {
    let mut message = DynamicMessage::new(descriptor);
    message.set_field_by_number(1, Field::I64(seconds));
    message.set_field_by_number(2, Field::I32(nanos));
    Field::Message(message)
}

/// Anything, as `google.protobuf.Value` has it.
fn json(node: &Node, descriptor: &MessageDescriptor) -> Result<DynamicMessage, String> {
    let part = |message: &MessageDescriptor, field: &str| match message.get_field_by_name(field).map(|field| field.kind()) {
        Some(Kind::Message(inner)) => Ok(inner),
        _ => Err(format!("the contract has no {field}")),
    };
    let (field, value) = match &node.value {
        Value::Null => ("null_value", Field::EnumNumber(0)),
        Value::Bool(value) => ("bool_value", Field::Bool(*value)),
        Value::Number(_) => ("number_value", Field::F64(number(node)?)),
        Value::Text(text) => ("string_value", Field::String(text.to_string())),
        Value::List(items) => {
            let mut list = DynamicMessage::new(part(descriptor, "list_value")?);
            let values = items.iter().map(|item| json(item, descriptor).map(Field::Message)).collect::<Result<_, _>>()?;
            list.set_field_by_name("values", Field::List(values));
            ("list_value", Field::Message(list))
        }
        Value::Object(members) => {
            let mut object = DynamicMessage::new(part(descriptor, "struct_value")?);
            let named = |member: &Member| {
                Ok::<_, String>((MapKey::String(member.name.to_string()), Field::Message(json(&member.node, descriptor)?)))
            };
            let fields = members.iter().map(named).collect::<Result<HashMap<_, _>, _>>()?;
            object.set_field_by_name("fields", Field::Map(fields));
            ("struct_value", Field::Message(object))
        }
    };
    let mut message = DynamicMessage::new(descriptor.clone());
    message.set_field_by_name(field, value);
    Ok(message)
}

fn choice(node: &Node, values: &EnumDescriptor) -> Result<Field, String> {
    let (Value::Text(said) | Value::Number(said)) = &node.value else {
        return Err(expected(&either(&strs(&short_names(values))), node));
    };
    let plain = said.trim().to_ascii_uppercase().replace(['.', '-', ' '], "_");
    let prefix = prefix(values);
    let spelled = SPELLINGS.iter().filter(|(other, _)| *other == plain).find_map(|(_, name)| values.get_value_by_name(name));
    let found =
        spelled.or_else(|| values.values().find(|value| value.name() == plain || value.name().strip_prefix(&prefix) == Some(&plain)));
    match found {
        Some(value) => Ok(Field::EnumNumber(value.number())),
        None => Err(format!("unknown value {}; {}", quote(said), suggestion(said, &strs(&short_names(values))))),
    }
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// What all names of the enum begin with: "HTTP_VERSION_".
fn prefix(values: &EnumDescriptor) -> String {
    let default = values.default_value();
    default.name().strip_suffix("UNSPECIFIED").unwrap_or_default().to_owned()
}

/// The values as people write them, without the one that stands for "not said": "udp", "1.1".
pub(super) fn short_names(values: &EnumDescriptor) -> Vec<String> {
    let prefix = prefix(values);
    let any = SPELLINGS.iter().find(|(_, name)| *name == values.default_value().name()).map(|(spelling, _)| spelling.to_lowercase());
    let named = values.values().filter(|value| value.number() != 0).map(|value| {
        let short = value.name().strip_prefix(&prefix).unwrap_or(value.name()).to_lowercase();
        if short.starts_with(|c: char| c.is_ascii_digit()) { short.replace('_', ".") } else { short }
    });
    any.into_iter().chain(named).collect()
}

/// All names that a value may go by, in any case.
pub(super) fn names(values: &EnumDescriptor) -> Vec<String> {
    let spelled = SPELLINGS.iter().filter(|(_, name)| values.get_value_by_name(name).is_some()).map(|(other, _)| (*other).to_owned());
    let full = values.values().map(|value| value.name().to_owned());
    let prefix = prefix(values);
    let short = values.values().filter_map(|value| value.name().strip_prefix(&prefix).map(|short| short.replace('_', ".")));
    spelled.chain(full).chain(short).collect()
}

#[cfg(test)]
mod tests {
    use prost_reflect::Value as Field;

    use super::value;
    use crate::{
        file::{
            descriptor,
            error::Position,
            node::{Node, Value},
        },
        v1,
    };

    fn read(field: &str, value_: Value) -> Result<Field, String> {
        let field = descriptor::<v1::Certificate>().get_field_by_name(field).unwrap();
        value(&Node { at: Position::START, value: value_ }, &field)
    }

    #[test]
    fn a_time_is_read_as_rfc_3339_has_it() {
        let time = |text: &str| {
            let Field::Message(time) = read("not_before_time", Value::Text(text.into()))? else { return Err("no message".into()) };
            let time: prost_types::Timestamp = time.transcode_to().unwrap();
            Ok((time.seconds, time.nanos))
        };
        assert_eq!(time("2026-11-22T08:19:05Z"), Ok((1_795_335_545, 0)));
        assert_eq!(time("2026-11-22T09:19:05.25+01:00"), Ok((1_795_335_545, 250_000_000)));
        assert_eq!(time("1969-12-31T23:59:59.75Z"), Ok((-1, 750_000_000)));
        let problem = "expected a time as in RFC 3339 (\"2026-11-22T08:19:05Z\"), found the text \"today\"";
        assert_eq!(time("today"), Err(problem.to_owned()));
        assert!(read("not_before_time", Value::Number("5".into())).is_err());
    }
}
