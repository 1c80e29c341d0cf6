//! A JSONPath, parsed. The grammar is a library's; what it takes beyond RFC 9535 is refused here.

use std::collections::HashMap;

use jsonpath_rust::parser::{
    model::{Comparable, Comparison, Filter, FilterAtom, FnArg, JpQuery, Literal, Segment, Selector, Test, TestFunction},
    parse_json_path,
};
use regex::Regex;

/// The longest path.
const MAX_PATH: usize = 1024;

/// The largest compiled regular expression within a path.
const MAX_REGEX: usize = 64 << 10;

/// A path, and the regular expressions that are written in it, compiled.
pub(super) struct Path {
    pub(super) text: String,
    pub(super) query: JpQuery,
    pub(super) patterns: HashMap<String, Option<Regex>>,
}

impl Path {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is missing".to_owned());
        }
        if text.len() > MAX_PATH {
            return Err(format!("must be at most {MAX_PATH} bytes, is {}", text.len()));
        }
        let query = parse_json_path(text).map_err(|error| format!("{text:?} is not a JSONPath: {error}"))?;
        let mut path = Self { text: text.to_owned(), query: JpQuery::new(Vec::new()), patterns: HashMap::new() };
        path.segments(&query.segments)?;
        path.query = query;
        Ok(path)
    }

    fn segments(&mut self, segments: &[Segment]) -> Result<(), String> {
        segments.iter().try_for_each(|segment| match segment {
            Segment::Descendant(inner) => self.segments(std::slice::from_ref(inner)),
            Segment::Selector(selector) => self.selector(selector),
            Segment::Selectors(selectors) => selectors.iter().try_for_each(|selector| self.selector(selector)),
        })
    }

    fn selector(&mut self, selector: &Selector) -> Result<(), String> {
        match selector {
            Selector::Filter(filter) => self.filter(filter),
            Selector::Name(_) | Selector::Wildcard | Selector::Index(_) | Selector::Slice(..) => Ok(()),
        }
    }

    fn filter(&mut self, filter: &Filter) -> Result<(), String> {
        match filter {
            Filter::Or(filters) | Filter::And(filters) => filters.iter().try_for_each(|filter| self.filter(filter)),
            Filter::Atom(FilterAtom::Filter { expr, .. }) => self.filter(expr),
            Filter::Atom(FilterAtom::Test { expr, .. }) => self.test(expr),
            Filter::Atom(FilterAtom::Comparison(comparison)) => {
                let (left, right) = sides(comparison);
                [left, right].into_iter().try_for_each(|side| match side {
                    Comparable::Function(function) => self.function(function),
                    Comparable::Literal(_) | Comparable::SingularQuery(_) => Ok(()),
                })
            }
        }
    }

    fn test(&mut self, test: &Test) -> Result<(), String> {
        match test {
            Test::RelQuery(segments) => self.segments(segments),
            Test::AbsQuery(query) => self.segments(&query.segments),
            Test::Function(function) => self.function(function),
        }
    }

    fn function(&mut self, function: &TestFunction) -> Result<(), String> {
        match function {
            TestFunction::Custom(name, _) => Err(format!("{:?} is not a JSONPath: {name} is no function of RFC 9535", self.text)),
            TestFunction::Length(argument) => self.argument(argument),
            TestFunction::Value(argument) | TestFunction::Count(argument) => self.argument(argument),
            TestFunction::Search(text, pattern) | TestFunction::Match(text, pattern) => {
                if let FnArg::Literal(Literal::String(literal)) = pattern {
                    let anchored = matches!(function, TestFunction::Match(..));
                    self.patterns.insert(key(literal, anchored), compile(literal, anchored));
                }
                self.argument(text).and_then(|()| self.argument(pattern))
            }
        }
    }

    fn argument(&mut self, argument: &FnArg) -> Result<(), String> {
        match argument {
            FnArg::Literal(_) => Ok(()),
            FnArg::Test(test) => self.test(test),
            FnArg::Filter(filter) => self.filter(filter),
        }
    }
}

/// Both sides of a comparison.
pub(super) fn sides(comparison: &Comparison) -> (&Comparable, &Comparable) {
    match comparison {
        Comparison::Eq(left, right)
        | Comparison::Ne(left, right)
        | Comparison::Gt(left, right)
        | Comparison::Gte(left, right)
        | Comparison::Lt(left, right)
        | Comparison::Lte(left, right) => (left, right),
    }
}

/// What a compiled pattern is found by.
pub(super) fn key(pattern: &str, anchored: bool) -> String {
    format!("{}{pattern}", if anchored { '=' } else { '~' })
}

/// Compiles an I-Regexp (RFC 9485). None: it is none, and matches nothing (RFC 9535 section 2.4.6).
pub(super) fn compile(pattern: &str, anchored: bool) -> Option<Regex> {
    let mut translated = String::with_capacity(pattern.len() + 8);
    let mut is_escaped = false;
    let mut is_in_class = false;
    for letter in pattern.chars() {
        match letter {
            // A dot is any character but the ends of lines (RFC 9485 section 5.3).
            '.' if !is_escaped && !is_in_class => translated.push_str(r"[^\n\r]"),
            _ => translated.push(letter),
        }
        is_in_class = match letter {
            '[' if !is_escaped => true,
            ']' if !is_escaped => false,
            _ => is_in_class,
        };
        is_escaped = letter == '\\' && !is_escaped;
    }
    let whole = if anchored { format!(r"\A(?:{translated})\z") } else { translated };
    regex::RegexBuilder::new(&whole).size_limit(MAX_REGEX).build().ok()
}
