//! What is written, and how: the one connection that writes, and what it keeps at hand.

use std::{collections::HashMap, sync::Arc};

use rusqlite::{Connection, OptionalExtension as _, Result, named_params};
use vantage_contract::v1::{ProbeResult, StoredSession};

use super::{
    Appended, Gap, Standing,
    ledger::{self, Claim, Life, Statement},
    row::{self, Parts},
    sessions::{self, Sessions},
};

/// The most series that are kept at hand; with more all are dropped and read again.
const CACHED_SERIES: usize = 65_536;
/// By how much the newest result of a series may be newer than its row says, so that the row need not be written each time.
pub(super) const NEWEST_SLACK: i64 = 3_600_000_000_000;

/// The side of the store that writes. What it keeps at hand is written before each commit, and forgotten when one failed.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) db: Connection,
    client_id: String,
    hand: Hand,
    parts: Parts,
}

#[derive(Debug, Default)]
struct Hand {
    sessions: Sessions,
    /// By their templates.
    series: HashMap<Vec<u8>, Series>,
    tracks: Vec<Track>,
    /// The places of the tracks, by monitor, check and revision.
    tracked: HashMap<[String; 3], usize>,
}

#[derive(Debug)]
struct Series {
    id: i64,
    newest: i64,
    track: usize,
}

/// The lives of one order.
#[derive(Debug)]
struct Track {
    monitor: String,
    lives: Vec<Life>,
}

/// What became of a batch, as long as it is not committed.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// The places of those that were new, when they were due, and their ids.
    new: Vec<(usize, i64, i64)>,
    duplicate_count: u64,
    misnumbered_count: u64,
    gaps: Vec<Gap>,
}

impl Outline {
    /// How many were new.
    pub(super) fn count(&self) -> u64 {
        self.new.len() as u64
    }

    /// Those that were new, with when they were due and their ids.
    pub(super) fn new_of<'a>(&self, batch: &'a [ProbeResult]) -> impl Iterator<Item = (&'a ProbeResult, (i64, i64))> {
        self.new.iter().filter_map(|(place, due, id)| Some((batch.get(*place)?, (*due, *id))))
    }

    /// The same, once it is committed.
    pub(super) fn of(self, batch: Vec<ProbeResult>) -> Appended {
        let mut wanted = self.new.into_iter().map(|(place, ..)| place).peekable();
        let new = batch.into_iter().enumerate().filter(|(place, _)| wanted.next_if_eq(place).is_some());
        Appended {
            new: new.map(|(_, result)| Arc::new(result)).collect(),
            duplicate_count: self.duplicate_count,
            misnumbered_count: self.misnumbered_count,
            gaps: self.gaps,
        }
    }
}

impl Writer {
    pub(super) fn new(db: Connection, client_id: String) -> Self {
        Self { db, client_id, hand: Hand::default(), parts: Parts::default() }
    }

    /// Does something in one transaction: all of it or nothing.
    pub(super) fn commit<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.db.execute_batch("BEGIN IMMEDIATE")?;
        let done = work(self).and_then(|done| {
            self.flush()?;
            self.db.execute_batch("COMMIT")?;
            Ok(done)
        });
        if done.is_err() {
            self.hand = Hand::default();
            // Some errors, as a full disk, have rolled back already.
            if !self.db.is_autocommit() {
                self.db.execute_batch("ROLLBACK")?;
            }
        } else if self.hand.series.len() > CACHED_SERIES || self.hand.sessions.cached() > Sessions::CACHED {
            self.hand = Hand::default();
        }
        done
    }

    /// Enters a batch, within a transaction.
    pub(super) fn append(&mut self, batch: &mut [ProbeResult], now: i64) -> Result<Outline> {
        let mut outline = Outline::default();
        for (place, result) in batch.iter_mut().enumerate() {
            let due = row::due(result, now);
            match self.hand.sessions.enter(&self.db, result, due, now)? {
                sessions::Standing::Duplicate => outline.duplicate_count += 1,
                sessions::Standing::Misnumbered => outline.misnumbered_count += 1,
                sessions::Standing::New(session, gap) => {
                    if self.insert(result, session, due, now)? {
                        outline.new.push((place, due, self.db.last_insert_rowid()));
                        outline.gaps.extend(gap);
                    } else {
                        outline.duplicate_count += 1;
                    }
                }
            }
        }
        let count = i64::try_from(outline.count()).unwrap_or_default();
        self.db.prepare_cached("UPDATE meta SET value = value + ?1 WHERE name = 'result_count'")?.execute([count])?;
        Ok(outline)
    }

    /// False: it was there already.
    fn insert(&mut self, result: &mut ProbeResult, session: i64, due: i64, now: i64) -> Result<bool> {
        self.parts.split(result);
        if !self.hand.series.contains_key(&self.parts.template) {
            let series = self.hand.series(&self.db, &self.parts.template, result, due)?;
            self.hand.series.insert(self.parts.template.clone(), series);
        }
        let Some(series) = self.hand.series.get_mut(&self.parts.template) else { return Err(rusqlite::Error::QueryReturnedNoRows) };
        if due > series.newest.saturating_add(NEWEST_SLACK) {
            series.newest = due;
            self.db.prepare_cached("UPDATE series SET newest_ns = ?2 WHERE id = ?1")?.execute((series.id, due))?;
        }
        let (id, track) = (series.id, series.track);
        let life = match self.hand.tracks.get(track) {
            Some(track) => ledger::claim(&track.lives, due, result.run),
            None => Claim::Nothing,
        };
        let place = match life {
            Claim::Of(place) => Some(place),
            Claim::Unheard => self.begin_unheard(track, now)?,
            Claim::Nothing => None,
        };
        let life = place.and_then(|place| self.hand.tracks.get_mut(track)?.lives.get_mut(place));
        let mut insert = self.db.prepare_cached(
            "INSERT INTO result (series, life, session, sequence, due_ns, run, run_count, outcome, reason, body)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (session, sequence) DO NOTHING",
        )?;
        let (sequence, run, run_count) = (result.sequence.cast_signed(), result.run.cast_signed(), result.run_count.cast_signed());
        let life_id = life.as_ref().map(|life| life.id);
        let inserted =
            insert.execute((id, life_id, session, sequence, due, run, run_count, result.outcome, result.reason, &self.parts.body))?;
        if inserted == 0 {
            return Ok(false);
        }
        if let Some(life) = life {
            life.enter(due, result.run, result.run_count);
        }
        Ok(true)
    }

    fn begin_unheard(&mut self, track: usize, now: i64) -> Result<Option<usize>> {
        self.hand.sessions.flush(&self.db)?;
        let Some(Track { monitor, lives }) = self.hand.tracks.get_mut(track) else { return Ok(None) };
        let like = lives.iter_mut().rev().max_by_key(|life| !life.has_ended);
        let Some(like) = like else { return Ok(None) };
        let begun = ledger::begin_unheard(&self.db, like, monitor, now)?;
        like.has_ended = true;
        lives.push(begun);
        Ok(Some(lives.len() - 1))
    }

    /// Enters what is about to happen to the orders of a monitor, and, where they are said, which sessions are still to come. Within a
    /// transaction.
    pub(super) fn state(&mut self, statement: &Statement, closed: Option<&[StoredSession]>, now: i64) -> Result<Vec<Standing>> {
        self.forget()?;
        if let Some(closed) = closed {
            self.hand.sessions.close(&self.db, &statement.monitor, closed, now)?;
        }
        ledger::state(&self.db, &self.client_id, statement, now)
    }

    /// Ends the orders that stand for other clients.
    pub(super) fn take_over(&mut self, now: i64) -> Result<usize> {
        let client_id = self.client_id.clone();
        self.commit(|writer| ledger::end_those_of_others(&writer.db, &client_id, now))
    }

    /// Writes what is at hand, and forgets it: what it stands for may be about to change. Within a transaction.
    pub(super) fn forget(&mut self) -> Result<()> {
        self.flush()?;
        self.hand = Hand::default();
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.hand.sessions.flush(&self.db)?;
        for life in self.hand.tracks.iter_mut().flat_map(|track| &mut track.lives).filter(|life| life.is_changed) {
            life.write(&self.db)?;
        }
        Ok(())
    }
}

impl Hand {
    fn series(&mut self, db: &Connection, template: &[u8], result: &ProbeResult, due: i64) -> Result<Series> {
        let track = self.track(db, result)?;
        let known = db
            .prepare_cached("SELECT id, newest_ns FROM series WHERE template = ?1")?
            .query_row([template], |row| Ok(Series { id: row.get(0)?, newest: row.get(1)?, track }))
            .optional()?;
        if let Some(known) = known {
            return Ok(known);
        }
        let mut insert = db.prepare_cached(
            "INSERT INTO series (monitor, check_name, revision, template, newest_ns)
             VALUES (:monitor, :check, :revision, :template, :newest) RETURNING id",
        )?;
        let values = named_params! {
            ":monitor": result.monitor, ":check": result.check_name, ":revision": result.revision, ":template": template, ":newest": due,
        };
        Ok(Series { id: insert.query_row(values, |row| row.get(0))?, newest: due, track })
    }

    fn track(&mut self, db: &Connection, result: &ProbeResult) -> Result<usize> {
        let key = [&result.monitor, &result.check_name, &result.revision].map(String::clone);
        if let Some(place) = self.tracked.get(&key) {
            return Ok(*place);
        }
        let lives = ledger::lives(db, &result.monitor, &result.check_name, &result.revision)?;
        self.tracks.push(Track { monitor: result.monitor.clone(), lives });
        self.tracked.insert(key, self.tracks.len() - 1);
        Ok(self.tracks.len() - 1)
    }
}
