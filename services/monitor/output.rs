//! What answers go to stdout as.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use vantage_daemon::exit::{Exit, Fatal};

use crate::client::Trust;

/// Which monitor is asked, and how its answer is shown.
#[derive(Debug, Clone, Args)]
pub(crate) struct AskArgs {
    /// The monitor's URL
    #[arg(long, value_name = "URL", env = "VANTAGE_AT", default_value = "http://127.0.0.1:54321")]
    pub(crate) at: String,
    /// What to print: text for people, or one JSON document
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Output,
    /// How the monitor is trusted
    #[command(flatten)]
    pub(crate) trust: Trust,
}

/// What is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Output {
    /// Text for people.
    #[default]
    Text,
    /// JSON for programs, with the names of the contract.
    Json,
}

/// Prints to stdout. A reader that has left, as `head` does, is no error.
pub(crate) fn print(text: &str) -> Result<Exit, Fatal> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Exit::Ok),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Ok),
        Err(error) => Err(Fatal::new(Exit::OsError, format!("write to stdout: {error}"))),
    }
}
