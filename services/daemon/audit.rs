//! Who came, what was asked, and what was decided: log lines of the target `audit`, with names that stay (README, "Audit").
//!
//! They are bounded in number, so that a flood of refusals fills no disk; what is left out is counted, and told.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, time::Instant};

use crate::clock;

/// Lines of one event that may be written at once.
const BURST: f64 = 1000.0;
/// Lines of one event that may be written each second, in the long run.
const PER_SECOND: f64 = 100.0;
/// After how long it is told at the latest that lines were left out.
const TELL_AFTER: Duration = Duration::from_secs(10);

/// What is told of. The names are a contract with those who read the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// Somebody was let in on a connection.
    Connected,
    /// Somebody was not let in, or was not allowed what was asked.
    Refused,
    /// Somebody who was in was put out.
    Ended,
    /// A client opened its stream.
    StreamOpened,
    /// An order was placed.
    OrderPlaced,
    /// An order took the place of another one of the same check.
    OrderReplaced,
    /// An order was stopped.
    OrderStopped,
    /// An order can't be run here, or may not.
    OrderRefused,
    /// A probe was asked for once.
    ProbeOnce,
    /// Another policy is in force, or a wrong one was left aside.
    PolicyChanged,
    /// Other certificates, keys, authorities, tokens or roles are in force, or wrong ones were left aside.
    CredentialsChanged,
}

impl Event {
    /// The value of the field `event`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Refused => "refused",
            Self::Ended => "ended",
            Self::StreamOpened => "stream_opened",
            Self::OrderPlaced => "order_placed",
            Self::OrderReplaced => "order_replaced",
            Self::OrderStopped => "order_stopped",
            Self::OrderRefused => "order_refused",
            Self::ProbeOnce => "probe_once",
            Self::PolicyChanged => "policy_changed",
            Self::CredentialsChanged => "credentials_changed",
        }
    }
}

impl Event {
    /// The same for people: the message of the line.
    pub fn words(self) -> String {
        self.name().replace('_', " ")
    }
}

/// Bounds the lines. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Audit(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    buckets: Mutex<BTreeMap<Event, Bucket>>,
    left_out: AtomicU64,
}

/// How many lines of an event may be written now.
#[derive(Debug, Default)]
struct Bucket {
    /// None: as many as it holds.
    last: Option<(Instant, f64)>,
    left_out: u64,
}

impl Bucket {
    /// Whether a line may be written.
    fn take(&mut self, now: Instant) -> bool {
        let lines = match self.last {
            None => BURST,
            Some((then, lines)) => (lines + now.saturating_duration_since(then).as_secs_f64() * PER_SECOND).min(BURST),
        };
        let may = lines >= 1.0;
        self.last = Some((now, if may { lines - 1.0 } else { lines }));
        may
    }
}

impl Audit {
    /// Has `write` write a line of the target `audit` with the event's name, unless there were too many of that event.
    pub fn tell(&self, event: Event, write: impl FnOnce(&'static str)) {
        let (may, left_out) = {
            let mut buckets = self.lock();
            let bucket = buckets.entry(event).or_default();
            let may = bucket.take(clock::monotonic());
            if may {
                (true, std::mem::take(&mut bucket.left_out))
            } else {
                bucket.left_out += 1;
                (false, bucket.left_out)
            }
        };
        match (may, left_out) {
            (true, left_out) => {
                say_left_out(event, left_out);
                write(event.name());
            }
            (false, left_out) => {
                self.0.left_out.fetch_add(1, Ordering::Relaxed);
                if left_out == 1 {
                    self.tell_later(event);
                }
            }
        }
    }

    /// How many lines were left out since the process began.
    pub fn left_out(&self) -> u64 {
        self.0.left_out.load(Ordering::Relaxed)
    }

    /// Says what was left out even if nothing of that event follows.
    fn tell_later(&self, event: Event) {
        let audit = self.clone();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep(TELL_AFTER).await;
                let left_out = audit.lock().get_mut(&event).map(|bucket| std::mem::take(&mut bucket.left_out));
                say_left_out(event, left_out.unwrap_or_default());
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Event, Bucket>> {
        self.0.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn say_left_out(event: Event, count: u64) {
    if count > 0 {
        tracing::warn!(target: "audit", event = "left_out", of = event.name(), count, "lines were left out: there were too many");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_at_once_and_in_the_long_run() {
        let (mut bucket, now) = (Bucket::default(), clock::monotonic());
        assert_eq!((0..5000).filter(|_| bucket.take(now)).count(), 1000);
        let later = now + Duration::from_secs(3);
        assert_eq!((0..5000).filter(|_| bucket.take(later)).count(), 300);
        // A clock that stands, or an hour, changes nothing about it.
        assert!(!bucket.take(later));
        assert_eq!((0..5000).filter(|_| bucket.take(later + Duration::from_secs(3600))).count(), 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_out_is_counted_and_one_event_does_not_hide_another() {
        let (audit, mut refused, mut placed) = (Audit::default(), 0, 0);
        for _ in 0..1500 {
            audit.tell(Event::Refused, |_| refused += 1);
        }
        audit.tell(Event::OrderPlaced, |name| placed += usize::from(name == "order_placed"));
        // The clock of this test stands, but for what the loop itself takes.
        assert!((1000..1500).contains(&refused), "{refused}");
        assert_eq!(placed, 1);
        assert_eq!(audit.left_out(), 1500 - refused);
        tokio::time::sleep(TELL_AFTER * 2).await;
        let waiting: u64 = audit.lock().values().map(|bucket| bucket.left_out).sum();
        assert_eq!(waiting, 0, "it was told, though nothing followed");
    }
}
