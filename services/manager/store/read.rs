//! Looking into a store: by pages, so that a slow reader neither holds up who writes nor makes the log grow.

use rusqlite::{Connection, Result, Row, named_params, types::Type};
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
        let is_filtered = selection.check.is_some() || selection.monitor.is_some();
        let mut wanted = String::new();
        if is_filtered {
            wanted += "AND series IN (SELECT id FROM series WHERE (:check IS NULL OR check_name = :check) AND (:monitor IS NULL OR monitor = :monitor)) ";
        }
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
                   WHERE {after} AND due_ns >= :since AND due_ns < :until {wanted}
                   AND (:outcome IS NULL OR outcome = :outcome) AND (:reason IS NULL OR reason = :reason)
                   AND (:check IS NULL OR TRUE) AND (:monitor IS NULL OR TRUE)
                   ORDER BY due_ns {order}, result.id {order} LIMIT :limit) AS found
             JOIN result ON result.id = found.id JOIN series ON series.id = found.series JOIN session ON session.id = result.session
             ORDER BY found.due_ns {order}, found.id {order}"
        );
        Self { selection, sql, last }
    }

    /// The next ones, at most `limit`. None: there are no more.
    pub(crate) fn next(&mut self, db: &Connection, limit: usize) -> Result<Vec<ProbeResult>> {
        let Selection { check, monitor, outcome, reason, since, until, .. } = self.selection;
        let mut query = db.prepare_cached(&self.sql)?;
        let values = named_params! {
            ":check": check, ":monitor": monitor, ":outcome": outcome, ":reason": reason,
            ":since": since.unwrap_or(i64::MIN), ":until": until.unwrap_or(i64::MAX),
            ":last": self.last.0, ":id": self.last.1, ":limit": i64::try_from(limit).unwrap_or(i64::MAX),
        };
        let rows = query.query_map(values, |row| Ok(((row.get(1)?, row.get(0)?), result(row)?)))?;
        let mut results = Vec::new();
        for row in rows {
            let (place, result) = row?;
            self.last = place;
            results.push(result);
        }
        Ok(results)
    }
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
