//! What is expected of a body as JSON (RFC 8259), by JSONPath (RFC 9535).

mod node;
mod path;
mod search;

use std::borrow::Cow;

use prost_types::value::Kind;
use regex::Regex;
use vantage_contract::v1::HttpJsonExpectation;

use super::expect::compile_text;
use crate::failure::Invalid;
use node::{Node, Number};
use path::Path;
use search::{Search, Spent};

pub(super) use node::Unread;

/// How much of a value is told of.
const MAX_SHOWN: usize = 100;

/// What is expected of a part of the body.
pub(super) struct JsonExpectation {
    path: Path,
    equals: Option<Node<'static>>,
    matches: Option<Regex>,
    absent: bool,
    all: bool,
}

impl JsonExpectation {
    /// Parses the one at that place.
    pub(super) fn parse(at: usize, spec: &HttpJsonExpectation) -> Result<Self, Invalid> {
        let field = |name: &str| format!("expect.json[{at}].{name}");
        let path = Path::parse(&spec.path).map_err(|why| Invalid::new(field("path"), why))?;
        let equals = spec.equals.as_ref().map(node_of).transpose().map_err(|why| Invalid::new(field("equals"), why))?;
        let matches = match spec.matches.as_str() {
            "" => None,
            pattern => Some(compile_text(&field("matches"), pattern)?),
        };
        if spec.all && spec.absent {
            return Err(Invalid::new(field("all"), "means nothing together with absent"));
        }
        if spec.all && equals.is_none() && matches.is_none() {
            return Err(Invalid::new(field("all"), "says nothing without equals or matches"));
        }
        Ok(Self { path, equals, matches, absent: spec.absent, all: spec.all })
    }

    fn judge(&self, body: &Node<'_>) -> Result<(), Wrong> {
        let mut search = Search::new(body, &self.path);
        let found = search.run()?;
        let mut fitting = 0;
        for node in &found {
            fitting += usize::from(self.fits(node, &mut search)?);
        }
        let path = &self.path.text;
        let shown = || match found.as_slice() {
            [] => format!("{path} leads to nothing"),
            [only] => format!("{path} is {}", shown(only)),
            [first, rest @ ..] => format!("{path} is {} and {} more", shown(first), rest.len()),
        };
        let holds = match (self.absent, self.all) {
            (true, _) => fitting == 0,
            (false, true) => fitting > 0 && fitting == found.len(),
            (false, false) => fitting > 0,
        };
        if holds {
            return Ok(());
        }
        let wanted = match (&self.equals, &self.matches) {
            (Some(value), None) => format!("equal to {}", self::shown(value)),
            (None, Some(regex)) => format!("matching /{regex}/"),
            (Some(value), Some(regex)) => format!("equal to {} and matching /{regex}/", self::shown(value)),
            (None, None) if self.absent => return Err(Wrong::Unexpected(format!("{}, and should lead to nothing", shown()))),
            (None, None) => return Err(Wrong::Unexpected(shown())),
        };
        let how = match (self.absent, self.all) {
            (true, _) => "none should be",
            (false, true) => "all should be",
            (false, false) => "expected one",
        };
        Err(Wrong::Unexpected(format!("{}; {how} {wanted}", shown())))
    }

    fn fits(&self, node: &Node<'_>, search: &mut Search<'_, '_>) -> Result<bool, Spent> {
        if let Some(wanted) = &self.equals
            && !search.equal(wanted, node)?
        {
            return Ok(false);
        }
        let Some(regex) = &self.matches else { return Ok(true) };
        let text = match node {
            Node::Text(text) => Cow::Borrowed(text.as_ref()),
            other => Cow::Owned(other.to_string()),
        };
        search.spend(text.len())?;
        Ok(regex.is_match(&text))
    }
}

/// What is wrong with a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is not what was expected.
    Unexpected(String),
    /// It can't be judged in the room and time that a run may take.
    TooLarge(String),
}

impl From<Spent> for Wrong {
    fn from(spent: Spent) -> Self {
        Self::TooLarge(spent.to_string())
    }
}

/// Judges a body by all expectations.
pub(super) fn judge(expectations: &[JsonExpectation], body: &[u8]) -> Result<(), Wrong> {
    if expectations.is_empty() {
        return Ok(());
    }
    let body = Node::read(body).map_err(|unread| match unread {
        Unread::NotJson(why) => Wrong::Unexpected(format!("the body is not JSON: {why}")),
        Unread::TooLarge(why) => Wrong::TooLarge(why),
    })?;
    expectations.iter().try_for_each(|expectation| expectation.judge(&body))
}

fn shown(node: &Node<'_>) -> String {
    let mut text: String = node.to_string().chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect();
    if text.len() > MAX_SHOWN {
        text.truncate(text.floor_char_boundary(MAX_SHOWN));
        text.push('…');
    }
    text
}

/// A value of the contract as a node. How deep it may be is bounded where messages are decoded.
fn node_of(value: &prost_types::Value) -> Result<Node<'static>, &'static str> {
    Ok(match value.kind.as_ref().ok_or("has no value")? {
        Kind::NullValue(_) => Node::Null,
        Kind::BoolValue(is) => Node::Bool(*is),
        Kind::NumberValue(number) => Node::Number(Number::Float(*number)),
        Kind::StringValue(text) => Node::Text(Cow::Owned(text.clone())),
        Kind::ListValue(list) => Node::Array(list.values.iter().map(node_of).collect::<Result<_, _>>()?),
        Kind::StructValue(object) => {
            let member = |(name, value): (&String, &prost_types::Value)| Ok((Cow::Owned(name.clone()), node_of(value)?));
            Node::Object(object.fields.iter().map(member).collect::<Result<_, &'static str>>()?)
        }
    })
}

#[cfg(test)]
mod tests;
