//! One program for all targets, each a codec that reads bytes of others.
//!
//! `VANTAGE_FUZZ=dns fuzz CORPUS` fuzzes one (libFuzzer's options follow); with `VANTAGE_SEEDS=CORPUS` it begins by writing its seeds there. Without
//! `VANTAGE_FUZZ` it prints the names of all.
#![no_main]

use std::{env, fs, sync::OnceLock};

use vantage_contract::file::{self, Format};
use vantage_probes::wire::fuzz::TARGETS;

/// What the chosen target does with bytes.
static RUN: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(init: choose(), |data: &[u8]| if let Some(run) = RUN.get() { run(data) });

/// Name, seeds and body of each target.
type Target = (&'static str, Vec<Vec<u8>>, fn(&[u8]));

/// The codecs of the probes, the files of checks, and what a monitor reads.
fn targets() -> impl Iterator<Item = Target> {
    let codecs = TARGETS.iter().map(|target| (target.name, target.seeds(), target.run));
    let sample = include_bytes!("../../deploy/checks.json").to_vec();
    let yaml =
        b"checks:\n- name: a\n  interval: 1m 30s\n  ping: {host: h, max_loss_percent: 1.5}\n- {name: c, service: TCP, host: h, port: 80}\n";
    let files: [Target; 2] = [
        ("checks_json", vec![sample], |data| checks(data, Format::Json)),
        ("checks_yaml", vec![yaml.to_vec()], |data| checks(data, Format::Yaml)),
    ];
    let readers = vantage_monitor::fuzz::TARGETS.iter().map(|target| (target.name, (target.seeds)(), target.run));
    codecs.chain(files).chain(readers)
}

fn choose() {
    let Ok(chosen) = env::var("VANTAGE_FUZZ") else {
        targets().for_each(|(name, ..)| println!("{name}"));
        std::process::exit(0);
    };
    let target = targets().find(|(name, ..)| *name == chosen);
    let (_, seeds, run) = target.unwrap_or_else(|| panic!("VANTAGE_FUZZ names no target: {chosen:?}"));
    if let Some(folder) = env::var_os("VANTAGE_SEEDS") {
        fs::create_dir_all(&folder).expect("the corpus can be written");
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(std::path::Path::new(&folder).join(format!("seed-{number}")), seed).expect("the corpus can be written");
        }
    }
    RUN.get_or_init(|| run);
}

/// A file that is understood as JSON and as YAML, of which JSON is a part, says the same as both; any other is refused, whatever it holds.
fn checks(data: &[u8], format: Format) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let other = if format == Format::Json { Format::Yaml } else { Format::Json };
    let Ok(loaded) = file::parse(text, "checks", format) else { return };
    if let Ok(again) = file::parse(text, "checks", other) {
        assert_eq!(loaded.file, again.file);
    }
}
