//! Placeholder of the kind.

use vantage_contract::v1::{NtpProbe, NtpReport};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    target::Options,
};

pub(crate) struct Ntp;

impl Probe for Ntp {
    type Spec = NtpProbe;
    type Report = NtpReport;

    fn parse(_: &NtpProbe, _: &Options) -> Result<Self, Invalid> {
        Ok(Self)
    }

    fn target(&self) -> String {
        String::new()
    }

    async fn run(&self, _: &mut Run<'_, NtpReport>) -> Result<String, Failure> {
        Err(Failure::internal("not yet"))
    }
}
