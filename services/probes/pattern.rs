//! Regular expressions of checks: bounded in what they are made into, and weighed.

use std::cell::Cell;

use regex::bytes;

/// The most that one may take up, in bytes.
const MOST: usize = 1 << 20;
/// What it may take up while it matches, beside: where that is too little it matches more slowly.
const SCRATCH: usize = 256 << 10;
/// The steps in which they are weighed.
const STEPS: [usize; 4] = [16 << 10, 64 << 10, 256 << 10, MOST];

thread_local! {
    /// What those have taken up that were compiled on this thread.
    static WEIGHT: Cell<usize> = const { Cell::new(0) };
}

/// Compiles one for bytes, or says what is wrong with it.
pub(crate) fn compile(pattern: &str) -> Result<bytes::Regex, String> {
    stepwise(|size| bytes::RegexBuilder::new(pattern).size_limit(size).dfa_size_limit(SCRATCH).build())
}

/// Compiles one for text, or says what is wrong with it.
pub(crate) fn compile_text(pattern: &str) -> Result<regex::Regex, String> {
    stepwise(|size| regex::RegexBuilder::new(pattern).size_limit(size).dfa_size_limit(SCRATCH).build())
}

fn stepwise<R>(build: impl Fn(usize) -> Result<R, regex::Error>) -> Result<R, String> {
    let mut outcome = Err(String::new());
    for size in STEPS {
        match build(size) {
            Ok(built) => {
                WEIGHT.set(WEIGHT.get() + size);
                return Ok(built);
            }
            Err(error) => {
                let is_too_large = matches!(error, regex::Error::CompiledTooBig(_));
                outcome = Err(error.to_string());
                if !is_too_large {
                    break;
                }
            }
        }
    }
    outcome
}

/// Runs `parse`, and says beside its outcome what the regular expressions take up that it has compiled, in bytes, rounded up.
pub(crate) fn weighed<T>(parse: impl FnOnce() -> T) -> (T, usize) {
    WEIGHT.set(0);
    let outcome = parse();
    (outcome, WEIGHT.replace(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_weighs_what_it_is_made_into() {
        assert_eq!(weighed(|| compile("basket").is_ok()), (true, 16 << 10));
        let (_, large) = weighed(|| (compile(r"\w{20}"), compile_text("a")));
        assert!(large > 80 << 10, "{large}");
        assert_eq!(weighed(|| compile("(").is_err()), (true, 0));
        let (too_large, _) = weighed(|| compile(r"\w{1000}").map(|_| ()).unwrap_err());
        assert!(too_large.contains("size limit"), "{too_large}");
    }
}
