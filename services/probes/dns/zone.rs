//! One check over all name servers of a zone: do they all answer, with authority, and with the same serial?

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::stream::{self, StreamExt as _};
use hickory_proto::rr::Name;
use vantage_contract::v1::{Attribution, DnsReport, DnsZoneServer, Outcome, Reason};

use super::{
    Dns,
    ask::{Errand, Heard},
    expect::is_older,
    notes::Notes,
};
use crate::{
    Run,
    failure::Failure,
    gate::Gate,
    run::{Memory, permit_name},
    stopwatch,
    target::Family,
    wire::{
        dns::{A, AAAA, Answer, IN, Manner, NS, Question, SOA},
        name, rdata,
    },
};

/// Questions under way at once.
const AT_ONCE: usize = 32;
/// Addresses that are asked, and shown.
const MAX_SERVERS: usize = 100;
/// Names whose addresses are looked for.
const MAX_NAMES: usize = 50;
/// What is left of the time for the verdict.
const VERDICT: Duration = Duration::from_millis(5);

/// A server of the zone, and what came of asking it.
struct Server {
    name: Name,
    address: Option<IpAddr>,
    finding: Result<(Heard, u32), Failure>,
}

/// What a part of the work wrote down.
struct Part<T> {
    report: DnsReport,
    done: T,
}

/// Asks them all. `server` says who they are.
pub(super) async fn check(dns: &Dns, run: &mut Run<'_, DnsReport>, server: SocketAddr) -> Result<String, Failure> {
    let zone = dns.name.as_str();
    let world = run.world;
    let work = Work {
        dns,
        gate: world.gate.as_ref(),
        source: run.options.source,
        memory: &run.world.memory,
        started: run.watch.started(),
        end: run.last_call() - VERDICT,
        timeout: run.options.timeout,
    };
    let question = Question { record_type: NS, ..dns.question.clone() };
    let Heard { answer, .. } = work.ask(server, &question, dns.manner, &mut dns.notes(run)).await?;
    let names = names(&answer, &dns.question.name);
    if answer.rcode != 0 || names.is_empty() {
        let rcode = rdata::rcode_name(answer.rcode);
        return Err(Failure::target(Reason::UnexpectedAnswer, format!("{server} names no servers of {zone} and answers {rcode}")));
    }

    run.watch.goes_on();
    let family = run.options.family;
    let found: Vec<_> = stream::iter(names.iter().take(MAX_NAMES).cloned())
        .map(|name| work.addresses(server, name, family, &answer))
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut parts = Vec::new();
    let mut targets = Vec::new();
    for Part { report, done: (name, addresses) } in found {
        parts.push(report);
        match addresses {
            Err(failure) => targets.push((name, Err(failure))),
            Ok(addresses) => targets.extend(addresses.into_iter().map(|address| {
                (
                    name.clone(),
                    run.permit(address, Some(dns.port))
                        .map(|()| address)
                        .map_err(|denied| Failure { sentence: format!("{address}: {}", denied.sentence), ..denied }),
                )
            })),
        }
    }
    let known = targets.len().max(names.len());
    let asked: Vec<_> = stream::iter(targets.into_iter().take(MAX_SERVERS))
        .map(|(name, address)| work.serial(name, address))
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut servers = Vec::new();
    for Part { report, done } in asked {
        parts.push(report);
        servers.push(done);
    }
    dns.notes(run).merge(parts);
    judge(zone, servers, known, run)
}

/// The zone's name servers, each once: from the answer, or from the delegation where `server` is its parent's.
fn names(answer: &Answer, zone: &Name) -> Vec<Name> {
    let mut found = Vec::new();
    for section in [&answer.answers, &answer.authorities] {
        for record in section.iter().filter(|record| record.record_type == NS && record.class == IN && record.name == *zone) {
            found.extend(answer.target(record).filter(|name| !found.contains(name)));
        }
        if !found.is_empty() {
            break;
        }
    }
    found.sort();
    found
}

/// What all questions share.
struct Work<'w> {
    dns: &'w Dns,
    gate: &'w dyn Gate,
    source: Option<IpAddr>,
    memory: &'w Memory,
    started: tokio::time::Instant,
    end: tokio::time::Instant,
    timeout: Duration,
}

impl Work<'_> {
    /// Asks one question, and ends with the time by itself.
    async fn ask(&self, server: SocketAddr, question: &Question, manner: Manner, notes: &mut Notes<'_>) -> Result<Heard, Failure> {
        let errand = Errand { server, question, manner, source: self.source, memory: self.memory, end: self.end, timeout: self.timeout };
        let heard = self.dns.ask(&errand, notes).await;
        let heard = heard.unwrap_or_else(|_| Err(Failure::timed_out(format!("after {:?} waiting for {server}", self.timeout))));
        let fate = heard.as_ref().err().filter(|failure| failure.reason != Reason::TimedOut).map(|failure| failure.sentence.clone());
        notes.settle_rest(stopwatch::now(), fate.as_deref().unwrap_or("silent"));
        heard
    }

    /// The addresses of a name server, by `server`; where it does not say, those that came with the list.
    async fn addresses(&self, server: SocketAddr, name: Name, family: Family, list: &Answer) -> Part<(Name, Result<Vec<IpAddr>, Failure>)> {
        let mut report = DnsReport::default();
        let mut found = Vec::new();
        if let Err(denied) = permit_name(self.gate, &name::show(&name)) {
            return Part { report, done: (name, Err(denied)) };
        }
        let mut failure = None;
        let types = match family {
            Family::Any => &[A, AAAA][..],
            Family::V4 => &[A],
            Family::V6 => &[AAAA],
        };
        for record_type in types {
            let question = Question { name: name.clone(), record_type: *record_type, class: IN };
            let mut notes = Notes { report: &mut report, watch: None, started: self.started };
            let failed = match self.ask(server, &question, self.dns.manner, &mut notes).await {
                Ok(Heard { answer, .. }) if answer.rcode == 0 => {
                    match answer.aliases_of(&name).iter().try_for_each(|alias| permit_name(self.gate, &name::show(alias))) {
                        Ok(()) => {
                            found.extend(answer.addresses_of(&name));
                            continue;
                        }
                        Err(denied) => denied,
                    }
                }
                Ok(Heard { answer, .. }) => {
                    let whose = if answer.rcode == 3 { Attribution::Target } else { Attribution::Resolver };
                    let rcode = rdata::rcode_name(answer.rcode);
                    Failure::new(
                        Reason::NameNotResolved,
                        whose,
                        format!("{server} answered {rcode} for its {}", rdata::type_name(*record_type)),
                    )
                }
                Err(failure) => failure,
            };
            failure.get_or_insert(failed);
        }
        if found.is_empty() {
            let fits = |address: &IpAddr| address.is_ipv4() && family != Family::V6 || address.is_ipv6() && family != Family::V4;
            let glue = list.additionals.iter().filter(|record| record.name == name).filter_map(|record| list.address(record));
            found.extend(glue.filter(fits));
        }
        let done = match failure {
            Some(failure) if found.is_empty() => Err(failure),
            None if found.is_empty() => Err(Failure::target(Reason::NameNotResolved, "it has no address")),
            _ => Ok(found),
        };
        Part { report, done: (name, done) }
    }

    /// Asks one of the zone's servers, which should know.
    async fn serial(&self, name: Name, address: Result<IpAddr, Failure>) -> Part<Server> {
        let mut report = DnsReport::default();
        let address = match address {
            Ok(address) => address,
            Err(failure) => return Part { report, done: Server { name, address: None, finding: Err(failure) } },
        };
        let server = SocketAddr::new(address, self.dns.port);
        let manner = Manner { recursion_desired: false, ..self.dns.manner };
        let question = &self.dns.question;
        let mut notes = Notes { report: &mut report, watch: None, started: self.started };
        let finding = self.ask(server, question, manner, &mut notes).await.and_then(|heard| {
            self.dns.expect.judge(server, question, &heard.answer)?;
            let unexpected = |what: &str| Failure::target(Reason::UnexpectedAnswer, format!("{server} answered {what}"));
            let own = heard.answer.answers.iter().find(|record| record.record_type == SOA && record.name == question.name);
            let serial = own.and_then(|record| heard.answer.serial(record)).ok_or_else(|| unexpected("without the zone's SOA record"))?;
            if !heard.answer.authoritative {
                return Err(unexpected("without authority"));
            }
            Ok((heard, serial))
        });
        Part { report, done: Server { name, address: Some(address), finding } }
    }
}

/// Compares the serials, and shows each server.
fn judge(zone: &str, servers: Vec<Server>, known: usize, run: &mut Run<'_, DnsReport>) -> Result<String, Failure> {
    let serials = || servers.iter().filter_map(|server| server.finding.as_ref().ok()).map(|(_, serial)| *serial);
    let newest = serials().reduce(|newest, serial| if is_older(newest, serial) { serial } else { newest });
    let slowest =
        servers.iter().filter_map(|server| server.finding.as_ref().ok()).map(|(heard, _)| heard.latency).max_by_key(|latency| latency.0);
    run.report.soa_serial = newest;
    run.latency = slowest;
    let count = servers.len();
    let mut troubles: Vec<(Failure, String)> = Vec::new();
    for Server { name, address, finding } in servers {
        let mut shown = DnsZoneServer {
            name: name::show(&name),
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            ..DnsZoneServer::default()
        };
        let failure = match finding {
            Ok((heard, serial)) => {
                shown.rcode = rdata::rcode_name(heard.answer.rcode).into_owned();
                shown.authoritative = heard.answer.authoritative;
                shown.soa_serial = Some(serial);
                shown.latency = Some(stopwatch::to_proto(heard.latency.0));
                newest
                    .filter(|newest| *newest != serial)
                    .map(|newest| Failure::target(Reason::UnexpectedAnswer, format!("serial {serial} is not that of the others, {newest}")))
            }
            Err(failure) => Some(failure),
        };
        if let Some(failure) = failure {
            failure.sentence.clone_into(&mut shown.trouble);
            let sentence = format!("{}: {}", shown.name, failure.sentence);
            troubles.push((failure, sentence));
        }
        run.report.zone_servers.push(shown);
    }
    let bound = if known > count { format!(", {} more were not asked", known - count) } else { String::new() };
    let Some(worst) = troubles.iter().position(|(failure, _)| failure.outcome() == Outcome::Failed).or((!troubles.is_empty()).then_some(0))
    else {
        let serial = newest.unwrap_or_default();
        return Ok(format!("{count} servers of {zone} have the serial {serial}{bound}"));
    };
    // What is to blame comes first.
    troubles.swap(0, worst);
    let said: Vec<_> = troubles.iter().take(3).map(|(_, sentence)| sentence.as_str()).collect();
    let more = if troubles.len() > said.len() { format!("; and {} more", troubles.len() - said.len()) } else { String::new() };
    let sentence = format!("{} of {count} servers of {zone} are in trouble{bound}: {}{more}", troubles.len(), said.join("; "));
    let (reason, attribution) = (troubles[0].0.reason, troubles[0].0.attribution);
    Err(Failure::new(reason, attribution, sentence))
}
