-- What has to be known about the file itself.
CREATE TABLE life (
    sync TEXT NOT NULL,
    -- Which life of the machine it was last written in.
    boot TEXT NOT NULL
);

CREATE TABLE clients (
    client_id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    address TEXT NOT NULL
) WITHOUT ROWID;

-- The sessions of clients; of each client the newest takes the new results.
CREATE TABLE lanes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    client_id TEXT NOT NULL,
    session TEXT NOT NULL UNIQUE,
    -- What the monitor was called.
    monitor TEXT NOT NULL,
    last INTEGER NOT NULL DEFAULT 0,
    acknowledged INTEGER NOT NULL DEFAULT 0
);

-- Results that are not acknowledged, as many together as were committed together.
CREATE TABLE blocks (
    lane INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    records INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    digest BLOB NOT NULL,
    body BLOB NOT NULL
);
CREATE UNIQUE INDEX blocks_by_place ON blocks (lane, last);

CREATE TABLE orders (
    client_id TEXT NOT NULL,
    id INTEGER NOT NULL,
    start BLOB NOT NULL,
    digest BLOB NOT NULL,
    anchor_ns INTEGER NOT NULL,
    -- The ledger.
    next INTEGER NOT NULL,
    open INTEGER,
    -- One more than the last run; none: for ever.
    end INTEGER,
    -- It does not stand any more; what is left of its runs still has to be accounted for.
    ended INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (client_id, id)
) WITHOUT ROWID;
