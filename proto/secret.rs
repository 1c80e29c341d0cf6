//! Secrets in the messages of the contract: found by its descriptors, read within bounds, and never shown.

use std::{
    fmt, fs,
    io::{self, Read as _},
    path::Path,
};

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value};
use zeroize::Zeroizing;

mod shown;

/// The longest secret, in bytes.
pub const LONGEST_BYTES: usize = 8 << 10;
/// The longest content of a file whose bytes are sent as they are (`body_file`).
pub const LONGEST_DATA_BYTES: usize = 1 << 20;
/// What stands in place of a secret.
pub const MASK: &str = "***";

/// A place in a message where something is named that is to be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A `Secret` that names a file or an environment variable, or is there itself.
    Secret,
    /// A text field `*_file` beside a field `*_data` of bytes, into which the file's content goes.
    Data,
}

/// One of these places, in the message that has it.
pub struct Found<'m> {
    /// The field that names it, as a path within the message at which the walk began: "https.auth.basic.password".
    pub path: String,
    /// What it is.
    pub place: Place,
    message: &'m mut DynamicMessage,
    /// Of `Data`: the name without `_file`.
    stem: String,
}

/// What a place names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// A file.
    File(String),
    /// An environment variable.
    Variable(String),
    /// Nothing: the secret is there itself, or nothing is.
    Nothing,
}

impl Found<'_> {
    /// What it names.
    pub fn named(&self) -> Named {
        let text = |field: &str| {
            let field = self.message.descriptor().get_field_by_name(field).filter(|field| self.message.has_field(field))?;
            self.message.get_field(&field).as_str().filter(|text| !text.is_empty()).map(str::to_owned)
        };
        match self.place {
            Place::Data => text(&format!("{}_file", self.stem)).map_or(Named::Nothing, Named::File),
            Place::Secret => match (text("file"), text("env")) {
                (Some(file), _) => Named::File(file),
                (_, Some(variable)) => Named::Variable(variable),
                _ => Named::Nothing,
            },
        }
    }

    /// The field to complain about.
    pub fn field(&self) -> String {
        match (self.place, self.named()) {
            (Place::Secret, Named::File(_)) => format!("{}.file", self.path),
            (Place::Secret, Named::Variable(_)) => format!("{}.env", self.path),
            _ => self.path.clone(),
        }
    }

    /// Puts in place of the name what it names. A secret has to be text.
    pub fn put(&mut self, content: &[u8]) -> Result<(), String> {
        match self.place {
            Place::Secret => {
                let text = std::str::from_utf8(content).map_err(|_| "is not UTF-8".to_owned())?;
                self.message.set_field_by_name("value", Value::String(text.to_owned()));
            }
            Place::Data => {
                self.message.clear_field_by_name(&format!("{}_file", self.stem));
                self.message.set_field_by_name(&format!("{}_data", self.stem), Value::Bytes(content.to_vec().into()));
            }
        }
        Ok(())
    }

    /// Takes the content out, if it is there; whether it was.
    pub fn strip(&mut self) -> bool {
        let field = match self.place {
            Place::Secret => "value".to_owned(),
            Place::Data => format!("{}_data", self.stem),
        };
        let there = self.message.descriptor().get_field_by_name(&field).is_some_and(|field| self.message.has_field(&field));
        self.message.clear_field_by_name(&field);
        there
    }
}

/// Visits every place within a message, led by its descriptor: a new field or kind needs no line here.
pub fn visit(message: &mut DynamicMessage, visitor: &mut dyn FnMut(Found<'_>)) {
    walk(message, "", visitor);
}

fn walk(message: &mut DynamicMessage, path: &str, visitor: &mut dyn FnMut(Found<'_>)) {
    let descriptor = message.descriptor();
    if is_secret(&descriptor) {
        visitor(Found { path: path.to_owned(), place: Place::Secret, message, stem: String::new() });
        return;
    }
    for field in descriptor.fields() {
        if let Some(stem) = data_stem(&field) {
            visitor(Found { path: join(path, field.name()), place: Place::Data, message, stem });
        }
    }
    for (field, value) in message.fields_mut() {
        let path = join(path, field.name());
        match value {
            Value::Message(inner) => walk(inner, &path, visitor),
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    if let Value::Message(inner) = item {
                        walk(inner, &format!("{path}[{index}]"), visitor);
                    }
                }
            }
            Value::Map(entries) => {
                let mut entries: Vec<_> = entries.iter_mut().collect();
                entries.sort_unstable_by(|one, other| one.0.cmp(other.0));
                for (key, value) in entries {
                    if let (MapKey::String(key), Value::Message(inner)) = (key, value) {
                        walk(inner, &join(&path, key), visitor);
                    }
                }
            }
            _ => {}
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Whether it is the message of secrets.
pub(crate) fn is_secret(message: &MessageDescriptor) -> bool {
    message.full_name() == "vantage.v1.Secret"
}

/// The name without `_file` of a field that names a file for the field of bytes beside it.
fn data_stem(field: &FieldDescriptor) -> Option<String> {
    let stem = field.name().strip_suffix("_file").filter(|_| field.kind() == Kind::String && !field.is_list())?;
    let beside = field.parent_message().get_field_by_name(&format!("{stem}_data"))?;
    (beside.kind() == Kind::Bytes).then(|| stem.to_owned())
}

/// Reads a regular file of at most `most` bytes. The error is the end of a sentence about its path.
pub fn read(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, String> {
    // A pipe would be waited for, a device never ends.
    let about = fs::metadata(path).map_err(|error| cause(&error))?;
    if !about.is_file() {
        return Err("is not a regular file".into());
    }
    content(&fs::File::open(path).map_err(|error| cause(&error))?, most)
}

/// The content of a file that is open, at most `most` bytes.
pub fn content(file: &fs::File, most: usize) -> Result<Zeroizing<Vec<u8>>, String> {
    if !file.metadata().map_err(|error| cause(&error))?.is_file() {
        return Err("is not a regular file".into());
    }
    // Of the final size from the start, as growing leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(|error| cause(&error))?;
    if bytes.len() > most {
        return Err(format!("is longer than {most} bytes"));
    }
    Ok(bytes)
}

/// Without the last line end, which editors and `echo` add.
pub fn without_line_end(bytes: &[u8]) -> &[u8] {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    bytes.strip_suffix(b"\r").unwrap_or(bytes)
}

/// What the system says, without its number.
pub fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "is not there".into(),
        io::ErrorKind::PermissionDenied => "may not be read: permission denied".into(),
        _ => format!("can't be read: {error}"),
    }
}

impl fmt::Debug for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").field("path", &self.path).field("place", &self.place).field("named", &self.named()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
