//! The shapes that a file and its checks may have, brought to the one that the contract has.

use prost_reflect::MessageDescriptor;

use super::{
    descriptor,
    error::Problems,
    flat,
    node::{Member, Node, Value},
};
use crate::v1;

/// Kinds that have another spelling in files, and the contract's own.
pub(super) const SPELLINGS: &[(&str, &str)] = &[("icmp", "ping")];

/// The kind's name in the contract, whatever its spelling in the file.
pub(super) fn kind_name(spelling: &str) -> &str {
    SPELLINGS.iter().find(|(other, _)| *other == spelling).map_or(spelling, |(_, own)| own)
}

/// The names of the kinds, as the contract spells them.
pub(super) fn kinds(probe: &MessageDescriptor) -> Vec<String> {
    probe.fields().filter(|field| field.containing_oneof().is_some()).map(|field| field.name().to_owned()).collect()
}

/// Brings a file to the shape of `CheckFile`: a bare list becomes its `checks`; in each check, the flat form becomes the nested one, and
/// the fields of `probe` that stand beside it move into it. Whatever is of another shape stays as it is, for the reader to refuse.
pub(super) fn canonical(root: Node, problems: &mut Problems) -> Node {
    let probe = descriptor::<v1::Probe>();
    let at = root.at;
    let mut members = match root.value {
        Value::List(checks) => vec![Member { name: "checks".into(), at, node: Node { at, value: Value::List(checks) } }],
        Value::Object(members) => members,
        value => return Node { at, value },
    };
    // Where the schema is: for editors, and no business of ours.
    members.retain(|member| &*member.name != "$schema" || member.node.text().is_none());
    for member in members.iter_mut().filter(|member| &*member.name == "checks") {
        if let Value::List(checks) = &mut member.node.value {
            for node in checks {
                let check = std::mem::replace(node, Node { at: node.at, value: Value::Null });
                *node = canonical_check(check, &probe, problems);
            }
        }
    }
    Node { at, value: Value::Object(members) }
}

fn canonical_check(check: Node, probe: &MessageDescriptor, problems: &mut Problems) -> Node {
    let Node { at, value: Value::Object(members) } = check else { return check };
    let members =
        if flat::is_flat(&members, probe) { flat::nested(Node { at, value: Value::Object(members) }, probe, problems) } else { members };
    let (mut beside, mut within) = (Vec::new(), Vec::new());
    for member in members {
        match member.node.value {
            Value::Object(options) if &*member.name == "probe" => {
                for option in options {
                    add(&mut within, option, problems);
                }
            }
            _ if probe.get_field_by_name(kind_name(&member.name)).is_some() => add(&mut within, member, problems),
            _ => beside.push(member),
        }
    }
    if !within.is_empty() {
        beside.push(Member { name: "probe".into(), at, node: Node { at, value: Value::Object(within) } });
    }
    Node { at, value: Value::Object(beside) }
}

/// Adds a field of the probe, which may have come by another way before: in and beside `probe`, or in another spelling.
fn add(within: &mut Vec<Member>, mut member: Member, problems: &mut Problems) {
    let own = kind_name(&member.name);
    match within.iter().find(|other| &*other.name == own) {
        Some(first) if own == &*member.name => {
            problems.push(member.at, format!("{own:?} is given twice; the first is in line {}", first.at.line));
        }
        Some(first) => {
            problems.push(member.at, format!("{:?} is another spelling of {own:?}, which line {} has given", member.name, first.at.line));
        }
        None => {
            member.name = own.into();
            within.push(member);
        }
    }
}
