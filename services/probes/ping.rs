//! Placeholder of the kind.

use vantage_contract::v1::{PingProbe, PingReport};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    target::Options,
};

pub(crate) struct Ping;

impl Probe for Ping {
    type Spec = PingProbe;
    type Report = PingReport;

    fn parse(_: &PingProbe, _: &Options) -> Result<Self, Invalid> {
        Ok(Self)
    }

    fn target(&self) -> String {
        String::new()
    }

    async fn run(&self, _: &mut Run<'_, PingReport>) -> Result<String, Failure> {
        Err(Failure::internal("not yet"))
    }
}
