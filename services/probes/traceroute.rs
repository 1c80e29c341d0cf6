//! Placeholder of the kind.

use vantage_contract::v1::{TracerouteProbe, TracerouteReport};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    target::Options,
};

pub(crate) struct Traceroute;

impl Probe for Traceroute {
    type Spec = TracerouteProbe;
    type Report = TracerouteReport;

    fn parse(_: &TracerouteProbe, _: &Options) -> Result<Self, Invalid> {
        Ok(Self)
    }

    fn target(&self) -> String {
        String::new()
    }

    async fn run(&self, _: &mut Run<'_, TracerouteReport>) -> Result<String, Failure> {
        Err(Failure::internal("not yet"))
    }
}
