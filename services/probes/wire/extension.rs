//! What ICMP errors carry behind the quoted packet: the extension structure (RFC 4884), and in it the stack of MPLS labels with which the
//! packet arrived where the error was made (RFC 4950).

use super::{checksum, icmp::Version};

/// How much is quoted, at the least, where an extension follows: shorter packets are padded to it (RFC 4884 section 4). Routers of the
/// time before that RFC put their labels just there and told no length (its section 5.5).
pub const SHORTEST_QUOTE: usize = 128;

const HEADER: usize = 4;
const OBJECT_HEADER: usize = 4;
const ENTRY: usize = 4;
/// Class and type of an MPLS label stack, incoming (RFC 4950 section 3).
const LABEL_STACK: [u8; 2] = [1, 1];

/// An entry of an MPLS label stack (RFC 3032 section 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// The label, 20 bits.
    pub label: u32,
    /// The traffic class, 3 bits (RFC 5462).
    pub traffic_class: u8,
    /// Whether it is the last of the stack.
    pub bottom_of_stack: bool,
    /// Its time to live.
    pub ttl: u8,
}

/// Where the extension structure begins, counted from the quoted packet's first byte, by the length that the error's header tells. None
/// where it tells none, or one that no structure may follow.
pub fn offset(version: Version, header: [u8; 8]) -> Option<usize> {
    let [_, _, _, _, v6, v4, _, _] = header;
    let offset = match version {
        Version::V4 => usize::from(v4) * 4,
        Version::V6 => usize::from(v6) * 8,
    };
    (offset >= SHORTEST_QUOTE).then_some(offset)
}

/// The label stack, outermost first, behind a quote of which the first `missing` bytes are not there any more. `told` is where the
/// structure begins in what is there; where nobody says so, it is looked for where routers of the time before RFC 4884 put it, and then
/// only a right checksum tells it from what happens to be quoted there. Empty where there is none.
pub fn labels(quote: &[u8], missing: usize, told: Option<usize>) -> Vec<Label> {
    let behind = |at: usize| quote.get(at..).unwrap_or_default();
    let found = match told {
        Some(at) => stack(behind(at)),
        None => {
            let structure = behind(SHORTEST_QUOTE.saturating_sub(missing));
            let is_summed = structure.get(2..4).is_some_and(|sum| sum != [0, 0]);
            if is_summed { stack(structure) } else { None }
        }
    };
    found.unwrap_or_default()
}

/// The label stack in an extension structure. None where it is not one, or has none.
fn stack(structure: &[u8]) -> Option<Vec<Label>> {
    let (header, mut objects) = structure.split_first_chunk::<HEADER>()?;
    // A checksum of zero says that there is none.
    let is_sound = header[0] >> 4 == 2 && (header[2..] == [0, 0] || checksum::internet(structure) == 0);
    if !is_sound {
        return None;
    }
    while let Some(([high, low, class, kind], _)) = objects.split_first_chunk::<OBJECT_HEADER>() {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let object = objects.get(OBJECT_HEADER..length)?;
        if [*class, *kind] == LABEL_STACK {
            let entries = object.chunks_exact(ENTRY);
            return entries.remainder().is_empty().then(|| entries.map(entry).collect());
        }
        objects = objects.get(length..)?;
    }
    None
}

fn entry(bytes: &[u8]) -> Label {
    let word = bytes.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
    Label {
        label: word >> 12,
        traffic_class: (word >> 9 & 0b111) as u8,
        bottom_of_stack: word >> 8 & 1 == 1,
        // The last 8 bits.
        ttl: (word & 0xff) as u8,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An extension structure with two labels, as Debian's traceroute -e reads it: "MPLS:L=16001,E=5,S=0,T=1/L=299776,E=0,S=1,T=1".
    const TWO_LABELS: [u8; 16] = [0x20, 0x00, 0x76, 0xd8, 0x00, 0x0c, 0x01, 0x01, 0x03, 0xe8, 0x1a, 0x01, 0x49, 0x30, 0x01, 0x01];

    fn two_labels() -> Vec<Label> {
        vec![
            Label { label: 16001, traffic_class: 5, bottom_of_stack: false, ttl: 1 },
            Label { label: 299_776, traffic_class: 0, bottom_of_stack: true, ttl: 1 },
        ]
    }

    /// A quote padded to where the structure belongs, and the structure.
    fn quote(structure: &[u8]) -> Vec<u8> {
        [&[0x45; 44][..], &[0; SHORTEST_QUOTE - 44], structure].concat()
    }

    /// The structure again, with its checksum. One of zero is written as the other zero of ones' complement: zero says that there is none.
    fn summed(mut structure: Vec<u8>) -> Vec<u8> {
        structure[2..4].fill(0);
        let sum = match checksum::internet(&structure) {
            0 => u16::MAX,
            sum => sum,
        };
        structure[2..4].copy_from_slice(&sum.to_be_bytes());
        structure
    }

    fn encode(labels: &[Label]) -> Vec<u8> {
        let length = u16::try_from(OBJECT_HEADER + labels.len() * ENTRY).unwrap();
        let mut structure = vec![0x20, 0, 0, 0];
        structure.extend(length.to_be_bytes());
        structure.extend(LABEL_STACK);
        for label in labels {
            let word =
                label.label << 12 | u32::from(label.traffic_class) << 9 | u32::from(label.bottom_of_stack) << 8 | u32::from(label.ttl);
            structure.extend(word.to_be_bytes());
        }
        summed(structure)
    }

    #[test]
    fn a_label_stack_is_read_where_the_header_says_and_where_old_routers_put_it() {
        let whole = quote(&TWO_LABELS);
        assert_eq!(offset(Version::V4, [11, 0, 0, 0, 0, 32, 0, 0]), Some(128));
        assert_eq!(offset(Version::V6, [3, 0, 0, 0, 16, 0, 0, 0]), Some(128));
        assert_eq!(labels(&whole, 0, Some(128)), two_labels());
        assert_eq!(labels(&whole, 0, None), two_labels());
        assert_eq!(labels(&whole[28..], 28, None), two_labels(), "the kernel hands UDP's quote over without its headers");
        let longer = [&[0x45; 200][..], &TWO_LABELS].concat();
        assert_eq!(labels(&longer, 0, Some(200)), two_labels());
        assert_eq!(labels(&longer, 0, None), [], "nobody says that it is there");
    }

    #[test]
    fn a_length_below_what_has_to_be_quoted_is_none() {
        assert_eq!(offset(Version::V4, [11, 0, 0, 0, 16, 31, 0, 0]), None);
        assert_eq!(offset(Version::V6, [3, 0, 0, 0, 15, 32, 0, 0]), None);
    }

    #[test]
    fn what_is_damaged_or_something_else_has_no_labels() {
        let with = |change: fn(&mut Vec<u8>)| {
            let mut structure = TWO_LABELS.to_vec();
            change(&mut structure);
            labels(&quote(&structure), 0, Some(128))
        };
        assert_eq!(with(|structure| structure[9] ^= 1), [], "the checksum is wrong");
        assert_eq!(with(|structure| structure[0] = 0x10), [], "another version");
        assert_eq!(with(|structure| structure.truncate(11)), [], "cut short");
        assert_eq!(with(|structure| structure.truncate(3)), []);
        // Lengths that lead beyond the structure, nowhere, or into the middle of an entry.
        for length in [13, 11, 3, 0] {
            let mut structure = TWO_LABELS.to_vec();
            structure[5] = length;
            assert_eq!(labels(&quote(&summed(structure)), 0, Some(128)), [], "length {length}");
        }
    }

    #[test]
    fn a_checksum_of_zero_is_none_and_does_where_the_length_is_told() {
        let mut structure = TWO_LABELS.to_vec();
        structure[2..4].fill(0);
        assert_eq!(labels(&quote(&structure), 0, Some(128)), two_labels());
        assert_eq!(labels(&quote(&structure), 0, None), [], "it may be the packet's own bytes");
    }

    #[test]
    fn a_checksum_that_comes_to_zero_is_one() {
        let label = Label { label: 0xddf50, traffic_class: 0, bottom_of_stack: true, ttl: 1 };
        let structure = encode(&[label]);
        assert_eq!(structure[2..4], [0xff, 0xff]);
        assert_eq!(labels(&quote(&structure), 0, None), [label]);
    }

    #[test]
    fn other_objects_are_passed_over() {
        // The name of an interface (RFC 5837), before the labels.
        let structure = [&[0x20, 0, 0, 0][..], &[0, 12, 2, 0x02, 8, b'e', b't', b'h', b'0', 0, 0, 0], &TWO_LABELS[4..]].concat();
        assert_eq!(labels(&quote(&summed(structure)), 0, Some(128)), two_labels());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read(stack in proptest::collection::vec((0_u32..1 << 20, 0_u8..8, any::<bool>(), any::<u8>()), 0..16)) {
            let stack: Vec<_> = stack
                .into_iter()
                .map(|(label, traffic_class, bottom_of_stack, ttl)| Label { label, traffic_class, bottom_of_stack, ttl })
                .collect();
            let whole = quote(&encode(&stack));
            prop_assert_eq!(labels(&whole, 0, Some(128)), stack.clone());
            prop_assert_eq!(labels(&whole, 0, None), stack);
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            objects in proptest::collection::vec(any::<u8>(), 0..64),
            missing in 0_usize..200,
            told in proptest::option::of(0_usize..300),
        ) {
            labels(&bytes, missing, told);
            labels(&summed([&[0x20, 0, 0, 0][..], &objects].concat()), 0, Some(0));
        }
    }
}
