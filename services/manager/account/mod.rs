//! `vantage-manager account`: what became of every run that was planned.
//!
//! Planned is what the ledger of orders says, whatever came of it: for each life of an order, its runs from the first one of which there is a
//! record on. The records are then matched with these runs. A run without a record is awaited as long as the monitor has not been heard of
//! long enough after it; then it is missing.

use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use vantage_daemon::{
    clock,
    data::Data,
    exit::{Exit, Fatal},
};

use crate::{
    results::{When, open, unreadable, written},
    store::row,
};

mod arithmetic;
mod ledger;
mod print;

use ledger::Question;

/// What the rows of the account are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// A check, over all of its monitors.
    Check,
    /// A monitor, over all of its checks.
    Monitor,
    /// There are none: the total alone.
    None,
}

/// What the account looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Form {
    /// A table, for people.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// What to account for.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(
    after_help = "Exit codes: 0 each run has its one record, or may still get it; 1 records are missing, or there are several of one run; \
                        64 wrong command line; 71 the store can't be read; 78 there is no store of this version there."
)]
pub struct Arguments {
    /// The folder of the manager. Default: as when it runs.
    #[arg(long, value_name = "DIR", env = "VANTAGE_DATA")]
    pub data: Option<Data>,
    /// Only runs of this check.
    #[arg(long, value_name = "NAME")]
    pub check: Option<String>,
    /// Only runs on this monitor, by the name that it gives itself.
    #[arg(long, value_name = "NAME")]
    pub monitor: Option<String>,
    /// Only runs due then or later: an instant as 2026-11-22T08:00:00Z, or how long ago, as 2h. Default: from the first one on.
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    pub since: Option<When>,
    /// Only runs due before: an instant, or how long ago. Default: now.
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    pub until: Option<When>,
    /// What the rows are about. Default: a check on a monitor.
    #[arg(long, value_enum)]
    pub by: Option<By>,
    /// What the account looks like.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Form,
}

/// Draws up the account, and says whether it is sound.
pub fn tell(arguments: &Arguments, to: &mut dyn Write) -> Result<Exit, Fatal> {
    let now = clock::wall();
    let question = Question {
        check: arguments.check.clone(),
        monitor: arguments.monitor.clone(),
        since: arguments.since.map_or(i64::MIN, |since| since.nanos(now)),
        // What is due in the future is not planned yet.
        until: arguments.until.map_or(i64::MAX, |until| until.nanos(now)).min(row::nanos(now)),
    };
    let mut db = open(arguments.data.as_ref())?;
    let account = ledger::draw_up(&mut db, &question).map_err(|error| unreadable(&error))?;
    let sheet = print::Sheet::new(account, question.until, arguments.by);
    let text = match arguments.output {
        Form::Text => sheet.text(),
        Form::Json => format!("{}\n", sheet.json()),
    };
    written(to.write_all(text.as_bytes()).and_then(|()| to.flush()))?;
    Ok(if sheet.is_sound() { Exit::Ok } else { Exit::SomeFailed })
}

/// An instant of the store; none where it stands for always.
fn instant(nanos: i64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(nanos.into()).ok().filter(|_| nanos > i64::MIN + 1)
}

#[cfg(test)]
mod tests;
