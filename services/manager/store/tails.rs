//! Where the newest results of each check on each monitor are: what pages ask for again and again, and no index answers (see `schema`).

use std::collections::{HashMap, VecDeque};

use rusqlite::{Connection, Result};

/// How many are known of each line.
pub(super) const LENGTH: usize = 64;
/// The most lines; with more all are forgotten, and found again when they are asked for.
const LINES: usize = 16_384;
/// How many of the newest results are looked through when a store is opened.
const SCANNED: i64 = 200_000;

/// The newest results of each line: of each check on each monitor.
#[derive(Debug, Default)]
pub(super) struct Tails {
    /// By check and monitor.
    lines: HashMap<String, HashMap<String, Tail>>,
    count: usize,
}

/// The newest results of one line.
#[derive(Debug, Default)]
struct Tail {
    /// When they were due and their ids, the newest last.
    places: VecDeque<(i64, i64)>,
    /// Whether none that belongs here may be unknown.
    is_whole: bool,
}

impl Tail {
    fn enter(&mut self, place: (i64, i64)) {
        let at = self.places.partition_point(|other| *other < place);
        if self.places.get(at) != Some(&place) {
            self.places.insert(at, place);
        }
        if self.places.len() > LENGTH {
            self.places.pop_front();
        }
    }
}

impl Tails {
    /// What the newest results of a store say.
    pub(super) fn scan(db: &Connection) -> Result<Self> {
        let mut tails = Self::default();
        let mut query = db.prepare("SELECT id, check_name, monitor FROM series")?;
        let series: HashMap<i64, (String, String)> =
            query.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?.collect::<Result<_>>()?;
        let mut query = db.prepare("SELECT due_ns, id, series FROM result INDEXED BY result_by_due ORDER BY due_ns DESC LIMIT ?1")?;
        let mut rows = query.query([SCANNED])?;
        let mut scanned = 0;
        while let Some(row) = rows.next()? {
            scanned += 1;
            let Some((check, monitor)) = series.get(&row.get(2)?) else { continue };
            let tail = tails.open(check, monitor);
            if tail.places.len() < LENGTH {
                tail.enter((row.get(0)?, row.get(1)?));
            }
            tail.is_whole = tail.places.len() == LENGTH;
        }
        if scanned < SCANNED {
            tails.lines.values_mut().flat_map(HashMap::values_mut).for_each(|tail| tail.is_whole = true);
        }
        Ok(tails)
    }

    fn open(&mut self, check: &str, monitor: &str) -> &mut Tail {
        let is_known = self.lines.get(check).is_some_and(|monitors| monitors.contains_key(monitor));
        if !is_known {
            if self.count >= LINES {
                *self = Self::default();
            }
            self.count += 1;
        }
        self.lines.entry(check.to_owned()).or_default().entry(monitor.to_owned()).or_default()
    }

    /// The ids of the newest results of a line, newest first. None: they have to be found; meanwhile, what comes is noted.
    pub(super) fn newest(&mut self, check: &str, monitor: &str, limit: usize) -> Option<Vec<i64>> {
        let tail = self.open(check, monitor);
        (tail.is_whole && limit <= LENGTH).then(|| tail.places.iter().rev().take(limit).map(|(_, id)| *id).collect())
    }

    /// Enters what was found of a line: all of its newest results. Nothing where it was forgotten since it was asked for.
    pub(super) fn found(&mut self, check: &str, monitor: &str, places: Vec<(i64, i64)>) {
        if let Some(tail) = self.known(check, monitor) {
            places.into_iter().for_each(|place| tail.enter(place));
            tail.is_whole = true;
        }
    }

    /// Enters a new result, where its line is known.
    pub(super) fn note(&mut self, check: &str, monitor: &str, place: (i64, i64)) {
        if let Some(tail) = self.known(check, monitor) {
            tail.enter(place);
        }
    }

    fn known(&mut self, check: &str, monitor: &str) -> Option<&mut Tail> {
        self.lines.get_mut(check)?.get_mut(monitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_has_the_newest_by_when_they_were_due_however_they_came() {
        let mut tails = Tails::default();
        assert_eq!(tails.newest("a", "m", 3), None);
        tails.note("a", "m", (1000, 7));
        tails.found("a", "m", (0..100).map(|due| (due, due)).collect());
        tails.note("a", "m", (50, 101));
        tails.note("b", "m", (2000, 8));
        assert_eq!(tails.newest("a", "m", 3), Some(vec![7, 99, 98]));
        assert_eq!(tails.newest("a", "m", LENGTH).unwrap().len(), LENGTH);
        assert_eq!(tails.newest("a", "m", LENGTH + 1), None, "there may be more");
    }

    #[test]
    fn lines_without_end_cost_bounded_memory() {
        let mut tails = Tails::default();
        for number in 0..LINES + 10 {
            tails.newest(&number.to_string(), "m", 1);
        }
        assert!(tails.lines.len() == tails.count && tails.count <= LINES);
    }
}
