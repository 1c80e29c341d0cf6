//! The command line. Every flag can be given in the environment too.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand, error::ErrorKind};
use vantage_contract::duration;
use vantage_daemon::exit::Exit;

use crate::print::Output;

/// Gives checks to monitors, keeps their results, judges them, shows them.
#[derive(Debug, Parser)]
#[command(
    name = "vantage-manager",
    version,
    subcommand_negates_reqs = true,
    args_conflicts_with_subcommands = true,
    after_help = "Exit codes: 0 all well, or told to stop; with --once 1 some check failed, 2 some is undetermined or was skipped; \
                  64 wrong command line; 69 a monitor can't be reached (--once); 70 a fault in Vantage; 71 the operating system refused \
                  something, as a port; 78 the file of checks is wrong."
)]
pub struct Cli {
    /// What to do other than run.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What the manager does other than run.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reads a file of checks and says what is wrong with it, with line and column. Exits with 0 or 78.
    Validate {
        /// The file, JSON or YAML; "-" is the standard input.
        file: PathBuf,
    },
    /// Shows what would run where, and at what rate.
    Plan {
        /// The file, JSON or YAML; "-" is the standard input.
        file: PathBuf,
    },
    /// Prints the JSON Schema of files of checks, for editors.
    Schema,
}

/// How the manager runs.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The file of checks, JSON or YAML; "-" is the standard input. It is read again when it changes, and on SIGHUP.
    #[arg(long, short, value_name = "FILE", env = "VANTAGE_CONFIG", required = true)]
    pub config: Option<PathBuf>,
    /// A monitor to use besides those of the file: http://host:port, https://host:port or host:port. May be given more than once, in the
    /// environment with commas between.
    #[arg(long = "monitor", value_name = "URL", env = "VANTAGE_MONITOR", value_delimiter = ',')]
    pub monitors: Vec<String>,
    /// Run a monitor in this process too, called "local". Default where neither the file nor --monitor names one.
    #[arg(long, env = "VANTAGE_EMBEDDED")]
    pub embedded: bool,
    /// Where the embedded monitor listens; with --once it takes any free port of that address. Loopback only.
    #[arg(long, value_name = "ADDR", env = "VANTAGE_EMBEDDED_LISTEN", default_value = "127.0.0.1:54321")]
    pub embedded_listen: SocketAddr,
    /// Run every check once on each of its monitors, print the results, and exit.
    #[arg(long, env = "VANTAGE_ONCE")]
    pub once: bool,
    /// What a result looks like on the standard output.
    #[arg(long, short, value_enum, env = "VANTAGE_OUTPUT", default_value_t)]
    pub output: Output,
    /// Where page, API, health and figures are served, in the clear: ADDR:PORT (port 0 takes any free one), or "off". Not with --once.
    #[arg(long, value_name = "ADDR", env = "VANTAGE_HTTP", default_value = "127.0.0.1:8080")]
    pub http: Listen,
    /// A name under which browsers may ask for the page, besides localhost and plain addresses. May be given more than once, in the
    /// environment with commas between.
    #[arg(long = "http-host", value_name = "NAME", env = "VANTAGE_HTTP_HOST", value_delimiter = ',')]
    pub http_hosts: Vec<String>,
    /// Let --http stand open beyond loopback: for networks that keep others out by themselves.
    #[arg(long, env = "VANTAGE_INSECURE_HTTP")]
    pub insecure_http: bool,
    /// How long a link may be silent before the monitor is asked for a sign of life. 1 s to 1 h.
    #[arg(long, value_name = "DURATION", env = "VANTAGE_KEEPALIVE_INTERVAL", default_value = "10s", value_parser = keepalive)]
    pub keepalive_interval: Duration,
    /// How long that sign may take before the link is given up and dialled anew. 1 s to 1 h.
    #[arg(long, value_name = "DURATION", env = "VANTAGE_KEEPALIVE_TIMEOUT", default_value = "5s", value_parser = keepalive)]
    pub keepalive_timeout: Duration,
    /// What monitors know this manager by, for ever: orders and results hang on it. 1 to 128 bytes of printable ASCII without spaces.
    /// Default: the host's name and a hash of the file's path; with --once a new one each time.
    #[arg(long, value_name = "ID", env = "VANTAGE_CLIENT_ID", value_parser = client_id)]
    pub client_id: Option<String>,
    /// What the monitors' lists call this manager, for people. At most 128 bytes. Default: the host's name.
    #[arg(long, value_name = "NAME", env = "VANTAGE_NAME", value_parser = client_name)]
    pub name: Option<String>,
    /// What to log to stderr: a level, or directives ("info,vantage_manager=debug").
    #[arg(long, value_name = "FILTER", env = "VANTAGE_LOG", default_value = "info")]
    pub log: String,
}

/// An address to listen on, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self(None));
        }
        text.parse().map(|address| Self(Some(address))).map_err(|_| "give ADDR:PORT with a numeric address, or \"off\"".to_owned())
    }
}

fn keepalive(text: &str) -> Result<Duration, String> {
    let parsed = duration::parse(text).map_err(|error| error.to_string())?;
    let parsed = Duration::try_from(parsed).map_err(|error| error.to_string())?;
    if (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&parsed) { Ok(parsed) } else { Err("give 1 s to 1 h".into()) }
}

fn client_id(text: &str) -> Result<String, String> {
    let sound = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if sound { Ok(text.to_owned()) } else { Err("give 1 to 128 bytes of printable ASCII without spaces".into()) }
}

fn client_name(text: &str) -> Result<String, String> {
    if text.len() <= 128 { Ok(text.to_owned()) } else { Err("give at most 128 bytes".into()) }
}

impl Cli {
    /// Reads the command line. What is wrong with it, or the help that it asks for, is printed; then the process should end with the exit
    /// code.
    pub fn read<I, T>(arguments: I) -> Result<Self, Exit>
    where
        I: IntoIterator<Item = T>,
        T: Into<OsString> + Clone,
    {
        Self::try_parse_from(arguments).map_err(|error| {
            // Nothing helps where even the error can't be printed.
            let _ = error.print();
            match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit::Ok,
                _ => Exit::Usage,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn read(line: &str) -> Result<Cli, Exit> {
        Cli::read(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_file_is_all_that_has_to_be_given() {
        let run = read("vantage-manager --config checks.json").unwrap().run;
        assert_eq!(run.http, Listen(Some("127.0.0.1:8080".parse().unwrap())));
        assert_eq!(run.embedded_listen, "127.0.0.1:54321".parse().unwrap());
        assert!(!run.once && !run.embedded && run.monitors.is_empty() && run.client_id.is_none());
        assert_eq!(read("vantage-manager").unwrap_err(), Exit::Usage);
    }

    #[test]
    fn flags_are_read() {
        let run = read("m -c - --monitor a:1 --monitor http://b:2 --embedded --once --output json --http off --client-id x").unwrap().run;
        assert_eq!(run.monitors, ["a:1", "http://b:2"]);
        assert_eq!((run.output, run.http, run.once, run.embedded), (Output::Json, Listen(None), true, true));
    }

    #[test]
    fn a_wrong_command_line_is_told_by_its_exit_code() {
        for wrong in ["--nonsense", "-c f --http lab", "-c f --client-id a\u{7f}", "-c f --output xml", "validate", "validate f --once"] {
            assert_eq!(read(&format!("m {wrong}")).unwrap_err(), Exit::Usage, "{wrong}");
        }
        assert_eq!(read("m --help").unwrap_err(), Exit::Ok);
    }

    #[test]
    fn other_commands_need_no_config() {
        assert!(matches!(read("m validate f").unwrap().command, Some(Command::Validate { file }) if file.as_os_str() == "f"));
        assert!(matches!(read("m schema").unwrap().command, Some(Command::Schema)));
    }
}
