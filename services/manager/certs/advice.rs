//! What goes where.

use std::time::SystemTime;

use super::{
    folder::{AUTHORITY, Folder},
    holder::{Holder, Kind},
    show::date,
};

/// Of the authority.
pub(super) fn for_authority(folder: &Folder) -> String {
    format!(
        "{} has an authority now ({AUTHORITY}.pem) and a pair of files for each that it vouches for. {AUTHORITY}.key makes further ones: leave it here, or \
         better where no network leads. The rest goes to these places, where only the programs may read the keys.\n\n",
        folder.path().display()
    )
}

/// Of these holders.
pub(super) fn for_holders(folder: &Folder, holders: &[Holder], now: SystemTime) -> String {
    let monitors: Vec<&Holder> = holders.iter().filter(|holder| holder.kind == Kind::Monitor).collect();
    let dialled = monitors.first().map_or_else(|| "MONITOR".to_owned(), |monitor| monitor.dialled());
    let mut text = String::new();
    for holder in holders {
        let file = holder.file();
        text += &match holder.kind {
            Kind::Monitor => format!(
                "{name}: {AUTHORITY}.pem {file}.pem {file}.key\n    \
                 vantage-monitor serve --name {name} --listen 0.0.0.0:54321 --certificate-file {file}.pem --key-file {file}.key --client-ca-file {AUTHORITY}.pem\n\n",
                name = holder.name
            ),
            Kind::Manager => {
                let monitors: Vec<String> = monitors.iter().map(|monitor| entry(monitor, &file)).collect();
                let entries = match monitors.is_empty() {
                    true => String::new(),
                    false => format!("    \"monitors\": [{}]\n", monitors.join(",\n                 ")),
                };
                format!(
                    "{name}: {AUTHORITY}.pem {file}.pem {file}.key, beside the file of checks\n{entries}    \
                     the page for others: --http 0.0.0.0:8080 --http-certificate-file {file}.pem --http-key-file {file}.key --http-client-ca-file {AUTHORITY}.pem\n\n",
                    name = holder.name
                )
            }
            Kind::Admin => format!(
                "{name}, who may ask and not order: {AUTHORITY}.pem {file}.pem {file}.key\n    \
                 vantage-monitor clients --at https://{dialled}:54321 --ca-file {AUTHORITY}.pem --certificate-file {file}.pem --key-file {file}.key\n\n",
                name = holder.name
            ),
        };
    }
    let first = holders.first().map(Holder::file).unwrap_or_default();
    let ends = folder.pairs().ok().and_then(|pairs| pairs.into_iter().find(|pair| pair.file == first)).map(|pair| pair.facts.not_after);
    text + &format!(
        "They end on {}. `vantage-manager certs renew {}` makes new ones; both programs warn 30, 7 and 1 days before.\n",
        date(ends.unwrap_or(now)),
        folder.path().display()
    )
}

/// A monitor in a file of checks.
fn entry(monitor: &Holder, own: &str) -> String {
    format!(
        "{{\"name\": \"{}\", \"address\": \"https://{}:54321\",\n                  \"tls\": {{\"ca_file\": \"{AUTHORITY}.pem\", \"certificate_file\": \"{own}.pem\", \"key_file\": \"{own}.key\"}}}}",
        monitor.name,
        monitor.dialled()
    )
}
