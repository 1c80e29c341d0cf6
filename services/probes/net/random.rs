//! Numbers that nobody else can guess.

use std::cell::RefCell;

use ring::rand::{SecureRandom, SystemRandom};

use crate::failure::Failure;

/// So many bytes are asked for at once: to ask takes longer than to be given a few.
const STOCK: usize = 512;

thread_local! {
    static RANDOM: RefCell<Stock> = const { RefCell::new(Stock { bytes: [0; STOCK], left: 0 }) };
}

/// Random bytes that nobody was given yet. Those that somebody was are zero.
struct Stock {
    bytes: [u8; STOCK],
    left: usize,
}

impl Stock {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        const { assert!(N <= STOCK, "as many at once are asked for with `fill`") };
        if self.left < N {
            self.left = 0;
            fill(&mut self.bytes)?;
            self.left = STOCK;
        }
        let mut taken = [0; N];
        if let Some(next) = self.bytes.get_mut(self.left - N..self.left) {
            taken.swap_with_slice(next);
            self.left -= N;
        }
        Ok(taken)
    }
}

/// Random bytes from the operating system: identifiers and nonces, by which an answer is known as ours.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    RANDOM.with_borrow_mut(Stock::take)
}

/// Fills a buffer with them.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), Failure> {
    SystemRandom::new().fill(bytes).map_err(|_| Failure::internal("the operating system gives no random numbers"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_byte_is_given_twice() {
        let mut stock = Stock { bytes: [0; STOCK], left: 0 };
        let taken: HashSet<[u8; 12]> = (0..1000).map(|_| stock.take().unwrap()).collect();
        assert_eq!(taken.len(), 1000);
        assert!(stock.bytes[stock.left..].iter().all(|byte| *byte == 0));
        // 42 of 12 bytes are in a stock of 512, and 8 are left over.
        assert_eq!(stock.left, STOCK - 1000 % 42 * 12);
    }
}
