//! The whole manager, with a scripted monitor in the place of the embedded one.

use std::{
    io::{self, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use vantage_contract::v1::{Outcome, ProbeResult, RunOnce, Start, Stop, execute_request::Order};
use vantage_daemon::{
    data::Data,
    exit::{Exit, Fatal},
    signal::Signals,
};

use crate::{
    World,
    cli::Cli,
    script::{Call, script_on, soon},
};

/// Standard output, as far as it was written.
#[derive(Clone)]
struct Paper(Arc<watch::Sender<String>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_modify(|text| text.push_str(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A running manager, and the ends of its world.
struct Setting {
    manager: JoinHandle<Result<Exit, Fatal>>,
    calls: mpsc::Receiver<Call>,
    paper: watch::Receiver<String>,
    drain: CancellationToken,
    reload: mpsc::Sender<()>,
    /// Cancelled when the embedded monitor is told to drain.
    draining: CancellationToken,
    /// Lets the embedded monitor end.
    delivered: CancellationToken,
    folder: tempfile::TempDir,
}

impl Setting {
    fn write(&self, text: &str) {
        write(self.folder.path(), text);
    }

    async fn call(&mut self) -> Call {
        soon("a call", self.calls.recv()).await.unwrap()
    }

    async fn printed(&mut self, what: &str) {
        soon(what, self.paper.wait_for(|text| text.contains(what))).await.unwrap();
    }

    async fn ended(self) -> Result<Exit, Fatal> {
        soon("the end", self.manager).await.unwrap()
    }
}

/// Others see the file whole or not at all.
fn write(folder: &Path, text: &str) {
    std::fs::write(folder.join("new"), text).unwrap();
    std::fs::rename(folder.join("new"), folder.join("checks.json")).unwrap();
}

fn start(file: &str, flags: &str) -> Setting {
    start_on("127.0.0.1:0", "127.0.0.1:0", file, flags)
}

fn start_on(http: &str, embedded: &str, file: &str, flags: &str) -> Setting {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), file);
    let config = folder.path().join("checks.json").display().to_string();
    let line = format!("vantage-manager --config {config} --http {http} --embedded-listen {embedded} --data memory {flags}");
    let arguments = Cli::read(line.split_whitespace()).unwrap().run;
    let (drain, end, draining, delivered) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let (reload, reloads) = mpsc::channel(1);
    let (paper, read) = watch::channel(String::new());
    let (calls_in, calls) = mpsc::channel(8);
    let (told, done) = (draining.clone(), delivered.clone());
    let embed = move |listener: TcpListener, _: Data, drain: CancellationToken| {
        let (calls_in, told, done) = (calls_in.clone(), told.clone(), done.clone());
        Box::pin(async move {
            let mut calls = script_on(listener);
            tokio::spawn(async move {
                while let Some(call) = calls.recv().await {
                    let _ = calls_in.send(call).await;
                }
            });
            drain.cancelled().await;
            told.cancel();
            done.cancelled().await;
            Ok(())
        }) as std::pin::Pin<Box<dyn Future<Output = Result<(), Fatal>> + Send>>
    };
    let world = World {
        arguments,
        judge: Arc::new(|_| Ok(Duration::from_secs(1))),
        embed: Box::new(embed),
        signals: Signals { drain: drain.clone(), end, reload: reloads },
        stdout: Box::new(Paper(Arc::new(paper))),
        stdout_is_terminal: false,
    };
    let manager = tokio::spawn(crate::run(world));
    Setting { manager, calls, paper: read, drain, reload, draining, delivered, folder }
}

fn checks(checks: &[(&str, &str)]) -> String {
    let checks: Vec<_> =
        checks.iter().map(|(name, more)| format!(r#"{{"name": "{name}", {more} "ping": {{"host": "localhost"}}}}"#)).collect();
    format!(r#"{{"checks": [{}]}}"#, checks.join(", "))
}

fn result(revision: &str, check: &str, sequence: u64, outcome: Outcome) -> ProbeResult {
    ProbeResult {
        check_name: check.into(),
        kind: "ping".into(),
        revision: revision.into(),
        run: sequence - 1,
        run_count: 1,
        monitor: "lab".into(),
        session: "s1".into(),
        sequence,
        sequence_count: 1,
        outcome: outcome.into(),
        address: "127.0.0.1".into(),
        ..ProbeResult::default()
    }
}

#[tokio::test]
async fn checks_with_a_count_run_that_often_and_then_the_manager_is_done() {
    let mut setting = start(&checks(&[("a", r#""count": 2,"#)]), "");
    let mut call = setting.call().await;
    let (_, orders) = call.restatement().await;
    let revision = orders[0].1.clone();
    call.send(result(&revision, "a", 1, Outcome::Passed)).await;
    call.acknowledged(1).await;
    assert!(!setting.draining.is_cancelled());
    call.send(result(&revision, "a", 2, Outcome::Failed)).await;
    soon("the drain", setting.draining.cancelled()).await;
    call.acknowledged(2).await;
    drop(call);
    setting.delivered.cancel();
    let paper = setting.paper.clone();
    assert_eq!(setting.ended().await, Ok(Exit::Ok));
    assert_eq!(*paper.borrow(), "[-] [ping] [passed] [a@lab: 127.0.0.1]\n[-] [ping] [failed] [a@lab: 127.0.0.1]\n");
}

#[tokio::test]
async fn a_result_that_is_sent_twice_is_printed_once() {
    let mut setting = start(&checks(&[("a", "")]), "");
    let mut call = setting.call().await;
    let revision = call.restatement().await.1[0].1.clone();
    call.send(result(&revision, "a", 1, Outcome::Passed)).await;
    call.acknowledged(1).await;
    call.fail(Status::unknown("cut")).await;
    let mut call = setting.call().await;
    assert_eq!(call.restatement().await.0.stored_sessions[0].sequence, 1);
    call.send(result(&revision, "a", 1, Outcome::Passed)).await;
    call.send(result(&revision, "a", 2, Outcome::Failed)).await;
    setting.printed("[failed]").await;
    assert_eq!(setting.paper.borrow().matches("[passed]").count(), 1);
}

#[tokio::test]
async fn a_drain_lets_the_embedded_monitor_deliver_first() {
    let mut setting = start(&checks(&[("a", "")]), "");
    let mut call = setting.call().await;
    let revision = call.restatement().await.1[0].1.clone();
    setting.drain.cancel();
    soon("the drain", setting.draining.cancelled()).await;
    // What was in flight, after the drain began: taken, printed and acknowledged.
    call.send(result(&revision, "a", 1, Outcome::Passed)).await;
    call.acknowledged(1).await;
    drop(call);
    setting.delivered.cancel();
    let paper = setting.paper.clone();
    assert_eq!(setting.ended().await, Ok(Exit::Ok));
    assert_eq!(paper.borrow().matches("[passed]").count(), 1);
}

#[tokio::test]
async fn a_changed_file_counts_at_once_and_a_bad_one_not_at_all() {
    let mut setting = start(&checks(&[("a", ""), ("b", "")]), "");
    let mut call = setting.call().await;
    call.restatement().await;
    setting.write(&checks(&[("b", ""), ("c", "")]).replace("ping", "pong"));
    setting.reload.send(()).await.unwrap();
    // All or nothing: had the bad file been half read, this would not be the whole difference.
    setting.write(&checks(&[("b", ""), ("c", "")]));
    assert_eq!(call.next().await, Some(Order::Stop(Stop { check_name: "a".into() })));
    assert!(matches!(call.next().await, Some(Order::Start(Start { check: Some(check), .. })) if check.name == "c"));
}

#[tokio::test]
async fn a_monitor_that_is_called_otherwise_in_the_file_goes_on_with_its_orders() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut calls = script_on(listener);
    let file = |name: &str| {
        let monitors = format!(r#"{{"monitors": [{{"name": "{name}", "address": "http://{address}"}}], "#);
        checks(&[("a", "")]).replacen('{', &monitors, 1)
    };
    let setting = start(&file("old"), "");
    let mut first = soon("a call", calls.recv()).await.unwrap();
    let (_, before) = first.restatement().await;
    setting.write(&file("new"));
    setting.reload.send(()).await.unwrap();
    assert_eq!(first.next().await, None, "a half-close, and no Stop");
    assert!(calls.try_recv().is_err(), "one link to a monitor at a time");
    drop(first);
    let (_, after) = soon("a second call", calls.recv()).await.unwrap().restatement().await;
    assert_eq!(after, before);
}

#[tokio::test]
async fn a_bad_file_ends_the_start_before_anything_is_started() {
    let mut setting = start(r#"{"checks": [{"name": "a", "pong": {}}]}"#, "");
    let fatal = soon("the end", &mut setting.manager).await.unwrap().unwrap_err();
    assert_eq!(fatal.exit, Exit::Config);
    assert!(fatal.message.contains("checks.json:1:"), "{fatal}");
    assert!(setting.calls.recv().await.is_none());
}

#[tokio::test]
async fn a_page_for_everybody_has_to_be_asked_for() {
    let setting = start_on("0.0.0.0:0", "127.0.0.1:0", &checks(&[("a", "")]), "");
    assert!(matches!(setting.ended().await, Err(fatal) if fatal.exit == Exit::Usage && fatal.message.contains("--insecure-http")));
    let setting = start_on("off", "0.0.0.0:0", &checks(&[("a", "")]), "");
    assert!(matches!(setting.ended().await, Err(fatal) if fatal.exit == Exit::Usage && fatal.message.contains("vantage-monitor")));
}

/// Reads what `--once` asks: check names and revisions.
async fn questions(call: &mut Call, count: usize) -> Vec<(String, String)> {
    assert!(matches!(call.next().await, Some(Order::Hello(hello)) if hello.client_id.starts_with("once-")));
    let mut asked = Vec::new();
    for _ in 0..count {
        match call.next().await {
            Some(Order::RunOnce(RunOnce { check: Some(check), revision, expire_time: Some(_) })) => asked.push((check.name, revision)),
            other => panic!("{other:?} in place of RunOnce"),
        }
    }
    asked
}

async fn once(outcomes: &[Outcome]) -> Result<Exit, Fatal> {
    let names = ["a", "b", "c"];
    let file: Vec<_> = names.iter().take(outcomes.len()).map(|name| (*name, "")).collect();
    let mut setting = start(&checks(&file), "--once");
    let mut call = setting.call().await;
    let asked = questions(&mut call, outcomes.len()).await;
    for (sequence, ((name, revision), outcome)) in (1..).zip(asked.iter().zip(outcomes)) {
        call.send(result(revision, name, sequence, *outcome)).await;
    }
    call.acknowledged(outcomes.len() as u64).await;
    assert_eq!(call.next().await, None);
    drop(call);
    setting.delivered.cancel();
    let paper = setting.paper.clone();
    let ended = setting.ended().await;
    assert_eq!(paper.borrow().lines().count(), outcomes.len());
    ended
}

#[tokio::test]
async fn once_runs_each_check_once_and_ends_with_how_it_went() {
    assert_eq!(once(&[Outcome::Passed, Outcome::Passed]).await, Ok(Exit::Ok));
    assert_eq!(once(&[Outcome::Undetermined, Outcome::Failed, Outcome::Passed]).await, Ok(Exit::SomeFailed));
    assert_eq!(once(&[Outcome::Skipped]).await, Ok(Exit::SomeUndetermined));
}

#[tokio::test]
async fn once_with_a_connection_that_breaks_leaves_the_rest_undetermined() {
    let mut setting = start(&checks(&[("a", ""), ("b", "")]), "--once");
    let mut call = setting.call().await;
    let asked = questions(&mut call, 2).await;
    call.send(result(&asked[0].1, "a", 1, Outcome::Passed)).await;
    call.acknowledged(1).await;
    call.fail(Status::unknown("cut")).await;
    setting.delivered.cancel();
    let paper = setting.paper.clone();
    assert_eq!(setting.ended().await, Ok(Exit::SomeUndetermined));
    let paper = paper.borrow();
    assert!(paper.contains("[passed] [a@lab") && paper.contains("[ping] [undetermined: internal] [b@local: monitor "), "{paper:?}");
}

#[tokio::test]
async fn once_with_a_monitor_that_refuses_says_so_at_once() {
    let mut setting = start(&checks(&[("a", "")]), "--once");
    setting.call().await.fail(Status::unauthenticated("no token")).await;
    setting.delivered.cancel();
    let ended = setting.ended().await;
    assert!(matches!(&ended, Err(fatal) if fatal.exit == Exit::Unavailable), "{ended:?}");
}
