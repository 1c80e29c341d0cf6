//! The contract's enumerations as the words people and labels use: `REASON_TIMED_OUT` is "timed_out". By descriptor, so that a word
//! added to the contract needs no line here.

use std::sync::LazyLock;

use prost_reflect::EnumDescriptor;

/// What a number that this build's contract does not know is called, so that a newer monitor can't make labels without bound.
pub const UNKNOWN_WORD: &str = "unrecognized";

/// The word for a number of `ProbeResult.outcome`: "passed", "failed", "undetermined", "skipped".
pub fn outcome(number: i32) -> String {
    static WORDS: LazyLock<Words> = LazyLock::new(|| Words::of("vantage.v1.Outcome"));
    WORDS.word(number)
}

/// The word for a number of `ProbeResult.reason`: "timed_out". Empty where it passed.
pub fn reason(number: i32) -> String {
    static WORDS: LazyLock<Words> = LazyLock::new(|| Words::of("vantage.v1.Reason"));
    if number == 0 { String::new() } else { WORDS.word(number) }
}

/// The word for a number of `ProbeResult.attribution`: "target". Empty where it is nobody's fault.
pub fn attribution(number: i32) -> String {
    static WORDS: LazyLock<Words> = LazyLock::new(|| Words::of("vantage.v1.Attribution"));
    if number == 0 { String::new() } else { WORDS.word(number) }
}

/// The values of one enumeration, and the prefix they share.
struct Words {
    values: Option<EnumDescriptor>,
    prefix: String,
}

impl Words {
    fn of(name: &str) -> Self {
        let values = vantage_contract::descriptors().get_enum_by_name(name);
        // The style of the contract: the value 0 is the enumeration's own name, and _UNSPECIFIED.
        let zero = values.as_ref().and_then(|values| values.get_value(0)).map(|value| value.name().to_owned()).unwrap_or_default();
        let prefix = zero.strip_suffix("UNSPECIFIED").unwrap_or_default().to_owned();
        Self { values, prefix }
    }

    fn word(&self, number: i32) -> String {
        match self.values.as_ref().and_then(|values| values.get_value(number)) {
            Some(value) => value.name().strip_prefix(&self.prefix).unwrap_or(value.name()).to_ascii_lowercase(),
            None => UNKNOWN_WORD.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vantage_contract::v1::{Attribution, Outcome, Reason};

    #[test]
    fn words_are_those_of_the_contract_without_their_prefix() {
        assert_eq!(outcome(Outcome::Passed.into()), "passed");
        assert_eq!(outcome(Outcome::Unspecified.into()), "unspecified");
        assert_eq!(reason(Reason::NameNotResolved.into()), "name_not_resolved");
        assert_eq!(reason(Reason::Unspecified.into()), "");
        assert_eq!(attribution(Attribution::Vantage.into()), "vantage");
    }

    #[test]
    fn a_number_from_a_newer_contract_is_one_word_whatever_it_is() {
        assert_eq!(reason(31), UNKNOWN_WORD);
        assert_eq!(outcome(-7), UNKNOWN_WORD);
    }
}
