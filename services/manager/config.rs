//! From a file of checks and the command line to what is run where, or to all that is wrong with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::{self, IsTerminal as _, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom as _, SystemRandom},
};
use vantage_contract::{
    file::{self, Complaint, FileError},
    v1::{Check, MonitorAddress, Probe},
};
use vantage_daemon::exit::{Exit, Fatal};

use crate::{
    account, certs,
    cli::Command,
    link,
    plan::{self, Plan},
    results,
    secrets::{self, Secrets},
};

/// What the embedded monitor is called.
pub const EMBEDDED: &str = "local";

/// Judges a probe, whose fields the manager does not know: how long a run may take, or the field that is wrong, by its path within `Probe`,
/// and what is wrong.
pub type Judge = dyn Fn(&Probe) -> Result<Duration, (String, String)> + Send + Sync;

/// What the command line adds to the file.
#[derive(Debug, Clone, Default)]
pub struct Additions {
    /// The addresses of further monitors.
    pub monitors: Vec<String>,
    /// Whether there is an embedded monitor even beside others.
    pub embedded: bool,
}

/// What is run where.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Setup {
    /// The checks, with their defaults; without the secrets that files and variables say, which are in the orders alone.
    pub checks: Vec<Check>,
    /// The monitors, each with a name; the embedded one without an address.
    pub monitors: Vec<MonitorAddress>,
    /// Which check goes where.
    pub plan: Plan,
    /// How long a run of each check may take, by its name.
    pub timeouts: BTreeMap<String, Duration>,
    /// The files that secrets and bodies were read from.
    pub files: BTreeSet<PathBuf>,
}

/// Why there is no setup.
#[derive(Debug)]
pub enum Wrong {
    /// The file.
    File(FileError),
    /// What the command line adds to it, or a file it names.
    Other(String),
}

impl Wrong {
    /// One line for each thing that is wrong, for logs.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::File(error) => error.lines().collect(),
            Self::Other(problem) => vec![problem.clone()],
        }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Other(problem) => f.write_str(problem),
        }
    }
}

impl From<Wrong> for Fatal {
    fn from(wrong: Wrong) -> Self {
        // The text around a problem is for the eyes of whoever sits before the file; what is not a terminal is a log, and no place for secrets.
        let message = if io::stderr().is_terminal() { wrong.to_string() } else { wrong.lines().join("\n") };
        Self::new(Exit::Config, message)
    }
}

impl Setup {
    /// Reads the file, adds what the command line adds, judges every probe, places every check, and puts secrets in place.
    pub fn load(path: &Path, additions: &Additions, judge: &Judge) -> Result<Self, Wrong> {
        let loaded = file::load(path).map_err(Wrong::File)?;
        let (mut timeouts, mut complaints) = (BTreeMap::new(), Vec::new());
        for (check, message) in loaded.file.checks.iter().enumerate() {
            match judge(&message.probe.clone().unwrap_or_default()) {
                Ok(timeout) => drop(timeouts.insert(message.name.clone(), timeout)),
                Err((field, problem)) => complaints.push(Complaint { check, field, problem }),
            }
        }
        loaded.refuse(complaints).map_err(Wrong::File)?;
        let monitors = monitors(&beside(path, &loaded.file.monitors), additions)?;
        let mut plan = plan::place(&loaded.file.checks, &monitors).or_else(|unplaced| {
            let complaints = unplaced.into_iter().map(|unplaced| Complaint {
                check: unplaced.check,
                field: unplaced.field.into(),
                problem: unplaced.problem,
            });
            loaded.refuse(complaints).map(|()| Plan::default()).map_err(Wrong::File)
        })?;
        let mut secrets = Secrets::of(path, judge);
        loaded.refuse(secrets.place(&loaded.file.checks, &monitors, &mut plan)).map_err(Wrong::File)?;
        Ok(Self { checks: loaded.file.checks, monitors, plan, timeouts, files: secrets.files })
    }

    /// Whether one of the monitors is in this process: it has no address yet.
    pub fn embeds(&self) -> bool {
        self.monitors.iter().any(is_embedded)
    }

    /// Gives the embedded monitor the address where it listens.
    pub fn complete(&mut self, address: Option<SocketAddr>) {
        if let (Some(address), Some(monitor)) = (address, self.monitors.iter_mut().find(|monitor| is_embedded(monitor))) {
            monitor.address = format!("http://{address}");
        }
    }
}

fn is_embedded(monitor: &MonitorAddress) -> bool {
    monitor.address.is_empty()
}

/// The monitors of a file, with the files that they name looked for beside it, as those of a monitor's settings are.
fn beside(file: &Path, monitors: &[MonitorAddress]) -> Vec<MonitorAddress> {
    let folder = file.parent().filter(|_| file != Path::new("-")).unwrap_or(Path::new(""));
    let beside = |path: &mut String| {
        // Joining an absolute path leaves it as it is.
        if !path.is_empty() {
            *path = folder.join(&*path).display().to_string();
        }
    };
    let mut monitors = monitors.to_vec();
    for monitor in &mut monitors {
        beside(&mut monitor.token_file);
        if let Some(tls) = &mut monitor.tls {
            [&mut tls.ca_file, &mut tls.certificate_file, &mut tls.key_file].into_iter().for_each(beside);
        }
    }
    monitors
}

/// The monitors of the file, those of the command line, and the embedded one where it is asked for or nobody else is there.
fn monitors(of_file: &[MonitorAddress], additions: &Additions) -> Result<Vec<MonitorAddress>, Wrong> {
    let mut monitors = of_file.to_vec();
    for address in &additions.monitors {
        let mut monitor = MonitorAddress { address: address.clone(), ..MonitorAddress::default() };
        let endpoint = file::Endpoint::parse(&monitor).map_err(|problem| Wrong::Other(format!("--monitor {address:?} {problem}")))?;
        monitor.name = endpoint.to_string();
        if monitors.iter().any(|other| other.name == monitor.name) {
            return Err(Wrong::Other(format!("--monitor {address:?}: there is a monitor {:?} already", monitor.name)));
        }
        monitors.push(monitor);
    }
    let settings = link::Settings::new("", "");
    for monitor in &monitors {
        link::check(monitor, &settings).map_err(|fatal| Wrong::Other(fatal.message))?;
    }
    if additions.embedded || monitors.is_empty() {
        if monitors.iter().any(|other| other.name == EMBEDDED) {
            return Err(Wrong::Other(format!(
                "the file calls a monitor {EMBEDDED:?}, which is what the embedded one is called: rename it"
            )));
        }
        monitors.push(MonitorAddress { name: EMBEDDED.into(), ..MonitorAddress::default() });
    }
    Ok(monitors)
}

/// Does what needs no monitor: validates, plans, prints the schema, shows what is kept.
pub fn tell(command: &Command, judge: &Judge, to: &mut dyn Write) -> Result<Exit, Fatal> {
    let text = match command {
        Command::Schema => format!("{:#}\n", file::json_schema()),
        Command::Validate { file } => {
            let setup = Setup::load(file, &Additions::default(), judge)?;
            let (checks, monitors) = (setup.checks.len(), setup.monitors.len());
            format!("{}: sound: {} for {}\n", file.display(), several(checks, "check"), several(monitors, "monitor"))
        }
        Command::Plan { file } => layout(&Setup::load(file, &Additions::default(), judge)?),
        Command::Results(arguments) => return results::tell(arguments, to),
        Command::Account(arguments) => return account::tell(arguments, to),
        Command::Certs(command) => return certs::tell(command, to),
    };
    say(&text, to).map(|()| Exit::Ok)
}

/// Writes what was asked for; whoever stopped reading has read enough.
pub(crate) fn say(text: &str, to: &mut dyn Write) -> Result<(), Fatal> {
    match to.write_all(text.as_bytes()).and_then(|()| to.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Fatal::new(Exit::OsError, format!("write the output: {error}"))),
        _ => Ok(()),
    }
}

/// A table for each monitor: its checks, how often, how many times.
fn layout(setup: &Setup) -> String {
    let mut text = String::new();
    for monitor in &setup.monitors {
        let Some(orders) = setup.plan.monitors.get(&monitor.name) else { continue };
        let place = if is_embedded(monitor) { "in the manager's process" } else { &monitor.address };
        let rate = plan::rate(orders);
        text += &format!("{} ({place}): {}, {rate:.3} runs per second\n", monitor.name, several(orders.len(), "check"));
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_header(["  check", "interval", "runs", "revision"]);
        for (name, start) in orders {
            let Some(check) = &start.check else { continue };
            let runs = if check.count == 0 { "for ever".to_owned() } else { check.count.to_string() };
            let interval = format!("{} s", plan::interval_seconds(check));
            // The manager that runs adds what tells its secrets apart.
            let more = if secrets::are_in(check) { ".*" } else { "" };
            table.add_row([format!("  {}", name.escape_debug()), interval, runs, format!("{}{more}", start.revision)]);
        }
        text += &format!("{table}\n");
    }
    text
}

fn several(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

/// The client id where none is given: of the host and the file's path, so that the same manager is known again after a restart, and two
/// managers on one host are told apart. With `once` it is new each time.
pub fn client_id(path: &Path, once: bool) -> Result<String, Fatal> {
    let host: String = host_name().chars().filter(char::is_ascii_graphic).take(64).collect();
    if once {
        let mut bytes = [0; 8];
        SystemRandom::new().fill(&mut bytes).map_err(|_| Fatal::new(Exit::OsError, "the operating system gives no random numbers"))?;
        return Ok(format!("once-{host}-{}", hex(&bytes)));
    }
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let hash = digest(&SHA256, path.as_os_str().as_encoded_bytes());
    Ok(format!("{host}-{}", hex(hash.as_ref().get(..4).unwrap_or_default())))
}

/// The host's name.
pub fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use vantage_contract::v1::MonitorTls;

    use super::*;

    fn written(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    fn all_fine(_: &Probe) -> Result<Duration, (String, String)> {
        Ok(Duration::from_secs(5))
    }

    fn load(text: &str, additions: &Additions) -> Result<Setup, Wrong> {
        Setup::load(written(text).path(), additions, &all_fine)
    }

    const ONE: &str = r#"{"checks": [{"name": "a", "interval": "10s", "ping": {"host": "localhost"}}]}"#;
    const AT_LAB: &str = r#"{"monitors": [{"name": "lab", "address": "lab:1"}], "checks": [{"name": "a", "ping": {"host": "localhost"}}]}"#;

    #[test]
    fn without_any_monitor_there_is_an_embedded_one() {
        let setup = load(ONE, &Additions::default()).unwrap();
        assert!(setup.embeds());
        assert_eq!(setup.plan.monitors[EMBEDDED].len(), 1);
    }

    #[test]
    fn monitors_of_the_command_line_join_those_of_the_file() {
        let additions = Additions { monitors: vec!["http://other:2".into()], embedded: false };
        let setup = load(AT_LAB, &additions).unwrap();
        assert_eq!(setup.monitors.iter().map(|monitor| monitor.name.as_str()).collect::<Vec<_>>(), ["lab", "other:2"]);
        assert!(!setup.embeds());
        assert!(load(AT_LAB, &Additions { embedded: true, ..additions }).unwrap().embeds());
        let twice = Additions { monitors: vec!["a:1".into(), "http://a:1".into()], embedded: false };
        assert!(load(ONE, &twice).unwrap_err().to_string().contains("already"));
        let wrong = Additions { monitors: vec!["ftp://a".into()], embedded: false };
        assert!(load(ONE, &wrong).unwrap_err().to_string().starts_with(r#"--monitor "ftp://a" must begin"#));
    }

    #[test]
    fn a_field_that_the_judge_refuses_is_told_with_line_and_column() {
        let text = "{\"checks\": [\n  {\"name\": \"a\", \"ping\": {\"host\": \"localhost\", \"count\": 5000}}]}";
        let file = written(text);
        let judge = |_: &Probe| Err(("ping.count".to_owned(), "must be 1 to 1000, is 5000".to_owned()));
        let wrong = Setup::load(file.path(), &Additions::default(), &judge).unwrap_err();
        let lines = wrong.lines();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains(":2:56: ") && lines[0].contains("must be 1 to 1000, is 5000"), "{lines:?}");
        assert_eq!(Fatal::from(wrong).exit, Exit::Config);
    }

    #[test]
    fn a_check_that_nobody_takes_is_told_with_line_and_column() {
        let text = ONE.replace(r#""interval""#, r#""monitors": ["nowhere"], "interval""#);
        let lines = load(&text, &Additions::default()).unwrap_err().lines();
        assert!(lines[0].contains(":1:") && lines[0].contains("nowhere"), "{lines:?}");
    }

    #[test]
    fn a_token_file_that_is_not_there_is_found_before_anything_starts() {
        let text = AT_LAB.replace(r#""lab:1""#, r#""https://lab:1", "token_file": "/nonexistent/token""#);
        assert!(load(&text, &Additions::default()).unwrap_err().to_string().contains("/nonexistent/token"));
    }

    #[test]
    fn the_files_of_a_monitor_are_looked_for_beside_the_file_of_checks() {
        let tls = MonitorTls { ca_file: "ca.pem".into(), key_file: "/etc/own.key".into(), ..MonitorTls::default() };
        let monitor = MonitorAddress { token_file: "token".into(), tls: Some(tls), ..MonitorAddress::default() };
        let found = beside(Path::new("/srv/checks.json"), &[monitor]).remove(0);
        let tls = found.tls.unwrap();
        assert_eq!((found.token_file.as_str(), tls.ca_file.as_str()), ("/srv/token", "/srv/ca.pem"));
        assert_eq!((tls.key_file.as_str(), tls.certificate_file.as_str()), ("/etc/own.key", ""));
    }

    #[test]
    fn a_plan_shows_rates() {
        let mut out = Vec::new();
        let file = written(ONE);
        tell(&Command::Plan { file: file.path().into() }, &all_fine, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("local (in the manager's process): 1 check, 0.100 runs per second\n"), "{text}");
        assert!(text.contains("10 s") && text.contains("for ever"), "{text}");
    }

    #[test]
    fn the_client_id_is_the_same_after_a_restart_and_new_for_once() {
        let (one, other) = (written(ONE), written(ONE));
        assert_eq!(client_id(one.path(), false).unwrap(), client_id(one.path(), false).unwrap());
        assert_ne!(client_id(one.path(), false).unwrap(), client_id(other.path(), false).unwrap());
        assert_ne!(client_id(one.path(), true).unwrap(), client_id(one.path(), true).unwrap());
    }
}
