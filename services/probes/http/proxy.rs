//! Asking through a proxy: which one, for whom, and who it is given as the target.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use tokio::{net::TcpStream, time::timeout_at};
use url::Url;
use vantage_contract::v1::{Attribution, HttpProxy, HttpReport, Reason};

use super::{auth, request};
use crate::{
    Run,
    failure::{Failure, Invalid},
    net::{
        self,
        proxy::{self, Login, Refusal},
    },
    secret::{Hidden, Secret},
    stopwatch::Phase,
    target::{Family, Gate, Host, Options, Selection},
    wire::socks,
};

const MAX_EXCEPTIONS: usize = 64;
/// The longest user name and password of SOCKS (RFC 1929).
const MAX_SOCKS: usize = 255;

/// A proxy, parsed.
pub(super) struct Proxy {
    /// As the check names it.
    url: String,
    protocol: Protocol,
    host: Host,
    port: u16,
    login: Option<(String, Secret)>,
    direct: Vec<Direct>,
    remote_names: bool,
    field: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Connect,
    Socks,
}

/// What is asked for directly.
#[derive(Debug, PartialEq, Eq)]
enum Direct {
    All,
    /// The name, unless it began with a dot, and all names below it.
    Name {
        name: String,
        is_below_alone: bool,
    },
    Network(IpNet),
}

impl Proxy {
    /// Parses `proxy`.
    pub(super) fn parse(kind: &str, spec: &HttpProxy, options: &Options) -> Result<Self, Invalid> {
        let invalid = |field: &str, problem: String| Invalid::new(format!("proxy.{field}"), problem);
        let (protocol, default_port) = match spec.url.split_once("://").map(|(scheme, _)| scheme) {
            Some("http") => (Protocol::Connect, 8080),
            Some("socks5") => (Protocol::Socks, 1080),
            _ => return Err(invalid("url", "must begin with http:// or socks5://".to_owned())),
        };
        let wrong = |problem: &str| invalid("url", problem.to_owned());
        let url = Url::parse(&spec.url).map_err(|error| invalid("url", error.to_string()))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("must not have credentials: they are username and password"));
        }
        if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("must be a scheme, a host and a port alone"));
        }
        let host = request::host_of(&url).map_err(|problem| invalid("url", problem))?;
        // The parser drops the port that the scheme has for others.
        let written = spec.url.rsplit_once(':').map(|(_, port)| port.trim_end_matches('/')).and_then(|port| port.parse().ok());
        let port = url.port().or(written).unwrap_or(default_port);
        let login = match (spec.username.as_str(), Secret::parse(kind, "proxy.password", spec.password.as_ref())?) {
            ("", None) => None,
            ("", Some(_)) => return Err(invalid("username", "is missing: a password needs it".to_owned())),
            (_, None) => return Err(invalid("password", "is missing: a user needs it".to_owned())),
            (user, Some(password)) => {
                if user.contains(char::is_control) || user.len() > MAX_SOCKS {
                    return Err(invalid("username", format!("must be 1 to {MAX_SOCKS} bytes without control characters")));
                }
                if protocol == Protocol::Connect && user.contains(':') {
                    return Err(invalid("username", "must not have a colon (RFC 7617)".to_owned()));
                }
                if let (Protocol::Socks, Some(here)) = (protocol, password.here())
                    && !(1..=MAX_SOCKS).contains(&here.expose().len())
                {
                    return Err(invalid("password", format!("must be 1 to {MAX_SOCKS} bytes (RFC 1929)")));
                }
                Some((user.to_owned(), password))
            }
        };
        if spec.no_proxy.len() > MAX_EXCEPTIONS {
            return Err(invalid("no_proxy", format!("must be at most {MAX_EXCEPTIONS}, are {}", spec.no_proxy.len())));
        }
        let direct = spec.no_proxy.iter().enumerate();
        let direct = direct
            .map(|(at, text)| Direct::parse(text).map_err(|problem| invalid(&format!("no_proxy[{at}]"), problem)))
            .collect::<Result<_, _>>()?;
        if options.selection == Selection::HappyEyeballs {
            return Err(Invalid::new("proxy", "is given one address: it goes with addresses \"first\" or \"all\""));
        }
        if spec.remote_names && options.selection != Selection::First {
            return Err(invalid("remote_names", "leaves the addresses to the proxy: it goes with addresses \"first\"".to_owned()));
        }
        let url = format!("{}://{host}:{port}", url.scheme());
        Ok(Self { url, protocol, host, port, login, direct, remote_names: spec.remote_names, field: format!("{kind}.proxy") })
    }

    /// Looks up the password.
    pub(super) async fn load(&self, run: &mut Run<'_, HttpReport>) -> Result<Loaded<'_>, Failure> {
        let Some((user, password)) = &self.login else { return Ok(Loaded { proxy: self, login: None }) };
        let password = password.look_up(&run.world.gate).await?;
        run.masks.add(&password);
        let length = password.expose().len();
        if self.protocol == Protocol::Socks && !(1..=MAX_SOCKS).contains(&length) {
            let problem = format!("must be 1 to {MAX_SOCKS} bytes (RFC 1929)");
            return Err(Invalid::new(format!("{}.password", self.field), problem).into());
        }
        let basic = auth::basic(user, &password);
        run.masks.add(&basic);
        Ok(Loaded { proxy: self, login: Some((user, password, basic)) })
    }
}

impl Direct {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::All);
        }
        if let Ok(network) = text.parse::<IpNet>() {
            return Ok(Self::Network(network.trunc()));
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Network(address.to_canonical().into()));
        }
        let below = text.strip_prefix("*.").or_else(|| text.strip_prefix('.'));
        match Host::parse("no_proxy", below.unwrap_or(text)) {
            Ok(Host::Name(name)) => Ok(Self::Name { name: name.trim_end_matches('.').to_owned(), is_below_alone: below.is_some() }),
            _ => Err(format!("{text:?} is neither a name, an address, a network nor \"*\"")),
        }
    }

    fn is_for(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::All, _) => true,
            (Self::Network(network), Host::Address(address)) => network.contains(address),
            (Self::Name { name, is_below_alone }, Host::Name(host)) => match host.trim_end_matches('.').strip_suffix(name.as_str()) {
                Some("") => !is_below_alone,
                Some(before) => before.ends_with('.'),
                None => false,
            },
            _ => false,
        }
    }
}

/// A proxy whose password was looked up.
pub(super) struct Loaded<'p> {
    proxy: &'p Proxy,
    /// User, password, and both as basic authentication has them.
    login: Option<(&'p str, Hidden, Hidden)>,
}

impl Loaded<'_> {
    /// Whether it is to be asked for this host.
    pub(super) fn is_for(&self, host: &Host) -> bool {
        !self.proxy.direct.iter().any(|direct| direct.is_for(host))
    }

    /// Connects to a port of `host` through the proxy (phases `resolve`, `connect`, `proxy`). Its own failures are never the target's.
    pub(super) async fn reach(&self, host: &Host, port: u16, run: &mut Run<'_, HttpReport>) -> Result<TcpStream, Failure> {
        let proxy = self.proxy;
        proxy.url.clone_into(&mut run.report.proxy);
        let target = match host {
            Host::Name(name) if proxy.remote_names => {
                run.enter(Phase::Resolve);
                permit_names(run.world.gate.as_ref(), &proxy.field)?;
                run.permit_name(name)?;
                Target::Name(name.trim_end_matches('.'), port)
            }
            host => Target::Address(run.resolve_port(host, port).await?),
        };
        let remote = self.resolve(run).await?;
        if let Target::Name(..) = target {
            // The only one that is known.
            run.address = Some(remote.ip());
        }
        run.report.remote_address = remote.to_string();
        run.enter(Phase::Connect);
        let limit = run.options.timeout;
        let late = |doing: String| Failure::new(Reason::TimedOut, Attribution::Path, format!("timed out after {limit:?} {doing}"));
        let connected = timeout_at(run.last_call(), net::tcp::connect(remote, run.options.source)).await;
        let connected = connected.map_err(|_| late(format!("connecting to the proxy {} ({remote})", proxy.url)))?;
        let mut stream = connected.map_err(|error| self.own(error.failure))?;
        run.report.local_address = stream.local_addr().map(|local| local.to_string()).unwrap_or_default();
        run.enter(Phase::Proxy);
        let asked = timeout_at(run.last_call(), self.ask(&mut stream, target)).await;
        let asked = asked.map_err(|_| late(format!("waiting for the proxy {} to reach {target}", proxy.url)))?;
        asked.map_err(|refusal| refusal.failure(&format!("reach {target} through the proxy {}", proxy.url)))?;
        Ok(stream)
    }

    /// The proxy's own address, which the gate has to permit, too. Which family the target has does not matter.
    async fn resolve(&self, run: &mut Run<'_, HttpReport>) -> Result<SocketAddr, Failure> {
        let family = if run.options.source.is_some() { run.options.family } else { Family::Any };
        let options = Options { family, ..run.options.clone() };
        let (world, deadline) = (run.world, run.last_call());
        let address = Box::pin(world.resolver.first_address(&self.proxy.host, &options, world.gate.as_ref(), deadline)).await;
        let address = address.map_err(|failure| self.own(failure))?;
        run.permit(address, Some(self.proxy.port)).map_err(|failure| self.own(failure))?;
        Ok(SocketAddr::new(address, self.proxy.port))
    }

    async fn ask(&self, stream: &mut TcpStream, target: Target<'_>) -> Result<(), Refusal> {
        match self.proxy.protocol {
            Protocol::Connect => {
                let basic = self.login.as_ref().map(|(_, _, basic)| basic.expose());
                proxy::connect(stream, &target.to_string(), basic).await
            }
            Protocol::Socks => {
                let login = self.login.as_ref().map(|(user, password, _)| Login { user, password: password.expose() });
                let target = match target {
                    Target::Address(address) => socks::Target::Address(address),
                    Target::Name(name, port) => socks::Target::Name(name, port),
                };
                proxy::socks(stream, target, login).await
            }
        }
    }

    /// A failure on the way to the proxy: whoever is at fault, the target is not.
    fn own(&self, failure: Failure) -> Failure {
        let attribution = if failure.attribution == Attribution::Target { Attribution::Path } else { failure.attribution };
        Failure::new(failure.reason, attribution, format!("the proxy {}: {}", self.proxy.url, failure.sentence))
    }
}

fn permit_names(gate: &dyn Gate, field: &str) -> Result<(), Failure> {
    gate.permit_names_at_proxies()
        .map_err(|rule| Failure::new(Reason::PolicyDenied, Attribution::Vantage, format!("{field}.remote_names: {rule}")))
}

/// Whom the proxy is asked for.
#[derive(Clone, Copy)]
enum Target<'a> {
    Address(SocketAddr),
    Name(&'a str, u16),
}

impl std::fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: HttpProxy) -> Result<Proxy, String> {
        let options = Options::parse(&vantage_contract::v1::Probe::default(), std::time::Duration::from_secs(5)).unwrap();
        Proxy::parse("https", &spec, &options).map_err(|invalid| invalid.to_string())
    }

    fn url(url: &str) -> Result<String, String> {
        parse(HttpProxy { url: url.into(), ..HttpProxy::default() }).map(|proxy| proxy.url)
    }

    #[test]
    fn a_proxy_is_a_scheme_a_host_and_a_port() {
        assert_eq!(url("http://proxy.example"), Ok("http://proxy.example:8080".into()));
        assert_eq!(url("http://proxy.example:80/"), Ok("http://proxy.example:80".into()));
        assert_eq!(url("socks5://[::1]"), Ok("socks5://[::1]:1080".into()));
        assert_eq!(url("socks5://192.0.2.1:9050"), Ok("socks5://192.0.2.1:9050".into()));
        for wrong in ["", "proxy.example:80", "https://a", "socks4://a", "http://a/b", "http://a?b", "http://", "http://a:99999"] {
            assert!(url(wrong).unwrap_err().starts_with("proxy.url: "), "{wrong}");
        }
        let credentials = url("http://joe:hunter2@a").unwrap_err();
        assert!(credentials.contains("username and password") && !credentials.contains("hunter2"), "{credentials}");
    }

    #[test]
    fn exceptions_go_by_name_by_what_is_below_it_by_address_and_by_network() {
        let is_direct = |text: &str, host: &str| Direct::parse(text).unwrap().is_for(&Host::parse("host", host).unwrap());
        for (text, host) in [
            ("*", "a.example"),
            ("example", "a.example"),
            ("a.Example", "a.example."),
            (".example", "a.example"),
            ("*.example", "b.a.example"),
            ("192.0.2.0/24", "192.0.2.7"),
            ("192.0.2.7", "192.0.2.7"),
            ("[::1]", "::1"),
        ] {
            assert!(is_direct(text, host), "{text} {host}");
        }
        for (text, host) in [
            ("example", "anexample"),
            (".example", "example"),
            ("a.example", "example"),
            ("192.0.2.0/24", "192.0.3.1"),
            ("10.0.0.0/8", "a"),
        ] {
            assert!(!is_direct(text, host), "{text} {host}");
        }
        for wrong in ["", "a b", "example:80", "http://a", "10.0.0.0/33"] {
            assert!(Direct::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_refused_by_field() {
        use vantage_contract::v1::{Secret, secret::Source};
        let secret = |value: &str| Some(Secret { source: Some(Source::Value(value.into())) });
        let with =
            |username: &str, password| HttpProxy { url: "socks5://a".into(), username: username.into(), password, ..HttpProxy::default() };
        let field = |spec| parse(spec).err().map(|problem| problem.split(':').next().unwrap_or_default().to_owned());
        assert_eq!(field(with("joe", None)).as_deref(), Some("proxy.password"));
        assert_eq!(field(with("", secret("pw"))).as_deref(), Some("proxy.username"));
        assert_eq!(field(with("joe", secret(""))).as_deref(), Some("proxy.password"));
        assert_eq!(field(with("joe", secret(&"x".repeat(256)))).as_deref(), Some("proxy.password"));
        assert_eq!(field(with("joe", secret("pw"))), None);
    }
}
