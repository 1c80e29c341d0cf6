//! The flat form of a check: `{"name": "google", "host": "www.google.com", "port": 80, "service": "ping", "interval": 10, "count": 10}`.
//!
//! It is turned into the nested form by what the kind's message has: `host` becomes its `host`, `server` (and what is asked for, in
//! `query`) or a part of its `url`. So a new kind has a flat form without a line here.

use std::net::Ipv6Addr;

use prost_reflect::{Kind, MessageDescriptor};

use super::{
    descriptor,
    error::{Position, Problems, quote},
    node::{Member, Node, Value},
    shape::{SPELLINGS, kind_name, kinds},
    words::{Place, either, suggestion},
};
use crate::v1;

/// The fields that only the flat form has: beside those of `Check`, and those of `Probe` that are not a kind.
pub(super) const FIELDS: &[&str] = &["service", "host", "port", "path", "url", "query", "server_number"];

/// Whose port means nothing, although its message has one: the flat form has no `method`, and the one by default has no ports.
const PORTLESS: &[&str] = &["traceroute"];

/// Whether a check is in the flat form: it has a `service`, or else fields of the flat form and no kind.
pub(super) fn is_flat(members: &[Member], probe: &MessageDescriptor) -> bool {
    let has = |name: &str| members.iter().any(|member| &*member.name == name);
    let has_kind = || {
        let is_kind = |name: &str| probe.get_field_by_name(kind_name(name)).is_some_and(|field| field.containing_oneof().is_some());
        members.iter().any(|member| &*member.name == "probe" || is_kind(&member.name))
    };
    has("service") || (FIELDS.iter().any(|name| has(name)) && !has_kind())
}

/// The members of the check in the nested form, with the kind beside the name.
pub(super) fn nested(check: Node, probe: &MessageDescriptor, problems: &mut Problems) -> Vec<Member> {
    let known: Vec<String> = descriptor::<v1::Check>()
        .fields()
        .filter(|field| field.name() != "probe")
        .chain(probe.fields().filter(|field| field.containing_oneof().is_none()))
        .map(|field| field.name().to_owned())
        .chain(FIELDS.iter().map(|name| (*name).to_owned()))
        .collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let kind = kind(&check, probe, problems);
    let message = kind.as_ref().map(|(_, _, message)| message);
    let target = kind.as_ref().map(|(name, at, message)| {
        let target = Target { check: &check, name, message };
        Member { name: name.as_str().into(), at: *at, node: Node { at: *at, value: Value::Object(target.members(problems)) } }
    });

    for member in check.members().unwrap_or_default() {
        let name = &*member.name;
        if !known.contains(&name) {
            let place = Place::Check(&check);
            let is_kind = probe.get_field_by_name(kind_name(name)).is_some();
            let sentence = match kind.as_ref() {
                _ if is_kind => format!("{name:?} beside \"service\" in {place}: give one of the two"),
                Some((kind, ..)) if message.is_some_and(|message| message.get_field_by_name(name).is_some()) => {
                    format!("{name:?} in {place}: the flat form has no room for it; write {kind:?}: {{…}} in place of \"service\"")
                }
                _ => format!("unknown field {} in {place}; {}", quote(name), suggestion(name, &known)),
            };
            problems.push(member.at, sentence);
        }
    }
    let number = check.get("server_number").cloned();
    let Value::Object(members) = check.value else { return Vec::new() };
    let mut members: Vec<Member> =
        members.into_iter().filter(|member| known.contains(&&*member.name) && !FIELDS.contains(&&*member.name)).collect();
    if let Some(number) = number {
        label(&mut members, number, problems);
    }
    members.extend(target);
    members
}

/// The kind that `service` names, with its place and its message.
fn kind(check: &Node, probe: &MessageDescriptor, problems: &mut Problems) -> Option<(String, Position, MessageDescriptor)> {
    let names = kinds(probe);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let place = Place::Check(check);
    let Some(service) = check.get("service") else {
        problems.push(check.at, format!("{place} has no \"service\"; give one of {}", either(&names)));
        return None;
    };
    let at = service.node.at;
    let Some(text) = service.node.text() else {
        problems.push(at, format!("\"service\" in {place}: expected {}, found {}", either(&names), service.node.found()));
        return None;
    };
    let name = text.to_ascii_lowercase();
    let name = kind_name(&name);
    match probe.get_field_by_name(name).filter(|field| names.contains(&field.name())).map(|field| field.kind()) {
        Some(Kind::Message(message)) => Some((name.to_owned(), at, message)),
        _ => {
            let spellings = SPELLINGS.iter().map(|(other, _)| *other);
            let all: Vec<&str> = names.iter().copied().chain(spellings).collect();
            problems.push(at, format!("unknown service {} in {place}; {}", quote(text), suggestion(text, &all)));
            None
        }
    }
}

/// `server_number` becomes a label.
fn label(members: &mut Vec<Member>, number: Member, problems: &mut Problems) {
    match members.iter_mut().find(|member| &*member.name == "labels") {
        None => {
            let at = number.at;
            members.push(Member { name: "labels".into(), at, node: Node { at, value: Value::Object(vec![number]) } });
        }
        Some(Member { node: Node { value: Value::Object(labels), .. }, .. }) => {
            match labels.iter().find(|label| label.name == number.name) {
                None => labels.push(number),
                Some(label) => {
                    problems.push(number.at, format!("\"server_number\" is given twice; the other is the label in line {}", label.at.line));
                }
            }
        }
        // Labels of another shape are refused by the reader.
        Some(_) => {}
    }
}

/// The target of a check in the flat form, on the way into the message of its kind.
struct Target<'a> {
    check: &'a Node,
    name: &'a str,
    message: &'a MessageDescriptor,
}

impl Target<'_> {
    /// The members of the kind's object.
    fn members(&self, problems: &mut Problems) -> Vec<Member> {
        let port = self.port(problems);
        let mut members = Vec::new();
        let mut used = vec!["host", "port"];
        if self.takes("url") {
            used.extend(["url", "path"]);
            members.extend(self.url(port.map(|(_, number)| number), problems));
        } else {
            let host = self.check.get("host");
            if host.is_none() {
                problems.push(self.check.at, format!("{} has no \"host\"", self.place()));
            }
            for field in ["host", "server"].into_iter().filter(|field| self.takes(field)) {
                members.extend(host.map(|host| Member { name: field.into(), ..host.clone() }));
            }
            if self.takes("port") && !PORTLESS.contains(&self.name) {
                members.extend(port.map(|(member, _)| member.clone()));
            }
        }
        if self.takes("query") {
            used.push("query");
            let query = self.check.get("query").or_else(|| self.check.get("host"));
            members.extend(query.map(|query| Member { name: "query".into(), ..query.clone() }));
        }
        for unused in FIELDS.iter().filter(|field| !["service", "server_number"].contains(field) && !used.contains(field)) {
            if let Some(member) = self.check.get(unused) {
                problems.push(member.at, format!("{unused:?} in {}: the service {:?} has none", self.place(), self.name));
            }
        }
        members
    }

    fn place(&self) -> Place<'_> {
        Place::Check(self.check)
    }

    fn takes(&self, field: &str) -> bool {
        self.message.get_field_by_name(field).is_some()
    }

    /// The port, unless it is 0 or absent, which both leave it to the kind. Also where it means nothing, it must be one: old files have
    /// it with ping.
    fn port(&self, problems: &mut Problems) -> Option<(&Member, u16)> {
        let member = self.check.get("port")?;
        let number = match &member.node.value {
            Value::Number(number) => number.parse::<u16>().ok(),
            _ => None,
        };
        if number.is_none() {
            let found = member.node.found();
            problems.push(member.node.at, format!("\"port\" in {}: expected a whole number up to 65535, found {found}", self.place()));
        }
        number.filter(|number| *number != 0).map(|number| (member, number))
    }

    /// The `url`, as it is given, or built from host, port and path.
    fn url(&self, port: Option<u16>, problems: &mut Problems) -> Option<Member> {
        let (host, path) = (self.check.get("host"), self.check.get("path"));
        if let Some(url) = self.check.get("url") {
            for other in [host, path, self.check.get("port")].into_iter().flatten() {
                problems.push(other.at, format!("{:?} in {} is beside \"url\", which says it all", other.name, self.place()));
            }
            return Some(url.clone());
        }
        let Some(host) = host else {
            problems.push(self.check.at, format!("{} has neither \"host\" nor \"url\"", self.place()));
            return None;
        };
        let text = |member: &Member, problems: &mut Problems| {
            let text = member.node.text().map(str::to_owned);
            if text.is_none() {
                let found = member.node.found();
                problems.push(member.node.at, format!("{:?} in {}: expected text, found {found}", member.name, self.place()));
            }
            text
        };
        let name = text(host, problems)?;
        let path = match path {
            Some(path) => text(path, problems)?,
            None => String::new(),
        };
        let literal = name.parse::<Ipv6Addr>().is_ok();
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
        let odd = |c: char| c.is_whitespace() || c.is_control() || "/?#@\\[]%:".contains(c);
        if name.is_empty() || (bare.parse::<Ipv6Addr>().is_err() && name.contains(odd)) {
            let sentence =
                format!("\"host\" in {}: {} is neither a name nor an address; a whole URL is an \"url\"", self.place(), quote(&name));
            problems.push(host.node.at, sentence);
            return None;
        }
        let authority = if literal { format!("[{name}]") } else { name };
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        let url = format!("{}://{authority}{port}{slash}{path}", self.name);
        Some(Member { name: "url".into(), at: host.at, node: Node { at: host.node.at, value: Value::Text(url.into()) } })
    }
}
