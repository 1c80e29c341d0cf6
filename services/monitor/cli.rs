//! The command line: what can be asked of the program, and who answers. Results go to stdout, logs and errors to stderr.

use std::ffi::OsString;

use clap::{Parser, Subcommand, error::ErrorKind};
use jiff::tz::TimeZone;
use vantage_contract::json;
use vantage_daemon::{
    exit::{Exit, Fatal},
    telemetry, tls,
};

use crate::{
    bench::{self, BenchArgs},
    client::Link,
    commands::{self, WatchArgs},
    doctor::{self, DoctorArgs},
    output::{AskArgs, Output, print},
    policy::{self, PolicyArgs},
    probe::{self, ProbeArgs},
    start::{self, ServeArgs},
    tables,
};

/// Runs probes for managers, and answers for itself.
#[derive(Debug, Parser)]
#[command(name = "vantage-monitor", version, arg_required_else_help = true, max_term_width = 120)]
pub struct Cli {
    /// What to log on stderr: a level, or directives as "info,vantage_monitor=debug" [default: info for serve, else warn]
    #[arg(long, global = true, env = "VANTAGE_LOG", value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves managers: runs their orders and keeps the results until they are taken
    Serve(Box<ServeArgs>),
    /// Probes once and shows what came of it; exits 0 (passed), 1 (failed) or 2 (undetermined)
    Probe(Box<ProbeArgs>),
    /// Lists the clients of a monitor
    Clients(AskArgs),
    /// Lists the queues of a monitor: what is due, in flight and not yet acknowledged
    Queues(AskArgs),
    /// Describes a monitor: who it is, what it can run, its bounds
    Monitor(AskArgs),
    /// Shows results as they come, until interrupted
    Watch(WatchArgs),
    /// Says what can run here, and what enables the rest; exits 1 if some kind of probe can't
    Doctor(DoctorArgs),
    /// Says what a policy allows, and why
    Policy(PolicyArgs),
    /// Measures what a kind of probe costs here: runs per second of processor time, beside a bare loop over the same sockets
    Bench(BenchArgs),
}

impl Cli {
    /// Reads the command line; help, a version and slips are answered at once, and end the program so.
    pub fn read(line: impl IntoIterator<Item = OsString>) -> Result<Self, Exit> {
        Self::try_parse_from(line).map_err(|error| usage(&error))
    }

    /// Whether it serves until it is told to stop, rather than doing one thing.
    pub fn is_long_running(&self) -> bool {
        matches!(self.command, Command::Serve(_))
    }

    /// Does what the command line says. Needs a runtime.
    pub async fn run(self) -> Result<Exit, Fatal> {
        tls::install_provider();
        let log = self.log.as_deref();
        if !self.is_long_running() {
            telemetry::start(log.unwrap_or("warn"))?;
        }
        match self.command {
            Command::Serve(args) => start::run(&args, &telemetry::with_audit(log.unwrap_or("info"))).await,
            Command::Probe(args) => Box::pin(probe::run(&args)).await,
            Command::Clients(args) => {
                let link = Link::connect(&args.at, &args.trust).await?;
                let answer = tables::clients(&link).await.map_err(|status| link.fatal(&status))?;
                print(&match args.output {
                    Output::Text => tables::clients_table(&answer.clients, &TimeZone::system()),
                    Output::Json => format!("{}\n", json::to_json(&answer)),
                })
            }
            Command::Queues(args) => {
                let link = Link::connect(&args.at, &args.trust).await?;
                let answer = tables::queues(&link).await.map_err(|status| link.fatal(&status))?;
                print(&match args.output {
                    Output::Text => tables::queues_table(&answer.queues),
                    Output::Json => format!("{}\n", json::to_json(&answer)),
                })
            }
            Command::Monitor(args) => commands::monitor(&args).await,
            Command::Watch(args) => commands::watch(&args).await,
            Command::Doctor(args) => doctor::run(&args),
            Command::Policy(args) => Box::pin(policy::run(&args)).await,
            Command::Bench(args) => Box::pin(bench::run(&args)).await,
        }
    }
}

/// Help and version are answers; everything else that clap says is a slip.
fn usage(error: &clap::Error) -> Exit {
    // Nothing is left to say where not even that can be written.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok,
        _ => Exit::Usage,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn exit(line: &str) -> Exit {
        Cli::read(line.split(' ').map(OsString::from)).err().unwrap()
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_is_an_answer_and_nothing_at_all_is_a_slip() {
        assert_eq!(exit("vantage-monitor --help"), Exit::Ok);
        assert_eq!(exit("vantage-monitor probe ping --help"), Exit::Ok);
        assert_eq!(exit("vantage-monitor --version"), Exit::Ok);
        for slip in [
            "vantage-monitor",
            "vantage-monitor probe",
            "vantage-monitor probe ping",
            "vantage-monitor sevre",
            "vantage-monitor clients --output xml",
        ] {
            assert_eq!(exit(slip), Exit::Usage, "{slip}");
        }
    }
}
