//! Which sequences of which session have been stored: the test for "already have it".

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Result};
use vantage_contract::v1::{ProbeResult, StoredSession};

use super::{Gap, row};

/// How far each session is stored. A session has no holes, so one number says it all.
///
/// The table is the truth. Those in use are also here, and written back before each commit; when they become too many, or a commit failed,
/// they are dropped and read again.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    monitors: HashMap<String, HashMap<String, Place>>,
    count: usize,
}

#[derive(Debug)]
struct Place {
    id: i64,
    through: u64,
    heard: i64,
    newest: i64,
    used: i64,
    is_changed: bool,
}

/// What a record is to its session.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It follows, maybe after a hole; or it opens a session that was not known. With the session's id.
    New(i64, Option<Gap>),
    /// It is stored already.
    Duplicate,
    /// It has no place.
    Misnumbered,
}

impl Sessions {
    /// A monitor has one session per client and life of its journal, or absence of the client: more than a few mean that it
    /// loses its journal all the time. Of those without results left no more are kept of one monitor.
    pub(super) const PER_MONITOR: usize = 64;
    /// The most that are here besides in the table.
    pub(super) const CACHED: usize = 16_384;

    /// How many are here.
    pub(super) fn cached(&self) -> usize {
        self.count
    }

    /// Enters a record.
    ///
    /// A session not known yet may begin anywhere: what came before was acknowledged by a manager that has since forgotten. A record
    /// that covers several sequences, some of which are stored, is new: it accounts for the rest.
    pub(super) fn enter(&mut self, db: &Connection, result: &ProbeResult, due: i64, now: i64) -> Result<Standing> {
        if result.monitor.is_empty() || result.session.is_empty() || result.sequence == 0 {
            return Ok(Standing::Misnumbered);
        }
        let place = self.place(db, &result.monitor, &result.session, now)?;
        if result.sequence <= place.through {
            return Ok(Standing::Duplicate);
        }
        let (after, before) = (place.through, result.sequence.saturating_sub(result.sequence_count.max(1)));
        place.through = result.sequence;
        place.heard = place.heard.max(row::end(result, now));
        place.newest = place.newest.max(due);
        (place.used, place.is_changed) = (now, true);
        let gap = (after > 0 && before > after).then(|| Gap {
            monitor: result.monitor.clone(),
            session: result.session.clone(),
            after,
            missing_count: before - after,
        });
        Ok(Standing::New(place.id, gap))
    }

    fn place(&mut self, db: &Connection, monitor: &str, session: &str, now: i64) -> Result<&mut Place> {
        if !self.monitors.get(monitor).is_some_and(|sessions| sessions.contains_key(session)) {
            let place = read(db, monitor, session)?.map_or_else(|| create(db, monitor, session, now), Ok)?;
            self.monitors.entry(monitor.to_owned()).or_default().insert(session.to_owned(), place);
            self.count += 1;
        }
        let sessions = self.monitors.get_mut(monitor);
        sessions.and_then(|sessions| sessions.get_mut(session)).ok_or(rusqlite::Error::QueryReturnedNoRows)
    }

    /// Writes what has changed.
    pub(super) fn flush(&mut self, db: &Connection) -> Result<()> {
        let mut update = db.prepare_cached("UPDATE session SET through = ?2, heard_ns = ?3, newest_ns = ?4, used_ns = ?5 WHERE id = ?1")?;
        for place in self.monitors.values_mut().flat_map(HashMap::values_mut).filter(|place| place.is_changed) {
            update.execute((place.id, place.through.cast_signed(), place.heard, place.newest, place.used))?;
            place.is_changed = false;
        }
        Ok(())
    }

    /// Notes which sessions are closed and still to come. What was said to come and is not named any more will not come.
    pub(super) fn close(&mut self, db: &Connection, monitor: &str, closed: &[StoredSession], now: i64) -> Result<()> {
        db.prepare_cached("UPDATE session SET final = NULL WHERE monitor = ?1 AND final IS NOT NULL")?.execute([monitor])?;
        for session in closed.iter().filter(|closed| !closed.session.is_empty()) {
            let id = self.place(db, monitor, &session.session, now)?.id;
            db.prepare_cached("UPDATE session SET final = ?2 WHERE id = ?1")?.execute((id, session.sequence.cast_signed()))?;
        }
        Ok(())
    }

    /// Up to when a monitor has been heard of, as far as is written. The smallest instant: never.
    pub(super) fn heard(db: &Connection, monitor: &str) -> Result<i64> {
        let heard: Option<i64> =
            db.prepare_cached("SELECT max(heard_ns) FROM session WHERE monitor = ?1")?.query_row([monitor], |row| row.get(0))?;
        Ok(heard.unwrap_or(i64::MIN))
    }

    /// The sessions of a monitor of which something is stored; those used last, at most a hundred.
    pub(super) fn of(db: &Connection, monitor: &str) -> Result<Vec<StoredSession>> {
        let mut query = db.prepare_cached(
            "SELECT session, through FROM session WHERE monitor = ?1 AND through <> 0 ORDER BY used_ns DESC, id DESC LIMIT 100",
        )?;
        let rows = query
            .query_map([monitor], |row| Ok(StoredSession { session: row.get(0)?, sequence: row.get::<_, i64>(1)?.cast_unsigned() }))?;
        rows.collect()
    }

    /// Removes from the table what has no results left and either was not used since `since`, or is beyond the newest of its monitor. How
    /// many went for being too many.
    pub(super) fn tidy(db: &Connection, oldest_due: i64, since: i64) -> Result<usize> {
        let empty = "newest_ns < ?1 AND final IS NULL";
        db.prepare_cached(&format!("DELETE FROM session WHERE {empty} AND used_ns < ?2"))?.execute((oldest_due, since))?;
        let newer = "(SELECT count(*) FROM session AS other WHERE other.monitor = session.monitor AND other.used_ns > session.used_ns)";
        db.prepare_cached(&format!("DELETE FROM session WHERE {empty} AND {newer} >= ?2"))?.execute((oldest_due, Self::PER_MONITOR as i64))
    }
}

fn read(db: &Connection, monitor: &str, session: &str) -> Result<Option<Place>> {
    let mut query =
        db.prepare_cached("SELECT id, through, heard_ns, newest_ns, used_ns FROM session WHERE monitor = ?1 AND session = ?2")?;
    let place = query.query_row((monitor, session), |row| {
        Ok(Place {
            id: row.get(0)?,
            through: row.get::<_, i64>(1)?.cast_unsigned(),
            heard: row.get(2)?,
            newest: row.get(3)?,
            used: row.get(4)?,
            is_changed: false,
        })
    });
    place.optional()
}

fn create(db: &Connection, monitor: &str, session: &str, now: i64) -> Result<Place> {
    let mut insert = db.prepare_cached(
        "INSERT INTO session (monitor, session, through, heard_ns, newest_ns, used_ns) VALUES (?1, ?2, 0, ?3, ?3, ?4) RETURNING id",
    )?;
    let id = insert.query_row((monitor, session, i64::MIN, now), |row| row.get(0))?;
    Ok(Place { id, through: 0, heard: i64::MIN, newest: i64::MIN, used: now, is_changed: false })
}
