//! What a process that starts finds in the journal.

use std::time::{Duration, SystemTime};

use prost::Message;
use rusqlite::params;
use vantage_contract::v1::Start;
use vantage_daemon::sqlite::Sync;

use super::{
    Disk, OrderId,
    disk::{LaneRow, boot_id, digest_of, unsigned},
};
use crate::ledger::Ledger;

/// Sequences that are left out after a power loss that the disk was not asked to survive: what was sent and lost must not be given again.
const LEAP: u64 = 1 << 32;
/// How finely the ages of blocks are told apart.
const MARK_MILLIS: i64 = 10_000;

/// A client, as it was.
#[derive(Debug, Clone, Default)]
pub struct StoredClient {
    /// Its id.
    pub client_id: String,
    /// The name it gave in Hello.
    pub name: String,
    /// The version it gave in Hello.
    pub version: String,
    /// Where it last came from.
    pub address: String,
    /// Its sessions, oldest first.
    pub lanes: Vec<StoredLane>,
    /// Its orders, in the order of being placed.
    pub orders: Vec<StoredOrder>,
}

/// A session, as it was.
#[derive(Debug, Clone, Default)]
pub struct StoredLane {
    /// Its name.
    pub session: String,
    /// What the monitor was called.
    pub monitor: String,
    /// The last sequence given.
    pub last: u64,
    /// The last one acknowledged.
    pub acknowledged: u64,
    /// Records that are not acknowledged.
    pub records: u64,
    /// What they take up.
    pub bytes: u64,
    /// What accounts of dropped runs take of it.
    pub settled: u64,
    /// When those up to some sequences were written.
    pub marks: Vec<(u64, SystemTime)>,
    /// Sequences that the next record has to take besides its own.
    pub gap: u64,
}

/// An order, as it was.
#[derive(Debug, Clone)]
pub struct StoredOrder {
    /// Its id within the client.
    pub id: OrderId,
    /// What was placed.
    pub start: Start,
    /// When run 0 was due.
    pub anchor: SystemTime,
    /// What was accounted for.
    pub ledger: Ledger,
    /// One more than the last run.
    pub end: Option<u64>,
    /// It does not stand any more.
    pub ended: bool,
}

impl Disk {
    /// All that is kept, and notes in the file that this process has it now.
    pub fn load(&mut self, sync: Sync) -> rusqlite::Result<Vec<StoredClient>> {
        let boot = boot_id();
        let last: Option<(String, String)> =
            self.connection().query_row("SELECT sync, boot FROM life", [], |row| Ok((row.get(0)?, row.get(1)?))).ok();
        let gap = if last.is_some_and(|(sync, before)| sync != Sync::Full.name() && before != boot) { LEAP } else { 0 };
        self.connection().execute("DELETE FROM life", [])?;
        self.connection().execute("INSERT INTO life VALUES (?1, ?2)", params![sync.name(), boot])?;
        let mut clients = self.clients()?;
        for client in &mut clients {
            client.lanes = self.stored_lanes(&client.client_id, gap)?;
            client.orders = self.orders(&client.client_id)?;
        }
        Ok(clients)
    }

    fn clients(&self) -> rusqlite::Result<Vec<StoredClient>> {
        // Sessions are written with the first Hello, but a client without its own row is one all the same.
        let mut select = self.connection().prepare(
            "SELECT id, coalesce(name, ''), coalesce(version, ''), coalesce(address, '') FROM
             (SELECT client_id AS id FROM clients UNION SELECT client_id FROM lanes UNION SELECT client_id FROM orders)
             LEFT JOIN clients ON clients.client_id = id ORDER BY id",
        )?;
        let client = |row: &rusqlite::Row<'_>| {
            let (client_id, name, version, address) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(StoredClient { client_id, name, version, address, ..StoredClient::default() })
        };
        select.query_map([], client)?.collect()
    }

    fn stored_lanes(&mut self, client_id: &str, gap: u64) -> rusqlite::Result<Vec<StoredLane>> {
        let mut lanes: Vec<(i64, StoredLane)> = {
            let mut select =
                self.connection().prepare("SELECT id, session, monitor, last, acknowledged FROM lanes WHERE client_id = ?1 ORDER BY id")?;
            let lane = |row: &rusqlite::Row<'_>| {
                let (last, acknowledged): (i64, i64) = (row.get(3)?, row.get(4)?);
                let stored = StoredLane {
                    session: row.get(1)?,
                    monitor: row.get(2)?,
                    last: unsigned(last),
                    acknowledged: unsigned(acknowledged),
                    gap,
                    ..StoredLane::default()
                };
                Ok((row.get(0)?, stored))
            };
            select.query_map([client_id], lane)?.collect::<rusqlite::Result<_>>()?
        };
        for (id, lane) in &mut lanes {
            let mut select = self.connection().prepare(
                "SELECT max(last), max(at_ms), sum(records), sum(bytes), sum(bytes * settled) FROM blocks WHERE lane = ?1 GROUP BY at_ms / ?2 ORDER BY 1",
            )?;
            let mut rows = select.query(params![*id, MARK_MILLIS])?;
            while let Some(row) = rows.next()? {
                let (last, at, records, bytes): (i64, i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
                lane.settled += unsigned(row.get(4)?);
                lane.marks.push((unsigned(last), SystemTime::UNIX_EPOCH + Duration::from_millis(unsigned(at))));
                lane.records += unsigned(records);
                lane.bytes += unsigned(bytes);
            }
        }
        for (id, lane) in &lanes {
            self.know_lane(lane.session.clone(), LaneRow { id: *id, records: lane.records, bytes: lane.bytes, settled: lane.settled });
        }
        Ok(lanes.into_iter().map(|(_, lane)| lane).collect())
    }

    fn orders(&self, client_id: &str) -> rusqlite::Result<Vec<StoredOrder>> {
        let mut select = self.connection().prepare(
            "SELECT id, coalesce(body, x''), coalesce(digest, x''), anchor_ns, next, open, end, ended
                 FROM orders LEFT JOIN starts USING (client_id, id) WHERE client_id = ?1 ORDER BY id",
        )?;
        let mut rows = select.query([client_id])?;
        let mut orders = Vec::new();
        while let Some(row) = rows.next()? {
            let (id, anchor_ns): (i64, i64) = (row.get(0)?, row.get(3)?);
            let (start, expected): (Vec<u8>, Vec<u8>) = (row.get(1)?, row.get(2)?);
            let (next, open, end): (i64, Option<i64>, Option<i64>) = (row.get(4)?, row.get(5)?, row.get(6)?);
            let sound = expected == digest_of(id, anchor_ns, &start);
            let Some(start) = sound.then(|| Start::decode(&*start).ok()).flatten() else {
                tracing::error!(
                    client = client_id,
                    order = id,
                    "an order of the journal is damaged and lost: its client will place it anew"
                );
                continue;
            };
            orders.push(StoredOrder {
                id: unsigned(id),
                start,
                anchor: instant(anchor_ns),
                ledger: Ledger { next: unsigned(next), open: open.map(unsigned) },
                end: end.map(unsigned),
                ended: row.get(7)?,
            });
        }
        Ok(orders)
    }
}

/// From nanoseconds since 1970.
fn instant(nanos: i64) -> SystemTime {
    match u64::try_from(nanos) {
        Ok(nanos) => SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos),
        Err(_) => SystemTime::UNIX_EPOCH - Duration::from_nanos(nanos.unsigned_abs()),
    }
}

/// In nanoseconds since 1970; beyond the year 2262 its last.
pub(crate) fn nanos(time: SystemTime) -> i64 {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |nanos| -nanos),
    }
}
