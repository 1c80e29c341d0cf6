//! What is said on a connection: steps of sending and expecting.

use std::{io, net::SocketAddr, sync::Arc};

use bytes::{Bytes, BytesMut};
use regex::bytes::{Captures, Regex};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use vantage_contract::v1::{Reason, TcpReport, TcpStep, TlsReport, tcp_step};

use super::{
    progress::Progress,
    template::{Captured, Template, Unfilled},
};
use crate::{
    Run,
    failure::{Failure, Invalid},
    net::stream::Stream,
    pattern,
    stopwatch::{self, Phase},
    target::Host,
    tls::{self, Loaded, Tls},
    wire::text::{escape, hex},
};

/// The most steps of a conversation.
const MAX_STEPS: usize = 64;

/// How much of what was received first is kept as banner.
const MAX_BANNER: usize = 1024;

/// How many captures are kept, and how much of each.
const MAX_CAPTURES: usize = 32;
const MAX_CAPTURE: usize = 256;

/// A step, parsed.
pub(super) enum Step {
    Send(Bytes),
    Expect {
        /// What to wait for, as the check says it.
        wanted: String,
        regex: Regex,
        /// The groups that later steps need.
        needed: Vec<usize>,
    },
    SendCaptured(Template),
    StartTls(Box<Tls>),
}

/// How many bytes are said in all steps, at most.
pub(super) fn said(steps: &[Step]) -> usize {
    let length = |step: &Step| match step {
        Step::Send(bytes) => bytes.len(),
        Step::SendCaptured(template) => template.most(),
        Step::Expect { .. } | Step::StartTls(_) => 0,
    };
    steps.iter().map(length).sum()
}

/// A TLS step whose files have been read.
pub(super) type Secured = (Arc<Loaded>, ServerName<'static>);

/// Parses the steps. `secured`: TLS is spoken from the start.
pub(super) fn parse(steps: &[TcpStep], mut secured: bool) -> Result<Vec<Step>, Invalid> {
    if steps.len() > MAX_STEPS {
        return Err(Invalid::new("steps", format!("must be at most {MAX_STEPS}, are {}", steps.len())));
    }
    let mut parsed: Vec<Step> = Vec::with_capacity(steps.len());
    // The steps that expect a regular expression.
    let mut regexes = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let field = |name: &str| format!("steps[{at}].{name}");
        let compile = |name: &str, pattern: &str| pattern::compile(pattern).map_err(|error| Invalid::new(field(name), error));
        let step = match &step.step {
            None => {
                return Err(Invalid::new(
                    format!("steps[{at}]"),
                    "is empty: give one of send, send_hex, send_captured, expect, expect_regex, start_tls",
                ));
            }
            Some(tcp_step::Step::Send(text)) => Step::Send(text.clone().into()),
            Some(tcp_step::Step::SendHex(text)) => Step::Send(hex(text).map_err(|why| Invalid::new(field("send_hex"), why))?),
            Some(tcp_step::Step::Expect(text)) if text.is_empty() => return Err(Invalid::new(field("expect"), "is empty")),
            Some(tcp_step::Step::Expect(text)) => {
                Step::Expect { wanted: format!("{text:?}"), regex: compile("expect", &regex::escape(text))?, needed: Vec::new() }
            }
            Some(tcp_step::Step::ExpectRegex(pattern)) if pattern.is_empty() => {
                return Err(Invalid::new(field("expect_regex"), "is empty"));
            }
            Some(tcp_step::Step::ExpectRegex(pattern)) => {
                regexes.push(at);
                Step::Expect { wanted: format!("/{pattern}/"), regex: compile("expect_regex", pattern)?, needed: Vec::new() }
            }
            Some(tcp_step::Step::SendCaptured(text)) => {
                let template = parse_template(text, &regexes, &parsed).map_err(|why| Invalid::new(field("send_captured"), why))?;
                for (step, group) in template.groups() {
                    if let Some(Step::Expect { needed, .. }) = parsed.get_mut(step)
                        && !needed.contains(&group)
                    {
                        needed.push(group);
                    }
                }
                Step::SendCaptured(template)
            }
            Some(tcp_step::Step::StartTls(_)) if secured => {
                return Err(Invalid::new(field("start_tls"), "comes where TLS is spoken already"));
            }
            Some(tcp_step::Step::StartTls(options)) => {
                secured = true;
                Step::StartTls(Box::new(Tls::parse_bare("tcp", &field("start_tls"), options)?))
            }
        };
        parsed.push(step);
    }
    Ok(parsed)
}

/// `regexes` are the numbers of the steps before that expect a regular expression.
fn parse_template(text: &str, regexes: &[usize], steps: &[Step]) -> Result<Template, String> {
    let known: Vec<_> = regexes
        .iter()
        .filter_map(|at| match steps.get(*at)? {
            Step::Expect { regex, .. } => Some((*at, regex)),
            _ => None,
        })
        .collect();
    Template::parse(text, &known)
}

/// Reads the files of the step that starts TLS, if there is one: there is at most one.
pub(super) async fn load(steps: &[Step], host: &Host) -> Result<Option<Secured>, Failure> {
    for step in steps {
        if let Step::StartTls(tls) = step {
            return Ok(Some((tls.load().await?, tls.name_for(host)?)));
        }
    }
    Ok(None)
}

/// A connection on which something is said.
pub(super) struct Conversation {
    /// None only while TLS is being started.
    stream: Option<Stream>,
    remote: SocketAddr,
    max_read: usize,
    read: usize,
    banner: Vec<u8>,
    /// What was received and is not yet matched.
    unmatched: BytesMut,
    captured: Captured,
}

impl Conversation {
    /// `read`: how many bytes were read before it.
    pub(super) fn new(stream: Stream, remote: SocketAddr, max_read: usize, read: usize) -> Self {
        let (banner, unmatched, captured) = (Vec::new(), BytesMut::new(), Captured::new());
        Self { stream: Some(stream), remote, max_read, read, banner, unmatched, captured }
    }

    /// Holds the conversation, and gives back the connection. `secured` are the files of the step that starts TLS.
    pub(super) async fn hold(
        mut self,
        steps: &[Step],
        mut secured: Option<Secured>,
        progress: &mut Progress,
        run: &mut Run<'_, TcpReport>,
    ) -> Result<Stream, Failure> {
        for (at, step) in steps.iter().enumerate() {
            let act = format!("step {} with {}", at + 1, self.remote);
            progress.begin();
            match step {
                Step::Send(bytes) => {
                    run.enter(Phase::Send);
                    self.send(bytes, &act).await?;
                }
                Step::SendCaptured(template) => {
                    run.enter(Phase::Send);
                    let bytes = template.fill(&self.captured).map_err(|unfilled| match unfilled {
                        Unfilled::NotCaptured(name) => {
                            Failure::target(Reason::UnexpectedAnswer, format!("{act}: the group {name:?} was not captured"))
                        }
                        Unfilled::TooLong => Failure::target(Reason::TooLarge, format!("{act}: what was captured is longer than 4 KiB")),
                    })?;
                    self.send(&bytes, &act).await?;
                }
                Step::Expect { wanted, regex, needed } => {
                    self.expect(wanted, regex, &act, run, |captures| {
                        let groups = needed.iter().filter_map(|group| Some(((at, *group), captures.get(*group)?.as_bytes().to_vec())));
                        groups.collect()
                    })
                    .await?;
                }
                Step::StartTls(_) => {
                    if let Some(secured) = secured.take() {
                        run.enter(Phase::Tls);
                        self.start_tls(secured, &act, run.report.tls.insert(TlsReport::default())).await?;
                    }
                }
            }
            run.report.completed_step_count += 1;
            run.report.step_durations.extend(progress.end().map(stopwatch::to_proto));
        }
        self.stream.ok_or_else(|| Failure::internal("a conversation without a connection"))
    }

    fn stream(&mut self) -> Result<&mut Stream, Failure> {
        self.stream.as_mut().ok_or_else(|| Failure::internal("a conversation without a connection"))
    }

    async fn send(&mut self, bytes: &[u8], act: &str) -> Result<(), Failure> {
        let stream = self.stream()?;
        let sent = async {
            stream.write_all(bytes).await?;
            stream.flush().await
        };
        sent.await.map_err(|error: io::Error| tls::of_wire(format!("{act}: send"), &error))
    }

    async fn start_tls(&mut self, (tls, name): Secured, act: &str, report: &mut TlsReport) -> Result<(), Failure> {
        // Whatever came in the clear is not to be taken for something said under TLS.
        self.unmatched.clear();
        let Some(Stream::Plain(stream)) = self.stream.take() else { return Err(Failure::internal("TLS within TLS")) };
        let secured = tls.connect(stream, name, &[], &format!("{act}: TLS"), report).await?;
        self.stream = Some(Stream::Tls(Box::new(secured)));
        Ok(())
    }

    /// Reads until the expression matches in what is not yet matched. A match that ends where the bytes end so far counts: who wants the
    /// whole of a line asks for its end.
    async fn expect(
        &mut self,
        wanted: &str,
        regex: &Regex,
        act: &str,
        run: &mut Run<'_, TcpReport>,
        needed: impl FnOnce(&Captures<'_>) -> Captured,
    ) -> Result<(), Failure> {
        if self.unmatched.is_empty() {
            run.enter(Phase::Wait);
        } else {
            run.enter(Phase::Transfer);
        }
        // Better to say what was missing than that time was up; a millisecond, the timer's tick, before somebody else says so.
        let deadline = run.last_call() - std::time::Duration::from_millis(1);
        loop {
            if let Some(captures) = regex.captures(&self.unmatched) {
                keep(&captures, regex, &mut run.report.captures);
                self.captured.extend(needed(&captures));
                let end = captures.get(0).map_or(0, |whole| whole.end());
                let _ = self.unmatched.split_to(end);
                return Ok(());
            }
            match tokio::time::timeout_at(deadline, self.receive(act, run)).await {
                Ok(Ok(0)) if self.unmatched.is_empty() => {
                    let sentence = format!("{act}: the connection was closed while waiting for {wanted}");
                    return Err(Failure::target(Reason::Disconnected, sentence));
                }
                Ok(Ok(0)) => {
                    let sentence = format!("{act}: expected {wanted}, got {} and the end", self.excerpt());
                    return Err(Failure::target(Reason::UnexpectedAnswer, sentence));
                }
                Ok(Ok(_)) => {}
                Ok(Err(failure)) => return Err(failure),
                Err(_) => {
                    let got = if self.unmatched.is_empty() { "nothing".to_owned() } else { self.excerpt() };
                    return Err(Failure::timed_out(format!("in {act}: expected {wanted}, got {got} within {:?}", run.options.timeout)));
                }
            }
        }
    }

    /// Receives something: how many bytes, 0 at the end.
    async fn receive(&mut self, act: &str, run: &mut Run<'_, TcpReport>) -> Result<usize, Failure> {
        // One byte more than allowed, to know that there is more.
        let room = (self.max_read + 1).saturating_sub(self.read).min(16 << 10);
        let mut chunk = vec![0; room];
        let got = self.stream()?.read(&mut chunk).await.map_err(|error| tls::of_wire(format!("{act}: receive"), &error))?;
        let chunk = chunk.get(..got).unwrap_or_default();
        if got > 0 {
            run.enter(Phase::Transfer);
        }
        self.read += got;
        if self.banner.len() < MAX_BANNER {
            let more = chunk.len().min(MAX_BANNER - self.banner.len());
            self.banner.extend_from_slice(chunk.get(..more).unwrap_or_default());
            run.report.banner = escape(&self.banner);
        }
        run.report.received_bytes = self.read as u64;
        if self.read > self.max_read {
            return Err(Failure::target(Reason::TooLarge, format!("{act}: more than {} bytes came", self.max_read)));
        }
        self.unmatched.extend_from_slice(chunk);
        Ok(got)
    }

    fn excerpt(&self) -> String {
        let shown = self.unmatched.get(..self.unmatched.len().min(80)).unwrap_or_default();
        let more = if shown.len() < self.unmatched.len() { "…" } else { "" };
        format!("\"{}{more}\"", escape(shown))
    }
}

/// Keeps the groups of a match. One that took no part is kept empty, so that the others keep their places.
fn keep(captures: &Captures<'_>, regex: &Regex, kept: &mut Vec<String>) {
    for (name, group) in regex.capture_names().zip(captures.iter()).skip(1).take(MAX_CAPTURES.saturating_sub(kept.len())) {
        let bytes = group.map(|group| group.as_bytes()).unwrap_or_default();
        let text = escape(bytes.get(..bytes.len().min(MAX_CAPTURE)).unwrap_or_default());
        kept.push(name.map_or_else(|| text.clone(), |name| format!("{name}={text}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_keep_their_names_and_places() {
        let regex = Regex::new(r"SSH-(\d)\.(\d)(x)?-(?<software>\S+)").unwrap();
        let mut kept = Vec::new();
        keep(&regex.captures(b"SSH-2.0-OpenSSH_9.2\r\n").unwrap(), &regex, &mut kept);
        assert_eq!(kept, ["2", "0", "", "software=OpenSSH_9.2"]);
    }
}
