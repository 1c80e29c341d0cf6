//! What a JSONPath leads to (RFC 9535 section 2). It is found step by step, and the steps are counted: a path over a body that someone else
//! chose may ask for the square of its size, or worse.

use std::{borrow::Cow, cmp::Ordering, collections::HashMap, fmt};

use jsonpath_rust::parser::model::{
    Comparable, Comparison, Filter, FilterAtom, FnArg, Literal, Segment, Selector, SingularQuery, SingularQuerySegment, Test, TestFunction,
};
use regex::Regex;

use super::{
    node::{Node, Number},
    path::{Path, compile, key, sides},
};

/// The most steps for one path: several for each value of the largest body, and a fraction of a second.
const MAX_STEPS: usize = 8_000_000;

/// What it costs to compile a regular expression that comes with the body.
const COMPILING: usize = 40_000;

/// The steps are used up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spent;

impl fmt::Display for Spent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the body is too large for that JSONPath: it takes more than {} million steps", MAX_STEPS / 1_000_000)
    }
}

/// A search in a body.
pub(super) struct Search<'s, 'b> {
    root: &'s Node<'b>,
    path: &'s Path,
    /// Regular expressions that came with the body.
    patterns: HashMap<String, Option<Regex>>,
    left: usize,
}

/// What a comparison compares (ValueType of RFC 9535 section 2.4.1). None is Nothing.
type Value<'s, 'b> = Option<Cow<'s, Node<'b>>>;

impl<'s, 'b> Search<'s, 'b> {
    pub(super) fn new(root: &'s Node<'b>, path: &'s Path) -> Self {
        Self { root, path, patterns: HashMap::new(), left: MAX_STEPS }
    }

    /// What the path leads to, in the order of the body.
    pub(super) fn run(&mut self) -> Result<Vec<&'s Node<'b>>, Spent> {
        self.query(&self.path.query.segments, self.root)
    }

    /// Takes steps.
    pub(super) fn spend(&mut self, steps: usize) -> Result<(), Spent> {
        self.left = self.left.checked_sub(steps).ok_or(Spent)?;
        Ok(())
    }

    fn query(&mut self, segments: &[Segment], from: &'s Node<'b>) -> Result<Vec<&'s Node<'b>>, Spent> {
        let mut nodes = vec![from];
        for segment in segments {
            let mut next = Vec::new();
            for node in nodes {
                self.segment(segment, node, &mut next)?;
            }
            nodes = next;
        }
        Ok(nodes)
    }

    fn segment(&mut self, segment: &Segment, node: &'s Node<'b>, found: &mut Vec<&'s Node<'b>>) -> Result<(), Spent> {
        match segment {
            Segment::Selector(selector) => self.select(selector, node, found),
            Segment::Selectors(selectors) => selectors.iter().try_for_each(|selector| self.select(selector, node, found)),
            Segment::Descendant(inner) => {
                self.spend(1)?;
                self.segment(inner, node, found)?;
                // As deep as the body is, which is bounded.
                node.children().try_for_each(|child| self.segment(segment, child, found))
            }
        }
    }

    fn select(&mut self, selector: &Selector, node: &'s Node<'b>, found: &mut Vec<&'s Node<'b>>) -> Result<(), Spent> {
        self.spend(1)?;
        match (selector, node) {
            (Selector::Name(name), Node::Object(members)) => {
                self.spend(members.len())?;
                found.extend(node.member(name));
            }
            (Selector::Index(index), Node::Array(elements)) => found.extend(element(elements, *index)),
            (Selector::Slice(start, end, step), Node::Array(elements)) => {
                for element in slice(elements, *start, *end, *step) {
                    self.spend(1)?;
                    found.push(element);
                }
            }
            (Selector::Wildcard, node) => {
                self.spend(node.len())?;
                found.extend(node.children());
            }
            (Selector::Filter(filter), node) => {
                for child in node.children() {
                    self.spend(1)?;
                    if self.filter(filter, child)? {
                        found.push(child);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn filter(&mut self, filter: &Filter, current: &'s Node<'b>) -> Result<bool, Spent> {
        match filter {
            Filter::Or(filters) => {
                for filter in filters {
                    if self.filter(filter, current)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Filter::And(filters) => {
                for filter in filters {
                    if !self.filter(filter, current)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Filter::Atom(FilterAtom::Filter { expr, not }) => Ok(self.filter(expr, current)? != *not),
            Filter::Atom(FilterAtom::Test { expr, not }) => {
                let holds = match &**expr {
                    Test::Function(function) => self.logical(function, current)?,
                    query => !self.nodes(query, current)?.is_empty(),
                };
                Ok(holds != *not)
            }
            Filter::Atom(FilterAtom::Comparison(comparison)) => self.compare(comparison, current),
        }
    }

    /// RFC 9535 section 2.3.5.2.2.
    fn compare(&mut self, comparison: &Comparison, current: &'s Node<'b>) -> Result<bool, Spent> {
        self.spend(1)?;
        let (left, right) = sides(comparison);
        let (left, right) = (self.comparable(left, current)?, self.comparable(right, current)?);
        Ok(match comparison {
            Comparison::Eq(..) => self.are_equal(&left, &right)?,
            Comparison::Ne(..) => !self.are_equal(&left, &right)?,
            Comparison::Lt(..) => self.order(&left, &right)? == Some(Ordering::Less),
            Comparison::Gt(..) => self.order(&left, &right)? == Some(Ordering::Greater),
            Comparison::Lte(..) => self.order(&left, &right)? == Some(Ordering::Less) || self.are_equal(&left, &right)?,
            Comparison::Gte(..) => self.order(&left, &right)? == Some(Ordering::Greater) || self.are_equal(&left, &right)?,
        })
    }

    fn are_equal(&mut self, left: &Value<'_, '_>, right: &Value<'_, '_>) -> Result<bool, Spent> {
        match (left, right) {
            (None, None) => Ok(true),
            (Some(left), Some(right)) => self.equal(left, right),
            _ => Ok(false),
        }
    }

    /// Only numbers and texts have an order.
    fn order(&mut self, left: &Value<'_, '_>, right: &Value<'_, '_>) -> Result<Option<Ordering>, Spent> {
        Ok(match (left.as_deref(), right.as_deref()) {
            (Some(Node::Number(left)), Some(Node::Number(right))) => left.compare(*right),
            (Some(Node::Text(left)), Some(Node::Text(right))) => {
                self.spend(left.len().min(right.len()) / 64)?;
                Some(left.cmp(right))
            }
            _ => None,
        })
    }

    /// Whether two values are equal, all the way down.
    pub(super) fn equal(&mut self, one: &Node<'_>, other: &Node<'_>) -> Result<bool, Spent> {
        self.spend(1)?;
        match (one, other) {
            (Node::Null, Node::Null) => Ok(true),
            (Node::Bool(one), Node::Bool(other)) => Ok(one == other),
            (Node::Number(one), Node::Number(other)) => Ok(one.compare(*other) == Some(Ordering::Equal)),
            (Node::Text(one), Node::Text(other)) => {
                self.spend(one.len().min(other.len()) / 64)?;
                Ok(one == other)
            }
            (Node::Array(one), Node::Array(other)) if one.len() == other.len() => {
                for (one, other) in one.iter().zip(other) {
                    if !self.equal(one, other)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Node::Object(members), Node::Object(others)) if members.len() == others.len() => {
                for (name, value) in members {
                    self.spend(others.len())?;
                    match other.member(name) {
                        Some(other) if self.equal(value, other)? => {}
                        _ => return Ok(false),
                    }
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn comparable(&mut self, comparable: &Comparable, current: &'s Node<'b>) -> Result<Value<'s, 'b>, Spent> {
        match comparable {
            Comparable::Literal(literal) => Ok(Some(Cow::Owned(node_of(literal)))),
            Comparable::Function(function) => self.value(function, current),
            Comparable::SingularQuery(SingularQuery::Current(segments)) => self.singular(segments, current),
            Comparable::SingularQuery(SingularQuery::Root(segments)) => self.singular(segments, self.root),
        }
    }

    fn singular(&mut self, segments: &[SingularQuerySegment], from: &'s Node<'b>) -> Result<Value<'s, 'b>, Spent> {
        let mut node = from;
        for segment in segments {
            self.spend(1)?;
            let next = match (segment, node) {
                (SingularQuerySegment::Name(name), Node::Object(members)) => {
                    self.spend(members.len())?;
                    node.member(name)
                }
                (SingularQuerySegment::Index(index), Node::Array(elements)) => element(elements, *index),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => return Ok(None),
            }
        }
        Ok(Some(Cow::Borrowed(node)))
    }

    /// The nodes that a query in a filter leads to.
    fn nodes(&mut self, test: &Test, current: &'s Node<'b>) -> Result<Vec<&'s Node<'b>>, Spent> {
        match test {
            Test::RelQuery(segments) => self.query(segments, current),
            Test::AbsQuery(query) => self.query(&query.segments, self.root),
            Test::Function(_) => Ok(Vec::new()),
        }
    }

    /// A function that says a value (RFC 9535 section 2.4).
    fn value(&mut self, function: &TestFunction, current: &'s Node<'b>) -> Result<Value<'s, 'b>, Spent> {
        let whole = |number: usize| i128::try_from(number).ok().map(|number| Cow::Owned(Node::Number(Number::Whole(number))));
        match function {
            TestFunction::Length(argument) => {
                let value = self.argument(argument, current)?;
                match value.as_deref() {
                    Some(Node::Text(text)) => {
                        self.spend(text.len() / 16)?;
                        Ok(whole(text.chars().count()))
                    }
                    Some(node @ (Node::Array(_) | Node::Object(_))) => Ok(whole(node.len())),
                    _ => Ok(None),
                }
            }
            TestFunction::Count(FnArg::Test(query)) => Ok(whole(self.nodes(query, current)?.len())),
            TestFunction::Value(FnArg::Test(query)) => match self.nodes(query, current)?.as_slice() {
                [only] => Ok(Some(Cow::Borrowed(*only))),
                _ => Ok(None),
            },
            _ => Ok(None),
        }
    }

    /// A function that says yes or no.
    fn logical(&mut self, function: &TestFunction, current: &'s Node<'b>) -> Result<bool, Spent> {
        let (text, pattern, anchored) = match function {
            TestFunction::Match(text, pattern) => (text, pattern, true),
            TestFunction::Search(text, pattern) => (text, pattern, false),
            _ => return Ok(false),
        };
        let (text, pattern) = (self.argument(text, current)?, self.argument(pattern, current)?);
        let (Some(Node::Text(text)), Some(Node::Text(pattern))) = (text.as_deref(), pattern.as_deref()) else { return Ok(false) };
        self.spend(1 + text.len())?;
        let key = key(pattern, anchored);
        if let Some(regex) = self.path.patterns.get(&key) {
            return Ok(regex.as_ref().is_some_and(|regex| regex.is_match(text)));
        }
        if !self.patterns.contains_key(&key) {
            self.spend(COMPILING + pattern.len() * 16)?;
            self.patterns.insert(key.clone(), compile(pattern, anchored));
        }
        Ok(self.patterns.get(&key).and_then(Option::as_ref).is_some_and(|regex| regex.is_match(text)))
    }

    /// An argument that is a value: a query has to be a singular one, which the grammar sees to.
    fn argument(&mut self, argument: &FnArg, current: &'s Node<'b>) -> Result<Value<'s, 'b>, Spent> {
        match argument {
            FnArg::Literal(literal) => Ok(Some(Cow::Owned(node_of(literal)))),
            FnArg::Test(test) => match &**test {
                Test::Function(function) => self.value(function, current),
                query => Ok(match self.nodes(query, current)?.as_slice() {
                    [only] => Some(Cow::Borrowed(*only)),
                    _ => None,
                }),
            },
            FnArg::Filter(_) => Ok(None),
        }
    }
}

fn node_of<'b>(literal: &Literal) -> Node<'b> {
    match literal {
        Literal::Int(number) => Node::Number(Number::Whole((*number).into())),
        Literal::Float(number) => Node::Number(Number::Float(*number)),
        Literal::String(text) => Node::Text(Cow::Owned(text.clone())),
        Literal::Bool(is) => Node::Bool(*is),
        Literal::Null => Node::Null,
    }
}

/// The element at an index, from the end where it is negative.
fn element<'s, 'b>(elements: &'s [Node<'b>], index: i64) -> Option<&'s Node<'b>> {
    let length = i64::try_from(elements.len()).ok()?;
    let at = if index < 0 { length.checked_add(index)? } else { index };
    elements.get(usize::try_from(at).ok()?)
}

/// The elements of a slice (RFC 9535 section 2.3.4.2).
fn slice<'s, 'b>(elements: &'s [Node<'b>], start: Option<i64>, end: Option<i64>, step: Option<i64>) -> impl Iterator<Item = &'s Node<'b>> {
    let length = elements.len() as i128;
    let step = i128::from(step.unwrap_or(1));
    let normal = |index: i64| if index < 0 { length + i128::from(index) } else { index.into() };
    let (first, last) = if step >= 0 {
        (start.map_or(0, normal).clamp(0, length), end.map_or(length, normal).clamp(0, length))
    } else {
        (start.map_or(length - 1, normal).clamp(-1, length - 1), end.map_or(-1, normal).clamp(-1, length - 1))
    };
    let mut at = first;
    std::iter::from_fn(move || {
        let is_within = if step > 0 { at < last } else { step < 0 && at > last };
        let element = is_within.then(|| elements.get(usize::try_from(at).ok()?)).flatten();
        at += step;
        element
    })
}
