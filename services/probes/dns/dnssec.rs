//! Validation of an answer by DNSSEC (RFC 4033 to 4035, RFC 5155).
//!
//! The proofs are hickory's; the questions they need go the check's own way, to the same server, and are written down like all others.

mod anchors;
mod wildcard;
mod words;

use std::{collections::HashMap, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};
use hickory_net::{
    DnsError, NetError,
    dnssec::DnssecDnsHandle,
    runtime::TokioRuntimeProvider,
    xfer::{DnsHandle, FirstAnswer as _},
};
use hickory_proto::{
    dnssec::{Proof, TrustAnchors},
    op::{DnsRequest, DnsRequestOptions, DnsResponse, Query},
    rr::{Name, RData, Record, RecordType},
    serialize::binary::{BinDecodable as _, BinDecoder},
};
use tokio::sync::{mpsc, oneshot};
use tracing::{instrument::WithSubscriber as _, subscriber::NoSubscriber};
use vantage_contract::v1::{DnsReport, Reason};

pub(super) use self::anchors::Anchors;
use super::{Dns, ask::Errand, notes::Notes};
use crate::{
    Run,
    failure::Failure,
    stopwatch,
    wire::{
        dns::{Answer, Question},
        name, rdata,
    },
};

/// Questions that a proof may need: a dozen are common, and a server could make them without end.
const MAX_QUESTIONS: usize = 64;
/// Keys and signatures in one answer. Each key may have to be tried with each signature (CVE-2023-50387), and no zone needs as many.
const MAX_KEYS: usize = 16;
const MAX_SIGNATURES: usize = 64;
/// Aliases that are followed.
const MAX_ALIASES: usize = 16;
/// What is left of the time for the verdict.
const VERDICT: Duration = Duration::from_millis(5);

/// Validates what `server` answered. Passes if it is secure; the report says what it is, and why.
pub(super) async fn validate(
    dns: &Dns,
    anchors: &Anchors,
    run: &mut Run<'_, DnsReport>,
    server: SocketAddr,
    answer: &Answer,
) -> Result<(), Failure> {
    let (mut anchors, zones) = anchors.load().await?;
    bound(server, answer)?;
    let mut chain = Chain {
        dns,
        server,
        end: run.last_call() - VERDICT,
        // What the proof is about is the answer that was judged, and no other.
        known: HashMap::from([((dns.question.name.to_lowercase(), dns.question.record_type), answer.bytes().to_vec())]),
        failure: None,
        helpless: None,
    };
    let begun = chain.begin(run, &mut anchors, &zones).await;
    let finding = match begun {
        Ok(()) => chain.prove(run, anchors, answer.rcode).await,
        Err(why) => Finding::new(Proof::Bogus, why),
    };
    let (proof, why) = match (finding, chain.helpless) {
        // A server that does not answer for the chain shows nothing, neither good nor bad.
        (Finding { proof: Proof::Bogus | Proof::Indeterminate, .. }, Some(helpless)) => (Proof::Indeterminate, helpless),
        (finding, _) => (finding.proof, finding.why),
    };
    if !proof.is_secure()
        && let Some(failure) = chain.failure
    {
        return Err(Failure { sentence: format!("validate the answer by DNSSEC: {}", failure.sentence), ..failure });
    }
    run.report.dnssec = words::of_proof(proof).to_owned();
    if proof.is_secure() {
        return Ok(());
    }
    why.clone_into(&mut run.report.dnssec_why);
    Err(Failure::target(Reason::UnexpectedAnswer, format!("the answer of {server} is {} by DNSSEC: {why}", run.report.dnssec)))
}

/// Refuses answers that are made to be costly.
fn bound(server: SocketAddr, answer: &Answer) -> Result<(), Failure> {
    let records = || answer.answers.iter().chain(&answer.authorities).chain(&answer.additionals);
    let count = |wanted: RecordType| records().filter(|record| record.record_type == u16::from(wanted)).count();
    let (keys, signatures) = (count(RecordType::DNSKEY), count(RecordType::RRSIG));
    if keys > MAX_KEYS || signatures > MAX_SIGNATURES {
        let what = format!("{server} answered with {keys} keys and {signatures} signatures, more than {MAX_KEYS} and {MAX_SIGNATURES}");
        return Err(Failure::target(Reason::TooLarge, what));
    }
    Ok(())
}

/// What is proven, and why not more.
struct Finding {
    proof: Proof,
    why: String,
}

impl Finding {
    fn new(proof: Proof, why: impl Into<String>) -> Self {
        Self { proof, why: why.into() }
    }

    fn secure() -> Self {
        Self::new(Proof::Secure, "")
    }
}

/// Proves the answer to `query`, and where it is an alias that leads to nothing, that there is nothing.
async fn prove(handle: DnssecDnsHandle<Relay>, query: Query, rcode: u16) -> Finding {
    if !matches!(rcode, 0 | 3) {
        return Finding::new(Proof::Indeterminate, format!("{} proves nothing", rdata::rcode_name(rcode)));
    }
    let (asked, mut query) = (query.name().clone(), query);
    for _ in 0..MAX_ALIASES {
        let response = match handle.lookup(query.clone(), DnsRequestOptions::default()).first_answer().await {
            Ok(response) => response,
            // Hickory seeks the denial of the name that was asked for, and an alias is denied under the name where it leads.
            Err(NetError::Dns(DnsError::Nsec { response, .. }))
                if wildcard::is_proven(&query, &response) || is_alias(&query, &response) && wildcard::may_lead_on(&response) =>
            {
                *response
            }
            Err(error) => return refused(&query, &error),
        };
        let answers: Vec<_> = response.answers.iter().filter(|record| record.record_type() != RecordType::RRSIG).collect();
        if answers.is_empty() {
            let finding = nothing(&query, &response);
            if finding.proof.is_secure() && u16::from(response.metadata.response_code) != rcode {
                return Finding::new(Proof::Bogus, format!("what is proven of {} is not {}", show(query.name()), rdata::rcode_name(rcode)));
            }
            return finding;
        }
        // The least that is proven of any record is what is proven of the answer. An alias that a proven DNAME record makes is not signed
        // itself (RFC 6672 section 5.3.1).
        let least = answers.iter().filter(|record| !is_synthesized(record, &answers)).min_by_key(|record| record.proof);
        if let Some(record) = least
            && !record.proof.is_secure()
        {
            return Finding::new(record.proof, words::of_record(record, &response.answers, stopwatch::wall()));
        }
        let end = end_of_aliases(&query.name, &answers);
        if answers.iter().any(|record| record.name == end && record.record_type() == query.query_type) {
            // Which rcode it is, no signature says; and an alias is followed only where something denies what it leads to.
            if rcode != 0 || query.name != asked {
                return Finding::new(Proof::Bogus, format!("the answer denies the records of {}, which are there", show(&end)));
            }
            return Finding::secure();
        }
        if end == query.name {
            return Finding::new(
                Proof::Bogus,
                format!("the answer does not lead from {} to a record of the type asked for", show(&query.name)),
            );
        }
        // A server need not know where an alias leads. Only an SOA record says that there is nothing (RFC 2308 section 2).
        if rcode == 0 && query.name == asked && !response.authorities.iter().any(|record| record.record_type() == RecordType::SOA) {
            return Finding::secure();
        }
        query = Query::query(end, query.query_type);
    }
    Finding::new(Proof::Indeterminate, format!("more than {MAX_ALIASES} aliases in a row"))
}

/// Whether the answer is an alias that leads elsewhere, all of it proven.
fn is_alias(query: &Query, response: &DnsResponse) -> bool {
    let answers: Vec<_> = response.answers.iter().filter(|record| record.record_type() != RecordType::RRSIG).collect();
    let is_proven = |record: &&Record| record.proof.is_secure() || is_synthesized(record, &answers);
    query.query_type() != RecordType::CNAME && answers.iter().all(is_proven) && end_of_aliases(query.name(), &answers) != *query.name()
}

/// An answer without records: its authority section has to say so.
fn nothing(query: &Query, response: &DnsResponse) -> Finding {
    let proofs = response.authorities.iter().filter(|record| record.record_type() != RecordType::RRSIG);
    match proofs.min_by_key(|record| record.proof) {
        // Hickory has looked at the denial itself, where it says that the records are secure.
        Some(record) if record.proof.is_secure() && is_denial(response) => Finding::secure(),
        Some(record) if !record.proof.is_secure() && !record.proof.is_insecure() => {
            Finding::new(record.proof, words::of_record(record, &response.authorities, stopwatch::wall()))
        }
        _ if is_denial(response) => Finding::new(Proof::Indeterminate, "the denial is not proven"),
        _ => Finding::new(Proof::Insecure, format!("no zone above {} proves what it denies", show(query.name()))),
    }
}

fn is_denial(response: &DnsResponse) -> bool {
    response.authorities.iter().any(|record| matches!(record.record_type(), RecordType::NSEC | RecordType::NSEC3))
}

fn refused(query: &Query, error: &NetError) -> Finding {
    let whose = format!("{} {}", show(query.name()), query.query_type());
    match error {
        NetError::Dns(DnsError::Nsec { proof: Proof::Insecure, .. }) => {
            Finding::new(Proof::Insecure, format!("the denial of {whose} is in an unsigned zone, or its hashes are too costly to prove it"))
        }
        NetError::Dns(DnsError::Nsec { proof, .. }) => Finding::new(*proof, format!("nothing proves that there is no {whose}")),
        error => Finding::new(Proof::Indeterminate, format!("the answer for {whose} can't be validated: {error}")),
    }
}

/// Whether a record is an alias that a DNAME record in the same answer makes, and that one is proven.
fn is_synthesized(record: &Record, answers: &[&Record]) -> bool {
    let RData::CNAME(alias) = &record.data else { return false };
    answers.iter().any(|made_by| {
        let RData::Unknown { code: RecordType::DNAME, rdata } = &made_by.data else { return false };
        if !made_by.proof.is_secure() || made_by.name == record.name || !made_by.name.zone_of(&record.name) {
            return false;
        }
        // What comes before the owner of the DNAME record comes before its target, too.
        let kept = usize::from(record.name.num_labels().saturating_sub(made_by.name.num_labels()));
        let Ok(target) = Name::read(&mut BinDecoder::new(&rdata.anything)) else { return false };
        let made = Name::from_labels(record.name.iter().take(kept).chain(target.iter()));
        made.is_ok_and(|made| made.eq_ignore_root(&alias.0))
    })
}

/// Where the aliases that begin at `name` end.
fn end_of_aliases(name: &Name, answers: &[&Record]) -> Name {
    let mut end = name.clone();
    for _ in 0..MAX_ALIASES {
        let next = answers.iter().filter(|record| record.name == end).find_map(|record| match &record.data {
            RData::CNAME(target) => Some(target.0.clone()),
            _ => None,
        });
        match next {
            Some(next) => end = next,
            None => break,
        }
    }
    end
}

fn show(name: &Name) -> String {
    name::show(name)
}

type Reply = Result<DnsResponse, NetError>;

/// Hands questions of the proof to the run, which asks them.
#[derive(Clone)]
struct Relay(mpsc::UnboundedSender<(Query, oneshot::Sender<Reply>)>);

impl DnsHandle for Relay {
    type Response = Pin<Box<dyn Stream<Item = Reply> + Send>>;
    type Runtime = TokioRuntimeProvider;

    fn send(&self, request: DnsRequest) -> Self::Response {
        let Self(sender) = self.clone();
        let asking = async move {
            let (reply, answer) = oneshot::channel();
            let query = request.queries.first().cloned().ok_or("a request without a question")?;
            sender.send((query, reply)).map_err(|_| "the run is over")?;
            answer.await.map_err(|_| "the run is over")?
        };
        stream::once(asking).boxed()
    }
}

/// The questions that the proof needs, as they are asked.
struct Chain<'c> {
    dns: &'c Dns,
    server: SocketAddr,
    end: tokio::time::Instant,
    /// Answers that came, as messages. The same question is asked again and again on the way through a proof.
    known: HashMap<(Name, u16), Vec<u8>>,
    /// The first question that had no answer.
    failure: Option<Failure>,
    /// The first question that the server refused.
    helpless: Option<String>,
}

impl Chain<'_> {
    /// Finds the keys of the zones whose anchors are given, other than the root, as far as the question lies in them.
    async fn begin(&mut self, run: &mut Run<'_, DnsReport>, anchors: &mut TrustAnchors, zones: &[Name]) -> Result<(), String> {
        for zone in zones {
            let query = Query::query(zone.clone(), RecordType::DNSKEY);
            let response = self.ask(run, &query).await;
            let records = response.as_ref().map(|response| response.answers.as_slice()).unwrap_or_default();
            let extended = anchors::extend(anchors, zone, records, words::serial(stopwatch::wall()));
            // An alias may lead into the others: what is missing then shows in the proof.
            if zone.zone_of(&self.dns.question.name) {
                extended?;
            }
        }
        Ok(())
    }

    /// Proves the answer, and asks what the proof asks for.
    async fn prove(&mut self, run: &mut Run<'_, DnsReport>, anchors: TrustAnchors, rcode: u16) -> Finding {
        let (sender, mut asked) = mpsc::unbounded_channel();
        let handle = DnssecDnsHandle::with_trust_anchor(Relay(sender), Arc::new(anchors));
        let first = Query::query(self.dns.question.name.clone(), RecordType::from(self.dns.question.record_type));
        // What hickory would write into our log is about the target, and in the report.
        let mut proving = std::pin::pin!(prove(handle, first, rcode).with_subscriber(NoSubscriber::default()));
        loop {
            tokio::select! {
                finding = &mut proving => return finding,
                Some((query, reply)) = asked.recv() => {
                    let found = self.ask(run, &query).await;
                    // Whoever no longer waits has decided without it.
                    let _ = reply.send(found);
                }
            }
        }
    }

    async fn ask(&mut self, run: &mut Run<'_, DnsReport>, query: &Query) -> Reply {
        let key = (query.name().to_lowercase(), u16::from(query.query_type()));
        let bytes = match self.known.get(&key) {
            Some(bytes) => bytes.clone(),
            // There is no time for more, or no way.
            None if self.failure.is_some() => return Err("another question had no answer".into()),
            None if self.known.len() > MAX_QUESTIONS => {
                self.helpless.get_or_insert_with(|| format!("more than {MAX_QUESTIONS} questions are needed"));
                return Err("too many questions".into());
            }
            None => {
                let asked = self.ask_anew(run, query).await;
                match asked {
                    Ok(bytes) => self.known.entry(key).or_insert(bytes).clone(),
                    Err(failure) => {
                        let sentence = failure.sentence.clone();
                        self.failure.get_or_insert(failure);
                        return Err(sentence.into());
                    }
                }
            }
        };
        Ok(DnsResponse::from_buffer(bytes)?)
    }

    async fn ask_anew(&mut self, run: &mut Run<'_, DnsReport>, query: &Query) -> Result<Vec<u8>, Failure> {
        run.watch.goes_on();
        let mut name = query.name().clone();
        name.set_fqdn(true);
        let question = Question { name, record_type: query.query_type().into(), class: query.query_class().into() };
        let manner = self.dns.manner;
        let (source, memory) = (run.options.source, &run.world.memory);
        let errand =
            Errand { server: self.server, question: &question, manner, source, memory, end: self.end, timeout: run.options.timeout };
        let mut part = DnsReport::default();
        let mut notes = Notes { report: &mut part, watch: None, started: run.watch.started() };
        let heard = Box::pin(self.dns.ask(&errand, &mut notes)).await;
        let heard =
            heard.unwrap_or_else(|_| Err(Failure::timed_out(format!("after {:?} waiting for {}", run.options.timeout, self.server))));
        let fate = heard.as_ref().err().filter(|failure| failure.reason != Reason::TimedOut).map(|failure| failure.sentence.clone());
        notes.settle_rest(stopwatch::now(), fate.as_deref().unwrap_or("silent"));
        self.dns.notes(run).merge(vec![part]);
        let answer = heard?.answer;
        bound(self.server, &answer)?;
        if !matches!(answer.rcode, 0 | 3) {
            let (rcode, whose) = (rdata::rcode_name(answer.rcode), rdata::type_name(question.record_type));
            self.helpless.get_or_insert_with(|| format!("{} answered {rcode} for {} {whose}", self.server, show(&question.name)));
        }
        Ok(answer.bytes().to_vec())
    }
}
