//! Threads of their own for connections: what strangers send is read, decoded and answered here, and yields to the measuring.
//!
//! Without them a flood of frames that cost nothing to send (PING, SETTINGS, RST_STREAM) takes the processors from the runs that are due:
//! each is cheap to refuse, and there is no end of them.

use std::{io, thread};

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

/// How many threads, where there are as many processors.
const THREADS: usize = 2;
/// Turns of connections after which it is looked what came, where there is always one more to take its turn.
const TURNS: u32 = 8;
/// By how much they yield (nice(2)): next to a thread that measures they get a tenth of a processor, and all of one that is idle.
const NICENESS: i32 = 10;

/// The threads, until it is dropped; what runs on them then is gone.
#[derive(Debug)]
pub(crate) struct Front(Option<Runtime>);

impl Front {
    pub(crate) fn start() -> io::Result<Self> {
        let threads = thread::available_parallelism().map_or(1, |threads| threads.get().min(THREADS));
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("front")
            .event_interval(TURNS)
            .on_thread_start(|| {
                // Linux has a priority for each thread. Where it can't be lowered, it is as it was.
                if let Err(error) = rustix::process::nice(NICENESS) {
                    tracing::debug!(%error, "the priority of the threads for connections can't be lowered");
                }
            })
            .enable_all()
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Begins something there that has tasks of its own.
    pub(crate) fn within<T>(&self, begin: impl FnOnce() -> T) -> T {
        let _entered = self.0.as_ref().map(Runtime::enter);
        begin()
    }

    /// Runs it there. None: they have ended.
    pub(crate) fn spawn<F: Future<Output: Send> + Send + 'static>(&self, future: F) -> Option<JoinHandle<F::Output>> {
        self.0.as_ref().map(|runtime| runtime.spawn(future))
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // A runtime must not be waited for within another.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
