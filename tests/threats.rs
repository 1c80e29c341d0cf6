//! The threat model is a page of claims: each names the test that holds it, and those tests exist.

use std::{collections::BTreeSet, fs, path::Path};

/// The names of all functions in the Rust files below a folder.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            names.extend(text.lines().filter_map(|line| Some(line.split_once("fn ")?.1.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn every_claim_of_the_threat_model_has_its_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = BTreeSet::new();
    functions(&root.join("tests"), &mut known);
    functions(&root.join("services"), &mut known);
    let page = fs::read_to_string(root.join("deploy/threat-model.md")).unwrap();
    let mut claims = 0;
    let mut is_claimed = false;
    for row in page.lines() {
        is_claimed = row.ends_with("| held by |") || (is_claimed && row.starts_with('|'));
        if !is_claimed || row.ends_with("| held by |") || row.starts_with("|---") {
            continue;
        }
        claims += 1;
        let held_by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let named: Vec<&str> = held_by.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "nothing holds: {row}");
        for name in named {
            let exists = if name.contains('/') { root.join(name).exists() } else { known.contains(name) };
            assert!(exists, "{name} is no test: {row}");
        }
    }
    assert!(claims > 20, "the page has {claims} claims");
}
