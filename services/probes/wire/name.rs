//! Names of DNS as people write them (RFC 1035 section 5.1).

use std::fmt::Write;

use hickory_proto::rr::Name;

/// Reads a name in presentation form (RFC 1035 section 5.1): labels of 1 to 63 bytes with dots between, 255 bytes in all; `\.` and `\\` stand for
/// themselves and `\DDD` for a byte. Any byte may be in a name, as DNS has it; hickory's own reading knows host names only. `None` if it is not
/// one. It is complete (fully qualified) if the text ends with a dot.
pub fn parse(text: &str) -> Option<Name> {
    if text == "." {
        return Some(Name::root());
    }
    let mut labels = vec![Vec::new()];
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'.' => labels.push(Vec::new()),
            b'\\' => {
                let mut byte = rest.next()?;
                if byte.is_ascii_digit() {
                    let number = [byte, rest.next()?, rest.next()?];
                    byte = std::str::from_utf8(&number).ok()?.parse().ok()?;
                }
                labels.last_mut()?.push(byte);
            }
            byte => labels.last_mut()?.push(byte),
        }
    }
    let is_complete = labels.len() > 1 && labels.last().is_some_and(Vec::is_empty);
    if is_complete {
        labels.pop();
    }
    let length: usize = labels.iter().map(|label| label.len() + 1).sum();
    if length > 254 || labels.iter().any(|label| !(1..=63).contains(&label.len())) {
        return None;
    }
    let mut name = Name::from_labels(labels.iter().map(Vec::as_slice)).ok()?;
    name.set_fqdn(is_complete);
    Some(name)
}

/// The name in presentation form, with its final dot if it is complete: what has a meaning in zone files has a backslash before it, what is
/// not printable is `\DDD`.
pub fn show(name: &Name) -> String {
    let mut text = String::with_capacity(name.len() + 1);
    for (number, label) in name.iter().enumerate() {
        if number > 0 {
            text.push('.');
        }
        for byte in label {
            match byte {
                b'.' | b'"' | b'\\' | b';' | b'(' | b')' | b'@' | b'$' => text.extend(['\\', char::from(*byte)]),
                b'!'..=b'~' => text.push(char::from(*byte)),
                // Writing to a string can't fail.
                _ => drop(write!(text, "\\{byte:03}")),
            }
        }
    }
    if name.is_fqdn() {
        text.push('.');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_bytes_are_read_and_shown_as_zone_files_write_them() {
        let shown = |text: &str| parse(text).map(|name| show(&name));
        assert_eq!(shown("-a._b.*"), Some("-a._b.*".into()));
        assert_eq!(shown(r"a\.b\032c\255."), Some(r"a\.b\032c\255.".into()));
        assert_eq!(shown(r#"";(\064"#), Some(r#"\"\;\(\@"#.into()));
        assert_eq!(shown("."), Some(".".into()));
        for bad in ["", "..", ".a", "a..b", r"a\25", r"a\256", "\\"] {
            assert_eq!(shown(bad), None, "{bad}");
        }
        assert_eq!(parse(&"a.".repeat(127)).map(|name| name.num_labels()), Some(127));
        assert_eq!(parse(&"a.".repeat(128)), None);
        assert_eq!(parse(&"a".repeat(64)), None);
    }
}
