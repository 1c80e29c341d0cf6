//! TCP: connect, and have a conversation.

use vantage_contract::v1::{TcpProbe, TcpReport, TimingSource};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    net,
    stopwatch::{self, Phase},
    target::{self, Host, Options},
};

/// A TCP probe, parsed.
pub(crate) struct Tcp {
    host: Host,
    port: u16,
}

impl Probe for Tcp {
    type Spec = TcpProbe;
    type Report = TcpReport;

    fn parse(spec: &TcpProbe, _: &Options) -> Result<Self, Invalid> {
        Ok(Self { host: Host::parse("host", &spec.host)?, port: target::port("port", spec.port, None)? })
    }

    fn target(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    async fn run(&self, run: &mut Run<'_, TcpReport>) -> Result<String, Failure> {
        let remote = run.resolve_port(&self.host, self.port).await?;
        run.enter(Phase::Connect);
        let before = stopwatch::now();
        let stream = net::tcp::connect(remote, run.options.source).await?;
        let taken = stopwatch::now() - before;
        run.latency = Some((taken, TimingSource::User));
        run.report.connected = true;
        run.report.connect_time = Some(stopwatch::to_proto(taken));
        run.report.local_address = stream.local_addr().map(|address| address.to_string()).unwrap_or_default();
        run.report.remote_address = remote.to_string();
        Ok(format!("connected to {remote}"))
    }
}
