//! `vantage-manager results`: what is kept, for people and programs.

use std::{
    io::{self, BufWriter, IsTerminal as _, Write},
    time::{Duration, SystemTime},
};

use clap::Args;
use jiff::Timestamp;
use rusqlite::Connection;
use vantage_contract::{duration, v1::ProbeResult};
use vantage_daemon::{
    clock,
    data::{Data, standard_folder},
    exit::{Exit, Fatal},
    sqlite::{self, OpenError},
};

use crate::{
    print::{Output, Style},
    store::{
        read::{Page, Selection},
        row,
        schema::{FILE, SCHEMA},
    },
    words::Words,
};

/// How many results are read at once.
const PAGE: usize = 500;

/// What a result looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Form {
    /// One line of text for each result, as the running manager prints it.
    #[default]
    Text,
    /// One JSON object a line: the ProbeResult in canonical JSON, with the field names of the contract.
    Json,
    /// Comma-separated values with a header (RFC 4180): what all kinds have in common. Times in UTC, lengths in seconds.
    Csv,
}

/// What to show.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(
    after_help = "Exit codes: 0 all shown; 64 wrong command line; 71 the store can't be read; 78 there is no store of this version there."
)]
pub struct Arguments {
    /// The folder of the manager. Default: as when it runs.
    #[arg(long, value_name = "DIR", env = "VANTAGE_DATA")]
    pub data: Option<Data>,
    /// Only results of this check.
    #[arg(long, value_name = "NAME")]
    pub check: Option<String>,
    /// Only results of this monitor, by the name that it gives itself.
    #[arg(long, value_name = "NAME")]
    pub monitor: Option<String>,
    /// Only results with this outcome: passed, failed, undetermined or skipped.
    #[arg(long, value_name = "OUTCOME", value_parser = outcome)]
    pub outcome: Option<i32>,
    /// Only results with this reason, as timed_out or monitor_down.
    #[arg(long, value_name = "REASON", value_parser = reason)]
    pub reason: Option<i32>,
    /// Only results due then or later: an instant as 2026-11-22T08:00:00Z, or how long ago, as 2h.
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    pub since: Option<When>,
    /// Only results due before: an instant, or how long ago.
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    pub until: Option<When>,
    /// The most results to show; 0 shows all.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub limit: usize,
    /// Begin with the oldest result that fits, and not with the newest.
    #[arg(long)]
    pub oldest_first: bool,
    /// What a result looks like.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Form,
}

/// An instant, or how long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// An instant.
    At(Timestamp),
    /// So long before now.
    Ago(Duration),
}

impl When {
    /// Reads an instant of RFC 3339, or a length of time as "2h" or "1d 12h".
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(instant) = text.parse() {
            return Ok(Self::At(instant));
        }
        let wrong = || "give an instant as 2026-11-22T08:00:00Z, or how long ago, as 2h or 7d".to_owned();
        let ago = duration::parse(text).map_err(|_| wrong())?;
        Duration::try_from(ago).map(Self::Ago).map_err(|_| wrong())
    }

    /// In nanoseconds since 1970.
    pub(crate) fn nanos(self, now: SystemTime) -> i64 {
        match self {
            Self::At(instant) => {
                i64::try_from(instant.as_nanosecond()).unwrap_or(if instant.as_second() < 0 { i64::MIN } else { i64::MAX })
            }
            Self::Ago(ago) => now.checked_sub(ago).map_or(i64::MIN, row::nanos),
        }
    }
}

fn outcome(text: &str) -> Result<i32, String> {
    word("vantage.v1.Outcome", text)
}

fn reason(text: &str) -> Result<i32, String> {
    word("vantage.v1.Reason", text)
}

/// The number of a word of the contract.
fn word(enumeration: &str, text: &str) -> Result<i32, String> {
    let words = vantage_contract::descriptors().get_enum_by_name(enumeration).map(Words::of);
    let words: Vec<_> = words.iter().flat_map(Words::all).filter(|(number, _)| *number != 0).collect();
    let known = words.iter().find(|(_, word)| word == text).map(|(number, _)| *number);
    known.ok_or_else(|| format!("there is {}", words.into_iter().map(|(_, word)| word).collect::<Vec<_>>().join(", ")))
}

/// Opens the store of a folder to look into it.
pub(crate) fn open(data: Option<&Data>) -> Result<Connection, Fatal> {
    let folder = match data.unwrap_or(&Data::Standard) {
        Data::Standard => standard_folder("manager")?,
        Data::Folder(folder) => folder.clone(),
        Data::Memory => {
            return Err(Fatal::new(Exit::Usage, "--data memory: of what is kept in memory nothing can be shown by another process"));
        }
    };
    let file = folder.join(FILE);
    if !file.exists() {
        let cure = "give the folder of the manager by --data DIR";
        return Err(Fatal::new(Exit::Config, format!("there is no store at {}; {cure}", file.display())));
    }
    sqlite::open_to_read(&file, SCHEMA).map_err(|error| {
        let exit = if matches!(error, OpenError::Foreign { .. }) { Exit::Config } else { Exit::OsError };
        Fatal::new(exit, error.to_string())
    })
}

/// A store that can't be read to its end.
pub(crate) fn unreadable(error: &rusqlite::Error) -> Fatal {
    let cure = if sqlite::is_damage(error) { "; the manager sets it aside when it starts" } else { "" };
    Fatal::new(Exit::OsError, format!("read the store: {error}{cure}"))
}

/// Ends a command that writes. A reader that had enough is no error.
pub(crate) fn written(wrote: io::Result<()>) -> Result<(), Fatal> {
    match wrote {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Fatal::new(Exit::OsError, format!("write the output: {error}"))),
        _ => Ok(()),
    }
}

/// Shows results.
pub fn tell(arguments: &Arguments, to: &mut dyn Write) -> Result<Exit, Fatal> {
    let db = open(arguments.data.as_ref())?;
    let is_terminal = io::stdout().is_terminal();
    let style = Style::new(if arguments.output == Form::Json { Output::Json } else { Output::Text }, is_terminal);
    show(&db, arguments, &style, clock::wall(), to)?;
    Ok(Exit::Ok)
}

fn show(db: &Connection, arguments: &Arguments, style: &Style, now: SystemTime, to: &mut dyn Write) -> Result<(), Fatal> {
    let selection = Selection {
        check: arguments.check.clone(),
        monitor: arguments.monitor.clone(),
        outcome: arguments.outcome,
        reason: arguments.reason,
        since: arguments.since.map(|since| since.nanos(now)),
        until: arguments.until.map(|until| until.nanos(now)),
        oldest_first: arguments.oldest_first,
    };
    let mut to = BufWriter::new(to);
    let mut left = if arguments.limit == 0 { usize::MAX } else { arguments.limit };
    let mut pages = Page::new(&selection);
    let mut wrote = if arguments.output == Form::Csv { to.write_all(csv::header().as_bytes()) } else { Ok(()) };
    while left > 0 && wrote.is_ok() {
        let page = pages.next(db, PAGE.min(left)).map_err(|error| unreadable(&error))?;
        if page.is_empty() {
            break;
        }
        left -= page.len();
        let line = |result: &ProbeResult| if arguments.output == Form::Csv { csv::line(result) } else { style.line(result) };
        wrote = page.iter().try_for_each(|result| to.write_all(line(result).as_bytes()));
    }
    written(wrote.and_then(|()| to.flush()))
}

mod csv;

#[cfg(test)]
mod tests;
