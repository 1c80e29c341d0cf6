//! Both families of a name at the same time, each told as soon as it is known (RFC 8305 section 3).

use std::{net::IpAddr, pin::pin};

use hickory_proto::rr::Name;
use tokio::{
    sync::mpsc::UnboundedSender,
    time::{Instant, timeout_at},
};
use vantage_contract::v1::Reason;

use super::{A, AAAA, Begun, Plan, Resolver, Search, Trouble, blame, halfway, silent};
use crate::{
    failure::Failure,
    gate::Gate,
    target::{Family, Host, Options},
};

/// The addresses of one family; none where the name has none of it, or nobody says.
#[derive(Debug)]
pub(crate) struct Told {
    /// Whether they are of IPv6.
    pub(crate) is_six: bool,
    /// The addresses, as the resolver has them.
    pub(crate) found: Vec<IpAddr>,
}

impl Resolver {
    /// Resolves all addresses that fit the options' family, and tells of each family once, as soon as its addresses are known: both end up told
    /// unless this fails. It fails, having told nothing, as [`first_address`](Self::first_address) does. The failure that it returns beside
    /// addresses is that of the other family, for which nobody had an answer.
    pub(crate) async fn each_family(
        &self,
        host: &Host,
        options: &Options,
        gate: &dyn Gate,
        deadline: Instant,
        teller: &UnboundedSender<Told>,
    ) -> Result<Option<Failure>, Failure> {
        let Search { text, candidates, settings, left, end } = match self.begin(host, options, gate, deadline)? {
            Begun::Known(found) => {
                let (four, six) = found.into_iter().partition(IpAddr::is_ipv4);
                tell(teller, true, six);
                tell(teller, false, four);
                return Ok(None);
            }
            Begun::Search(search) => *search,
        };
        let plan = settings.plan(left, end, gate);
        let mut trouble = Trouble::NoSuchName;
        for candidate in candidates {
            match self.tell_each(&candidate, options.family, &plan, teller).await {
                Ok(silence) => return Ok(silence.map(|failure| blame(text, failure))),
                // No other spelling makes a silent or absent resolver answer.
                Err(Trouble::Failed(failure)) if failure.reason != Reason::UnexpectedAnswer => {
                    trouble = Trouble::Failed(failure);
                    break;
                }
                Err(found) => trouble = trouble.graver(found),
            }
        }
        Err(trouble.of_name(text, options.family))
    }

    /// Tells both families of one name, if it has an address of either.
    async fn tell_each(
        &self,
        name: &Name,
        family: Family,
        plan: &Plan<'_>,
        teller: &UnboundedSender<Told>,
    ) -> Result<Option<Failure>, Trouble> {
        if family != Family::Any {
            let is_six = family == Family::V6;
            let found = self.of_type(name, if is_six { AAAA } else { A }, plan).await?;
            tell(teller, is_six, found);
            tell(teller, !is_six, Vec::new());
            return Ok(None);
        }
        // The question for IPv6 leaves first.
        let mut six = pin!(self.of_type(name, AAAA, plan));
        let mut four = pin!(self.of_type(name, A, plan));
        let (first, first_is_six) = tokio::select! {
            biased;
            six = &mut six => (six, true),
            four = &mut four => (four, false),
        };
        // Half of the time for one family that does not answer leaves the other half to say so of the addresses of the other.
        let patience = if first.is_ok() { halfway(plan.end) } else { plan.end };
        let first = match first {
            Ok(found) => {
                tell(teller, first_is_six, found);
                None
            }
            Err(trouble) => Some(trouble),
        };
        let second = if first_is_six { timeout_at(patience, four).await } else { timeout_at(patience, six).await };
        match (first, second.unwrap_or_else(|_| Err(silent(plan)))) {
            (first, Ok(found)) => {
                tell(teller, !first_is_six, found);
                if first.is_some() {
                    tell(teller, first_is_six, Vec::new());
                }
                Ok(first.and_then(Trouble::failure))
            }
            (None, Err(second)) => {
                tell(teller, !first_is_six, Vec::new());
                Ok(second.failure())
            }
            (Some(first), Err(second)) => Err(first.graver(second)),
        }
    }
}

/// Who has stopped listening knows enough.
fn tell(teller: &UnboundedSender<Told>, is_six: bool, found: Vec<IpAddr>) {
    let _ = teller.send(Told { is_six, found });
}
