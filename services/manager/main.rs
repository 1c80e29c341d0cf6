//! The manager's program.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tokio::runtime::Runtime;
use vantage_contract::v1::Probe;
use vantage_daemon::{
    exit::{self, Exit, Fatal},
    privilege,
    signal::Signals,
    telemetry, tls,
};
use vantage_manager::{World, cli::Cli, config};
use vantage_probes::{Plan, net::capability::echo_capability};

mod embedded;

fn main() -> ExitCode {
    tls::install_provider();
    match Cli::read(std::env::args_os()) {
        Ok(cli) => exit::conclude("vantage-manager", act(cli)),
        Err(exit) => exit.into(),
    }
}

fn act(cli: Cli) -> Result<Exit, Fatal> {
    if let Some(command) = &cli.command {
        return config::tell(command, &judge, &mut io::stdout());
    }
    telemetry::start(&cli.run.log_filter())?;
    // Before the runtime has threads. A monitor may be embedded, and ping.
    privilege::reduce(privilege::Needs { raw_sockets: !echo_capability().datagram_v4 })?;
    let runtime = Runtime::new().map_err(|error| Fatal::new(Exit::OsError, format!("start the runtime: {error}")))?;
    let ended = runtime.block_on(async {
        vantage_manager::run(World {
            arguments: cli.run,
            judge: Arc::new(judge),
            embed: Box::new(|listener, data, drain| Box::pin(embedded::serve(listener, data, drain))),
            signals: Signals::listen()?,
            stdout: Box::new(io::stdout()),
            stdout_is_terminal: io::stdout().is_terminal(),
        })
        .await
    });
    // What still hangs hung too long already.
    runtime.shutdown_background();
    ended
}

/// The manager does not know the kinds of probes; who runs them judges them.
fn judge(probe: &Probe) -> Result<Duration, (String, String)> {
    Plan::parse(probe).map(|plan| plan.timeout()).map_err(|invalid| (invalid.field, invalid.problem))
}
