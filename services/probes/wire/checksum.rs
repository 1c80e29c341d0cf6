//! The Internet checksum (RFC 1071).

/// The checksum of `bytes`: the one's complement of the one's complement sum of its 16-bit words, an odd last byte padded with zero.
/// Over bytes that contain their own right checksum it is 0.
pub fn internet(bytes: &[u8]) -> u16 {
    // Two words at a time: what the upper one carries is added to the lower one below, as it would be before (RFC 1071 section 2).
    let mut pairs = bytes.chunks_exact(4);
    let mut sum: u64 = pairs.by_ref().map(|pair| u64::from(u32::from_be_bytes([pair[0], pair[1], pair[2], pair[3]]))).sum();
    let mut last = [0; 4];
    last[..pairs.remainder().len()].copy_from_slice(pairs.remainder());
    sum += u64::from(u32::from_be_bytes(last));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Folded to 16 bits by the loop.
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_rfc_1071_section_3_adds_up() {
        assert_eq!(internet(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(internet(&[]), 0xffff);
        assert_eq!(internet(&[0xab]), !0xab00);
    }

    proptest! {
        #[test]
        fn it_is_the_sum_of_single_words(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut sum = 0_u32;
            for word in bytes.chunks(2) {
                sum += u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
                sum = (sum & 0xffff) + (sum >> 16);
            }
            prop_assert_eq!(internet(&bytes), !u16::try_from(sum).unwrap());
        }

        #[test]
        fn bytes_with_their_own_checksum_sum_to_zero(mut bytes in proptest::collection::vec(any::<u8>(), 2..200)) {
            bytes[0] = 0;
            bytes[1] = 0;
            let sum = internet(&bytes);
            bytes[..2].copy_from_slice(&sum.to_be_bytes());
            prop_assert_eq!(internet(&bytes), 0);
        }
    }
}
