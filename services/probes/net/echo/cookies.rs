//! Random numbers by the hundred: one system call for many.

use crate::{failure::Failure, net::random::random};

/// Bytes that are fetched at once.
const STOCK: usize = 512;

/// Numbers that nobody can guess.
pub(super) struct Cookies {
    stock: [u8; STOCK],
    used: usize,
}

impl Cookies {
    pub(super) fn new() -> Self {
        Self { stock: [0; STOCK], used: STOCK }
    }

    /// The next number; none is given twice.
    pub(super) fn next(&mut self) -> Result<u64, Failure> {
        if self.used >= STOCK {
            self.stock = random()?;
            self.used = 0;
        }
        let cookie = self.stock.get(self.used..).and_then(|rest| rest.first_chunk().copied()).map(u64::from_ne_bytes);
        self.used += size_of::<u64>();
        cookie.ok_or_else(|| Failure::internal("the stock of random numbers has no whole one left"))
    }
}
