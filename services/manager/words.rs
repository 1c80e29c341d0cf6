//! The contract's enumerations as the words people and labels use: `REASON_TIMED_OUT` is "timed_out". By descriptor, so that a word
//! added to the contract needs no line here.

use std::sync::LazyLock;

use prost_reflect::EnumDescriptor;

/// What a number that this build's contract does not know is called, so that a newer monitor can't make labels without bound.
pub const UNKNOWN_WORD: &str = "unrecognized";

/// The word for a number of `ProbeResult.outcome`: "passed", "failed", "undetermined", "skipped".
pub fn outcome(number: i32) -> String {
    static WORDS: LazyLock<Option<Words>> = LazyLock::new(|| named("vantage.v1.Outcome"));
    word(&WORDS, number)
}

/// The word for a number of `ProbeResult.reason`: "timed_out". Empty where it passed.
pub fn reason(number: i32) -> String {
    static WORDS: LazyLock<Option<Words>> = LazyLock::new(|| named("vantage.v1.Reason"));
    if number == 0 { String::new() } else { word(&WORDS, number) }
}

/// The word for a number of `ProbeResult.attribution`: "target". Empty where it is nobody's fault.
pub fn attribution(number: i32) -> String {
    static WORDS: LazyLock<Option<Words>> = LazyLock::new(|| named("vantage.v1.Attribution"));
    if number == 0 { String::new() } else { word(&WORDS, number) }
}

fn named(name: &str) -> Option<Words> {
    vantage_contract::descriptors().get_enum_by_name(name).map(Words::of)
}

fn word(words: &Option<Words>, number: i32) -> String {
    words.as_ref().and_then(|words| words.word(number)).unwrap_or_else(|| UNKNOWN_WORD.to_owned())
}

/// The words of one enumeration.
#[derive(Debug, Clone)]
pub struct Words {
    values: EnumDescriptor,
    prefix: String,
}

impl Words {
    /// The words of an enumeration of the contract.
    pub fn of(values: EnumDescriptor) -> Self {
        // The style of the contract: the value 0 is the enumeration's own name, and _UNSPECIFIED.
        let zero = values.get_value(0).map(|value| value.name().to_owned()).unwrap_or_default();
        let prefix = zero.strip_suffix("UNSPECIFIED").unwrap_or_default().to_owned();
        Self { values, prefix }
    }

    /// The word for a number. None where the contract has none.
    pub fn word(&self, number: i32) -> Option<String> {
        self.values.get_value(number).map(|value| self.short(value.name()))
    }

    /// All numbers with their words.
    pub fn all(&self) -> impl Iterator<Item = (i32, String)> {
        self.values.values().map(|value| (value.number(), self.short(value.name())))
    }

    fn short(&self, name: &str) -> String {
        name.strip_prefix(&self.prefix).unwrap_or(name).to_ascii_lowercase()
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
