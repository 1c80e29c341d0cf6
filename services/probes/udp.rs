//! Placeholder of the kind.

use vantage_contract::v1::{UdpProbe, UdpReport};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    target::Options,
};

pub(crate) struct Udp;

impl Probe for Udp {
    type Spec = UdpProbe;
    type Report = UdpReport;

    fn parse(_: &UdpProbe, _: &Options) -> Result<Self, Invalid> {
        Ok(Self)
    }

    fn target(&self) -> String {
        String::new()
    }

    async fn run(&self, _: &mut Run<'_, UdpReport>) -> Result<String, Failure> {
        Err(Failure::internal("not yet"))
    }
}
