//! What is wrong with a file of checks, and where: sentences for people, with the line they are about.

use std::fmt;

/// How many problems are told at once; further ones are counted.
const MOST_PROBLEMS: usize = 20;

/// How many characters of a line a snippet shows.
const SNIPPET_WIDTH: usize = 100;

/// How many characters of a value a sentence quotes.
const QUOTE_WIDTH: usize = 40;

/// A place in a file: line and column in characters, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl Position {
    /// Where every file begins.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where. `None`: the file as a whole, as where it can't be read.
    pub position: Option<Position>,
    /// What is wrong, and where it helps, what would be right.
    pub sentence: String,
    /// The line with a caret under the place.
    snippet: String,
}

/// A file of checks that can't be used, with everything that is wrong with it, as far as one reading shows.
///
/// `Display` is what the user sees: for each problem a line `FILE:LINE:COLUMN: sentence` and the place in the file. A log takes
/// [`lines`](Self::lines), which quote no more of the file than the value in question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileError {
    name: String,
    problems: Vec<Problem>,
    omitted: usize,
}

impl FileError {
    /// The file as a whole can't be read.
    pub(super) fn whole(name: &str, sentence: impl Into<String>) -> Self {
        let problem = Problem { position: None, sentence: sentence.into(), snippet: String::new() };
        Self { name: name.to_owned(), problems: vec![problem], omitted: 0 }
    }

    /// What is wrong, in the order of the file: at least one, at most 20.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many problems there are beyond [`problems`](Self::problems).
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// One line for each problem, `FILE:LINE:COLUMN: sentence`, without the text of the file around it, which may hold secrets; at the end,
    /// how many more there are.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        let told = self.problems.iter().map(|problem| match problem.position {
            Some(Position { line, column }) => format!("{}:{line}:{column}: {}", self.name, problem.sentence),
            None => format!("{}: {}", self.name, problem.sentence),
        });
        told.chain((self.omitted > 0).then(|| format!("{}: and {} more", self.name, self.omitted)))
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.lines().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&line)?;
            f.write_str(self.problems.get(index).map_or("", |problem| &problem.snippet))?;
        }
        Ok(())
    }
}

impl std::error::Error for FileError {}

/// The problems met so far. Bounded: the first 20 are kept, of all others only the place, so that a check with problems is known as such.
#[derive(Debug, Default)]
pub(super) struct Problems {
    kept: Vec<(Position, String)>,
    places: Vec<Position>,
}

impl Problems {
    /// Notes a problem. The same one twice, as from a default that a hundred checks share, is one.
    pub(super) fn push(&mut self, at: Position, sentence: impl Into<String>) {
        let sentence = sentence.into();
        if self.kept.iter().any(|kept| kept.0 == at && kept.1 == sentence) {
            return;
        }
        self.places.push(at);
        if self.kept.len() < MOST_PROBLEMS {
            self.kept.push((at, sentence));
        }
    }

    /// All places met so far, in the order of the file.
    pub(super) fn places(&self) -> Vec<Position> {
        let mut places = self.places.clone();
        places.sort_unstable();
        places
    }

    /// The error that tells them, if there are any.
    pub(super) fn into_error(self, name: &str, text: &str) -> Result<(), FileError> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let omitted = self.places.len().saturating_sub(self.kept.len());
        let mut kept = self.kept;
        kept.sort();
        let problems = kept
            .into_iter()
            .map(|(at, sentence)| Problem { position: Some(at), sentence, snippet: snippet(text, at).unwrap_or_default() })
            .collect();
        Err(FileError { name: name.to_owned(), problems, omitted })
    }
}

/// The line of a place with a caret under it, on lines of their own; long lines are cropped around the place.
fn snippet(text: &str, at: Position) -> Option<String> {
    let line = text.lines().nth(usize::try_from(at.line).ok()?.checked_sub(1)?)?;
    let column = usize::try_from(at.column).ok()?.checked_sub(1)?;
    let length = line.chars().count();
    let first = if length <= SNIPPET_WIDTH { 0 } else { column.saturating_sub(SNIPPET_WIDTH / 2).min(length - SNIPPET_WIDTH) };
    let mut shown = String::new();
    let mut caret = column.checked_sub(first)?;
    if first > 0 {
        shown.push('…');
        caret += 1;
    }
    shown.extend(line.chars().skip(first).take(SNIPPET_WIDTH).map(|c| if c.is_control() { ' ' } else { c }));
    if first + SNIPPET_WIDTH < length {
        shown.push('…');
    }
    let number = at.line.to_string();
    let margin = " ".repeat(number.len());
    let before = " ".repeat(caret);
    Some(format!("\n  {number} | {shown}\n  {margin} | {before}^"))
}

/// Text from the file as a sentence quotes it: in quotes, escaped, and cropped.
pub(super) fn quote(text: &str) -> String {
    let mut quoted: String = text.chars().take(QUOTE_WIDTH).collect();
    if quoted.len() < text.len() {
        quoted.push('…');
    }
    format!("{quoted:?}")
}

#[cfg(test)]
mod tests {
    use super::{FileError, Position, Problems, quote};

    fn told(text: &str, problems: &[(u32, u32, &str)]) -> String {
        let mut collected = Problems::default();
        for (line, column, sentence) in problems {
            collected.push(Position { line: *line, column: *column }, *sentence);
        }
        collected.into_error("checks.json", text).unwrap_err().to_string()
    }

    #[test]
    fn a_problem_shows_its_line_with_a_caret_under_the_place() {
        assert_eq!(
            told("{\n  \"checks\": 5\n}\n", &[(2, 13, "is odd")]),
            "checks.json:2:13: is odd\n  2 |   \"checks\": 5\n    |             ^"
        );
    }

    #[test]
    fn problems_are_told_in_the_order_of_the_file_and_each_once() {
        let told = told("a\nb", &[(2, 1, "two"), (1, 1, "one"), (2, 1, "two")]);
        assert_eq!(told, "checks.json:1:1: one\n  1 | a\n    | ^\nchecks.json:2:1: two\n  2 | b\n    | ^");
    }

    #[test]
    fn a_long_line_is_cropped_around_the_place() {
        let line = format!("{}X{}", "ä".repeat(5000), "b".repeat(5000));
        let told = told(&line, &[(1, 5001, "is odd")]);
        let mut lines = told.lines().skip(1);
        let (shown, caret) = (lines.next().unwrap(), lines.next().unwrap());
        assert!(shown.chars().count() < 120, "{shown}");
        assert_eq!(shown.chars().nth(caret.chars().count() - 1), Some('X'));
    }

    #[test]
    fn a_place_beyond_the_text_has_no_snippet() {
        assert_eq!(told("a", &[(7, 7, "is odd")]), "checks.json:7:7: is odd");
        assert_eq!(told("a", &[(1, 2, "ends")]), "checks.json:1:2: ends\n  1 | a\n    |  ^");
    }

    #[test]
    fn problems_beyond_twenty_are_counted() {
        let many: Vec<_> = (1..=33).map(|line| (line, 1, "is odd")).collect();
        let told = told("", &many);
        assert_eq!(told.lines().count(), 21);
        assert!(told.ends_with("checks.json: and 13 more"), "{told}");
    }

    #[test]
    fn control_characters_reach_no_terminal() {
        let told = told("a\u{1b}[31mb\tc", &[(1, 1, "is odd")]);
        assert!(!told.contains('\u{1b}'));
        assert_eq!(quote("\u{1b}[31m\n"), "\"\\u{1b}[31m\\n\"");
        assert_eq!(quote(&"x".repeat(100)).chars().count(), 43);
    }

    #[test]
    fn a_file_that_cant_be_read_is_told_in_one_line() {
        assert_eq!(FileError::whole("checks.json", "is a directory").to_string(), "checks.json: is a directory");
    }
}
