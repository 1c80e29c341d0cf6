//! `vantage-monitor serve`: settings from file, flags and environment; the listener; signals; the console.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, builder::BoolishValueParser};
use vantage_daemon::{
    data::Data,
    exit::{Exit, Fatal},
    exposure::{self, Protection},
    http, privilege,
    signal::Signals,
    telemetry,
    tls::MinVersion,
};

use crate::{
    config::{Settings, Tls, fields, has_policy},
    console::Console,
    policy::{Source, follow},
};

/// What a listener beyond loopback needs, as the flags are called.
const CURE: [&str; 3] =
    ["--certificate-file, --key-file and --client-ca-file", "--certificate-file, --key-file and --token-file", "--insecure-listen"];
const HTTP_CURE: [&str; 3] = [CURE[0], CURE[1], "--insecure-http"];

/// What wins over the settings file. Units, ranges and defaults are those of [`Settings`].
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ServeArgs {
    /// Settings as JSON
    #[arg(long, env = "VANTAGE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The policy as JSON, in place of the one in the settings; read anew when it changes and on SIGHUP
    #[arg(long, env = "VANTAGE_POLICY", value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The name that every result carries [default: the host's]
    #[arg(long, env = "VANTAGE_NAME", value_name = "NAME", value_parser = fields::parse_name)]
    name: Option<String>,
    /// Where gRPC is served [default: 127.0.0.1:54321]
    #[arg(long, env = "VANTAGE_LISTEN", value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// Where AdminService is served, and then nowhere else, or "off" [default: where gRPC is]
    #[arg(long, env = "VANTAGE_ADMIN_LISTEN", value_name = "ADDRESS:PORT")]
    admin_listen: Option<String>,
    /// Where health and figures are served, or "off"; beyond loopback with the TLS and the tokens of gRPC [default: 127.0.0.1:54322]
    #[arg(long, env = "VANTAGE_HTTP_LISTEN", value_name = "ADDRESS:PORT")]
    http_listen: Option<String>,
    /// PEM file with the certificate chain for gRPC over TLS; with --key-file
    #[arg(long, env = "VANTAGE_CERTIFICATE_FILE", value_name = "FILE")]
    certificate_file: Option<PathBuf>,
    /// PEM file with the key of the certificate
    #[arg(long, env = "VANTAGE_KEY_FILE", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// PEM file with the authorities whose certificates callers have to show
    #[arg(long, env = "VANTAGE_CLIENT_CA_FILE", value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// The lowest version of TLS that is spoken: 1.2 or 1.3 [default: 1.3]
    #[arg(long, env = "VANTAGE_TLS_MIN_VERSION", value_name = "VERSION")]
    tls_min_version: Option<MinVersion>,
    /// File with the token that callers have to send who order
    #[arg(long, env = "VANTAGE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the token of callers who only ask
    #[arg(long, env = "VANTAGE_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Let gRPC stand open beyond loopback, where the network itself keeps others out
    #[arg(long, env = "VANTAGE_INSECURE_LISTEN", value_parser = BoolishValueParser::new(), num_args(0..=1), require_equals = true,
        default_missing_value = "true", value_name = "BOOL")]
    insecure_listen: Option<bool>,
    /// Let health and figures stand open beyond loopback, in the clear
    #[arg(long, env = "VANTAGE_INSECURE_HTTP", value_parser = BoolishValueParser::new(), num_args(0..=1), require_equals = true,
        default_missing_value = "true", value_name = "BOOL")]
    insecure_http: Option<bool>,
    /// The folder where orders and results are kept until they are acknowledged, or "memory" [default: in the user's state folder]
    #[arg(long, env = "VANTAGE_DATA", value_name = "DIR")]
    data: Option<Data>,
    /// Runs that may be in flight at once [default: 1000]
    #[arg(long, env = "VANTAGE_IN_FLIGHT", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    in_flight: Option<u32>,
    /// How long a monitor that is told to stop waits for what is in flight [default: 10s]
    #[arg(long, env = "VANTAGE_DRAIN_TIMEOUT", value_name = "DURATION", value_parser = fields::parse_drain_timeout)]
    drain_timeout: Option<Duration>,
}

impl ServeArgs {
    /// The file's settings, or the defaults, with what flags and environment say in their place.
    fn settings(&self) -> Result<Settings, Fatal> {
        let usage = |why: String| Fatal::new(Exit::Usage, why);
        let mut settings = self.config.as_deref().map(Settings::load).transpose()?.unwrap_or_default();
        let put = |slot: &mut Option<PathBuf>, given: &Option<PathBuf>| {
            if given.is_some() {
                slot.clone_from(given);
            }
        };
        let (mut min_version, mut roles) = Default::default();
        let (mut certificate, mut key, mut client_ca) = match settings.tls.take() {
            Some(tls) => {
                (min_version, roles) = (tls.min_version, tls.roles);
                (Some(tls.certificate_file), Some(tls.key_file), tls.client_ca_file)
            }
            None => (None, None, None),
        };
        min_version = self.tls_min_version.unwrap_or(min_version);
        put(&mut certificate, &self.certificate_file);
        put(&mut key, &self.key_file);
        put(&mut client_ca, &self.client_ca_file);
        settings.tls = match (certificate, key, client_ca) {
            (Some(certificate_file), Some(key_file), client_ca_file) => {
                Some(Tls { certificate_file, key_file, client_ca_file, min_version, roles })
            }
            (None, None, None) => None,
            _ => return Err(usage("TLS needs both --certificate-file and --key-file".to_owned())),
        };
        put(&mut settings.token_file, &self.token_file);
        put(&mut settings.admin_token_file, &self.admin_token_file);
        if let Some(text) = &self.admin_listen {
            settings.admin_listen = fields::parse_listener(text).map_err(|why| usage(format!("--admin-listen: {why}")))?;
        }
        settings.allow_unprotected_http_listener = self.insecure_http.unwrap_or(settings.allow_unprotected_http_listener);
        settings.name = self.name.clone().unwrap_or(settings.name);
        settings.listen = self.listen.unwrap_or(settings.listen);
        if let Some(text) = &self.http_listen {
            settings.http_listen = fields::parse_listener(text).map_err(|why| usage(format!("--http-listen: {why}")))?;
        }
        settings.allow_unprotected_listener = self.insecure_listen.unwrap_or(settings.allow_unprotected_listener);
        if let Some(in_flight) = self.in_flight {
            settings.limits.in_flight = usize::try_from(in_flight).unwrap_or(usize::MAX);
        }
        settings.drain_timeout = self.drain_timeout.unwrap_or(settings.drain_timeout);
        settings.data = self.data.clone().unwrap_or(settings.data);
        put(&mut settings.policy_file, &self.policy);
        if let (Some(policy), Some(config)) = (&self.policy, &self.config)
            && has_policy(&fs::read_to_string(config).unwrap_or_default())
        {
            let why = format!("{} has a policy, and --policy {} is another: give one of them", config.display(), policy.display());
            return Err(Fatal::new(Exit::Config, why));
        }
        if let Some(file) = &settings.policy_file {
            let rules = Source::File(file.clone()).load()?;
            settings.policy.replace(rules).map_err(|why| Fatal::new(Exit::Config, why))?;
        }
        Ok(settings)
    }
}

/// Serves until SIGINT, SIGTERM or the console's `quit` drains it; a second signal ends it at once.
pub(crate) async fn run(args: &ServeArgs, log: &str) -> Result<Exit, Fatal> {
    let settings = args.settings()?;
    // Before telemetry: logs have to go around the prompt.
    let console = Console::prepare();
    match &console {
        Some(console) => telemetry::start_onto(log, console.log())?,
        None => telemetry::start(log)?,
    }
    tracing::info!(capabilities = privilege::held(), "what this process may do beyond what everybody may");
    crate::files::provide(settings.limits.in_flight);
    let protection = settings.protection();
    exposure::check("gRPC", settings.listen, protection, "send probes from here", CURE)?;
    if let Some(address) = settings.admin_listen {
        exposure::check("AdminService", address, protection, "see all clients, orders and results", CURE)?;
    }
    if let Some(address) = settings.http_listen {
        let protection = Protection { overridden: settings.allow_unprotected_http_listener, ..protection };
        exposure::check("health and figures", address, protection, "see the names of clients and how they are served", HTTP_CURE)?;
    }
    let Signals { drain, end, reload } = Signals::listen()?;
    let listener = http::bind("gRPC", settings.listen).await?;
    let address = listener.local_addr().map_err(|error| Fatal::new(Exit::OsError, format!("ask for our own address: {error}")))?;

    let policy = settings.policy();
    let source = match (&settings.policy_file, &args.config) {
        (Some(file), _) => Some(Source::File(file.clone())),
        (None, Some(file)) => Some(Source::Settings(file.clone())),
        (None, None) => None,
    };
    if let Some(source) = &source {
        policy.note_file(source.path().display().to_string());
    }
    let reloads = tokio::spawn(follow(source, policy, reload));
    let _terminal = console.map(|console| console.start(address, &settings, drain.clone()));
    let served = tokio::select! {
        served = crate::serve::serve_from(settings, args.config.as_deref(), listener, drain) => served,
        () = end.cancelled() => Ok(()),
    };
    reloads.abort();
    served.map(|()| Exit::Ok)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn settings(line: &[&str]) -> Result<Settings, Fatal> {
        Line::try_parse_from(std::iter::once("serve").chain(line.iter().copied())).unwrap().serve.settings()
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), r#"{"name": "file", "limits": {"in_flight": 7, "clients": 8}, "drain_timeout": "1s"}"#).unwrap();
        let config = file.path().to_str().unwrap();
        let read =
            settings(&["--config", config, "--name", "flag", "--listen", "[::1]:0", "--http-listen", "off", "--drain-timeout", "3s"])
                .unwrap();
        assert_eq!((read.name.as_str(), read.limits.in_flight, read.limits.clients), ("flag", 7, 8));
        assert_eq!((read.listen.to_string().as_str(), read.http_listen, read.drain_timeout), ("[::1]:0", None, Duration::from_secs(3)));
        assert!(!read.allow_unprotected_listener);
        assert!(settings(&["--insecure-listen"]).unwrap().allow_unprotected_listener);
    }

    #[test]
    fn half_of_tls_is_refused() {
        assert_eq!(settings(&["--key-file", "a"]).unwrap_err().exit, Exit::Usage);
        assert_eq!(settings(&["--client-ca-file", "a"]).unwrap_err().exit, Exit::Usage);
        assert!(settings(&["--key-file", "a", "--certificate-file", "b"]).unwrap().tls.is_some());
    }

    #[test]
    fn values_out_of_range_are_refused_on_the_command_line_too() {
        for wrong in [["--in-flight", "0"], ["--drain-timeout", "2h"], ["--name", " "], ["--listen", "localhost"]] {
            assert!(Line::try_parse_from(["serve", wrong[0], wrong[1]]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_policy_is_in_one_place() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let own = write("policy.json", r#"{"kinds": {"deny": ["ping"]}}"#);
        let (bare, with, beside) =
            (write("bare.json", "{}"), write("with.json", r#"{"policy": {}}"#), write("beside.json", r#"{"policy_file": "policy.json"}"#));
        for line in [vec!["--policy", &own], vec!["--policy", &own, "--config", &bare], vec!["--config", &beside]] {
            assert!(settings(&line).unwrap().policy().permit_kind("ping").is_err(), "{line:?}");
        }
        let error = settings(&["--policy", &own, "--config", &with]).unwrap_err();
        assert!(error.exit == Exit::Config && error.message.contains("give one of them"), "{error}");
        let both = write("both.json", r#"{"policy": {}, "policy_file": "policy.json"}"#);
        assert!(settings(&["--config", &both]).unwrap_err().message.contains("give one of them"));
        let broken = write("broken.json", "{");
        assert_eq!(settings(&["--policy", &broken]).unwrap_err().exit, Exit::Config);
    }
}
