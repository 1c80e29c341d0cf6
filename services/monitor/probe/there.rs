//! A probe from a monitor: as a client that comes, has one probe run, acknowledges its result and leaves.

use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use vantage_contract::v1::{Ack, Check, ExecuteRequest, Hello, ProbeResult, RunOnce, execute_request::Order};
use vantage_daemon::exit::{Exit, Fatal};

use crate::client::Link;

/// How long the monitor may take to end the stream once it has its acknowledgement. Nothing depends on it any more.
const FAREWELL: Duration = Duration::from_secs(2);

/// Runs the check's probe once, and waits for its result for at most `patience`.
pub(super) async fn run(link: &Link, check: Check, patience: Duration) -> Result<ProbeResult, Fatal> {
    let revision = fresh_id()?;
    let hello = Hello {
        client_id: format!("probe-{revision}"),
        client_name: "vantage-monitor probe".to_owned(),
        client_version: env!("CARGO_PKG_VERSION").to_owned(),
        stored_sessions: Vec::new(),
    };
    let once = RunOnce { check: Some(check), revision: revision.clone(), expire_time: None };
    let (requests, outgoing) = mpsc::channel(4);
    for order in [Order::Hello(hello), Order::RunOnce(once)] {
        send(&requests, order).await;
    }
    let answered = link.monitor().execute(ReceiverStream::new(outgoing)).await;
    let mut results = answered.map_err(|status| link.fatal(&status))?.into_inner();
    let ours = async {
        loop {
            match results.message().await.map_err(|status| link.fatal(&status))? {
                Some(result) if result.revision == revision => return Ok(result),
                Some(_) => {}
                None => return Err(Fatal::new(Exit::Unavailable, format!("{}: the stream ended without a result", link.url()))),
            }
        }
    };
    let late = || Fatal::new(Exit::Unavailable, format!("{}: no result within {patience:?}", link.url()));
    let result = timeout(patience, ours).await.map_err(|_| late())??;
    send(&requests, Order::Ack(Ack { session: result.session.clone(), sequence: result.sequence })).await;
    drop(requests);
    // The result is here; a farewell that goes wrong changes nothing about it.
    let _ = timeout(FAREWELL, async { while let Ok(Some(_)) = results.message().await {} }).await;
    Ok(result)
}

async fn send(requests: &mpsc::Sender<ExecuteRequest>, order: Order) {
    // A stream that is gone says so where its answers are read.
    let _ = requests.send(ExecuteRequest { order: Some(order) }).await;
}

/// 16 hexadecimal digits that nobody else has.
fn fresh_id() -> Result<String, Fatal> {
    let mut bytes = [0_u8; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Fatal::new(Exit::OsError, "the operating system gives no random numbers"))?;
    Ok(format!("{:016x}", u64::from_be_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;
    use vantage_contract::v1::{Outcome, Probe, TcpProbe, probe::Kind};

    use vantage_daemon::data::Data;

    use super::*;
    use crate::{client::Trust, config::Settings, tables};

    #[tokio::test]
    async fn a_probe_from_a_monitor_comes_back_and_leaves_nothing_behind() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (settings, drain) =
            (Settings { name: "there".into(), http_listen: None, data: Data::Memory, ..Settings::default() }, CancellationToken::new());
        let serving = tokio::spawn(crate::serve(settings, listener, drain.clone()));

        let link = Link::connect(&address.to_string(), &Trust::default()).await.unwrap();
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = target.local_addr().unwrap().port().into();
        let tcp = TcpProbe { host: "127.0.0.1".into(), port, ..TcpProbe::default() };
        let probe = Probe { kind: Some(Kind::Tcp(tcp)), ..Probe::default() };
        let check = Check { name: "probe".into(), probe: Some(probe), ..Check::default() };
        let result = run(&link, check, Duration::from_secs(30)).await.unwrap();
        assert_eq!((result.outcome(), result.monitor.as_str(), result.kind.as_str()), (Outcome::Passed, "there", "tcp"));

        // The acknowledgement was on its way before the stream ended.
        let queues = tables::queues(&link).await.unwrap().queues;
        assert!(queues.iter().all(|queue| queue.client_id.starts_with("probe-") && queue.unacknowledged_count == 0), "{queues:?}");
        drop(link);
        drain.cancel();
        serving.await.unwrap().unwrap();
    }
}
