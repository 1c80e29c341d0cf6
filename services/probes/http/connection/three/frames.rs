//! How long the frames are that come on a request's stream (RFC 9114 section 7.1).
//!
//! h3 keeps a frame in memory until it is whole, unless it is one of DATA, and whoever serves may announce one of 2^62 bytes.

/// The type of frames of DATA.
const DATA: u64 = 0;

/// Tells frames apart in a stream of bytes.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// What has come of a frame's type and length, which have up to 8 bytes each.
    head: Vec<u8>,
    /// Bytes until the frame is over.
    rest: u64,
}

impl Frames {
    /// Whether all that has come is whole frames.
    pub(super) fn is_between(&self) -> bool {
        self.rest == 0 && self.head.is_empty()
    }

    /// Takes more bytes. Fails with the length of the first frame that is not one of DATA and longer than `limit`.
    pub(super) fn feed(&mut self, mut bytes: &[u8], limit: u64) -> Result<(), u64> {
        loop {
            let skipped = usize::try_from(self.rest).unwrap_or(usize::MAX).min(bytes.len());
            self.rest -= skipped as u64;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let Some((&byte, after)) = bytes.split_first() else { return Ok(()) };
            bytes = after;
            self.head.push(byte);
            let Some((kind, length)) = integer(&self.head).and_then(|(kind, rest)| Some((kind, integer(rest)?.0))) else { continue };
            if kind != DATA && length > limit {
                return Err(length);
            }
            self.rest = length;
            self.head.clear();
        }
    }
}

/// An integer of QUIC (RFC 9000 section 16) and what comes after it. None: it is not whole yet.
fn integer(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (&first, _) = bytes.split_first()?;
    let (bytes, rest) = bytes.split_at_checked(1 << (first >> 6))?;
    // The first two bits are the length of the integer itself.
    let value = bytes.iter().skip(1).fold(u64::from(first & 0x3f), |value, byte| value << 8 | u64::from(*byte));
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_two_four_or_eight_bytes() {
        // The examples of RFC 9000 appendix A.1.
        let eight = [0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c];
        assert_eq!(integer(&eight), Some((151_288_809_941_952_652, &[][..])));
        assert_eq!(integer(&[0x9d, 0x7f, 0x3e, 0x7d, 9]), Some((494_878_333, &[9][..])));
        assert_eq!(integer(&[0x7b, 0xbd]), Some((15_293, &[][..])));
        assert_eq!(integer(&[0x25]), Some((37, &[][..])));
        assert_eq!((integer(&[]), integer(&[0x40]), integer(&eight[..7])), (None, None, None));
    }

    #[test]
    fn frames_are_told_apart_however_they_are_cut() {
        // HEADERS of 2 bytes, DATA of 16384 that has 4 bytes of length, then one of a reserved type that is longer than 5.
        let wire = [&[1, 2, 7, 7, 0, 0x80, 0, 0x40, 0][..], &[9; 16_384], &[0x21, 6, 1, 1, 1, 1, 1, 1]].concat();
        for size in [1, 2, 3, 7, 1000, wire.len()] {
            let fed = |limit| {
                let mut frames = Frames::default();
                wire.chunks(size).try_for_each(|chunk| frames.feed(chunk, limit))
            };
            assert_eq!((fed(6), fed(5), fed(1)), (Ok(()), Err(6), Err(2)), "chunks of {size}");
        }
        for end in 0..=wire.len() {
            let mut frames = Frames::default();
            frames.feed(&wire[..end], 6).unwrap();
            let whole = [0, 4, 9 + 16_384, wire.len()];
            assert_eq!(frames.is_between(), whole.contains(&end), "{end} bytes");
        }
        assert_eq!(Frames::default().feed(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 1 << 16), Err((1 << 62) - 1));
    }
}
