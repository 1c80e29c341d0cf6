//! Whether a process is ready, and if not, why: what `/readyz` says. And what somebody should look after while it still is.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Conditions by name; ready is who meets them all. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    conditions: BTreeMap<String, Result<(), String>>,
    cautions: BTreeMap<String, String>,
}

impl Readiness {
    /// Says that a condition is met.
    pub fn met(&self, condition: impl Into<String>) {
        self.lock().conditions.insert(condition.into(), Ok(()));
    }

    /// Says that a condition is not met, and why.
    pub fn unmet(&self, condition: impl Into<String>, why: impl Into<String>) {
        self.lock().conditions.insert(condition.into(), Err(why.into()));
    }

    /// Forgets a condition, as that of a monitor which is no longer configured.
    pub fn forget(&self, condition: &str) {
        self.lock().conditions.remove(condition);
    }

    /// Says that something wants to be looked after soon, though all is well: `Some` of why, or `None` if it does no longer.
    pub fn caution(&self, what: &str, why: Option<String>) {
        let mut state = self.lock();
        match why {
            Some(why) => drop(state.cautions.insert(what.to_owned(), why)),
            None => drop(state.cautions.remove(what)),
        }
    }

    /// The conditions that are not met, as "name: why". Empty: ready.
    pub fn complaints(&self) -> Vec<String> {
        self.lock().conditions.iter().filter_map(|(name, state)| state.as_ref().err().map(|why| format!("{name}: {why}"))).collect()
    }

    /// What wants to be looked after soon, as "what: why".
    pub fn cautions(&self) -> Vec<String> {
        self.lock().cautions.iter().map(|(what, why)| format!("{what}: {why}")).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn a_caution_is_no_complaint() {
        let readiness = Readiness::default();
        readiness.caution("certificate", Some("expires soon".into()));
        assert_eq!((readiness.complaints().len(), readiness.cautions()), (0, vec!["certificate: expires soon".to_owned()]));
        readiness.caution("certificate", None);
        assert!(readiness.cautions().is_empty());
    }
}
