//! Looking into a store: by pages, so that a slow reader neither holds up who writes nor makes the log grow.

use rusqlite::{Connection, OptionalExtension as _, Result, Row, named_params, types::Type};
use vantage_contract::v1::ProbeResult;

pub(crate) use super::retention::horizon;
use super::row::{self, Columns};

/// Which results to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Only those of this check.
    pub(crate) check: Option<String>,
    /// Only those of this monitor.
    pub(crate) monitor: Option<String>,
    /// Only those with this outcome, by its number.
    pub(crate) outcome: Option<i32>,
    /// Only those with this reason, by its number.
    pub(crate) reason: Option<i32>,
    /// Only those due then or later, in nanoseconds since 1970.
    pub(crate) since: Option<i64>,
    /// Only those due before.
    pub(crate) until: Option<i64>,
    /// The oldest first. Otherwise the newest.
    pub(crate) oldest_first: bool,
}

/// The results of a selection, a page at a time: by when they were due, those due together by arrival.
#[derive(Debug)]
pub(crate) struct Page<'a> {
    selection: &'a Selection,
    sql: String,
    /// The last one read: when it was due, and its id.
    last: (i64, i64),
}

impl<'a> Page<'a> {
    pub(crate) fn new(selection: &'a Selection) -> Self {
        // The words have to be there in any case, as their values are given in any case.
        let wanted = if selection.check.is_some() || selection.monitor.is_some() {
            "series IN (SELECT id FROM series WHERE (:check IS NULL OR check_name = :check) AND (:monitor IS NULL OR monitor = :monitor))"
        } else {
            "(:check IS NULL AND :monitor IS NULL)"
        };
        let (order, last, after) = if selection.oldest_first {
            ("ASC", (i64::MIN, i64::MIN), "due_ns >= :last AND (due_ns > :last OR result.id > :id)")
        } else {
            ("DESC", (i64::MAX, i64::MAX), "due_ns <= :last AND (due_ns < :last OR result.id < :id)")
        };
        // The index alone finds the rows; only those that are shown are read.
        let sql = format!(
            "SELECT found.id, found.due_ns, found.run, found.run_count, found.outcome, found.reason,
                    result.sequence, result.body, series.template, session.session
             FROM (SELECT result.id, due_ns, series, run, run_count, outcome, reason FROM result INDEXED BY result_by_due
                   WHERE {after} AND due_ns >= :since AND due_ns < :until AND {wanted}
                   AND (:outcome IS NULL OR outcome = :outcome) AND (:reason IS NULL OR reason = :reason)
                   ORDER BY due_ns {order}, result.id {order} LIMIT :limit) AS found
             JOIN result ON result.id = found.id JOIN series ON series.id = found.series JOIN session ON session.id = result.session
             ORDER BY found.due_ns {order}, found.id {order}"
        );
        Self { selection, sql, last }
    }

    /// The next ones, at most `limit`. None: there are no more.
    pub(crate) fn next(&mut self, db: &Connection, limit: usize) -> Result<Vec<ProbeResult>> {
        Ok(self.next_with_places(db, limit)?.into_iter().map(|(_, result)| result).collect())
    }

    /// The same, each with when it was due, and its id.
    pub(crate) fn next_with_places(&mut self, db: &Connection, limit: usize) -> Result<Vec<((i64, i64), ProbeResult)>> {
        let Selection { check, monitor, outcome, reason, since, until, .. } = self.selection;
        let mut query = db.prepare_cached(&self.sql)?;
        let values = named_params! {
            ":check": check, ":monitor": monitor, ":outcome": outcome, ":reason": reason,
            ":since": since.unwrap_or(i64::MIN), ":until": until.unwrap_or(i64::MAX),
            ":last": self.last.0, ":id": self.last.1, ":limit": i64::try_from(limit).unwrap_or(i64::MAX),
        };
        let rows = query.query_map(values, |row| Ok(((row.get(1)?, row.get(0)?), result(row)?)))?;
        let results: Vec<((i64, i64), ProbeResult)> = rows.collect::<Result<_>>()?;
        self.last = results.last().map_or(self.last, |(place, _)| *place);
        Ok(results)
    }
}

/// These results, in this order, as far as they are still there.
pub(crate) fn by_ids(db: &Connection, ids: &[i64]) -> Result<Vec<ProbeResult>> {
    let mut query = db.prepare_cached(
        "SELECT result.id, due_ns, run, run_count, outcome, reason, sequence, body, template, session.session
         FROM result JOIN series ON series.id = result.series JOIN session ON session.id = result.session WHERE result.id = ?1",
    )?;
    ids.iter().filter_map(|id| query.query_row([id], result).optional().transpose()).collect()
}

fn result(row: &Row<'_>) -> Result<ProbeResult> {
    let columns = Columns {
        session: row.get(9)?,
        sequence: row.get::<_, i64>(6)?.cast_unsigned(),
        run: row.get::<_, i64>(2)?.cast_unsigned(),
        run_count: row.get::<_, i64>(3)?.cast_unsigned(),
        outcome: row.get(4)?,
        reason: row.get(5)?,
    };
    let (body, template) = (row.get_ref(7)?.as_blob()?, row.get_ref(8)?.as_blob()?);
    row::join(template, body, columns).map_err(|error| rusqlite::Error::FromSqlConversionFailure(7, Type::Blob, Box::new(error)))
}
