//! Files of certificates and keys, read again when they change.

use std::{
    collections::HashMap,
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use ring::digest::{Digest, SHA256, digest};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::io::AsyncReadExt as _;

use super::provider;
use crate::{net::tls::Judge, stopwatch};

/// The longest file that is read.
const MAX_FILE: u64 = 4 << 20;

/// A file that changed within this time may change again without its times telling: the coarsest file systems count in steps of two seconds.
const UNSETTLED: Duration = Duration::from_secs(2);

/// What tells one state of a file from another, without reading it: one `stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// That of a file as it is now. None: there is no such file, or it can't be looked at.
    pub(super) fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::new(&metadata))
    }

    fn new(metadata: &Metadata) -> Self {
        Self {
            place: (metadata.dev(), metadata.ino()),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether another state of the file, from now on, can't have the same stamp.
    pub(super) fn is_settled(&self) -> bool {
        let (seconds, _) = self.changed.max(self.modified);
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        stopwatch::wall().duration_since(changed).is_ok_and(|age| age >= UNSETTLED)
    }
}

/// By path: the state of the file, and who came of it, as long as a check needs him.
type Judges = HashMap<PathBuf, (Stamp, Weak<Judge>)>;

/// What was read of a file.
pub(super) struct Content<'p> {
    path: &'p Path,
    bytes: Vec<u8>,
}

impl<'p> Content<'p> {
    /// Reads a file. An error says in one sentence what is wrong with it, as below.
    pub(super) async fn of(path: &'p Path) -> Result<Self, String> {
        Ok(Self { path, bytes: read(path).await? })
    }

    /// What tells it from another content.
    pub(super) fn digest(&self) -> Digest {
        digest(&SHA256, &self.bytes)
    }

    /// The authorities, and the judge who trusts them: one for all checks that name the file. `stamp` is its state before it was read.
    pub(super) fn judge(&self, stamp: Option<Stamp>) -> Result<Arc<Judge>, String> {
        static JUDGES: Mutex<Option<Judges>> = Mutex::new(None);

        let (path, stamp) = (self.path, stamp.filter(Stamp::is_settled));
        if let (Some(stamp), Some(judges)) = (stamp, &*JUDGES.lock().unwrap_or_else(PoisonError::into_inner))
            && let Some((at, judge)) = judges.get(path)
            && *at == stamp
            && let Some(judge) = judge.upgrade()
        {
            return Ok(judge);
        }
        let trusted = self.certificates()?;
        let mut roots = RootCertStore::empty();
        for certificate in &trusted {
            roots.add(certificate.clone()).map_err(|error| format!("{} has an unusable certificate: {error}", path.display()))?;
        }
        let judge = Judge::new(roots, trusted, provider()).map_err(|error| format!("{}: {error}", path.display()))?;
        let judge = Arc::new(judge);
        if let Some(stamp) = stamp {
            let mut judges = JUDGES.lock().unwrap_or_else(PoisonError::into_inner);
            let judges = judges.get_or_insert_default();
            judges.retain(|_, (_, judge)| judge.strong_count() > 0);
            judges.insert(path.to_owned(), (stamp, Arc::downgrade(&judge)));
        }
        Ok(judge)
    }

    /// The certificates, in their order: at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        match CertificateDer::pem_slice_iter(&self.bytes).collect::<Result<Vec<_>, _>>() {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            Ok(_) => Err(format!("{} has no certificate in PEM form", self.path.display())),
            Err(error) => Err(format!("{} is not in PEM form: {error}", self.path.display())),
        }
    }

    /// The first private key.
    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, String> {
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|_| format!("{} has no private key in PEM form", self.path.display()))
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |why: String| format!("can't read {}: {why}", path.display());
    let metadata = tokio::fs::metadata(path).await.map_err(|error| unreadable(error.to_string()))?;
    // A pipe would be waited for, a device never ends.
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err(unreadable(format!("it is not a file of at most {} MiB", MAX_FILE >> 20)));
    }
    let file = tokio::fs::File::open(path).await.map_err(|error| unreadable(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).await.map_err(|error| unreadable(error.to_string()))?;
    Ok(bytes)
}
