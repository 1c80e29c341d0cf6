use std::panic;

use super::*;

/// How many mutations each target gets; `VANTAGE_FUZZ_RUNS` sets another number.
const RUNS: u64 = 20_000;

/// The same numbers each time: what fails once fails always (SplitMix64, Steele, Lea and Flood, OOPSLA 2014).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        let odd = [0, 1, 0x3f, 0x7f, 0x80, 0xc0, 0xff, 12];
        if self.next().is_multiple_of(2) { odd[self.below(odd.len())] } else { self.next().to_le_bytes()[0] }
    }

    /// One of the seeds, changed in a few ways.
    fn mutation(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1);
            let end = at + self.below(bytes.len() - at + 1);
            match self.below(6) {
                0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                1 if at < bytes.len() => bytes[at] = self.byte(),
                2 => bytes.insert(at, self.byte()),
                3 => bytes.truncate(at),
                4 => drop(bytes.drain(at..end)),
                _ => {
                    let other = &seeds[self.below(seeds.len())];
                    let piece = other[self.below(other.len())..].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        bytes
    }
}

#[test]
fn each_codec_writes_what_it_read_and_survives_what_is_near_it() {
    let runs = std::env::var("VANTAGE_FUZZ_RUNS").ok().map_or(RUNS, |runs| runs.parse().unwrap());
    for target in TARGETS {
        let (seeds, mut numbers) = (target.seeds(), Numbers(1));
        let mutations = (0..runs).map(|_| numbers.mutation(&seeds));
        for bytes in seeds.iter().cloned().chain(mutations) {
            if panic::catch_unwind(|| (target.run)(&bytes)).is_err() {
                let bytes: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                panic!("{}: {bytes}", target.name);
            }
        }
    }
}
