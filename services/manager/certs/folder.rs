//! The folder with the authority and the pairs.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use vantage_daemon::{
    exit::{Exit, Fatal},
    tls::{certificate::Facts, files},
};

use super::{
    holder::{Holder, Kind},
    issue::{self, Pair},
};
use crate::config::host_name;

/// What the authority's files are called.
pub(super) const AUTHORITY: &str = "ca";

/// The folder.
pub(super) struct Folder(PathBuf);

/// A pair that is there.
pub(super) struct Standing {
    /// What its files are called, without their ends.
    pub(super) file: String,
    pub(super) facts: Facts,
}

impl Folder {
    /// Makes it, for its owner alone. One that has an authority already is refused.
    pub(super) fn make(path: &Path) -> Result<Self, Fatal> {
        let refused = |act: &str, error: std::io::Error| Fatal::new(Exit::OsError, format!("{act} {}: {error}", path.display()));
        let folder = Self(path.to_owned());
        for taken in [folder.certificate(AUTHORITY), folder.key(AUTHORITY)] {
            if taken.exists() {
                let cure = "`certs add` makes further certificates, `certs renew` new ones";
                return Err(Fatal::new(Exit::Usage, format!("{} is there already, and nothing is overwritten: {cure}", taken.display())));
            }
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| refused("make the folder", error))?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(|error| refused("close to others the folder", error))?;
        Ok(folder)
    }

    /// One that has an authority.
    pub(super) fn open(path: &Path) -> Result<Self, Fatal> {
        let folder = Self(path.to_owned());
        files::certificates(&folder.certificate(AUTHORITY))?;
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The file of a certificate.
    pub(super) fn certificate(&self, file: &str) -> PathBuf {
        self.0.join(format!("{file}.pem"))
    }

    /// The file of a key.
    pub(super) fn key(&self, file: &str) -> PathBuf {
        self.0.join(format!("{file}.key"))
    }

    pub(super) fn make_authority(&self, now: SystemTime) -> Result<(), Fatal> {
        let pair = issue::authority(&host_name(), now)?;
        self.write_new(AUTHORITY, &pair)
    }

    /// Makes a pair for each; none of them may be there yet.
    pub(super) fn make_pairs(&self, holders: &[Holder], now: SystemTime) -> Result<(), Fatal> {
        for (number, holder) in holders.iter().enumerate() {
            let file = holder.file();
            let is_twice = holders.iter().take(number).any(|other| other.file() == file);
            if is_twice || self.certificate(&file).exists() || self.key(&file).exists() {
                return Err(Fatal::new(Exit::Usage, format!("there is a {file} already: `certs renew` makes a new one of it")));
            }
        }
        for holder in holders {
            let purposes = (holder.kind != Kind::Admin, holder.kind != Kind::Monitor);
            self.write_new(&holder.file(), &self.leaf(&holder.name, &holder.names(), purposes, now)?)?;
        }
        Ok(())
    }

    /// A new pair in place of one, with all that it says but its times.
    pub(super) fn renew(&self, standing: &Standing, now: SystemTime) -> Result<Facts, Fatal> {
        let facts = &standing.facts;
        let pair = self.leaf(&facts.subject, &facts.names, (facts.for_servers, facts.for_clients), now)?;
        // Both are whole on the disk before either takes its place, so that a reader finds two that belong together but for an instant.
        let (key, certificate) = (self.key(&standing.file), self.certificate(&standing.file));
        let (new_key, new_certificate) = (key.with_extension("key.new"), certificate.with_extension("pem.new"));
        let _ = (fs::remove_file(&new_key), fs::remove_file(&new_certificate));
        write(&new_key, &pair.key, 0o600)?;
        write(&new_certificate, &pair.certificate, 0o644)?;
        for (from, to) in [(new_key, key), (new_certificate, certificate)] {
            fs::rename(&from, &to).map_err(|error| Fatal::new(Exit::OsError, format!("rename {}: {error}", from.display())))?;
        }
        Ok(self.standing(standing.file.clone())?.facts)
    }

    /// The pairs that are there, by their files; the authority is none.
    pub(super) fn pairs(&self) -> Result<Vec<Standing>, Fatal> {
        let unreadable = |error: std::io::Error| Fatal::new(Exit::OsError, format!("read {}: {error}", self.0.display()));
        let mut pairs = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
            if path.extension().is_some_and(|end| end == "pem") && stem != AUTHORITY {
                pairs.push(self.standing(stem)?);
            }
        }
        pairs.sort_by(|one, other| one.file.cmp(&other.file));
        Ok(pairs)
    }

    fn standing(&self, file: String) -> Result<Standing, Fatal> {
        let path = self.certificate(&file);
        let chain = files::certificates(&path)?;
        let facts = Facts::read(&chain[0]).map_err(|why| Fatal::new(Exit::Config, format!("{}: {why}", path.display())))?;
        Ok(Standing { file, facts })
    }

    fn leaf(
        &self,
        name: &str,
        names: &[vantage_daemon::tls::certificate::Name],
        purposes: (bool, bool),
        now: SystemTime,
    ) -> Result<Pair, Fatal> {
        let read = |path: PathBuf| {
            fs::read_to_string(&path).map_err(|error| Fatal::new(Exit::Config, format!("read {}: {error}", path.display())))
        };
        let (certificate, key) = (read(self.certificate(AUTHORITY))?, read(self.key(AUTHORITY))?);
        let end = self.standing(AUTHORITY.to_owned())?.facts.not_after;
        issue::leaf(name, names, purposes, (&certificate, &key, end), now)
    }

    fn write_new(&self, file: &str, pair: &Pair) -> Result<(), Fatal> {
        write(&self.key(file), &pair.key, 0o600)?;
        write(&self.certificate(file), &pair.certificate, 0o644)
    }
}

/// Writes a file that is not there yet, down to the disk.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Fatal> {
    let open = || OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = open().and_then(|mut file: File| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| Fatal::new(Exit::OsError, format!("write {}: {error}", path.display())))
}
