//! The monitor's program: a runtime, and the command line.

use std::{env, process::ExitCode, time::Duration};

use tokio::runtime::Runtime;
use vantage_daemon::exit::{Exit, Fatal, conclude};

/// How long threads that wait for the operating system may hold up the end.
const LINGER: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    conclude("vantage-monitor", run())
}

fn run() -> Result<Exit, Fatal> {
    let runtime = Runtime::new().map_err(|error| Fatal::new(Exit::OsError, format!("start the runtime: {error}")))?;
    let ended = runtime.block_on(vantage_monitor::cli::run(env::args_os()));
    runtime.shutdown_timeout(LINGER);
    ended
}
