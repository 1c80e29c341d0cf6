//! What labels may be, of checks and of monitors: one rule for files and for what comes over the wire.

/// How many there may be of one thing.
pub const MOST: usize = 32;

/// The longest name, and the longest value, in bytes.
pub const LONGEST: usize = 256;

/// Whether it is a name as Prometheus has it (`[a-zA-Z_][a-zA-Z0-9_]*`), of whatever length.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !text.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_prometheus() {
        for (text, expected) in [("a", true), ("_1B", true), ("", false), ("1a", false), ("a-b", false), ("é", false), ("a b", false)] {
            assert_eq!(is_name(text), expected, "{text:?}");
        }
    }
}
