//! The monitor's program: a runtime, and the command line.

use std::{env, process::ExitCode, time::Duration};

use tokio::runtime::Runtime;
use vantage_daemon::{
    exit::{Exit, Fatal, conclude},
    privilege,
};
use vantage_monitor::cli::Cli;
use vantage_probes::net::capability::echo_capability;

/// How long threads that wait for the operating system may hold up the end.
const LINGER: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    conclude("vantage-monitor", run())
}

fn run() -> Result<Exit, Fatal> {
    let cli = match Cli::read(env::args_os()) {
        Ok(cli) => cli,
        Err(exit) => return Ok(exit),
    };
    // Before the runtime has threads.
    if cli.is_long_running() {
        privilege::reduce(privilege::Needs { raw_sockets: !echo_capability().datagram_v4 })?;
    }
    let runtime = Runtime::new().map_err(|error| Fatal::new(Exit::OsError, format!("start the runtime: {error}")))?;
    let ended = runtime.block_on(cli.run());
    runtime.shutdown_timeout(LINGER);
    ended
}
