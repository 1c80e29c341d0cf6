//! Whose certificates they are, and what is wrong with them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{KeyPair, PublicKeyData as _};
use vantage_daemon::{
    access::{ROLE_URI, Role},
    exit::{Exit, Fatal},
    tls::{
        certificate::{Facts, Name, public_key},
        expiry::instant_text,
        files,
    },
};

/// How long before the end it is said.
const SOON: Duration = Duration::from_secs(30 * 86_400);

/// The day, for people.
pub(super) fn date(instant: SystemTime) -> String {
    instant_text(instant).split('T').next().unwrap_or_default().to_owned()
}

/// A table of the certificates, and what is wrong; 1 if something is.
pub(super) fn show(paths: &[PathBuf], now: SystemTime) -> Result<(String, Exit), Fatal> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            let unreadable = |error: std::io::Error| Fatal::new(Exit::OsError, format!("read {}: {error}", path.display()));
            for entry in fs::read_dir(path).map_err(unreadable)? {
                found.push(entry.map_err(unreadable)?.path());
            }
        } else {
            found.push(path.clone());
        }
    }
    found.retain(|path| paths.contains(path) || path.extension().is_some_and(|end| end == "pem"));
    found.sort();
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(["FILE", "WHOSE", "ROLE", "NAMES", "ENDS", "SHA-256"]);
    let (mut warnings, mut is_wrong) = (Vec::new(), false);
    for path in &found {
        for der in files::certificates(path)? {
            let facts = Facts::read(&der).map_err(|why| Fatal::new(Exit::Config, format!("{}: {why}", path.display())))?;
            let names = facts.names.iter().filter(|name| !matches!(name, Name::Uri(uri) if uri.starts_with(ROLE_URI)));
            let names = names.map(ToString::to_string).collect::<Vec<_>>().join(" ");
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            table.add_row([file, facts.subject.clone(), role(&facts), names, date(facts.not_after), facts.fingerprint.clone()]);
            for (warning, wrong) in warnings_of(path, &der, &facts, now) {
                warnings.push(format!("{}: {warning}\n", path.display()));
                is_wrong |= wrong;
            }
        }
    }
    let exit = if is_wrong { Exit::SomeFailed } else { Exit::Ok };
    let table: String = table.to_string().lines().map(|line| format!("{}\n", line.trim())).collect();
    Ok((table + &warnings.concat(), exit))
}

/// What the holder is to others.
fn role(facts: &Facts) -> String {
    if facts.is_authority {
        return "authority".into();
    }
    let monitor = format!("{ROLE_URI}monitor");
    let is_monitor = facts.names.iter().any(|name| matches!(name, Name::Uri(uri) if *uri == monitor));
    match Role::said_by(facts) {
        Some(role) => role.word().to_owned(),
        None if is_monitor => "monitor".to_owned(),
        None => "none".to_owned(),
    }
}

/// What there is to say, and whether it is wrong already.
fn warnings_of(path: &Path, der: &[u8], facts: &Facts, now: SystemTime) -> Vec<(String, bool)> {
    let mut warnings = Vec::new();
    let ends = instant_text(facts.not_after);
    match facts.not_after.duration_since(now) {
        Err(_) => warnings.push((format!("expired on {ends}"), true)),
        Ok(left) if left < SOON => warnings.push((format!("expires in {} days, on {ends}: `certs renew`", left.as_secs() / 86_400), false)),
        Ok(_) => {}
    }
    if now < facts.not_before {
        warnings.push((format!("not valid before {}", instant_text(facts.not_before)), true));
    }
    let key = path.with_extension("key");
    if let Ok(text) = fs::read_to_string(&key) {
        let mode = fs::metadata(&key).map(|metadata| metadata.permissions().mode() & 0o777).unwrap_or_default();
        if mode & 0o077 != 0 {
            warnings.push((format!("{} can be read by others (mode {mode:o}): chmod 600", key.display()), mode & 0o007 != 0));
        }
        let fits = KeyPair::from_pem(&text).ok().zip(public_key(der).ok()).map(|(pair, own)| pair.subject_public_key_info() == own);
        if fits == Some(false) {
            warnings.push((format!("{} is not its key", key.display()), true));
        }
    }
    warnings
}
