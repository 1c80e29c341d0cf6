//! From an address in the file of checks to something that can be dialled.

use std::path::{Path, PathBuf};

use tonic::{
    metadata::{Ascii, MetadataValue},
    transport,
};
use vantage_contract::{
    file::Endpoint,
    v1::{MonitorAddress, TlsVersion},
};
use vantage_daemon::{
    exit::{Exit, Fatal},
    tls::{
        MinVersion,
        client::{ClientFiles, ClientTls, Connector, Cures, Fault},
        files,
    },
};

use super::Settings;

/// How much may be on the way to us that we have not read, on the stream and on its connection. More than that a monitor does not send,
/// whatever keeps us from reading. It also can't send more within a round trip: a stream's window takes 4,000 results of 250 bytes, which are
/// 40,000 a second at 100 ms.
///
/// h2 grants a connection half its window as a budget for the overhead of small DATA frames that wait to be read, and ends the connection
/// (ENHANCE_YOUR_CALM) when it is used up. With an adaptive window that is 32 KiB: a store that is busy while 150 small results arrive
/// would cost the link. With these two, the stream's window is full first, whatever the size of the results: a frame of less than 256 bytes
/// costs what it lacks of them, and none of ours is as small as 15.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;

/// Whom to dial, and what to show there.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    /// With timeouts.
    pub(crate) endpoint: transport::Endpoint,
    /// With TLS.
    pub(crate) connector: Connector,
    /// Where it is left what goes wrong with TLS.
    pub(crate) fault: Fault,
    /// The `authorization` header.
    pub(crate) token: Option<MetadataValue<Ascii>>,
}

/// How the cures of what goes wrong with TLS are called in a file of checks.
const CURES: Cures = Cures {
    who: "this manager",
    ca: "this monitor's tls.ca_file in the file of checks",
    own: "this monitor's tls.certificate_file and tls.key_file in the file of checks",
    server_name: "this monitor's tls.server_name in the file of checks",
    min_version: Some("this monitor's tls.min_version"),
};

/// What went wrong with TLS, and its cure.
pub(crate) fn trouble(fault: &Fault) -> Option<String> {
    fault.trouble().map(|trouble| trouble.sentence(&CURES))
}

/// The files of a monitor's `tls`.
pub(crate) fn client_files(address: &MonitorAddress) -> ClientFiles {
    let given = address.tls.clone().unwrap_or_default();
    ClientFiles {
        ca: file(&given.ca_file),
        own: file(&given.certificate_file).zip(file(&given.key_file)),
        min_version: if given.min_version() == TlsVersion::TlsVersion12 { MinVersion::Tls12 } else { MinVersion::Tls13 },
        server_name: Some(given.server_name).filter(|name| !name.is_empty()),
    }
}

/// Reads the address, and the files it names. To be called for each attempt, so that renewed certificates and tokens are found.
pub(crate) fn dial(address: &MonitorAddress, settings: &Settings) -> Result<Dial, Fatal> {
    let wrong = |problem: String| Fatal::new(Exit::Config, format!("monitor {:?}: {problem}", address.name));
    let place = Endpoint::parse(address).map_err(|problem| wrong(format!("address {:?} {problem}", address.address)))?;
    let secure = place.tls;
    let origin = format!("{}://{place}", if secure { "https" } else { "http" });
    // TLS is the connector's: the address that it is given says nothing of it, and the requests do.
    let endpoint = transport::Endpoint::from_shared(format!("http://{place}"))
        .map_err(|error| wrong(error.to_string()))?
        .origin(origin.parse().map_err(|error| wrong(format!("{error}")))?)
        .user_agent(concat!("vantage-manager/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| wrong(error.to_string()))?
        .connect_timeout(settings.connect_timeout)
        .http2_keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let tls = if secure {
        let given = address.tls.clone().unwrap_or_default();
        if given.certificate_file.is_empty() != given.key_file.is_empty() {
            return Err(wrong("tls: certificate_file and key_file need each other".into()));
        }
        let host = endpoint.uri().host().unwrap_or_default();
        Some(ClientTls::load(&client_files(address), host).map_err(|fatal| wrong(format!("tls: {fatal}")))?)
    } else {
        None
    };
    let fault = Fault::default();
    let connector = Connector::new(tls, fault.clone());
    let token = match file(&address.token_file) {
        None => None,
        Some(_) if !secure && !place.is_loopback() => {
            return Err(wrong("token_file: a token without TLS can be read by everybody on the way: use https".into()));
        }
        Some(path) => Some(files::bearer(&path).map_err(|fatal| wrong(format!("token_file: {fatal}")))?),
    };
    Ok(Dial { endpoint, connector, fault, token })
}

fn file(path: &str) -> Option<PathBuf> {
    if path.is_empty() { None } else { Some(Path::new(path).to_owned()) }
}

#[cfg(test)]
mod tests {
    use vantage_contract::v1::MonitorTls;

    use super::*;

    fn at(address: &str) -> MonitorAddress {
        MonitorAddress { name: "m".into(), address: address.into(), ..MonitorAddress::default() }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_name_of_the_monitor() {
        let error = dial(&at("ftp://lab"), &Settings::new("c", "c")).unwrap_err();
        assert!(error.message.starts_with(r#"monitor "m": address "ftp://lab" must begin with"#), "{error}");
        assert_eq!(dial(&at("[::1]"), &Settings::new("c", "c")).unwrap().endpoint.uri(), "http://[::1]:54321/");
    }

    #[test]
    fn a_token_goes_only_where_nobody_can_read_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "0123456789abcdef").unwrap();
        let with_token = |address: &str| MonitorAddress { token_file: file.path().display().to_string(), ..at(address) };
        let settings = Settings::new("c", "c");
        assert!(dial(&with_token("http://lab:1"), &settings).unwrap_err().message.contains("without TLS"));
        assert!(dial(&with_token("http://127.0.0.1:1"), &settings).unwrap().token.unwrap().is_sensitive());
        assert!(dial(&with_token("[::1]:1"), &settings).is_ok());
    }

    #[test]
    fn a_file_that_is_not_there_is_named_with_the_monitor() {
        let tls = MonitorTls { ca_file: "/nonexistent/ca.pem".into(), ..MonitorTls::default() };
        let address = MonitorAddress { tls: Some(tls), ..at("https://lab") };
        let error = dial(&address, &Settings::new("c", "c")).unwrap_err();
        assert_eq!(error.exit, Exit::Config);
        assert!(error.message.starts_with(r#"monitor "m": tls: read /nonexistent/ca.pem:"#), "{error}");
    }
}
