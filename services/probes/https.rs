//! HTTPS: HTTP over TLS (RFC 9110 section 4.2.2). The same as [`http`](crate::http), but for the scheme that the URL must have.

use vantage_contract::v1::{HttpProbe, HttpReport, HttpVersion, TlsVersion};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    gate::Demand,
    http::Http,
    secret::Masks,
    stopwatch::Times,
    target::{Host, Options, Selection},
};

/// An HTTPS probe, parsed.
pub(crate) struct Https(Http);

impl Probe for Https {
    type Spec = HttpProbe;
    type Report = HttpReport;

    const CONNECTS: bool = true;

    fn parse(spec: &HttpProbe, options: &Options) -> Result<Self, Invalid> {
        let parsed = Http::parse_as("https", spec, options)?;
        if spec.version == i32::from(HttpVersion::HttpVersion3) {
            over_quic(spec, options)?;
        }
        Ok(Self(parsed))
    }

    fn is_light(&self) -> bool {
        self.0.is_light()
    }

    fn target(&self) -> String {
        self.0.target()
    }

    fn host(&self) -> &Host {
        self.0.host()
    }

    fn demand(&self) -> Demand<'_> {
        self.0.demand()
    }

    async fn run(&self, run: &mut Run<'_, HttpReport>) -> Result<String, Failure> {
        self.0.run(run).await
    }

    fn settle(report: &mut HttpReport, times: &Times, masks: &Masks) {
        Http::settle(report, times, masks);
    }
}

/// Refuses what can't be done over QUIC.
fn over_quic(spec: &HttpProbe, options: &Options) -> Result<(), Invalid> {
    if options.selection == Selection::HappyEyeballs {
        return Err(Invalid::new("version", "3 goes over QUIC, and addresses \"happy_eyeballs\" are for what connects by TCP"));
    }
    if spec.proxy.is_some() {
        return Err(Invalid::new("proxy", "means nothing with version 3: QUIC does not go through it"));
    }
    if spec.reuse {
        return Err(Invalid::new(
            "reuse",
            "is not for version 3: a QUIC connection that nobody attends to does not live until the next run",
        ));
    }
    if spec.tls.as_ref().is_some_and(|tls| tls.max_version == i32::from(TlsVersion::TlsVersion12)) {
        return Err(Invalid::new("tls.max_version", "leaves nothing for version 3: QUIC has TLS 1.3 alone"));
    }
    Ok(())
}
