//! What each codec is fuzzed with: it reads whatever bytes, writes what it read, reads that again, and has the same both times.
//!
//! A new codec is one line of [`TARGETS`] and its function. `cargo test` feeds each with its seeds and thousands of their mutations;
//! `.ci/fuzz` gives them to libFuzzer (`fuzz/`). A function panics where something is wrong.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a fuzzer is told")]

pub(super) mod seeds;

use std::sync::LazyLock;

use bytes::Bytes;
use hickory_proto::rr::Name;

use super::{
    challenge, der,
    dns::{Answer, IN, Manner, Question, Record},
    extension,
    icmp::{self, Echo, Meaning, Version},
    ip::Ipv4,
    ldap, mysql, name,
    ntp::{self, Packet, Sample},
    ocsp, rdata, socks, text, tunnel, x509, xmpp,
};
use crate::http::fuzz as http;
use seeds::{
    ALIAS, CERTIFICATE, CHALLENGES, CODED, COOKIES, DATES, ECHO_REPLY, ECHO_REPLY_V6, FRAMES, IN_STEP, LOCATIONS, MARIADB, NO_SUCH_NAME,
    OCSP_GOOD, OCSP_REVOKED, PACKET, PROSODY, QUOTE, RECORDS, TOKENS, TUNNELS, TWO_ADDRESSES, UNSYNCHRONIZED,
};

/// Something that reads bytes.
#[derive(Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Good bytes to begin with: real ones, where there are some. In hexadecimal, or as text after a "=".
    pub seeds: &'static [&'static str],
    /// Feeds it.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "icmp", run: icmp, seeds: &[ECHO_REPLY, ECHO_REPLY_V6, "0301fcfe00000000"] },
    Target { name: "ip", run: ip, seeds: &[PACKET, QUOTE] },
    Target { name: "dns", run: dns, seeds: &[TWO_ADDRESSES, NO_SUCH_NAME, ALIAS] },
    Target { name: "question", run: question, seeds: &["00010001123401037777770474657374", "00ff00ff00000304766f6e"] },
    Target { name: "rdata", run: record_data, seeds: RECORDS },
    Target { name: "name", run: names, seeds: &["7777772e746573742e", "615c2e625c3033322e5f63", "2e"] },
    Target { name: "extension", run: labels, seeds: &["0000000000000000000000000000000020007cf50008010100401101"] },
    Target { name: "ntp", run: ntp, seeds: &[IN_STEP, UNSYNCHRONIZED] },
    Target { name: "text", run: words, seeds: &["3232302063 6166c3a90d0a", "30302066460a3132"] },
    Target { name: "challenge", run: challenges, seeds: CHALLENGES },
    Target { name: "digest", run: crate::http::auth::digest::fuzz, seeds: CHALLENGES },
    Target { name: "oauth2", run: crate::http::auth::oauth2::fuzz, seeds: TOKENS },
    Target { name: "socks", run: socks_answers, seeds: &["050005000001c00002010050", "05020100050400030568656c6c6f0050"] },
    Target { name: "tunnel", run: tunnels, seeds: TUNNELS },
    Target { name: "coding", run: crate::http::coding::fuzz, seeds: CODED },
    Target { name: "certificate", run: crate::tls::fuzz_certificate, seeds: &[CERTIFICATE] },
    Target { name: "starttls", run: start_tls, seeds: &["300c02010178070a010004000400", MARIADB, PROSODY] },
    Target { name: "ocsp", run: staple, seeds: &[OCSP_GOOD, OCSP_REVOKED, CERTIFICATE, "30030a0103"] },
    Target { name: "http_cookies", run: http::cookies, seeds: COOKIES },
    Target { name: "http_date", run: http::date, seeds: DATES },
    Target { name: "http_location", run: http::location, seeds: LOCATIONS },
    Target { name: "http_frames", run: http::frames, seeds: &[FRAMES] },
];

fn icmp(data: &[u8]) {
    for version in [Version::V4, Version::V6] {
        if let Some(echo) = Echo::parse(version, data) {
            let bytes = echo.encode(version);
            assert_eq!(Echo::parse(version, &bytes), Some(echo));
            assert!(version == Version::V6 || super::checksum::internet(&bytes) == 0, "its own checksum holds");
        }
        if let [kind, code, ..] = *data {
            assert!(!Meaning::of(version, kind, code).words.is_empty());
            let _ = icmp::is_hop_limit_exceeded(version, kind, code) || icmp::is_port_unreachable(version, kind, code);
        }
    }
}

fn ip(data: &[u8]) {
    let Some(packet) = Ipv4::parse(data) else { return };
    let length = u16::try_from(20 + packet.payload.len()).expect("as long as what a length of two bytes said, at most");
    let mut bytes = vec![0x45, 0];
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0, 0, 0, packet.hop_limit, packet.protocol, 0, 0]);
    bytes.extend(packet.source.octets());
    bytes.extend(packet.destination.octets());
    bytes.extend(packet.payload);
    assert_eq!(Ipv4::parse(&bytes), Some(packet));
}

/// Types whose data is bytes that point nowhere, so that it can be moved.
const MOVABLE: &[u16] = &[1, 13, 16, 28, 43, 48, 50, 52, 257, 65_280];

fn dns(data: &[u8]) {
    let id = data.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes));
    for (name, record_type) in [("www.test.", 1), ("nobody.test.", 28), ("test.", 255)] {
        let question = Question { name: name::parse(name).unwrap(), record_type, class: IN };
        let Ok(answer) = Answer::decode(data.to_vec(), id, &question) else { continue };
        assert_eq!(answer.size(), data.len());
        let sections = [&answer.answers, &answer.authorities, &answer.additionals];
        sections.into_iter().flatten().for_each(|record| bounded(&answer, record));
        let _ = answer.addresses_of(&question.name);
        let moved = |records: &[Record]| records.iter().filter(|record| MOVABLE.contains(&record.record_type)).cloned().collect();
        let sections: [Vec<_>; 3] = sections.map(|records| moved(records));
        let again = Answer::decode(encode(&answer, &question, id, &sections), id, &question).expect("what was written can be read");
        assert_eq!((again.rcode & 0xf, again.authoritative, again.truncated), (answer.rcode & 0xf, answer.authoritative, answer.truncated));
        assert_eq!((again.recursion_available, again.authenticated), (answer.recursion_available, answer.authenticated));
        for (records, again_records) in sections.iter().zip([&again.answers, &again.authorities, &again.additionals]) {
            assert_eq!(shown(&answer, records), shown(&again, again_records));
        }
    }
}

/// An answer's bytes, with nothing compressed.
fn encode(answer: &Answer, question: &Question, id: u16, sections: &[Vec<Record>; 3]) -> Vec<u8> {
    let flag = |set: bool, bit: u16| u16::from(set) << bit;
    let flags = flag(true, 15)
        | flag(answer.authoritative, 10)
        | flag(answer.truncated, 9)
        | flag(answer.recursion_available, 7)
        | flag(answer.authenticated, 5)
        | answer.rcode & 0xf;
    let counts = sections.each_ref().map(|records| u16::try_from(records.len()).expect("no more than were read"));
    let mut bytes: Vec<u8> = [id, flags, 1, counts[0], counts[1], counts[2]].iter().flat_map(|word| word.to_be_bytes()).collect();
    wire(&question.name, &mut bytes);
    bytes.extend([question.record_type, question.class].iter().flat_map(|word| word.to_be_bytes()));
    for record in sections.iter().flatten() {
        wire(&record.name, &mut bytes);
        bytes.extend([record.record_type, record.class].iter().flat_map(|word| word.to_be_bytes()));
        bytes.extend(record.ttl.to_be_bytes());
        let data = answer.data(record).rest();
        bytes.extend(u16::try_from(data.len()).expect("as long as a length of two bytes said").to_be_bytes());
        bytes.extend(data);
    }
    bytes
}

fn wire(name: &Name, bytes: &mut Vec<u8>) {
    for label in name.iter() {
        bytes.push(u8::try_from(label.len()).expect("a label of 63 bytes at most"));
        bytes.extend(label);
    }
    bytes.push(0);
}

fn shown(answer: &Answer, records: &[Record]) -> Vec<(String, u16, u16, u32, String)> {
    let one = |record: &Record| (name::show(&record.name), record.record_type, record.class, record.ttl, rdata::present(answer, record));
    records.iter().map(one).collect()
}

/// What is shown of a record is no more than a few times what it has, its names apart.
fn bounded(answer: &Answer, record: &Record) {
    let (shown, length) = (rdata::present(answer, record), answer.data(record).rest().len());
    assert!(shown.len() <= 4 * 1024 + 80 * length, "{} bytes of {length}", shown.len());
    assert!(shown.bytes().all(|byte| !byte.is_ascii_control()), "{shown:?}");
}

/// Type, class, identifier, flags, then the name as label lengths and labels.
fn question(data: &[u8]) {
    let [t0, t1, c0, c1, i0, i1, flags, labels @ ..] = data else { return };
    let (mut rest, mut list) = (labels, Vec::new());
    while let Some((length, after)) = rest.split_first() {
        let (label, after) = after.split_at(usize::from(*length).min(after.len()));
        list.push(label);
        rest = after;
    }
    let Ok(mut name) = Name::from_labels(list) else { return };
    name.set_fqdn(true);
    let [record_type, class, id] = [[*t0, *t1], [*c0, *c1], [*i0, *i1]].map(u16::from_be_bytes);
    let question = Question { name, record_type, class };
    let manner = Manner {
        recursion_desired: flags & 1 != 0,
        checking_disabled: flags & 2 != 0,
        edns_size: (flags & 4 != 0).then_some(1232),
        dnssec_ok: flags & 8 != 0,
        nsid: flags & 16 != 0,
        exact_case: flags & 32 != 0,
    };
    let mut bytes = question.encode(id, manner);
    // A server that turns a question into an answer says the same question.
    bytes[2] |= 0x80;
    let answer = Answer::decode(bytes, id, &question).expect("an answer to what was asked");
    assert!(answer.answers.is_empty() && answer.additionals.is_empty());
    assert_eq!(answer.rcode, 0);
}

/// Where the extensions begin, as a multiple of 8 with one that says nothing, and the quote with them.
fn labels(data: &[u8]) {
    let Some((first, quote)) = data.split_first() else { return };
    let told = (first & 1 != 0).then_some(usize::from(first >> 1) * 8);
    for missing in [0, 8, 28] {
        let labels = extension::labels(quote, missing, told);
        assert!(labels.len() * 4 <= quote.len(), "each label has four bytes of its own");
    }
}

/// A type and the data of one record.
fn record_data(data: &[u8]) {
    let Some((kind, data)) = data.split_first_chunk::<2>() else { return };
    let Ok(length) = u16::try_from(data.len()) else { return };
    let number = u16::from_be_bytes(*kind);
    assert_eq!(rdata::type_number(&rdata::type_name(number)), Some(number));
    assert_eq!(rdata::rcode_number(&rdata::rcode_name(number & 0xfff)), Some(number & 0xfff));
    let question = Question { name: name::parse("test.").unwrap(), record_type: number, class: IN };
    let mut bytes = vec![0, 0, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0];
    bytes.extend(b"\x04test\0");
    bytes.extend(kind);
    bytes.extend([0, 1, 0xc0, 12]);
    bytes.extend(kind);
    bytes.extend([0, 1, 0, 0, 0, 1]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(data);
    let answer = Answer::decode(bytes, 0, &question).expect("one record of one type");
    let Some(record) = answer.answers.first() else { return };
    assert_eq!(answer.data(record).rest(), data);
    bounded(&answer, record);
}

fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(name) = name::parse(text) else { return };
    let again = name::parse(&name::show(&name)).expect("what is shown can be read");
    assert!(name.iter().eq(again.iter()) && name.is_fqdn() == again.is_fqdn(), "{name} and {again}");
}

fn ntp(data: &[u8]) {
    let Some(packet) = Packet::decode(data) else {
        return assert!(data.len() < ntp::LENGTH);
    };
    assert_eq!(Packet::decode(&packet.encode()), Some(packet));
    assert_eq!(ntp::origin(data), Some(packet.origin));
    // Whatever its fields say, none of this may panic.
    let _ = (packet.check(packet.version), packet.kiss_code(), packet.reference_id(), packet.root_distance(), packet.resolution());
    let _ = packet.transmit.to_unix(std::time::Duration::from_secs(1_795_352_252));
    let _ = Sample::of(&packet, std::time::Duration::from_nanos(packet.origin.0), std::time::Duration::from_millis(1), packet.resolution());
}

fn challenges(data: &[u8]) {
    let read = challenge::parse(data);
    let again: Vec<_> = read.iter().flat_map(|one| challenge::parse(&one.encode())).collect();
    assert_eq!(read, again);
    let size: usize = read.iter().flat_map(|one| &one.parameters).map(|(name, value)| name.len() + value.len()).sum();
    assert!(size <= data.len());
}

/// A method, and the answer to a request.
fn socks_answers(data: &[u8]) {
    let Some((method, rest)) = data.split_first_chunk() else { return };
    if let Err(words) = socks::method(*method) {
        assert!(!words.is_empty());
    }
    let _ = socks::is_accepted(*method);
    let Some((head, _)) = rest.split_first_chunk() else { return };
    if let Ok((code, length)) = socks::answer(*head) {
        assert!(length <= 257 && !socks::words(code).is_empty());
    }
}

/// However an answer is cut, what is read of it is the same.
fn tunnels(data: &[u8]) {
    let whole = tunnel::head(data);
    for cut in (0..data.len()).take(256) {
        match (tunnel::head(&data[..cut]), &whole) {
            (Ok(Some(head)), whole) => assert_eq!(whole, &Ok(Some(head))),
            (Err(_), whole) => assert!(whole.is_err()),
            (Ok(None), _) => {}
        }
    }
    if let Ok(Some(head)) = whole {
        assert!(head.length <= data.len() && head.words.len() <= 4 * 120 && !head.words.contains(char::is_control));
    }
}

/// What servers say on the way to TLS. What is read is read as well with more behind it, and what is cut short is awaited.
fn start_tls(data: &[u8]) {
    if let Ok(Some(answer)) = ldap::Answer::decode(data) {
        assert_eq!(ldap::Answer::decode(&data[..answer.length]), Ok(Some(answer)));
        assert_eq!(ldap::Answer::decode(&data[..answer.length - 1]), Ok(None));
    }
    if let Ok(Some((greeting, length))) = mysql::Greeting::decode(data) {
        assert_eq!(mysql::Greeting::decode(&data[..length]), Ok(Some((greeting, length))));
        assert_eq!(mysql::Greeting::decode(&data[..length - 1]), Ok(None));
    }
    let mut rest = data;
    while let Ok(Some(tag)) = xmpp::Tag::decode(rest) {
        assert!(tag.length > tag.text.len() + 1 && tag.text.contains(tag.name) && !tag.name.is_empty());
        assert_eq!(xmpp::Tag::decode(&rest[..tag.length]), Ok(Some(tag)));
        rest = &rest[tag.length..];
    }
}

/// DER has one spelling of everything, so what was read can be written; and what is taken apart are parts of it.
fn staple(data: &[u8]) {
    let mut elements = der::Reader::new(data);
    while let Ok(element) = elements.any() {
        assert_eq!(der::wrap(element.tag, element.content), element.whole);
    }
    let is_part = |part: &[u8]| data.as_ptr_range().contains(&part.as_ptr()) || part.is_empty();
    if let Ok(response) = ocsp::Response::decode(data) {
        assert!(is_part(response.signed) && is_part(response.signature) && response.certificates.iter().all(|one| is_part(one)));
        // Each answer and each certificate has bytes of its own.
        assert!(response.answers.len() + response.certificates.len() <= data.len());
    }
    if let Ok(certificate) = x509::Certificate::decode(data) {
        assert!(is_part(certificate.signed) && is_part(certificate.key));
        let _ = x509::Key::decode(certificate.key);
    }
    assert!(crate::tls::fuzz_staple(data).len() < 200);
}

fn words(data: &[u8]) {
    assert!(text::escape(data).chars().all(|letter| !letter.is_control()));
    let Ok(digits) = std::str::from_utf8(data) else { return };
    if let Ok(bytes) = text::hex(digits) {
        let again: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text::hex(&again), Ok(bytes));
    }
}

/// A certificate, for what is about one.
pub(crate) fn certificate() -> &'static [u8] {
    static BYTES: LazyLock<Bytes> = LazyLock::new(|| text::hex(CERTIFICATE).expect("hexadecimal"));
    &BYTES
}

impl Target {
    /// The seeds' bytes.
    pub fn seeds(&self) -> Vec<Vec<u8>> {
        let bytes = |seed: &&str| match seed.strip_prefix('=') {
            Some(text) => text.as_bytes().to_vec(),
            None => text::hex(seed).expect("hexadecimal").to_vec(),
        };
        self.seeds.iter().map(bytes).collect()
    }
}
#[cfg(test)]
mod tests;
