//! The two programs as their users start them.

use std::{path::Path, process::Stdio, time::Duration};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::watch,
};

use super::monitor::PATIENCE;

pub(crate) const MANAGER: &str = env!("CARGO_BIN_EXE_vantage-manager");
pub(crate) const MONITOR: &str = env!("CARGO_BIN_EXE_vantage-monitor");

/// What a program that has ended left.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Its stdout as one JSON object a line.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }
}

/// A program that finds no data of others, nor leaves any: its home for that is a folder of its own.
fn command(program: &str, arguments: &[&str]) -> (Command, TempDir) {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command.env("XDG_STATE_HOME", home.path()).env_remove("STATE_DIRECTORY").env_remove("VANTAGE_DATA");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    (command, home)
}

/// Runs a program to its end.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> Ended {
    let (mut command, _home) = command(program, arguments);
    let output = tokio::time::timeout(PATIENCE, command.output());
    let output = output.await.unwrap_or_else(|_| panic!("{program} {arguments:?}: no end within {PATIENCE:?}")).unwrap();
    Ended {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A program that runs. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    /// None where nobody reads it.
    lines: Option<Lines<BufReader<ChildStdout>>>,
    stderr: watch::Receiver<String>,
    _home: TempDir,
}

impl Running {
    pub(crate) fn start(program: &str, arguments: &[&str]) -> Self {
        Self::spawn(command(program, arguments))
    }

    /// One whose results nobody reads here.
    pub(crate) fn silent(program: &str, arguments: &[&str]) -> Self {
        let (mut command, home) = command(program, arguments);
        command.stdout(Stdio::null());
        Self::spawn((command, home))
    }

    fn spawn((mut command, home): (Command, TempDir)) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = child.stdout.take().map(|stdout| BufReader::new(stdout).lines());
        let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
        let (said, stderr) = watch::channel(String::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = errors.next_line().await {
                said.send_modify(|text| text.extend([line.as_str(), "\n"]));
            }
        });
        Self { child, lines, stderr, _home: home }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it still runs")
    }

    /// The next line of its stdout; none: it has closed it.
    pub(crate) async fn line(&mut self) -> Option<String> {
        self.line_within(PATIENCE).await.expect("a line within the patience of a test")
    }

    /// The next line of its stdout, if it comes within a time.
    pub(crate) async fn line_within(&mut self, time: Duration) -> Option<Option<String>> {
        let Some(lines) = &mut self.lines else { return Some(None) };
        tokio::time::timeout(time, lines.next_line()).await.ok().map(Result::unwrap)
    }

    /// The next line, as JSON.
    pub(crate) async fn json(&mut self) -> Value {
        let line = self.line().await.expect("a line, not the end");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Waits until its stderr contains this.
    pub(crate) async fn says(&mut self, what: &str) {
        let said = tokio::time::timeout(PATIENCE, self.stderr.wait_for(|text| text.contains(what))).await.map(|said| said.is_ok());
        assert_eq!(said, Ok(true), "{what:?}: not in {}", *self.stderr.borrow());
    }

    /// What it has said on its stderr.
    pub(crate) fn said(&self) -> String {
        self.stderr.borrow().clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.id()).unwrap()), signal).unwrap();
    }

    /// Waits for its end: its exit code, what was left of its stdout, and all of its stderr.
    pub(crate) async fn ended(mut self) -> Ended {
        let mut stdout = String::new();
        while let Some(line) = self.line().await {
            stdout.push_str(&line);
            stdout.push('\n');
        }
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("an end within the patience of a test").unwrap();
        // Closed, where all was read.
        let closed = tokio::time::timeout(PATIENCE, self.stderr.wait_for(|_| false)).await.map(|said| said.is_err());
        assert_eq!(closed, Ok(true), "its stderr is still open");
        Ended { code: status.code(), stdout, stderr: self.stderr.borrow().clone() }
    }
}

/// Writes a file into a folder, and returns its path as text.
pub(crate) fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The resident memory of a process, in bytes.
pub(crate) fn resident_bytes(id: u32) -> u64 {
    memory(id, "VmRSS:")
}

/// The most it was since the start, or since that was forgotten.
pub(crate) fn peak_bytes(id: u32) -> u64 {
    memory(id, "VmHWM:")
}

/// Forgets what the most was (proc_pid_clear_refs(5)).
pub(crate) fn forget_peak(id: u32) {
    std::fs::write(format!("/proc/{id}/clear_refs"), "5").unwrap();
}

fn memory(id: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
