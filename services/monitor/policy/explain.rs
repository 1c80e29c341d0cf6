//! `vantage-monitor policy`: what a policy says of a target, and whether a file can be one.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::{Args, Subcommand};
use vantage_daemon::exit::{Exit, Fatal};
use vantage_probes::{Host, KINDS, OpenGate, Options, net::resolve::Resolver, stopwatch};

use super::{Policy, PolicySettings, Source, file, rules::Ruling, spellings};
use crate::output::print;

/// How long the resolver is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked of a policy.
#[derive(Debug, Clone, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Clone, Subcommand)]
enum Question {
    /// Says which rules decide about a target; exits 0 where it is allowed, 1 where it is denied
    Explain(ExplainArgs),
    /// Says whether a file can be in force; exits 0, or 78 and says what is wrong with it
    Check {
        /// The policy, as JSON
        file: PathBuf,
    },
}

#[derive(Debug, Clone, Args)]
struct ExplainArgs {
    /// A name, an address, either with :PORT, or a URL
    target: String,
    /// The policy in a file of its own [default: what holds where there is none]
    #[arg(long, env = "VANTAGE_POLICY", value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The settings file with the policy in it
    #[arg(long, env = "VANTAGE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The kind of probe
    #[arg(long, value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(KINDS))]
    kind: Option<String>,
    /// The port, where the target has none
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The method of HTTP
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Ask the system's resolver for the addresses of a name; without it no packet leaves
    #[arg(long)]
    resolve: bool,
}

/// What is asked about.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: Host,
    port: Option<u16>,
    kind: Option<&'static str>,
}

/// Answers.
pub(crate) async fn run(args: &PolicyArgs) -> Result<Exit, Fatal> {
    match &args.question {
        Question::Check { file } => {
            file::read(file)?;
            print(&format!("{}: a policy that can be in force\n", file.display()))?;
            Ok(Exit::Ok)
        }
        Question::Explain(args) => explain(args).await,
    }
}

async fn explain(args: &ExplainArgs) -> Result<Exit, Fatal> {
    let target = Target::parse(&args.target).map_err(|why| Fatal::new(Exit::Usage, why))?;
    let policy = Policy::new(args.settings()?).map_err(|why| Fatal::new(Exit::Config, why))?;
    policy.look_around();
    let addresses = match &target.host {
        Host::Address(address) => Ok(vec![*address]),
        host if args.resolve && policy.force().rules.name(&host.to_string()).allowed => resolve(host).await,
        _ => Ok(Vec::new()),
    };
    let mut page = Page { text: String::new(), denied: false };
    page.tell(&policy, &target, args, &addresses);
    print(&page.text)?;
    Ok(if page.denied { Exit::SomeFailed } else { Exit::Ok })
}

async fn resolve(host: &Host) -> Result<Vec<IpAddr>, String> {
    let options = Options::parse(&vantage_contract::v1::Probe::default(), PATIENCE).map_err(|invalid| invalid.to_string())?;
    let found = Resolver::system().addresses(host, &options, &OpenGate, stopwatch::now() + PATIENCE).await;
    found.map(|addresses| addresses.found).map_err(|failure| failure.sentence)
}

impl ExplainArgs {
    fn settings(&self) -> Result<PolicySettings, Fatal> {
        match (&self.policy, &self.config) {
            (Some(file), _) => Source::File(file.clone()).load(),
            (None, Some(file)) => crate::config::Settings::load(file)?.source(file).load(),
            (None, None) => Ok(PolicySettings::default()),
        }
    }
}

impl Target {
    /// A URL says kind and port too.
    fn parse(text: &str) -> Result<Self, String> {
        let (kind, rest) = match text.split_once("://") {
            Some((scheme, rest)) => {
                let kind = ["http", "https"].into_iter().find(|kind| scheme.eq_ignore_ascii_case(kind));
                (Some(kind.ok_or_else(|| format!("{text:?}: the scheme is neither http nor https"))?), rest)
            }
            None => (None, text),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, authority)| authority);
        let known = match kind {
            Some("https") => Some(443),
            Some(_) => Some(80),
            None => None,
        };
        if let Ok(address) = authority.parse::<SocketAddr>() {
            return Ok(Self { host: Host::Address(address.ip().to_canonical()), port: Some(address.port()), kind });
        }
        if authority.parse::<IpAddr>().is_err()
            && let Some((host, port)) = authority.rsplit_once(':')
            && !host.ends_with(':')
            && let Ok(port) = port.parse()
        {
            return Ok(Self { host: Self::host(host)?, port: Some(port), kind });
        }
        Ok(Self { host: Self::host(authority)?, port: known, kind })
    }

    fn host(text: &str) -> Result<Host, String> {
        Host::parse("target", text).map_err(|invalid| invalid.to_string())
    }
}

/// What the default policy says of a target, offline, or why it is none: for fuzzing.
#[cfg(any(test, fuzzing))]
pub(crate) fn explained(text: &str) -> Result<String, String> {
    let target = Target::parse(text)?;
    let addresses = if let Host::Address(address) = target.host { vec![address] } else { Vec::new() };
    let args = ExplainArgs { target: text.to_owned(), policy: None, config: None, kind: None, port: None, method: None, resolve: false };
    let mut page = Page { text: String::new(), denied: false };
    page.tell(&Policy::default(), &target, &args, &Ok(addresses));
    Ok(page.text)
}

/// What is said, and whether anything of it is a denial.
struct Page {
    text: String,
    denied: bool,
}

impl Page {
    fn tell(&mut self, policy: &Policy, target: &Target, args: &ExplainArgs, addresses: &Result<Vec<IpAddr>, String>) {
        let force = policy.force();
        if let Some(kind) = args.kind.as_deref().or(target.kind) {
            self.rule("kind", force.rules.kind(kind));
        }
        if let Some(method) = &args.method {
            self.rule("method", force.rules.method(method));
        }
        if let Host::Name(name) = &target.host {
            self.rule("name", force.rules.name(name));
        }
        let port = target.port.or(args.port);
        match addresses {
            Err(why) => self.line("addresses", why),
            Ok(addresses) if addresses.is_empty() => {
                let why = if args.resolve { "not asked for" } else { "not asked for: --resolve asks the system's resolver" };
                self.line("addresses", why);
                if let Some(port) = port {
                    self.rule("port", force.rules.port(port));
                }
            }
            Ok(addresses) => {
                for address in addresses {
                    self.rule(&address.to_string(), force.address(*address));
                    for inner in spellings::embedded(*address, &force.rules.nat64) {
                        self.rule(&format!("{address}, which leads to {inner}"), force.address(inner.into()));
                    }
                }
                if let Some(port) = port {
                    self.rule("port", force.rules.port(port));
                }
            }
        }
        self.text.push_str(if self.denied { "denied\n" } else { "allowed\n" });
    }

    fn rule(&mut self, what: &str, ruling: Ruling<'_>) {
        self.denied |= !ruling.allowed;
        self.line(what, &ruling.to_string());
    }

    fn line(&mut self, what: &str, said: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{what}: {said}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> Result<String, String> {
        Target::parse(text).map(|Target { host, port, kind }| format!("{} {host} {}", kind.unwrap_or("-"), port.unwrap_or_default()))
    }

    #[test]
    fn targets_are_names_addresses_and_urls() {
        for (text, read) in [
            ("example.com", "- example.com 0"),
            ("example.com:8080", "- example.com 8080"),
            ("::1", "- [::1] 0"),
            ("[::1]:80", "- [::1] 80"),
            ("::ffff:10.0.0.1", "- 10.0.0.1 0"),
            ("0x7f.1", "- 127.0.0.1 0"),
            ("https://user:pass@EXAMPLE.com/path?a=b@c", "https example.com 443"),
            ("http://[2001:db8::1]:8080/", "http [2001:db8::1] 8080"),
        ] {
            assert_eq!(target(text).as_deref(), Ok(read), "{text}");
        }
        assert!(target("ftp://example.com").is_err());
        assert!(target("").is_err());
    }

    #[tokio::test]
    async fn each_rule_that_decides_is_told() {
        let told = |json: &str, text: &str, addresses: Vec<IpAddr>| {
            let policy: Policy = serde_json::from_str(json).unwrap();
            let args = ExplainArgs {
                target: text.into(),
                policy: None,
                config: None,
                kind: None,
                port: None,
                method: Some("POST".into()),
                resolve: false,
            };
            let mut page = Page { text: String::new(), denied: false };
            page.tell(&policy, &Target::parse(text).unwrap(), &args, &Ok(addresses));
            page.text
        };
        assert_eq!(
            told(
                r#"{"names": {"deny": ["corp.example"]}, "methods": {"allow": ["GET"], "others": "deny"}}"#,
                "https://www.corp.example/",
                vec![]
            ),
            "kind: the kind https is not among those denied (kinds.others is \"allow\")\n\
             method: the method POST is not among those allowed (methods.others is \"deny\")\n\
             name: corp.example, with all below it, is denied (names.deny)\n\
             addresses: not asked for: --resolve asks the system's resolver\n\
             port: port 443 is not among those denied (ports.others is \"allow\")\n\
             denied\n"
        );
        let inside = "64:ff9b::a9fe:a9fe".parse().unwrap();
        assert!(told("{}", "64:ff9b::a9fe:a9fe", vec![inside]).contains(
            "64:ff9b::a9fe:a9fe, which leads to 169.254.169.254: 169.254.169.254/32 is denied (default rule \"cloud metadata\")\n"
        ));
    }
}
