//! What the logs of all clients may take up together: each has as much as it wants while there is enough for all; after that nobody has more than
//! somebody else who wants more (max-min fairness: Bertsekas and Gallager, Data Networks, section 6.5.2).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The room of all logs. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    /// None: as much as each may have.
    most: Option<u64>,
    taken: Arc<Mutex<Taken>>,
}

/// What each client's logs take up, by the number of its claim.
#[derive(Debug, Default)]
struct Taken {
    last: u64,
    bytes: BTreeMap<u64, u64>,
}

/// One client's part of it. Dropped, it takes up nothing.
#[derive(Debug)]
pub(crate) struct Claim {
    common: Common,
    number: u64,
}

impl Common {
    /// So many bytes; none: without a bound.
    pub(crate) fn new(most: Option<u64>) -> Self {
        Self { most, taken: Arc::default() }
    }

    /// A part for one more client.
    pub(crate) fn claim(&self) -> Claim {
        let mut taken = self.lock();
        taken.last += 1;
        let number = taken.last;
        taken.bytes.insert(number, 0);
        Claim { common: self.clone(), number }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Notes what the client's logs take up now, and returns what they may.
    pub(crate) fn note(&self, bytes: u64) -> u64 {
        let Some(most) = self.common.most else { return u64::MAX };
        let mut taken = self.common.lock();
        taken.bytes.insert(self.number, bytes);
        level(most, taken.bytes.values().copied().collect())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.common.lock().bytes.remove(&self.number);
    }
}

/// How high each may come, so that all together have no more than `most`.
fn level(most: u64, mut taken: Vec<u64>) -> u64 {
    taken.sort_unstable();
    let (mut left, mut others) = (most, taken.len() as u64);
    for bytes in taken {
        // Of what those with less have left over, an equal part for each of the others.
        let equal = left / others.max(1);
        if bytes > equal {
            return equal;
        }
        left -= bytes;
        others -= 1;
    }
    u64::MAX
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_takes_little_has_it_and_the_others_share_the_rest() {
        assert_eq!(level(100, vec![]), u64::MAX);
        assert_eq!(level(100, vec![60, 40]), u64::MAX);
        assert_eq!((level(100, vec![60, 41]), level(100, vec![60, 60])), (59, 50));
        assert_eq!(level(100, vec![10, 90, 20, 1000]), 35);
        assert_eq!(level(0, vec![1, 0]), 0);
    }

    #[test]
    fn a_client_that_goes_leaves_its_part_to_the_others() {
        let common = Common::new(Some(100));
        let (one, two) = (common.claim(), common.claim());
        assert_eq!((one.note(80), two.note(30)), (u64::MAX, 70));
        assert_eq!(one.note(80), 70);
        drop(two);
        assert_eq!(one.note(80), u64::MAX);
        assert_eq!(Common::new(None).claim().note(u64::MAX), u64::MAX);
    }

    proptest! {
        #[test]
        fn all_together_have_no_more_and_nobody_is_cut_below_an_equal_part(
            most in 0..1_000_000_u64,
            taken in proptest::collection::vec(0..200_000_u64, 0..20),
        ) {
            let level = level(most, taken.clone());
            let cut: u64 = taken.iter().map(|bytes| (*bytes).min(level)).sum();
            prop_assert!(cut <= most);
            if taken.iter().sum::<u64>() <= most {
                prop_assert_eq!(level, u64::MAX);
            } else {
                prop_assert!(level >= most / taken.len() as u64);
                // What is not given out is less than a byte for each.
                prop_assert!(most - cut < taken.len() as u64);
            }
        }
    }
}
