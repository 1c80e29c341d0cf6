//! What JSON and YAML have in common: a tree of values that know their places.

use std::mem;

use super::error::{Position, Problems, quote};

/// How deep values may be nested. The deepest that the contract has is 8.
pub(super) const DEEPEST: usize = 32;

/// How many values a file may have: fifty thousand checks and more.
pub(super) const MOST_NODES: usize = 1_000_000;

/// A value of the file and its place.
#[derive(Debug, Clone)]
pub(super) struct Node {
    /// Where it begins.
    pub(super) at: Position,
    /// What it is.
    pub(super) value: Value,
}

/// What a file can say.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// As written: what it means depends on the field.
    Number(Box<str>),
    Text(Box<str>),
    List(Vec<Node>),
    Object(Vec<Member>),
}

/// A field of an object.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) name: Box<str>,
    /// Where the name stands.
    pub(super) at: Position,
    pub(super) node: Node,
}

impl Node {
    /// The members, if this is an object.
    pub(super) fn members(&self) -> Option<&[Member]> {
        match &self.value {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The member of this name, if this is an object that has it.
    pub(super) fn get(&self, name: &str) -> Option<&Member> {
        self.members()?.iter().find(|member| &*member.name == name)
    }

    /// The item of this number, if this is a list that has it. What stands for a list of one is its first item.
    pub(super) fn item(&self, index: usize) -> Option<&Self> {
        match &self.value {
            Value::List(items) => items.get(index),
            _ => (index == 0).then_some(self),
        }
    }

    /// The text, if this is text.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, without saying it.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Object(_) => "an object",
        }
    }

    /// What it is, as a sentence says "found …".
    pub(super) fn found(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(value) => value.to_string(),
            Value::Number(number) => format!("the number {}", number.chars().take(40).collect::<String>()),
            Value::Text(text) => format!("the text {}", quote(text)),
            Value::List(_) => "a list".into(),
            Value::Object(_) => "an object".into(),
        }
    }
}

/// Builds a tree from its pieces, in the order of the file, within the bounds, and without recursion.
pub(super) struct Builder<'p> {
    problems: &'p mut Problems,
    open: Vec<Frame>,
    count: usize,
    root: Option<Node>,
}

/// A list or an object that has begun and not ended.
struct Frame {
    at: Position,
    kind: FrameKind,
}

enum FrameKind {
    List(Vec<Node>),
    Object { members: Vec<Member>, key: Option<(Box<str>, Position)> },
}

/// The file is beyond a bound, or is not what it should be: reading it ends here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) at: Position,
    pub(super) sentence: String,
}

impl Stop {
    pub(super) fn new(at: Position, sentence: impl Into<String>) -> Self {
        Self { at, sentence: sentence.into() }
    }
}

impl<'p> Builder<'p> {
    pub(super) fn new(problems: &'p mut Problems) -> Self {
        Self { problems, open: Vec::new(), count: 0, root: None }
    }

    /// Whether the next scalar is the name of a field.
    pub(super) fn wants_key(&self) -> bool {
        matches!(self.open.last(), Some(Frame { kind: FrameKind::Object { key: None, .. }, .. }))
    }

    /// The name of a field; its value follows.
    pub(super) fn key(&mut self, at: Position, name: impl Into<Box<str>>) {
        if let Some(Frame { kind: FrameKind::Object { key, .. }, .. }) = self.open.last_mut() {
            *key = Some((name.into(), at));
        }
    }

    /// A list begins.
    pub(super) fn list(&mut self, at: Position) -> Result<(), Stop> {
        self.begin(at, FrameKind::List(Vec::new()))
    }

    /// An object begins.
    pub(super) fn object(&mut self, at: Position) -> Result<(), Stop> {
        self.begin(at, FrameKind::Object { members: Vec::new(), key: None })
    }

    fn begin(&mut self, at: Position, kind: FrameKind) -> Result<(), Stop> {
        if self.open.len() >= DEEPEST {
            return Err(Stop::new(at, format!("values are nested deeper than {DEEPEST}")));
        }
        self.counted(at)?;
        self.open.push(Frame { at, kind });
        Ok(())
    }

    /// The list or object that began last ends.
    pub(super) fn end(&mut self) {
        let Some(frame) = self.open.pop() else { return };
        let value = match frame.kind {
            FrameKind::List(items) => Value::List(items),
            FrameKind::Object { members, .. } => {
                report_duplicates(&members, self.problems);
                Value::Object(members)
            }
        };
        self.place(Node { at: frame.at, value });
    }

    /// A value that is neither list nor object.
    pub(super) fn scalar(&mut self, at: Position, value: Value) -> Result<(), Stop> {
        self.counted(at)?;
        self.place(Node { at, value });
        Ok(())
    }

    fn counted(&mut self, at: Position) -> Result<(), Stop> {
        self.count += 1;
        if self.count > MOST_NODES {
            return Err(Stop::new(at, format!("the file has more than {MOST_NODES} values")));
        }
        Ok(())
    }

    fn place(&mut self, node: Node) {
        match self.open.last_mut().map(|frame| &mut frame.kind) {
            None => self.root = Some(node),
            Some(FrameKind::List(items)) => items.push(node),
            Some(FrameKind::Object { members, key }) => {
                if let Some((name, at)) = mem::take(key) {
                    members.push(Member { name, at, node });
                }
            }
        }
    }

    /// The tree. `None` where the file says nothing.
    pub(super) fn finish(self) -> Option<Node> {
        self.root
    }
}

/// Notes the members whose name an earlier one has.
fn report_duplicates(members: &[Member], problems: &mut Problems) {
    let mut order: Vec<&Member> = members.iter().collect();
    // Stable: of the same name, the first in the file comes first.
    order.sort_by(|a, b| a.name.cmp(&b.name));
    for group in order.chunk_by(|a, b| a.name == b.name) {
        if let [first, others @ ..] = group {
            for other in others {
                problems.push(other.at, format!("{} is given twice; the first is in line {}", quote(&other.name), first.at.line));
            }
        }
    }
}
