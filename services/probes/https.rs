//! Placeholder of the kind.

use vantage_contract::v1::{HttpProbe, HttpReport};

use crate::{
    Probe, Run,
    failure::{Failure, Invalid},
    target::Options,
};

pub(crate) struct Https;

impl Probe for Https {
    type Spec = HttpProbe;
    type Report = HttpReport;

    fn parse(_: &HttpProbe, _: &Options) -> Result<Self, Invalid> {
        Ok(Self)
    }

    fn target(&self) -> String {
        String::new()
    }

    async fn run(&self, _: &mut Run<'_, HttpReport>) -> Result<String, Failure> {
        Err(Failure::internal("not yet"))
    }
}
