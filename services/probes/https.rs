//! HTTPS: HTTP over TLS (RFC 9110 section 4.2.2). The same as [`http`](crate::http), but for the scheme that the URL must have.

use vantage_contract::v1::{HttpProbe, HttpReport};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    gate::Demand,
    http::Http,
    secret::Masks,
    stopwatch::Times,
    target::{Host, Options},
};

/// An HTTPS probe, parsed.
pub(crate) struct Https(Http);

impl Probe for Https {
    type Spec = HttpProbe;
    type Report = HttpReport;

    const CONNECTS: bool = true;

    fn parse(spec: &HttpProbe, options: &Options) -> Result<Self, Invalid> {
        Ok(Self(Http::parse_as("https", spec, options)?))
    }

    fn is_light(&self) -> bool {
        false
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
