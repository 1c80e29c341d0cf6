//! Finds the times and lengths in an encoded result, by where the descriptors say that there are any, without decoding the rest.

use std::sync::LazyLock;

use prost::{Message as _, decode_length_delimiter as varint};
use prost_reflect::{Kind, MessageDescriptor};
use prost_types::{Duration, Timestamp};
use vantage_contract::descriptors;

use super::{duration_is_sound, timestamp_is_sound};

/// What a field holds that has to be looked at.
#[derive(Clone, Copy)]
enum Holds {
    Timestamp,
    Duration,
    /// A message with such fields, by its place in [`MESSAGES`].
    Message(usize),
}

/// The messages of a result, each with its fields that are messages, in the order of their numbers; the result is the first.
static MESSAGES: LazyLock<Vec<Vec<(usize, Holds)>>> = LazyLock::new(|| {
    let mut found: Vec<MessageDescriptor> = descriptors().get_message_by_name("vantage.v1.ProbeResult").into_iter().collect();
    let mut messages = Vec::new();
    while let Some(message) = found.get(messages.len()).cloned() {
        let mut fields = Vec::new();
        for field in message.fields() {
            let Kind::Message(inner) = field.kind() else { continue };
            let holds = match inner.full_name() {
                "google.protobuf.Timestamp" => Holds::Timestamp,
                "google.protobuf.Duration" => Holds::Duration,
                _ => Holds::Message(found.iter().position(|known| *known == inner).unwrap_or_else(|| {
                    found.push(inner);
                    found.len() - 1
                })),
            };
            fields.push((field.number() as usize, holds));
        }
        fields.sort_unstable_by_key(|(number, _)| *number);
        messages.push(fields);
    }
    messages
});

/// Whether all times and lengths of an encoded result are in range. False also where it can't be read.
pub(super) fn are_sound(result: &[u8]) -> bool {
    message_is_sound(0, result).unwrap_or(false)
}

/// Reads the fields of a message: <https://protobuf.dev/programming-guides/encoding>. None: it is not written as we write.
fn message_is_sound(message: usize, mut bytes: &[u8]) -> Option<bool> {
    let fields = MESSAGES.get(message)?;
    while !bytes.is_empty() {
        let key = varint(&mut bytes).ok()?;
        let length = match key & 7 {
            0 => {
                varint(&mut bytes).ok()?;
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes).ok()?,
            5 => 4,
            _ => return None,
        };
        let (inner, rest) = bytes.split_at_checked(length)?;
        bytes = rest;
        let Ok(at) = fields.binary_search_by_key(&(key >> 3), |(number, _)| *number) else { continue };
        let sound = match fields.get(at)?.1 {
            Holds::Timestamp => timestamp_is_sound(&Timestamp::decode(inner).ok()?),
            Holds::Duration => duration_is_sound(&Duration::decode(inner).ok()?),
            Holds::Message(message) => message_is_sound(message, inner)?,
        };
        if !sound {
            return Some(false);
        }
    }
    Some(true)
}
