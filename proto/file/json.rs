//! JSON (RFC 8259), strictly: serde_json decides what it is, and a cursor beside it knows where.

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{
    error::{Position, Problems},
    node::{Builder, Node, Stop, Value},
};

/// Reads the text into a tree.
pub(super) fn read(text: &str, problems: &mut Problems) -> Result<Option<Node>, Stop> {
    let mut reader = Reader { cursor: Cursor { rest: text, at: Position::START }, builder: Builder::new(problems), stop: None };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = reader.deserialize(&mut deserializer).and_then(|()| deserializer.end());
    match (reader.stop, read) {
        (Some(stop), _) => Err(stop),
        (None, Err(error)) => Err(Stop::new(place(text, &error), format!("not valid JSON: {}", words(&error)))),
        (None, Ok(())) => Ok(reader.builder.finish()),
    }
}

/// The place of a syntax error: serde_json counts columns in bytes and from the last one read.
fn place(text: &str, error: &serde_json::Error) -> Position {
    let line = text.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let bytes = line.as_bytes().get(..error.column()).unwrap_or(line.as_bytes());
    let column = bytes.iter().filter(|byte| begins_character(**byte)).count().max(1);
    Position { line: u32::try_from(error.line()).unwrap_or(u32::MAX).max(1), column: u32::try_from(column).unwrap_or(u32::MAX) }
}

/// The error without the place, which is told in our own way.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let words = text.rsplit_once(" at line ").map_or(text.as_str(), |(words, _)| words);
    words.replace("EOF while", "the file ends while").replace('`', "\"")
}

fn begins_character(byte: u8) -> bool {
    byte & 0b1100_0000 != 0b1000_0000
}

struct Reader<'t, 'p> {
    cursor: Cursor<'t>,
    builder: Builder<'p>,
    /// Why reading was ended by us.
    stop: Option<Stop>,
}

impl Reader<'_, '_> {
    fn allow<E: serde::de::Error>(&mut self, step: Result<(), Stop>) -> Result<(), E> {
        step.map_err(|stop| {
            self.stop = Some(stop);
            E::custom("stopped")
        })
    }

    fn literal<E: serde::de::Error>(&mut self, make: impl FnOnce(&str) -> Value) -> Result<(), E> {
        let at = self.cursor.value();
        let value = make(self.cursor.literal());
        let step = self.builder.scalar(at, value);
        self.allow(step)
    }
}

impl<'de> DeserializeSeed<'de> for &mut Reader<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Reader<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.literal(|_| Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        self.literal(|_| Value::Bool(value))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.literal(|number| Value::Number(number.into()))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.literal(|number| Value::Number(number.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.literal(|number| Value::Number(number.into()))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let at = self.cursor.value();
        self.cursor.string();
        let step = self.builder.scalar(at, Value::Text(text.into()));
        self.allow(step)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let at = self.cursor.value();
        self.cursor.advance(1);
        let step = self.builder.list(at);
        self.allow(step)?;
        while items.next_element_seed(&mut *self)?.is_some() {}
        self.cursor.close();
        self.builder.end();
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let at = self.cursor.value();
        self.cursor.advance(1);
        let step = self.builder.object(at);
        self.allow(step)?;
        while let Some(name) = members.next_key::<String>()? {
            let at = self.cursor.value();
            self.cursor.string();
            self.builder.key(at, name);
            members.next_value_seed(&mut *self)?;
        }
        self.cursor.close();
        self.builder.end();
        Ok(())
    }
}

/// Follows through text that serde_json has found to be well formed up to here.
struct Cursor<'t> {
    rest: &'t str,
    at: Position,
}

impl<'t> Cursor<'t> {
    /// Steps over what stands between values, and returns the place of the next one.
    fn value(&mut self) -> Position {
        let length = self.rest.bytes().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b',' | b':')).count();
        self.advance(length);
        self.at
    }

    /// Steps over a number, `true`, `false` or `null`.
    fn literal(&mut self) -> &'t str {
        let length = self.rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')).count();
        self.advance(length)
    }

    /// Steps over a string.
    fn string(&mut self) {
        let mut escaped = false;
        let inside = self.rest.bytes().skip(1).take_while(|byte| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            !ends
        });
        let length = inside.count() + 2;
        self.advance(length);
    }

    /// Steps over the end of a list or an object.
    fn close(&mut self) {
        self.value();
        self.advance(1);
    }

    fn advance(&mut self, bytes: usize) -> &'t str {
        let (passed, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        for byte in passed.bytes() {
            if byte == b'\n' {
                self.at = Position { line: self.at.line + 1, column: 1 };
            } else if begins_character(byte) {
                self.at.column += 1;
            }
        }
        self.rest = rest;
        passed
    }
}
