//! `zstd` (RFC 8878): frames, one after the other.

use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

use super::{Fault, PIECE, Sink, Undo, piece};

/// The largest window is 8 MiB, which is what RFC 9659 allows in this coding; a larger one is refused before memory is taken for it.
const WINDOW_LOG: u32 = 23;

/// What `ZSTD_getErrorCode` calls "memory allocation" (zstd_errors.h).
const NO_MEMORY: usize = 64;

/// The coding.
pub(super) struct Zstd {
    /// None: there was no memory for it.
    context: Option<DCtx<'static>>,
    /// No frame has begun that is not over.
    is_between: bool,
}

impl Default for Zstd {
    fn default() -> Self {
        let context = DCtx::try_create().and_then(|mut context| {
            let set = context.set_parameter(DParameter::WindowLogMax(WINDOW_LOG));
            set.is_ok().then_some(context)
        });
        Self { context, is_between: false }
    }
}

impl Undo for Zstd {
    fn push(&mut self, coded: &[u8], sink: &mut dyn Sink) -> Result<(), Fault> {
        let no_memory = || Fault::Ours("there is no memory to decode zstd".to_owned());
        let context = self.context.as_mut().ok_or_else(no_memory)?;
        let mut decoded = [0; PIECE];
        let mut input = InBuffer::around(coded);
        loop {
            let room = decoded.get_mut(..piece(sink)).unwrap_or_default();
            let size = room.len();
            let mut output = OutBuffer::around(room);
            let before = input.pos();
            let result = context.decompress_stream(&mut output, &mut input);
            let wrote = output.pos();
            sink.put(decoded.get(..wrote).unwrap_or_default())?;
            let moved = input.pos() > before || wrote > 0;
            match result {
                Ok(0) => self.is_between = true,
                Ok(_) => self.is_between &= !moved,
                Err(code) if code == NO_MEMORY.wrapping_neg() => return Err(no_memory()),
                Err(code) => return Err(Fault::Malformed(format!("it is no zstd: {}", zstd_safe::get_error_name(code)))),
            }
            if !moved || input.pos() == coded.len() && wrote < size {
                return Ok(());
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.is_between
    }
}
