//! Databases that a process owns: opened, checked, set aside where they are damaged, and brought to the present schema.

use std::{
    fs, io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, Unit};
use rusqlite::{Connection, ErrorCode, OpenFlags};

/// How long one connection waits for another that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Files up to this size are read through when they are opened. Larger ones would hold up the start for long; what is damaged
/// in them shows when it is read.
const CHECK_BYTES: u64 = 256 << 20;
/// What SQLite writes at once, by default.
const PAGE_BYTES: u64 = 4096;
/// What the file that says so is called, after the name of the database.
const MARKER: &str = "-is-damaged";

/// The rights of a file for its owner alone.
const PRIVATE: u32 = 0o600;

/// What a database is for, and how it came to be as it is.
#[derive(Debug, Clone, Copy)]
pub struct Schema {
    /// Tells our files from others: SQLite's `application_id`.
    pub application_id: i32,
    /// What makes version n + 1 out of version n, beginning with an empty file. Only ever added to.
    pub migrations: &'static [&'static str],
}

/// What a commit waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sync {
    /// The disk: what is committed survives a power loss. Costs a flush, some milliseconds, for each commit.
    #[default]
    Full,
    /// The operating system: what is committed survives the end of the process, however it ends. A power loss, or a crash of the system, takes
    /// the last commits back, as far as to the last checkpoint.
    Normal,
}

impl Sync {
    /// What the setting is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Normal => "normal",
        }
    }
}

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file can't be opened or written.
    #[error("open {}: {cause}", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: String,
    },
    /// It belongs to something else, or to a version of Vantage yet to come.
    #[error("{} {what}", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
    },
}

/// A database, opened.
#[derive(Debug)]
pub struct Opened {
    /// The connection; the one that writes.
    pub connection: Connection,
    /// Where a damaged file was moved, if one was found; then this one began empty.
    pub set_aside: Option<PathBuf>,
}

/// Opens the database in `file`, or makes it; none: one in memory. A file that is damaged is moved aside, under a name with the time `now`,
/// and a new one is begun.
pub fn open(file: Option<&Path>, schema: Schema, sync: Sync, now: SystemTime) -> Result<Opened, OpenError> {
    let Some(file) = file else {
        let memory = Connection::open_in_memory().and_then(|connection| prepare(connection, sync));
        let refused = |error: rusqlite::Error| OpenError::Refused { path: ":memory:".into(), cause: error.to_string() };
        let mut connection = memory.map_err(refused)?;
        migrate(&mut connection, schema).map_err(|wrong| wrong.at(Path::new(":memory:")))?;
        return Ok(Opened { connection, set_aside: None });
    };
    let refused = |error: io::Error| OpenError::Refused { path: file.into(), cause: error.to_string() };
    let marker = beside(file, MARKER);
    if marker.exists() || is_torn(file) {
        let aside = set_aside(file, now).map_err(refused)?;
        if marker.exists() {
            fs::remove_file(&marker).map_err(refused)?;
        }
        let connection = attempt(file, schema, sync).map_err(|wrong| wrong.at(file))?;
        return Ok(Opened { connection, set_aside: Some(aside) });
    }
    match attempt(file, schema, sync) {
        Ok(connection) => Ok(Opened { connection, set_aside: None }),
        Err(Wrong::Sql(error)) if is_damage(&error) => {
            let aside = set_aside(file, now).map_err(refused)?;
            let connection = attempt(file, schema, sync).map_err(|wrong| wrong.at(file))?;
            Ok(Opened { connection, set_aside: Some(aside) })
        }
        Err(wrong) => Err(wrong.at(file)),
    }
}

/// Says of a database, if an error shows it to be damaged, that it has to be set aside when it is opened the next time, whatever its size. False:
/// the error is none of that kind, or there is no file.
pub fn mark_if_damaged(connection: &Connection, error: &rusqlite::Error) -> bool {
    let file = connection.path().filter(|path| !path.is_empty());
    // A folder that takes not even this will not be found sound by the next start either.
    is_damage(error) && file.is_some_and(|file| fs::write(beside(Path::new(file), MARKER), error.to_string()).is_ok())
}

/// Opens a database to read it, while its owner may write: another process, or another connection of this one.
pub fn open_to_read(file: &Path, schema: Schema) -> Result<Connection, OpenError> {
    let open = || {
        // A reader needs the shared memory of the write-ahead log too, so it is not opened read-only; it is forbidden to write instead.
        let connection = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.pragma_update(None, "query_only", true)?;
        let version = version(&connection, schema)?;
        if version == schema.migrations.len() { Ok(connection) } else { Err(Wrong::Version(version)) }
    };
    open().map_err(|wrong: Wrong| wrong.at(file))
}

/// Whether an error says that the file is not as SQLite wrote it.
pub fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether an error says that there is no room on the disk.
pub fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

enum Wrong {
    File(io::Error),
    Sql(rusqlite::Error),
    Application(i32),
    Version(usize),
}

impl From<rusqlite::Error> for Wrong {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl Wrong {
    fn at(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::File(error) => OpenError::Refused { path, cause: error.to_string() },
            Self::Sql(error) => OpenError::Refused { path, cause: error.to_string() },
            Self::Application(id) => OpenError::Foreign { path, what: format!("is a database of something else (application id {id})") },
            Self::Version(version) => OpenError::Foreign { path, what: format!("is of another version of Vantage (schema {version})") },
        }
    }
}

/// Makes the file, if it is not there, for its owner alone: orders hold secrets. SQLite gives the files that it makes beside a database the
/// rights of the database.
fn make_private(file: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(file) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Keeps a file of ours that others may read, as earlier versions made them, and what belongs to it, to its owner.
fn keep_private(file: &Path) -> io::Result<()> {
    for file in [file.to_owned(), beside(file, "-wal"), beside(file, "-shm")] {
        match fs::metadata(&file) {
            Ok(about) if about.permissions().mode() & 0o077 != 0 => fs::set_permissions(&file, fs::Permissions::from_mode(PRIVATE))?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn attempt(file: &Path, schema: Schema, sync: Sync) -> Result<Connection, Wrong> {
    make_private(file).map_err(Wrong::File)?;
    let mut connection = prepare(Connection::open(file)?, sync)?;
    let large = fs::metadata(file).is_ok_and(|file| file.len() > CHECK_BYTES);
    if !large {
        let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(Wrong::Sql(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT),
                Some(verdict),
            )));
        }
    }
    migrate(&mut connection, schema)?;
    keep_private(file).map_err(Wrong::File)?;
    Ok(connection)
}

fn prepare(connection: Connection, sync: Sync) -> Result<Connection, rusqlite::Error> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Of the first statement of an empty file this one, as it can't be changed later: pages that are free can be given back.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", if sync == Sync::Full { "FULL" } else { "NORMAL" })?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// The version of the schema: how many migrations were made.
fn version(connection: &Connection, schema: Schema) -> Result<usize, Wrong> {
    let id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let version = usize::try_from(version).unwrap_or(usize::MAX);
    if id != schema.application_id && (id, version) != (0, 0) {
        return Err(Wrong::Application(id));
    }
    Ok(version)
}

fn migrate(connection: &mut Connection, schema: Schema) -> Result<(), Wrong> {
    let from = version(connection, schema)?;
    if from > schema.migrations.len() {
        return Err(Wrong::Version(from));
    }
    for (number, migration) in schema.migrations.iter().enumerate().skip(from) {
        let change = connection.transaction()?;
        change.execute_batch(migration)?;
        change.pragma_update(None, "application_id", schema.application_id)?;
        change.pragma_update(None, "user_version", i64::try_from(number + 1).unwrap_or(i64::MAX))?;
        change.commit()?;
    }
    Ok(())
}

/// Whether a file is the torn beginning of a database: less than one page, and no log that has the rest. SQLite would take it for an empty one.
fn is_torn(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|file| (1..PAGE_BYTES).contains(&file.len())) && !beside(file, "-wal").exists()
}

/// Moves a damaged database out of the way, with what belongs to it.
fn set_aside(file: &Path, now: SystemTime) -> io::Result<PathBuf> {
    let time = Timestamp::try_from(now).unwrap_or_default();
    let time = time.round(Unit::Second).unwrap_or(time).to_string().replace(':', "");
    let mut aside = beside(file, &format!(".damaged-{time}"));
    for number in 2.. {
        if !aside.exists() {
            break;
        }
        aside = beside(file, &format!(".damaged-{time}-{number}"));
    }
    fs::rename(file, &aside)?;
    for part in ["-wal", "-shm"] {
        match fs::rename(beside(file, part), beside(&aside, part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(aside)
}

/// A file beside another one, of that name and more.
fn beside(file: &Path, more: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(more);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Schema = Schema { application_id: 77, migrations: &["CREATE TABLE a (x INTEGER)"] };
    const SECOND: Schema = Schema { migrations: &["CREATE TABLE a (x INTEGER)", "ALTER TABLE a ADD COLUMN y INTEGER DEFAULT 5"], ..FIRST };

    fn open_at(file: &Path, schema: Schema) -> Result<Opened, OpenError> {
        open(Some(file), schema, Sync::Full, SystemTime::UNIX_EPOCH)
    }

    /// A database with rows enough to fill some pages.
    fn filled(file: &Path) {
        let opened = open_at(file, FIRST).unwrap();
        opened
            .connection
            .execute_batch("WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5000) INSERT INTO a SELECT x FROM n")
            .unwrap();
    }

    #[test]
    fn what_was_written_is_there_again_and_older_files_are_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.db");
        filled(&file);
        let opened = open_at(&file, SECOND).unwrap();
        let sum: i64 = opened.connection.query_row("SELECT sum(y) FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!((sum, opened.set_aside), (25_000, None));
        drop(opened.connection);
        let newer = open_at(&file, FIRST).unwrap_err().to_string();
        assert!(newer.contains("another version"), "{newer}");
        assert!(open_to_read(&file, FIRST).is_err());
        let reader = open_to_read(&file, SECOND).unwrap();
        assert!(reader.execute("DELETE FROM a", []).is_err());
    }

    #[test]
    fn a_database_is_its_owners_alone_with_all_that_belongs_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.db");
        let rights = |name: &str| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
        let all = || ["x.db", "x.db-wal", "x.db-shm"].map(rights);
        let opened = open_at(&file, FIRST).unwrap();
        assert_eq!(all(), [0o600; 3]);
        for name in ["x.db", "x.db-wal"] {
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o644)).unwrap();
        }
        let again = open_at(&file, FIRST).unwrap();
        assert_eq!(all(), [0o600; 3]);
        drop((opened, again));
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.db");
        filled(&file);
        let other = open_at(&file, Schema { application_id: 78, ..FIRST }).unwrap_err().to_string();
        assert!(other.contains("something else"), "{other}");
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_a_new_one_begun() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.db");
        for damage in [
            (|bytes: &mut Vec<u8>| bytes[..64].fill(0x55)) as fn(&mut Vec<u8>),
            |bytes| bytes.truncate(bytes.len() / 2),
            |bytes| bytes.truncate(2048),
            |bytes| bytes[8192..12288].fill(0xff),
        ] {
            filled(&file);
            let mut bytes = fs::read(&file).unwrap();
            damage(&mut bytes);
            fs::write(&file, bytes).unwrap();
            let opened = open_at(&file, FIRST).unwrap();
            let aside = opened.set_aside.unwrap();
            assert!(aside.exists() && aside.to_str().unwrap().contains("damaged-1970-01-01T000000Z"), "{aside:?}");
            let rows: i64 = opened.connection.query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap();
            assert_eq!(rows, 0);
            drop(opened.connection);
            fs::remove_file(&file).unwrap();
        }
    }

    #[test]
    fn damage_that_shows_later_is_set_aside_by_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.db");
        filled(&file);
        let opened = open_at(&file, FIRST).unwrap();
        let harmless = opened.connection.execute("INSERT INTO b VALUES (1)", []).unwrap_err();
        assert!(!mark_if_damaged(&opened.connection, &harmless));
        let damage = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), None);
        assert!(mark_if_damaged(&opened.connection, &damage));
        drop(opened);
        assert!(open_at(&file, FIRST).unwrap().set_aside.is_some_and(|aside| aside.exists()));
        assert!(open_at(&file, FIRST).unwrap().set_aside.is_none());
    }

    #[test]
    fn a_half_written_log_costs_only_what_was_not_committed() {
        let folder = tempfile::tempdir().unwrap();
        let (file, copy) = (folder.path().join("x.db"), folder.path().join("copy.db"));
        let opened = open_at(&file, FIRST).unwrap();
        for row in 0..10 {
            opened.connection.execute("INSERT INTO a VALUES (?1)", [row]).unwrap();
        }
        // As a power loss leaves it: the log ends in the middle of the last commit.
        fs::copy(&file, &copy).unwrap();
        let mut log = fs::read(folder.path().join("x.db-wal")).unwrap();
        log.truncate(log.len() - 100);
        fs::write(folder.path().join("copy.db-wal"), log).unwrap();
        let found = open_at(&copy, FIRST).unwrap();
        let rows: i64 = found.connection.query_row("SELECT count(*) FROM a", [], |row| row.get(0)).unwrap();
        assert_eq!((rows, found.set_aside), (9, None));
    }
}
