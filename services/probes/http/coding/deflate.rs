//! `deflate`: zlib (RFC 1950), or bare deflate (RFC 1951), as some servers have it.

use flate2::{Decompress, FlushDecompress, Status};

use super::{Fault, PIECE, Sink, Undo, piece};

/// A stream of deflate, with or without the wrapping of zlib.
pub(super) struct Inflate {
    state: Decompress,
    pub(super) is_over: bool,
}

impl Inflate {
    pub(super) fn new(has_zlib_header: bool) -> Self {
        Self { state: Decompress::new(has_zlib_header), is_over: false }
    }

    /// Takes what comes next, and gives back what follows the end of the stream.
    pub(super) fn push<'c>(&mut self, mut coded: &'c [u8], sink: &mut dyn Sink) -> Result<&'c [u8], Fault> {
        let mut decoded = [0; PIECE];
        while !self.is_over {
            let out = decoded.get_mut(..piece(sink)).unwrap_or_default();
            let (read, wrote) = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(coded, out, FlushDecompress::None);
            let read = usize::try_from(self.state.total_in() - read).unwrap_or(usize::MAX);
            let wrote = usize::try_from(self.state.total_out() - wrote).unwrap_or(usize::MAX);
            coded = coded.get(read..).unwrap_or_default();
            sink.put(out.get(..wrote).unwrap_or_default())?;
            match status {
                Ok(Status::StreamEnd) => self.is_over = true,
                // As long as it fills all the room it is given, there may be more within it.
                Ok(Status::Ok) if wrote == out.len() || !coded.is_empty() => {}
                Ok(Status::Ok | Status::BufError) => break,
                Err(error) => return Err(Fault::Malformed(format!("it is no deflate: {error}"))),
            }
        }
        Ok(coded)
    }
}

/// The coding.
#[derive(Default)]
pub(super) struct Deflate {
    /// The first byte, where it came alone.
    first: Option<u8>,
    inflate: Option<Inflate>,
}

impl Undo for Deflate {
    fn push(&mut self, coded: &[u8], sink: &mut dyn Sink) -> Result<(), Fault> {
        if let Some(inflate) = &mut self.inflate {
            return inflate.push(coded, sink).map(|_| ());
        }
        let begin: Vec<u8> = self.first.take().into_iter().chain(coded.iter().copied()).collect();
        match begin.as_slice() {
            [] => Ok(()),
            [only] => {
                self.first = Some(*only);
                Ok(())
            }
            [method, flags, ..] => {
                // Method 8, a window of at most 32 KiB, and a sum that fits (RFC 1950 section 2.2). Bare deflate never begins so: it would
                // be a stored block with bits set that nobody sets.
                let is_zlib = method & 0x0f == 8 && method >> 4 <= 7 && (u16::from(*method) << 8 | u16::from(*flags)) % 31 == 0;
                self.inflate.insert(Inflate::new(is_zlib)).push(&begin, sink).map(|_| ())
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.inflate.as_ref().is_some_and(|inflate| inflate.is_over)
    }
}
