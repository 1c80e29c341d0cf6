//! A store that forgets with the process.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use prost::Message as _;
use vantage_contract::v1::{ProbeResult, StoredSession};

use super::{
    Appended, Order, Query, Standing, Store, StoreError, Usage,
    sessions::{self, Sessions},
};

/// What a memory store may take up.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// The newest results kept of each check on each monitor. Default 100.
    pub results_per_line: usize,
    /// The most bytes over all, as estimated. Default 64 MiB.
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { results_per_line: 100, bytes: 64 << 20 }
    }
}

/// Keeps the newest results in memory. When it is full, the oldest result of the same check and monitor makes room, or, where the bytes
/// are used up, the oldest of all; both are counted ([`Usage::evicted_count`]). How far the sessions are stored is kept apart and is not
/// touched by that.
///
/// It is as durable as the process: what it has acknowledged is gone with it, and a new process takes the monitors' sessions up where
/// they are.
#[derive(Debug)]
pub struct MemoryStore {
    bounds: Bounds,
    shelves: Mutex<Shelves>,
}

#[derive(Debug, Default)]
struct Shelves {
    sessions: Sessions,
    /// All results, in the order of arrival.
    results: BTreeMap<u64, Arc<ProbeResult>>,
    /// Their numbers, by (check, monitor).
    lines: HashMap<(String, String), VecDeque<u64>>,
    arrived_count: u64,
    bytes: u64,
    evicted_count: u64,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, shelves: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn append(&self, batch: Vec<ProbeResult>) -> Result<Appended, StoreError> {
        let mut shelves = self.lock();
        let mut appended = Appended::default();
        for result in batch {
            match shelves.sessions.enter(&result) {
                sessions::Standing::New => {}
                sessions::Standing::NewAfter(gap) => appended.gaps.push(gap),
                sessions::Standing::Duplicate => {
                    appended.duplicate_count += 1;
                    continue;
                }
                sessions::Standing::Misnumbered => {
                    appended.misnumbered_count += 1;
                    continue;
                }
            }
            let result = Arc::new(result);
            shelves.put(Arc::clone(&result), self.bounds);
            appended.new.push(result);
        }
        Ok(appended)
    }

    fn stored_sessions(&self, monitor: &str) -> Result<Vec<StoredSession>, StoreError> {
        Ok(self.lock().sessions.of(monitor))
    }

    fn restate(&self, _: &str, orders: &[Order], _: &[StoredSession], _: SystemTime) -> Result<Vec<Standing>, StoreError> {
        Ok(vec![Standing::default(); orders.len()])
    }

    fn change(&self, _: &str, starts: &[Order], _: &[String], _: SystemTime) -> Result<Vec<Standing>, StoreError> {
        Ok(vec![Standing::default(); starts.len()])
    }

    fn recent(&self, query: &Query) -> Result<Vec<Arc<ProbeResult>>, StoreError> {
        let shelves = self.lock();
        if let (Some(check), Some(monitor)) = (&query.check, &query.monitor) {
            let Some(line) = shelves.lines.get(&(check.clone(), monitor.clone())) else { return Ok(Vec::new()) };
            return Ok(line.iter().rev().filter_map(|number| shelves.results.get(number)).take(query.limit).cloned().collect());
        }
        let wanted = |result: &&Arc<ProbeResult>| {
            query.check.as_ref().is_none_or(|check| *check == result.check_name)
                && query.monitor.as_ref().is_none_or(|monitor| *monitor == result.monitor)
        };
        Ok(shelves.results.values().rev().filter(wanted).take(query.limit).cloned().collect())
    }

    fn usage(&self) -> Usage {
        let shelves = self.lock();
        Usage {
            result_count: shelves.results.len() as u64,
            bytes: shelves.bytes,
            limit_bytes: self.bounds.bytes,
            evicted_count: shelves.evicted_count,
            session_count: shelves.sessions.count() as u64,
            forgotten_session_count: shelves.sessions.forgotten_count(),
        }
    }
}

impl Shelves {
    fn put(&mut self, result: Arc<ProbeResult>, bounds: Bounds) {
        self.arrived_count += 1;
        let number = self.arrived_count;
        let line = self.lines.entry((result.check_name.clone(), result.monitor.clone())).or_default();
        line.push_back(number);
        let surplus = if line.len() > bounds.results_per_line { line.pop_front() } else { None };
        self.bytes += weight(&result);
        self.results.insert(number, result);
        if let Some(number) = surplus {
            self.drop_result(number);
        }
        while self.bytes > bounds.bytes {
            let Some((&number, oldest)) = self.results.first_key_value() else { break };
            let key = (oldest.check_name.clone(), oldest.monitor.clone());
            if let Some(line) = self.lines.get_mut(&key) {
                // The oldest of all is the oldest of its line.
                line.pop_front();
                if line.is_empty() {
                    self.lines.remove(&key);
                }
            }
            self.drop_result(number);
        }
    }

    fn drop_result(&mut self, number: u64) {
        if let Some(result) = self.results.remove(&number) {
            self.bytes = self.bytes.saturating_sub(weight(&result));
            self.evicted_count += 1;
        }
    }
}

/// What a result takes up in memory, roughly: its struct, what hangs on it, which is about twice its size on the wire, and what the
/// allocator and the index add to that (measured with results of ping: 1.46 kB each).
fn weight(result: &ProbeResult) -> u64 {
    (size_of::<ProbeResult>() + 2 * result.encoded_len() + 256) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(check: &str, sequence: u64) -> ProbeResult {
        ProbeResult {
            check_name: check.into(),
            monitor: "m".into(),
            session: "s".into(),
            sequence,
            sequence_count: 1,
            ..ProbeResult::default()
        }
    }

    fn query(check: Option<&str>, limit: usize) -> Query {
        Query { check: check.map(Into::into), limit, ..Query::default() }
    }

    fn sequences(results: &[Arc<ProbeResult>]) -> Vec<u64> {
        results.iter().map(|result| result.sequence).collect()
    }

    #[test]
    fn what_is_stored_already_is_not_stored_again() {
        let store = MemoryStore::new(Bounds::default());
        assert_eq!(store.append(vec![result("a", 1), result("a", 2)]).unwrap().new.len(), 2);
        let again = store.append(vec![result("a", 2), result("a", 3)]).unwrap();
        assert_eq!((sequences(&again.new), again.duplicate_count), (vec![3], 1));
        assert_eq!(store.stored_sessions("m").unwrap(), [StoredSession { session: "s".into(), sequence: 3 }]);
        assert!(store.stored_sessions("other").unwrap().is_empty());
    }

    #[test]
    fn a_hole_is_reported_and_what_follows_is_stored() {
        let store = MemoryStore::new(Bounds::default());
        let appended = store.append(vec![result("a", 1), result("a", 4)]).unwrap();
        assert_eq!((appended.new.len(), appended.gaps.len(), appended.gaps[0].missing_count), (2, 1, 2));
    }

    #[test]
    fn the_newest_come_first_by_check_by_monitor_and_over_all() {
        let store = MemoryStore::new(Bounds::default());
        store.append(vec![result("a", 1), result("b", 2), result("a", 3)]).unwrap();
        assert_eq!(sequences(&store.recent(&query(Some("a"), 10)).unwrap()), [3, 1]);
        assert_eq!(sequences(&store.recent(&query(None, 2)).unwrap()), [3, 2]);
        let both = Query { monitor: Some("m".into()), ..query(Some("b"), 10) };
        assert_eq!(sequences(&store.recent(&both).unwrap()), [2]);
        let nobody = Query { monitor: Some("n".into()), ..query(Some("b"), 10) };
        assert!(store.recent(&nobody).unwrap().is_empty());
    }

    #[test]
    fn a_full_line_drops_its_own_oldest_and_counts_it() {
        let store = MemoryStore::new(Bounds { results_per_line: 3, ..Bounds::default() });
        store.append((1..=10).map(|sequence| result(if sequence == 1 { "rare" } else { "a" }, sequence)).collect()).unwrap();
        assert_eq!(sequences(&store.recent(&query(None, 10)).unwrap()), [10, 9, 8, 1]);
        assert_eq!((store.usage().result_count, store.usage().evicted_count), (4, 6));
    }

    #[test]
    fn full_bytes_drop_the_oldest_of_all_and_sessions_stay_known() {
        let bytes = 5 * weight(&result("a", 1));
        let store = MemoryStore::new(Bounds { bytes, ..Bounds::default() });
        for sequence in 1..=1000 {
            store.append(vec![result(&format!("check{sequence}"), sequence)]).unwrap();
        }
        let usage = store.usage();
        assert!(usage.bytes <= bytes && usage.result_count <= 5 && usage.result_count > 0, "{usage:?}");
        assert_eq!(usage.result_count + usage.evicted_count, 1000);
        assert_eq!(store.lock().lines.len() as u64, usage.result_count);
        assert_eq!(store.append(vec![result("check1", 1)]).unwrap().duplicate_count, 1);
    }
}
