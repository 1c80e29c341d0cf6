//! TCP: connect, and have a conversation.

mod conversation;
mod progress;
mod starttls;
mod template;

use std::{
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use tokio::{net::TcpStream, time::timeout_at};
use vantage_contract::v1::{Reason, TcpProbe, TcpReport, TimingSource, TlsReport};

use crate::{
    Probe, Run,
    connect::Connection,
    failure::{Failure, Invalid, Moment},
    gate::Demand,
    net::{self, stream::Stream},
    run::overdue,
    stopwatch::{self, Phase},
    target::{self, Host, Options, Selection},
    tls::Tls,
};
use conversation::{Conversation, Secured, Step};
use progress::Progress;
use starttls::StartTls;

/// The longest limit of connecting: longer than any timeout.
const MAX_CONNECT_TIME: Duration = Duration::from_secs(300);

/// What timers may be late by.
const TICK: Duration = Duration::from_millis(2);

/// A TCP probe, parsed.
pub(crate) struct Tcp {
    host: Host,
    port: u16,
    expect_closed: bool,
    /// The longest time that connecting may take.
    max_connect: Option<Duration>,
    opening: Opening,
    steps: Vec<Step>,
    max_read: usize,
}

/// What comes after connecting, before the steps.
enum Opening {
    /// Nothing.
    Plain,
    /// TLS, at once.
    Tls(Box<Tls>),
    /// A protocol's own way to TLS.
    StartTls(Box<StartTls>),
}

impl Opening {
    fn parse(spec: &TcpProbe, host: &Host) -> Result<Self, Invalid> {
        match (&spec.tls, &spec.start_tls) {
            (Some(_), Some(_)) => Err(Invalid::new("start_tls", "means nothing together with tls: TLS is spoken already")),
            (Some(tls), None) => Ok(Self::Tls(Box::new(Tls::parse_bare("tcp", "tls", tls)?))),
            (None, Some(start)) => Ok(Self::StartTls(Box::new(StartTls::parse(start, host)?))),
            (None, None) => Ok(Self::Plain),
        }
    }

    /// How to do the TLS that is spoken from then on, if it is.
    fn tls(&self) -> Option<&Tls> {
        match self {
            Self::Plain => None,
            Self::Tls(tls) => Some(tls),
            Self::StartTls(start) => Some(&start.tls),
        }
    }
}

/// Options of TLS whose files have been read: of the opening, and of the step that starts TLS.
struct Files {
    opening: Option<Secured>,
    step: Option<Secured>,
}

impl Probe for Tcp {
    type Spec = TcpProbe;
    type Report = TcpReport;

    const CONNECTS: bool = true;

    fn parse(spec: &TcpProbe, options: &Options) -> Result<Self, Invalid> {
        let host = Host::parse("host", &spec.host)?;
        let opening = Opening::parse(spec, &host)?;
        let steps = conversation::parse(&spec.steps, opening.tls().is_some())?;
        let max_connect = match spec.max_connect_time {
            None => None,
            some => Some(target::duration("max_connect_time", some, Duration::ZERO, Duration::from_micros(1)..=MAX_CONNECT_TIME)?),
        };
        if spec.expect_closed && (opening.tls().is_some() || !steps.is_empty() || max_connect.is_some()) {
            let problem = "means nothing together with tls, start_tls, steps or max_connect_time: a closed port says nothing";
            return Err(Invalid::new("expect_closed", problem));
        }
        if spec.expect_closed && options.selection == Selection::HappyEyeballs {
            let problem = "means nothing with addresses \"happy_eyeballs\", which look for one that is open: it goes with \"all\"";
            return Err(Invalid::new("expect_closed", problem));
        }
        let max_read = target::number("max_read_size_bytes", spec.max_read_size_bytes, 64 << 10, 1..=16 << 20)?;
        Ok(Self {
            host,
            port: target::port("port", spec.port, None)?,
            expect_closed: spec.expect_closed,
            max_connect,
            opening,
            steps,
            max_read: usize::try_from(max_read).unwrap_or(usize::MAX),
        })
    }

    fn is_light(&self) -> bool {
        self.opening.tls().is_none() && self.steps.is_empty()
    }

    fn target(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn host(&self) -> &Host {
        &self.host
    }

    fn demand(&self) -> Demand<'_> {
        Demand { payload_bytes: conversation::said(&self.steps), ..Demand::default() }
    }

    async fn run(&self, run: &mut Run<'_, TcpReport>) -> Result<String, Failure> {
        // Files first: what they cost is not the target's.
        let files = self.load().await.inspect_err(|_| run.enter(Phase::Resolve))?;

        let Connection { stream, remote, taken } = match run.connect(&self.host, self.port).await {
            Ok(connection) => connection,
            Err(error) => {
                run.report.error = error.icmp;
                run.report.syn_retransmit_count = error.syn_retransmits;
                if self.expect_closed && error.failure.reason == Reason::Refused {
                    let closed = run.address.map_or_else(|| self.target(), |address| SocketAddr::new(address, self.port).to_string());
                    return Ok(format!("{closed} is closed, as expected"));
                }
                return Err(error.failure);
            }
        };
        run.latency = Some((taken, TimingSource::User));
        run.report.connected = true;
        run.report.connect_time = Some(stopwatch::to_proto(taken));
        let account = stream.account;
        run.report.kernel_round_trip = account.round_trip.map(stopwatch::to_proto);
        run.report.syn_retransmit_count = account.retransmits;
        run.report.segment_size_bytes = account.segment_size;
        run.report.local_address = stream.local.to_string();
        run.report.remote_address = remote.to_string();
        if self.expect_closed {
            return Err(Failure::target(Reason::UnexpectedAnswer, format!("connect to {remote}: it is open, expected to be closed")));
        }
        let sentence = if self.is_light() {
            format!("connected to {remote}")
        } else {
            Box::pin(self.converse(stream.speak()?, remote, files, run)).await?
        };
        match self.max_connect {
            Some(limit) if taken > limit => {
                Err(Failure::target(Reason::TooSlow, format!("connect to {remote}: it took {taken:?}, the limit is {limit:?}")))
            }
            _ => Ok(sentence),
        }
    }
}

impl Tcp {
    /// Reads the files of TLS of the opening and of the step that starts TLS.
    async fn load(&self) -> Result<Files, Failure> {
        let opening = match self.opening.tls() {
            Some(tls) => Some((tls.load().await?, tls.name_for(&self.host)?)),
            None => None,
        };
        Ok(Files { opening, step: conversation::load(&self.steps, &self.host).await? })
    }

    /// Says what there is to say, up to the end, and tells how long the steps took and what was sent again, whatever comes of it.
    async fn converse(&self, stream: TcpStream, remote: SocketAddr, files: Files, run: &mut Run<'_, TcpReport>) -> Result<String, Failure> {
        // In the middle of a handshake the connection is nobody's to ask; its second descriptor is.
        let second: OwnedFd = stream
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| Failure::of_io(format!("a descriptor for {remote}"), &error, Moment::AtOnce))?;
        let mut progress = Progress::default();
        let held = timeout_at(run.last_call(), self.hold(stream, remote, files, &mut progress, run)).await;
        run.report.step_durations.extend(progress.end().map(stopwatch::to_proto));
        let retransmits = net::tcp::account(&second).unwrap_or_default().retransmits;
        run.report.retransmit_count = retransmits.saturating_sub(run.report.syn_retransmit_count);
        held.unwrap_or_else(|_| {
            Err(match progress.what() {
                Some(doing) => Failure::timed_out(format!("after {:?} {doing}", run.options.timeout)),
                None => overdue(run.watch.phase(), run.address, &self.target(), run.options),
            })
        })
    }

    async fn hold(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        files: Files,
        progress: &mut Progress,
        run: &mut Run<'_, TcpReport>,
    ) -> Result<String, Failure> {
        let stream = match &self.opening {
            Opening::StartTls(start) => start.ask(stream, self.max_read, progress, run).await?,
            Opening::Plain | Opening::Tls(_) => stream,
        };
        progress.done();
        let read = usize::try_from(run.report.received_bytes).unwrap_or(usize::MAX);
        let mut handshake = None;
        let stream = match files.opening {
            None => Stream::Plain(stream),
            Some((tls, name)) => {
                run.enter(Phase::Tls);
                let begun = stopwatch::now();
                let report = run.report.tls.insert(TlsReport::default());
                let stream = tls.connect(stream, name.clone(), &[], &format!("TLS with {remote}"), report).await?;
                handshake = Some((tls, name, stopwatch::now() - begun));
                Stream::Tls(Box::new(stream))
            }
        };
        let stream = Conversation::new(stream, remote, self.max_read, read).hold(&self.steps, files.step, progress, run).await?;
        if let (Stream::Tls(mut stream), Some((tls, name, taken))) = (stream, handshake)
            && tls.resumes()
        {
            run.enter(Phase::Wait);
            // Whatever comes of it, the run has passed: it must not be cut short.
            let end = (stopwatch::now() + taken * 2).min(run.last_call() - TICK);
            tls.await_session(&mut stream, &name, end).await;
        }
        let secured = match &self.opening {
            Opening::Plain => String::new(),
            Opening::Tls(_) => " over TLS".to_owned(),
            Opening::StartTls(start) => format!(" over TLS, by STARTTLS ({})", start.protocol()),
        };
        let steps = match self.steps.len() {
            0 => String::new(),
            many => format!(", {} of {many} steps held", run.report.completed_step_count),
        };
        Ok(format!("connected to {remote}{secured}{steps}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vantage_contract::v1::{Probe as Message, StartTls as StartTlsSpec, StartTlsProtocol, TcpStep, TlsOptions, tcp_step};

    use super::*;

    fn field_of(spec: TcpProbe) -> String {
        let options = Options::parse(&Message::default(), Duration::from_secs(5)).unwrap();
        let spec = TcpProbe { host: "192.0.2.1".into(), port: 1, ..spec };
        Tcp::parse(&spec, &options).err().map(|invalid| invalid.field).unwrap_or_default()
    }

    fn steps(steps: Vec<tcp_step::Step>) -> TcpProbe {
        TcpProbe { steps: steps.into_iter().map(|step| TcpStep { step: Some(step) }).collect(), ..TcpProbe::default() }
    }

    #[test]
    fn a_conversation_that_cannot_be_held_is_refused_at_its_step() {
        use tcp_step::Step::{Expect, ExpectRegex, Send, SendHex, StartTls};
        let tls = || StartTls(TlsOptions { insecure: true, ..TlsOptions::default() });
        assert_eq!(field_of(steps(vec![Send("QUIT\r\n".into()), SendHex("00 fF 1".into())])), "steps[1].send_hex");
        assert_eq!(field_of(steps(vec![SendHex("xy".into())])), "steps[0].send_hex");
        assert_eq!(field_of(steps(vec![ExpectRegex("(".into())])), "steps[0].expect_regex");
        assert_eq!(field_of(steps(vec![Expect(String::new())])), "steps[0].expect");
        assert_eq!(field_of(steps(vec![tls(), tls()])), "steps[1].start_tls");
        assert_eq!(field_of(TcpProbe { steps: vec![TcpStep { step: None }], ..TcpProbe::default() }), "steps[0]");
        assert_eq!(field_of(steps(vec![Send("x".into()); 65])), "steps");
        assert_eq!(field_of(TcpProbe { expect_closed: true, ..steps(vec![Send("x".into())]) }), "expect_closed");
        assert_eq!(field_of(TcpProbe { max_read_size_bytes: (16 << 20) + 1, ..TcpProbe::default() }), "max_read_size_bytes");
        assert_eq!(field_of(steps(vec![SendHex("00 fF 12".into()), tls()])), "");
    }
    #[test]
    fn captured_groups_are_those_of_expressions_before() {
        use tcp_step::Step::{ExpectRegex, SendCaptured};
        let with =
            |text: &str| field_of(steps(vec![ExpectRegex("(?<a>.)".into()), SendCaptured(text.into()), ExpectRegex("(?<b>.)".into())]));
        assert_eq!(with("${a} ${1}$$"), "");
        for wrong in ["${b}", "${2}", "$1"] {
            assert_eq!(with(wrong), "steps[1].send_captured", "{wrong}");
        }
    }

    #[test]
    fn a_way_to_tls_that_makes_no_sense_is_refused_by_field() {
        let of = |protocol: StartTlsProtocol, name: &str| {
            let tls = Some(TlsOptions { insecure: true, ..TlsOptions::default() });
            TcpProbe { start_tls: Some(StartTlsSpec { protocol: protocol.into(), tls, name: name.into() }), ..TcpProbe::default() }
        };
        assert_eq!(field_of(of(StartTlsProtocol::Smtp, "me.example")), "");
        assert_eq!(field_of(of(StartTlsProtocol::Xmpp, "a&b'c")), "");
        assert_eq!(field_of(of(StartTlsProtocol::Unspecified, "")), "start_tls.protocol");
        assert_eq!(field_of(of(StartTlsProtocol::Imap, "me")), "start_tls.name");
        for wrong in ["me\r\nRCPT", "two words", "m\u{fc}", &"x".repeat(256)] {
            assert_eq!(field_of(of(StartTlsProtocol::Smtp, wrong)), "start_tls.name");
        }
        let both = TcpProbe { tls: Some(TlsOptions::default()), ..of(StartTlsProtocol::Ftp, "") };
        assert_eq!(field_of(both), "start_tls");
        assert_eq!(field_of(TcpProbe { expect_closed: true, ..of(StartTlsProtocol::Ftp, "") }), "expect_closed");
        let again = TcpProbe {
            steps: vec![TcpStep { step: Some(tcp_step::Step::StartTls(TlsOptions::default())) }],
            ..of(StartTlsProtocol::Ftp, "")
        };
        assert_eq!(field_of(again), "steps[0].start_tls");
        let limit = prost_types::Duration { seconds: 1, nanos: 0 };
        assert_eq!(field_of(TcpProbe { expect_closed: true, max_connect_time: Some(limit), ..TcpProbe::default() }), "expect_closed");
    }
}
