//! What the answers, the errors and the silence mean.

use std::net::SocketAddr;

use regex::bytes::Regex;
use vantage_contract::v1::{Attribution, Outcome, Reason, UdpReport};

use super::{
    Udp,
    flow::{Content, Flow},
};
use crate::{Run, failure::Failure, wire::text};

/// How much of an answer is shown, in bytes.
const MAX_SHOWN: usize = 1024;

/// What an answer has to be.
pub(super) struct Expectations {
    /// It has this.
    pub(super) text: Vec<u8>,
    /// It begins with this.
    pub(super) beginning: Vec<u8>,
    /// This matches in it.
    pub(super) regex: Option<Regex>,
}

impl Expectations {
    /// Whether an answer is as expected, or what it lacks.
    pub(super) fn judge(&self, remote: SocketAddr, answer: &[u8]) -> Result<(), Failure> {
        let unexpected = |what: String| {
            Err(Failure::target(Reason::UnexpectedAnswer, format!("the answer of {remote} ({} bytes) {what}", answer.len())))
        };
        if !answer.starts_with(&self.beginning) {
            let shown: String = self.beginning.iter().map(|byte| format!("{byte:02x}")).collect();
            return unexpected(format!("does not begin with the bytes {shown}"));
        }
        if !self.text.is_empty() && !answer.windows(self.text.len()).any(|window| window == self.text) {
            return unexpected(format!("does not have {:?}", String::from_utf8_lossy(&self.text)));
        }
        match &self.regex {
            Some(regex) if !regex.is_match(answer) => unexpected(format!("does not match \"{regex}\"")),
            _ => Ok(()),
        }
    }
}

impl Udp {
    /// The verdict, with the report of the flow that decided it.
    pub(super) fn conclude(&self, remote: SocketAddr, run: &mut Run<'_, UdpReport>, flows: &[Flow<'_>]) -> Result<String, Failure> {
        let (deciding, verdict) = if self.source_ports == 1 { self.of_one(remote, run, flows) } else { self.of_many(remote, run, flows) };
        let report = &mut run.report;
        report.ignored_count = flows.iter().map(|flow| flow.sight.ignored_count).sum();
        if let Some(flow) = deciding {
            let sight = &flow.sight;
            report.state = sight.state;
            report.local_address = sight.local_address.clone();
            report.answer_size_bytes = sight.answer_size_bytes;
            report.answer = text::escape(&flow.answer[..flow.answer.len().min(MAX_SHOWN)]);
            report.error = sight.error.clone();
            run.latency = flow.latency;
        }
        if self.source_ports > 1 {
            report.flows = flows.iter().map(|flow| flow.sight.clone()).collect();
        }
        verdict
    }

    /// Each datagram had a port of its own: what came back first counts.
    fn of_one<'f, 'p>(
        &self,
        remote: SocketAddr,
        run: &Run<'_, UdpReport>,
        flows: &'f [Flow<'p>],
    ) -> (Option<&'f Flow<'p>>, Result<String, Failure>) {
        match flows.iter().find_map(|flow| Some((flow, flow.end.as_ref()?))) {
            Some((flow, Ok(()))) => (Some(flow), Ok(format!("{remote} answered with {} bytes", flow.answer.len()))),
            Some((flow, Err(failure))) => (Some(flow), Err(failure.clone())),
            None => {
                // One to which something came says more than one to which nothing did.
                let flow = flows.iter().find(|flow| flow.is_foreign).or(flows.last());
                (flow, Err(self.silence(remote, run, flow, false)))
            }
        }
    }

    /// All ports were asked from at the same time, and so many have to be answered as expected.
    fn of_many<'f, 'p>(
        &self,
        remote: SocketAddr,
        run: &Run<'_, UdpReport>,
        flows: &'f [Flow<'p>],
    ) -> (Option<&'f Flow<'p>>, Result<String, Failure>) {
        let mut expected: Vec<_> = flows.iter().filter(|flow| flow.sight.as_expected).collect();
        let count = format!("{} of {} source ports were answered by {remote} as expected", expected.len(), flows.len());
        if expected.len() >= self.require_flows {
            // The one by which the requirement was met. What has no latency comes last.
            expected.sort_by_key(|flow| flow.latency.map_or(std::time::Duration::MAX, |(taken, _)| taken));
            return (expected.get(self.require_flows - 1).copied(), Ok(count));
        }
        // What failed for the target's or the path's sake says more than what did for ours, and that more than silence.
        let failures = || flows.iter().filter_map(|flow| Some((flow, flow.end.as_ref()?.as_ref().err()?)));
        let told = failures().find(|(_, failure)| failure.outcome() == Outcome::Failed).or_else(|| failures().next());
        let (flow, failure) = match told {
            Some((flow, failure)) => (Some(flow), failure.clone()),
            None => {
                let silent = || flows.iter().filter(|flow| flow.is_open());
                let flow = silent().find(|flow| flow.is_foreign).or_else(|| silent().next());
                (flow, self.silence(remote, run, flow, !expected.is_empty()))
            }
        };
        let from = flow.map(|flow| flow.sight.local_address.as_str()).unwrap_or_default();
        let sentence = format!("{count}, {} have to be; of {from}: {}", self.require_flows, failure.sentence);
        (flow, Err(Failure { sentence, ..failure }))
    }

    /// What it means that no answer came to a flow. Where others were answered, the target is there and the way is not.
    fn silence(&self, remote: SocketAddr, run: &Run<'_, UdpReport>, flow: Option<&Flow<'_>>, is_answered: bool) -> Failure {
        let limit = run.options.timeout;
        let ignored = match flow.map_or(0, |flow| flow.sight.ignored_count) {
            0 => String::new(),
            count => format!(" (datagrams that were no answer to us: {count})"),
        };
        if let (Content::Preset(preset), Some(true)) = (&self.content, flow.map(|flow| flow.is_foreign)) {
            let sentence = format!("what {remote} said within {limit:?} is no answer of the protocol {}{ignored}", preset.name());
            return Failure::target(Reason::UnexpectedAnswer, sentence);
        }
        if self.require_answer || is_answered {
            let attribution = if is_answered { Attribution::Path } else { Attribution::Target };
            let sentence = format!("timed out after {limit:?} waiting for the answer of {remote}{ignored}");
            return Failure::new(Reason::TimedOut, attribution, sentence);
        }
        let sentence = format!("{remote} was silent for {limit:?}: the port is open or filtered{ignored}");
        Failure::new(Reason::NoAnswer, Attribution::Target, sentence)
    }
}
