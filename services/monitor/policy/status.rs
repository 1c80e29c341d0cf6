//! Where the policy in force comes from, and whether the last attempt to read it anew went well.

use std::time::SystemTime;

use prost_types::Timestamp;
use vantage_contract::v1::PolicyStatus;
use vantage_daemon::{
    audit::{Audit, Event},
    readiness::Readiness,
};

use super::Policy;

/// The condition of readiness.
const CONDITION: &str = "policy";

/// How the policy came into force.
#[derive(Debug, Clone)]
pub struct Status {
    /// The file that it is in. Empty: nobody gave one.
    pub file: String,
    /// Since when it is in force.
    pub since: SystemTime,
    /// What is wrong with the file as it is now. None: it is in force.
    pub trouble: Option<String>,
    /// How often it was read anew and put in force.
    pub reloads: u64,
    /// How often it was read anew, and wrong.
    pub failed_reloads: u64,
    /// Who tells whether this process is well.
    readiness: Option<Readiness>,
    /// Who bounds the audit log.
    audit: Audit,
}

impl Status {
    pub(super) fn new(since: SystemTime) -> Self {
        Self { file: String::new(), since, trouble: None, reloads: 0, failed_reloads: 0, readiness: None, audit: Audit::default() }
    }
}

impl Policy {
    /// How the policy came into force.
    pub fn status(&self) -> Status {
        self.lock_status().clone()
    }

    /// Says where it comes from.
    pub(crate) fn note_file(&self, file: impl Into<String>) {
        self.lock_status().file = file.into();
    }

    /// Has health told, from now on, when the file is wrong.
    pub(crate) fn report_to(&self, readiness: &Readiness) {
        self.lock_status().readiness = Some(readiness.clone());
    }

    /// Has changes told, from now on, where all that is audited is bounded.
    pub(crate) fn audit_by(&self, audit: &Audit) {
        self.lock_status().audit = audit.clone();
    }

    /// Says what came of reading the file anew.
    pub(super) fn note_reload(&self, outcome: Result<(), String>, now: SystemTime) {
        let mut status = self.lock_status();
        match &outcome {
            Ok(()) => {
                status.reloads += 1;
                status.since = now;
            }
            Err(_) => status.failed_reloads += 1,
        }
        status.audit.tell(Event::PolicyChanged, |event| match &outcome {
            Ok(()) => tracing::info!(target: "audit", event, file = status.file, decision = "in_force", "policy"),
            Err(why) => tracing::warn!(target: "audit", event, file = status.file, decision = "left_aside", why, "policy"),
        });
        if let Some(readiness) = &status.readiness {
            match &outcome {
                Ok(()) => readiness.met(CONDITION),
                Err(why) => readiness.unmet(CONDITION, format!("the old one stays in force: {why}")),
            }
        }
        status.trouble = outcome.err();
    }

    /// As GetMonitor shows it.
    pub fn to_proto(&self) -> PolicyStatus {
        let Status { file, since, trouble, reloads, failed_reloads, .. } = self.status();
        PolicyStatus {
            file,
            force_time: Some(Timestamp::from(since)),
            error: trouble.unwrap_or_default(),
            reload_count: reloads,
            failed_reload_count: failed_reloads,
            // Settings are what was read from text: there is nothing in them that can't be written.
            rules_json: serde_json::to_string(&self.settings()).unwrap_or_default(),
        }
    }

    fn lock_status(&self) -> std::sync::MutexGuard<'_, Status> {
        self.shared.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
