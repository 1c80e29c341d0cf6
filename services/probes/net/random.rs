//! Numbers that nobody else can guess.

use ring::rand::{SecureRandom, SystemRandom};

use crate::failure::Failure;

/// Random bytes from the operating system: identifiers and nonces, by which an answer is known as ours.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

/// Fills a buffer with them.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), Failure> {
    SystemRandom::new().fill(bytes).map_err(|_| Failure::internal("the operating system gives no random numbers"))
}
