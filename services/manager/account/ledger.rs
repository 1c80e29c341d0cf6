//! From the store to the account: the lives of orders, and one pass over the records, which are read from an index alone.

use std::collections::{BTreeMap, HashMap};

use rusqlite::{Connection, Result, Row};

use super::arithmetic::{Known, Life, Record, Span, Sweep, Tally};
use crate::store::read::horizon;

/// What to account for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) check: Option<String>,
    pub(super) monitor: Option<String>,
    /// In nanoseconds since 1970.
    pub(super) since: i64,
    pub(super) until: i64,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// By check and monitor.
    pub(super) rows: BTreeMap<(String, String), Tally>,
    /// From when on it could be told: later than asked where older records were removed.
    pub(super) since: i64,
    /// Runs in records of orders that the ledger does not know: placed before it was begun, or by others.
    pub(super) unordered: u64,
}

/// Accounts for all runs of a span. The store is seen as it is at one instant.
pub(super) fn draw_up(db: &mut Connection, question: &Question) -> Result<Account> {
    let db = db.transaction()?;
    let since = question.since.max(horizon(&db)?.saturating_add(1));
    let span = Span { since, until: question.until };
    let heard = heard(&db)?;
    let mut sweeps = HashMap::new();
    let mut query = db.prepare(
        "SELECT id, check_name, monitor, interval_ns, count, timeout_ns, placed_ns, anchor_ns, first_run, next_run, ended_ns IS NOT NULL, ended_heard_ns
         FROM life WHERE (?1 IS NULL OR check_name = ?1) AND (?2 IS NULL OR monitor = ?2) ORDER BY id",
    )?;
    let mut lives = query.query((&question.check, &question.monitor))?;
    while let Some(row) = lives.next()? {
        let (id, key): (i64, (String, String)) = (row.get(0)?, (row.get(1)?, row.get(2)?));
        let heard = heard.get(&key.1).copied().unwrap_or_default();
        sweeps.insert(id, (key, Sweep::new(&life(row)?, span, heard)));
    }

    let mut account = Account { since, ..Account::default() };
    let whole = question.check.is_none() && question.monitor.is_none();
    let mut enter = |row: &Row<'_>| {
        let life: Option<i64> = row.get(0)?;
        let unsigned = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
        let record = Record { run: unsigned(1)?, run_count: unsigned(2)?, outcome: row.get(3)?, reason: row.get(4)? };
        match life.and_then(|life| sweeps.get_mut(&life)) {
            Some((_, sweep)) => sweep.enter(record),
            None if life.is_none() && whole => account.unordered += record.run_count.max(1),
            None => {}
        }
        Ok(())
    };
    // Ranges that began before the span come first: of a life, what begins earlier has the smaller number.
    let mut ranges = db.prepare(
        "SELECT life, run, run_count, outcome, reason FROM result INDEXED BY result_ranges
         WHERE run_count > 1 AND due_ns < ?1 AND life IS NOT NULL ORDER BY due_ns",
    )?;
    each(ranges.query([since])?, &mut enter)?;
    let mut records = db.prepare(
        "SELECT life, run, run_count, outcome, reason FROM result INDEXED BY result_by_due WHERE due_ns >= ?1 AND due_ns < ?2 ORDER BY due_ns",
    )?;
    each(records.query((since, question.until))?, &mut enter)?;

    for (key, sweep) in sweeps.into_values() {
        let tally = sweep.end();
        if tally != Tally::default() {
            account.rows.entry(key).or_default().add(&tally);
        }
    }
    Ok(account)
}

fn each(mut rows: rusqlite::Rows<'_>, act: &mut impl FnMut(&Row<'_>) -> Result<()>) -> Result<()> {
    while let Some(row) = rows.next()? {
        act(row)?;
    }
    Ok(())
}

fn life(row: &Row<'_>) -> Result<Life> {
    let run = |column| row.get::<_, Option<i64>>(column).map(|run| run.unwrap_or_default().cast_unsigned());
    let (first_run, next_run) = (run(8)?, run(9)?);
    let known = row.get::<_, Option<i64>>(7)?.map(|anchor| Known { anchor, first_run, next_run });
    let ended_heard = if row.get(10)? { Some(row.get::<_, Option<i64>>(11)?.unwrap_or(i64::MIN)) } else { None };
    Ok(Life {
        interval: row.get(3)?,
        count: row.get::<_, i64>(4)?.cast_unsigned(),
        timeout: row.get(5)?,
        placed: row.get(6)?,
        known,
        ended_heard,
    })
}

/// Up to when all records of a monitor should be here: it has been heard of up to then, and no earlier session of it is still to come.
fn heard(db: &Connection) -> Result<HashMap<String, i64>> {
    let mut query = db.prepare(
        "SELECT monitor, max(max(heard_ns), 0), min(CASE WHEN final > through THEN max(heard_ns, 0) END) FROM session GROUP BY monitor",
    )?;
    let rows = query.query_map([], |row| {
        let (newest, behind): (i64, Option<i64>) = (row.get(1)?, row.get(2)?);
        Ok((row.get(0)?, behind.map_or(newest, |behind| behind.min(newest))))
    })?;
    rows.collect()
}
