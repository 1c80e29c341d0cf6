//! The way to TLS in protocols that begin in the clear.

mod database;
mod ldap;
mod lines;
mod xmpp;

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use vantage_contract::v1::{Reason, StartTls as Spec, StartTlsProtocol as Protocol, TcpReport};

use super::progress::Progress;
use crate::{
    Run,
    failure::{Failure, Invalid},
    stopwatch::Phase,
    target::Host,
    tls::{self, Tls},
    wire::text::escape,
};

/// How much of what the server says in the clear is reported.
const MAX_GREETING: usize = 1024;

/// The longest excerpt in a sentence.
const MAX_EXCERPT: usize = 200;

/// A way to TLS, parsed.
pub(super) struct StartTls {
    protocol: Protocol,
    /// The name by which to greet, or to address the server.
    name: String,
    pub(super) tls: Tls,
}

impl StartTls {
    /// Parses what is asked of the target `host`.
    pub(super) fn parse(spec: &Spec, host: &Host) -> Result<Self, Invalid> {
        let protocol = match Protocol::try_from(spec.protocol) {
            Ok(Protocol::Unspecified) => return Err(Invalid::new("start_tls.protocol", "is missing")),
            Ok(protocol) => protocol,
            Err(_) => return Err(Invalid::new("start_tls.protocol", format!("{} is not a protocol", spec.protocol))),
        };
        let name = match (protocol, spec.name.as_str()) {
            (Protocol::Smtp, "") => "vantage.invalid".to_owned(),
            (Protocol::Xmpp, "") => match host {
                Host::Address(address) => address.to_string(),
                Host::Name(name) => name.strip_suffix('.').unwrap_or(name).to_owned(),
            },
            (Protocol::Smtp | Protocol::Xmpp, name) if name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic()) => {
                name.to_owned()
            }
            (Protocol::Smtp | Protocol::Xmpp, _) => {
                return Err(Invalid::new("start_tls.name", "must be 1 to 255 printable ASCII characters without blanks"));
            }
            (_, "") => String::new(),
            _ => return Err(Invalid::new("start_tls.name", "is for smtp and xmpp alone: the other protocols have no use for it")),
        };
        let default = Default::default();
        let tls = Tls::parse_bare("tcp", "start_tls.tls", spec.tls.as_ref().unwrap_or(&default))?;
        Ok(Self { protocol, name, tls })
    }

    /// The protocol's name as files spell it.
    pub(super) fn protocol(&self) -> &'static str {
        match self.protocol {
            Protocol::Unspecified => "none",
            Protocol::Smtp => "smtp",
            Protocol::Imap => "imap",
            Protocol::Pop3 => "pop3",
            Protocol::Ftp => "ftp",
            Protocol::Xmpp => "xmpp",
            Protocol::Ldap => "ldap",
            Protocol::Postgres => "postgres",
            Protocol::Mysql => "mysql",
        }
    }

    /// Asks for TLS: after this the server waits for the handshake. At most `max_read` bytes are read for it.
    pub(super) async fn ask(
        &self,
        stream: TcpStream,
        max_read: usize,
        progress: &mut Progress,
        run: &mut Run<'_, TcpReport>,
    ) -> Result<TcpStream, Failure> {
        let act = format!("STARTTLS ({}) with {}", self.protocol(), run.report.remote_address);
        let mut talk = Talk { stream, came: BytesMut::new(), heard: Vec::new(), read: 0, max_read, act, progress, run };
        match self.protocol {
            Protocol::Unspecified => return Err(Failure::internal("STARTTLS without a protocol")),
            Protocol::Smtp => lines::smtp(&mut talk, &self.name).await?,
            Protocol::Imap => lines::imap(&mut talk).await?,
            Protocol::Pop3 => lines::pop3(&mut talk).await?,
            Protocol::Ftp => lines::ftp(&mut talk).await?,
            Protocol::Xmpp => xmpp::ask(&mut talk, &self.name).await?,
            Protocol::Ldap => ldap::ask(&mut talk).await?,
            Protocol::Postgres => database::postgres(&mut talk).await?,
            Protocol::Mysql => database::mysql(&mut talk).await?,
        }
        talk.end()
    }
}

/// What is said in the clear.
struct Talk<'t, 'r> {
    stream: TcpStream,
    /// What came and was not yet understood.
    came: BytesMut,
    /// The beginning of all that came.
    heard: Vec<u8>,
    read: usize,
    max_read: usize,
    /// What is being done, with its subject.
    act: String,
    progress: &'t mut Progress,
    run: &'t mut Run<'r, TcpReport>,
}

impl Talk<'_, '_> {
    async fn send(&mut self, bytes: &[u8], what: &'static str) -> Result<(), Failure> {
        self.run.enter(Phase::Send);
        self.progress.doing(&self.act, "sending", what);
        self.stream.write_all(bytes).await.map_err(|error| tls::of_wire(format!("{}: send {what}", self.act), &error))
    }

    /// Waits for more bytes of `what`: "the greeting".
    async fn more(&mut self, what: &'static str) -> Result<(), Failure> {
        self.run.enter(if self.came.is_empty() { Phase::Wait } else { Phase::Transfer });
        self.progress.doing(&self.act, "waiting for", what);
        let room = (self.max_read + 1).saturating_sub(self.read).min(4096);
        let mut chunk = vec![0; room];
        let got = self.stream.read(&mut chunk).await.map_err(|error| tls::of_wire(format!("{}: {what}", self.act), &error))?;
        if got == 0 {
            return Err(Failure::target(Reason::Disconnected, format!("{}: the connection was closed while waiting for {what}", self.act)));
        }
        self.run.enter(Phase::Transfer);
        self.took(chunk.get(..got).unwrap_or_default());
        if self.read > self.max_read {
            return Err(Failure::target(Reason::TooLarge, format!("{}: {what}: more than {} bytes came", self.act, self.max_read)));
        }
        Ok(())
    }

    fn took(&mut self, chunk: &[u8]) {
        self.read += chunk.len();
        self.run.report.received_bytes = self.read as u64;
        if self.heard.len() < MAX_GREETING {
            let more = chunk.len().min(MAX_GREETING - self.heard.len());
            self.heard.extend_from_slice(chunk.get(..more).unwrap_or_default());
            self.run.report.greeting = escape(&self.heard);
        }
        self.came.extend_from_slice(chunk);
    }

    /// A sound answer, but not the one to go on with.
    fn unexpected(&self, why: impl std::fmt::Display) -> Failure {
        Failure::target(Reason::UnexpectedAnswer, format!("{}: {why}", self.act))
    }

    /// An answer that is not the protocol's.
    fn malformed(&self, what: &'static str, protocol: &str) -> Failure {
        Failure::target(Reason::MalformedAnswer, format!("{}: {what} is not {protocol}: \"{}\"", self.act, excerpt(&self.came)))
    }

    /// The server has agreed, and may not say anything more before the handshake: what came in the clear must never be taken for something said
    /// under TLS (CVE-2011-0411).
    fn end(mut self) -> Result<TcpStream, Failure> {
        let mut more = [0; 256];
        if self.came.is_empty()
            && let Ok(got @ 1..) = self.stream.try_read(&mut more)
        {
            self.took(more.get(..got).unwrap_or_default());
        }
        if self.came.has_remaining() {
            let sentence = format!("{}: the server agreed to TLS, and went on in the clear: \"{}\"", self.act, excerpt(&self.came));
            return Err(Failure::target(Reason::MalformedAnswer, sentence));
        }
        Ok(self.stream)
    }
}

/// The beginning of what came, for people.
fn excerpt(bytes: &[u8]) -> String {
    let shown = bytes.get(..bytes.len().min(MAX_EXCERPT)).unwrap_or_default();
    escape(shown) + if shown.len() < bytes.len() { "…" } else { "" }
}
