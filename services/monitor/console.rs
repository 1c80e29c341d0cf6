//! The console that `serve` has on a terminal: it asks the monitor's own listener, as any operator would from elsewhere.
//!
//! It runs on a thread of its own, because it waits for keys. Logs go around its prompt. `quit`, ^C and ^D drain the monitor as SIGTERM does.

use std::{
    io::{self, IsTerminal, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use jiff::tz::TimeZone;
use nix::{
    sys::termios::{self, SetArg, Termios},
    unistd,
};
use rustyline::{
    Config, Context, Editor, ExternalPrinter, Helper, completion::Completer, error::ReadlineError, highlight::Highlighter, hint::Hinter,
    history::MemHistory, validate::Validator,
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    client::{Link, Trust},
    config::Settings,
    output::print,
    tables,
};

const PROMPT: &str = "vantage> ";

/// Leaves the prompt's line, and the mode in which a terminal marks what is pasted.
const LEAVE: &[u8] = b"\x1b[?2004l\r\n";

const HELP: &str = "\
list_clients     the clients of this monitor: who they are, and what they have had
list_all_queues  the queue of each client: due, in flight, not yet acknowledged
help             these words
quit             drains the monitor and ends it, as ^C and ^D do
";

/// What can be said on the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    ListClients,
    ListAllQueues,
    Help,
    Quit,
}

/// The one table of words.
const WORDS: [(&str, Word); 4] =
    [("list_clients", Word::ListClients), ("list_all_queues", Word::ListAllQueues), ("help", Word::Help), ("quit", Word::Quit)];

/// A console that is ready, but does not ask yet.
pub(crate) struct Console {
    editor: Editor<Words, MemHistory>,
    log: Log,
}

/// Where log lines go while there is a prompt.
#[derive(Clone)]
struct Log {
    printer: Arc<Mutex<Box<dyn ExternalPrinter + Send>>>,
    /// Once the prompt is gone, lines go to stderr.
    over: Arc<AtomicBool>,
}

/// Gives the terminal back as it was: the prompt may be there still when the monitor ends for another reason.
pub(crate) struct Terminal {
    before: Option<Termios>,
    over: Arc<AtomicBool>,
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if self.over.load(Ordering::Relaxed) {
            return;
        }
        // A terminal that is gone needs nothing.
        let _ = io::stdout().write_all(LEAVE);
        if let Some(before) = &self.before {
            let _ = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

impl Console {
    /// A console, where stdin, stdout and stderr are terminals and we are in the foreground; else none.
    pub(crate) fn prepare() -> Option<Self> {
        let terminals = io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal();
        // A job in the background that touches its terminal is stopped by the kernel.
        let foreground = terminals && unistd::tcgetpgrp(io::stdin()).is_ok_and(|group| group == unistd::getpgrp());
        if !foreground {
            return None;
        }
        let mut editor = Editor::with_history(Config::builder().auto_add_history(true).build(), MemHistory::new()).ok()?;
        editor.set_helper(Some(Words));
        let printer: Box<dyn ExternalPrinter + Send> = Box::new(editor.create_external_printer().ok()?);
        Some(Self { editor, log: Log { printer: Arc::new(Mutex::new(printer)), over: Arc::default() } })
    }

    /// Where telemetry is to write its lines.
    pub(crate) fn log(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let log = self.log.clone();
        move |line| log.line(line)
    }

    /// Begins to ask. `drain` is what `quit` cancels.
    pub(crate) fn start(self, address: SocketAddr, settings: &Settings, drain: CancellationToken) -> Terminal {
        let terminal = Terminal { before: termios::tcgetattr(io::stdin()).ok(), over: Arc::clone(&self.log.over) };
        let address = settings.admin_listen.unwrap_or(address);
        let asked = Asked { address, secure: settings.tls.is_some(), token_file: settings.token_file.clone(), runtime: Handle::current() };
        let Self { mut editor, log } = self;
        let started = thread::Builder::new().name("console".to_owned()).spawn(move || {
            converse(&mut editor, &asked);
            log.over.store(true, Ordering::Relaxed);
            if !drain.is_cancelled() {
                tracing::info!("draining, as the console was left; ^C ends at once");
            }
            drain.cancel();
        });
        if let Err(error) = started {
            tracing::warn!(%error, "there is no console: its thread can't be started");
        }
        terminal
    }
}

impl Log {
    fn line(&self, line: &str) {
        let over = self.over.load(Ordering::Relaxed);
        let printed = !over && self.printer.lock().unwrap_or_else(PoisonError::into_inner).print(line.to_owned()).is_ok();
        if !printed {
            // Where stderr is gone there is nobody to tell.
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

/// Reads words and answers them until `quit`, or until there are none.
fn converse(editor: &mut Editor<Words, MemHistory>, asked: &Asked) {
    loop {
        let line = match editor.readline(PROMPT) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted | ReadlineError::Eof) => return,
            Err(error) => {
                tracing::error!(%error, "the console ended");
                return;
            }
        };
        let answer = match parse(&line) {
            Ok(None) => continue,
            Ok(Some(Word::Quit)) => return,
            Ok(Some(Word::Help)) => HELP.to_owned(),
            Ok(Some(word)) => asked.answer(word),
            Err(complaint) => complaint,
        };
        if print(&answer).is_err() {
            return;
        }
    }
}

/// The word of a line; none where it is empty.
fn parse(line: &str) -> Result<Option<Word>, String> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(None);
    }
    let known = WORDS.iter().find(|(name, _)| *name == line).map(|(_, word)| *word);
    known.map(Some).ok_or_else(|| format!("{line:?} is not a word of this console; `help` lists them\n"))
}

/// The monitor that is asked: the one that this console belongs to.
struct Asked {
    address: SocketAddr,
    secure: bool,
    token_file: Option<std::path::PathBuf>,
    runtime: Handle,
}

impl Asked {
    fn answer(&self, word: Word) -> String {
        // Our own certificate proves who we are to others; what proves others to us is not ours to have.
        if self.secure {
            return format!(
                "this listener speaks TLS and wants to know who asks: vantage-monitor {} --at https://{} --ca-file FILE, and \
                 --certificate-file and --key-file, or --token-file\n",
                if word == Word::ListClients { "clients" } else { "queues" },
                self.address
            );
        }
        self.runtime.block_on(self.ask(word)).unwrap_or_else(|error| format!("{error}\n"))
    }

    async fn ask(&self, word: Word) -> Result<String, vantage_daemon::exit::Fatal> {
        let trust = Trust { token_file: self.token_file.clone(), ..Trust::default() };
        let link = Link::connect(&format!("http://{}", reachable(self.address)), &trust).await?;
        Ok(match word {
            Word::ListClients => {
                let answer = tables::clients(&link).await.map_err(|status| link.fatal(&status))?;
                tables::clients_table(&answer.clients, &TimeZone::system())
            }
            Word::ListAllQueues => {
                let answer = tables::queues(&link).await.map_err(|status| link.fatal(&status))?;
                tables::queues_table(&answer.queues)
            }
            Word::Help | Word::Quit => String::new(),
        })
    }
}

/// A listener on all addresses is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Completes words.
struct Words;

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, position: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok((0, candidates(line.get(..position).unwrap_or_default())))
    }
}

impl Hinter for Words {
    type Hint = String;
}

impl Highlighter for Words {}

impl Validator for Words {}

impl Helper for Words {}

fn candidates(begun: &str) -> Vec<String> {
    WORDS.iter().filter(|(name, _)| name.starts_with(begun)).map(|(name, _)| (*name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_known_and_others_are_answered_with_help() {
        assert_eq!(parse(" list_clients "), Ok(Some(Word::ListClients)));
        assert_eq!(parse("quit"), Ok(Some(Word::Quit)));
        assert_eq!(parse(""), Ok(None));
        assert!(parse("list").unwrap_err().contains("`help`"));
        for (name, _) in WORDS {
            assert!(HELP.lines().any(|line| line.starts_with(name)), "{name}");
        }
    }

    #[test]
    fn the_beginning_of_a_word_is_completed() {
        assert_eq!(candidates("list_"), ["list_clients", "list_all_queues"]);
        assert_eq!(candidates("q"), ["quit"]);
        assert!(candidates("x").is_empty());
    }

    #[test]
    fn a_listener_on_all_addresses_is_asked_on_loopback() {
        let reached = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(reached("[::]:1"), "[::1]:1");
        assert_eq!(reached("192.0.2.1:1"), "192.0.2.1:1");
    }
}
