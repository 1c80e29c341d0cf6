//! Bytes that people read and write: escaped text, hexadecimal.

use bytes::{Bytes, BytesMut};

/// Parses bytes in hexadecimal; white space does not count. An error says what is wrong with them.
pub fn hex(text: &str) -> Result<Bytes, String> {
    let mut bytes = BytesMut::with_capacity(text.len() / 2);
    let mut high = None;
    for letter in text.chars().filter(|letter| !letter.is_ascii_whitespace()) {
        let digit = letter
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
            .ok_or_else(|| format!("has {letter:?}, which is no hexadecimal digit"))?;
        match high.take() {
            None => high = Some(digit),
            Some(high) => bytes.extend([high << 4 | digit]),
        }
    }
    if high.is_some() { Err("has an odd number of digits".to_owned()) } else { Ok(bytes.freeze()) }
}

/// Text as it is, and what is not printable as `\xNN`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                letter if letter.is_control() => {
                    let mut buffer = [0; 4];
                    letter.encode_utf8(&mut buffer).bytes().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
                }
                letter => text.push(letter),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_printable_is_escaped_and_text_is_not() {
        assert_eq!(escape(b"220 caf\xc3\xa9\r\n"), "220 café\\x0d\\x0a");
        assert_eq!(escape(b"\xff\x7f"), "\\xff\\x7f");
    }

    #[test]
    fn hexadecimal_ignores_spaces() {
        assert_eq!(hex("00 fF\n12").unwrap().as_ref(), [0, 0xff, 0x12]);
    }
}
