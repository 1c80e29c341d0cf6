//! Placeholder of the kind.

use vantage_contract::v1::{DnsProbe, DnsReport};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    target::Options,
};

pub(crate) struct Dns;

impl Probe for Dns {
    type Spec = DnsProbe;
    type Report = DnsReport;

    fn parse(_: &DnsProbe, _: &Options) -> Result<Self, Invalid> {
        Ok(Self)
    }

    fn target(&self) -> String {
        String::new()
    }

    async fn run(&self, _: &mut Run<'_, DnsReport>) -> Result<String, Failure> {
        Err(Failure::internal("not yet"))
    }
}
