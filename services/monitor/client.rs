//! Talking to a monitor from outside: where it is, how it is trusted, and what to do when that fails.

use std::{error::Error, net::IpAddr, path::PathBuf, time::Duration};

use clap::Args;
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Uri},
};
use vantage_contract::v1::{admin_service_client::AdminServiceClient, monitor_service_client::MonitorServiceClient};
use vantage_daemon::{
    exit::{Exit, Fatal},
    tls::{
        MinVersion,
        client::{ClientFiles, ClientTls, Connector, Cures, Fault},
        files,
    },
};

use crate::config::PORT;

/// How long connecting, and then the head of an answer, may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a monitor is trusted, and who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Talking to a monitor")]
pub struct Trust {
    /// PEM file with the authorities that the monitor's certificate is checked against [default: the system's]
    #[arg(long, env = "VANTAGE_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// PEM file with our own certificate chain, for monitors that want to know who asks
    #[arg(long, env = "VANTAGE_CERTIFICATE_FILE", value_name = "FILE", requires = "key_file")]
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the key of our certificate
    #[arg(long, env = "VANTAGE_KEY_FILE", value_name = "FILE", requires = "certificate_file")]
    pub key_file: Option<PathBuf>,
    /// The name that the monitor's certificate must have [default: the host of the URL]
    #[arg(long, env = "VANTAGE_SERVER_NAME", value_name = "NAME")]
    pub server_name: Option<String>,
    /// File with the token that the monitor wants
    #[arg(long, env = "VANTAGE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// How the cures are called here.
const CURES: Cures = Cures {
    who: "this program",
    ca: "--ca-file",
    own: "--certificate-file and --key-file",
    server_name: "--server-name",
    min_version: None,
};

impl Trust {
    fn files(&self) -> ClientFiles {
        ClientFiles {
            ca: self.ca_file.clone(),
            own: self.certificate_file.clone().zip(self.key_file.clone()),
            server_name: self.server_name.clone(),
            min_version: MinVersion::default(),
        }
    }

    /// Whether anything in it makes sense over TLS alone.
    fn wants_tls(&self) -> bool {
        self.ca_file.is_some() || self.certificate_file.is_some() || self.server_name.is_some()
    }
}

/// An open link to a monitor. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    url: String,
    channel: InterceptedService<Channel, Bearer>,
    fault: Fault,
}

/// Adds the token to each request.
#[derive(Clone)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl Link {
    /// Connects to `at`: a URL, or host and port, where the port may be missing.
    pub async fn connect(at: &str, trust: &Trust) -> Result<Self, Fatal> {
        let url = parse_url(at, trust.wants_tls()).map_err(|why| Fatal::new(Exit::Usage, format!("--at {at:?}: {why}")))?;
        let secure = url.scheme_str() == Some("https");
        if !secure && trust.wants_tls() {
            return Err(Fatal::new(Exit::Usage, format!("--at {at:?}: a certificate needs TLS: write https://")));
        }
        let token = trust.token_file.as_deref().map(files::bearer).transpose()?;
        if token.is_some() && !secure && !is_loopback(url.host().unwrap_or_default()) {
            let why = "a token without TLS can be read by everybody on the way: write https://";
            return Err(Fatal::new(Exit::Usage, format!("--at {at:?}: {why}")));
        }
        let shown = url.to_string().trim_end_matches('/').to_owned();
        let software = |error: &dyn Error| Fatal::new(Exit::Software, format!("prepare the link: {error}"));
        let endpoint = Endpoint::from(dialled(&url).map_err(|error| software(&error))?)
            .origin(url.clone())
            .connect_timeout(PATIENCE)
            .timeout(PATIENCE)
            .http2_keep_alive_interval(PATIENCE)
            .keep_alive_timeout(Duration::from_secs(5))
            .user_agent(concat!("vantage-monitor/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| software(&error))?;
        let fault = Fault::default();
        let tls = match secure {
            true => Some(ClientTls::load(&trust.files(), url.host().unwrap_or_default())?),
            false => None,
        };
        let connecting = endpoint.connect_with_connector(Connector::new(tls, fault.clone())).await;
        let channel = connecting.map_err(|error| unreachable(&shown, &fault, &causes(&error)))?;
        Ok(Self { url: shown, channel: InterceptedService::new(channel, Bearer(token)), fault })
    }

    /// The monitor's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its AdminService.
    pub fn admin(&self) -> AdminServiceClient<InterceptedService<Channel, impl Interceptor + Clone + use<>>> {
        AdminServiceClient::new(self.channel.clone())
    }

    /// Its MonitorService.
    pub fn monitor(&self) -> MonitorServiceClient<InterceptedService<Channel, impl Interceptor + Clone + use<>>> {
        MonitorServiceClient::new(self.channel.clone())
    }

    /// What a refused or broken call means, with its cure.
    pub fn fatal(&self, status: &Status) -> Fatal {
        let Self { url, .. } = self;
        let message = match status.message() {
            "" => status.code().description(),
            message => message,
        };
        let said = format!("{url}: {message}");
        match status.code() {
            Code::Unauthenticated => {
                Fatal::new(Exit::Unavailable, format!("{said}. Show who you are: --certificate-file and --key-file, or --token-file"))
            }
            Code::PermissionDenied => Fatal::new(
                Exit::Unavailable,
                format!("{said}. Show another certificate, or another token: --certificate-file and --key-file, --token-file"),
            ),
            Code::Unimplemented => Fatal::new(Exit::Unavailable, format!("{said}. Is this a monitor of version 0.1 or later?")),
            // What has a source did not come from the monitor: the link itself broke. With TLS 1.3 a client learns only with its first
            // call that its certificate is missing or refused.
            _ if status.source().is_some() => unreachable(url, &self.fault, &status.source().map(causes).unwrap_or_default()),
            _ => Fatal::new(Exit::Unavailable, said),
        }
    }
}

fn unreachable(url: &str, fault: &Fault, why: &str) -> Fatal {
    if let Some(trouble) = fault.trouble() {
        return Fatal::new(Exit::Unavailable, format!("connect to {url}: {}", trouble.sentence(&CURES)));
    }
    let cure = if url.starts_with("https") {
        "Is it the right name (--server-name), do we trust it (--ca-file), and does it know us (--certificate-file, --key-file)?"
    } else if ["reset", "closed", "roken pipe"].iter().any(|sign| why.contains(sign)) {
        "Something is there, and ended the connection. Does it speak TLS (write https://), or has it all the connections that it takes? \
         A monitor's log says so"
    } else {
        "Is a monitor running there? Start one with `vantage-monitor serve`, or name another with --at URL; one that speaks TLS is https://"
    };
    Fatal::new(Exit::Unavailable, format!("connect to {url}: {why}. {cure}"))
}

/// The innermost causes, which tonic hides behind "transport error".
fn causes<E: Error + ?Sized>(error: &E) -> String {
    let mut sentences: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let sentence = error.to_string();
        if sentences.last().is_none_or(|last| !last.contains(&sentence)) {
            sentences.push(sentence);
        }
        cause = error.source();
    }
    let innermost = sentences.pop().unwrap_or_else(|| error.to_string());
    // The number that the standard library adds says nothing more.
    innermost.split_once(" (os error ").map_or(innermost.as_str(), |(words, _)| words).to_owned()
}

/// Where to connect: TLS is the connector's, so the address says nothing of it.
fn dialled(url: &Uri) -> Result<Uri, http::uri::InvalidUri> {
    let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    format!("http://{authority}").parse()
}

fn parse_url(at: &str, secure: bool) -> Result<Uri, String> {
    let text = match (at.contains("://"), secure) {
        (true, _) => at.to_owned(),
        (false, true) => format!("https://{at}"),
        (false, false) => format!("http://{at}"),
    };
    let url: Uri = text.parse().map_err(|error| format!("is not a URL: {error}"))?;
    let (Some("http" | "https"), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err("begins neither with http:// nor with https://".to_owned());
    };
    if authority.as_str().contains('@') {
        return Err("has credentials in it, which a monitor does not take: use --token-file".to_owned());
    }
    if !matches!(url.path_and_query().map(|path| path.as_str()), None | Some("" | "/")) {
        return Err("has a path; a monitor is scheme, host and port".to_owned());
    }
    if url.port().is_some() {
        return Ok(url);
    }
    let scheme = url.scheme_str().unwrap_or("http");
    format!("{scheme}://{authority}:{PORT}").parse().map_err(|error| format!("is not a URL: {error}"))
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use vantage_contract::v1::ListClientsRequest;

    use super::*;

    #[test]
    fn a_monitor_is_named_by_url_or_by_host_with_or_without_port() {
        let url = |at, secure| parse_url(at, secure).map(|url| url.to_string());
        assert_eq!(url("http://10.0.0.1:1", false).unwrap(), "http://10.0.0.1:1/");
        assert_eq!(url("fra.example.com", false).unwrap(), "http://fra.example.com:54321/");
        assert_eq!(url("fra.example.com:8", true).unwrap(), "https://fra.example.com:8/");
        assert_eq!(url("https://[::1]", false).unwrap(), "https://[::1]:54321/");
        for wrong in ["ftp://a", "http://user:secret@a", "http://a/b", "", "http://a b"] {
            assert!(url(wrong, false).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn what_can_not_be_reached_comes_with_a_cure() {
        // Port 1 on loopback: nobody listens there.
        let error = Link::connect("http://127.0.0.1:1", &Trust::default()).await.err().unwrap();
        assert_eq!(error.exit, Exit::Unavailable);
        assert!(error.message.starts_with("connect to http://127.0.0.1:1: Connection refused"), "{error}");
        assert!(error.message.contains("`vantage-monitor serve`"), "{error}");
    }

    #[tokio::test]
    async fn what_ends_the_connection_is_not_taken_for_nobody() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // With what was sent unread: it is reset.
                let _ = stream.readable().await;
                drop(stream);
            }
        });
        let error = match Link::connect(&url, &Trust::default()).await {
            Ok(link) => link.fatal(&link.admin().list_clients(ListClientsRequest::default()).await.unwrap_err()),
            Err(error) => error,
        };
        assert!(error.message.contains("Something is there") && !error.message.contains("vantage-monitor serve"), "{error}");
    }

    #[tokio::test]
    async fn a_token_never_leaves_in_the_clear() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0123456789abcdef\n").unwrap();
        let trust = Trust { token_file: Some(file.path().to_owned()), ..Trust::default() };
        let error = Link::connect("http://192.0.2.1:1", &trust).await.err().unwrap();
        assert!(error.exit == Exit::Usage && error.message.contains("write https://"), "{error}");
        assert!(!error.message.contains("0123456789abcdef"));
    }
}
