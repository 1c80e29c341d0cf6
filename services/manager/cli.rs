//! The command line. Every flag can be given in the environment too.

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand, builder::BoolishValueParser, error::ErrorKind};
use vantage_contract::duration;
use vantage_daemon::{
    access::{self, Role, Roles, ServerFiles},
    data::Data,
    exit::{Exit, Fatal},
    telemetry,
    tls::MinVersion,
};

use crate::{account, certs, print::Output, results, store::Keep};

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
    /// Shows the results that are kept, also while the manager runs.
    Results(results::Arguments),
    /// Accounts for every run that was planned: what came of it, whether its record is still awaited, or is missing. Computed from the
    /// orders, and then matched with the records.
    Account(account::Arguments),
    /// Makes, shows and renews the certificates by which manager, monitors and admins know each other.
    #[command(subcommand)]
    Certs(certs::Command),
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
    #[arg(long, env = "VANTAGE_EMBEDDED", value_parser = BoolishValueParser::new())]
    pub embedded: bool,
    /// Where the embedded monitor listens; with --once it takes any free port of that address. Loopback only.
    #[arg(long, value_name = "ADDR", env = "VANTAGE_EMBEDDED_LISTEN", default_value = "127.0.0.1:54321")]
    pub embedded_listen: SocketAddr,
    /// Run every check once on each of its monitors, print the results, and exit.
    #[arg(long, env = "VANTAGE_ONCE", value_parser = BoolishValueParser::new())]
    pub once: bool,
    /// What a result looks like on the standard output.
    #[arg(long, short, value_enum, env = "VANTAGE_OUTPUT", default_value_t)]
    pub output: Output,
    /// Where page, API, health and figures are served: ADDR:PORT (port 0 takes any free one), or "off". Beyond loopback it needs TLS and client
    /// certificates, or TLS and a token. Not with --once.
    #[arg(long, value_name = "ADDR", env = "VANTAGE_HTTP", default_value = "127.0.0.1:8080")]
    pub http: Listen,
    /// A name under which browsers may ask for the page, besides localhost and plain addresses. May be given more than once, in the
    /// environment with commas between.
    #[arg(long = "http-host", value_name = "NAME", env = "VANTAGE_HTTP_HOST", value_delimiter = ',')]
    pub http_hosts: Vec<String>,
    /// PEM file with the certificate chain for --http over TLS; with --http-key-file. They are read again when they change, and on SIGHUP.
    #[arg(long, value_name = "FILE", env = "VANTAGE_HTTP_CERTIFICATE_FILE")]
    pub http_certificate_file: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    #[arg(long, value_name = "FILE", env = "VANTAGE_HTTP_KEY_FILE")]
    pub http_key_file: Option<PathBuf>,
    /// PEM file with the authorities whose certificates readers have to show, of the role "manager" or "admin".
    #[arg(long, value_name = "FILE", env = "VANTAGE_HTTP_CLIENT_CA_FILE")]
    pub http_client_ca_file: Option<PathBuf>,
    /// The role of certificates that do not say theirs: dns:NAME=admin, cn:NAME=admin, uri:URI=admin, email:ADDRESS=admin, sha256:FINGERPRINT=admin,
    /// or =none to shut one out. May be given more than once, in the environment with commas between.
    #[arg(long = "http-client-role", value_name = "MARK=ROLE", env = "VANTAGE_HTTP_CLIENT_ROLE", value_delimiter = ',')]
    pub http_client_roles: Vec<String>,
    /// File with the token that readers have to send, as bearer token or as a password.
    #[arg(long, value_name = "FILE", env = "VANTAGE_HTTP_TOKEN_FILE")]
    pub http_token_file: Option<PathBuf>,
    /// The lowest version of TLS that --http speaks: 1.2 or 1.3.
    #[arg(long, value_name = "VERSION", env = "VANTAGE_HTTP_TLS_MIN_VERSION", default_value_t)]
    pub http_tls_min_version: MinVersion,
    /// Let --http stand open beyond loopback: for networks that keep others out by themselves.
    #[arg(long, env = "VANTAGE_INSECURE_HTTP", value_parser = BoolishValueParser::new())]
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
    /// The folder where results and orders are kept, for this manager alone; "memory" keeps nothing beyond the process. Not with --once,
    /// which keeps nothing. Default: manager below $STATE_DIRECTORY, $XDG_STATE_HOME/vantage or ~/.local/state/vantage.
    #[arg(long, value_name = "DIR", env = "VANTAGE_DATA")]
    pub data: Option<Data>,
    /// For how long results are kept: those due longer ago are removed. 1 h to 10 y (3650d).
    #[arg(long, value_name = "DURATION", env = "VANTAGE_KEEP_AGE", default_value = "30d", value_parser = keep_age)]
    pub keep_age: Duration,
    /// How much the store may take up: the oldest results make room. Bytes, or with KiB, MiB, GiB or TiB. 1 MiB at least; in memory it is 64 MiB
    /// at most.
    #[arg(long, value_name = "BYTES", env = "VANTAGE_KEEP_BYTES", default_value = "10GiB", value_parser = keep_bytes)]
    pub keep_bytes: u64,
    /// What to log to stderr: a level, or directives ("info,vantage_manager=debug"). Default: info; with --once warn.
    #[arg(long, value_name = "FILTER", env = "VANTAGE_LOG")]
    pub log: Option<String>,
}

impl RunArgs {
    /// For how long results are kept.
    pub fn keep(&self) -> Keep {
        Keep { age: self.keep_age, bytes: self.keep_bytes }
    }

    /// What to log, the default included. The audit log is shown in any case, but with --once, where nobody comes.
    pub fn log_filter(&self) -> String {
        match (self.log.as_deref(), self.once) {
            (given, true) => given.unwrap_or("warn").to_owned(),
            (given, false) => telemetry::with_audit(given.unwrap_or("info")),
        }
    }

    /// Who may see the page. Half of TLS is an error.
    pub fn http_access(&self) -> Result<access::Settings, Fatal> {
        let wrong = |why: String| Fatal::new(Exit::Usage, why);
        let tls = match (self.http_certificate_file.clone(), self.http_key_file.clone()) {
            (Some(certificate), Some(key)) => {
                Some(ServerFiles { certificate, key, client_ca: self.http_client_ca_file.clone(), min_version: self.http_tls_min_version })
            }
            (None, None) if self.http_client_ca_file.is_none() => None,
            _ => return Err(wrong("TLS needs both --http-certificate-file and --http-key-file".to_owned())),
        };
        let roles = Roles::read_flags(&self.http_client_roles).map_err(|why| wrong(format!("--http-client-role {why}")))?;
        let tokens = self.http_token_file.clone().map(|file| (Role::Admin, file)).into_iter().collect();
        Ok(access::Settings { tls, tokens, roles, more_roles: None })
    }
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

fn length(text: &str) -> Result<Duration, String> {
    let parsed = duration::parse(text).map_err(|error| error.to_string())?;
    Duration::try_from(parsed).map_err(|error| error.to_string())
}

fn keep_age(text: &str) -> Result<Duration, String> {
    let parsed = length(text)?;
    let bounds = Duration::from_secs(3600)..=Duration::from_secs(3650 * 86_400);
    if bounds.contains(&parsed) { Ok(parsed) } else { Err("give 1 h to 10 y (3650d)".into()) }
}

fn keep_bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|character: char| !character.is_ascii_digit());
    let shift = match text.get(digits.len()..).unwrap_or_default().trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        unit => return Err(format!("{unit:?} is no unit: give bytes, or KiB, MiB, GiB or TiB")),
    };
    let number: u64 = digits.parse().map_err(|_| "give a number of bytes, as 500MiB or 10GiB".to_owned())?;
    let bytes = number.checked_mul(1 << shift).filter(|bytes| i64::try_from(*bytes).is_ok());
    bytes.filter(|bytes| *bytes >= 1 << 20).ok_or_else(|| "give 1MiB at least, and less than 8 EiB".into())
}

fn keepalive(text: &str) -> Result<Duration, String> {
    let parsed = length(text)?;
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
    fn what_is_kept_is_bounded_by_age_and_by_bytes() {
        let keep = |line: &str| read(&format!("m -c f {line}")).map(|cli| cli.run.keep());
        assert_eq!(keep(""), Ok(Keep::default()));
        let some = Keep { age: Duration::from_secs(7 * 86_400), bytes: 500 << 20 };
        assert_eq!(keep("--keep-age 7d --keep-bytes 500MiB"), Ok(some));
        assert_eq!(keep("--keep-bytes 1048576").unwrap().bytes, 1 << 20);
        for wrong in [
            "--keep-age 59m",
            "--keep-age 11000d",
            "--keep-bytes 1MB",
            "--keep-bytes 1023KiB",
            "--keep-bytes MiB",
            "--keep-bytes 9999999TiB",
        ] {
            assert_eq!(keep(wrong).unwrap_err(), Exit::Usage, "{wrong}");
        }
    }

    #[test]
    fn data_are_kept_in_a_folder_or_not_at_all() {
        let data = |line: &str| read(&format!("m -c f {line}")).unwrap().run.data;
        assert_eq!(data("--data memory"), Some(Data::Memory));
        assert_eq!(data("--data /var/lib/x"), Some(Data::Folder("/var/lib/x".into())));
    }

    #[test]
    fn other_commands_need_no_config() {
        assert!(matches!(read("m validate f").unwrap().command, Some(Command::Validate { file }) if file.as_os_str() == "f"));
        assert!(matches!(read("m schema").unwrap().command, Some(Command::Schema)));
    }
}
