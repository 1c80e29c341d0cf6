//! NTP packets (RFC 5905 section 7.3): one request out, one answer in, and what of it can be believed.
//!
//! Own code, because the crates at hand turn an unsynchronized server into a kiss-o'-death and drop the fields of answers they refuse.

use std::{net::Ipv4Addr, time::Duration};

/// The length of a packet without extension fields, in bytes.
pub const LENGTH: usize = 48;
/// The first stratum that means "not synchronized" (RFC 5905 MAXSTRAT).
const MAX_STRATUM: u8 = 16;
/// The root distance from which on a server is not synchronized (RFC 5905 MAXDISP).
const MAX_ROOT_DISTANCE: Duration = Duration::from_secs(16);
/// By how much two clocks may run apart (RFC 5905 PHI): 15 µs in a second.
const WANDER: f64 = 15e-6;
/// From the NTP epoch (1900) to that of Unix (1970), in seconds.
const UNIX_EPOCH: i64 = 2_208_988_800;

/// An instant as NTP writes it: 32 bits of seconds since 1900 or a later era, 32 bits of fraction. Zero: unknown.
///
/// Only differences mean anything, and they are right as long as the instants are less than 68 years apart, whatever the era
/// (RFC 5905 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp(pub u64);

impl Stamp {
    /// The stamp of an instant, given as the time since the Unix epoch.
    pub fn of_unix(since_epoch: Duration) -> Self {
        let seconds = since_epoch.as_secs().wrapping_add(UNIX_EPOCH.unsigned_abs());
        let fraction = (u64::from(since_epoch.subsec_nanos()) << 32) / 1_000_000_000;
        Self(seconds << 32 | fraction)
    }

    /// From `earlier` to `self` in nanoseconds; negative if `earlier` is later.
    pub fn since(self, earlier: Self) -> i64 {
        let difference = i128::from(self.0.wrapping_sub(earlier.0).cast_signed());
        // 2³¹ s in nanoseconds fit.
        i64::try_from((difference * 1_000_000_000) >> 32).unwrap_or(i64::MAX)
    }

    /// Seconds and nanoseconds since the Unix epoch, in the era in which it is nearest to `near`; `None` if unknown.
    pub fn to_unix(self, near: Duration) -> Option<(i64, u32)> {
        if self == Self::default() {
            return None;
        }
        let nanos = i128::from(self.since(Self::of_unix(near))) + i128::try_from(near.as_nanos()).ok()?;
        let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?;
        u32::try_from(nanos.rem_euclid(1_000_000_000)).ok().map(|nanos| (seconds, nanos))
    }
}

/// The bytes of a request: mode 3 (client), and nothing about us. `nonce` stands where our clock would; a server sends it back
/// as it is, so that nobody off the path can answer, and nobody on it learns our time.
pub fn request(version: u8, nonce: Stamp) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    bytes[0] = (version & 7) << 3 | 3;
    bytes[40..].copy_from_slice(&nonce.0.to_be_bytes());
    bytes
}

/// The stamp that an answer has to repeat to be one to us, if the bytes reach so far.
pub fn origin(bytes: &[u8]) -> Option<Stamp> {
    bytes.get(24..32)?.try_into().ok().map(|bytes| Stamp(u64::from_be_bytes(bytes)))
}

/// What is wrong with the length of an answer, if something is: it has all fields, and what follows them are extension fields (RFC 7822: multiples of
/// four bytes, 16 at least) and at most one MAC (a key's number and up to 64 bytes of digest; the number alone is a crypto-NAK). What is in them is not
/// looked at: we asked without.
pub fn wrong_length(bytes: &[u8]) -> Option<String> {
    let Some(mut rest) = bytes.get(LENGTH..) else {
        return Some(format!("it has {} bytes, fewer than {LENGTH}", bytes.len()));
    };
    while !matches!(rest.len(), 0 | 4 | 12 | 20 | 24 | 36 | 52 | 68) {
        let length = rest.get(2..4).map_or(0, |length| usize::from(u16::from_be_bytes([length[0], length[1]])));
        match rest.get(length..) {
            Some(after) if length >= 16 && length.is_multiple_of(4) => rest = after,
            _ => return Some(format!("of its {} bytes the last {} are neither extension fields nor a MAC", bytes.len(), rest.len())),
        }
    }
    None
}

/// A packet's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// 0 to 3; 3: not synchronized.
    pub leap: u8,
    /// 0 to 7; 4 is current.
    pub version: u8,
    /// 0 to 7; 4 is an answer.
    pub mode: u8,
    /// 0: a kiss, or not synchronized; 1 has a reference clock; 16 is not synchronized.
    pub stratum: u8,
    /// How often to ask, as a power of two of a second; a kiss of RATE says it.
    pub poll: i8,
    /// The precision of the sender's clock, as a power of two of a second.
    pub precision: i8,
    /// Round trip to the reference clock, in units of 2⁻¹⁶ s.
    pub root_delay: u32,
    /// Error admitted to, in units of 2⁻¹⁶ s.
    pub root_dispersion: u32,
    /// Where the time is from, or a kiss code.
    pub reference_id: [u8; 4],
    /// When the clock was last set.
    pub reference: Stamp,
    /// Our transmit stamp.
    pub origin: Stamp,
    /// When our request arrived.
    pub receive: Stamp,
    /// When the answer left.
    pub transmit: Stamp,
}

/// Why an answer to us gives no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It says so itself, or its error is beyond all bounds; with the words.
    Unsynchronized(String),
    /// A kiss-o'-death (RFC 5905 section 7.4), with its code.
    Kiss(String),
    /// The fields contradict the protocol or each other; with the words.
    Malformed(String),
}

impl Packet {
    /// Reads the fields; `None` if the bytes are too few. What follows them (extension fields, a MAC) is not looked at.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; LENGTH] = bytes.get(..LENGTH)?.try_into().ok()?;
        let four = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let stamp = |at: usize| Stamp(u64::from(u32::from_be_bytes(four(at))) << 32 | u64::from(u32::from_be_bytes(four(at + 4))));
        Some(Self {
            leap: bytes[0] >> 6,
            version: bytes[0] >> 3 & 7,
            mode: bytes[0] & 7,
            stratum: bytes[1],
            poll: bytes[2].cast_signed(),
            precision: bytes[3].cast_signed(),
            root_delay: u32::from_be_bytes(four(4)),
            root_dispersion: u32::from_be_bytes(four(8)),
            reference_id: four(12),
            reference: stamp(16),
            origin: stamp(24),
            receive: stamp(32),
            transmit: stamp(40),
        })
    }

    /// The bytes of the packet.
    pub fn encode(&self) -> [u8; LENGTH] {
        let mut bytes = [0; LENGTH];
        bytes[0] = self.leap << 6 | (self.version & 7) << 3 | self.mode & 7;
        bytes[1] = self.stratum;
        bytes[2] = self.poll.cast_unsigned();
        bytes[3] = self.precision.cast_unsigned();
        bytes[4..8].copy_from_slice(&self.root_delay.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.root_dispersion.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.reference_id);
        for (at, stamp) in [(16, self.reference), (24, self.origin), (32, self.receive), (40, self.transmit)] {
            bytes[at..at + 8].copy_from_slice(&stamp.0.to_be_bytes());
        }
        bytes
    }

    /// The sanity tests of RFC 5905 (sections 7.4 and 8, appendix A.5.1) on an answer whose origin is ours, to a request of version `asked`: a server
    /// answers in that version, or in an older one if it knows no better.
    pub fn check(&self, asked: u8) -> Result<(), Fault> {
        if self.mode != 4 {
            return Err(Fault::Malformed(format!("its mode is {}, not 4", self.mode)));
        }
        if !(1..=asked).contains(&self.version) {
            return Err(Fault::Malformed(format!("its version is {}, where {asked} was asked", self.version)));
        }
        if let Some(code) = self.kiss_code() {
            return Err(match code.as_str() {
                // The two codes that a server uses for its own state.
                "INIT" | "STEP" => Fault::Unsynchronized(format!("it says so ({code})")),
                _ => Fault::Kiss(code),
            });
        }
        if self.leap == 3 {
            return Err(Fault::Unsynchronized(format!("its leap indicator is 3, its stratum {}", self.stratum)));
        }
        if self.stratum == 0 || self.stratum >= MAX_STRATUM {
            return Err(Fault::Unsynchronized(format!("its stratum is {}", self.stratum)));
        }
        if self.root_distance() >= MAX_ROOT_DISTANCE {
            return Err(Fault::Unsynchronized(format!("its root distance is {:?}", self.root_distance())));
        }
        if self.receive == Stamp::default() || self.transmit == Stamp::default() {
            return Err(Fault::Malformed("it has no time in it".into()));
        }
        if self.transmit.since(self.receive) < 0 {
            return Err(Fault::Malformed("it left before its request had come".into()));
        }
        if self.reference != Stamp::default() && self.transmit.since(self.reference) < 0 {
            return Err(Fault::Malformed("its clock was set after it left".into()));
        }
        Ok(())
    }

    /// The kiss code: of stratum 0 with four letters or digits (or hyphens, dots) for a reference, with NULs or spaces at their end.
    pub fn kiss_code(&self) -> Option<String> {
        let code = self.reference_id_text().filter(|text| !text.is_empty())?;
        (self.stratum == 0).then_some(code)
    }

    /// Where the time is from (RFC 5905 figure 12). Stratum 0 and 1: four characters; above: an IPv4 address, or else hexadecimal. The hash of an
    /// IPv6 address that looks like an IPv4 address can't be told from one.
    pub fn reference_id(&self) -> String {
        let hex = || self.reference_id.iter().map(|byte| format!("{byte:02x}")).collect();
        match self.stratum {
            0 | 1 => self.reference_id_text().unwrap_or_else(hex),
            _ => match Ipv4Addr::from(self.reference_id) {
                address if matches!(address.octets()[0], 1..=223) => address.to_string(),
                _ => hex(),
            },
        }
    }

    fn reference_id_text(&self) -> Option<String> {
        let text = std::str::from_utf8(&self.reference_id).ok()?.trim_end_matches(['\0', ' ']);
        text.chars().all(|character| character.is_ascii_graphic()).then(|| text.to_owned())
    }

    /// Half the root delay plus the root dispersion.
    pub fn root_distance(&self) -> Duration {
        // In halves of a unit, so that half of an odd delay is not lost.
        short(u64::from(self.root_delay) + 2 * u64::from(self.root_dispersion)) / 2
    }

    /// The round trip to the reference clock.
    pub fn root_delay(&self) -> Duration {
        short(self.root_delay.into())
    }

    /// The error that the server admits to.
    pub fn root_dispersion(&self) -> Duration {
        short(self.root_dispersion.into())
    }

    /// The precision of the server's clock; a nonsensical one is at most 65 536 s.
    pub fn resolution(&self) -> Duration {
        Duration::from_secs_f64(f64::from(self.precision).min(16.0).exp2())
    }
}

/// The format of 16 bits of seconds and 16 of fraction (RFC 5905 section 6).
fn short(units: u64) -> Duration {
    Duration::from_nanos((units * 1_000_000_000) >> 16)
}

/// One exchange of ours with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The server's clock minus ours, in nanoseconds.
    pub offset: i64,
    /// The round trip without the server's own time.
    pub delay: Duration,
    /// How far the true offset may lie from `offset`.
    pub uncertainty: Duration,
}

impl Sample {
    /// What an answer that passed [`Packet::check`] says, given when the request left by our wall clock (as the time since 1970), how long the
    /// exchange took, and our own resolution. Our wall clock may be set meanwhile: it counts once.
    pub fn of(answer: &Packet, departure: Duration, elapsed: Duration, resolution: Duration) -> Result<Self, Fault> {
        let departure = Stamp::of_unix(departure);
        let elapsed_nanos = i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX);
        let at_server = answer.transmit.since(answer.receive);
        // ((T2 - T1) + (T3 - T4)) / 2 with T4 = T1 + elapsed, in a form without T4.
        let out = i128::from(answer.receive.since(departure));
        let back = i128::from(answer.transmit.since(departure)) - i128::from(elapsed_nanos);
        let offset = i64::try_from((out + back) / 2).unwrap_or(i64::MAX);
        let grain = answer.resolution() + resolution + elapsed.mul_f64(WANDER);
        let slack = i64::try_from(grain.max(Duration::from_millis(1)).as_nanos()).unwrap_or(i64::MAX);
        if at_server > elapsed_nanos.saturating_add(slack) {
            return Err(Fault::Malformed(format!(
                "it claims {:?} for an exchange that took {elapsed:?}",
                Duration::from_nanos(at_server.unsigned_abs())
            )));
        }
        let delay = Duration::from_nanos(elapsed_nanos.saturating_sub(at_server).max(0).unsigned_abs());
        Ok(Self { offset, delay, uncertainty: delay / 2 + grain })
    }
}

/// The jitter (RFC 5905 section 10): the root mean square of the differences between the offset of the chosen sample and those of the others, one of
/// which is itself. `None` with fewer than two samples.
pub fn jitter(chosen: &Sample, samples: &[Sample]) -> Option<Duration> {
    let others = u32::try_from(samples.len().checked_sub(1)?).ok().filter(|others| *others > 0)?;
    let squares: f64 = samples.iter().map(|sample| (sample.offset as f64 - chosen.offset as f64).powi(2)).sum();
    // Offsets have at most 2⁶³ ns, so this is less than 300 years.
    Some(Duration::from_nanos((squares / f64::from(others)).sqrt() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// When the request left, in 2026.
    const DEPARTURE: Duration = Duration::new(1_795_000_000, 250_000_000);

    /// An answer in step with us.
    fn good() -> Packet {
        let now = Stamp::of_unix(DEPARTURE);
        Packet {
            leap: 0,
            version: 4,
            mode: 4,
            stratum: 3,
            poll: 6,
            precision: -24,
            root_delay: 1 << 12,
            root_dispersion: 1 << 10,
            reference_id: [192, 0, 2, 1],
            reference: Stamp(now.0 - (60 << 32)),
            origin: Stamp(42),
            receive: now,
            transmit: Stamp(now.0 + 1000),
        }
    }

    fn captured(hex: &str) -> Packet {
        let bytes: Vec<_> =
            hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect();
        let packet = Packet::decode(&bytes).unwrap();
        assert_eq!(packet.encode().as_slice(), bytes);
        packet
    }

    #[test]
    fn real_answers_of_chrony_are_read_whole() {
        // chronyd 4.3 with `local stratum 5`, on 22 November 2026.
        let answer = captured("240500e600000000000000007f7f0101eead65377f9366dc0123456789abcdefeead653cb6d12db9eead653cb6d4d99e");
        assert_eq!((answer.leap, answer.version, answer.mode, answer.stratum, answer.precision), (0, 4, 4, 5, -26));
        assert_eq!((answer.reference_id().as_str(), answer.origin), ("127.127.1.1", Stamp(0x0123_4567_89ab_cdef)));
        assert_eq!(answer.transmit.to_unix(Duration::ZERO), Some((1_795_352_252, 714_185_334)));
        assert_eq!(answer.check(4), Ok(()));

        // The same without a source of time.
        let answer = captured("e40000e600010000000100000000000000000000000000000123456789abcdefeead653cb6dc4d9deead653cb6de08d6");
        assert_eq!((answer.leap, answer.stratum, answer.kiss_code()), (3, 0, None));
        assert_eq!((answer.root_delay(), answer.root_distance()), (Duration::from_secs(1), Duration::from_millis(1500)));
        assert!(matches!(answer.check(4), Err(Fault::Unsynchronized(_))));
    }

    #[test]
    fn a_good_answer_passes_and_each_bad_field_is_named() {
        assert_eq!(good().check(4), Ok(()));
        let unsynchronized = |packet: Packet| matches!(packet.check(4), Err(Fault::Unsynchronized(_)));
        assert!(unsynchronized(Packet { leap: 3, ..good() }));
        assert!(unsynchronized(Packet { stratum: 16, ..good() }));
        assert!(unsynchronized(Packet { stratum: 0, leap: 3, reference_id: [0; 4], ..good() }));
        assert!(unsynchronized(Packet { stratum: 0, leap: 3, reference_id: *b"INIT", ..good() }));
        assert!(unsynchronized(Packet { root_dispersion: 16 << 16, ..good() }));
        let malformed = |packet: Packet| matches!(packet.check(4), Err(Fault::Malformed(_)));
        assert!(malformed(Packet { mode: 3, ..good() }));
        assert!(malformed(Packet { version: 0, ..good() }));
        assert!(malformed(Packet { version: 5, ..good() }));
        assert_eq!(Packet { version: 3, ..good() }.check(4), Ok(()), "a server that knows no better");
        assert!(matches!(good().check(3), Err(Fault::Malformed(_))));
        assert!(malformed(Packet { receive: Stamp(0), ..good() }));
        assert!(malformed(Packet { transmit: Stamp(good().receive.0 - 1), reference: Stamp(0), ..good() }));
        assert!(malformed(Packet { reference: Stamp(good().transmit.0 + (1 << 32)), ..good() }));
    }

    #[test]
    fn a_kiss_is_known_by_its_code_and_silence_about_the_reference_is_none() {
        let kiss = |code: &[u8; 4]| Packet { stratum: 0, leap: 3, reference_id: *code, ..good() }.check(4);
        assert_eq!(kiss(b"RATE"), Err(Fault::Kiss("RATE".into())));
        assert_eq!(kiss(b"DENY"), Err(Fault::Kiss("DENY".into())));
        assert!(matches!(kiss(&[0; 4]), Err(Fault::Unsynchronized(_))));
        assert!(matches!(kiss(&[1, 2, 3, 4]), Err(Fault::Unsynchronized(_))));
    }

    #[test]
    fn references_read_as_the_stratum_says() {
        let reference = |stratum, reference_id| Packet { stratum, reference_id, ..good() }.reference_id();
        assert_eq!(reference(1, *b"GPS\0"), "GPS");
        assert_eq!(reference(2, [192, 0, 2, 1]), "192.0.2.1");
        assert_eq!(reference(2, [0xf0, 1, 2, 3]), "f0010203");
        assert_eq!(reference(1, [0xff, 1, 2, 3]), "ff010203");
    }

    #[test]
    fn an_asymmetric_path_shows_as_an_offset_within_its_uncertainty() {
        let at_server = Stamp(good().receive.0 + (10 << 32) / 1000);
        let answer = Packet { receive: at_server, transmit: at_server, ..good() };
        let sample = Sample::of(&answer, DEPARTURE, Duration::from_millis(40), Duration::ZERO).unwrap();
        assert_eq!((sample.offset + 10_000_000).abs() / 10, 0);
        assert!(sample.uncertainty >= Duration::from_millis(20));
    }

    #[test]
    fn differences_hold_across_the_end_of_an_era() {
        // 7 February 2036, 06:28:16 UTC is second 0 of era 1.
        let last = Duration::from_secs(2_085_978_495);
        let next = last + Duration::from_secs(2);
        assert_eq!(Stamp::of_unix(next).0 >> 32, 1);
        assert_eq!(Stamp::of_unix(next).since(Stamp::of_unix(last)), 2_000_000_000);
        assert_eq!(Stamp::of_unix(next).to_unix(last), Some((2_085_978_497, 0)));
        assert_eq!(Stamp::of_unix(last).to_unix(next), Some((2_085_978_495, 0)));
        assert_eq!(Stamp(0).to_unix(next), None);
    }

    #[test]
    fn a_server_can_not_take_longer_than_the_exchange() {
        let answer = Packet { transmit: Stamp(good().receive.0 + (1 << 32)), ..good() };
        assert!(matches!(Sample::of(&answer, DEPARTURE, Duration::from_millis(5), Duration::ZERO), Err(Fault::Malformed(_))));
    }

    #[test]
    fn the_jitter_is_that_of_the_others_about_the_chosen_one() {
        let sample = |offset| Sample { offset, delay: Duration::ZERO, uncertainty: Duration::ZERO };
        assert_eq!(jitter(&sample(5), &[sample(5)]), None);
        assert_eq!(jitter(&sample(1000), &[sample(4000), sample(1000), sample(-3000)]), Some(Duration::from_nanos(3535)));
        let far = jitter(&sample(i64::MIN), &[sample(i64::MIN), sample(i64::MAX)]).unwrap();
        assert!(far > Duration::from_secs(1 << 34));
    }

    #[test]
    fn what_follows_the_fields_has_the_form_of_extension_fields_and_a_mac() {
        let sound = |rest: &[u8]| wrong_length(&[&[0; LENGTH], rest].concat()).is_none();
        let field = |length: u16| [&[0, 1], &length.to_be_bytes()[..], &vec![0; usize::from(length) - 4]].concat();
        assert!(sound(&[]) && sound(&[0; 4]) && sound(&[7; 20]) && sound(&[7; 24]));
        assert!(sound(&field(16)) && sound(&field(28)) && sound(&[field(32), field(16), vec![9; 20]].concat()));
        assert!(!sound(&[0]) && !sound(&[0; 3]) && !sound(&[0; 8]), "neither field nor MAC");
        assert!(!sound(&[0; 400]), "a field of no length would never end");
        assert!(!sound(&field(16)[..15]) && !sound(&[field(28), vec![0; 2]].concat()), "cut short");
        assert_eq!(wrong_length(&[0; 47]).unwrap(), "it has 47 bytes, fewer than 48");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..160), elapsed in any::<u64>()) {
            let _ = (origin(&bytes), wrong_length(&bytes));
            if let Some(packet) = Packet::decode(&bytes) {
                let _ = (packet.check(4), packet.reference_id(), packet.kiss_code(), packet.resolution(), packet.root_distance());
                let _ = Sample::of(&packet, DEPARTURE, Duration::from_nanos(elapsed), Duration::ZERO);
                let _ = packet.reference.to_unix(Duration::from_secs(elapsed >> 20));
            }
        }

        #[test]
        fn a_packet_survives_its_bytes(bytes in prop::array::uniform32(any::<u8>())) {
            let bytes = [bytes.as_slice(), &bytes[..16]].concat();
            let packet = Packet::decode(&bytes).unwrap();
            prop_assert_eq!(packet.encode().to_vec(), bytes);
        }
    }
}
