//! The JSON Schema of the file of checks, for editors: the contract's descriptors and comments in another dress.

use std::collections::HashMap;

use prost_reflect::{EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::{descriptor, flat, scalar, shape};
use crate::{descriptors, v1};

/// Fields without which a message says nothing, by the message.
const REQUIRED: &[(&str, &str)] = &[("CheckFile", "checks"), ("MonitorAddress", "address"), ("Check", "name")];

/// The schema (draft 2020-12) of what [`load`](super::load) reads: both forms of a check, and the short ways of writing. Names without
/// regard to case, and what only the reader can judge, as that names are unique, it leaves open.
pub fn json_schema() -> Value {
    let mut schema = Schema { comments: comments(), definitions: Map::new() };
    let file = schema.message(&descriptor::<v1::CheckFile>());
    let mut definitions = schema.definitions;
    if let Some(properties) = definitions.get_mut("CheckFile").and_then(|file| file.get_mut("properties")).and_then(Value::as_object_mut) {
        properties.insert("$schema".into(), json!({ "type": "string", "description": "For editors: where this schema is." }));
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Vantage: a file of checks",
        "anyOf": [file, { "type": "array", "items": { "$ref": "#/$defs/Check" }, "minItems": 1 }],
        "$defs": definitions,
    })
}

/// The comments of the contract's files, by file and path (descriptor.proto, SourceCodeInfo).
fn comments() -> HashMap<(String, Vec<i32>), String> {
    let mut comments = HashMap::new();
    for file in descriptors().files() {
        for location in file.file_descriptor_proto().source_code_info.iter().flat_map(|info| &info.location) {
            if let Some(comment) = &location.leading_comments {
                let words: Vec<&str> = comment.split_whitespace().collect();
                comments.insert((file.name().to_owned(), location.path.clone()), words.join(" "));
            }
        }
    }
    comments
}

struct Schema {
    comments: HashMap<(String, Vec<i32>), String>,
    definitions: Map<String, Value>,
}

impl Schema {
    fn comment(&self, file: &FileDescriptor, path: &[i32]) -> &str {
        self.comments.get(&(file.name().to_owned(), path.to_owned())).map_or("", String::as_str)
    }

    /// A reference to the message, which is defined by the way.
    fn message(&mut self, message: &MessageDescriptor) -> Value {
        let name = message.name().to_owned();
        if !self.definitions.contains_key(&name) {
            // Holds the place, so that messages may contain themselves.
            self.definitions.insert(name.clone(), Value::Null);
            let definition = if message.full_name() == "vantage.v1.Check" { self.check(message) } else { self.object(message) };
            self.definitions.insert(name.clone(), definition);
        }
        json!({ "$ref": format!("#/$defs/{name}") })
    }

    fn object(&mut self, message: &MessageDescriptor) -> Value {
        let mut properties = Map::new();
        for field in message.fields().filter(scalar::is_writable) {
            properties.insert(field.name().to_owned(), self.property(&field));
            for (other, _) in shape::SPELLINGS.iter().filter(|(_, own)| is_kind(&field) && *own == field.name()) {
                properties.insert((*other).to_owned(), self.property(&field));
            }
        }
        let exclusive: Vec<Value> =
            message.oneofs().filter(|oneof| !oneof.is_synthetic()).map(|oneof| one_at_most(&spelled(oneof.fields()))).collect();
        let required: Vec<&str> = REQUIRED.iter().filter(|(name, _)| *name == message.name()).map(|(_, field)| *field).collect();
        let mut object = json!({
            "type": "object",
            "description": self.comment(&message.parent_file(), message.path()),
            "properties": properties,
            "additionalProperties": false,
        });
        if let Some(object) = object.as_object_mut() {
            if !exclusive.is_empty() {
                object.insert("allOf".into(), exclusive.into());
            }
            if !required.is_empty() {
                object.insert("required".into(), required.into());
            }
        }
        object
    }

    /// A check in one of its two forms.
    fn check(&mut self, check: &MessageDescriptor) -> Value {
        let probe = descriptor::<v1::Probe>();
        let own = self.object(check);
        let options = self.object(&probe);
        let merged = |keep: &dyn Fn(&str) -> bool| -> Map<String, Value> {
            let properties = [&own, &options].into_iter().filter_map(|object| object.get("properties")?.as_object()).flatten();
            properties.filter(|(name, _)| keep(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
        };
        let kinds = spelled(probe.fields().filter(is_kind));
        let nested = json!({
            "type": "object",
            "description": own["description"],
            "properties": merged(&|_| true),
            "additionalProperties": false,
            "required": ["name"],
            "anyOf": kinds.iter().map(String::as_str).chain(["probe"]).map(|kind| json!({ "required": [kind] })).collect::<Vec<_>>(),
            "allOf": [one_at_most(&kinds)],
        });
        let mut properties = merged(&|name| name != "probe" && !kinds.iter().any(|kind| kind == name));
        for field in flat::FIELDS {
            properties.insert((*field).to_owned(), flat_property(field, &kinds));
        }
        let flat = json!({
            "type": "object",
            "description": "The flat form of a check: a service, a host and a port.",
            "properties": properties,
            "additionalProperties": false,
            "required": ["name", "service"],
            "anyOf": [{ "required": ["host"] }, { "required": ["url"] }],
        });
        self.definitions.insert("NestedCheck".into(), nested);
        self.definitions.insert("FlatCheck".into(), flat);
        json!({
            "if": { "type": "object", "required": ["service"] },
            "then": { "$ref": "#/$defs/FlatCheck" },
            "else": { "$ref": "#/$defs/NestedCheck" },
        })
    }

    fn property(&mut self, field: &FieldDescriptor) -> Value {
        let description = self.comment(&field.parent_message().parent_file(), field.path()).to_owned();
        let mut schema = if field.is_map() {
            let value = match field.kind() {
                Kind::Message(entry) => entry.map_entry_value_field(),
                _ => field.clone(),
            };
            let values = match value.kind() {
                Kind::Message(_) => self.single(&value),
                _ => json!({ "type": ["string", "number", "boolean"] }),
            };
            json!({ "type": "object", "additionalProperties": values })
        } else {
            let item = self.single(field);
            match (field.is_list(), scalar::is_scalar(&field.kind())) {
                (false, _) => item,
                (true, true) => json!({ "anyOf": [{ "type": "array", "items": item }, item] }),
                (true, false) => json!({ "type": "array", "items": item }),
            }
        };
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".into(), description.into());
            if field.full_name() == "vantage.v1.CheckFile.checks" {
                object.insert("minItems".into(), 1.into());
            }
        }
        schema
    }

    fn single(&mut self, field: &FieldDescriptor) -> Value {
        match field.kind() {
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::String if scalar::NUMBERS_AS_TEXT.contains(&field.name()) => json!({ "type": ["string", "integer"] }),
            Kind::String | Kind::Bytes => json!({ "type": "string" }),
            Kind::Uint32 | Kind::Fixed32 => json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX }),
            Kind::Uint64 | Kind::Fixed64 => json!({ "type": "integer", "minimum": 0 }),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => json!({ "type": "integer" }),
            Kind::Double | Kind::Float => json!({ "type": "number" }),
            Kind::Enum(values) => self.choice(&values),
            Kind::Message(message) if scalar::is_duration(message.full_name()) => {
                let text = json!({ "type": "string", "examples": ["250ms", "10s", "1m 30s", "7d"] });
                json!({ "anyOf": [text, { "type": "number", "minimum": 0 }] })
            }
            Kind::Message(message) if scalar::is_timestamp(message.full_name()) => json!({ "type": "string", "format": "date-time" }),
            Kind::Message(message) if scalar::is_json(message.full_name()) => json!({}),
            Kind::Message(message) => self.message(&message),
        }
    }

    fn choice(&mut self, values: &EnumDescriptor) -> Value {
        let name = values.name().to_owned();
        let names = scalar::names(values);
        let numbers = names.iter().filter_map(|name| serde_json::from_str(name).ok());
        let known: Vec<Value> = scalar::short_names(values).into_iter().map(Value::from).chain(numbers).collect();
        let definition = json!({
            "description": self.comment(&values.parent_file(), values.path()),
            "anyOf": [{ "enum": known }, { "type": "string", "pattern": any_case(&names) }],
        });
        self.definitions.insert(name.clone(), definition);
        json!({ "$ref": format!("#/$defs/{name}") })
    }
}

fn is_kind(field: &FieldDescriptor) -> bool {
    field.parent_message().full_name() == "vantage.v1.Probe" && field.containing_oneof().is_some()
}

/// The names of fields, with their other spellings.
fn spelled(fields: impl Iterator<Item = FieldDescriptor>) -> Vec<String> {
    let spellings = |field: FieldDescriptor| {
        let others = shape::SPELLINGS.iter().filter(|(_, own)| is_kind(&field) && *own == field.name());
        let mut names = vec![field.name().to_owned()];
        names.extend(others.map(|(other, _)| (*other).to_owned()));
        names
    };
    fields.flat_map(spellings).collect()
}

fn one_at_most(names: &[String]) -> Value {
    let mut cases: Vec<Value> = names.iter().map(|name| json!({ "required": [name] })).collect();
    cases.push(json!({ "not": { "anyOf": cases } }));
    json!({ "oneOf": cases })
}

/// A pattern (ECMA-262) for any of the names, in any case, and with any of the signs that stand for an underscore.
fn any_case(names: &[String]) -> String {
    let letter = |c: char| match c {
        '_' | '.' => "[._ -]".to_owned(),
        _ if c.is_ascii_alphabetic() => format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase()),
        _ => c.to_string(),
    };
    let names: Vec<String> = names.iter().map(|name| name.chars().map(letter).collect()).collect();
    format!("^(?:{})$", names.join("|"))
}

/// The fields that only the flat form has.
fn flat_property(field: &str, kinds: &[String]) -> Value {
    match field {
        "service" => json!({
            "description": "The kind, in any case.",
            "anyOf": [{ "enum": kinds }, { "type": "string", "pattern": any_case(kinds) }],
        }),
        "host" => json!({ "type": "string", "description": "The target: a name or an address. For dns and ntp, the server." }),
        "port" => json!({
            "type": "integer", "minimum": 0, "maximum": u16::MAX,
            "description": "The port. Default, or 0: the kind's own. It means nothing to ping and traceroute.",
        }),
        "path" => json!({ "type": "string", "description": "For http and https: what to ask for. Default \"/\"." }),
        "url" => json!({ "type": "string", "description": "For http and https: what to ask for, in place of host, port and path." }),
        "query" => json!({ "type": "string", "description": "For dns: the name to ask for. Default: the host." }),
        _ => json!({ "type": ["string", "number", "boolean"], "description": "Kept as a label." }),
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use serde_json::Value;

    use super::json_schema;

    /// `VANTAGE_WRITE_SCHEMA=1` writes it.
    #[test]
    fn the_published_schema_is_the_one_that_the_contract_gives() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/checks.schema.json");
        if env::var_os("VANTAGE_WRITE_SCHEMA").is_some() {
            fs::write(&path, format!("{:#}\n", json_schema())).unwrap();
        }
        let published: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert!(published == json_schema(), "deploy/checks.schema.json is old: run this test with VANTAGE_WRITE_SCHEMA=1");
    }

    #[test]
    fn every_field_of_the_schema_has_its_comment_and_every_reference_its_definition() {
        fn walk(value: &Value, schema: &Value) {
            match value {
                Value::Object(object) => {
                    if let Some(Value::Object(properties)) = object.get("properties") {
                        for (name, property) in properties {
                            assert!(property["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
                        }
                    }
                    if let Some(Value::String(reference)) = object.get("$ref") {
                        assert!(schema.pointer(reference.trim_start_matches('#')).is_some_and(Value::is_object), "{reference}");
                    }
                    object.values().for_each(|value| walk(value, schema));
                }
                Value::Array(items) => items.iter().for_each(|value| walk(value, schema)),
                _ => {}
            }
        }
        let schema = json_schema();
        walk(&schema, &schema);
        assert_eq!(schema["$defs"]["PingProbe"]["properties"]["count"]["maximum"], u32::MAX);
        assert_eq!(schema["$defs"]["NestedCheck"]["properties"]["icmp"], schema["$defs"]["NestedCheck"]["properties"]["ping"]);
    }
}
