//! Whole files, as users write them well and badly.

mod hostile;
mod refusals;

use std::collections::BTreeMap;

use prost_types::Duration;

use super::{Complaint, Format, Loaded, Position, parse};
use crate::v1::{
    AddressFamily, AddressSelection, Check, HttpVersion, TlsVersion, TracerouteMethod, probe::Kind, secret::Source, tcp_step::Step,
};

fn json(text: &str) -> Loaded {
    parse(text, "checks.json", Format::Json).unwrap_or_else(|error| panic!("{error}"))
}

fn yaml(text: &str) -> Loaded {
    parse(text, "checks.yaml", Format::Yaml).unwrap_or_else(|error| panic!("{error}"))
}

/// What is said of a bad file, without the snippets.
fn said(text: &str, format: Format) -> Vec<String> {
    let name = if format == Format::Json { "checks.json" } else { "checks.yaml" };
    match parse(text, name, format) {
        Ok(loaded) => panic!("this was taken: {text}\nas {:?}", loaded.file),
        Err(error) => error.lines().collect(),
    }
}

/// Asserts that a check, here the inside of its object, is refused with one sentence.
fn refused(check: &str, sentence: &str) {
    let lines = said(&format!("[{{{check}}}]"), Format::Json);
    let sentences: Vec<&str> = lines.iter().map(|line| line.splitn(4, ':').nth(3).unwrap().trim_start()).collect();
    assert_eq!(sentences, [sentence], "{check}");
}

fn kind(check: &Check) -> &Kind {
    check.probe.as_ref().unwrap().kind.as_ref().unwrap()
}

fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn seconds(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

#[test]
fn the_nested_form_is_read_with_the_kind_beside_the_name() {
    let loaded = json(
        r#"{"$schema": "./checks.schema.json",
            "monitors": [{"name":"local","address":"http://127.0.0.1:54321","labels":{"site":"here"}}],
            "defaults": {"timeout": "2s"},
            "checks": [{"name":"google","interval":"10s","ping":{"host":"www.google.com"}}]}"#,
    );
    assert_eq!(loaded.file.monitors[0].name, "local");
    let check = &loaded.file.checks[0];
    assert_eq!((check.name.as_str(), check.interval, check.count), ("google", seconds(10), 0));
    assert_eq!(check.probe.as_ref().unwrap().timeout, seconds(2));
    let Kind::Ping(ping) = kind(check) else { panic!("{check:?}") };
    assert_eq!(ping.host, "www.google.com");
}

#[test]
fn the_flat_form_is_read_in_a_bare_array() {
    let loaded = json(
        r#"[{"name":"google","host":"www.google.com","port":80,"service":"ping","interval":10,"count":10},
            {"name":"google tcp","host":"127.0.0.1","port":80,"service":"TCP","interval":4,"count":4,"server_number":7}]"#,
    );
    let [ping, tcp] = loaded.file.checks.as_slice() else { panic!("{:?}", loaded.file) };
    assert_eq!((ping.interval, ping.count), (seconds(10), 10));
    assert!(matches!(kind(ping), Kind::Ping(ping) if ping.host == "www.google.com" && ping.count == 0));
    assert_eq!((tcp.interval, tcp.count, &tcp.labels), (seconds(4), 4, &labels(&[("server_number", "7")])));
    assert!(matches!(kind(tcp), Kind::Tcp(tcp) if tcp.host == "127.0.0.1" && tcp.port == 80));
}

#[test]
fn each_service_of_the_flat_form_finds_its_target() {
    let flat = |rest: &str| json(&format!("{{\"checks\": [{{\"name\":\"a\",{rest}}}]}}")).file.checks.remove(0);
    let url = |rest: &str| match kind(&flat(rest)) {
        Kind::Http(http) | Kind::Https(http) => http.url.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(url(r#""service":"http","host":"a.example""#), "http://a.example/");
    assert_eq!(url(r#""service":"HTTPS","host":"a.example","port":8443,"path":"/health?x=1""#), "https://a.example:8443/health?x=1");
    assert_eq!(url(r#""service":"http","host":"2001:db8::1","port":0,"path":"up""#), "http://[2001:db8::1]/up");
    assert_eq!(url(r#""service":"http","host":"[::1]","port":81"#), "http://[::1]:81/");
    assert_eq!(url(r#""service":"https","url":"https://b.example/x""#), "https://b.example/x");
    assert!(matches!(kind(&flat(r#""service":"ICMP","host":"a""#)), Kind::Ping(ping) if ping.host == "a"));
    assert!(matches!(kind(&flat(r#""service":"traceroute","host":"a","port":80"#)), Kind::Traceroute(trace) if trace.port == 0));
    assert!(matches!(kind(&flat(r#""service":"udp","host":"a","port":9"#)), Kind::Udp(udp) if udp.host == "a" && udp.port == 9));
    assert!(matches!(kind(&flat(r#""service":"ntp","host":"a""#)), Kind::Ntp(ntp) if ntp.server == "a" && ntp.port == 0));
    let Kind::Dns(dns) = kind(&flat(r#""service":"dns","host":"dns.google","port":53"#)).clone() else { panic!() };
    assert_eq!((dns.server.as_str(), dns.query.as_str(), dns.port), ("dns.google", "dns.google", 53));
    let Kind::Dns(dns) = kind(&flat(r#""service":"dns","host":"8.8.8.8","query":"example.com""#)).clone() else { panic!() };
    assert_eq!((dns.server.as_str(), dns.query.as_str(), dns.port), ("8.8.8.8", "example.com", 0));
}

#[test]
fn the_flat_form_takes_the_shared_options_and_mixes_with_the_nested_one() {
    let loaded = json(
        r#"[{"name":"a","service":"tcp","host":"h","port":1,"timeout":1.5,"address_family":4,"labels":{"tier":1},"server_number":"x",
             "source_address":"192.0.2.1","resolver":"192.0.2.53"},
            {"name":"b","probe":{"timeout":"3s","icmp":{"host":"h"}}},
            {"name":"c","timeout":"3s","probe":{"ping":{"host":"h"}}}]"#,
    );
    let [a, b, c] = loaded.file.checks.as_slice() else { panic!("{:?}", loaded.file) };
    let options = a.probe.as_ref().unwrap();
    assert_eq!(options.timeout, Some(Duration { seconds: 1, nanos: 500_000_000 }));
    assert_eq!(options.address_family(), AddressFamily::Ipv4);
    assert_eq!((options.source_address.as_str(), options.resolver.as_str()), ("192.0.2.1", "192.0.2.53"));
    assert_eq!(a.labels, labels(&[("server_number", "x"), ("tier", "1")]));
    assert_eq!(b.probe, c.probe);
}

#[test]
fn yaml_says_the_same_as_json() {
    let from_yaml = yaml(
        "# Our checks\n\
         defaults:\n  interval: 30s\n  labels: {team: ops}\n\
         checks:\n\
         - name: google\n  ping: {host: www.google.com, count: 5}\n\
         - name: page\n  https:\n    url: https://www.example.com/\n    headers:\n      X-Number: 007\n    expect:\n      status: 404\n\
         - name: flat\n  host: 127.0.0.1\n  port: 80\n  service: TCP\n  interval: 4\n",
    );
    let from_json = json(
        r#"{"defaults":{"interval":"30s","labels":{"team":"ops"}},"checks":[
            {"name":"google","ping":{"host":"www.google.com","count":5}},
            {"name":"page","https":{"url":"https://www.example.com/","headers":{"X-Number":"007"},"expect":{"status":[404]}}},
            {"name":"flat","host":"127.0.0.1","port":80,"service":"TCP","interval":4}]}"#,
    );
    assert_eq!(from_yaml.file, from_json.file);
}

#[test]
fn enums_go_by_short_names_in_any_case() {
    let trace = |method: &str| json(&format!(r#"[{{"name":"a","traceroute":{{"host":"h","method":{method}}}}}]"#));
    for method in ["\"udp\"", "\"UDP\"", "\"TRACEROUTE_METHOD_UDP\""] {
        assert!(
            matches!(kind(&trace(method).file.checks[0]), Kind::Traceroute(trace) if trace.method() == TracerouteMethod::Udp),
            "{method}"
        );
    }
    let family = |family: &str| {
        let loaded = json(&format!(
            r#"{{"defaults":{{"address_family":6}},"checks":[{{"name":"a","address_family":{family},"ping":{{"host":"h"}}}}]}}"#
        ));
        loaded.file.checks[0].probe.as_ref().unwrap().address_family()
    };
    assert_eq!(["4", "\"4\"", "\"ipv4\"", "\"IPv4\""].map(family), [AddressFamily::Ipv4; 4]);
    assert_eq!(family("\"any\""), AddressFamily::Unspecified);
    let http = |version: &str, tls: &str| {
        let loaded = json(&format!(r#"[{{"name":"a","https":{{"url":"u","version":{version},"tls":{{"min_version":{tls}}}}}}}]"#));
        let Kind::Https(http) = kind(&loaded.file.checks[0]).clone() else { panic!() };
        (http.version(), http.tls.unwrap().min_version())
    };
    assert_eq!(http("1.1", "1.3"), (HttpVersion::HttpVersion11, TlsVersion::TlsVersion13));
    assert_eq!(http("\"2\"", "\"1.2\""), (HttpVersion::HttpVersion2, TlsVersion::TlsVersion12));
    assert_eq!(http("2", "\"tls_version_1_2\""), (HttpVersion::HttpVersion2, TlsVersion::TlsVersion12));
}

#[test]
fn dns_numbers_are_taken_as_text() {
    let loaded = json(r#"[{"name":"a","dns":{"server":"s","query":"q","type":257,"class":3,"expect":{"rcodes":[0,"NXDOMAIN"]}}}]"#);
    let Kind::Dns(dns) = kind(&loaded.file.checks[0]).clone() else { panic!() };
    assert_eq!((dns.r#type.as_str(), dns.class.as_str(), dns.expect.unwrap().rcodes), ("257", "3", vec!["0".into(), "NXDOMAIN".into()]));
}

#[test]
fn what_json_a_body_should_have_and_which_headers_are_secret_is_said_as_it_is() {
    let text = r#"[{"name":"a","https":{"url":"u",
        "secret_headers": {"X-Key": {"env": "KEY"}},
        "expect": {"json": [{"path": "$.a", "equals": {"b": [1, null, "c", true]}}, {"path": "$.n", "equals": null}]}}}]"#;
    for loaded in [json(text), yaml(text)] {
        let Kind::Https(http) = kind(&loaded.file.checks[0]) else { panic!("no https") };
        assert_eq!(http.secret_headers["X-Key"].source, Some(Source::Env("KEY".into())));
        let expected = &http.expect.as_ref().unwrap().json;
        let Some(prost_types::value::Kind::StructValue(object)) = &expected[0].equals.as_ref().unwrap().kind else { panic!("no object") };
        let Some(prost_types::value::Kind::ListValue(list)) = &object.fields["b"].kind else { panic!("no list") };
        assert_eq!(list.values.len(), 4);
        assert_eq!(list.values[0].kind, Some(prost_types::value::Kind::NumberValue(1.0)));
        assert_eq!(expected[1].equals.as_ref().unwrap().kind, Some(prost_types::value::Kind::NullValue(0)));
    }
    refused(
        r#""name":"a","http":{"url":"u","secret_headers":{"X-Key":"x"}}"#,
        "\"X-Key\" in secret_headers: expected an object with \"file\", \"env\" or \"value\", found text",
    );
    // What stands where a secret should be is one, most likely.
    for (wrong, sentence) in [
        (r#""hunter2""#, "\"password\" in basic: expected an object with \"file\", \"env\" or \"value\", found text"),
        (r#"{"value":271828}"#, "\"value\" in password: expected text, found a number"),
        (r#"{"file":["hunter2"]}"#, "\"file\" in password: expected text, found a list"),
    ] {
        let check = format!(r#""name":"a","http":{{"url":"u","auth":{{"basic":{{"username":"joe","password":{wrong}}}}}}}"#);
        refused(&check, sentence);
    }
    refused(
        r#""name":"a","http":{"url":"u","secret_headers":{"X-Key":{"value":"a","env":"B"}}}"#,
        "\"env\" in X-Key excludes \"value\" in line 1: give one of them",
    );
    let bytes = said(r#"[{"name":"a","http":{"url":"u","body_data":"eA=="}}]"#, Format::Json);
    assert!(bytes[0].contains("unknown field \"body_data\" in http; expected \"url\""), "{bytes:?}");
}

#[test]
fn json_strings_keep_every_character() {
    let loaded = json(r#"[{"name":"\ud83d\ude00 \u00e9\/\"","tcp":{"host":"h","port":1,"steps":[{"send":"QUIT\r\n"},{"start_tls":{}}]}}]"#);
    assert_eq!(loaded.file.checks[0].name, "😀 é/\"");
    let Kind::Tcp(tcp) = kind(&loaded.file.checks[0]).clone() else { panic!() };
    assert_eq!(tcp.steps[0].step, Some(Step::Send("QUIT\r\n".into())));
    assert!(matches!(tcp.steps[1].step, Some(Step::StartTls(_))));
}

#[test]
fn defaults_hold_where_a_check_says_nothing() {
    let loaded = json(
        r#"{"monitors":[{"name":"m1","address":"m1"},{"name":"m2","address":"m2","labels":{"site":"x"}}],
            "defaults":{"interval":"5s","count":3,"labels":{"team":"ops","tier":"1"},"monitors":["m1"],"timeout":"1s","address_family":"ipv6",
                        "source_address":"::1","resolver":"::2"},
            "checks":[{"name":"a","ping":{"host":"h"}},
                      {"name":"b","interval":"6s","count":0,"labels":{"tier":"2"},"monitor_labels":{"site":"x"},"timeout":"2s",
                       "address_family":"ipv4","source_address":"","resolver":"r","ping":{"host":"h"}}]}"#,
    );
    let [a, b] = loaded.file.checks.as_slice() else { panic!() };
    assert_eq!((a.interval, a.count, &a.labels), (seconds(5), 3, &labels(&[("team", "ops"), ("tier", "1")])));
    assert_eq!((a.monitors.as_slice(), a.monitor_labels.len()), (&["m1".to_owned()][..], 0));
    let options = a.probe.as_ref().unwrap();
    assert_eq!((options.timeout, options.address_family()), (seconds(1), AddressFamily::Ipv6));
    assert_eq!((options.source_address.as_str(), options.resolver.as_str()), ("::1", "::2"));
    assert_eq!((b.interval, b.count, &b.labels), (seconds(6), 0, &labels(&[("team", "ops"), ("tier", "2")])));
    assert_eq!((b.monitors.len(), &b.monitor_labels), (0, &labels(&[("site", "x")])));
    let options = b.probe.as_ref().unwrap();
    assert_eq!((options.timeout, options.address_family()), (seconds(2), AddressFamily::Ipv4));
    assert_eq!((options.source_address.as_str(), options.resolver.as_str()), ("", "r"));
}

#[test]
fn all_addresses_may_be_asked_for_and_so_many_required_in_words_or_as_a_number() {
    let loaded = json(
        r#"{"defaults":{"addresses":"all","require":1},
            "checks":[{"name":"a","ping":{"host":"h"}},
                      {"name":"b","require":"any","ping":{"host":"h"}},
                      {"name":"c","addresses":"first","ping":{"host":"h"}},
                      {"name":"d","addresses":"first","require":2,"ping":{"host":"h"}},
                      {"name":"e","service":"tcp","host":"h","port":1,"require":"all"}]}"#,
    );
    let selected: Vec<_> = loaded.file.checks.iter().map(|check| check.probe.as_ref().unwrap()).collect();
    let selected: Vec<_> = selected.iter().map(|probe| (probe.addresses(), probe.require.as_str())).collect();
    let (all, first) = (AddressSelection::All, AddressSelection::First);
    // What is wrong with the fourth is for those to say who know probes.
    assert_eq!(selected, [(all, "1"), (all, "any"), (first, ""), (first, "2"), (all, "all")]);
    let yaml = yaml("- name: a\n  addresses: all\n  require: 2\n  ping: {host: h}\n- name: b\n  ping: {host: h}\n");
    let [a, b] = yaml.file.checks.as_slice() else { panic!() };
    assert_eq!((a.probe.as_ref().unwrap().addresses(), a.probe.as_ref().unwrap().require.as_str()), (all, "2"));
    assert_eq!((b.probe.as_ref().unwrap().addresses(), b.probe.as_ref().unwrap().require.as_str()), (AddressSelection::Unspecified, ""));
}

#[test]
fn a_check_without_an_interval_runs_every_minute_and_a_monitor_without_a_name_goes_by_its_address() {
    let loaded =
        json(r#"{"monitors":[{"address":"https://probe-1"}],"checks":[{"name":"a","monitors":"probe-1:54321","ping":{"host":"h"}}]}"#);
    assert_eq!(loaded.file.checks[0].interval, seconds(60));
    assert_eq!(loaded.file.monitors[0].name, "probe-1:54321");
}

#[test]
fn everything_wrong_is_told_at_once() {
    let lines = said(
        "- name: a\n  pnig: {}\n- name: b\n  interval: 1ms\n  ping: {host: 5}\n- name: c\n  interval: 1ms\n  ping: {host: h}\n- service: tcp\n",
        Format::Yaml,
    );
    let places: Vec<&str> = lines.iter().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["checks.yaml:2:3", "checks.yaml:5:16", "checks.yaml:7:13", "checks.yaml:9:3"], "{lines:#?}");
    let many = format!("[{}{{}}]", "{\"x\":1},".repeat(30));
    let error = parse(&many, "checks.json", Format::Json).unwrap_err();
    assert_eq!((error.problems().len(), error.omitted()), (20, 12));
}

#[test]
fn a_place_is_found_for_every_field_given_or_not() {
    let loaded = json(
        "{\"defaults\": {\"resolver\": \"x\"},\n \"checks\": [\n  {\"name\": \"a\", \"icmp\": {\"host\": \"h\", \"count\": 5}},\n  \
         {\"name\": \"b\", \"service\": \"tcp\", \"host\": \"h\", \"port\": 80},\n  \
         {\"name\": \"c\", \"probe\": {\"tcp\": {\"host\": \"h\", \"steps\": [{\"send\": \"x\"}, {\"expect\": \"y\"}]}}}\n]}",
    );
    let at = |check: usize, field: &str| {
        let Position { line, column } = loaded.locate(check, field);
        (line, column)
    };
    assert_eq!(at(0, "ping.count"), (3, 48));
    assert_eq!(at(0, "ping.hop_limit"), (3, 17));
    assert_eq!(at(0, "name"), (3, 12));
    assert_eq!(at(0, "kind"), (3, 3));
    assert_eq!(at(0, "resolver"), (1, 27));
    assert_eq!(at(1, "tcp.host"), (4, 43));
    assert_eq!(at(1, "tcp.port"), (4, 56));
    assert_eq!(at(1, "tcp.steps"), (4, 28));
    assert_eq!(at(2, "tcp.steps[1].expect"), (5, 84));
    assert_eq!(at(2, "tcp.steps[7]"), (5, 48));
    assert_eq!(at(9, "tcp"), (1, 1));
    let complaint = Complaint { check: 0, field: "ping.count".into(), problem: "must be 1 to 1000, is 5".into() };
    let error = loaded.refuse([complaint]).unwrap_err();
    assert!(error.to_string().starts_with("checks.json:3:48: \"ping.count\" in check \"a\": must be 1 to 1000, is 5\n  3 |"), "{error}");
    assert_eq!(loaded.refuse([]), Ok(()));
}
