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
/// PTR.
pub const PTR: u16 = 12;
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
/// How a name that is the question's is written.
const POINTER_TO_QUESTION: [u8; 2] = [0xc0, HEADER as u8];
/// A name has at most 255 bytes, so 127 labels, and no more jumps than that make sense: a longer chain of pointers is an attack.
const MAX_JUMPS: usize = 127;
/// Aliases of aliases that are followed.
const MAX_ALIASES: usize = 16;

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
        let repeated = match counts[0] {
            1 if reader.repeats(question) => Some(&question.name),
            1 => {
                let asked = reader.question().ok_or_else(|| malformed("the question can't be read"))?;
                if asked != *question {
                    return Err(Refusal::Stranger);
                }
                if exact_case && !asked.name.eq_case(&question.name) {
                    return Err(Refusal::OtherCase);
                }
                None
            }
            // A server that can't or won't read a question does not always repeat it.
            0 if !matches!(rcode, 0 | 3) => None,
            0 => return Err(Refusal::Stranger),
            _ => return Err(malformed("it has more than one question")),
        };
        let truncated = flags & 1 << 9 != 0;
        let mut sections = [Vec::new(), Vec::new(), Vec::new()];
        'sections: for (section, count) in sections.iter_mut().zip(&counts[1..]) {
            for number in 0..*count {
                match reader.record(repeated) {
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
        self.of_name(name, |record| self.address(record))
    }

    /// The names that `name` is an alias of, by way of CNAME records, in order.
    pub fn aliases_of(&self, name: &Name) -> Vec<Name> {
        let mut aliases: Vec<Name> = Vec::new();
        while aliases.len() <= MAX_ALIASES {
            let last = aliases.last().unwrap_or(name);
            let mut records = self.answers.iter().filter(|record| record.record_type == CNAME && record.name == *last);
            let Some(alias) = records.next().and_then(|record| self.data(record).name()) else { break };
            aliases.push(alias);
        }
        aliases
    }

    /// The name that a reverse name points to: the first, where there are several; by way of aliases, as shared networks have them
    /// (RFC 2317). None where there is none.
    pub fn pointer_of(&self, name: &Name) -> Option<Name> {
        let pointer = |record: &Record| (record.class == IN && record.record_type == PTR).then(|| self.data(record).name()).flatten();
        self.of_name(name, pointer).into_iter().next()
    }

    /// What `read` finds in the records of `name`, or else of the names it is an alias of.
    fn of_name<T>(&self, name: &Name, read: impl Fn(&Record) -> Option<T>) -> Vec<T> {
        let mut name = name.clone();
        for _ in 0..=MAX_ALIASES {
            let of_name = || self.answers.iter().filter(|record| record.name == name);
            let found: Vec<_> = of_name().filter_map(&read).collect();
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
        let mut name = Name::root();
        let mut length = 1;
        let mut jumped: Option<Self> = None;
        for _ in 0..2 * MAX_JUMPS {
            let reader = jumped.as_mut().unwrap_or(self);
            let start = reader.at;
            match reader.u8()? {
                0 => return Some(name),
                first @ 0xc0.. => {
                    let target = usize::from(first & 0x3f) << 8 | usize::from(reader.u8()?);
                    if target < HEADER || target >= start {
                        return None;
                    }
                    jumped = Some(Self { bytes: self.bytes, at: target, end: self.bytes.len() });
                }
                size @ 1..=63 => {
                    name = name.append_label(reader.take(size.into())?).ok()?;
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

    /// Whether the question comes next, byte by byte as it was sent, as it nearly always does; then it is passed over.
    fn repeats(&mut self, question: &Question) -> bool {
        let mut ahead = Self { ..*self };
        let repeats = question.name.iter().all(|label| ahead.string() == Some(label))
            && ahead.u8() == Some(0)
            && ahead.u16() == Some(question.record_type)
            && ahead.u16() == Some(question.class);
        if repeats {
            *self = ahead;
        }
        repeats
    }

    fn question(&mut self) -> Option<Question> {
        Some(Question { name: self.name()?, record_type: self.u16()?, class: self.u16()? })
    }

    /// A record. `repeated` is the name in the question where that was passed over: most owners are pointers to it.
    fn record(&mut self, repeated: Option<&Name>) -> Option<Record> {
        let is_pointer = self.bytes.get(self.at..self.end).is_some_and(|rest| rest.starts_with(&POINTER_TO_QUESTION));
        let name = match repeated.filter(|_| is_pointer) {
            Some(name) => {
                self.at += POINTER_TO_QUESTION.len();
                name.clone()
            }
            None => self.name()?,
        };
        let (record_type, class, ttl) = (self.u16()?, self.u16()?, self.u32()?);
        let length = self.u16()?;
        let start = self.at;
        self.take(length.into())?;
        let ttl = if ttl > i32::MAX.unsigned_abs() { 0 } else { ttl };
        Some(Record { name, record_type, class, ttl, start, end: self.at })
    }
}

#[cfg(test)]
mod tests;
