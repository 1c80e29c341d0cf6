//! How a process ends. The numbers from 64 on are those of BSD's sysexits.h.

use std::{fmt, process::ExitCode};

/// The exit codes of both programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: all went well; with `--once` all checks passed. Also after SIGINT or SIGTERM.
    Ok,
    /// 1: some check failed.
    SomeFailed,
    /// 2: none failed, but some check is undetermined or was skipped.
    SomeUndetermined,
    /// 64: the command line is wrong.
    Usage,
    /// 69: a monitor or manager that was needed can't be reached.
    Unavailable,
    /// 70: a fault in Vantage.
    Software,
    /// 71: the operating system refused something, as a port to listen on.
    OsError,
    /// 78: a file of checks or settings is wrong or can't be read.
    Config,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::SomeFailed => 1,
            Self::SomeUndetermined => 2,
            Self::Usage => 64,
            Self::Unavailable => 69,
            Self::Software => 70,
            Self::OsError => 71,
            Self::Config => 78,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a process has to end: what people read, and what scripts read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fatal {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong, as sentences for people; it may have several lines.
    pub message: String,
}

impl Fatal {
    /// A fatal error.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl fmt::Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fatal {}

/// Ends `main`: tells the error on stderr, if there is one, and turns the rest into the exit code.
pub fn conclude(program: &str, ended: Result<Exit, Fatal>) -> ExitCode {
    match ended {
        Ok(exit) => exit.into(),
        Err(fatal) => {
            #[expect(clippy::print_stderr, reason = "the last words of a process, when telemetry may not be there")]
            {
                eprintln!("{program}: {fatal}");
            }
            fatal.exit.into()
        }
    }
}
