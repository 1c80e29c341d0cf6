//! Folders of data that one process owns.

use std::{
    convert::Infallible,
    env,
    fs::{self, File, TryLockError},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::exit::{Exit, Fatal};

/// Where a process keeps what has to outlive it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Data {
    /// In the standard folder: see [`standard_folder`].
    #[default]
    Standard,
    /// In this folder.
    Folder(PathBuf),
    /// Nowhere: it ends with the process.
    Memory,
}

impl FromStr for Data {
    type Err = Infallible;

    /// "memory", or a folder.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "memory" { Self::Memory } else { Self::Folder(text.into()) })
    }
}

impl Data {
    /// The folder, made and locked; none where nothing is to be kept. `part` is the name of the standard one.
    pub fn open(&self, part: &str) -> Result<Option<Folder>, Fatal> {
        match self {
            Self::Memory => Ok(None),
            Self::Folder(path) => Folder::open(path).map(Some),
            Self::Standard => Folder::open(&standard_folder(part)?).map(Some),
        }
    }
}

/// The standard folder for `part`: below `$STATE_DIRECTORY` (set by systemd), `$XDG_STATE_HOME/vantage` or `$HOME/.local/state/vantage`,
/// whichever is set first.
pub fn standard_folder(part: &str) -> Result<PathBuf, Fatal> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("STATE_DIRECTORY")
        .or_else(|| set("XDG_STATE_HOME").map(|state| state.join("vantage")))
        .or_else(|| set("HOME").map(|home| home.join(".local/state/vantage")));
    let none = || Fatal::new(Exit::Usage, "there is no home folder to keep data in: give --data DIR, or --data memory to keep nothing");
    base.map(|base| base.join(part)).ok_or_else(none)
}

/// A folder that this process owns: no other one that asks the same way gets it until this is dropped, or the process ends, however.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if it is not there (for its owner alone), and locks it. One to which others may write is refused.
    pub fn open(path: &Path) -> Result<Self, Fatal> {
        let refused = |act: &str, error: &dyn std::fmt::Display| {
            let cure = "give another folder by --data DIR, or --data memory to keep nothing";
            Fatal::new(Exit::OsError, format!("{act} {}: {error}; {cure}", path.display()))
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| refused("make the folder", &error))?;
        let mode = fs::metadata(path).map_err(|error| refused("read the mode of the folder", &error))?.permissions().mode();
        // What is in it would be taken for what this process has left there.
        if mode & 0o022 != 0 {
            let why = format!("others than its owner may write to it (mode {:03o}): `chmod go-w {}`, or", mode & 0o777, path.display());
            return Err(Fatal::new(Exit::OsError, format!("use the folder {}: {why} give another folder by --data DIR", path.display())));
        }
        let lock = File::options().create(true).truncate(false).write(true).open(path.join("lock"));
        let lock = lock.map_err(|error| refused("write to the folder", &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(refused("use the folder", &"another process of Vantage uses it")),
            Err(TryLockError::Error(error)) => Err(refused("lock the folder", &error)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_to_which_others_may_write_is_refused_with_the_cure() {
        let parent = tempfile::tempdir().unwrap();
        let open = |mode| {
            let path = parent.path().join("a");
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Folder::open(&path).map(drop).map_err(|fatal| fatal.message)
        };
        for shared in [0o777, 0o770, 0o702] {
            let refused = open(shared).unwrap_err();
            assert!(refused.contains("others than its owner") && refused.contains("chmod go-w"), "{refused}");
        }
        assert_eq!((open(0o755), open(0o700)), (Ok(()), Ok(())));
    }

    #[test]
    fn a_folder_belongs_to_one_process_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let held = Folder::open(&path).unwrap();
        let refused = Folder::open(&path).unwrap_err();
        assert!(refused.message.contains("another process") && refused.message.contains("--data"), "{refused}");
        drop(held);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn a_folder_that_cannot_be_made_names_the_cure() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("file"), "").unwrap();
        let refused = Folder::open(&parent.path().join("file/below")).unwrap_err();
        assert_eq!(refused.exit, Exit::OsError);
        assert!(refused.message.contains("--data memory"), "{refused}");
    }

    #[test]
    fn memory_is_a_word_and_all_else_a_folder() {
        assert_eq!("memory".parse(), Ok(Data::Memory));
        assert_eq!("/var/lib/vantage".parse(), Ok(Data::Folder("/var/lib/vantage".into())));
        assert!(Data::Memory.open("x").unwrap().is_none());
    }
}
