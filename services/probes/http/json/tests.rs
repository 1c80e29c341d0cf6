use super::*;

fn value(json: &str) -> prost_types::Value {
    fn of(value: &serde_json::Value) -> prost_types::Value {
        let kind = match value {
            serde_json::Value::Null => Kind::NullValue(0),
            serde_json::Value::Bool(is) => Kind::BoolValue(*is),
            serde_json::Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap()),
            serde_json::Value::String(text) => Kind::StringValue(text.clone()),
            serde_json::Value::Array(list) => Kind::ListValue(prost_types::ListValue { values: list.iter().map(of).collect() }),
            serde_json::Value::Object(members) => {
                Kind::StructValue(prost_types::Struct { fields: members.iter().map(|(name, value)| (name.clone(), of(value))).collect() })
            }
        };
        prost_types::Value { kind: Some(kind) }
    }
    of(&serde_json::from_str(json).unwrap())
}

/// What a path leads to, as JSON writes it.
fn found(body: &str, path: &str) -> Vec<String> {
    let path = Path::parse(path).unwrap();
    let body = Node::read(body.as_bytes()).unwrap();
    let mut search = Search::new(&body, &path);
    search.run().unwrap().into_iter().map(Node::to_string).collect()
}

fn expecting(spec: HttpJsonExpectation) -> JsonExpectation {
    JsonExpectation::parse(0, &spec).unwrap()
}

fn path(path: &str) -> HttpJsonExpectation {
    HttpJsonExpectation { path: path.into(), ..HttpJsonExpectation::default() }
}

#[test]
fn paths_lead_where_the_standard_says() {
    let body =
        r#"{"o": {"j j": {"k.k": 3}, "j": 1}, "a": [5, 3, [{"b": "j"}, {"b": "k", "c": null}], {"b": "kilo"}], "e": "f", "n": null}"#;
    for (path, expected) in [
        ("$.o['j j']['k.k']", &["3"][..]),
        ("$.o[*]", &[r#"{"k.k":3}"#, "1"]),
        ("$.a[-1]", &[r#"{"b":"kilo"}"#]),
        ("$.a[9]", &[]),
        ("$.a[0:2]", &["5", "3"]),
        ("$.a[::-2]", &[r#"{"b":"kilo"}"#, "3"]),
        ("$.a[5:1:-1][0].b", &[r#""j""#]),
        ("$.a[1,0]", &["3", "5"]),
        ("$..b", &[r#""kilo""#, r#""j""#, r#""k""#]),
        ("$..[?@.b == 'j'].b", &[r#""j""#]),
        ("$.a[?@ > 3]", &["5"]),
        ("$.a[?@ <= 3.0]", &["3"]),
        ("$.a[2][?@.c]", &[r#"{"b":"k","c":null}"#]),
        ("$.a[2][?!@.c]", &[r#"{"b":"j"}"#]),
        ("$.a[2][?@.c == null]", &[r#"{"b":"k","c":null}"#]),
        ("$.a[2][?@.x == @.y].b", &[r#""j""#, r#""k""#]),
        ("$.a[2][?(@.b == 'j' || @.b == 'k') && !(@.b == 'k')].b", &[r#""j""#]),
        ("$.a[?length(@) == 2][0].b", &[r#""j""#]),
        ("$.a[?count(@.*) == 1].b", &[r#""kilo""#]),
        ("$.a[?value(@..b) == 'kilo'].b", &[r#""kilo""#]),
        ("$.a[?match(@.b, 'k.*o')].b", &[r#""kilo""#]),
        ("$..[?search(@.b, 'k')].b", &[r#""kilo""#, r#""k""#]),
        ("$..[?match(@.b, 'k')].b", &[r#""k""#]),
        ("$.a[?match(@.b, $.e)]", &[]),
        ("$.n", &["null"]),
        ("$['n','e']", &["null", r#""f""#]),
    ] {
        let mut found = found(body, path);
        // Which of the descendants comes first is for members of objects not said; and elements come before what is in them.
        if path.starts_with("$..") {
            found.sort();
            let mut expected: Vec<_> = expected.iter().map(|text| (*text).to_owned()).collect();
            expected.sort();
            assert_eq!(found, expected, "{path}");
        } else {
            assert_eq!(found, expected, "{path}");
        }
    }
}

#[test]
fn what_is_no_path_is_refused() {
    for wrong in [
        "",
        "status",
        "$.",
        "$[",
        "$..",
        "$[?@.a = 1]",
        "$[?count(1) == 1]",
        "$[?mine(@)]",
        "$[?@.* == 1]",
        "$[1.5]",
        "$[9007199254740993]",
    ] {
        assert_eq!(
            JsonExpectation::parse(3, &path(wrong)).err().map(|invalid| invalid.field).as_deref(),
            Some("expect.json[3].path"),
            "{wrong}"
        );
    }
    assert!(Path::parse(&format!("$.{}", "a".repeat(1023))).is_err());
    for opening in ["(", "[?(", "[?count($", "[?!("] {
        assert!(Path::parse(&format!("$[?{}", opening.repeat(1000 / opening.len()))).is_err());
    }
}

#[test]
fn values_are_expected_at_a_path() {
    let body = br#"{"status": "ok", "count": 3, "exact": 9007199254740993, "nodes": [{"up": true}, {"up": false}], "none": []}"#;
    let judge = |spec: HttpJsonExpectation| judge(&[expecting(spec)], body);
    let equals = |at: &str, json: &str| HttpJsonExpectation { equals: Some(value(json)), ..path(at) };
    let matches = |at: &str, regex: &str| HttpJsonExpectation { matches: regex.into(), ..path(at) };
    let absent = |spec: HttpJsonExpectation| HttpJsonExpectation { absent: true, ..spec };
    let all = |spec: HttpJsonExpectation| HttpJsonExpectation { all: true, ..spec };
    for holds in [
        path("$.status"),
        path("$.none"),
        equals("$.status", r#""ok""#),
        equals("$.count", "3.0"),
        equals("$.exact", "9007199254740992"),
        equals("$.nodes", r#"[{"up": true}, {"up": false}]"#),
        equals("$.nodes[*].up", "false"),
        matches("$.status", "^o"),
        matches("$.count", "^3$"),
        matches("$.nodes[1]", r#"^\{"up":false\}$"#),
        absent(path("$.error")),
        absent(path("$.none[*]")),
        absent(equals("$.status", r#""down""#)),
        all(matches("$.nodes[*].up", "^(true|false)$")),
    ] {
        assert_eq!(judge(holds.clone()), Ok(()), "{holds:?}");
    }
    for (fails, why) in [
        (path("$.error"), "$.error leads to nothing"),
        (path("$.none[*]"), "$.none[*] leads to nothing"),
        (equals("$.status", r#""down""#), r#"$.status is "ok"; expected one equal to "down""#),
        (equals("$.status", "null"), r#"$.status is "ok"; expected one equal to null"#),
        (equals("$.error", "null"), "$.error leads to nothing; expected one equal to null"),
        (matches("$.count", "^4"), "$.count is 3; expected one matching /^4/"),
        (absent(path("$.status")), r#"$.status is "ok", and should lead to nothing"#),
        (absent(equals("$.nodes[*].up", "true")), "$.nodes[*].up is true and 1 more; none should be equal to true"),
        (all(equals("$.nodes[*].up", "true")), "$.nodes[*].up is true and 1 more; all should be equal to true"),
        (all(equals("$.none[*]", "true")), "$.none[*] leads to nothing; all should be equal to true"),
    ] {
        assert_eq!(judge(fails), Err(Wrong::Unexpected(why.to_owned())));
    }
    let refused = |spec: HttpJsonExpectation| JsonExpectation::parse(0, &spec).err().unwrap().field;
    assert_eq!(refused(all(path("$"))), "expect.json[0].all");
    assert_eq!(refused(all(absent(equals("$", "1")))), "expect.json[0].all");
    assert_eq!(refused(matches("$", "(")), "expect.json[0].matches");
    assert_eq!(refused(HttpJsonExpectation { equals: Some(prost_types::Value::default()), ..path("$") }), "expect.json[0].equals");
}

#[test]
fn what_is_not_json_never_passes() {
    let nothing = HttpJsonExpectation { absent: true, ..path("$.error") };
    let expectations = [expecting(nothing)];
    for body in ["", " ", "<html>", "{", "{} {}", "{'a': 1}", "[1,]", "\"\u{1}\"", "nul", "01", "NaN", "1e999"] {
        assert!(
            matches!(judge(&expectations, body.as_bytes()), Err(Wrong::Unexpected(why)) if why.starts_with("the body is not JSON")),
            "{body}"
        );
    }
    assert!(judge(&expectations, b"\"\xff\"").is_err());
    assert_eq!(judge(&expectations, b"\xef\xbb\xbf {}"), Ok(()));
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(judge(&expectations, deep.as_bytes()), Err(Wrong::Unexpected(_))));
}

#[test]
fn hostile_bodies_cost_bounded_memory_and_steps() {
    let many = format!("[{}0]", "0,".repeat(1 << 20));
    assert!(matches!(judge(&[expecting(path("$"))], many.as_bytes()), Err(Wrong::TooLarge(_))));
    let flat = format!("[{}0]", "0,".repeat(100_000));
    let deep = format!("{}{}1{}", "[[],[],".repeat(60), "[0,".repeat(60), "]".repeat(120));
    let texts =
        format!("[{}{{}}]", (0..20_000).map(|number| format!(r#"{{"t":"{}","p":"(a|{number})*"}},"#, "a".repeat(100))).collect::<String>());
    for (body, path_to_it) in [
        (&flat, "$[?count($[*]) > 0]"),
        (&flat, "$[?@ == $[99999] && $[?@ == 1]]"),
        (&deep, "$..*..*..*..*..*"),
        (&deep, "$..[?count($..*..*..*) > 0]"),
        (&texts, "$[?search(@.t, @.p)]"),
        (&texts, "$[?$[?@.t == 'x']]"),
    ] {
        assert!(matches!(judge(&[expecting(path(path_to_it))], body.as_bytes()), Err(Wrong::TooLarge(_))), "{path_to_it}");
    }
    // What is linear is found.
    assert_eq!(found(&flat, "$[?@ == 1]").len(), 0);
    assert_eq!(found(&flat, "$..*").len(), 100_001);
    assert_eq!(found(&texts, "$[?match(@.t, 'a+')]").len(), 20_000);
}
