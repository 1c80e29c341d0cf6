//! DNS: one question to one server.

mod ask;
mod dnssec;
mod expect;
mod https;
mod notes;
#[cfg(feature = "quic")]
mod quic;
mod zone;

use hickory_proto::rr::Name;
use http::uri::{Authority, PathAndQuery};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use vantage_contract::v1::{DnsExpectations, DnsProbe, DnsReport, DnsTransport, Reason};

use self::{
    ask::{ByTheEnd, Errand, Heard},
    expect::Expectations,
    notes::Notes,
};
use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    gate::Demand,
    net::tcp,
    run::overdue,
    stopwatch::{self, Phase},
    target::{self, Host, Options},
    tls::Tls,
    wire::{
        dns::{self as wire, Manner, Question},
        name, rdata,
    },
};

/// A DNS probe, parsed.
pub(crate) struct Dns {
    server: Host,
    port: u16,
    question: Question,
    /// The name that is asked for, as it is written.
    name: String,
    manner: Manner,
    transport: Transport,
    expect: Expectations,
    /// Whether all servers of the zone are asked.
    zone: bool,
    /// Whom DNSSEC begins with, where the answer is to be validated.
    validate: Option<dnssec::Anchors>,
}

/// How the question travels.
enum Transport {
    /// Datagrams, `attempts` of them at most.
    Udp { attempts: u32, tcp_fallback: bool },
    /// A stream in the clear.
    Tcp,
    /// A stream over TLS.
    Tls(Box<Tls>),
    /// A request over HTTP/2.
    Https { tls: Box<Tls>, authority: Authority, path: PathAndQuery },
    /// A stream over QUIC.
    #[cfg(feature = "quic")]
    Quic(Box<Tls>),
}

impl Transport {
    fn default_port(&self) -> u16 {
        match self {
            Self::Udp { .. } | Self::Tcp => 53,
            Self::Tls(_) => 853,
            Self::Https { .. } => 443,
            #[cfg(feature = "quic")]
            Self::Quic(_) => 853,
        }
    }
}

impl Probe for Dns {
    type Spec = DnsProbe;
    type Report = DnsReport;

    fn parse(spec: &DnsProbe, _: &Options) -> Result<Self, Invalid> {
        let server = Host::parse("server", &spec.server)?;
        let transport = parse_transport(spec, &server)?;
        let edns_size = match spec.edns_size_bytes.unwrap_or(1232) {
            0 => None,
            size @ 512..=4096 => u16::try_from(size).ok(),
            size => return Err(Invalid::new("edns_size_bytes", format!("must be 0 or 512 to 4096, is {size}"))),
        };
        for (field, asked) in [("dnssec_ok", spec.dnssec_ok), ("validate", spec.validate), ("nsid", spec.nsid)] {
            if asked && edns_size.is_none() {
                return Err(Invalid::new(field, "needs EDNS: edns_size_bytes must not be 0"));
            }
        }
        if spec.zone_consistency {
            parse_zone(spec, &transport)?;
        }
        let question = parse_question(spec)?;
        Ok(Self {
            server,
            port: target::port("port", spec.port, Some(transport.default_port()))?,
            name: name::show(&question.name),
            question,
            manner: Manner {
                recursion_desired: spec.recursion_desired.unwrap_or(true),
                checking_disabled: spec.checking_disabled || spec.validate,
                edns_size,
                dnssec_ok: spec.dnssec_ok || spec.validate,
                nsid: spec.nsid,
                exact_case: spec.randomize_case,
            },
            transport,
            zone: spec.zone_consistency,
            validate: parse_anchors(spec)?,
            expect: Expectations::parse(spec.expect.as_ref().unwrap_or(&DnsExpectations::default()))?,
        })
    }

    fn is_light(&self) -> bool {
        matches!(self.transport, Transport::Udp { .. } | Transport::Tcp) && self.validate.is_none()
    }

    fn is_stamped(&self) -> bool {
        matches!(self.transport, Transport::Udp { .. })
    }

    fn target(&self) -> String {
        let server =
            if self.port == self.transport.default_port() { self.server.to_string() } else { format!("{}:{}", self.server, self.port) };
        format!("{} {} at {server}", self.name, rdata::type_name(self.question.record_type))
    }

    fn host(&self) -> &Host {
        &self.server
    }

    fn demand(&self) -> Demand<'_> {
        let requests = if let Transport::Udp { attempts, .. } = self.transport { attempts } else { 1 };
        Demand { requests, ..Demand::default() }
    }

    async fn run(&self, run: &mut Run<'_, DnsReport>) -> Result<String, Failure> {
        run.permit_name(&self.name).inspect_err(|_| run.enter(Phase::Resolve))?;
        let server = run.resolve_port(&self.server, self.port).await?;
        let end = run.last_call();
        let overdue = |run: &Run<'_, DnsReport>| overdue(run.watch.phase(), run.address, &self.target(), run.options);
        if self.zone {
            let checked = tokio::time::timeout_at(end, Box::pin(zone::check(self, run, server))).await;
            return checked.unwrap_or_else(|_| Err(overdue(run)));
        }
        let (source, memory, timeout) = (run.options.source, &run.world.memory, run.options.timeout);
        let errand = Errand { server, question: &self.question, manner: self.manner, source, memory, end, timeout };
        let asked = self.ask(&errand, &mut self.notes(run)).await;
        let verdict = asked.unwrap_or_else(|_| Err(overdue(run)));
        let fate = match &verdict {
            Err(failure) if failure.reason != Reason::TimedOut => &failure.sentence,
            _ => "silent",
        };
        self.notes(run).settle_rest(stopwatch::now(), fate);
        let Heard { answer, latency } = verdict?;
        run.latency = Some(latency);
        let sentence = self.expect.judge(server, &self.question, &answer)?;
        if let Some(anchors) = &self.validate {
            Box::pin(async move { dnssec::validate(self, anchors, run, server, &answer).await }).await?;
            return Ok(format!("{sentence}, secure by DNSSEC"));
        }
        Ok(sentence)
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
    let default = if spec.zone_consistency { wire::SOA } else { wire::A };
    let record_type = number("type", &spec.r#type, default, rdata::type_number)?;
    if matches!(record_type, 251 | 252) {
        return Err(Invalid::new("type", "a zone transfer is not a question with one answer"));
    }
    Ok(Question { name, record_type, class: number("class", &spec.class, wire::IN, rdata::class_number)? })
}

fn parse_transport(spec: &DnsProbe, server: &Host) -> Result<Transport, Invalid> {
    let transport = match DnsTransport::try_from(spec.transport) {
        Ok(DnsTransport::Unspecified | DnsTransport::Udp) => {
            Transport::Udp { attempts: target::number("attempts", spec.attempts, 2, 1..=10)?, tcp_fallback: !spec.no_tcp_fallback }
        }
        Ok(DnsTransport::Tcp) => Transport::Tcp,
        Ok(DnsTransport::Tls) => Transport::Tls(Box::new(Tls::parse("dns", "tls", spec.tls.as_ref())?)),
        Ok(DnsTransport::Https) => Transport::Https {
            tls: Box::new(Tls::parse("dns", "tls", spec.tls.as_ref())?),
            authority: parse_authority(spec, server)?,
            path: parse_path(&spec.path)?,
        },
        #[cfg(feature = "quic")]
        Ok(DnsTransport::Quic) if spec.tls.as_ref().is_some_and(|tls| tls.resume) => {
            return Err(Invalid::new("tls.resume", "can't be done over QUIC"));
        }
        #[cfg(feature = "quic")]
        Ok(DnsTransport::Quic) => Transport::Quic(Box::new(Tls::parse("dns", "tls", spec.tls.as_ref())?)),
        #[cfg(not(feature = "quic"))]
        Ok(DnsTransport::Quic) => {
            return Err(Invalid::new("transport", "QUIC is not known to this monitor: it was built without the feature \"quic\""));
        }
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
    if spec.tls.is_some() && matches!(transport, Transport::Udp { .. } | Transport::Tcp) {
        return Err(Invalid::new("tls", "is for the transports TLS, HTTPS and QUIC"));
    }
    if !spec.path.is_empty() && !matches!(transport, Transport::Https { .. }) {
        return Err(Invalid::new("path", "is for the transport HTTPS"));
    }
    Ok(transport)
}

fn parse_anchors(spec: &DnsProbe) -> Result<Option<dnssec::Anchors>, Invalid> {
    if !spec.validate {
        let unused = !spec.trust_anchor_file.is_empty();
        return if unused { Err(Invalid::new("trust_anchor_file", "is for validate")) } else { Ok(None) };
    }
    if !spec.class.is_empty() && rdata::class_number(&spec.class) != Some(wire::IN) {
        return Err(Invalid::new("class", "has to be IN to validate: DNSSEC knows no other"));
    }
    let signatures = [24, 46];
    if rdata::type_number(&spec.r#type).is_some_and(|number| signatures.contains(&number) || number == 255) {
        return Err(Invalid::new("type", "is not signed itself: it can't be validated"));
    }
    Ok(Some(match spec.trust_anchor_file.as_str() {
        "" => dnssec::Anchors::Root,
        file => dnssec::Anchors::File(file.into()),
    }))
}

/// Asking all servers of a zone leaves no room for some fields.
fn parse_zone(spec: &DnsProbe, transport: &Transport) -> Result<(), Invalid> {
    let refuse = |field, why: &str| Err(Invalid::new(field, format!("{why} with zone_consistency")));
    if !spec.r#type.is_empty() && rdata::type_number(&spec.r#type) != Some(wire::SOA) {
        return refuse("type", "has to be SOA");
    }
    if !spec.class.is_empty() && rdata::class_number(&spec.class) != Some(wire::IN) {
        return refuse("class", "has to be IN");
    }
    if !matches!(transport, Transport::Udp { .. } | Transport::Tcp) {
        return refuse("transport", "has to be UDP or TCP");
    }
    if spec.validate {
        return refuse("validate", "is not done together");
    }
    if spec.nsid {
        return refuse("nsid", "has no place in the report");
    }
    if spec.expect.as_ref().is_some_and(|expect| expect.authoritative == Some(false)) {
        return refuse("expect.authoritative", "has to be true");
    }
    Ok(())
}

/// Who is asked over HTTPS, as the request says it: the name that the certificate has to have, with the port where it is not HTTPS's own.
fn parse_authority(spec: &DnsProbe, server: &Host) -> Result<Authority, Invalid> {
    let name = spec.tls.as_ref().map(|tls| tls.server_name.as_str()).filter(|name| !name.is_empty());
    let name = name.map_or_else(
        || server.to_string(),
        |name| Host::parse("tls.server_name", name).map_or_else(|_| name.into(), |host| host.to_string()),
    );
    let text = if matches!(spec.port, 0 | 443) { name } else { format!("{name}:{}", spec.port) };
    text.parse().map_err(|_| Invalid::new("server", format!("{text:?} can't be asked over HTTPS")))
}

fn parse_path(text: &str) -> Result<PathAndQuery, Invalid> {
    let text = if text.is_empty() { "/dns-query" } else { text };
    let parsed = if text.starts_with('/') && !text.contains(['{', '#']) { text.parse().ok() } else { None };
    parsed.ok_or_else(|| Invalid::new("path", format!("{text:?} is not a path: it begins with \"/\" and has no variables in braces")))
}

impl Dns {
    /// Asks a question over the check's transport, until the end of the errand.
    async fn ask(&self, errand: &Errand<'_>, notes: &mut Notes<'_>) -> ByTheEnd {
        if let Transport::Udp { attempts, tcp_fallback } = self.transport {
            return errand.over_datagrams(attempts, tcp_fallback, notes).await;
        }
        // The room of the others is not that of every run.
        tokio::time::timeout_at(errand.end, Box::pin(self.ask_reliably(errand, notes))).await
    }

    /// Asks over a stream, or a protocol that is as good as one.
    async fn ask_reliably(&self, errand: &Errand<'_>, notes: &mut Notes<'_>) -> Result<Heard, Failure> {
        match &self.transport {
            Transport::Udp { .. } | Transport::Tcp => errand.over_tcp(notes).await,
            Transport::Tls(tls) => {
                let mut stream = Box::pin(self.shake_hands(errand, tls, b"dot", notes)).await?;
                errand.over_stream(&mut stream, "tls", notes).await
            }
            Transport::Https { tls, authority, path } => {
                let stream = Box::pin(self.shake_hands(errand, tls, https::ALPN, notes)).await?;
                if notes.report.tls.as_ref().is_none_or(|tls| tls.alpn.as_bytes() != https::ALPN) {
                    let what = format!("TLS with {} ({}): the server does not agree to HTTP/2 by ALPN", self.server, errand.server);
                    return Err(Failure::target(Reason::UnexpectedAnswer, what));
                }
                let place = https::Place { authority: authority.as_str(), path };
                Box::pin(https::ask(errand, &place, stream, notes)).await
            }
            #[cfg(feature = "quic")]
            Transport::Quic(tls) => Box::pin(quic::ask(errand, &self.server, tls, notes)).await,
        }
    }

    /// Connects over TLS, with the protocol's name in ALPN.
    async fn shake_hands(
        &self,
        errand: &Errand<'_>,
        tls: &Tls,
        alpn: &[u8],
        notes: &mut Notes<'_>,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        notes.enter(Phase::Connect);
        let (loaded, name) = (tls.load().await?, tls.name_for(&self.server)?);
        let stream = tcp::connect(errand.server, errand.source).await?;
        notes.enter(Phase::Tls);
        let act = format!("TLS with {} ({})", self.server, errand.server);
        let report = notes.report.tls.get_or_insert_default();
        loaded.connect(stream, name, &[alpn], &act, report).await
    }

    fn notes<'n>(&self, run: &'n mut Run<'_, DnsReport>) -> Notes<'n> {
        let started = run.watch.started();
        Notes { report: &mut run.report, watch: Some(&mut run.watch), started }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let manner = Manner {
            recursion_desired: true,
            checking_disabled: false,
            edns_size: Some(1232),
            dnssec_ok: false,
            nsid: false,
            exact_case: false,
        };
        assert_eq!(dns.manner, manner);
    }
}
