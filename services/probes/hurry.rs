//! Who must be woken at once. What the kernel stamps may be read a little later than it came, and then with much else that came meanwhile,
//! for a part of what waking up for each costs. What reads the process's own clock may not.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// How many are in a hurry just now. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Hurry(Arc<AtomicU32>);

/// Somebody who reads the process's own clock when woken, for as long as this lives.
#[derive(Debug)]
pub struct Hurrying(Arc<AtomicU32>);

impl Hurry {
    /// One more is.
    pub fn begin(&self) -> Hurrying {
        self.0.fetch_add(1, Ordering::Relaxed);
        Hurrying(Arc::clone(&self.0))
    }

    /// Whether anybody is.
    pub fn is_on(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Hurrying {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
