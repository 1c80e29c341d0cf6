//! Web servers that mean no good: whatever they say, a run ends in time, costs little, and gives the right reason.

mod bodies;
mod cuts;
mod heads;
mod memory;
mod neighbours;
mod redirects;
mod two;

use std::time::Duration;

use tokio::{io::AsyncWriteExt, net::TcpStream};
use vantage_contract::v1::{HttpProbe, HttpReport, HttpVersion, Outcome, Reason, probe::Kind, probe_result::Report};
use vantage_probes::Sight;

use crate::lab::{
    http::{Server, finish, read_request},
    probe::{Verdict as _, assert_ended_by_the_timeout, probe, run, within},
};

/// The timeout of [`in_haste`].
const HASTE: Duration = Duration::from_millis(300);

fn get(url: String) -> HttpProbe {
    HttpProbe { url, ..HttpProbe::default() }
}

fn asking(server: &Server) -> HttpProbe {
    get(server.url("/"))
}

/// The same, over HTTP/2 by prior knowledge.
fn asking_two(server: &Server) -> HttpProbe {
    HttpProbe { version: HttpVersion::HttpVersion2.into(), ..asking(server) }
}

async fn ask(spec: HttpProbe) -> Sight {
    run(&probe(Kind::Http(spec))).await
}

fn report(report: Option<Report>) -> HttpReport {
    match report {
        Some(Report::Http(report) | Report::Https(report)) => *report,
        other => panic!("a report of http, not {other:?}"),
    }
}

/// Asserts that it did not pass, for one of these reasons, which are all the target's.
#[track_caller]
fn fails(what: &str, sight: Sight, reasons: &[Reason]) -> Option<Report> {
    assert!(reasons.contains(&sight.reason), "{what:?}: {sight:?}");
    assert_eq!(sight.outcome, Outcome::Failed, "{what:?}: {sight:?}");
    let reason = sight.reason;
    sight.because(reason)
}

/// Asserts that a server that stalls is waited for as long as was allowed, and no longer than 50 ms more. Where this machine slept over that,
/// the run has to say so.
#[track_caller]
fn times_out(what: &str, sight: Sight) -> HttpReport {
    assert_ended_by_the_timeout(&sight);
    let reason = if sight.duration < HASTE + Duration::from_millis(50) { Reason::TimedOut } else { Reason::ResourceExhausted };
    assert_eq!(sight.reason, reason, "{what:?}: {sight:?}");
    report(sight.because(reason))
}

async fn in_haste(spec: HttpProbe) -> Sight {
    run(&within(HASTE.as_millis() as u64, Kind::Http(spec))).await
}

/// Says `again` without end, once it has said `first`.
async fn endless(first: impl Into<Vec<u8>>, again: impl AsRef<[u8]>) -> Server {
    let (first, again) = (first.into(), again.as_ref().repeat(4096_usize.div_ceil(again.as_ref().len())));
    Server::start(move |mut stream, _| {
        let (first, again) = (first.clone(), again.clone());
        async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(&first).await;
            while stream.write_all(&again).await.is_ok() {}
        }
    })
    .await
}

/// Says `first`, and then the bytes of `then` one at a time, again and again.
async fn dripping(first: impl Into<Vec<u8>>, then: impl Into<Vec<u8>>) -> Server {
    let (first, then) = (first.into(), then.into());
    Server::start(move |mut stream, _| {
        let (first, then) = (first.clone(), then.clone());
        async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(&first).await;
            drip(stream, &then).await;
        }
    })
    .await
}

async fn drip(mut stream: TcpStream, bytes: &[u8]) {
    for byte in bytes.iter().cycle() {
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Answers with these bytes, all at once, and closes.
async fn saying(bytes: impl Into<Vec<u8>>) -> Server {
    let bytes = bytes.into();
    Server::start(move |mut stream, _| {
        let bytes = bytes.clone();
        async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(&bytes).await;
            finish(stream).await;
        }
    })
    .await
}
