//! Notices that files have changed: checks, certificates, keys, tokens.
//!
//! Their folders are watched, not the files: editors write another file and rename it, and Kubernetes exchanges a link beside it.

use std::{
    collections::BTreeSet,
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

/// Watches some files; its end ends the watching.
#[derive(Debug)]
pub struct Watch {
    changes: mpsc::Receiver<()>,
    // Dropped, it stops.
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches files, from their present content on: to be called before they are read. Where that is not possible, it says so and never tells of a
    /// change.
    pub fn start(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let paths: Vec<PathBuf> = paths.into_iter().collect();
        let (events_in, events) = mpsc::channel(1);
        let (changes_in, changes) = mpsc::channel(1);
        let watcher = watcher(&paths, events_in)
            .inspect_err(|error| tracing::warn!(?paths, %error, "these files can't be watched: changes count after SIGHUP"))
            .ok();
        let known = content(&paths);
        tokio::spawn(settle(paths, known, events, changes_in));
        Self { changes, _watcher: watcher }
    }

    /// Ends when one of the files has another content. Never, where they can't be watched.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending().await
        }
    }
}

fn watcher(paths: &[PathBuf], to: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let folder = |path: &PathBuf| path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let folders: BTreeSet<PathBuf> = paths.iter().map(folder).collect();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // Full: somebody is about to look anyway.
            let _ = to.try_send(());
        }
    })?;
    for folder in folders {
        watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

async fn settle(paths: Vec<PathBuf>, mut known: Vec<Option<Vec<u8>>>, mut events: mpsc::Receiver<()>, changes: mpsc::Sender<()>) {
    while events.recv().await.is_some() {
        for _ in 0..MOST_WAITS {
            if tokio::time::timeout(QUIET, events.recv()).await.is_err() {
                break;
            }
        }
        let now = content(&paths);
        if now != known {
            known = now;
            if changes.send(()).await.is_err() {
                return;
            }
        }
    }
}

/// What tells one content from another, for each file; none where there is no file.
fn content(paths: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
    paths.iter().map(|path| fs::read(path).ok().map(|bytes| digest(&SHA256, &bytes).as_ref().to_vec())).collect()
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
        let mut watch = Watch::start([path.clone()]);
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
        let mut watch = Watch::start([path.clone()]);
        fs::write(folder.path().join("other"), "x").unwrap();
        fs::write(&path, "1").unwrap();
        assert!(tokio::time::timeout(QUIET * 3, watch.changed()).await.is_err());
    }
}
