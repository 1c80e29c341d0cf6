//! What the manager must not know, kept by a test.

use std::{fs, path::Path};

use vantage_contract::descriptors;

/// The sources of the manager that are not tests, with their paths, each without its `#[cfg(test)]` end.
fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        // The one adapter that knows the kinds, because it speaks another product's names.
        let exempt = ["tests.rs", "fabric.rs", "ignorance.rs", "blackbox.rs", "target"].contains(&name);
        if path.is_dir() && !exempt {
            sources(&path, found);
        } else if name.ends_with(".rs") && !exempt {
            let text = fs::read_to_string(&path).unwrap();
            let shipped = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            found.push((path.display().to_string(), shipped));
        }
    }
}

#[test]
fn the_manager_has_never_heard_of_ping() {
    let mut found = Vec::new();
    sources(Path::new(env!("CARGO_MANIFEST_DIR")), &mut found);
    assert!(found.len() > 15, "{} files", found.len());
    let mut unknown = vec!["Report::".to_owned(), "probe_result".to_owned(), "probe::Kind".to_owned()];
    for message in ["vantage.v1.ProbeResult", "vantage.v1.Probe"] {
        let message = descriptors().get_message_by_name(message).unwrap();
        for field in message.oneofs().flat_map(|oneof| oneof.fields().collect::<Vec<_>>()) {
            unknown.push(field.kind().as_message().unwrap().name().to_owned());
            // Two kinds are also schemes of addresses, which links have to tell apart.
            if !["http", "https"].contains(&field.name()) {
                unknown.push(format!("\"{}\"", field.name()));
            }
        }
    }
    for (path, text) in &found {
        let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for word in &unknown {
            assert!(!code.iter().any(|line| line.contains(word.as_str())), "{path} knows {word}");
        }
    }
}
