//! Text to be sent with what was captured before.

use std::collections::HashMap;

use regex::bytes::Regex;

/// The most bytes of captured text that go into one step.
const MAX_CAPTURED: usize = 4096;

/// What was captured for later steps: by the step and the number of the group.
pub(super) type Captured = HashMap<(usize, usize), Vec<u8>>;

/// Text with places for what was captured.
pub(super) struct Template(Vec<Part>);

enum Part {
    Text(String),
    Group {
        /// As the check names it.
        name: String,
        /// Of which step's expression, and its number there.
        of: (usize, usize),
    },
}

/// Why a text can't be filled in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unfilled {
    /// The group of that name took no part in the match.
    NotCaptured(String),
    /// It would be too long.
    TooLong,
}

impl Template {
    /// Parses text with `${1}`, `${name}` and `$$`. `regexes` are those of the steps before, with the number of the step. An error says what is wrong.
    pub(super) fn parse(text: &str, regexes: &[(usize, &Regex)]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            parts.push(Part::Text(before.to_owned()));
            if let Some(after) = after.strip_prefix('$') {
                parts.push(Part::Text("$".to_owned()));
                rest = after;
                continue;
            }
            let inside = after.strip_prefix('{').and_then(|after| after.split_once('}'));
            let (name, after) = inside.ok_or("has a $ that is neither $$ nor the beginning of ${1} or ${name}")?;
            let of = find(name, regexes).ok_or_else(|| format!("names the group {name:?}, which no expect_regex before has"))?;
            parts.push(Part::Group { name: name.to_owned(), of });
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self(parts))
    }

    /// The groups that it needs, by step and number.
    pub(super) fn groups(&self) -> impl Iterator<Item = (usize, usize)> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Group { of, .. } => Some(*of),
        })
    }

    /// The most bytes that it becomes.
    pub(super) fn most(&self) -> usize {
        let text = self.0.iter().map(|part| if let Part::Text(text) = part { text.len() } else { 0 }).sum::<usize>();
        text + if self.groups().next().is_some() { MAX_CAPTURED } else { 0 }
    }

    pub(super) fn fill(&self, captured: &Captured) -> Result<Vec<u8>, Unfilled> {
        let (mut bytes, mut filled) = (Vec::new(), 0);
        for part in &self.0 {
            match part {
                Part::Text(text) => bytes.extend_from_slice(text.as_bytes()),
                Part::Group { name, of } => {
                    let group = captured.get(of).ok_or_else(|| Unfilled::NotCaptured(name.clone()))?;
                    filled += group.len();
                    if filled > MAX_CAPTURED {
                        return Err(Unfilled::TooLong);
                    }
                    bytes.extend_from_slice(group);
                }
            }
        }
        Ok(bytes)
    }
}

/// The group of that number or name of the last expression that has one.
fn find(name: &str, regexes: &[(usize, &Regex)]) -> Option<(usize, usize)> {
    regexes.iter().rev().find_map(|(step, regex)| {
        let number = match name.parse() {
            Ok(number) => Some(number).filter(|number| *number < regex.captures_len()),
            Err(_) => regex.capture_names().position(|known| known == Some(name)),
        };
        number.map(|number| (*step, number))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_that_of_the_last_expression_that_has_it() {
        let (first, second) = (Regex::new("(?<a>.)(.)(.)").unwrap(), Regex::new("(?<b>.)").unwrap());
        let regexes = [(0, &first), (3, &second)];
        let groups = |text| Template::parse(text, &regexes).map(|template| template.groups().collect::<Vec<_>>());
        assert_eq!(groups("${1} ${a}${b}${3}, $${1} ${0}"), Ok(vec![(3, 1), (0, 1), (3, 1), (0, 3), (3, 0)]));
        for wrong in ["${4}", "${c}", "$", "cost: $5", "${1", "${}"] {
            assert!(groups(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn captured_bytes_go_in_as_they_are_and_not_without_bound() {
        let regex = Regex::new("(?<a>.)(.)?").unwrap();
        let template = Template::parse("<${a}|${a}>$$", &[(0, &regex)]).unwrap();
        let captured = |length| Captured::from([((0, 1), vec![0xff; length])]);
        assert_eq!(template.fill(&captured(1)).unwrap(), b"<\xff|\xff>$");
        assert_eq!(template.fill(&captured(MAX_CAPTURED)), Err(Unfilled::TooLong));
        assert_eq!(Template::parse("${2}", &[(0, &regex)]).unwrap().fill(&captured(1)), Err(Unfilled::NotCaptured("2".into())));
    }
}
