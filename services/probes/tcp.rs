//! TCP: connect, and have a conversation.

mod conversation;

use std::net::SocketAddr;

use vantage_contract::v1::{Reason, TcpProbe, TcpReport, TimingSource, TlsReport};

use crate::{
    Probe, Run,
    connect::Connection,
    failure::{Failure, Invalid},
    gate::Demand,
    net::{self, stream::Stream},
    stopwatch::{self, Phase},
    target::{self, Host, Options, Selection},
    tls::Tls,
};
use conversation::{Conversation, Secured, Step};

/// A TCP probe, parsed.
pub(crate) struct Tcp {
    host: Host,
    port: u16,
    expect_closed: bool,
    /// TLS at once after connecting.
    tls: Option<Tls>,
    steps: Vec<Step>,
    max_read: usize,
}

impl Probe for Tcp {
    type Spec = TcpProbe;
    type Report = TcpReport;

    const CONNECTS: bool = true;

    fn parse(spec: &TcpProbe, options: &Options) -> Result<Self, Invalid> {
        let tls = spec.tls.as_ref().map(|options| Tls::parse_bare("tcp", "tls", options)).transpose()?;
        let steps = conversation::parse(&spec.steps, tls.is_some())?;
        if spec.expect_closed && (tls.is_some() || !steps.is_empty()) {
            return Err(Invalid::new("expect_closed", "means nothing together with tls or steps: a closed port says nothing"));
        }
        if spec.expect_closed && options.selection == Selection::HappyEyeballs {
            let problem = "means nothing with addresses \"happy_eyeballs\", which look for one that is open: it goes with \"all\"";
            return Err(Invalid::new("expect_closed", problem));
        }
        let max_read = target::number("max_read_size_bytes", spec.max_read_size_bytes, 64 << 10, 1..=16 << 20)?;
        Ok(Self {
            host: Host::parse("host", &spec.host)?,
            port: target::port("port", spec.port, None)?,
            expect_closed: spec.expect_closed,
            tls,
            steps,
            max_read: usize::try_from(max_read).unwrap_or(usize::MAX),
        })
    }

    fn is_light(&self) -> bool {
        self.tls.is_none() && self.steps.is_empty()
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
        let (tls, steps) = self.load().await.inspect_err(|_| run.enter(Phase::Resolve))?;

        let Connection { stream, remote, taken } = match run.connect(&self.host, self.port).await {
            Ok(connection) => connection,
            Err(error) => {
                run.report.error = error.icmp;
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
        run.report.kernel_round_trip = net::tcp::kernel_round_trip(&stream).map(stopwatch::to_proto);
        run.report.local_address = stream.local_addr().map(|address| address.to_string()).unwrap_or_default();
        run.report.remote_address = remote.to_string();
        if self.expect_closed {
            return Err(Failure::target(Reason::UnexpectedAnswer, format!("connect to {remote}: it is open, expected to be closed")));
        }

        let stream = match tls {
            None => Stream::Plain(stream),
            Some((tls, name)) => {
                run.enter(Phase::Tls);
                let report = run.report.tls.insert(TlsReport::default());
                Stream::Tls(Box::new(tls.connect(stream, name, &[], &format!("TLS with {remote}"), report).await?))
            }
        };
        if self.steps.is_empty() {
            let secured = if self.tls.is_some() { " over TLS" } else { "" };
            return Ok(format!("connected to {remote}{secured}"));
        }
        Conversation::new(stream, remote, self.max_read).hold(&self.steps, steps, run).await?;
        Ok(format!("connected to {remote}, {} of {} steps held", run.report.completed_step_count, self.steps.len()))
    }
}

impl Tcp {
    /// Reads the files of TLS at once and of the step that starts TLS.
    async fn load(&self) -> Result<(Option<Secured>, Option<Secured>), Failure> {
        let tls = match &self.tls {
            Some(tls) => Some((tls.load().await?, tls.name_for(&self.host)?)),
            None => None,
        };
        Ok((tls, conversation::load(&self.steps, &self.host).await?))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vantage_contract::v1::{Probe as Message, TcpStep, TlsOptions, tcp_step};

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
}
