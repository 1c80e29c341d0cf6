//! The ledger of orders: each life of an order, from when it is placed until it is stopped or replaced, and how far its runs have records.
//! Which life a record belongs to is told by its anchor: when run 0 was due.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, Result, Row};

use super::{Order, row, sessions::Sessions};
use crate::plan;

/// What a manager's clock and a monitor's may differ by before an instant on one clearly lies before another one, besides two intervals.
const CLOCKS: i64 = 60_000_000_000;

/// One life of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Life {
    pub(super) id: i64,
    pub(super) interval: i64,
    pub(super) placed: i64,
    pub(super) has_ended: bool,
    /// When run 0 was due. None: no record yet.
    pub(super) anchor: Option<i64>,
    pub(super) first_run: u64,
    pub(super) next_run: u64,
    pub(super) accounted_count: u64,
    pub(super) is_changed: bool,
}

/// Which life a record belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// The one at this place.
    Of(usize),
    /// One that nobody has told of: the monitor lost the order and placed it anew by itself.
    Unheard,
    /// None: nothing is known of such an order.
    Nothing,
}

/// Which of the lives of one order (of one monitor, check and revision; oldest first) a run belongs to.
pub(super) fn claim(lives: &[Life], due: i64, run: u64) -> Claim {
    let Some(newest) = lives.last() else { return Claim::Nothing };
    let anchor = newest.anchor_of(due, run);
    let by_anchor = lives.iter().rposition(|life| life.anchor == Some(anchor));
    let standing = lives.iter().rposition(|life| !life.has_ended);
    let margin = CLOCKS.saturating_add(newest.interval.saturating_mul(2));
    if let Some(index) = standing
        && let Some(fresh) = lives.get(index).filter(|life| life.anchor.is_none())
    {
        let (before, after) = (due < fresh.placed.saturating_sub(margin), due > fresh.placed.saturating_add(margin));
        return match by_anchor {
            // A stop that did not reach the monitor: the order went on as it was.
            Some(_) if after => Claim::Of(index),
            Some(ended) => Claim::Of(ended),
            None if before => lives.iter().rposition(|life| life.has_ended && life.anchor.is_none()).map_or(Claim::Of(index), Claim::Of),
            None => Claim::Of(index),
        };
    }
    by_anchor.or_else(|| lives.iter().rposition(|life| life.anchor.is_none())).map_or(Claim::Unheard, Claim::Of)
}

impl Life {
    /// When run 0 was due, if this run was due then.
    pub(super) fn anchor_of(&self, due: i64, run: u64) -> i64 {
        let since = i128::from(run) * i128::from(self.interval);
        i64::try_from(i128::from(due) - since).unwrap_or(i64::MIN)
    }

    /// Enters a record.
    pub(super) fn enter(&mut self, due: i64, run: u64, run_count: u64) {
        let end = run.saturating_add(run_count.max(1));
        if self.anchor.is_none() {
            self.anchor = Some(self.anchor_of(due, run));
            (self.first_run, self.next_run) = (run, end);
        }
        (self.first_run, self.next_run) = (self.first_run.min(run), self.next_run.max(end));
        self.accounted_count = self.accounted_count.saturating_add(run_count.max(1));
        self.is_changed = true;
    }

    fn standing(&self) -> super::Standing {
        super::Standing {
            anchor: self.anchor.map(row::instant),
            next_run: self.anchor.map(|_| self.next_run),
            accounted_count: self.accounted_count,
        }
    }

    /// Writes how far it is.
    pub(super) fn write(&mut self, db: &Connection) -> Result<()> {
        let mut update =
            db.prepare_cached("UPDATE life SET anchor_ns = ?2, first_run = ?3, next_run = ?4, accounted_count = ?5 WHERE id = ?1")?;
        let (first, next) = (self.first_run.cast_signed(), self.next_run.cast_signed());
        update.execute((self.id, self.anchor, first, next, self.accounted_count.cast_signed()))?;
        self.is_changed = false;
        Ok(())
    }
}

const COLUMNS: &str = "id, interval_ns, placed_ns, ended_ns IS NOT NULL, anchor_ns, first_run, next_run, accounted_count";

fn life(row: &Row<'_>) -> Result<Life> {
    Ok(Life {
        id: row.get(0)?,
        interval: row.get(1)?,
        placed: row.get(2)?,
        has_ended: row.get(3)?,
        anchor: row.get(4)?,
        first_run: row.get::<_, Option<i64>>(5)?.unwrap_or_default().cast_unsigned(),
        next_run: row.get::<_, Option<i64>>(6)?.unwrap_or_default().cast_unsigned(),
        accounted_count: row.get::<_, i64>(7)?.cast_unsigned(),
        is_changed: false,
    })
}

/// The lives of an order, oldest first; only the newest few hundred, of which more would mean that somebody edits a check all day.
pub(super) fn lives(db: &Connection, monitor: &str, check: &str, revision: &str) -> Result<Vec<Life>> {
    let newest = format!(
        "SELECT {COLUMNS} FROM life WHERE monitor = ?1 AND check_name = ?2 AND revision = ?3 ORDER BY ended_ns IS NULL DESC, id DESC LIMIT 256"
    );
    let mut query = db.prepare_cached(&newest)?;
    let lives: Result<Vec<_>> = query.query_map((monitor, check, revision), life)?.collect();
    lives.map(|mut lives| {
        lives.reverse();
        lives
    })
}

/// Begins a life that nobody has told of, as another of its order went on, and ends that one where it stands.
pub(super) fn begin_unheard(db: &Connection, like: &Life, monitor: &str, now: i64) -> Result<Life> {
    if !like.has_ended {
        end(db, like.id, Sessions::heard(db, monitor)?, now)?;
    }
    let mut insert = db.prepare_cached(&format!(
        "INSERT INTO life (client_id, monitor, check_name, revision, interval_ns, count, timeout_ns, placed_ns, accounted_count, ended_ns, ended_heard_ns)
         SELECT client_id, monitor, check_name, revision, interval_ns, count, timeout_ns, ?2, 0, ?3, ?4 FROM life WHERE id = ?1 RETURNING {COLUMNS}"
    ))?;
    // Of an order that does not stand any more, only what has a record was planned.
    let (ended, heard) = if like.has_ended { (Some(now), Some(i64::MIN)) } else { (None, None) };
    insert.query_row((like.id, now, ended, heard), life)
}

fn end(db: &Connection, id: i64, heard: i64, now: i64) -> Result<()> {
    db.prepare_cached("UPDATE life SET ended_ns = ?2, ended_heard_ns = ?3 WHERE id = ?1")?.execute((id, now, heard)).map(drop)
}

/// What is about to happen to the orders of a monitor.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) monitor: String,
    pub(super) orders: Vec<Order>,
    /// The names of the checks to stop; None: all that are not in `orders`.
    pub(super) stops: Option<Vec<String>>,
}

/// Enters what is about to happen. Returns how each of the orders stands.
pub(super) fn state(db: &Connection, client_id: &str, statement: &Statement, now: i64) -> Result<Vec<super::Standing>> {
    let Statement { monitor, orders, stops } = statement;
    let heard = Sessions::heard(db, monitor)?;
    let stated: HashMap<&str, &Order> = orders.iter().map(|order| (name(order), order)).collect();
    let stops: Option<HashSet<&str>> = stops.as_ref().map(|stops| stops.iter().map(String::as_str).collect());
    let mut query = db.prepare_cached(&format!(
        "SELECT {COLUMNS}, check_name, revision FROM life WHERE client_id = ?1 AND monitor = ?2 AND ended_ns IS NULL ORDER BY id"
    ))?;
    let standing = query.query_map((client_id, monitor), |row| Ok((row.get(8)?, row.get(9)?, life(row)?)))?;
    let mut kept = HashMap::new();
    for entry in standing {
        let (check, revision, life): (String, String, Life) = entry?;
        let goes_on = match (stated.get(check.as_str()), &stops) {
            (Some(order), _) => order.start.revision == revision,
            (None, Some(stops)) => !stops.contains(check.as_str()),
            (None, None) => false,
        };
        match goes_on {
            true => drop(kept.insert(check, life)),
            false => end(db, life.id, heard, now)?,
        }
    }
    orders
        .iter()
        .map(|order| kept.get(name(order)).map_or_else(|| place(db, client_id, monitor, order, now), |life| Ok(life.standing())))
        .collect()
}

fn name(order: &Order) -> &str {
    order.start.check.as_ref().map_or("", |check| &check.name)
}

fn place(db: &Connection, client_id: &str, monitor: &str, order: &Order, now: i64) -> Result<super::Standing> {
    let check = order.start.check.clone().unwrap_or_default();
    let mut insert = db.prepare_cached(
        "INSERT INTO life (client_id, monitor, check_name, revision, interval_ns, count, timeout_ns, placed_ns, accounted_count)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0)",
    )?;
    let (interval, count) = (plan::interval_nanos(&check), i64::try_from(check.count).unwrap_or(i64::MAX));
    insert.execute((client_id, monitor, &check.name, &order.start.revision, interval, count, row::length(order.timeout), now))?;
    Ok(super::Standing::default())
}

/// Ends the orders that stand for other clients: who has this store now does not hear of them any more.
pub(super) fn end_those_of_others(db: &Connection, client_id: &str, now: i64) -> Result<usize> {
    db.execute(
        "UPDATE life SET ended_ns = ?2, ended_heard_ns =
             coalesce((SELECT max(heard_ns) FROM session WHERE session.monitor = life.monitor), -9223372036854775808)
         WHERE ended_ns IS NULL AND client_id <> ?1",
        (client_id, now),
    )
}

/// Removes what ended, with all of its runs, before an instant.
pub(super) fn tidy(db: &Connection, horizon: i64) -> Result<usize> {
    let gone = "ended_ns < ?1 AND ended_heard_ns < ?1 AND (anchor_ns IS NULL OR anchor_ns + next_run * interval_ns < ?1)";
    db.prepare_cached(&format!("DELETE FROM life WHERE {gone}"))?.execute([horizon])
}
