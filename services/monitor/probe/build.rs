//! From words on a command line to a check: the words become JSON, which the reader of the file of checks reads as it reads any.

use std::net::IpAddr;

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};
use vantage_contract::{
    descriptors,
    file::{self, Format},
    v1,
};

use super::CHECK_NAME;

/// The fields that the positional target fills: the first that a kind has.
pub(super) const TARGET_FIELDS: [&str; 3] = ["url", "host", "server"];

/// The descriptor of `Probe`.
pub(super) fn probe() -> Option<MessageDescriptor> {
    descriptors().get_message_by_name("vantage.v1.Probe")
}

/// The message that a field holds one of, unless JSON writes it as text (`Duration`).
pub(super) fn within(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) if !field.is_list() && !field.is_map() && message.package_name() != "google.protobuf" => Some(message),
        _ => None,
    }
}

/// How the target of a kind is written.
pub(super) fn target_form(kind: &MessageDescriptor) -> &'static str {
    let has = |name| kind.get_field_by_name(name).is_some();
    match (has("url"), has("query"), has("port")) {
        (true, ..) => "URL",
        (_, true, _) => "[NAME@]SERVER[:PORT]",
        (_, _, true) => "HOST[:PORT]",
        _ => "HOST",
    }
}

/// The check that the words stand for, or what is wrong with them. `settings` are paths within `Probe` or within the kind's message, and
/// their text.
pub(super) fn check(kind: &str, target: &str, settings: &[(String, String)]) -> Result<v1::Check, String> {
    let probe = probe().ok_or("the contract has no Probe")?;
    let field = probe.get_field_by_name(kind).filter(|field| field.containing_oneof().is_some());
    let message = field.as_ref().and_then(within).ok_or_else(|| format!("{kind:?} is not a kind of probe"))?;
    let mut fields = Map::new();
    fields.insert(kind.to_owned(), Value::Object(place_target(&message, target)?));
    for (path, text) in settings {
        // A path begins in Probe or, shorter, in the kind's own message.
        let first = path.split('.').next().unwrap_or_default();
        let path = if probe.get_field_by_name(first).is_some() { path.clone() } else { format!("{kind}.{path}") };
        if probe.get_field_by_name(first).is_some_and(|other| other.containing_oneof().is_some()) && first != kind {
            return Err(format!("{path:?} belongs to another kind than {kind}"));
        }
        set(&mut fields, &probe, &path, text).map_err(|why| format!("{path}: {why}"))?;
    }
    read(json!([{ "name": CHECK_NAME, "probe": fields }]))
}

fn read(checks: Value) -> Result<v1::Check, String> {
    let loaded = file::parse(&checks.to_string(), "the command line", Format::Json).map_err(|error| {
        let sentences = error.problems().iter().map(|problem| problem.sentence.as_str());
        sentences.collect::<Vec<_>>().join("\n")
    })?;
    loaded.file.checks.into_iter().next().ok_or_else(|| "there is no check".to_owned())
}

/// The fields that the positional target fills.
fn place_target(kind: &MessageDescriptor, target: &str) -> Result<Map<String, Value>, String> {
    let has = |name: &&str| kind.get_field_by_name(name).is_some();
    let field = TARGET_FIELDS.iter().find(|name| has(name)).ok_or_else(|| format!("{} has no target", kind.name()))?;
    let mut fields = Map::new();
    let (query, place) = match target.rsplit_once('@') {
        Some((query, place)) if has(&"query") => (Some(query), place),
        _ => (None, target),
    };
    let (host, port) = if has(&"port") { split_port(place) } else { (place, None) };
    fields.extend(query.map(|query| ("query".to_owned(), query.into())));
    fields.extend(port.map(|port| ("port".to_owned(), port.into())));
    fields.insert((*field).to_owned(), host.into());
    Ok(fields)
}

/// Host and port; an IPv6 address with a port stands in brackets.
fn split_port(text: &str) -> (&str, Option<u64>) {
    if text.parse::<IpAddr>().is_ok() {
        return (text, None);
    }
    match text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u64>())) {
        Some((host, Ok(port))) if !host.is_empty() => (host, Some(port)),
        _ => (text, None),
    }
}

/// Sets the field at a dotted path. A name of a map is what is left of the path.
fn set(fields: &mut Map<String, Value>, message: &MessageDescriptor, path: &str, text: &str) -> Result<(), String> {
    let (name, rest) = path.split_once('.').map_or((path, None), |(name, rest)| (name, Some(rest)));
    let field = message.get_field_by_name(name).ok_or_else(|| {
        let names: Vec<_> = message.fields().map(|field| field.name().to_owned()).collect();
        format!("{name:?} is not a field; there are {}", names.join(", "))
    })?;
    let Some(rest) = rest else { return put(fields, &field, text) };
    let slot = fields.entry(name).or_insert_with(|| json!({}));
    match (slot, within(&field)) {
        (Value::Object(object), Some(message)) => set(object, &message, rest, text),
        (Value::Object(object), None) if field.is_map() => {
            object.insert(rest.to_owned(), text.into());
            Ok(())
        }
        _ => Err(format!("{name:?} has no fields")),
    }
}

/// Sets one field; what it had goes on where it is a list, a map or a message.
fn put(fields: &mut Map<String, Value>, field: &FieldDescriptor, text: &str) -> Result<(), String> {
    let parsed = || serde_json::from_str::<Value>(text).map_err(|error| format!("{text:?} is not JSON: {error}"));
    let name = field.name().to_owned();
    if field.is_list() {
        let list = fields.entry(name).or_insert_with(|| json!([]));
        let items = match parsed() {
            Ok(Value::Array(items)) => items,
            _ => vec![scalar(field, text)?],
        };
        list.as_array_mut().ok_or("is given in two ways")?.extend(items);
    } else if field.is_map() || within(field).is_some() {
        let object = fields.entry(name).or_insert_with(|| json!({}));
        let members = match text.split_once('=') {
            Some((name, value)) if field.is_map() && !text.starts_with('{') => [(name.to_owned(), value.into())].into_iter().collect(),
            _ => serde_json::from_value(parsed()?).map_err(|_| "expected a JSON object")?,
        };
        object.as_object_mut().ok_or("is given in two ways")?.extend::<Map<String, Value>>(members);
    } else {
        fields.insert(name, scalar(field, text)?);
    }
    Ok(())
}

/// One value in the JSON form that the field takes. What does not fit is left for the reader to refuse, in its own words.
fn scalar(field: &FieldDescriptor, text: &str) -> Result<Value, String> {
    let number = || serde_json::from_str::<Value>(text).ok().filter(|value| value.is_number() || value.is_boolean());
    match field.kind() {
        Kind::String | Kind::Bytes | Kind::Enum(_) => Ok(text.into()),
        // Durations are text with a unit, or a number of seconds.
        Kind::Message(message) if message.package_name() == "google.protobuf" => Ok(number().unwrap_or_else(|| text.into())),
        Kind::Message(_) => serde_json::from_str(text).map_err(|error| format!("{text:?} is not JSON: {error}")),
        _ => Ok(number().unwrap_or_else(|| text.into())),
    }
}

#[cfg(test)]
mod tests {
    use vantage_contract::v1::{DnsProbe, PingProbe, TcpProbe, probe::Kind as Spec};

    use super::*;

    fn built(kind: &str, target: &str, settings: &[(&str, &str)]) -> Result<v1::Probe, String> {
        let settings: Vec<_> = settings.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        check(kind, target, &settings).map(|check| check.probe.unwrap())
    }

    fn spec(kind: &str, target: &str, settings: &[(&str, &str)]) -> Spec {
        built(kind, target, settings).unwrap().kind.unwrap()
    }

    #[test]
    fn the_target_fills_the_fields_that_the_kind_has() {
        let host = |host: &str| PingProbe { host: host.into(), ..PingProbe::default() };
        assert_eq!(spec("ping", "::1", &[]), Spec::Ping(host("::1")));
        let tcp = |host: &str, port| Spec::Tcp(TcpProbe { host: host.into(), port, ..TcpProbe::default() });
        assert_eq!(spec("tcp", "example.com:80", &[]), tcp("example.com", 80));
        assert_eq!(spec("tcp", "[::1]:80", &[]), tcp("[::1]", 80));
        assert_eq!(spec("tcp", "::1", &[("port", "81")]), tcp("::1", 81));
        let dns = |query: &str, port| Spec::Dns(DnsProbe { server: "9.9.9.9".into(), query: query.into(), port, ..DnsProbe::default() });
        assert_eq!(spec("dns", "example.com@9.9.9.9", &[]), dns("example.com", 0));
        assert_eq!(spec("dns", "9.9.9.9:5353", &[("query", "a.example")]), dns("a.example", 5353));
        let Spec::Https(https) = spec("https", "https://user@example.com/?a@b:1", &[]) else { panic!() };
        assert_eq!(https.url, "https://user@example.com/?a@b:1");
    }

    #[test]
    fn a_path_begins_in_the_probe_or_in_the_kind() {
        let probe =
            built("ping", "a.example", &[("ping.count", "5"), ("spacing", "10ms"), ("timeout", "2s"), ("address_family", "6")]).unwrap();
        assert_eq!(probe.timeout, Some(prost_types::Duration { seconds: 2, nanos: 0 }));
        assert_eq!(probe.address_family, i32::from(v1::AddressFamily::Ipv6));
        let Some(Spec::Ping(ping)) = probe.kind else { panic!() };
        assert_eq!((ping.count, ping.spacing.unwrap().nanos), (5, 10_000_000));
    }

    #[test]
    fn lists_grow_and_maps_and_messages_are_filled() {
        let settings = [
            ("expect.status", "200"),
            ("expect.status", "[301, 302]"),
            ("headers", "A=b=c"),
            ("https.headers.X.Y", "z"),
            ("tls.insecure", "true"),
        ];
        let Spec::Https(https) = spec("https", "https://a.example/", &settings) else { panic!() };
        assert_eq!(https.expect.unwrap().status, [200, 301, 302]);
        assert_eq!(https.headers.into_iter().collect::<Vec<_>>(), [("A".into(), "b=c".into()), ("X.Y".into(), "z".into())]);
        assert!(https.tls.unwrap().insecure);
        let Spec::Tcp(tcp) = spec("tcp", "a.example:25", &[("steps", r#"[{"expect": "220"}, {"send": "QUIT\r\n"}]"#), ("tls", "{}")])
        else {
            panic!()
        };
        assert_eq!((tcp.steps.len(), tcp.tls.is_some()), (2, true));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = |settings: &[(&str, &str)]| built("ping", "a.example", settings).unwrap_err();
        assert!(wrong(&[("cuont", "5")]).starts_with("ping.cuont: \"cuont\" is not a field; there are host, count,"));
        assert!(wrong(&[("count", "many")]).starts_with("\"count\" in ping: expected a whole number"));
        assert_eq!(wrong(&[("dns.query", "a")]), "\"dns.query\" belongs to another kind than ping");
        assert_eq!(wrong(&[("count.more", "1")]), "ping.count.more: \"count\" has no fields");
        assert!(wrong(&[("timeout", "soon")]).contains("is not a duration"));
    }
}
