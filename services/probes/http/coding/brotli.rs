//! `br` (RFC 7932). Windows larger than that RFC allows (the "large window" of Brotli's own tools) are refused: 16 MiB is the most.

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

use super::{Fault, PIECE, Sink, Undo, piece};

/// The coding.
pub(super) struct Brotli {
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    is_over: bool,
}

impl Default for Brotli {
    fn default() -> Self {
        let state = BrotliState::new_strict(StandardAlloc::default(), StandardAlloc::default(), StandardAlloc::default());
        Self { state: Box::new(state), is_over: false }
    }
}

impl Undo for Brotli {
    fn push(&mut self, coded: &[u8], sink: &mut dyn Sink) -> Result<(), Fault> {
        let mut decoded = [0; PIECE];
        let (mut left, mut at, mut total) = (coded.len(), 0, 0);
        while !self.is_over {
            let out = decoded.get_mut(..piece(sink)).unwrap_or_default();
            let (mut room, mut wrote) = (out.len(), 0);
            let result = BrotliDecompressStream(&mut left, &mut at, coded, &mut room, &mut wrote, out, &mut total, &mut self.state);
            sink.put(out.get(..wrote).unwrap_or_default())?;
            match result {
                BrotliResult::ResultSuccess => self.is_over = true,
                BrotliResult::NeedsMoreOutput => {}
                BrotliResult::NeedsMoreInput => break,
                BrotliResult::ResultFailure => return Err(Fault::Malformed("it is no brotli".to_owned())),
            }
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.is_over
    }
}
