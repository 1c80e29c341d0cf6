//! Whether a process is ready, and if not, why: what `/readyz` says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Conditions by name; ready is who meets them all. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    conditions: Arc<Mutex<BTreeMap<String, Result<(), String>>>>,
}

impl Readiness {
    /// Says that a condition is met.
    pub fn met(&self, condition: impl Into<String>) {
        self.lock().insert(condition.into(), Ok(()));
    }

    /// Says that a condition is not met, and why.
    pub fn unmet(&self, condition: impl Into<String>, why: impl Into<String>) {
        self.lock().insert(condition.into(), Err(why.into()));
    }

    /// Forgets a condition, as that of a monitor which is no longer configured.
    pub fn forget(&self, condition: &str) {
        self.lock().remove(condition);
    }

    /// The conditions that are not met, as "name: why". Empty: ready.
    pub fn complaints(&self) -> Vec<String> {
        self.lock().iter().filter_map(|(name, state)| state.as_ref().err().map(|why| format!("{name}: {why}"))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Result<(), String>>> {
        self.conditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Readiness;

    #[test]
    fn one_unmet_condition_makes_the_whole_unready() {
        let readiness = Readiness::default();
        assert!(readiness.complaints().is_empty());
        readiness.met("config");
        readiness.unmet("monitor a", "connection refused");
        assert_eq!(readiness.complaints(), ["monitor a: connection refused"]);
        readiness.forget("monitor a");
        assert!(readiness.complaints().is_empty());
    }
}
