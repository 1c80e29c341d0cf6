//! The clocks of the services. Instants on the wall say when, the monotonic clock says how long; the two are never mixed, and walls are
//! never subtracted.

use std::time::SystemTime;

use tokio::time::Instant;

/// The monotonic clock: how long.
pub fn monotonic() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the one place where services read the monotonic clock")]
    Instant::now()
}

/// The wall clock: when.
pub fn wall() -> SystemTime {
    #[expect(clippy::disallowed_methods, reason = "the one place where services read the wall clock")]
    SystemTime::now()
}
