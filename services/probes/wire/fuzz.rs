//! What each codec is fuzzed with: it reads whatever bytes, writes what it read, reads that again, and has the same both times.
//!
//! A new codec is one line of [`TARGETS`] and its function. `cargo test` feeds each with its seeds and thousands of their mutations;
//! `.ci/fuzz` gives them to libFuzzer (`fuzz/`). A function panics where something is wrong.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a fuzzer is told")]

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

/// A JSON text as gzip 1.12, brotli 1.0.9 and zstd 1.5.4 code it, and ten megabytes of zeros by brotli; first which coding it is.
const CODED: &[&str] = &[
    "001f8b0800000000000203ab562a2e492c292d56b252cacf56d251cacb4f490572a20d758c748c6375944a522b4a807219a93939f90a18a4522d0096c0b426\
     40000000",
    "01a1f80100e9388c1d4f173f02c1a2d2892354f216d95adbdb3132336f9a45a7ab2f38e480f9a02d8bec58362aaafa987a491ecee1a0869d1cef8b03",
    "0328b52ffd2440b50100f4027b22737461747573223a226f6b222c226e6f646573223a5b312c322c335d2c2274657874223a2268656c6c6f20227d0100cd5c\
     cabb227eba",
    "019f7f9698f82700e2b14020c71113",
];
/// iputils ping -s 16 to a Linux host, one router away: the reply, without its IP header.
const ECHO_REPLY: &str = "000039d8314a000181e9026b0000000002880e0000000000";
/// The same over IPv6.
const ECHO_REPLY_V6: &str = "81001a07314c000181e9026b00000000a6ec0e0000000000";
/// The first with its IP header.
const PACKET: &str = "4500002c8e9300003f01d8290a0901020a090001000039d8314a000181e9026b0000000002880e0000000000";
/// What a Linux router's "time exceeded" quotes of traceroute -I.
const QUOTE: &str = "45000024986c000001010c590a0900010a0901020800997e314f000148494a4b4c4d4e4f";
/// What unbound 1.17.1 answered to `www.test A`, with EDNS.
const TWO_ADDRESSES: &str = "1234858000010002000000010377777704746573740000010001c00c000100010000012c0004c0000202\
    c00c000100010000012c0004c000020100002904d0000000000000";
/// The same of `nobody.test AAAA`: NXDOMAIN, with the zone's SOA record.
const NO_SUCH_NAME: &str = "123485830001000000010001066e6f626f6479047465737400001c0001c013000600010000012c0020026e73c01304686f7374\
    c01378c404c900001c2000000258000151800000012c00002904d0000000000000";
/// An alias, an address and a text: put together by hand.
const ALIAS: &str = "1234818000010003000000000377777704746573740000010001c00c000500010000003c0007046d61696ec010c02600010001000\
    0003c0004c0000201c010001000010000003c000403613d62";
/// chronyd 4.3 with `local stratum 5`.
const IN_STEP: &str = "240500e600000000000000007f7f0101eead65377f9366dc0123456789abcdefeead653cb6d12db9eead653cb6d4d99e";
/// The same without a source of time.
const UNSYNCHRONIZED: &str = "e40000e600010000000100000000000000000000000000000123456789abcdefeead653cb6dc4d9deead653cb6de08d6";
/// The data of records, with their types before them: A, AAAA, MX, TXT, SOA, SRV, CAA, HTTPS, NSEC, NSEC3, DS.
const RECORDS: &[&str] = &[
    "0001c0000201",
    "001c20010db8000000000000000000000001",
    "000f000a046d61696c0474657374 00",
    "00100361 3d620163",
    "0006026e730474657374000468 6f73740474657374 0078c404c900001c2000000258000151800000012c",
    "0021000a000013c4037369700474657374 00",
    "0101000569737375656361",
    "00410001000001000302683200040004c0000201",
    "002f046e6578740474657374000006400100080003",
    "003201000005 04aabbccdd 14 0102030405060708090a0b0c0d0e0f1011121314 0006400000000002",
    "002b303a0802aabbccddeeff00112233445566778899aabbccddeeff00112233445566778899",
];
/// Challenges of RFC 7616 section 3.9.1, of RFC 9110 section 11.6.1, and of Negotiate.
const CHALLENGES: &[&str] = &[
    "446967657374207265616c6d3d22687474702d61757468406578616d706c652e6f7267222c20716f703d22617574682c20617574682d696e74222c\
        20616c676f726974686d3d5348412d3235362c206e6f6e63653d2237797066222c206f70617175653d2246516865222c207374616c653d74727565",
    "4261736963207265616c6d3d2273696d706c65222c204e657761757468207265616c6d3d2261707073222c20747970653d312c207469746c653d224c6f67\
        696e20746f205c22617070735c2222",
    "4e65676f7469617465206162633d3d2c204e544c4d",
];
/// Answers of token endpoints: RFC 6749 sections 4.4.3 and 5.2.
const TOKENS: &[&str] = &[
    "7b226163636573735f746f6b656e223a2232596f746e465a464571723173434d5a222c22746f6b656e5f74797065223a22626561726572222c22657870697265735f\
        696e223a333630307d",
    "7b226572726f72223a22696e76616c69645f636c69656e74222c226572726f725f6465736372697074696f6e223a226e6f227d",
];
/// What squid 5.7 and a proxy with RFC 9209 answer.
const TUNNELS: &[&str] = &[
    "485454502f312e3120323030204f4b0d0a0d0a",
    "485454502f312e312035303320536572766963650d0a582d53717569642d4572726f723a204552525f434f4e4e4543545f4641494c203131310d0a0d0a",
    "485454502f312e312035303220420d0a50726f78792d5374617475733a20703b206572726f723d646e735f6572726f720d0a0d0a",
];
/// A certificate of OpenSSL 3.0, on P-256.
const CERTIFICATE: &str = "3082016d30820113a003020102021455a495134f63751b64a3efb15b704c61314e5df1300a06082a8648ce3d040302300c310a300806035504030c01\
        74301e170d3236313132343135333031325a170d3236313230333135333031325a300c310a300806035504030c01743059301306072a8648ce3d0201\
        06082a8648ce3d0301070342000441ad29988b40aa9066de1a8037b24931adf7ae03619f2a83ca7186c06681d9c6d9038db44348e683a42f67efe180\
        7327c782ebba399964a85da5de107ed67951a3533051301d0603551d0e04160414b1b373530f70b5aa0530a0ff54a297acd0d7ca8d301f0603551d23\
        041830168014b1b373530f70b5aa0530a0ff54a297acd0d7ca8d300f0603551d130101ff040530030101ff300a06082a8648ce3d0403020348003045\
        0221008168b5e3a961a860583ca64a1b2c555f05d652a0dca431502bccbe9b58024889022049f2d9df159d14fcc5faa8c10f10c3874b7bb5a68e32e5\
        893bd3c4e42e64301e";

/// What OpenSSL 3.0 says of a good certificate: `openssl ocsp -index .. -rsigner .. -reqin .. -ndays 7 -resp_no_certs`.
pub(super) const OCSP_GOOD: &str = "3081fc0a0100a081f63081f306092b06010505073001010481e53081e2308188a10e300c310a300806035504030c0174180f32303236313132383031\
    313430365a30653063303b300906052b0e03021a0500041476b3b6f408e4a7f0006b430211595e17ad61ad0f0414dd0b387bea6fcdf96c90c028284a\
    0e6a444c558e020212348000180f32303236313132383031313430365aa011180f32303236313230353031313430365a300a06082a8648ce3d040302\
    0349003046022100c87dbb89386508e8ff16117abaa0c6f03de24233f9f1f01c735414b0265523c6022100e666744653e36f89571398490440879001\
    2d53a8259741ef75f935f9981ddce6";
/// The same of a revoked one, with `-resp_key_id` and without end.
pub(super) const OCSP_REVOKED: &str = "308201080a0100a08201013081fe06092b06010505073001010481f03081ed308193a2160414dd0b387bea6fcdf96c90c028284a0e6a444c558e180f\
    32303236313132383031313430365a30683066303b300906052b0e03021a0500041476b3b6f408e4a7f0006b430211595e17ad61ad0f0414dd0b387b\
    ea6fcdf96c90c028284a0e6a444c558e02021234a116180f32303236313132303030303030305aa0030a0101180f3230323631313238303131343036\
    5a300a06082a8648ce3d0403020349003046022100949298696bea3a1f336c2a7b867764b751fcbb1bec7a7c1f17ed5d9ba392210e022100c3521331\
    cbb184e6e6327bde1b0eca9c99fb5a4674b1f7b9a279b63adda6bff5";

/// What prosody 0.12 says first, shortened.
const PROSODY: &str = "3c3f786d6c2076657273696f6e3d27312e30273f3e3c73747265616d3a73747265616d2069643d27783e79273e3c73747265616d3a66656174757265\
    733e3c7374617274746c7320786d6c6e733d2275726e3a696574663a706172616d733a786d6c3a6e733a786d70702d746c73222f3e3c2f73747265616d3a66656174757265733e";
/// What MariaDB 10.11.19 says first, without TLS.
pub(super) const MARIADB: &str = "640000000a352e352e352d31302e31312e31392d4d6172696144422d302b6465623132753100030000005267315a55787e2f00fe\
    f7080200ff81150000000000001d0000006e5c64603527623b3f676a5f006d7973716c5f6e61746976655f70617373776f726400";

/// Cookies for a host, for those below it, for others, and ones that end.
const COOKIES: &[&str] = &[
    "=SID=31d4d96e407aad42; Path=/; Secure; HttpOnly",
    "=lang=en-US; Expires=Wed, 09 Jun 2032 10:18:14 GMT; Domain=shop.example\nlang=; Expires=Sun, 06 Nov 1994 08:49:37 GMT",
    "=a=b; Domain=.example\nc=d; Domain=other.example; Max-Age=-1\n=e; Path=/a/b\nf=\"g h\"; Path=x; Max-Age=99999999999",
];
/// Dates as HTTP has them, and as servers have them.
const DATES: &[&str] =
    &["=Sun, 06 Nov 1994 08:49:37 GMT", "=Sunday, 06-Nov-94 08:49:37 GMT", "=Sun Nov  6 08:49:37 1994", "=29 feb 2028 0:0:0"];
/// Places.
const LOCATIONS: &[&str] = &[
    "=https://www.example.com:8443/a/../b?c=d#e",
    "=//joe:pw@[::ffff:192.0.2.1]/",
    "=../x;y?z",
    "=http://0x7f.1/%2e%2e/",
    "=javascript:alert(1)",
];
/// In pieces of 5: SETTINGS and their answer, a WINDOW_UPDATE, HEADERS, and DATA that ends the stream; put together by hand.
const FRAMES: &str = "05 000012040000000000000300000080000400010000000500ffffff 0000040800000000007fff0000 000000040100000000 \
    00000301040000000188be5a 00000300010000000168690a";

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
mod tests {
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
}
