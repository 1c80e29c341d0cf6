//! The database of the journal.

use std::{
    collections::HashMap,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use prost::Message;
use ring::digest::SHA256;
use rusqlite::{Connection, Transaction, params};
use vantage_daemon::{
    data::Folder,
    exit::{Exit, Fatal},
    sqlite::{self, OpenError, Schema, Sync},
};

use super::{Block, Changes, Placement, Trim, WINDOW, accounts::Accounts, records};

const SCHEMA: Schema = Schema {
    application_id: 0x5661_6e4a,
    migrations: &[include_str!("schema.sql"), include_str!("starts.sql"), include_str!("settled.sql")],
};
/// What the file is called in its folder.
const FILE: &str = "journal.db";
/// What is kept for the day when the disk is full: SQLite needs room even to forget something.
const RESERVE_FILE: &str = "reserve";
const RESERVE_BYTES: usize = 2 << 20;
/// The write-ahead log is written into the file when it has grown to this many pages: 1 MiB.
const CHECKPOINT_PAGES: u32 = 256;
/// Accounts that take more are not read again to be merged with later ones.
const MOST_MERGED: u64 = 8 << 20;
/// Free pages that are given back to the file system at a time: 4 MiB.
const VACUUM_PAGES: u32 = 1024;

/// The database of the journal. The calls block on the disk.
#[derive(Debug)]
pub struct Disk {
    connection: Connection,
    monitor: String,
    /// By session.
    lanes: HashMap<String, LaneRow>,
    folder: Option<Folder>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct LaneRow {
    pub(super) id: i64,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) settled: u64,
}

/// What came of one client's [`Changes`].
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// What the sessions that were touched take up now.
    pub lanes: Vec<Holding>,
}

/// What a session takes up on the disk.
#[derive(Debug, Clone, Default)]
pub struct Holding {
    /// The session.
    pub session: String,
    /// Its records.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of accounts of runs whose results were dropped: they can't be made smaller.
    pub settled: u64,
    /// How many runs lost their results to trims just now.
    pub lost_runs: u64,
}

impl Disk {
    /// Opens the journal of the monitor of that name in a folder, or in memory. A damaged file is set aside; then its new name is returned too.
    pub fn open(folder: Option<Folder>, monitor: &str, sync: Sync, now: SystemTime) -> Result<(Self, Option<String>), Fatal> {
        let file = folder.as_ref().map(|folder| folder.path().join(FILE));
        let opened = sqlite::open(file.as_deref(), SCHEMA, sync, now).map_err(|error| {
            let exit = if matches!(error, OpenError::Foreign { .. }) { Exit::Config } else { Exit::OsError };
            Fatal::new(exit, format!("the journal: {error}"))
        })?;
        let aside = opened.set_aside.map(|path| path.display().to_string());
        let disk = Self { connection: opened.connection, monitor: monitor.to_owned(), lanes: HashMap::new(), folder };
        let set = disk.connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES);
        set.map_err(|error| Fatal::new(Exit::OsError, format!("the journal: {error}")))?;
        disk.keep_reserve();
        Ok((disk, aside))
    }

    /// The folder it is in; none: it is in memory.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_ref().map(Folder::path)
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn know_lane(&mut self, session: String, row: LaneRow) {
        self.lanes.insert(session, row);
    }

    /// Writes the changes of several clients, all or nothing. Returns what came of each, in their order.
    pub fn apply(&mut self, changes: &[(&str, &Changes)], now: SystemTime) -> rusqlite::Result<Vec<Written>> {
        let transaction = self.connection.transaction()?;
        let mut work = Work { transaction: &transaction, lanes: &self.lanes, news: HashMap::new(), gone: Vec::new(), now_ms: millis(now) };
        let mut written = Vec::with_capacity(changes.len());
        for (client_id, changes) in changes {
            written.push(work.apply(client_id, &self.monitor, changes)?);
        }
        let Work { news, gone, .. } = work;
        transaction.commit()?;
        self.lanes.extend(news);
        self.lanes.retain(|session, _| !gone.contains(session));
        Ok(written)
    }

    /// Blocks of a session that hold what follows a sequence, up to about so many bytes but at least one: each with its last sequence, and
    /// without a body where it is damaged.
    pub fn read(&self, session: &str, after: u64, bytes: usize) -> rusqlite::Result<Vec<(u64, Option<Bytes>)>> {
        let Some(lane) = self.lanes.get(session) else { return Ok(Vec::new()) };
        let mut statement =
            self.connection.prepare_cached("SELECT first, last, digest, body FROM blocks WHERE lane = ?1 AND last > ?2 ORDER BY last")?;
        let mut rows = statement.query(params![lane.id, signed(after)])?;
        let (mut blocks, mut size) = (Vec::new(), 0);
        while size < bytes
            && let Some(row) = rows.next()?
        {
            let (first, last): (i64, i64) = (row.get(0)?, row.get(1)?);
            let (expected, body): (Vec<u8>, Vec<u8>) = (row.get(2)?, row.get(3)?);
            size += body.len().max(1);
            let sound = expected == digest_of(first, last, &body);
            blocks.push((unsigned(last), sound.then(|| body.into())));
        }
        Ok(blocks)
    }

    /// What the files take up, in bytes.
    pub fn file_bytes(&self) -> u64 {
        let pragma = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap_or_default();
        unsigned(pragma("page_count") * pragma("page_size"))
    }

    /// Gives some free pages back, if a quarter of the file is free.
    pub fn shrink(&self) -> rusqlite::Result<()> {
        let pages = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        if pages("freelist_count")? * 4 > pages("page_count")?.max(i64::from(VACUUM_PAGES)) {
            let mut vacuum = self.connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
            // A row for each page.
            let mut rows = vacuum.query([])?;
            while rows.next()?.is_some() {}
        }
        Ok(())
    }

    /// Takes up the reserve, if it is not there and there is room.
    pub(super) fn keep_reserve(&self) {
        let Some(file) = self.folder().map(|folder| folder.join(RESERVE_FILE)) else { return };
        if !file.exists() && fs::write(&file, vec![0xa5; RESERVE_BYTES]).is_err() {
            // Half of one would only take the room that others need.
            let _ = fs::remove_file(&file);
        }
    }

    /// Moves what the write-ahead log holds into the file, as far as there is room, and empties it. False: it did not all fit.
    pub(super) fn checkpoint(&self) -> bool {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).is_ok()
    }

    /// Whether so many bytes would fit into free pages of the file: then they need room in the write-ahead log alone, which is given back.
    pub(super) fn has_free_pages_for(&self, bytes: u64) -> bool {
        let pragma = |name| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap_or_default();
        unsigned(pragma("freelist_count") * pragma("page_size")) > bytes + bytes / 4 + 65_536
    }

    /// Does what makes room, or takes none in the end: where there is none for it, it gets the reserve. Nothing else ever does.
    pub(super) fn with_reserve<T>(&mut self, work: impl Fn(&mut Self) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let done = work(self);
        if !done.as_ref().is_err_and(sqlite::is_full) {
            return done;
        }
        if let Some(folder) = self.folder() {
            // Where it is gone already, there is nothing left to try with.
            let _ = fs::remove_file(folder.join(RESERVE_FILE));
        }
        self.checkpoint();
        let done = work(self);
        if done.is_ok() && self.checkpoint() {
            self.keep_reserve();
        }
        done
    }

    /// Where there is no room on the disk: the oldest results of the session that has most become accounts, which frees pages for others.
    /// None: nothing can be freed.
    pub fn make_room(&mut self, now: SystemTime) -> rusqlite::Result<Option<Written>> {
        let mut lanes: Vec<(String, LaneRow)> = self.lanes.iter().map(|(session, lane)| (session.clone(), *lane)).collect();
        lanes.sort_by_key(|(_, lane)| std::cmp::Reverse(lane.bytes));
        for (session, lane) in lanes {
            let acknowledged: i64 =
                self.connection.query_row("SELECT acknowledged FROM lanes WHERE id = ?1", [lane.id], |row| row.get(0))?;
            // What lies within the window may have been sent, and as much again may be on its way there.
            let after = unsigned(acknowledged) + 2 * WINDOW;
            let trim = Trim { session, after, bytes: (lane.bytes / 8).max(1), through: 0, coarse: false };
            let changes = Changes { trims: vec![trim], ..Changes::default() };
            let written = self.apply(&[("", &changes)], now)?.pop().unwrap_or_default();
            if written.lanes.iter().any(|left| left.bytes < lane.bytes) {
                return Ok(Some(written));
            }
        }
        Ok(None)
    }
}

/// One transaction.
struct Work<'t> {
    transaction: &'t Transaction<'t>,
    lanes: &'t HashMap<String, LaneRow>,
    /// Lanes as they will be when it is committed.
    news: HashMap<String, LaneRow>,
    gone: Vec<String>,
    now_ms: i64,
}

impl Work<'_> {
    fn apply(&mut self, client_id: &str, monitor: &str, changes: &Changes) -> rusqlite::Result<Written> {
        let mut touched: Vec<(String, u64)> = Vec::new();
        if let Some((hello, address)) = &changes.client {
            let mut put = self.transaction.prepare_cached("INSERT OR REPLACE INTO clients VALUES (?1, ?2, ?3, ?4)")?;
            put.execute(params![client_id, hello.client_name, hello.client_version, address])?;
        }
        for session in &changes.opened {
            let mut open = self.transaction.prepare_cached("INSERT INTO lanes (client_id, session, monitor) VALUES (?1, ?2, ?3)")?;
            let id = open.insert(params![client_id, session, monitor])?;
            self.news.insert(session.clone(), LaneRow { id, records: 0, bytes: 0, settled: 0 });
        }
        for (id, placement) in &changes.placed {
            self.place(client_id, *id, placement)?;
        }
        for block in &changes.blocks {
            self.insert(block, false)?;
            touched.push((block.session.clone(), 0));
        }
        // Under load, an order's ledger for each result.
        let mut update = self.transaction.prepare_cached("UPDATE orders SET next = ?3, open = ?4 WHERE client_id = ?1 AND id = ?2")?;
        for (id, ledger) in &changes.ledgers {
            update.execute(params![client_id, signed(*id), signed(ledger.next), ledger.open.map(signed)])?;
        }
        for (id, end) in &changes.ended {
            let mut update = self.transaction.prepare_cached("UPDATE orders SET end = ?3, ended = 1 WHERE client_id = ?1 AND id = ?2")?;
            update.execute(params![client_id, signed(*id), signed(*end)])?;
        }
        for id in &changes.dropped {
            for delete in ["DELETE FROM orders WHERE client_id = ?1 AND id = ?2", "DELETE FROM starts WHERE client_id = ?1 AND id = ?2"] {
                self.transaction.prepare_cached(delete)?.execute(params![client_id, signed(*id)])?;
            }
        }
        for (session, sequence) in &changes.acknowledged {
            self.acknowledge(session, *sequence)?;
            touched.push((session.clone(), 0));
        }
        for trim in &changes.trims {
            let lost = self.trim(trim)?;
            touched.push((trim.session.clone(), lost));
        }
        for session in &changes.finished {
            if let Some(lane) = self.lane(session) {
                self.transaction.prepare_cached("DELETE FROM blocks WHERE lane = ?1")?.execute([lane.id])?;
                self.transaction.prepare_cached("DELETE FROM lanes WHERE id = ?1")?.execute([lane.id])?;
                self.gone.push(session.clone());
            }
        }
        if changes.forget {
            self.transaction.execute("DELETE FROM blocks WHERE lane IN (SELECT id FROM lanes WHERE client_id = ?1)", [client_id])?;
            let mut lanes = self.transaction.prepare("DELETE FROM lanes WHERE client_id = ?1 RETURNING session")?;
            for session in lanes.query_map([client_id], |row| row.get(0))? {
                self.gone.push(session?);
            }
            for table in ["orders", "starts", "clients"] {
                self.transaction.execute(&format!("DELETE FROM {table} WHERE client_id = ?1"), [client_id])?;
            }
        }
        let holding = |(session, lost_runs): (String, u64)| {
            let LaneRow { records, bytes, settled, .. } = self.lane(&session)?;
            Some(Holding { session, records, bytes, settled, lost_runs })
        };
        Ok(Written { lanes: touched.into_iter().filter_map(holding).collect() })
    }

    fn lane(&self, session: &str) -> Option<LaneRow> {
        self.news.get(session).or_else(|| self.lanes.get(session)).copied()
    }

    fn place(&self, client_id: &str, id: u64, placement: &Placement) -> rusqlite::Result<()> {
        let Placement { start, anchor_ns, first_run, end } = placement;
        let start = start.encode_to_vec();
        let digest = digest_of(signed(id), *anchor_ns, &start);
        let mut put =
            self.transaction.prepare_cached("INSERT INTO orders (client_id, id, anchor_ns, next, end) VALUES (?1, ?2, ?3, ?4, ?5)")?;
        put.execute(params![client_id, signed(id), anchor_ns, signed(*first_run), end.map(signed)])?;
        let mut put = self.transaction.prepare_cached("INSERT INTO starts (client_id, id, digest, body) VALUES (?1, ?2, ?3, ?4)")?;
        put.execute(params![client_id, signed(id), digest, start])?;
        Ok(())
    }

    fn insert(&mut self, block: &Block, settled: bool) -> rusqlite::Result<()> {
        let Some(mut lane) = self.lane(&block.session) else { return Ok(()) };
        let (first, last) = (signed(block.first), signed(block.last));
        let mut insert = self.transaction.prepare_cached("INSERT INTO blocks VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
        let bytes = block.body.len() as u64;
        insert.execute(params![
            lane.id,
            first,
            last,
            signed(block.count),
            signed(bytes),
            self.now_ms,
            settled,
            digest_of(first, last, &block.body),
            &block.body[..]
        ])?;
        self.transaction.prepare_cached("UPDATE lanes SET last = max(last, ?2) WHERE id = ?1")?.execute(params![lane.id, last])?;
        lane.records += block.count;
        lane.bytes += bytes;
        lane.settled += if settled { bytes } else { 0 };
        self.news.insert(block.session.clone(), lane);
        Ok(())
    }

    fn acknowledge(&mut self, session: &str, sequence: u64) -> rusqlite::Result<()> {
        let Some(lane) = self.lane(session) else { return Ok(()) };
        let mut update = self.transaction.prepare_cached("UPDATE lanes SET acknowledged = max(acknowledged, ?2) WHERE id = ?1")?;
        update.execute(params![lane.id, signed(sequence)])?;
        let freed = self.delete(lane.id, 0, sequence)?;
        self.account(session, lane, freed);
        Ok(())
    }

    /// Deletes the blocks that end after `after` and not after `through`. Returns what they took up.
    fn delete(&self, lane: i64, after: u64, through: u64) -> rusqlite::Result<LaneRow> {
        let mut delete = self
            .transaction
            .prepare_cached("DELETE FROM blocks WHERE lane = ?1 AND last > ?2 AND last <= ?3 RETURNING records, bytes, settled")?;
        let mut rows = delete.query(params![lane, signed(after), signed(through)])?;
        let mut freed = LaneRow { id: lane, records: 0, bytes: 0, settled: 0 };
        while let Some(row) = rows.next()? {
            let (records, bytes): (i64, i64) = (row.get(0)?, row.get(1)?);
            freed.records += unsigned(records);
            freed.bytes += unsigned(bytes);
            freed.settled += if row.get(2)? { unsigned(bytes) } else { 0 };
        }
        Ok(freed)
    }

    fn account(&mut self, session: &str, mut lane: LaneRow, freed: LaneRow) {
        lane.records = lane.records.saturating_sub(freed.records);
        lane.bytes = lane.bytes.saturating_sub(freed.bytes);
        lane.settled = lane.settled.saturating_sub(freed.settled);
        self.news.insert(session.to_owned(), lane);
    }

    /// Puts accounts in the place of the oldest blocks that were never sent. Returns how many runs lost their results.
    fn trim(&mut self, trim: &Trim) -> rusqlite::Result<u64> {
        let Some(lane) = self.lane(&trim.session) else { return Ok(0) };
        let Some((begin, through)) = self.to_settle(lane.id, trim)? else { return Ok(0) };
        let mut accounts = Accounts::new(trim.coarse);
        {
            let mut select =
                self.transaction.prepare_cached("SELECT body FROM blocks WHERE lane = ?1 AND last BETWEEN ?2 AND ?3 ORDER BY last")?;
            let mut rows = select.query(params![lane.id, begin, through])?;
            while let Some(row) = rows.next()? {
                let body: Vec<u8> = row.get(0)?;
                // What can't be read can't be accounted for; the hole in the sequences shows it.
                records(body.into()).flatten().for_each(|(record, _)| accounts.add(0, record));
            }
        }
        let lost = accounts.lost_runs();
        let (begin, through) = (unsigned(begin), unsigned(through));
        let accounts = accounts.into_records();
        if accounts.is_empty() {
            return Ok(0);
        }
        let freed = self.delete(lane.id, begin.saturating_sub(1), through)?;
        self.account(&trim.session, lane, freed);
        let (mut body, count) = (Vec::new(), accounts.len() as u64);
        for (_, record) in accounts {
            // Memory that grows takes everything.
            let _ = record.encode_length_delimited(&mut body);
        }
        self.insert(&Block { session: trim.session.clone(), first: begin, last: through, count, body: body.into() }, true)?;
        Ok(lost)
    }

    /// From which sequence to which a trim makes accounts: of enough blocks that are none yet, and of the accounts before them, as far as
    /// these are few beside what they are merged with. What is read is so in proportion to what is dropped, however many accounts there are.
    fn to_settle(&self, lane: i64, trim: &Trim) -> rusqlite::Result<Option<(i64, i64)>> {
        let mut select = self
            .transaction
            .prepare_cached("SELECT first, last, bytes, settled FROM blocks WHERE lane = ?1 AND last > ?2 AND first > ?2 ORDER BY last")?;
        let mut rows = select.query(params![lane, signed(trim.after)])?;
        let (mut settled, mut range, mut weight) = (Vec::new(), None, 0);
        while let Some(row) = rows.next()? {
            let (first, last, bytes, is_settled): (i64, i64, i64, bool) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            if weight >= trim.bytes && unsigned(last) > trim.through {
                break;
            }
            if is_settled && range.is_none() {
                settled.push((first, unsigned(bytes)));
                continue;
            }
            range = Some((range.map_or(first, |(begin, _)| begin), last));
            weight += if is_settled { 0 } else { unsigned(bytes) };
        }
        let Some((mut begin, through)) = range else { return Ok(None) };
        for (first, bytes) in settled.into_iter().rev() {
            if bytes > MOST_MERGED.min(2 * weight) {
                break;
            }
            begin = first;
            weight += bytes;
        }
        Ok(Some((begin, through)))
    }
}

/// What a row must hash to: the first 8 bytes of SHA-256, against bytes that flipped, not against people.
pub(super) fn digest_of(first: i64, second: i64, body: &[u8]) -> [u8; 8] {
    let mut context = ring::digest::Context::new(&SHA256);
    context.update(&first.to_be_bytes());
    context.update(&second.to_be_bytes());
    context.update(body);
    let mut short = [0; 8];
    short.copy_from_slice(&context.finish().as_ref()[..8]);
    short
}

/// Which life of the machine this is; empty where that can't be told.
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim_end().to_owned()
}

/// SQLite's integers are signed; what is counted here never comes near the difference.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
