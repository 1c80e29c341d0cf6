//! What an answer has to be.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;
use regex::Regex;
use vantage_contract::v1::{DnsExpectations, Reason};

use crate::{
    failure::{Failure, Invalid},
    pattern, target,
    wire::{
        dns::{Answer, Question, Record},
        rdata, text,
    },
};

/// The type and the class that mean any.
const ANY: u16 = 255;
/// The longest time to live (RFC 2181 section 8): 68 years.
const MAX_TTL: Duration = Duration::from_secs(i32::MAX as u64);

/// What an answer has to be.
pub(super) struct Expectations {
    rcodes: Vec<u16>,
    counts: (usize, usize),
    answers: Vec<Expected>,
    equal: Vec<Expected>,
    any: Vec<Expected>,
    none: Vec<Expected>,
    like: Vec<Regex>,
    unlike: Vec<Regex>,
    within: Vec<IpNet>,
    authoritative: Option<bool>,
    authenticated: Option<bool>,
    min_ttl: Option<Duration>,
    max_ttl: Option<Duration>,
    min_soa_serial: Option<u32>,
}

/// A record's data as a person wrote it.
struct Expected {
    text: String,
    /// What the text means, where it is an address in any of its spellings.
    address: Option<IpAddr>,
}

impl Expectations {
    pub(super) fn parse(spec: &DnsExpectations) -> Result<Self, Invalid> {
        let rcode = |text: &String| {
            rdata::rcode_number(text)
                .ok_or_else(|| Invalid::new("expect.rcodes", format!("{text:?} is neither an rcode's name nor a number up to 4095")))
        };
        let regexes = |field: &str, texts: &[String]| {
            let regex = |text: &String| pattern::compile_text(text).map_err(|error| Invalid::new(field, error));
            texts.iter().map(regex).collect::<Result<Vec<_>, _>>()
        };
        let network = |text: &String| {
            text.parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| Invalid::new("expect.answers_within", format!("{text:?} is not a network")))
        };
        let expected = |texts: &[String]| texts.iter().map(|text| Expected::parse(text)).collect();
        let ttl = |field, value| match value {
            None => Ok(None),
            some => target::duration(field, some, Duration::ZERO, Duration::ZERO..=MAX_TTL).map(Some),
        };
        let mut rcodes = spec.rcodes.iter().map(rcode).collect::<Result<Vec<_>, _>>()?;
        if rcodes.is_empty() {
            rcodes.push(0);
        }
        let counts = (size(spec.min_answers), spec.max_answers.map_or(usize::MAX, size));
        if counts.0 > counts.1 {
            return Err(Invalid::new("expect.max_answers", format!("must not be less than min_answers, {}", counts.0)));
        }
        let (min_ttl, max_ttl) = (ttl("expect.min_ttl", spec.min_ttl)?, ttl("expect.max_ttl", spec.max_ttl)?);
        if let (Some(min), Some(max)) = (min_ttl, max_ttl)
            && min > max
        {
            return Err(Invalid::new("expect.max_ttl", format!("must not be less than min_ttl, {min:?}")));
        }
        Ok(Self {
            rcodes,
            counts,
            answers: expected(&spec.answers),
            equal: expected(&spec.answers_equal),
            any: expected(&spec.answers_any),
            none: expected(&spec.answers_none),
            like: regexes("expect.answers_match", &spec.answers_match)?,
            unlike: regexes("expect.answers_match_none", &spec.answers_match_none)?,
            within: spec.answers_within.iter().map(network).collect::<Result<_, _>>()?,
            authoritative: spec.authoritative,
            authenticated: spec.authenticated,
            min_ttl,
            max_ttl,
            min_soa_serial: spec.min_soa_serial,
        })
    }

    /// Judges the answer that `server` gave. The sentence says what it was.
    pub(super) fn judge(&self, server: SocketAddr, question: &Question, answer: &Answer) -> Result<String, Failure> {
        let sentence = |what: String| [&text::socket(server), " answered ", &what].concat();
        self.verdict(question, answer).map(sentence).map_err(|what| Failure::target(Reason::UnexpectedAnswer, sentence(what)))
    }

    /// What the answer is, or what is wrong with it.
    fn verdict(&self, question: &Question, answer: &Answer) -> Result<String, String> {
        let rcode = rdata::rcode_name(answer.rcode);
        if !self.rcodes.contains(&answer.rcode) {
            let expected: Vec<_> = self.rcodes.iter().map(|rcode| rdata::rcode_name(*rcode)).collect();
            return Err(format!("{rcode}, not {}", expected.join(" or ")));
        }
        for (flag, expected, found) in [("AA", self.authoritative, answer.authoritative), ("AD", self.authenticated, answer.authenticated)]
        {
            if expected.is_some_and(|expected| expected != found) {
                return Err(format!("{} the flag {flag}", if found { "with" } else { "without" }));
            }
        }
        let asked_for =
            |record: &&Record| [ANY, record.record_type].contains(&question.record_type) && [ANY, record.class].contains(&question.class);
        let records: Vec<_> = answer.answers.iter().filter(asked_for).collect();
        let type_name = rdata::type_name(question.record_type);
        let counted = match records.len() {
            0 => [&rcode, " without ", &type_name, " records"].concat(),
            1 => [&rcode, " with 1 ", &type_name, " record"].concat(),
            count => format!("{rcode} with {count} {type_name} records"),
        };
        if records.len() < self.counts.0 {
            return Err(format!("{counted}, fewer than {}", self.counts.0));
        }
        if records.len() > self.counts.1 {
            return Err(format!("{counted}, more than {}", self.counts.1));
        }
        self.data_holds(answer, &records).map_err(|what| format!("{counted}, {what}"))?;
        if !self.within.is_empty() {
            let addresses: Vec<_> = records.iter().filter_map(|record| answer.address(record)).collect();
            let outside = |address: &&IpAddr| !self.within.iter().any(|network| network.contains(*address));
            if let Some(stray) = addresses.iter().find(outside) {
                return Err(format!("{counted}, of which {stray} is outside of the networks expected"));
            }
            if addresses.is_empty() {
                return Err(format!("{counted}, without an address"));
            }
        }
        for record in &records {
            let ttl = Duration::from_secs(record.ttl.into());
            if let Some(min) = self.min_ttl.filter(|min| ttl < *min) {
                return Err(format!("{counted}, one of which has {ttl:?} to live, less than {min:?}"));
            }
            if let Some(max) = self.max_ttl.filter(|max| ttl > *max) {
                return Err(format!("{counted}, one of which has {ttl:?} to live, more than {max:?}"));
            }
        }
        if let Some(min) = self.min_soa_serial {
            match soa_serial(answer) {
                None => return Err(format!("{counted}, and with no SOA record")),
                Some(serial) if is_older(serial, min) => {
                    return Err(format!("{counted}, and with serial {serial}, which is older than {min}"));
                }
                Some(_) => {}
            }
        }
        Ok(counted)
    }

    /// Compares the data of the records, in presentation form.
    fn data_holds(&self, answer: &Answer, records: &[&Record]) -> Result<(), String> {
        let lists = [&self.answers, &self.equal, &self.any, &self.none];
        if lists.iter().all(|list| list.is_empty()) && self.like.is_empty() && self.unlike.is_empty() {
            return Ok(());
        }
        let shown: Vec<_> = records.iter().map(|record| (rdata::present(answer, record), answer.address(record))).collect();
        let there = |expected: &&Expected| shown.iter().any(|(data, address)| expected.is(data, *address));
        if let Some(missing) = self.answers.iter().chain(&self.equal).find(|expected| !there(expected)) {
            return Err(format!("none of them \"{}\"", missing.text));
        }
        let foreign = |(data, address): &&(String, _)| !self.equal.iter().any(|expected| expected.is(data, *address));
        if !self.equal.is_empty()
            && let Some((data, _)) = shown.iter().find(foreign)
        {
            return Err(format!("one of them \"{data}\", which is not expected"));
        }
        if !self.any.is_empty() && !self.any.iter().any(|expected| there(&expected)) {
            let texts: Vec<_> = self.any.iter().map(|expected| format!("\"{}\"", expected.text)).collect();
            return Err(format!("none of them {}", texts.join(" or ")));
        }
        if let Some(found) = self.none.iter().find(there) {
            return Err(format!("one of them \"{}\"", found.text));
        }
        if let Some(missing) = self.like.iter().find(|regex| !shown.iter().any(|(data, _)| regex.is_match(data))) {
            return Err(format!("none of them like \"{missing}\""));
        }
        if let Some(found) = self.unlike.iter().find(|regex| shown.iter().any(|(data, _)| regex.is_match(data))) {
            return Err(format!("one of them like \"{found}\""));
        }
        Ok(())
    }
}

impl Expected {
    fn parse(text: &str) -> Self {
        Self { text: text.to_owned(), address: text.parse().ok() }
    }

    /// Whether data in presentation form, or the address that it is, is what a person meant: names without case and with or without their
    /// final dot, addresses in any spelling, texts with or without quotes.
    fn is(&self, data: &str, address: Option<IpAddr>) -> bool {
        if let (Some(expected), Some(found)) = (self.address, address) {
            return expected == found;
        }
        if let Some(text) = data.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            return data == self.text || text == self.text;
        }
        data.trim_end_matches('.').eq_ignore_ascii_case(self.text.trim_end_matches('.'))
    }
}

/// The serial of the first SOA record in answer or authority section.
pub(super) fn soa_serial(answer: &Answer) -> Option<u32> {
    answer.answers.iter().chain(&answer.authorities).find_map(|record| answer.serial(record))
}

/// Whether a serial is older than another, in the arithmetic of serials (RFC 1982): they go round, and half of the way round is far away.
pub(super) fn is_older(serial: u32, than: u32) -> bool {
    serial.wrapping_sub(than).cast_signed() < 0
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(data: &str, expected: &str) -> bool {
        Expected::parse(expected).is(data, data.parse().ok())
    }

    #[test]
    fn expected_data_may_be_written_in_more_than_one_way() {
        assert!(same("10 mail.example.com.", "10 MAIL.example.com"));
        assert!(same("2001:db8::1", "2001:DB8:0:0::1"));
        assert!(same(r#""v=spf1 -all""#, "v=spf1 -all"));
        assert!(!same(r#""v=spf1 -all""#, "V=SPF1 -all"));
        assert!(!same("192.0.2.1", "192.0.2.10"));
    }

    #[test]
    fn serials_go_round() {
        assert!(is_older(1, 2) && !is_older(2, 1) && !is_older(2, 2));
        assert!(is_older(u32::MAX, 0) && !is_older(0, u32::MAX));
        // As far from each other as can be: no order is defined, and a server that may be behind is not passed.
        assert!(is_older(0, 1 << 31) && is_older(1 << 31, 0));
    }

    #[test]
    fn limits_that_nothing_can_meet_are_refused() {
        let field = |spec: DnsExpectations| Expectations::parse(&spec).err().map(|invalid| invalid.field).unwrap_or_default();
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let spec = DnsExpectations { min_answers: 2, max_answers: Some(1), ..DnsExpectations::default() };
        assert_eq!(field(spec), "expect.max_answers");
        let spec = DnsExpectations { min_ttl: seconds(2), max_ttl: seconds(1), ..DnsExpectations::default() };
        assert_eq!(field(spec), "expect.max_ttl");
        assert_eq!(field(DnsExpectations { min_ttl: seconds(-1), ..DnsExpectations::default() }), "expect.min_ttl");
        assert_eq!(field(DnsExpectations { max_ttl: seconds(1 << 31), ..DnsExpectations::default() }), "expect.max_ttl");
        assert_eq!(
            field(DnsExpectations { answers_match_none: vec!["(".into()], ..DnsExpectations::default() }),
            "expect.answers_match_none"
        );
    }
}
