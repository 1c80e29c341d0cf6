//! From an address in the file of checks to something that can be dialled.

use std::path::Path;

use tonic::{
    metadata::{Ascii, MetadataValue},
    transport,
};
use vantage_contract::{file::Endpoint, v1::MonitorAddress};
use vantage_daemon::{
    exit::{Exit, Fatal},
    tls,
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
    /// With TLS and timeouts.
    pub(crate) endpoint: transport::Endpoint,
    /// The `authorization` header.
    pub(crate) token: Option<MetadataValue<Ascii>>,
}

/// Reads the address, and the files it names. To be called for each attempt, so that renewed certificates and tokens are found.
pub(crate) fn dial(address: &MonitorAddress, settings: &Settings) -> Result<Dial, Fatal> {
    let wrong = |problem: String| Fatal::new(Exit::Config, format!("monitor {:?}: {problem}", address.name));
    let place = Endpoint::parse(address).map_err(|problem| wrong(format!("address {:?} {problem}", address.address)))?;
    let secure = place.tls;
    let mut endpoint = transport::Endpoint::from_shared(format!("{}://{place}", if secure { "https" } else { "http" }))
        .map_err(|error| wrong(error.to_string()))?
        .user_agent(concat!("vantage-manager/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| wrong(error.to_string()))?
        .connect_timeout(settings.connect_timeout)
        .http2_keep_alive_interval(settings.keepalive_interval)
        .keep_alive_timeout(settings.keepalive_timeout)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    if secure {
        let given = address.tls.clone().unwrap_or_default();
        let own = match (file(&given.certificate_file), file(&given.key_file)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(wrong("tls: certificate_file and key_file need each other".into())),
        };
        let name = Some(given.server_name.as_str()).filter(|name| !name.is_empty());
        let config = tls::client(file(&given.ca_file), name, own).map_err(|fatal| wrong(format!("tls: {fatal}")))?;
        endpoint = endpoint.tls_config(config).map_err(|error| wrong(format!("tls: {}", chain(&error))))?;
    }
    let token = match file(&address.token_file) {
        None => None,
        Some(_) if !secure && !place.is_loopback() => {
            return Err(wrong("token_file: a token without TLS can be read by everybody on the way: use https".into()));
        }
        Some(path) => Some(tls::bearer(path).map_err(|fatal| wrong(format!("token_file: {fatal}")))?),
    };
    Ok(Dial { endpoint, token })
}

fn file(path: &str) -> Option<&Path> {
    if path.is_empty() { None } else { Some(Path::new(path)) }
}

/// An error and what caused it, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.contains(&text) {
            told = if told.is_empty() { text } else { format!("{told}: {text}") };
        }
        cause = error.source();
    }
    told
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
