//! Handshakes with options whose files have been read.

use std::{
    collections::HashMap,
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::Poll,
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::client::TlsStream;
use vantage_contract::v1::{CertificateProblem, OcspStatus, Reason, TlsReport};

use super::{
    Wishes, certificate,
    told::Told,
    words::{self, Flaw},
};
use crate::{
    failure::Failure,
    net::tls::{Client, Lane, Presented},
    stopwatch,
};

/// With how many servers sessions are kept: as many as one check has addresses.
const MAX_LANES: usize = 64;

/// How many bytes that nobody asked for are read while a session is waited for.
const MAX_FAREWELL: usize = 4096;

/// Options whose files have been read.
pub(crate) struct Loaded {
    client: Client,
    /// The same without the client's certificate.
    stranger: Option<Box<Loaded>>,
    wishes: Wishes,
    /// Where the last handshake with a server was done, by its address and the name asked for. Whoever shakes hands takes it out and puts it back.
    lanes: Mutex<HashMap<(SocketAddr, ServerName<'static>), Kept>>,
    /// What was told of the chain that was last presented.
    told: Mutex<Option<Told>>,
}

/// A lane with sessions.
struct Kept {
    lane: Lane,
    /// What is known of the chain behind the sessions.
    behind: Behind,
}

/// What is known of a chain that was presented in another run.
#[derive(Debug, Clone, Copy)]
struct Behind {
    verified: bool,
    /// Until when all that was asked of it holds. None: nothing was asked.
    until: Option<i64>,
}

impl Loaded {
    pub(super) fn new(client: Client, stranger: Option<Client>, wishes: Wishes) -> Self {
        let stranger = stranger.map(|client| Box::new(Self::new(client, None, wishes.clone())));
        Self { client, stranger, wishes, lanes: Mutex::default(), told: Mutex::default() }
    }

    /// The same without the client's certificate, for hosts that it is not meant for.
    pub(crate) fn without_identity(&self) -> &Self {
        self.stranger.as_deref().unwrap_or(self)
    }

    /// Shakes hands and judges. `alpn` are the application protocols to offer, where the kind has its own. The report is filled in as things
    /// become known, whatever comes of it. `act` is what is being done, with its subject: "TLS with example.com (192.0.2.1:443)".
    pub(crate) async fn connect(
        &self,
        stream: TcpStream,
        name: ServerName<'static>,
        alpn: &[&[u8]],
        act: &str,
        report: &mut TlsReport,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        if let ServerName::DnsName(name) = &name {
            name.as_ref().clone_into(&mut report.server_name);
        }
        let alpn = if alpn.is_empty() { self.wishes.alpn.clone() } else { alpn.iter().map(|protocol| protocol.to_vec()).collect() };
        let place = stream.peer_addr().ok().filter(|_| self.wishes.resume).map(|remote| (remote, name.clone()));
        let Kept { lane, mut behind } = self.take(place.as_ref());
        let first_group = lane.sessions().and_then(|sessions| sessions.group());

        let mut verdict = Ok(());
        let shaken = lane
            .handshake(stream, name, alpn, |presented| match self.see(presented, report) {
                Ok(seen) => behind = seen,
                Err(flaw) => verdict = Err(flaw),
            })
            .await;
        if let Ok(stream) = &shaken {
            describe(stream.get_ref().1, first_group, report);
        }
        // The chain comes first: a handshake that failed because of it says less.
        verdict.map_err(|flaw| rejected(act, flaw, report))?;
        let stream = shaken.map_err(|error| of_wire(act, &error, report))?;
        if report.resumed {
            report.verified = behind.verified;
        }
        if let Some(place) = place {
            self.put(place, Kept { lane, behind });
        }
        if self.wishes.require_alpn && report.alpn.is_empty() {
            return Err(Failure::target(
                Reason::TlsFailed,
                format!("{act}: the server agrees to none of the application protocols offered"),
            ));
        }
        Ok(stream)
    }

    /// Whether sessions are resumed.
    pub(crate) fn resumes(&self) -> bool {
        self.wishes.resume
    }

    /// Waits until `end` for a session to resume, where the handshake has brought none and nobody reads any more: servers of TLS 1.3 offer them
    /// after it (RFC 8446 section 4.6.1). Whatever else the server says is lost.
    pub(crate) async fn await_session(&self, stream: &mut TlsStream<TcpStream>, name: &ServerName<'static>, end: Instant) {
        let Ok(remote) = stream.get_ref().0.peer_addr() else { return };
        let place = (remote, name.clone());
        let sessions = self.lanes.lock().unwrap_or_else(PoisonError::into_inner).get(&place).and_then(|kept| kept.lane.sessions());
        let Some(sessions) = sessions else { return };
        let mut bytes = [0; MAX_FAREWELL];
        let mut buffer = ReadBuf::new(&mut bytes);
        let coming = poll_fn(|cx| {
            loop {
                let before = buffer.filled().len();
                let polled = Pin::new(&mut *stream).poll_read(cx, &mut buffer);
                // A session comes without a byte to be read.
                if !sessions.is_empty() {
                    return Poll::Ready(());
                }
                match polled {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Ok(())) if before < buffer.filled().len() && buffer.remaining() > 0 => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                }
            }
        });
        // Whether one came shows in the next run.
        let _ = timeout_at(end, coming).await;
    }

    /// A lane for a handshake: that of the one before with this server, where its sessions may be resumed.
    fn take(&self, place: Option<&(SocketAddr, ServerName<'static>)>) -> Kept {
        let known = place.and_then(|place| self.lanes.lock().unwrap_or_else(PoisonError::into_inner).remove(place));
        let Some(kept) = known else {
            let behind = Behind { verified: false, until: None };
            return Kept { lane: self.client.lane(place.is_some()), behind };
        };
        let now = stopwatch::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // What would not pass any more is not passed over by not looking at it.
        if kept.behind.until.is_some_and(|until| until <= i64::try_from(now.as_secs()).unwrap_or(i64::MAX)) {
            kept.lane.forget();
        }
        kept
    }

    fn put(&self, place: (SocketAddr, ServerName<'static>), kept: Kept) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() >= MAX_LANES {
            // Addresses come and go; the next handshakes are full ones.
            lanes.clear();
        }
        lanes.insert(place, kept);
    }

    /// The client's side for protocols that carry TLS in their own way, and the witness of its one handshake, whose findings go to
    /// [`note`](Self::note).
    #[cfg(feature = "quic")]
    pub(crate) fn configure(&self, alpn: &[&[u8]]) -> (rustls::ClientConfig, crate::net::tls::Witness) {
        self.client.configure(alpn)
    }

    /// Writes what was presented into the report. Says what is wrong with it.
    #[cfg(feature = "quic")]
    pub(crate) fn note(&self, presented: Presented, report: &mut TlsReport) -> Result<(), Flaw> {
        self.see(presented, report).map(|_| ())
    }

    fn see(&self, presented: Presented, report: &mut TlsReport) -> Result<Behind, Flaw> {
        let Presented { chain, staple, at, verdict } = presented;
        self.tell(chain, &staple, at, report);
        report.verified = self.client.judge().is_some() && verdict.is_ok();
        report.remaining_validity = report.certificates.first().and_then(|leaf| certificate::remaining(leaf, at));
        let judged = verdict.map_err(|error| words::of_verdict(&error, &report.certificates));
        let judged = judged.and_then(|()| self.judge_revocation(report)).and_then(|()| self.judge_remaining(report));
        report.verified &= judged.is_ok();
        judged.map(|()| self.behind(report))
    }

    fn tell(&self, chain: Vec<CertificateDer<'static>>, staple: &[u8], at: UnixTime, report: &mut TlsReport) {
        // Taken out, so that others who present something at the same time do not wait.
        let known = self.told.lock().unwrap_or_else(PoisonError::into_inner).take().filter(|told| told.is_of(&chain));
        let mut told = known.unwrap_or_else(|| Told::of(chain));
        report.certificates.clone_from(&told.certificates);
        if !staple.is_empty() {
            let roots = self.client.judge().map(|judge| judge.roots()).unwrap_or_default();
            report.ocsp = Some(told.staple(staple, roots, self.client.provider(), at));
        }
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
    }

    /// A staple that counts and says "revoked" fails, whether it was asked for or not.
    fn judge_revocation(&self, report: &TlsReport) -> Result<(), Flaw> {
        if self.client.judge().is_none() {
            return Ok(());
        }
        let missing = |why: String| Err(Flaw::new(CertificateProblem::NoStaple, why));
        match &report.ocsp {
            None if self.wishes.require_staple => missing("the server staples no OCSP response".to_owned()),
            None => Ok(()),
            Some(staple) => match staple.status() {
                OcspStatus::Revoked if staple.verified => {
                    let when = staple.revocation_time.map(|at| format!(" on {}", words::date_of(at.seconds))).unwrap_or_default();
                    Err(Flaw::new(
                        CertificateProblem::Revoked,
                        format!("the certificate was revoked{when}, as the stapled OCSP response says"),
                    ))
                }
                _ if !self.wishes.require_staple => Ok(()),
                _ if !staple.verified => missing(format!("the stapled OCSP response does not count: {}", staple.error)),
                OcspStatus::Good => Ok(()),
                _ => missing("the stapled OCSP response says that the responder does not know the certificate".to_owned()),
            },
        }
    }

    fn judge_remaining(&self, report: &TlsReport) -> Result<(), Flaw> {
        match (self.wishes.min_remaining, report.remaining_validity) {
            (Some(min), Some(left)) if i128::from(left.seconds) < i128::from(min.as_secs()) => {
                let (left, min) = (spell(left.seconds), spell(seconds(min)));
                let words = format!("the certificate is valid for {left} more, at least {min} are asked for");
                Err(Flaw::new(CertificateProblem::EndsSoon, words))
            }
            _ => Ok(()),
        }
    }

    /// What later runs have to know of a chain that they are not shown.
    fn behind(&self, report: &TlsReport) -> Behind {
        let ends = report.certificates.iter().filter_map(|certificate| certificate.not_after_time).map(|end| end.seconds);
        let judged = ends.clone().min().filter(|_| self.client.judge().is_some());
        let asked = ends.clone().next().and_then(|end| Some(end.saturating_sub(seconds(self.wishes.min_remaining?))));
        let staple = report.ocsp.as_ref().filter(|_| self.wishes.require_staple).and_then(|staple| Some(staple.next_update_time?.seconds));
        Behind { verified: report.verified, until: [judged, asked, staple].into_iter().flatten().min() }
    }
}

/// What to say of a chain that was rejected.
pub(crate) fn rejected(act: &str, flaw: Flaw, report: &mut TlsReport) -> Failure {
    let failure = Failure::target(Reason::CertificateInvalid, format!("{act}: {}", flaw.words));
    report.certificate_error = flaw.words;
    report.certificate_problem = flaw.problem.into();
    failure
}

/// An error of the handshake. One that is about the certificate, but is no fault of the chain, goes into the report, too.
fn of_wire(act: &str, error: &std::io::Error, report: &mut TlsReport) -> Failure {
    let failure = words::of_wire(act, error);
    if failure.reason == Reason::CertificateInvalid {
        report.verified = false;
        failure.sentence.strip_prefix(act).unwrap_or_default().trim_start_matches(": ").clone_into(&mut report.certificate_error);
        report.certificate_problem = CertificateProblem::Other.into();
    }
    failure
}

/// Writes what was agreed on into the report. `first_group` is that with which the handshake began, where it was not the usual one.
fn describe(session: &ClientConnection, first_group: Option<NamedGroup>, report: &mut TlsReport) {
    let version = session.protocol_version();
    report.version = match version {
        Some(ProtocolVersion::TLSv1_2) => "1.2".to_owned(),
        Some(ProtocolVersion::TLSv1_3) => "1.3".to_owned(),
        _ => String::new(),
    };
    // Rustls has its own spelling of the suites of TLS 1.3.
    let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
    report.cipher_suite = suite.strip_prefix("TLS13_").map_or_else(|| suite.to_owned(), |rest| format!("TLS_{rest}"));
    report.alpn = session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default();
    let group = session.negotiated_key_exchange_group().map(rustls::crypto::SupportedKxGroup::name);
    // And of the groups: IANA has "x25519", and the others as they are.
    report.key_exchange_group = match group {
        Some(NamedGroup::X25519) => "x25519".to_owned(),
        Some(NamedGroup::X448) => "x448".to_owned(),
        group => group.and_then(|group| group.as_str()).unwrap_or_default().to_owned(),
    };
    let kind = session.handshake_kind();
    report.resumed = kind == Some(HandshakeKind::Resumed);
    report.handshake_round_trip_count = match (version, kind) {
        (Some(ProtocolVersion::TLSv1_2), Some(HandshakeKind::Resumed)) => 1,
        (Some(ProtocolVersion::TLSv1_2), _) | (_, Some(HandshakeKind::FullWithHelloRetryRequest)) => 2,
        // Resumed in another group than the one begun with: only a HelloRetryRequest leads there.
        (_, Some(HandshakeKind::Resumed)) if first_group.is_some() && group.is_some() && first_group != group => 2,
        _ => 1,
    };
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// A time in days, or in hours where it is short.
fn spell(seconds: i64) -> String {
    if seconds.abs() >= 2 * 86_400 { format!("{} days", seconds / 86_400) } else { format!("{:.1} hours", seconds as f64 / 3600.0) }
}
