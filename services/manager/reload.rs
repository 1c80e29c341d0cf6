//! Notices that the file of checks has changed.
//!
//! The folder is watched, not the file: editors write another file and rename it, and Kubernetes exchanges a link beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use ring::digest::{SHA256, digest};
use tokio::sync::mpsc;

/// How long a folder has to be quiet before the file is read; a change comes as several events.
const QUIET: Duration = Duration::from_millis(200);
/// How many of those waits a folder that is never quiet may take.
const MOST_WAITS: usize = 10;

/// Watches one file; its end ends the watching.
#[derive(Debug)]
pub(crate) struct Watch {
    changes: mpsc::Receiver<()>,
    // Dropped, it stops.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches a file, from its present content on: to be called before it is read. Where that is not possible, it says so and never tells of a change.
    pub(crate) fn start(path: &Path) -> Self {
        let (events_in, events) = mpsc::channel(1);
        let (changes_in, changes) = mpsc::channel(1);
        let watcher = watcher(path, events_in)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "the file can't be watched: changes count after SIGHUP"))
            .ok();
        tokio::spawn(settle(path.to_owned(), content(path), events, changes_in));
        Self { changes, _watcher: watcher }
    }

    /// Ends when the file has another content. Never, where it can't be watched.
    pub(crate) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

fn watcher(path: &Path, to: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // Full: somebody is about to look anyway.
            let _ = to.try_send(());
        }
    })?;
    watcher.watch(folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

async fn settle(path: PathBuf, mut known: Option<Vec<u8>>, mut events: mpsc::Receiver<()>, changes: mpsc::Sender<()>) {
    while events.recv().await.is_some() {
        for _ in 0..MOST_WAITS {
            if tokio::time::timeout(QUIET, events.recv()).await.is_err() {
                break;
            }
        }
        let now = content(&path);
        if now != known {
            known = now;
            if changes.send(()).await.is_err() {
                return;
            }
        }
    }
}

/// What tells one content from another; none where there is no file.
fn content(path: &Path) -> Option<Vec<u8>> {
    fs::read(path).ok().map(|bytes| digest(&SHA256, &bytes).as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn soon(future: impl Future<Output = ()>) {
        tokio::time::timeout(Duration::from_secs(20), future).await.expect("the change is noticed");
    }

    #[tokio::test]
    async fn a_file_that_is_written_or_replaced_is_noticed_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checks.json");
        fs::write(&path, "1").unwrap();
        let mut watch = Watch::start(&path);
        fs::write(&path, "2").unwrap();
        soon(watch.changed()).await;
        fs::write(folder.path().join("new"), "3").unwrap();
        fs::rename(folder.path().join("new"), &path).unwrap();
        soon(watch.changed()).await;
        fs::remove_file(&path).unwrap();
        soon(watch.changed()).await;
    }

    #[tokio::test]
    async fn other_files_and_an_unchanged_content_are_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("checks.json");
        fs::write(&path, "1").unwrap();
        let mut watch = Watch::start(&path);
        fs::write(folder.path().join("other"), "x").unwrap();
        fs::write(&path, "1").unwrap();
        assert!(tokio::time::timeout(QUIET * 3, watch.changed()).await.is_err());
    }
}
