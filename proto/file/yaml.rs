//! YAML 1.2 by its core schema, without what makes files hard to judge: no anchors, no tags, one document.

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::{
    error::{Position, Problems},
    node::{Builder, Node, Stop, Value},
};

/// Reads the text into a tree.
pub(super) fn read(text: &str, problems: &mut Problems) -> Result<Option<Node>, Stop> {
    let mut builder = Builder::new(problems);
    let mut documents = 0_u32;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = place(error.marker().line(), error.marker().col());
            Stop::new(at, format!("not valid YAML: {}", error.info()))
        })?;
        let at = begin(&span);
        if is_marked(&event) {
            return Err(Stop::new(at, "anchors, aliases and tags (&name, *name, !tag) are not read; write the value out"));
        }
        match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(Stop::new(at, "a second document begins here; a file of checks is one document"));
                }
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if builder.wants_key() => {
                return Err(Stop::new(at, "the name of a field must be text"));
            }
            Event::SequenceStart(..) => builder.list(at)?,
            Event::MappingStart(..) => builder.object(at)?,
            Event::SequenceEnd | Event::MappingEnd => builder.end(),
            Event::Scalar(text, ..) if builder.wants_key() => builder.key(at, text),
            Event::Scalar(text, ScalarStyle::Plain, ..) => builder.scalar(at, plain(&text))?,
            Event::Scalar(text, ..) => builder.scalar(at, Value::Text(text.into()))?,
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Alias(_) => {}
        }
    }
    // A document of comments alone is a null.
    Ok(builder.finish().filter(|root| !matches!(root.value, Value::Null)))
}

/// Whether the event is an alias, or carries an anchor or a tag.
fn is_marked(event: &Event<'_>) -> bool {
    match event {
        Event::Alias(_) => true,
        Event::Scalar(_, _, anchor, tag) => *anchor != 0 || tag.is_some(),
        Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => *anchor != 0 || tag.is_some(),
        _ => false,
    }
}

fn begin(span: &Span) -> Position {
    place(span.start.line(), span.start.col())
}

fn place(line: usize, column: usize) -> Position {
    let from_one = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Position { line: from_one(line).max(1), column: from_one(column).saturating_add(1) }
}

/// What a scalar without quotes means (YAML 1.2.2 section 10.3.2): `yes`, `on` and dates are text.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number(text.into()),
        _ => Value::Text(text.into()),
    }
}

/// Decimal numbers, with fraction or exponent. Hexadecimal, octal, infinite and no numbers are left as text, which no number field takes.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|part| !part.is_empty() && digits(part))
}
