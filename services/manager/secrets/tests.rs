use std::{fs, time::Duration};

use tempfile::TempDir;
use vantage_contract::{
    file::FileError,
    v1::{Probe, Start},
};

use super::*;
use crate::{
    config::{Additions, EMBEDDED, Setup, Wrong},
    seal::Seal,
};

/// A folder with a file of checks and what it names.
struct Place(TempDir);

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    fn load(&self, text: &str) -> Result<Setup, Wrong> {
        let path = self.0.path().join("checks.json");
        fs::write(&path, text).unwrap();
        let judge = |_: &Probe| Ok(Duration::from_secs(5));
        Setup::load(&path, &Additions::default(), &judge)
    }

    fn wrong(&self, text: &str) -> String {
        let Err(Wrong::File(error)) = self.load(text) else { panic!("it is not the file that is wrong") };
        FileError::lines(&error).collect::<Vec<_>>().join("\n")
    }
}

/// A monitor of that entry, and one check with that password and body.
fn written(monitor: &str, password: &str, more: &str) -> String {
    format!(
        "{{\"monitors\": [{{\"name\": \"m\", {monitor}}}],\n \"checks\": [{{\"name\": \"a\", \"http\": {{\"url\": \"u\"{more},\n  \
         \"auth\": {{\"basic\": {{\"username\": \"joe\", \"password\": {password}}}}}}}}}, {{\"name\": \"b\", \"ping\": {{\"host\": \"localhost\"}}}}]}}"
    )
}

const HERE: &str = r#""address": "127.0.0.1:1""#;
const FILE: &str = r#"{"file": "password"}"#;

/// Whether an order has this, anywhere.
fn has(start: &Start, text: &str) -> bool {
    prost::Message::encode_to_vec(start).windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn what_files_and_variables_say_goes_into_the_orders_and_nowhere_else() {
    let place = Place::new(&[("password", "hunter2\n"), ("body.txt", "a\nb\n")]);
    let setup = place.load(&written(HERE, FILE, r#", "body_file": "body.txt""#)).unwrap();
    let order = &setup.plan.monitors["m"]["a"];
    assert!(has(order, "hunter2") && !has(order, "hunter2\n") && has(order, "a\nb\n") && !has(order, "body.txt"));
    assert!(setup.checks.iter().all(|check| !format!("{check:?}").contains("hunter2") && !are_in(check)));
    assert!(!format!("{setup:?}").contains("hunter2"));
    let names: Vec<_> = setup.files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["body.txt", "password"]);
    let named = place.load(&written(HERE, r#"{"env": "CARGO_PKG_NAME"}"#, "")).unwrap();
    assert!(has(&named.plan.monitors["m"]["a"], "vantage-manager"));
    let embedded = written(HERE, FILE, "").split_once(",\n").map(|(_, rest)| format!("{{{rest}")).unwrap();
    assert!(has(&place.load(&embedded).unwrap().plan.monitors[EMBEDDED]["a"], "hunter2"));
}

#[test]
fn a_monitor_that_looks_them_up_is_told_their_names_alone() {
    let place = Place::new(&[]);
    let monitor = format!(r#"{HERE}, "secrets": "monitor""#);
    let setup = place.load(&written(&monitor, r#"{"file": "/nowhere/password"}"#, "")).unwrap();
    assert!(has(&setup.plan.monitors["m"]["a"], "/nowhere/password") && setup.files.is_empty());
    let relative = place.wrong(&written(&monitor, FILE, ""));
    assert!(relative.contains(":3:") && relative.contains("must be an absolute path: monitor \"m\" looks it up"), "{relative}");
}

#[test]
fn what_is_missing_is_told_with_line_and_column() {
    let place = Place::new(&[("password", "\u{0}\u{fffd}"), ("long", &"x".repeat(9000))]);
    for (password, problem) in [
        (r#"{"file": "none"}"#, "none is not there"),
        (r#"{"file": "long"}"#, "long is longer than 8192 bytes"),
        (r#"{"file": "."}"#, "is not a regular file"),
        (r#"{"env": "VANTAGE_NOT_SET"}"#, "the variable VANTAGE_NOT_SET is not set"),
    ] {
        let said = place.wrong(&written(HERE, password, ""));
        assert!(said.contains(":3:6") && said.contains(": \"http.auth.basic.password.") && said.ends_with(problem), "{said}");
    }
    fs::write(place.0.path().join("password"), [0xff]).unwrap();
    let said = place.wrong(&written(HERE, FILE, ""));
    assert!(said.ends_with("password is not UTF-8"), "{said}");
}

#[test]
fn what_was_put_in_place_is_judged_too() {
    let place = Place::new(&[("password", "hunter2")]);
    let path = place.0.path().join("checks.json");
    fs::write(&path, written(HERE, FILE, "")).unwrap();
    let judge = |probe: &Probe| match are_in(&Check { probe: Some(probe.clone()), ..Check::default() }) {
        false => Ok(Duration::from_secs(5)),
        true => Err(("http.auth.basic.password".to_owned(), "is odd".to_owned())),
    };
    let said = Setup::load(&path, &Additions::default(), &judge).unwrap_err().lines().join("\n");
    assert!(said.contains(":3:") && said.ends_with("is odd"), "{said}");
}

#[test]
fn no_secret_goes_over_a_network_in_the_clear() {
    let place = Place::new(&[("password", "hunter2")]);
    for password in [FILE, r#"{"value": "hunter2"}"#] {
        let said = place.wrong(&written(r#""address": "http://lab:1""#, password, ""));
        assert!(said.contains("would go to monitor \"m\" over the network in the clear") && !said.contains("hunter2"), "{said}");
    }
    for sound in [r#""address": "https://lab:1""#, r#""address": "[::1]:1""#] {
        place.load(&written(sound, FILE, "")).unwrap();
    }
    place.load(&written(r#""address": "lab:1", "secrets": "monitor""#, r#"{"file": "/p"}"#, "")).unwrap();
}

#[test]
fn a_changed_secret_is_a_changed_order_that_nobody_can_guess_from() {
    let place = Place::new(&[("password", "hunter2")]);
    let seal = Seal::kept_in(None).unwrap();
    let plan = |seal: &Seal| {
        let mut plan = place.load(&written(HERE, FILE, "")).unwrap().plan;
        plan.seal(seal);
        plan.monitors["m"].clone()
    };
    let before = plan(&seal);
    assert_eq!(before, plan(&seal));
    assert_ne!(before["a"].revision, plan(&Seal::kept_in(None).unwrap())["a"].revision, "by a key that nobody has");
    fs::write(place.0.path().join("password"), "hunter3").unwrap();
    let after = plan(&seal);
    let changes = plan::diff(&before, &after);
    assert_eq!((changes.stops.len(), changes.starts.len(), changes.starts[0].check.as_ref().unwrap().name.as_str()), (0, 1, "a"));
    // What is measured is the same; the rest tells that its secrets are not.
    let (one, other) = (before["a"].revision.split_once('.').unwrap(), after["a"].revision.split_once('.').unwrap());
    assert!(one.0 == other.0 && one.1 != other.1, "{one:?} {other:?}");
    assert!(!before["b"].revision.contains('.'));
}
