//! The file of checks, read into the messages of the contract.
//!
//! JSON or YAML become one tree of values that know their places (`json`, `yaml`, `node`); the tree is brought to one shape, whatever
//! form its checks have (`shape`, `flat`); the descriptors of the contract lead it into a `CheckFile` (`read`, `scalar`); and what is
//! beyond types is judged, and the defaults filled in (`check`, `monitor`). What is wrong is told with its line and column, up to 20
//! things at once (`error`).
//!
//! Rules that both formats share: unknown fields, fields given twice and nulls are refused. Text is no number and a number no text, but:
//! values of labels and headers may be numbers or booleans, DNS types, classes and rcodes may be numbers, durations may be numbers of
//! seconds. Enums go by their short name in any case. One value for a list is a list of one. A file has at most 16 MiB, a million values,
//! and 32 levels.

use std::path::Path;

use prost::Name;
use prost_reflect::MessageDescriptor;

use crate::{descriptors, v1};

mod check;
mod error;
mod flat;
mod json;
mod monitor;
mod node;
mod places;
mod read;
mod scalar;
mod schema;
mod shape;
mod source;
#[cfg(test)]
mod tests;
mod words;
mod yaml;

pub use error::{FileError, Position, Problem};
pub use monitor::{DEFAULT_PORT, Endpoint};
pub use schema::json_schema;
pub use source::LARGEST_FILE_BYTES;

use error::{Problems, quote};
use node::Node;
use places::Places;

/// What a file of checks is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON (RFC 8259), strictly: no comments, no trailing commas.
    Json,
    /// YAML 1.2, one document, without anchors, aliases and tags.
    Yaml,
}

impl Format {
    /// By the name's extension (`.json`, `.yaml`, `.yml`), or else by the text: JSON begins with `{` or `[`.
    pub fn of(name: &str, text: &str) -> Self {
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if extension.eq_ignore_ascii_case("json") {
            Self::Json
        } else if extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml") {
            Self::Yaml
        } else if text.trim_start_matches('\u{feff}').trim_start().starts_with(['{', '[']) {
            Self::Json
        } else {
            Self::Yaml
        }
    }
}

/// A file of checks that has been read, and where in it everything stands.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What the file says, with its defaults applied to each check, an interval in each check and a name in each monitor.
    pub file: v1::CheckFile,
    name: String,
    text: String,
    root: Node,
}

/// What somebody else finds wrong with a check, in the words of the contract: the ranges of a probe's own fields are known where it is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The check's number in the file, from 0.
    pub check: usize,
    /// The field, as a path within the check or its probe: "ping.count".
    pub field: String,
    /// What is wrong: "must be 1 to 1000, is 0".
    pub problem: String,
}

impl Loaded {
    /// Where the value of a field of a check stands: `locate(0, "ping.count")`. Paths go through lists by number (`tcp.steps[2].send`).
    /// Where the field is not given, where the nearest field around it begins, or the check; what the defaults gave stands there.
    pub fn locate(&self, check: usize, field: &str) -> Position {
        Places { root: &self.root }.locate(check, field)
    }

    /// The error that tells complaints as the reader tells its own, each at its place. `Ok` without complaints.
    pub fn refuse(&self, complaints: impl IntoIterator<Item = Complaint>) -> Result<(), FileError> {
        let mut problems = Problems::default();
        for Complaint { check, field, problem } in complaints {
            let name = self.file.checks.get(check).map_or("", |check| check.name.as_str());
            problems.push(self.locate(check, &field), format!("{field:?} in check {}: {problem}", quote(name)));
        }
        problems.into_error(&self.name, &self.text)
    }
}

/// Reads a file of checks; `-` is the standard input.
pub fn load(path: &Path) -> Result<Loaded, FileError> {
    let (name, text) = source::load(path)?;
    let format = Format::of(&name, &text);
    parse(&text, &name, format)
}

/// Reads the text of a file of checks. `name` is what errors call it.
pub fn parse(text: &str, name: &str, format: Format) -> Result<Loaded, FileError> {
    let text = source::clean(text, name)?;
    let mut problems = Problems::default();
    let tree = match format {
        Format::Json => json::read(text, &mut problems),
        Format::Yaml => yaml::read(text, &mut problems),
    };
    let root = match tree {
        Ok(Some(root)) => shape::canonical(root, &mut problems),
        Ok(None) => return Err(FileError::whole(name, "is empty; give at least one check")),
        Err(stop) => {
            problems.push(stop.at, stop.sentence);
            return Err(problems.into_error(name, text).err().unwrap_or_else(|| FileError::whole(name, "can't be read")));
        }
    };
    if root.members().is_none() {
        let found = root.found();
        problems.push(root.at, format!("expected an object with \"checks\", or a list of checks, found {found}"));
    }
    let mut file = read::file(&root, &mut problems);
    check::complete(&root, &mut file, &mut problems);
    problems.into_error(name, text)?;
    Ok(Loaded { file, name: name.to_owned(), text: text.to_owned(), root })
}

/// The descriptor of a message of the contract.
fn descriptor<M: Name>() -> MessageDescriptor {
    #[expect(clippy::expect_used, reason = "message and descriptor come from the same .proto file, in the same build")]
    descriptors().get_message_by_name(&M::full_name()).expect("a message of the contract has a descriptor")
}
