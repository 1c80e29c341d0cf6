//! From tree to message, led by the contract's descriptors: a new field or kind needs no line here.

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Field};

use super::{
    descriptor,
    error::{Problems, quote},
    node::{Member, Node, Value},
    scalar,
    words::{Place, suggestion},
};
use crate::{secret, v1};

/// Reads a file in its canonical shape. What is not understood is noted and left out.
pub(super) fn file(root: &Node, problems: &mut Problems) -> v1::CheckFile {
    let message = Reader { problems }.message(root, &descriptor::<v1::CheckFile>(), Place::File);
    #[expect(clippy::expect_used, reason = "message and descriptor come from the same .proto file, in the same build")]
    message.transcode_to().expect("a message fits its own descriptor")
}

struct Reader<'p> {
    problems: &'p mut Problems,
}

impl Reader<'_> {
    fn message(&mut self, node: &Node, descriptor: &MessageDescriptor, place: Place<'_>) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        // The member that has decided each oneof.
        let mut chosen: Vec<(String, &Member)> = Vec::new();
        for member in node.members().unwrap_or_default() {
            let Some(field) = descriptor.get_field_by_name(&member.name).filter(scalar::is_writable) else {
                self.unknown(member, node, descriptor, place);
                continue;
            };
            if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
                if let Some((_, first)) = chosen.iter().find(|(name, _)| name == oneof.name()) {
                    let sentence =
                        format!("{:?} in {place} excludes {:?} in line {}: give one of them", member.name, first.name, first.at.line);
                    self.problems.push(member.at, sentence);
                    continue;
                }
                chosen.push((oneof.name().to_owned(), member));
            }
            if let Some(value) = self.field(member, &field, place) {
                message.set_field(&field, value);
            }
        }
        message
    }

    /// The value of a field. `None`: it is not what the field takes, which has been noted.
    fn field(&mut self, member: &Member, field: &FieldDescriptor, place: Place<'_>) -> Option<Field> {
        if field.is_map() {
            return self.map(member, field, place);
        }
        if !field.is_list() {
            return self.value(&member.node, field, place, || place_within(field, &member.node));
        }
        let items = match &member.node.value {
            Value::List(items) => items.as_slice(),
            Value::Object(_) => return self.refuse(&member.node, field, place, "expected a list, found an object"),
            // One value for a list is a list of one.
            _ if scalar::is_scalar(&field.kind()) => std::slice::from_ref(&member.node),
            _ => return self.refuse(&member.node, field, place, &format!("expected a list, found {}", member.node.found())),
        };
        let values = items.iter().filter_map(|item| self.value(item, field, place, || place_within(field, item)));
        Some(Field::List(values.collect()))
    }

    fn map(&mut self, member: &Member, field: &FieldDescriptor, place: Place<'_>) -> Option<Field> {
        let Some(members) = member.node.members() else {
            let sentence = format!("expected an object of names and values, found {}", member.node.found());
            return self.refuse(&member.node, field, place, &sentence);
        };
        let mut map = HashMap::with_capacity(members.len());
        let messages = match field.kind() {
            Kind::Message(entry) => Some(entry.map_entry_value_field()).filter(|value| matches!(value.kind(), Kind::Message(_))),
            _ => None,
        };
        for member in members {
            if let Some(of) = &messages {
                if member.node.members().is_none() {
                    let sentence = format!("{} in {}: {}", quote(&member.name), field.name(), no_object(&member.node, of));
                    self.problems.push(member.node.at, sentence);
                } else if let Some(value) = self.value(&member.node, of, place, || Place::Field(&member.name)) {
                    map.insert(MapKey::String(member.name.to_string()), value);
                }
                continue;
            }
            match scalar::map_value(&member.node) {
                Some(text) => {
                    map.insert(MapKey::String(member.name.to_string()), Field::String(text));
                }
                None => {
                    let sentence = format!("{} in {}: expected text, found {}", quote(&member.name), field.name(), member.node.found());
                    self.problems.push(member.node.at, sentence);
                }
            }
        }
        Some(Field::Map(map))
    }

    /// One value, of a field or in its list.
    fn value<'n>(
        &mut self,
        node: &'n Node,
        field: &'n FieldDescriptor,
        place: Place<'_>,
        within: impl FnOnce() -> Place<'n>,
    ) -> Option<Field> {
        if let Kind::Message(message) = field.kind()
            && !scalar::is_scalar(&field.kind())
        {
            if node.members().is_none() {
                return self.refuse(node, field, place, &no_object(node, field));
            }
            // The fields of a probe are told as those of its check, beside which they usually stand.
            let within = if message.full_name() == "vantage.v1.Probe" { place } else { within() };
            return Some(Field::Message(self.message(node, &message, within)));
        }
        match scalar::value(node, field) {
            Ok(value) => Some(value),
            Err(_) if secret::is_secret(field.parent_message()) => {
                self.refuse(node, field, place, &format!("expected text, found {}", node.kind()))
            }
            Err(sentence) => self.refuse(node, field, place, &sentence),
        }
    }

    fn refuse<T>(&mut self, node: &Node, field: &FieldDescriptor, place: Place<'_>, sentence: &str) -> Option<T> {
        self.problems.push(node.at, format!("{:?} in {place}: {sentence}", field.name()));
        None
    }

    fn unknown(&mut self, member: &Member, node: &Node, descriptor: &MessageDescriptor, place: Place<'_>) {
        let mut known: Vec<String> = descriptor.fields().filter(scalar::is_writable).map(|field| field.name().to_owned()).collect();
        let mut hint = None;
        if let Place::Check(_) = place
            && let Some(Kind::Message(probe)) = descriptor.get_field_by_name("probe").map(|field| field.kind())
        {
            // The probe's fields stand beside the check's.
            known.retain(|name| name != "probe");
            known.extend(probe.fields().map(|field| field.name().to_owned()));
            hint = node.get("probe").and_then(|options| owner(&options.node, &probe, &member.name));
        }
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let hint = hint.unwrap_or_else(|| suggestion(&member.name, &known));
        self.problems.push(member.at, format!("unknown field {} in {place}; {hint}", quote(&member.name)));
    }
}

/// Why a value is not the object that a field takes. What stands where a secret should be may be one.
fn no_object(node: &Node, field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(message) if secret::is_secret(&message) => {
            format!("expected an object with \"file\", \"env\" or \"value\", found {}", node.kind())
        }
        _ => format!("expected an object, found {}", node.found()),
    }
}

/// Where the members of a field's object are.
fn place_within<'n>(field: &'n FieldDescriptor, node: &'n Node) -> Place<'n> {
    match field.kind() {
        Kind::Message(message) if message.full_name() == "vantage.v1.Check" => Place::Check(node),
        Kind::Message(message) if message.full_name() == "vantage.v1.MonitorAddress" => Place::Monitor(node),
        _ => Place::Field(field.name()),
    }
}

/// A hint that the field belongs into the kind of the check, if that has it.
fn owner(options: &Node, probe: &MessageDescriptor, name: &str) -> Option<String> {
    options.members()?.iter().find_map(|kind| match probe.get_field_by_name(&kind.name)?.kind() {
        Kind::Message(message) if message.get_field_by_name(name).is_some() => Some(format!("it belongs into {:?}", kind.name)),
        _ => None,
    })
}
