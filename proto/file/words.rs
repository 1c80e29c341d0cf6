//! The words of sentences about files: where something is, and what was probably meant.

use std::fmt;

use super::{error::quote, node::Node};

/// What a field is in, as sentences name it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// The file itself.
    File,
    /// The object of a field.
    Field(&'a str),
    /// A check, named by its name.
    Check(&'a Node),
    /// A monitor, named by its name or address.
    Monitor(&'a Node),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("the file"),
            Self::Field(name) => f.write_str(name),
            Self::Check(node) => match named(node, "name") {
                Some(name) => write!(f, "check {}", quote(name)),
                None => f.write_str("a check without a name"),
            },
            Self::Monitor(node) => match named(node, "name").or_else(|| named(node, "address")) {
                Some(name) => write!(f, "monitor {}", quote(name)),
                None => f.write_str("a monitor without a name"),
            },
        }
    }
}

fn named<'a>(node: &'a Node, field: &str) -> Option<&'a str> {
    node.get(field)?.node.text()
}

/// The end of a sentence about a name that is not known: the one that was probably meant, or all there are.
pub(super) fn suggestion(name: &str, known: &[&str]) -> String {
    let plain = |name: &str| name.chars().filter(|c| c.is_alphanumeric()).collect::<String>().to_lowercase();
    // Names of the contract are short: the distance to a long one is neither near nor cheap. A number is no slip of another number.
    let nearest = (name.len() <= 64 && name.contains(char::is_alphabetic)).then(|| plain(name)).and_then(|meant| {
        let near = known.iter().map(|known| (strsim::damerau_levenshtein(&meant, &plain(known)), *known));
        near.filter(|(distance, known)| *distance <= (known.len() / 3).clamp(1, 3)).min_by_key(|(distance, _)| *distance)
    });
    match nearest {
        Some((_, known)) => format!("did you mean {known:?}?"),
        None => format!("expected {}", either(known)),
    }
}

/// `"a", "b" or "c"`.
pub(super) fn either(names: &[&str]) -> String {
    match names {
        [] => "none".into(),
        [only] => format!("{only:?}"),
        [others @ .., last] => {
            let others: Vec<String> = others.iter().map(|name| format!("{name:?}")).collect();
            format!("{} or {last:?}", others.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{either, suggestion};

    #[test]
    fn a_slip_of_the_hand_is_answered_with_the_name_that_was_meant() {
        let known = ["host", "count", "spacing", "payload_size_bytes", "max_hops"];
        assert_eq!(suggestion("cuont", &known), "did you mean \"count\"?");
        assert_eq!(suggestion("maxHops", &known), "did you mean \"max_hops\"?");
        assert_eq!(suggestion("HOST", &known), "did you mean \"host\"?");
        assert_eq!(suggestion("payload-size", &["payload_size_bytes"]), "expected \"payload_size_bytes\"");
        assert_eq!(suggestion("1.4", &["1.2", "1.3"]), "expected \"1.2\" or \"1.3\"");
        assert_eq!(suggestion("colour", &["host", "port"]), "expected \"host\" or \"port\"");
        assert_eq!(suggestion(&"x".repeat(1_000_000), &["host"]), "expected \"host\"");
    }

    #[test]
    fn names_are_told_as_a_list() {
        assert_eq!(either(&["a", "b", "c"]), "\"a\", \"b\" or \"c\"");
        assert_eq!(either(&["a"]), "\"a\"");
        assert_eq!(either(&[]), "none");
    }
}
