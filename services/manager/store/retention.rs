//! What has to go: what is too old, and the oldest where all is too much.

use std::time::Duration;

use rusqlite::{Connection, Result};

use super::{
    ledger, row,
    sessions::Sessions,
    writer::{NEWEST_SLACK, Writer},
};

/// The most results that are removed at once: what waits to be written waits no longer than that.
const STEP: i64 = 2000;
/// Free pages are given back to the disk beyond this many, and beyond an eighth of the file; below, they are needed again soon.
const FREE_PAGES: i64 = 1024;
/// How many are given back at once.
const VACUUM_PAGES: i64 = 512;

/// For how long results are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Results that were due longer ago are removed. 1 h to 10 y. Default 30 days.
    pub age: Duration,
    /// The oldest are removed while all take up more. In bytes; 1 MiB at least. Default 10 GiB.
    pub bytes: u64,
}

impl Keep {
    /// What memory may take up, where nothing is kept on a disk: 64 MiB.
    pub const MEMORY_BYTES: u64 = 64 << 20;
}

impl Default for Keep {
    fn default() -> Self {
        Self { age: Duration::from_secs(30 * 86_400), bytes: 10 << 30 }
    }
}

/// What one step of removal did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Trimmed {
    pub(super) results: u64,
    pub(super) sessions: u64,
    /// Whether there is more to do.
    pub(super) is_more: bool,
}

/// What the database takes up, without what is free in it.
pub(super) fn bytes(db: &Connection) -> Result<u64> {
    let (used, page_size) = (pragma(db, "page_count")? - pragma(db, "freelist_count")?, pragma(db, "page_size")?);
    Ok((used * page_size).unsigned_abs())
}

/// Up to when results were removed: the newest instant that a run among them was due.
pub(crate) fn horizon(db: &Connection) -> Result<i64> {
    db.prepare_cached("SELECT value FROM meta WHERE name = 'horizon_ns'")?.query_row([], |row| row.get(0))
}

/// Removes some of what has to go, if something has to; with `tidy` also what only that needed.
pub(super) fn trim(writer: &mut Writer, keep: Keep, tidy: bool, now: i64) -> Result<Trimmed> {
    let oldest_to_keep = now.saturating_sub(row::length(keep.age));
    let oldest: Option<i64> = writer.db.prepare_cached("SELECT min(due_ns) FROM result")?.query_row([], |row| row.get(0))?;
    let taken = bytes(&writer.db)?;
    let (limit, until) = match oldest {
        Some(_) if taken > keep.bytes => (surplus(&writer.db, taken, keep.bytes)?, i64::MAX),
        Some(oldest) if oldest < oldest_to_keep => (STEP, oldest_to_keep),
        _ => {
            give_back(&writer.db)?;
            return Ok(Trimmed::default());
        }
    };
    let (results, horizon) = writer.commit(|writer| remove(&writer.db, until, limit))?;
    let sessions = if tidy { writer.commit(|writer| self::tidy(writer, horizon, oldest_to_keep))? } else { 0 };
    Ok(Trimmed { results, sessions, is_more: results > 0 })
}

/// How many results are to go so that the rest takes up less than `limit`, as far as one step goes.
fn surplus(db: &Connection, taken: u64, limit: u64) -> Result<i64> {
    let count: i64 = db.prepare_cached("SELECT value FROM meta WHERE name = 'result_count'")?.query_row([], |row| row.get(0))?;
    let each = (taken / count.unsigned_abs().max(1)).max(1);
    Ok(i64::try_from((taken - limit) / each).unwrap_or(STEP).clamp(16, STEP))
}

/// Removes the oldest results. How many, and up to when they told of runs.
fn remove(db: &Connection, until: i64, limit: i64) -> Result<(u64, i64)> {
    let mut query = db.prepare_cached(
        "SELECT result.id, due_ns, run_count, coalesce(interval_ns, 0) FROM result INDEXED BY result_by_due LEFT JOIN life ON life.id = result.life
         WHERE due_ns < ?1 ORDER BY due_ns LIMIT ?2",
    )?;
    let rows = query.query_map((until, limit), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let rows: Vec<(i64, i64, i64, i64)> = rows.collect::<Result<_>>()?;
    let mut delete = db.prepare_cached("DELETE FROM result WHERE id = ?1")?;
    let mut horizon = i64::MIN;
    for (id, due, run_count, interval) in &rows {
        delete.execute([id])?;
        // With a range goes the account of all of its runs.
        let rest = i128::from(run_count.cast_unsigned().saturating_sub(1)) * i128::from(*interval);
        horizon = horizon.max(i64::try_from(i128::from(*due) + rest).unwrap_or(i64::MAX));
    }
    let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    db.prepare_cached("UPDATE meta SET value = value - ?1 WHERE name = 'result_count'")?.execute([count])?;
    db.prepare_cached("UPDATE meta SET value = max(value, ?1) WHERE name = 'horizon_ns'")?.execute([horizon])?;
    Ok((rows.len() as u64, horizon))
}

/// Removes series, lives and sessions of which nothing is left. How many sessions went only because there were too many.
fn tidy(writer: &mut Writer, horizon: i64, oldest_to_keep: i64) -> Result<u64> {
    let oldest: Option<i64> = writer.db.prepare_cached("SELECT min(due_ns) FROM result")?.query_row([], |row| row.get(0))?;
    let oldest = oldest.unwrap_or(horizon);
    writer.forget()?;
    let before = oldest.saturating_sub(NEWEST_SLACK);
    writer.db.prepare_cached("DELETE FROM series WHERE newest_ns < ?1")?.execute([before])?;
    ledger::tidy(&writer.db, horizon.min(oldest))?;
    Ok(Sessions::tidy(&writer.db, oldest, oldest_to_keep)? as u64)
}

/// Gives free pages back to the disk, where there are many.
fn give_back(db: &Connection) -> Result<()> {
    let (free, all) = (pragma(db, "freelist_count")?, pragma(db, "page_count")?);
    if free > FREE_PAGES && free > all / 8 {
        db.execute_batch(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    }
    Ok(())
}

fn pragma(db: &Connection, name: &str) -> Result<i64> {
    db.pragma_query_value(None, name, |row| row.get(0))
}
