//! DNS messages (RFC 1035, RFC 6891): one question out, one answer in.
//!
//! Names are hickory's; the walk over the message is ours, because a prober needs what a resolver throws away: an answer with one odd
//! record is still an answer, a truncated one still has a header, and data of any type is shown as its server sent it.

use hickory_proto::rr::Name;

/// The types that this file itself looks into.
pub const A: u16 = 1;
/// An alias (RFC 1035).
pub const CNAME: u16 = 5;
/// The start of a zone (RFC 1035).
pub const SOA: u16 = 6;
/// An IPv6 address (RFC 3596).
pub const AAAA: u16 = 28;
/// A name server (RFC 1035).
pub const NS: u16 = 2;
const OPT: u16 = 41;
/// The EDNS option by which a server names itself (RFC 5001).
const NSID: u16 = 3;
/// The Internet.
pub const IN: u16 = 1;

/// The length of a header.
const HEADER: usize = 12;
/// A name has at most 255 bytes, so 127 labels, and no more jumps than that make sense: a longer chain of pointers is an attack.
const MAX_JUMPS: usize = 127;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name, complete.
    pub name: Name,
    /// The record type's number.
    pub record_type: u16,
    /// The class's number.
    pub class: u16,
}

/// How it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// RD: the server shall recurse.
    pub recursion_desired: bool,
    /// CD: it shall not validate (RFC 4035).
    pub checking_disabled: bool,
    /// EDNS: the UDP payload size that is offered, in bytes. `None` sends no OPT record.
    pub edns_size: Option<u16>,
    /// DO: DNSSEC records are welcome (RFC 3225). Needs EDNS.
    pub dnssec_ok: bool,
    /// The server shall name itself (NSID, RFC 5001). Needs EDNS.
    pub nsid: bool,
    /// The answer has to repeat the letters of the name in the case they were sent in (0x20).
    pub exact_case: bool,
}

impl Question {
    /// The same question with the letters of its name in upper case where `coins` has a bit set, in lower case elsewhere, in turn.
    pub fn in_case(&self, coins: [u8; 32]) -> Option<Self> {
        // A name has at most 254 letters, so 256 bits are enough.
        let mut coins = coins.into_iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1));
        let mut labels: Vec<Vec<u8>> = Vec::new();
        for label in self.name.iter() {
            let cased = label.iter().map(|byte| match byte {
                byte if !byte.is_ascii_alphabetic() => *byte,
                byte if coins.next().unwrap_or_default() => byte.to_ascii_uppercase(),
                byte => byte.to_ascii_lowercase(),
            });
            labels.push(cased.collect());
        }
        let mut name = Name::from_labels(labels.iter().map(Vec::as_slice)).ok()?;
        name.set_fqdn(true);
        Some(Self { name, ..*self })
    }

    /// The bytes of the query.
    pub fn encode(&self, id: u16, manner: Manner) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        let flags = u16::from(manner.recursion_desired) << 8 | u16::from(manner.checking_disabled) << 4;
        for word in [id, flags, 1, 0, 0, u16::from(manner.edns_size.is_some())] {
            bytes.extend(word.to_be_bytes());
        }
        for label in self.name.iter() {
            // A label has at most 63 bytes: hickory's names can't be built otherwise.
            bytes.push(u8::try_from(label.len()).unwrap_or(0));
            bytes.extend(label);
        }
        bytes.push(0);
        bytes.extend(self.record_type.to_be_bytes());
        bytes.extend(self.class.to_be_bytes());
        if let Some(size) = manner.edns_size {
            bytes.push(0);
            bytes.extend(OPT.to_be_bytes());
            bytes.extend(size.to_be_bytes());
            // Extended rcode 0, version 0, the DO flag.
            bytes.extend([0, 0, u8::from(manner.dnssec_ok) << 7, 0]);
            // The only option is an empty one.
            bytes.extend([0, if manner.nsid { 4 } else { 0 }]);
            if manner.nsid {
                bytes.extend(NSID.to_be_bytes());
                bytes.extend([0, 0]);
            }
        }
        bytes
    }
}

/// Why bytes are not an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// They answer somebody else's question, or none: another id, another question, not a response.
    Stranger,
    /// They answer our question, with its name in other letters' case than it was asked in.
    OtherCase,
    /// They carry our id, which nobody else should know, and can't be read. To be off the path and get here takes the same guess of id and
    /// port as a whole forged answer, so it counts as the server's.
    Malformed(String),
}

/// An answer to our question.
#[derive(Debug, Clone)]
pub struct Answer {
    bytes: Vec<u8>,
    /// Where the data of the OPT record lies.
    opt: Option<(usize, usize)>,
    /// The rcode, extended by EDNS where there is some (RFC 6891).
    pub rcode: u16,
    /// AA.
    pub authoritative: bool,
    /// TC.
    pub truncated: bool,
    /// RA.
    pub recursion_available: bool,
    /// AD.
    pub authenticated: bool,
    /// The answer section.
    pub answers: Vec<Record>,
    /// The authority section.
    pub authorities: Vec<Record>,
    /// The additional section without OPT.
    pub additionals: Vec<Record>,
}

/// A resource record; its data stays in the message.
#[derive(Debug, Clone)]
pub struct Record {
    /// The owner.
    pub name: Name,
    /// The type's number.
    pub record_type: u16,
    /// The class's number.
    pub class: u16,
    /// Time to live, in seconds; one with its top bit set is 0 (RFC 2181 section 8).
    pub ttl: u32,
    /// Where its data begins.
    start: usize,
    /// Where its data ends.
    end: usize,
}

impl Answer {
    /// Reads an answer to `question` that was asked with `id`. Of a truncated one the records are read as far as they go.
    pub fn decode(bytes: Vec<u8>, id: u16, question: &Question) -> Result<Self, Refusal> {
        Self::decode_in_case(bytes, id, question, false)
    }

    /// The same, where `exact_case` says whether the answer has to repeat the case of the letters.
    pub fn decode_in_case(bytes: Vec<u8>, id: u16, question: &Question, exact_case: bool) -> Result<Self, Refusal> {
        if bytes.get(..2) != Some(&id.to_be_bytes()) {
            return Err(Refusal::Stranger);
        }
        let malformed = |what: &str| Refusal::Malformed(format!("{what} ({} bytes)", bytes.len()));
        let mut reader = Reader { bytes: &bytes, at: 2, end: bytes.len() };
        let mut word = || reader.u16().ok_or_else(|| malformed("the header is cut short"));
        let flags = word()?;
        let counts = [word()?, word()?, word()?, word()?];
        // QR and the opcode: what comes back from an echo service is our own question.
        if flags >> 11 != 0b1_0000 {
            return Err(Refusal::Stranger);
        }
        let mut rcode = flags & 0xf;
        match counts[0] {
            1 => {
                let asked = reader.question().ok_or_else(|| malformed("the question can't be read"))?;
                if asked != *question {
                    return Err(Refusal::Stranger);
                }
                if exact_case && !asked.name.eq_case(&question.name) {
                    return Err(Refusal::OtherCase);
                }
            }
            // A server that can't or won't read a question does not always repeat it.
            0 if !matches!(rcode, 0 | 3) => {}
            0 => return Err(Refusal::Stranger),
            _ => return Err(malformed("it has more than one question")),
        }
        let truncated = flags & 1 << 9 != 0;
        let mut sections = [Vec::new(), Vec::new(), Vec::new()];
        'sections: for (section, count) in sections.iter_mut().zip(&counts[1..]) {
            for number in 0..*count {
                match reader.record() {
                    Some(record) => section.push(record),
                    None if truncated => break 'sections,
                    None => return Err(malformed(&format!("record {} of {count} can't be read", number + 1))),
                }
            }
        }
        let [answers, authorities, mut additionals] = sections;
        let mut opts = additionals.iter().filter(|record| record.record_type == OPT);
        let opt = opts.next().map(|opt| (opt.start, opt.end));
        if opts.next().is_some() {
            // It must be the only one (RFC 6891 section 6.1.1): which of them holds nobody could say.
            return Err(malformed("it has more than one OPT record"));
        }
        if let Some((start, _)) = opt
            && let [high, ..] = bytes[start - 6..start]
        {
            rcode |= u16::from(high) << 4;
        }
        additionals.retain(|record| record.record_type != OPT);
        Ok(Self {
            rcode,
            authoritative: flags & 1 << 10 != 0,
            truncated,
            recursion_available: flags & 1 << 7 != 0,
            authenticated: flags & 1 << 5 != 0,
            answers,
            authorities,
            additionals,
            opt,
            bytes,
        })
    }

    /// What the server calls itself (NSID, RFC 5001). None: it does not say.
    pub fn nsid(&self) -> Option<&[u8]> {
        let (start, end) = self.opt?;
        let mut options = Reader { bytes: &self.bytes, at: start, end };
        loop {
            let (code, length) = (options.u16()?, options.u16()?);
            let data = options.take(length.into())?;
            if code == NSID {
                return Some(data);
            }
        }
    }

    /// The message as it came.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The first name in the data of a record: of an NS, CNAME or PTR record the only one.
    pub fn target(&self, record: &Record) -> Option<Name> {
        self.data(record).name()
    }

    /// The serial of an SOA record. None: it is none, or can't be read.
    pub fn serial(&self, record: &Record) -> Option<u32> {
        let mut data = (record.record_type == SOA).then(|| self.data(record))?;
        data.name()?;
        data.name()?;
        data.u32()
    }

    /// The size of the message in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// A reader over the record's data, within the whole message, for names may point back.
    pub(crate) fn data(&self, record: &Record) -> Reader<'_> {
        Reader { bytes: &self.bytes, at: record.start, end: record.end }
    }

    /// The address in an A or AAAA record of the Internet.
    pub fn address(&self, record: &Record) -> Option<std::net::IpAddr> {
        let data = &self.bytes[record.start..record.end];
        match (record.class, record.record_type) {
            (IN, A) => <[u8; 4]>::try_from(data).ok().map(Into::into),
            (IN, AAAA) => <[u8; 16]>::try_from(data).ok().map(Into::into),
            _ => None,
        }
    }

    /// The addresses of `name`: those in records of its own, and of the names it is an alias of.
    pub fn addresses_of(&self, name: &Name) -> Vec<std::net::IpAddr> {
        let mut name = name.clone();
        for _ in 0..=16 {
            let of_name = || self.answers.iter().filter(|record| record.name == name);
            let found: Vec<_> = of_name().filter_map(|record| self.address(record)).collect();
            if !found.is_empty() {
                return found;
            }
            let alias = of_name().find(|record| record.record_type == CNAME).and_then(|record| self.data(record).name());
            let Some(alias) = alias else { break };
            name = alias;
        }
        Vec::new()
    }
}

/// Walks over a message; `None` where it ends too early.
pub(crate) struct Reader<'m> {
    bytes: &'m [u8],
    at: usize,
    end: usize,
}

impl<'m> Reader<'m> {
    /// The next `length` bytes.
    pub(crate) fn take(&mut self, length: usize) -> Option<&'m [u8]> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.end)?;
        let taken = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    /// What is left.
    pub(crate) fn rest(&mut self) -> &'m [u8] {
        let rest = &self.bytes[self.at..self.end];
        self.at = self.end;
        rest
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.end
    }

    /// A byte.
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// A number of two bytes.
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// A number of four bytes.
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// A string with its length before it (RFC 1035 section 3.3).
    pub(crate) fn string(&mut self) -> Option<&'m [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// A name, compressed or not (RFC 1035 section 4.1.4). Pointers go backwards only, and not too often.
    pub(crate) fn name(&mut self) -> Option<Name> {
        let mut labels: Vec<&[u8]> = Vec::new();
        let mut length = 1;
        let mut jumped: Option<Self> = None;
        for _ in 0..2 * MAX_JUMPS {
            let reader = jumped.as_mut().unwrap_or(self);
            let start = reader.at;
            match reader.u8()? {
                0 => {
                    let mut name = Name::from_labels(labels).ok()?;
                    name.set_fqdn(true);
                    return Some(name);
                }
                first @ 0xc0.. => {
                    let target = usize::from(first & 0x3f) << 8 | usize::from(reader.u8()?);
                    if target < HEADER || target >= start {
                        return None;
                    }
                    jumped = Some(Self { bytes: self.bytes, at: target, end: self.bytes.len() });
                }
                size @ 1..=63 => {
                    labels.push(reader.take(size.into())?);
                    length += usize::from(size) + 1;
                    if length > 255 {
                        return None;
                    }
                }
                _ => return None,
            }
        }
        None
    }

    fn question(&mut self) -> Option<Question> {
        Some(Question { name: self.name()?, record_type: self.u16()?, class: self.u16()? })
    }

    fn record(&mut self) -> Option<Record> {
        let (name, record_type, class, ttl) = (self.name()?, self.u16()?, self.u16()?, self.u32()?);
        let length = self.u16()?;
        let start = self.at;
        self.take(length.into())?;
        let ttl = if ttl > i32::MAX.unsigned_abs() { 0 } else { ttl };
        Some(Record { name, record_type, class, ttl, start, end: self.at })
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    /// What unbound 1.17.1 answered to `www.test A`, asked with identifier 0x1234, EDNS and 1232 bytes.
    const TWO_ADDRESSES: &str = "1234858000010002000000010377777704746573740000010001c00c000100010000012c0004c0000202\
        c00c000100010000012c0004c000020100002904d0000000000000";
    /// The same of `nobody.test AAAA`: NXDOMAIN, with the zone's SOA record.
    const NO_SUCH_NAME: &str = "123485830001000000010001066e6f626f6479047465737400001c0001c013000600010000012c0020026e73c01304686f7374\
        c01378c404c900001c2000000258000151800000012c00002904d0000000000000";

    fn bytes(hex: &str) -> Vec<u8> {
        hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    fn question(name: &str, record_type: u16) -> Question {
        let mut name = crate::wire::name::parse(name).unwrap();
        name.set_fqdn(true);
        Question { name, record_type, class: IN }
    }

    fn manner() -> Manner {
        Manner {
            recursion_desired: true,
            checking_disabled: false,
            edns_size: Some(1232),
            dnssec_ok: false,
            nsid: false,
            exact_case: false,
        }
    }

    #[test]
    fn a_question_is_the_bytes_that_dig_sends() {
        let sent = question("www.test", A).encode(0x1234, manner());
        assert_eq!(sent, bytes("123401000001000000000001037777770474657374000001000100002904d0000000000000"));
        let bare = Manner { recursion_desired: false, checking_disabled: true, edns_size: None, ..manner() };
        assert_eq!(question(".", 2).encode(1, bare), bytes("0001001000010000000000000000020001"));
        let naming = question("www.test", A).encode(0x1234, Manner { nsid: true, ..manner() });
        assert_eq!(naming, bytes("123401000001000000000001037777770474657374000001000100002904d000000000000400030000"));
    }

    #[test]
    fn letters_that_came_back_in_another_case_are_told_from_a_stranger() {
        let asked = question("www.test", A).in_case([0b101; 32]).unwrap();
        assert_eq!(crate::wire::name::show(&asked.name), "WwW.test.");
        let mut same = bytes(TWO_ADDRESSES);
        let decode = |bytes: Vec<u8>, exact| Answer::decode_in_case(bytes, 0x1234, &asked, exact).map(|_| ());
        assert_eq!((decode(same.clone(), true), decode(same.clone(), false)), (Err(Refusal::OtherCase), Ok(())));
        same[13] = b'W';
        same[15] = b'W';
        assert_eq!(decode(same, true), Ok(()));
    }

    #[test]
    fn a_server_that_names_itself_is_heard_and_two_opt_records_are_not() {
        let mut named = bytes(TWO_ADDRESSES);
        let end = named.len();
        // A cookie of one byte, then the name.
        named[end - 1] = 12;
        named.extend(b"\x00\x0a\x00\x01x\x00\x03\x00\x03ns1");
        let answer = Answer::decode(named.clone(), 0x1234, &question("www.test", A)).unwrap();
        assert_eq!(answer.nsid(), Some(&b"ns1"[..]));
        for cut in [1, 2, 5] {
            let mut broken = named.clone();
            broken[end - 1] -= cut;
            broken.truncate(broken.len() - usize::from(cut));
            assert_eq!(Answer::decode(broken, 0x1234, &question("www.test", A)).unwrap().nsid(), None);
        }
        let mut twice = bytes(TWO_ADDRESSES);
        twice[11] = 2;
        twice.extend_from_within(end - 11..);
        assert!(matches!(Answer::decode(twice, 0x1234, &question("www.test", A)), Err(Refusal::Malformed(_))));
    }

    #[test]
    fn a_real_answer_is_read_whole() {
        let answer = Answer::decode(bytes(TWO_ADDRESSES), 0x1234, &question("WWW.test", A)).unwrap();
        assert_eq!((answer.rcode, answer.authoritative, answer.recursion_available, answer.truncated), (0, true, true, false));
        assert_eq!((answer.answers.len(), answer.authorities.len(), answer.additionals.len()), (2, 0, 0));
        assert_eq!(answer.answers[0].ttl, 300);
        let found = answer.addresses_of(&question("www.test", A).name);
        assert_eq!(found, [IpAddr::from([192, 0, 2, 2]), IpAddr::from([192, 0, 2, 1])]);

        let answer = Answer::decode(bytes(NO_SUCH_NAME), 0x1234, &question("nobody.test", AAAA)).unwrap();
        assert_eq!((answer.rcode, answer.answers.len(), answer.authorities.len()), (3, 0, 1));
        let soa = crate::wire::rdata::present(&answer, &answer.authorities[0]);
        assert_eq!(soa, "ns.test. host.test. 2026112201 7200 600 86400 300");
    }

    #[test]
    fn an_answer_to_somebody_else_is_a_strangers() {
        let decode = |id, name, record_type| Answer::decode(bytes(TWO_ADDRESSES), id, &question(name, record_type)).map(|_| ());
        assert_eq!(decode(0x1235, "www.test", A), Err(Refusal::Stranger));
        assert_eq!(decode(0x1234, "w.test", A), Err(Refusal::Stranger));
        assert_eq!(decode(0x1234, "www.test", AAAA), Err(Refusal::Stranger));
        assert_eq!(decode(0x1234, "www.test", A), Ok(()));
    }

    #[test]
    fn an_extended_rcode_is_put_together_and_a_negative_ttl_is_none() {
        let mut answer = bytes(TWO_ADDRESSES);
        let length = answer.len();
        answer[length - 6] = 1;
        answer[3] |= 7;
        answer[32] = 0x80;
        let answer = Answer::decode(answer, 0x1234, &question("www.test", A)).unwrap();
        assert_eq!((answer.rcode, answer.answers[0].ttl), (23, 0));
    }

    #[test]
    fn pointers_that_go_round_or_forward_are_refused() {
        for target in [0xc01a_u16, 0xc0ff, 0xc000] {
            let mut answer = bytes(TWO_ADDRESSES);
            answer[26..28].copy_from_slice(&target.to_be_bytes());
            assert!(matches!(Answer::decode(answer, 0x1234, &question("www.test", A)), Err(Refusal::Malformed(_))));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut message = bytes(TWO_ADDRESSES);
            message.truncate(26);
            message.extend(tail);
            if let Ok(answer) = Answer::decode(message, 0x1234, &question("www.test", A)) {
                answer.addresses_of(&question("www.test", A).name);
                answer.nsid();
                for record in answer.answers.iter().chain(&answer.additionals) {
                    crate::wire::rdata::present(&answer, record);
                }
            }
        }

        #[test]
        fn a_changed_byte_never_panics(at in 0_usize..200, byte in any::<u8>(), cut in 0_usize..200) {
            let mut message = bytes(NO_SUCH_NAME);
            let (at, cut) = (at % message.len(), message.len().saturating_sub(cut));
            message[at] = byte;
            message.truncate(cut);
            let _ = Answer::decode(message, 0x1234, &question("nobody.test", AAAA));
        }

        #[test]
        fn other_codecs_read_our_questions(labels in prop::collection::vec("[a-z0-9_-]{1,63}", 1..4), record_type: u16, class in 1_u16..254) {
            use hickory_proto::op::Message;
            let question = Question { record_type, class, ..question(&labels.join("."), A) };
            let read = Message::from_vec(&question.encode(7, manner())).unwrap();
            prop_assert_eq!(read.queries[0].name(), &question.name);
            prop_assert_eq!(u16::from(read.queries[0].query_type()), record_type);
            prop_assert_eq!(u16::from(read.queries[0].query_class()), class);
        }
    }
}
