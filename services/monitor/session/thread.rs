//! The thread of all sessions and of the runs that they have in their own tasks, with a runtime of its own: what comes for a run wakes this thread
//! and no other, and nobody is asked whether he has nothing else to do.
//!
//! Under load it rests a moment before it looks what came: to be woken by each answer costs more than the answer. It never does while
//! anybody is in a [`Hurry`].

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
    time::Instant,
};
use vantage_daemon::clock;
use vantage_probes::Hurry;

/// The time over which runs are counted.
const WINDOW: Duration = Duration::from_millis(20);
/// From so many runs in a window on (1000 in a second) it rests.
const BUSY: u32 = 20;
/// How long: less than the millisecond by which timers are told apart.
const REST: Duration = Duration::from_micros(800);
/// Turns of sessions after which it is looked what time it is and what came, where there is always one more to take its turn.
const TURNS: u32 = 8;
/// How long what is left behind on the thread may take to end.
const LINGER: Duration = Duration::from_secs(1);

/// The thread. To be ended: dropped, it ends by itself some time later.
#[derive(Debug)]
pub(crate) struct SessionThread {
    handle: Handle,
    /// Dropping it says so.
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

impl SessionThread {
    /// Starts it. Errors: no thread, no descriptor.
    pub(crate) fn start(load: Load) -> io::Result<Self> {
        let mut builder = Builder::new_current_thread();
        builder.enable_all().event_interval(TURNS).thread_name("sessions").on_thread_park(move || load.rest());
        let runtime = builder.build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("sessions".into()).spawn(move || {
            // An error says that the other end was dropped, which is what is waited for.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_timeout(LINGER);
        })?;
        Ok(Self { handle, stop, thread })
    }

    /// Its runtime.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Ends it, and all that is on it. Blocks.
    pub(crate) fn end(self) {
        drop(self.stop);
        if self.thread.join().is_err() {
            tracing::error!("the sessions' thread broke: a fault in Vantage, please report it");
        }
    }
}

/// How many runs are begun. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    hurry: Hurry,
    window: Arc<Mutex<Window>>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    count: u32,
    before: u32,
}

impl Load {
    pub(crate) fn new(hurry: Hurry) -> Self {
        Self { hurry, window: Arc::new(Mutex::new(Window { since: clock::monotonic(), count: 0, before: 0 })) }
    }

    /// Runs were begun.
    pub(crate) fn begun(&self, count: usize, now: Instant) {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).add(u32::try_from(count).unwrap_or(u32::MAX), now);
    }

    fn rest(&self) {
        let is_busy = || self.window.lock().unwrap_or_else(PoisonError::into_inner).recent(clock::monotonic()) >= BUSY;
        if !self.hurry.is_on() && is_busy() {
            thread::sleep(REST);
        }
    }
}

impl Window {
    fn add(&mut self, count: u32, now: Instant) {
        let age = now.saturating_duration_since(self.since);
        if age >= WINDOW {
            self.before = if age < 2 * WINDOW { self.count } else { 0 };
            (self.since, self.count) = (now, 0);
        }
        self.count = self.count.saturating_add(count);
    }

    /// How many were begun in the last whole window, or in this one.
    fn recent(&self, now: Instant) -> u32 {
        match now.saturating_duration_since(self.since) {
            age if age < WINDOW => self.before.max(self.count),
            age if age < 2 * WINDOW => self.count,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_by_the_window() {
        let start = clock::monotonic();
        let mut window = Window { since: start, count: 0, before: 0 };
        let at = |millis| start + Duration::from_millis(millis);
        window.add(30, at(1));
        assert_eq!((window.recent(at(2)), window.recent(at(30)), window.recent(at(41))), (30, 30, 0));
        window.add(5, at(25));
        assert_eq!((window.recent(at(26)), window.recent(at(46))), (30, 5));
        window.add(1, at(100));
        assert_eq!(window.recent(at(101)), 1, "what was long ago does not count");
    }

    #[test]
    fn who_is_in_a_hurry_is_never_kept_waiting() {
        let hurry = Hurry::default();
        let load = Load::new(hurry.clone());
        let rested = || {
            let before = clock::monotonic();
            load.begun(100, before);
            load.rest();
            before.elapsed() >= REST
        };
        assert!(rested());
        let hurrying = hurry.begin();
        // Whatever else the machine does: one of many is not held up.
        assert!((0..1000).any(|_| !rested()));
        drop(hurrying);
        assert!(rested());
    }
}
