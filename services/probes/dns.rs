//! DNS: one question to one server.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hickory_proto::rr::Name;
use ipnet::IpNet;
use regex::Regex;
use tokio::io::{AsyncRead, AsyncWrite};
use vantage_contract::v1::{DnsExpectations, DnsProbe, DnsRecord, DnsReport, DnsTransport, Reason, TimingSource};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    net::{dns as net, stamp::Reading, tcp, udp::Connected},
    stopwatch::{self, Phase},
    target::{self, Host, Options},
    tls::Tls,
    wire::{
        dns::{self as wire, Answer, Manner, Question, Record, Refusal, SOA},
        name, rdata,
    },
};

/// Records shown of each section.
const MAX_RECORDS: usize = 100;
/// Characters shown of a record's data.
const MAX_DATA: usize = 1024;
/// The type that means any.
const ANY: u16 = 255;

/// A DNS probe, parsed.
pub(crate) struct Dns {
    server: Host,
    port: u16,
    question: Question,
    manner: Manner,
    transport: Transport,
    expect: Expectations,
}

/// How the question travels.
enum Transport {
    /// Datagrams, `attempts` of them at most.
    Udp { attempts: u32, tcp_fallback: bool },
    /// A stream in the clear.
    Tcp,
    /// A stream over TLS.
    Tls(Box<Tls>),
}

impl Transport {
    fn default_port(&self) -> u16 {
        match self {
            Self::Udp { .. } | Self::Tcp => 53,
            Self::Tls(_) => 853,
        }
    }
}

/// What an answer has to be.
struct Expectations {
    rcodes: Vec<u16>,
    min_answers: usize,
    answers: Vec<String>,
    answers_match: Vec<Regex>,
    answers_within: Vec<IpNet>,
    authoritative: Option<bool>,
    authenticated: Option<bool>,
}

impl Probe for Dns {
    type Spec = DnsProbe;
    type Report = DnsReport;

    fn parse(spec: &DnsProbe, _: &Options) -> Result<Self, Invalid> {
        let transport = parse_transport(spec)?;
        let edns_size = match spec.edns_size_bytes.unwrap_or(1232) {
            0 => None,
            size @ 512..=4096 => u16::try_from(size).ok(),
            size => return Err(Invalid::new("edns_size_bytes", format!("must be 0 or 512 to 4096, is {size}"))),
        };
        if spec.dnssec_ok && edns_size.is_none() {
            return Err(Invalid::new("dnssec_ok", "needs EDNS: edns_size_bytes must not be 0"));
        }
        Ok(Self {
            server: Host::parse("server", &spec.server)?,
            port: target::port("port", spec.port, Some(transport.default_port()))?,
            question: parse_question(spec)?,
            manner: Manner {
                recursion_desired: spec.recursion_desired.unwrap_or(true),
                checking_disabled: spec.checking_disabled,
                edns_size,
                dnssec_ok: spec.dnssec_ok,
            },
            transport,
            expect: Expectations::parse(spec.expect.as_ref().unwrap_or(&DnsExpectations::default()))?,
        })
    }

    fn is_light(&self) -> bool {
        !matches!(self.transport, Transport::Tls(_))
    }

    fn target(&self) -> String {
        let server =
            if self.port == self.transport.default_port() { self.server.to_string() } else { format!("{}:{}", self.server, self.port) };
        format!("{} {} at {server}", name::show(&self.question.name), rdata::type_name(self.question.record_type))
    }

    fn host(&self) -> &Host {
        &self.server
    }

    async fn run(&self, run: &mut Run<'_, DnsReport>) -> Result<String, Failure> {
        let server = run.resolve_port(&self.server, self.port).await?;
        let answer = match &self.transport {
            Transport::Udp { attempts, tcp_fallback } => {
                let answer = self.over_udp(run, server, *attempts).await?;
                run.report.truncated = answer.truncated;
                self.show(&answer, "udp", &mut run.report);
                if answer.truncated && !tcp_fallback {
                    return Err(Failure::target(Reason::UnexpectedAnswer, format!("the answer of {server} over udp is truncated")));
                }
                if answer.truncated { self.over_tcp(run, server).await? } else { answer }
            }
            Transport::Tcp => self.over_tcp(run, server).await?,
            Transport::Tls(tls) => self.over_tls(run, server, tls).await?,
        };
        self.expect.judge(server, &self.question, &answer)
    }
}

fn parse_question(spec: &DnsProbe) -> Result<Question, Invalid> {
    let text = spec.query.as_str();
    if text.is_empty() {
        return Err(Invalid::new("query", "is missing: give a name, \".\" for the root"));
    }
    // An internationalized name has no bytes of its own: its A-labels (RFC 5890) are what is asked for.
    let parsed = if text.is_ascii() { name::parse(text) } else { Name::from_utf8(text).ok() };
    let mut name = parsed.ok_or_else(|| {
        Invalid::new("query", format!("{text:?} is not a name: labels have 1 to 63 characters, 253 in all, and an escape is \\. or \\DDD"))
    })?;
    name.set_fqdn(true);
    let number = |field, text: &str, default, parse: fn(&str) -> Option<u16>| match text {
        "" => Ok(default),
        text => parse(text).ok_or_else(|| Invalid::new(field, format!("{text:?} is neither a name that is known nor a number"))),
    };
    let record_type = number("type", &spec.r#type, wire::A, rdata::type_number)?;
    if matches!(record_type, 251 | 252) {
        return Err(Invalid::new("type", "a zone transfer is not a question with one answer"));
    }
    Ok(Question { name, record_type, class: number("class", &spec.class, wire::IN, rdata::class_number)? })
}

fn parse_transport(spec: &DnsProbe) -> Result<Transport, Invalid> {
    let transport = match DnsTransport::try_from(spec.transport) {
        Ok(DnsTransport::Unspecified | DnsTransport::Udp) => {
            Transport::Udp { attempts: target::number("attempts", spec.attempts, 2, 1..=10)?, tcp_fallback: !spec.no_tcp_fallback }
        }
        Ok(DnsTransport::Tcp) => Transport::Tcp,
        Ok(DnsTransport::Tls) => Transport::Tls(Box::new(Tls::parse("dns", "tls", spec.tls.as_ref())?)),
        Ok(DnsTransport::Https | DnsTransport::Quic) => return Err(Invalid::new("transport", "is not known to this monitor")),
        Err(_) => return Err(Invalid::new("transport", format!("{} is not a transport", spec.transport))),
    };
    if !matches!(transport, Transport::Udp { .. }) {
        if spec.attempts != 0 {
            return Err(Invalid::new("attempts", "is for the transport UDP"));
        }
        if spec.no_tcp_fallback {
            return Err(Invalid::new("no_tcp_fallback", "is for the transport UDP"));
        }
    }
    if spec.tls.is_some() && !matches!(transport, Transport::Tls(_)) {
        return Err(Invalid::new("tls", "is for the transport TLS"));
    }
    Ok(transport)
}

impl Dns {
    /// Asks until there is an answer, with an identifier of its own each time, evenly over the time that is left. An answer to an earlier
    /// question is as good as one to the last.
    async fn over_udp(&self, run: &mut Run<'_, DnsReport>, server: SocketAddr, attempts: u32) -> Result<Answer, Failure> {
        run.enter(Phase::Send);
        let mut socket = Connected::open(server, run.options.source)?;
        let mut asked: Vec<(u16, Reading)> = Vec::new();
        let gap = run.remaining() / attempts;
        let mut next_departure = stopwatch::now();
        loop {
            let mut more = run.report.sent_count < attempts;
            if more && stopwatch::now() >= next_departure {
                let id = loop {
                    let id = net::new_id()?;
                    if asked.iter().all(|(known, _)| *known != id) {
                        break id;
                    }
                };
                let left = Reading::now();
                socket.send(&self.question.encode(id, self.manner))?;
                asked.push((id, left));
                run.report.sent_count += 1;
                run.enter(Phase::Wait);
                next_departure += gap;
                more = run.report.sent_count < attempts;
            }
            let wake = if more { next_departure.min(run.last_call()) } else { run.last_call() };
            let received = match tokio::time::timeout_at(wake, socket.receive()).await {
                Ok(received) => received?,
                Err(_) if wake == run.last_call() => {
                    let (sent, ignored) = (run.report.sent_count, run.report.ignored_count);
                    let doing = format!("after {:?} waiting for the answer of {server}", run.options.timeout);
                    return Err(Failure::timed_out(format!("{doing} (questions sent: {sent}, other datagrams ignored: {ignored})")));
                }
                Err(_) => continue,
            };
            let known = asked.iter().find(|(id, _)| received.bytes.get(..2) == Some(&id.to_be_bytes()));
            let Some((id, left)) = known else {
                run.report.ignored_count += 1;
                continue;
            };
            let latency = received.since(left);
            match Answer::decode(received.bytes, *id, &self.question) {
                Ok(answer) => {
                    run.latency = Some(latency);
                    return Ok(answer);
                }
                Err(Refusal::Stranger) => run.report.ignored_count += 1,
                Err(Refusal::Malformed(what)) => return Err(net::malformed(server, &what)),
            }
        }
    }

    async fn over_tcp(&self, run: &mut Run<'_, DnsReport>, server: SocketAddr) -> Result<Answer, Failure> {
        run.enter(Phase::Connect);
        let mut stream = tcp::connect(server, run.options.source).await?;
        self.over_stream(run, server, &mut stream, "tcp").await
    }

    /// DNS over TLS (RFC 7858), with its name in ALPN.
    async fn over_tls(&self, run: &mut Run<'_, DnsReport>, server: SocketAddr, tls: &Tls) -> Result<Answer, Failure> {
        run.enter(Phase::Connect);
        let (loaded, name) = (tls.load().await?, tls.name_for(&self.server)?);
        let stream = tcp::connect(server, run.options.source).await?;
        run.enter(Phase::Tls);
        let act = format!("TLS with {} ({server})", self.server);
        let report = run.report.tls.get_or_insert_default();
        let mut stream = loaded.connect(stream, name, &[b"dot"], &act, report).await?;
        self.over_stream(run, server, &mut stream, "tls").await
    }

    /// Asks once on a stream (RFC 7766). What comes before the answer and answers something else is ignored.
    async fn over_stream(
        &self,
        run: &mut Run<'_, DnsReport>,
        server: SocketAddr,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        transport: &str,
    ) -> Result<Answer, Failure> {
        run.enter(Phase::Send);
        let id = net::new_id()?;
        let departure = stopwatch::now();
        run.report.sent_count += 1;
        net::write_message(stream, server, &self.question.encode(id, self.manner)).await?;
        run.enter(Phase::Wait);
        loop {
            let message = net::read_message(stream, server).await?;
            let arrival = stopwatch::now();
            match Answer::decode(message, id, &self.question) {
                Ok(answer) => {
                    run.latency = Some((arrival.saturating_duration_since(departure), TimingSource::User));
                    self.show(&answer, transport, &mut run.report);
                    return Ok(answer);
                }
                Err(Refusal::Stranger) => run.report.ignored_count += 1,
                Err(Refusal::Malformed(what)) => return Err(net::malformed(server, &what)),
            }
        }
    }

    fn show(&self, answer: &Answer, transport: &str, report: &mut DnsReport) {
        let shown = |records: &[Record]| records.iter().take(MAX_RECORDS).map(|record| show_record(answer, record)).collect();
        report.rcode = rdata::rcode_name(answer.rcode);
        report.authoritative = answer.authoritative;
        report.authenticated = answer.authenticated;
        report.recursion_available = answer.recursion_available;
        report.transport = transport.to_owned();
        report.answer_size_bytes = answer.size() as u64;
        report.answers = shown(&answer.answers);
        report.authorities = shown(&answer.authorities);
        report.additionals = shown(&answer.additionals);
        report.answer_count = answer.answers.len().try_into().unwrap_or(u32::MAX);
        report.soa_serial = answer.answers.iter().chain(&answer.authorities).find_map(|record| serial(answer, record));
    }
}

fn show_record(answer: &Answer, record: &Record) -> DnsRecord {
    let mut data = rdata::present(answer, record);
    // Presentation forms are ASCII.
    data.truncate(MAX_DATA);
    DnsRecord {
        name: name::show(&record.name),
        r#type: rdata::type_name(record.record_type),
        ttl: Some(stopwatch::to_proto(Duration::from_secs(record.ttl.into()))),
        data,
    }
}

/// The serial of an SOA record.
fn serial(answer: &Answer, record: &Record) -> Option<u32> {
    let mut data = (record.record_type == SOA).then(|| answer.data(record))?;
    data.name()?;
    data.name()?;
    data.u32()
}

impl Expectations {
    fn parse(spec: &DnsExpectations) -> Result<Self, Invalid> {
        let rcode = |text: &String| {
            rdata::rcode_number(text)
                .ok_or_else(|| Invalid::new("expect.rcodes", format!("{text:?} is neither an rcode's name nor a number up to 4095")))
        };
        let regex = |text: &String| Regex::new(text).map_err(|error| Invalid::new("expect.answers_match", error.to_string()));
        let network = |text: &String| {
            text.parse()
                .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
                .map_err(|_| Invalid::new("expect.answers_within", format!("{text:?} is not a network")))
        };
        let mut rcodes = spec.rcodes.iter().map(rcode).collect::<Result<Vec<_>, _>>()?;
        if rcodes.is_empty() {
            rcodes.push(0);
        }
        Ok(Self {
            rcodes,
            min_answers: usize::try_from(spec.min_answers).unwrap_or(usize::MAX),
            answers: spec.answers.clone(),
            answers_match: spec.answers_match.iter().map(regex).collect::<Result<_, _>>()?,
            answers_within: spec.answers_within.iter().map(network).collect::<Result<_, _>>()?,
            authoritative: spec.authoritative,
            authenticated: spec.authenticated,
        })
    }

    fn judge(&self, server: SocketAddr, question: &Question, answer: &Answer) -> Result<String, Failure> {
        let unexpected = |what: String| Err(Failure::target(Reason::UnexpectedAnswer, format!("{server} answered {what}")));
        let rcode = rdata::rcode_name(answer.rcode);
        if !self.rcodes.contains(&answer.rcode) {
            let expected: Vec<_> = self.rcodes.iter().map(|rcode| rdata::rcode_name(*rcode)).collect();
            return unexpected(format!("{rcode}, not {}", expected.join(" or ")));
        }
        for (flag, expected, found) in [("AA", self.authoritative, answer.authoritative), ("AD", self.authenticated, answer.authenticated)]
        {
            if expected.is_some_and(|expected| expected != found) {
                return unexpected(format!("{} the flag {flag}", if found { "with" } else { "without" }));
            }
        }
        let asked_for =
            |record: &&Record| [ANY, record.record_type].contains(&question.record_type) && [ANY, record.class].contains(&question.class);
        let records: Vec<_> = answer.answers.iter().filter(asked_for).collect();
        let type_name = rdata::type_name(question.record_type);
        let counted = match records.len() {
            0 => format!("{rcode} without {type_name} records"),
            1 => format!("{rcode} with 1 {type_name} record"),
            count => format!("{rcode} with {count} {type_name} records"),
        };
        if records.len() < self.min_answers {
            return unexpected(format!("{counted}, fewer than {}", self.min_answers));
        }
        let data: Vec<_> = if self.answers.is_empty() && self.answers_match.is_empty() {
            Vec::new()
        } else {
            records.iter().map(|record| rdata::present(answer, record)).collect()
        };
        if let Some(missing) = self.answers.iter().find(|expected| !data.iter().any(|data| same(data, expected))) {
            return unexpected(format!("{counted}, none of them \"{missing}\""));
        }
        if let Some(missing) = self.answers_match.iter().find(|regex| !data.iter().any(|data| regex.is_match(data))) {
            return unexpected(format!("{counted}, none of them like \"{missing}\""));
        }
        if !self.answers_within.is_empty() {
            let addresses: Vec<_> = records.iter().filter_map(|record| answer.address(record)).collect();
            let outside = |address: &&IpAddr| !self.answers_within.iter().any(|network| network.contains(*address));
            if let Some(stray) = addresses.iter().find(outside) {
                return unexpected(format!("{counted}, of which {stray} is outside of the networks expected"));
            }
            if addresses.is_empty() {
                return unexpected(format!("{counted}, without an address"));
            }
        }
        Ok(format!("{server} answered {counted}"))
    }
}

/// Whether data in presentation form is what a person meant: names without case and with or without their final dot, addresses in any
/// spelling, texts with or without quotes.
fn same(data: &str, expected: &str) -> bool {
    if data.starts_with('"') {
        return data == expected || data == format!("\"{expected}\"");
    }
    match (data.parse::<IpAddr>(), expected.parse::<IpAddr>()) {
        (Ok(data), Ok(expected)) => data == expected,
        _ => data.trim_end_matches('.').eq_ignore_ascii_case(expected.trim_end_matches('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: DnsProbe) -> Result<Dns, Invalid> {
        let options = Options::parse(&vantage_contract::v1::Probe::default(), Duration::from_secs(5))?;
        Dns::parse(&DnsProbe { server: "192.0.2.53".into(), query: "example.com".into(), ..spec }, &options)
    }

    fn field(spec: DnsProbe) -> String {
        parse(spec).err().map(|invalid| invalid.field).unwrap_or_default()
    }

    #[test]
    fn a_field_that_would_do_nothing_is_refused() {
        let tcp = DnsProbe { transport: DnsTransport::Tcp.into(), ..DnsProbe::default() };
        assert_eq!(field(DnsProbe { attempts: 3, ..tcp.clone() }), "attempts");
        assert_eq!(field(DnsProbe { no_tcp_fallback: true, ..tcp.clone() }), "no_tcp_fallback");
        assert_eq!(field(DnsProbe { tls: Some(Default::default()), ..tcp }), "tls");
        assert_eq!(field(DnsProbe { dnssec_ok: true, edns_size_bytes: Some(0), ..DnsProbe::default() }), "dnssec_ok");
        assert_eq!(field(DnsProbe { r#type: "AXFR".into(), ..DnsProbe::default() }), "type");
        assert_eq!(field(DnsProbe { r#type: "NO-SUCH".into(), ..DnsProbe::default() }), "type");
        assert_eq!(field(DnsProbe { edns_size_bytes: Some(100), ..DnsProbe::default() }), "edns_size_bytes");
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let dns = parse(DnsProbe::default()).unwrap();
        assert_eq!(dns.target(), "example.com. A at 192.0.2.53");
        assert_eq!((dns.question.record_type, dns.question.class, dns.port), (1, 1, 53));
        assert!(matches!(dns.transport, Transport::Udp { attempts: 2, tcp_fallback: true }));
        let manner = Manner { recursion_desired: true, checking_disabled: false, edns_size: Some(1232), dnssec_ok: false };
        assert_eq!(dns.manner, manner);
    }

    #[test]
    fn expected_data_may_be_written_in_more_than_one_way() {
        assert!(same("10 mail.example.com.", "10 MAIL.example.com"));
        assert!(same("2001:db8::1", "2001:DB8:0:0::1"));
        assert!(same(r#""v=spf1 -all""#, "v=spf1 -all"));
        assert!(!same(r#""v=spf1 -all""#, "V=SPF1 -all"));
        assert!(!same("192.0.2.1", "192.0.2.10"));
    }
}
