//! What a machine may lack. A skipped test is loud; where nothing may be skipped (`VANTAGE_REQUIRE_PRIVILEGED=1`) it fails.

/// Says that a test is skipped for want of something.
pub(crate) fn skipped(need: &str) {
    let required = std::env::var_os("VANTAGE_REQUIRE_PRIVILEGED").is_some_and(|value| value == "1");
    assert!(!required, "needs {need}, and VANTAGE_REQUIRE_PRIVILEGED=1 lets nothing be skipped");
    #[expect(clippy::print_stderr, reason = "a skipped test is loud")]
    {
        eprintln!("SKIPPED: needs {need}");
    }
}
