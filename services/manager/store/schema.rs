//! The tables, as they came to be.
//!
//! What repeats from result to result (monitor, check, kind, target, labels, revision) is written once, in `series`; a row of `result` holds
//! the rest, encoded, and what is asked for. Its index by `due_ns` holds all that the account needs, so that counting millions of runs does
//! not read their reports. Results come about in the order in which they were due, so both grow at their ends; an index by series
//! would touch as many pages as there are series.

use vantage_daemon::sqlite::Schema;

/// The name of the file in the folder of data.
pub(crate) const FILE: &str = "results.db";

/// What the file is. Migrations are only ever added: files of all versions before are out there.
pub(crate) const SCHEMA: Schema = Schema { application_id: 0x766d_6772, migrations: &[FIRST] };

const FIRST: &str = "
-- Numbers that are about the whole store: how many results there are, and up to which instant some were removed.
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('result_count', 0), ('horizon_ns', -9223372036854775808);

-- What results have in common. The template is a ProbeResult with these fields alone.
CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    monitor TEXT NOT NULL,
    check_name TEXT NOT NULL,
    revision TEXT NOT NULL,
    template BLOB NOT NULL UNIQUE,
    -- Of its results none is due later than an hour after this.
    newest_ns INTEGER NOT NULL
);
CREATE INDEX series_by_check ON series (check_name, monitor);

-- The lives of the monitors' journals, and how far each is stored.
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    monitor TEXT NOT NULL,
    session TEXT NOT NULL,
    -- The last sequence stored; 0: none yet.
    through INTEGER NOT NULL,
    -- The last one there will be, where the monitor says that the session is closed and still to come.
    final INTEGER,
    -- When the newest of its runs had ended, by the monitor's clock.
    heard_ns INTEGER NOT NULL,
    -- When the newest of its runs was due.
    newest_ns INTEGER NOT NULL,
    -- When it was used last, by the manager's clock.
    used_ns INTEGER NOT NULL,
    UNIQUE (monitor, session)
);

-- The ledger: each order from when it is placed until it is stopped or replaced.
CREATE TABLE life (
    id INTEGER PRIMARY KEY,
    client_id TEXT NOT NULL,
    monitor TEXT NOT NULL,
    check_name TEXT NOT NULL,
    revision TEXT NOT NULL,
    interval_ns INTEGER NOT NULL,
    -- 0: for ever.
    count INTEGER NOT NULL,
    timeout_ns INTEGER NOT NULL,
    placed_ns INTEGER NOT NULL,
    -- When run 0 was due, and which runs have records: unknown until the first one comes.
    anchor_ns INTEGER,
    first_run INTEGER,
    next_run INTEGER,
    accounted_count INTEGER NOT NULL,
    ended_ns INTEGER,
    -- Up to when its monitor had been heard of when it ended.
    ended_heard_ns INTEGER
);
CREATE INDEX life_by_order ON life (monitor, check_name, revision);

CREATE TABLE result (
    id INTEGER PRIMARY KEY,
    series INTEGER NOT NULL,
    life INTEGER,
    session INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    due_ns INTEGER NOT NULL,
    run INTEGER NOT NULL,
    run_count INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    reason INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX result_once ON result (session, sequence);
CREATE INDEX result_by_due ON result (due_ns, series, life, run, run_count, outcome, reason);
-- Few: ranges that begin before a span and reach into it.
CREATE INDEX result_ranges ON result (due_ns) WHERE run_count > 1;
";
