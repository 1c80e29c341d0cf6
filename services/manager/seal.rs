//! Tells secrets apart without telling them: what stands in the revision of an order for the secrets that it has.
//!
//! Revisions are shown, with the results, to everybody who may see those. A bare hash of a check that is known but for its password would
//! let them try passwords at leisure; a hash by a key that stays here does not.

use std::{fmt, fs, io, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use prost::Message as _;
use ring::{
    hmac::{HMAC_SHA256, Key, sign},
    rand::{SecureRandom as _, SystemRandom},
};
use vantage_contract::v1::Check;
use vantage_daemon::{
    data::Folder,
    exit::{Exit, Fatal},
};
use zeroize::Zeroizing;

/// The file of the key, in the manager's folder.
const FILE: &str = "seal.key";
const LENGTH: usize = 32;

/// The key.
#[derive(Clone)]
pub(crate) struct Seal(Key);

impl Seal {
    /// The key that is kept in a folder, so that orders are the same after a restart. Without a folder, or a key in it, a new one: then the orders
    /// with secrets, and only those, are placed anew.
    pub(crate) fn kept_in(folder: Option<&Folder>) -> Result<Self, Fatal> {
        let file = folder.map(|folder| folder.path().join(FILE));
        if let Some(kept) = file.as_deref().map(fs::read) {
            match kept.map(Zeroizing::new) {
                Ok(key) if key.len() == LENGTH => return Ok(Self(Key::new(HMAC_SHA256, &key))),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(refused("read", file.as_deref(), &error)),
            }
        }
        let mut key = Zeroizing::new([0; LENGTH]);
        let random = SystemRandom::new().fill(&mut *key);
        random.map_err(|_| Fatal::new(Exit::OsError, "the operating system gives no random numbers"))?;
        if let Some(file) = &file {
            write(file, &*key).map_err(|error| refused("write", Some(file), &error))?;
        }
        Ok(Self(Key::new(HMAC_SHA256, &*key)))
    }

    /// 16 hexadecimal digits for what a check has.
    pub(crate) fn of(&self, check: &Check) -> String {
        let bytes = Zeroizing::new(check.encode_to_vec());
        sign(&self.0, &bytes).as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// All of it or nothing: a torn key would be none.
fn write(file: &Path, key: &[u8]) -> io::Result<()> {
    let fresh = file.with_extension("new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut to = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    to.write_all(key)?;
    to.sync_all()?;
    fs::rename(&fresh, file)
}

fn refused(act: &str, file: Option<&Path>, error: &io::Error) -> Fatal {
    let file = file.map(|file| file.display().to_string()).unwrap_or_default();
    Fatal::new(Exit::OsError, format!("{act} {file}: {error}"))
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_outlives_the_process_and_is_its_owners_alone() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::open(parent.path()).unwrap();
        let check = Check { name: "a".into(), ..Check::default() };
        let marks = [(); 2].map(|()| Seal::kept_in(Some(&folder)).unwrap().of(&check));
        assert!(marks[0] == marks[1] && marks[0].len() == 16, "{marks:?}");
        assert_ne!(Seal::kept_in(None).unwrap().of(&check), marks[0]);
        let file = parent.path().join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "torn").unwrap();
        assert_ne!(Seal::kept_in(Some(&folder)).unwrap().of(&check), marks[0]);
    }
}
