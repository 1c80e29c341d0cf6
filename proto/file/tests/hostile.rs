//! Files that are broken, enormous or malicious: they are refused in bounded time and memory, and never end the process.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use proptest::{prelude::*, sample::Index};

use super::said;
use crate::file::{Format, LARGEST_FILE_BYTES, load, node::MOST_NODES, parse};

const GOOD: &str = r#"{"monitors": [{"name": "m", "address": "https://[::1]:1", "labels": {"a": "b"}, "tls": {}}],
 "defaults": {"interval": "1m 30s", "count": 3, "labels": {"a": 1}, "address_family": "ipv4"},
 "checks": [{"name": "é😀", "interval": 1.5, "ping": {"host": "h", "max_loss_percent": 1e1, "dont_fragment": true}},
  {"name": "b", "service": "https", "host": "h", "port": 80, "path": "/\u00e9", "server_number": 4},
  {"name": "c", "tcp": {"host": "h", "port": 1, "steps": [{"send": "x\r\n"}, {"expect_regex": "^2"}]}}]}"#;

const GOOD_YAML: &str = "# Checks\n---\nmonitors: []\ndefaults:\n  interval: 1m 30s\n  labels: {a: 1, \"b\": 'c'}\nchecks:\n- name: é😀\n  \
     ping:\n    host: h\n    max_loss_percent: 1.5\n- name: >-\n    folded\n    name\n  https: # the page\n    url: https://h/?a=b#c\n    body: |\n      \
     one\n      two\n    expect:\n      status:\n      - 200\n      - 404\n- {name: c, service: TCP, host: h, port: 80}\n...\n";

#[test]
fn bad_json_is_told_with_its_line_and_column() {
    for (text, line) in [
        ("{\"checks\": [}", "checks.json:1:13: not valid JSON: expected value"),
        ("[\n  {\"name\": \"a\",}\n]", "checks.json:2:16: not valid JSON: trailing comma"),
        ("[1,]", "checks.json:1:4: not valid JSON: trailing comma"),
        ("[{name: 1}]", "checks.json:1:3: not valid JSON: key must be a string"),
        ("// checks\n[]", "checks.json:1:1: not valid JSON: expected value"),
        ("[] []", "checks.json:1:4: not valid JSON: trailing characters"),
        ("[\"é\" 1]", "checks.json:1:6: not valid JSON: expected \",\" or \"]\""),
        ("[{\"a\": 1\n\n", "checks.json:3:1: not valid JSON: the file ends while parsing an object"),
        ("{'checks': []}", "checks.json:1:2: not valid JSON: key must be a string"),
        ("[010]", "checks.json:1:3: not valid JSON: invalid number"),
        ("[NaN]", "checks.json:1:2: not valid JSON: expected value"),
        ("[1e999]", "checks.json:1:6: not valid JSON: number out of range"),
        ("[\"\\ud800\"]", "checks.json:1:9: not valid JSON: unexpected end of hex escape"),
        ("[\"a\nb\"]", "checks.json:2:1: not valid JSON: control character (\\u0000-\\u001F) found while parsing a string"),
    ] {
        assert_eq!(said(text, Format::Json), [line], "{text}");
    }
}

#[test]
fn bad_yaml_is_told_with_its_line_and_column() {
    const MARKED: &str = "anchors, aliases and tags (&name, *name, !tag) are not read; write the value out";
    for (text, line) in [
        ("- &a {name: a}\n- *a\n", format!("checks.yaml:1:3: {MARKED}")),
        ("- name: !!str 5\n", format!("checks.yaml:1:9: {MARKED}")),
        ("- {name: a}\n---\n- {name: b}\n", "checks.yaml:2:1: a second document begins here; a file of checks is one document".into()),
        ("- {[a]: b}\n", "checks.yaml:1:4: the name of a field must be text".into()),
        ("- name: a\n  name: b\n  ping: {host: h}\n", "checks.yaml:2:3: \"name\" is given twice; the first is in line 1".into()),
    ] {
        assert_eq!(said(text, Format::Yaml), [line], "{text}");
    }
    for text in ["- name: \"a\n", "a: b: c\n", "checks:\n\t- name: a\n", "- {name: a\n- b\n", "- *nowhere\n", "%YAML 9.9 x\n---\n- a\n"] {
        let lines = said(text, Format::Yaml);
        assert!(lines.len() == 1 && lines[0].starts_with("checks.yaml:"), "{lines:?}");
    }
}

#[test]
fn an_empty_file_says_so() {
    for (text, format) in
        [("", Format::Json), (" \n", Format::Json), ("", Format::Yaml), ("# nothing\n", Format::Yaml), ("---\n", Format::Yaml)]
    {
        let lines = said(text, format);
        assert!(lines.len() == 1 && lines[0].ends_with(": is empty; give at least one check"), "{lines:?}");
    }
}

#[test]
fn a_byte_order_mark_is_no_matter_and_a_nul_byte_is() {
    let text = "\u{feff}[{\"name\":\"a\",\"ping\":{\"host\":\"h\"}}]";
    assert_eq!(Format::of("checks", text), Format::Json);
    assert!(parse(text, "checks", Format::Json).is_ok());
    assert_eq!(said("[\n\"a\0\"]", Format::Json), ["checks.json:2:3: this is a NUL byte; a file of checks is text"]);
}

#[test]
fn the_format_is_known_by_the_extension_or_else_by_the_text() {
    assert_eq!(Format::of("a.json", "- name: x"), Format::Json);
    assert_eq!(Format::of("a.YML", "{}"), Format::Yaml);
    assert_eq!(Format::of("a.conf", "\n [1]"), Format::Json);
    assert_eq!(Format::of("-", "checks: []"), Format::Yaml);
}

#[test]
fn depth_and_number_of_values_are_bounded() {
    for (text, format) in [
        ("[".repeat(100_000), Format::Json),
        ("{\"a\":".repeat(100_000), Format::Json),
        ("[".repeat(100_000), Format::Yaml),
        ("- ".repeat(100_000), Format::Yaml),
        ("? ".repeat(100_000), Format::Yaml),
        ("{a: ".repeat(100_000), Format::Yaml),
    ] {
        let lines = said(&text, format);
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
    assert_eq!(said(&"[".repeat(33), Format::Json), ["checks.json:1:33: values are nested deeper than 32"]);
    let lines = said(&format!("[{}1]", "1,".repeat(MOST_NODES)), Format::Json);
    assert_eq!(lines, [format!("checks.json:1:{}: the file has more than 1000000 values", MOST_NODES * 2)]);
}

#[test]
fn a_billion_laughs_are_refused_at_the_first() {
    let mut bomb = String::from("a0: &a0 [lol, lol]\n");
    for level in 1..40 {
        let _ = writeln!(bomb, "a{level}: &a{level} [*a{}, *a{}]", level - 1, level - 1);
    }
    let lines = said(&bomb, Format::Yaml);
    assert!(lines.len() == 1 && lines[0].starts_with("checks.yaml:1:") && lines[0].contains("anchors"), "{lines:?}");
}

#[test]
fn what_is_not_a_file_of_text_is_refused_before_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let refusal = |path: &Path| load(path).unwrap_err().lines().next().unwrap().replace(&path.display().to_string(), "FILE");
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    assert_eq!(refusal(folder.path()), "FILE: is a directory; give a file of checks");
    assert_eq!(refusal(&folder.path().join("nowhere")), "FILE: can't be read: there is no such file");
    assert_eq!(refusal(Path::new("/dev/zero")), "FILE: is not a regular file; give \"-\" to read from a pipe");
    assert_eq!(refusal(&write("latin.json", b"[\n \"caf\xe9\"]")), "FILE:2:6: this is not UTF-8");
    assert_eq!(refusal(&write("wide.json", b"\xff\xfe[\0]\0")), "FILE: is UTF-16; save it as UTF-8");
    assert_eq!(refusal(&write("none.yaml", b"")), "FILE: is empty; give at least one check");

    let huge = folder.path().join("huge.json");
    fs::File::create(&huge).unwrap().set_len(100_000_000).unwrap();
    assert_eq!(refusal(&huge), "FILE: is larger than 16 MiB, the most that is read");

    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(refusal(&pipe), "FILE: is not a regular file; give \"-\" to read from a pipe");

    let good = write("good.json", GOOD.as_bytes());
    assert_eq!(load(&good).unwrap().file.checks.len(), 3);
}

#[test]
fn a_text_beyond_the_bound_is_refused() {
    let text = " ".repeat(usize::try_from(LARGEST_FILE_BYTES).unwrap() + 1);
    assert_eq!(said(&text, Format::Json), ["checks.json: is larger than 16 MiB, the most that is read"]);
}

#[test]
fn the_examples_that_are_mutated_below_are_good() {
    assert!(parse(GOOD_YAML, "good.yaml", Format::Yaml).is_ok());
    // JSON is YAML, but for the escapes of JSON alone.
    let (json, yaml) = (parse(GOOD, "good.json", Format::Json).unwrap(), parse(GOOD, "good.yaml", Format::Yaml).unwrap());
    assert_eq!(json.file, yaml.file);
    assert_eq!(json.locate(2, "tcp.steps[1].expect_regex"), yaml.locate(2, "tcp.steps[1].expect_regex"));
}

/// Whatever the text, reading ends, and an error has something to say, within the text.
fn ends_well(text: &str) {
    for format in [Format::Json, Format::Yaml] {
        if let Err(error) = parse(text, "checks", format) {
            assert!(!error.problems().is_empty());
            assert!(!error.to_string().is_empty());
            for position in error.problems().iter().filter_map(|problem| problem.position) {
                assert!(position.line >= 1 && position.column >= 1, "{position:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        ends_well(&text);
    }

    #[test]
    fn text_of_syntax_is_read_or_refused(text in "[\\[\\]{}:,\"'\\-?&*!|>#%@ \\n\\ta0.~\\\\]{0,60}") {
        ends_well(&text);
    }

    #[test]
    fn a_mutated_file_is_read_or_refused(
        good in prop::sample::select(vec![GOOD, GOOD_YAML]),
        at in any::<Index>(),
        length in 0_usize..20,
        new in "[\\[\\]{}:,\"'a0 \\\\\\n\\t#|>?&*!-]{0,5}",
    ) {
        let characters: Vec<char> = good.chars().collect();
        let from = at.index(characters.len());
        let to = (from + length).min(characters.len());
        let mutated: String = characters[..from].iter().copied().chain(new.chars()).chain(characters[to..].iter().copied()).collect();
        ends_well(&mutated);
    }

    #[test]
    fn every_place_that_json_finds_yaml_finds_too(names in prop::collection::vec("[a-zé😀 ]{1,9}", 1..5), gap in "[ \\n]{0,3}") {
        let checks: Vec<String> =
            names.iter().enumerate().map(|(n, name)| format!("{{\"name\":{gap}\"{name}{n}\",{gap}\"ping\" :{{\"host\": \"h\"}}}}")).collect();
        let text = format!("[{gap}{}{gap}]", checks.join(&format!("{gap},")));
        let (json, yaml) = (parse(&text, "a", Format::Json).unwrap(), parse(&text, "a", Format::Yaml).unwrap());
        for check in 0..names.len() {
            for field in ["name", "ping.host", "ping.count"] {
                prop_assert_eq!(json.locate(check, field), yaml.locate(check, field));
            }
        }
    }
}
