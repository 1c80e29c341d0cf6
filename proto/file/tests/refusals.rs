//! Bad files: each mistake with its exact sentence, at its place.

use super::{super::parse, refused, said};
use crate::file::Format;

#[test]
fn an_unknown_field_is_refused_at_its_place_with_what_was_meant() {
    let error = parse("[{\"name\": \"google\",\n  \"ping\": {\"host\": \"h\", \"cuont\": 3}}]", "checks.json", Format::Json).unwrap_err();
    assert_eq!(
        error.to_string(),
        "checks.json:2:25: unknown field \"cuont\" in ping; did you mean \"count\"?\n  \
         2 |   \"ping\": {\"host\": \"h\", \"cuont\": 3}}]\n    \
           |                         ^"
    );
    refused(
        r#""name":"a","ntp":{"server":"h","colour":3}"#,
        "unknown field \"colour\" in ntp; expected \"server\", \"port\", \"samples\", \"spacing\", \"max_offset\", \"max_stratum\", \"max_root_distance\", \"max_delay\" or \"version\"",
    );
    refused(r#""name":"a","intervall":"3s","ping":{"host":"h"}"#, "unknown field \"intervall\" in check \"a\"; did you mean \"interval\"?");
    refused(r#""name":"a","host":"h","ping":{"count":1}"#, "unknown field \"host\" in check \"a\"; it belongs into \"ping\"");
    assert_eq!(said(r#"{"chekcs":[]}"#, Format::Json), ["checks.json:1:2: unknown field \"chekcs\" in the file; did you mean \"checks\"?"]);
    assert_eq!(
        said("monitors:\n- adress: x\nchecks:\n- name: a\n  ping: {host: h}", Format::Yaml),
        ["checks.yaml:2:3: unknown field \"adress\" in a monitor without a name; did you mean \"address\"?"]
    );
}

#[test]
fn types_are_strict_in_both_formats() {
    let ping = |rest: &str| format!(r#""name":"a","ping":{{"host":"h",{rest}}}"#);
    for (check, sentence) in [
        (r#""count":"80""#, "\"count\" in ping: expected a whole number, found the text \"80\"; leave the quotes away"),
        (r#""count":"many""#, "\"count\" in ping: expected a whole number, found the text \"many\""),
        (r#""count":1.5"#, "\"count\" in ping: expected a whole number, found the number 1.5"),
        (r#""count":-1"#, "\"count\" in ping: must not be negative, is -1"),
        (r#""count":4294967296"#, "\"count\" in ping: expected a whole number from 0 to 4294967295, found the number 4294967296"),
        (r#""count":true"#, "\"count\" in ping: expected a whole number, found true"),
        (r#""count":null"#, "\"count\" in ping: has no value; give one, or leave the field out"),
        (r#""count":[1]"#, "\"count\" in ping: expected a whole number, found a list"),
        (r#""dont_fragment":"yes""#, "\"dont_fragment\" in ping: expected true or false, found the text \"yes\""),
        (r#""dont_fragment":1"#, "\"dont_fragment\" in ping: expected true or false, found the number 1"),
        (r#""max_loss_percent":"5""#, "\"max_loss_percent\" in ping: expected a number, found the text \"5\"; leave the quotes away"),
        (
            r#""spacing":"10""#,
            "\"spacing\" in ping: \"10\" has no unit; write it like \"250ms\", \"10s\" or \"2h\", or as a bare number of seconds",
        ),
        (r#""spacing":"soon""#, "\"spacing\" in ping: \"soon\" is not a duration; write it like \"250ms\", \"1m 30s\", \"2h\" or \"7d\""),
        (r#""spacing":-1"#, "\"spacing\" in ping: -1 must not be negative"),
        (
            r#""spacing":{"seconds":1}"#,
            "\"spacing\" in ping: expected a duration (\"250ms\", \"1m 30s\", or a number of seconds), found an object",
        ),
    ] {
        refused(&ping(check), sentence);
    }
    refused(r#""name":5,"ping":{"host":"h"}"#, "\"name\" in a check without a name: expected text, found the number 5; put it in quotes");
    refused(r#""name":"a","ping":"h""#, "\"ping\" in check \"a\": expected an object, found the text \"h\"");
    refused(r#""name":"a","ping":null"#, "\"ping\" in check \"a\": expected an object, found nothing");
    refused(r#""name":"a","probe":3"#, "\"probe\" in check \"a\": expected an object, found the number 3");
    refused(
        r#""name":"a","labels":[1],"ping":{"host":"h"}"#,
        "\"labels\" in check \"a\": expected an object of names and values, found a list",
    );
    refused(r#""name":"a","labels":{"b":[1]},"ping":{"host":"h"}"#, "\"b\" in labels: expected text, found a list");
    refused(r#""name":"a","tcp":{"host":"h","steps":{"send":"x"}}"#, "\"steps\" in tcp: expected a list, found an object");
    refused(r#""name":"a","http":{"url":"u","version":4}"#, "\"version\" in http: unknown value \"4\"; expected \"1.1\", \"2\" or \"3\"");
    refused(
        r#""name":"a","traceroute":{"host":"h","method":"icpm"}"#,
        "\"method\" in traceroute: unknown value \"icpm\"; did you mean \"icmp\"?",
    );
    refused(
        r#""name":"a","address_family":5,"ping":{"host":"h"}"#,
        "\"address_family\" in check \"a\": unknown value \"5\"; expected \"any\", \"ipv4\" or \"ipv6\"",
    );
    for (yaml, sentence) in [
        ("count: '80'", "\"count\" in ping: expected a whole number, found the text \"80\"; leave the quotes away"),
        (
            "count: 010",
            "\"count\" in ping: expected a whole number without a leading zero, found the number 010; some would read it as octal",
        ),
        ("count: 0x10", "\"count\" in ping: expected a whole number, found the text \"0x10\""),
        ("count:", "\"count\" in ping: has no value; give one, or leave the field out"),
        ("dont_fragment: yes", "\"dont_fragment\" in ping: expected true or false, found the text \"yes\""),
        ("max_loss_percent: .inf", "\"max_loss_percent\" in ping: expected a number, found the text \".inf\""),
    ] {
        let lines = said(&format!("- name: a\n  ping:\n    host: h\n    {yaml}\n"), Format::Yaml);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("checks.yaml:4:") && lines[0].ends_with(sentence), "{lines:?}");
    }
}

#[test]
fn a_check_has_one_kind() {
    assert_eq!(
        said("[{\"name\":\"a\",\n\"ping\":{\"host\":\"h\"},\n\"tcp\":{\"host\":\"h\"}}]", Format::Json),
        ["checks.json:3:1: \"tcp\" in check \"a\" excludes \"ping\" in line 2: give one of them"]
    );
    refused(
        r#""name":"a""#,
        "check \"a\" has no kind; give one of \"ping\", \"traceroute\", \"http\", \"https\", \"tcp\", \"udp\", \"dns\" or \"ntp\"",
    );
    refused(
        r#""name":"a","probe":{"timeout":"1s"}"#,
        "check \"a\" has no kind; give one of \"ping\", \"traceroute\", \"http\", \"https\", \"tcp\", \"udp\", \"dns\" or \"ntp\"",
    );
    refused(r#""name":"a","ping":{"host":"h"},"icmp":{"host":"h"}"#, "\"icmp\" is another spelling of \"ping\", which line 1 has given");
    refused(
        r#""name":"a","timeout":"1s","probe":{"timeout":"1s","ping":{"host":"h"}}"#,
        "\"timeout\" is given twice; the first is in line 1",
    );
    refused(r#""name":"a","ping":{"host":"h","host":"i"}"#, "\"host\" is given twice; the first is in line 1");
    refused(
        r#""name":"a","udp":{"host":"h","port":1,"text":"x","hex":"00"}"#,
        "\"hex\" in udp excludes \"text\" in line 1: give one of them",
    );
}

#[test]
fn what_the_flat_form_cant_say_is_refused() {
    for (check, sentence) in [
        (r#""service":"pnig","host":"h""#, "unknown service \"pnig\" in check \"a\"; did you mean \"ping\"?"),
        (
            r#""host":"h""#,
            "check \"a\" has no \"service\"; give one of \"ping\", \"traceroute\", \"http\", \"https\", \"tcp\", \"udp\", \"dns\" or \"ntp\"",
        ),
        (r#""service":"tcp","port":1"#, "check \"a\" has no \"host\""),
        (r#""service":"http""#, "check \"a\" has neither \"host\" nor \"url\""),
        (
            r#""service":"tcp","host":"h","port":"80""#,
            "\"port\" in check \"a\": expected a whole number up to 65535, found the text \"80\"",
        ),
        (
            r#""service":"ping","host":"h","port":65536"#,
            "\"port\" in check \"a\": expected a whole number up to 65535, found the number 65536",
        ),
        (r#""service":"ping","host":"h","query":"q""#, "\"query\" in check \"a\": the service \"ping\" has none"),
        (r#""service":"http","url":"u","port":80"#, "\"port\" in check \"a\" is beside \"url\", which says it all"),
        (
            r#""service":"http","host":"http://h/x""#,
            "\"host\" in check \"a\": \"http://h/x\" is neither a name nor an address; a whole URL is an \"url\"",
        ),
        (
            r#""service":"ping","host":"h","spacing":1"#,
            "\"spacing\" in check \"a\": the flat form has no room for it; write \"ping\": {…} in place of \"service\"",
        ),
        (r#""service":"ping","host":"h","tcp":{}"#, "\"tcp\" beside \"service\" in check \"a\": give one of the two"),
        (r#""service":"ping","hots":"h""#, "check \"a\" has no \"host\""),
        (r#""service":"ping","host":"h","intervall":3"#, "unknown field \"intervall\" in check \"a\"; did you mean \"interval\"?"),
        (r#""service":"ping","host":3"#, "\"host\" in ping: expected text, found the number 3; put it in quotes"),
        (
            r#""service":"ping","host":"h","server_number":1,"labels":{"server_number":2}"#,
            "\"server_number\" is given twice; the other is the label in line 1",
        ),
    ] {
        if check.contains("hots") {
            let lines = said(&format!("[{{\"name\":\"a\",{check}}}]"), Format::Json);
            assert_eq!(lines.len(), 2, "{lines:?}");
            assert!(lines[1].ends_with("unknown field \"hots\" in check \"a\"; did you mean \"host\"?"), "{lines:?}");
        } else {
            refused(&format!(r#""name":"a",{check}"#), sentence);
        }
    }
}

#[test]
fn a_file_must_keep_the_rules_of_the_contract() {
    for (check, sentence) in [
        (r#""ping":{"host":"h"}"#, "a check has no \"name\""),
        (r#""name":"","ping":{"host":"h"}"#, "\"name\" in check \"\": must not be empty"),
        (r#""name":"a\nb","ping":{"host":"h"}"#, "\"name\" in check \"a\\nb\": must not have control characters"),
        (r#""name":"a","interval":"99ms","ping":{"host":"h"}"#, "\"interval\" in check \"a\": must be 100 ms to 7 days, is 0.099s"),
        (r#""name":"a","interval":604801,"ping":{"host":"h"}"#, "\"interval\" in check \"a\": must be 100 ms to 7 days, is 604801s"),
        (r#""name":"a","timeout":0,"ping":{"host":"h"}"#, "\"timeout\" in check \"a\": must be 1 ms to 5 minutes, is 0s"),
        (r#""name":"a","timeout":"6m","ping":{"host":"h"}"#, "\"timeout\" in check \"a\": must be 1 ms to 5 minutes, is 360s"),
        (
            r#""name":"a","labels":{"b-c":"d"},"ping":{"host":"h"}"#,
            "\"labels\" in check \"a\": \"b-c\" must have letters, digits and \"_\" only, and no digit first",
        ),
        (
            r#""name":"a","labels":{"1":"d"},"ping":{"host":"h"}"#,
            "\"labels\" in check \"a\": \"1\" must have letters, digits and \"_\" only, and no digit first",
        ),
    ] {
        refused(check, sentence);
    }
    refused(
        &format!(r#""name":"a","labels":{{"b":"{}"}},"ping":{{"host":"h"}}"#, "x".repeat(257)),
        "\"labels\" in check \"a\": the value of \"b\" must not be longer than 256 bytes",
    );
    let long = "x".repeat(257);
    let lines = said(&format!(r#"[{{"name":"a","labels":{{"{long}":"b"}},"ping":{{"host":"h"}}}}]"#), Format::Json);
    assert!(lines[0].contains("\"labels\" in check \"a\"") && lines[0].ends_with("must not be longer than 256 bytes"), "{lines:?}");
    let many: Vec<String> = (0..33).map(|n| format!(r#""l{n}":"""#)).collect();
    refused(
        &format!(r#""name":"a","labels":{{{}}},"ping":{{"host":"h"}}"#, many.join(",")),
        "\"labels\" in check \"a\": 33 are too many, at most 32 are allowed",
    );
    let lines = said(&format!(r#"[{{"name":"{}","ping":{{"host":"h"}}}}]"#, "x".repeat(129)), Format::Json);
    assert!(lines[0].ends_with("must not be longer than 128 bytes"), "{lines:?}");
    assert_eq!(said("[]", Format::Json), ["checks.json:1:1: the file has no checks; give at least one"]);
    assert_eq!(said("{}", Format::Json), ["checks.json:1:1: the file has no checks; give at least one"]);
    assert_eq!(said("5", Format::Json), ["checks.json:1:1: expected an object with \"checks\", or a list of checks, found the number 5"]);
    assert_eq!(
        said("[\n{\"name\":\"google\",\"ping\":{\"host\":\"h\"}},\n{\"name\":\"google\",\"ping\":{\"host\":\"h\"}}]", Format::Json),
        ["checks.json:3:9: two checks have the name \"google\"; the first is in line 2"]
    );
}

#[test]
fn monitors_are_judged_once_and_at_their_place() {
    let with = |monitors: &str, defaults: &str, check: &str| {
        said(
            &format!(
                "{{\"monitors\":[{monitors}],\n\"defaults\":{{{defaults}}},\n\"checks\":[{{\"name\":\"a\",{check}\"ping\":{{\"host\":\"h\"}}}}]}}"
            ),
            Format::Json,
        )
    };
    let paris = r#"{"name":"paris","address":"p"}"#;
    for (lines, expected) in [
        (
            with(paris, "", r#""monitors":["pairs"],"#),
            "checks.json:3:34: \"monitors\" in check \"a\": unknown monitor \"pairs\"; did you mean \"paris\"?",
        ),
        (
            with(paris, r#""monitors":["rome"]"#, ""),
            "checks.json:2:24: \"monitors\" in defaults: unknown monitor \"rome\"; expected \"paris\"",
        ),
        (
            with(paris, "", r#""monitor_labels":{"x":"y"},"#),
            "checks.json:3:40: \"monitor_labels\" in check \"a\": no monitor of the file has these labels",
        ),
        (with(paris, r#""interval":1e9"#, ""), "checks.json:2:24: \"interval\" in defaults: must be 100 ms to 7 days, is 1000000000s"),
        (with(&format!("{paris},\n{paris}"), "", ""), "checks.json:2:9: two monitors have the name \"paris\"; the first is in line 1"),
        (
            with(r#"{"name":"m","address":"http://m","tls":{}}"#, "", ""),
            "checks.json:1:36: \"address\" in monitor \"m\": begins with \"http://\", beside \"tls\"; write \"https://\"",
        ),
        (
            with(r#"{"name":"m"}"#, "", ""),
            "checks.json:1:14: \"address\" in monitor \"m\": is missing; write it like \"http://host:54321\"",
        ),
        (
            with(r#"{"name":"m","address":"m","token_file":"t"}"#, "", ""),
            "checks.json:1:53: \"token_file\" in monitor \"m\": a token would go over the network in the clear; use an \"https://\" address",
        ),
        (
            with(r#"{"name":"m","address":"m","tls":{"key_file":"t"}}"#, "", ""),
            "checks.json:1:46: \"tls\" in monitor \"m\": \"certificate_file\" and \"key_file\" go together",
        ),
        (
            with(r#"{"name":"m","address":5}"#, "", ""),
            "checks.json:1:36: \"address\" in monitor \"m\": expected text, found the number 5; put it in quotes",
        ),
    ] {
        assert_eq!(lines, [expected]);
    }
}
