//! Numbers that nobody else can guess.

use ring::rand::{SecureRandom, SystemRandom};

use crate::failure::Failure;

/// Random bytes from the operating system: identifiers and nonces, by which an answer is known as ours.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Failure::internal("the operating system gives no random numbers"))?;
    Ok(bytes)
}
