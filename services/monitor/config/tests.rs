use vantage_daemon::{access::Access, audit::Audit, readiness::Readiness};

use super::*;

fn read(json: &str) -> Result<Settings, String> {
    parse(json)
}

#[test]
fn an_empty_file_is_all_defaults() {
    let (read, default) = (read("{}").unwrap(), Settings::default());
    assert_eq!(format!("{read:?}"), format!("{default:?}"));
    assert_eq!(default.listen.to_string(), "127.0.0.1:54321");
    assert_eq!(default.http_listen.unwrap().to_string(), "127.0.0.1:54322");
    assert!(!default.name.is_empty());
}

#[test]
fn every_default_lies_in_its_own_range() {
    let text = r#"{"limits": {"in_flight": 1000, "in_flight_by_kind": {}, "max_waiting": 10000, "clients": 100, "orders_per_client": 20000},
        "journal": {"age": "24h", "sync": "full", "commit_interval": "10ms", "unwritten_bytes": 4194304}, "client_expiry": "7d", "keepalive": {"interval": "10s", "timeout": "5s"},
        "drain_timeout": "10s"}"#;
    assert_eq!(format!("{:?}", read(text).unwrap()), format!("{:?}", Settings::default()));
}

#[test]
fn what_is_wrong_is_told_with_line_and_column() {
    let refused = |json| read(json).unwrap_err();
    assert!(refused("{\n  \"limit\": {}\n}").starts_with("limit: unknown field `limit`, expected one of `name`, `listen`"));
    assert!(refused("{\n  \"limit\": {}\n}").ends_with("at line 2 column 9"));
    assert_eq!(refused(r#"{"limits": {"in_flight": 0}}"#), "limits.in_flight: must be 1 to 100000, is 0 at line 1 column 27");
    let kind = refused(r#"{"limits": {"in_flight_by_kind": {"gopher": 1}}}"#);
    assert!(kind.starts_with("limits.in_flight_by_kind: unknown kind \"gopher\", expected one of ping, traceroute"), "{kind}");
    let none = refused(r#"{"limits": {"in_flight_by_kind": {"tcp": 0}}}"#);
    assert_eq!(none, "limits.in_flight_by_kind.tcp: must be 1 to 100000, is 0 at line 1 column 43");
    let twice = refused(r#"{"limits": {"in_flight_by_kind": {"tcp": 1, "tcp": 2}}}"#);
    assert!(twice.contains("tcp is there twice"), "{twice}");
    assert_eq!(refused(r#"{"keepalive": {"interval": "10ms"}}"#), "keepalive.interval: must be 1s to 3600s, is 10ms at line 1 column 34");
    assert!(refused(r#"{"drain_timeout": "10"}"#).starts_with(r#"drain_timeout: "10" has no unit; write it like"#));
    assert!(refused(r#"{"listen": "localhost"}"#).starts_with(r#"listen: "localhost" is not address:port"#));
    assert!(refused(r#"{"http_listen": "none"}"#).starts_with(r#"http_listen: "none" is neither address:port nor "off""#));
    assert!(refused(r#"{"name": "two\nlines"}"#).contains("is not a name"));
    assert!(refused(r#"{"tls": {"certificate_file": "a.pem"}}"#).starts_with("tls: missing field `key_file`"));
    assert!(refused(r#"{"policy": {"networks": {"deny": ["10.0.0.1/8"]}}}"#).contains("write 10.0.0.0/8 at line 1 column"));
    assert!(refused("{} {}").starts_with("trailing characters at line 1"));
    assert!(refused(r#"{"token_file": ""}"#).starts_with("token_file: the name of a file is empty"));
}

#[test]
fn a_kind_has_three_quarters_of_all_places_unless_it_is_named_and_never_more_than_all() {
    let limits = read(r#"{"limits": {"in_flight": 10, "in_flight_by_kind": {"http": 3, "dns": 500}}}"#).unwrap().limits;
    assert_eq!(["http", "dns", "tcp"].map(|kind| limits.in_flight_of(kind)), [3, 10, 7]);
    assert_eq!(Limits { in_flight: 1, ..limits }.in_flight_of("tcp"), 1);
}

#[test]
fn files_are_looked_for_beside_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("monitor.json");
    let text = r#"{"tls": {"certificate_file": "a.pem", "key_file": "/etc/a.key", "client_ca_file": "ca.pem"}, "token_file": "t", "http_listen": "off"}"#;
    fs::write(&file, text).unwrap();
    let settings = Settings::load(&file).unwrap();
    let tls = settings.tls.as_ref().unwrap();
    assert_eq!(tls.certificate_file, folder.path().join("a.pem"));
    assert_eq!(tls.key_file, Path::new("/etc/a.key"));
    assert_eq!(tls.client_ca_file, Some(folder.path().join("ca.pem")));
    assert_eq!(settings.token_file, Some(folder.path().join("t")));
    assert_eq!(settings.http_listen, None);
    assert_eq!(settings.protection(), Protection { tls: true, client_certificates: true, token: true, overridden: false });
    let opened = Access::open(settings.access(Some(&file)), Audit::default(), Readiness::default());
    assert!(opened.unwrap_err().message.starts_with("read "));
}

#[test]
fn a_file_that_is_missing_or_wrong_is_named() {
    let error = Settings::load(Path::new("/nonexistent/monitor.json")).unwrap_err();
    assert_eq!(error.exit, Exit::Config);
    assert!(error.message.starts_with("read /nonexistent/monitor.json: "));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("monitor.json");
    fs::write(&file, "{\"name\": }").unwrap();
    let error = Settings::load(&file).unwrap_err();
    assert!(error.message.contains("monitor.json: name: expected value at line 1 column 10"), "{error}");
}

#[test]
fn the_sample_is_valid_and_changes_no_default_but_its_name() {
    let sample = Settings::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/monitor.json")).unwrap();
    assert_eq!(sample.listen, Settings::default().listen);
    assert_eq!(sample.limits, Limits::default());
    assert_eq!(sample.bounds(), Settings::default().bounds());
    assert_eq!(Journal { bytes: None, ..sample.journal }, Journal::default());
    assert_eq!(sample.keepalive, Keepalive::default());
    assert!(sample.policy().permit_kind("ping").is_ok());
}
