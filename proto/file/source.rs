//! The text of a file, read within bounds.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use super::error::{FileError, Position, Problems};

/// The largest file that is read.
pub const LARGEST_FILE_BYTES: u64 = 16 * 1024 * 1024;

/// How the standard input is called on the command line.
const STANDARD_INPUT: &str = "-";

/// The file's name for people, and its text. `-` is the standard input; everything else must be a regular file: a pipe could keep its
/// reader waiting for ever.
pub(super) fn load(path: &Path) -> Result<(String, String), FileError> {
    if path.as_os_str() == STANDARD_INPUT {
        let name = "standard input".to_owned();
        let text = read(io::stdin().lock(), &name)?;
        return Ok((name, text));
    }
    let name = path.display().to_string();
    let cant = |error: io::Error| FileError::whole(&name, format!("can't be read: {}", cause(&error)));
    let about = fs::metadata(path).map_err(cant)?;
    if about.is_dir() {
        return Err(FileError::whole(&name, "is a directory; give a file of checks"));
    }
    if !about.is_file() {
        return Err(FileError::whole(&name, "is not a regular file; give \"-\" to read from a pipe"));
    }
    if about.len() > LARGEST_FILE_BYTES {
        return Err(too_large(&name));
    }
    let text = read(File::open(path).map_err(cant)?, &name)?;
    Ok((name, text))
}

fn too_large(name: &str) -> FileError {
    FileError::whole(name, format!("is larger than {} MiB, the most that is read", LARGEST_FILE_BYTES / 1024 / 1024))
}

/// What the system says, without its number.
fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// The text of a source that may be longer than it says.
fn read(source: impl Read, name: &str) -> Result<String, FileError> {
    let mut bytes = Vec::new();
    source
        .take(LARGEST_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| FileError::whole(name, format!("can't be read: {}", cause(&error))))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LARGEST_FILE_BYTES) {
        return Err(too_large(name));
    }
    if bytes.starts_with(&[0xFF, 0xFE]) || bytes.starts_with(&[0xFE, 0xFF]) {
        return Err(FileError::whole(name, "is UTF-16; save it as UTF-8"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(error.as_bytes().get(..valid).unwrap_or_default());
        located(name, &before, end(&before), "this is not UTF-8")
    })
}

/// The text without its byte order mark, if it holds what a file of checks can hold.
pub(super) fn clean<'t>(text: &'t str, name: &str) -> Result<&'t str, FileError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if u64::try_from(text.len()).is_ok_and(|length| length > LARGEST_FILE_BYTES) {
        return Err(too_large(name));
    }
    match text.split_once('\0') {
        Some((before, _)) => Err(located(name, before, end(before), "this is a NUL byte; a file of checks is text")),
        None if text.trim().is_empty() => Err(FileError::whole(name, "is empty; give at least one check")),
        None => Ok(text),
    }
}

fn located(name: &str, text: &str, at: Position, sentence: &str) -> FileError {
    let mut problems = Problems::default();
    problems.push(at, sentence);
    problems.into_error(name, text).err().unwrap_or_else(|| FileError::whole(name, sentence))
}

/// The place after the text.
fn end(text: &str) -> Position {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
    let last = text.rsplit('\n').next().unwrap_or_default();
    Position { line: number(text.matches('\n').count()), column: number(last.chars().count()) }
}
