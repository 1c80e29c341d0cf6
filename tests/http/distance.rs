//! A target that is 20 ms away.

use std::{net::SocketAddr, time::Duration};

use rustls::version::{TLS12, TLS13};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};
use vantage_contract::v1::{HttpPhases, HttpProbe, probe::Kind, probe_result::Report};
use vantage_probes::stopwatch;

use super::nanos;
use crate::lab::{
    distance::{Distance, FAR},
    http::{ok, read_request},
    netns,
    probe::{Verdict as _, probe, run},
    tls::{Authority, Leaf},
};

const ONE_WAY: Duration = Duration::from_millis(10);
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// Serves at the far end: 80 in the clear, and TLS 1.2 and 1.3. Ends with the test program.
fn serve(distance: &Distance, authority: &Authority) {
    let leaf = Leaf { names: &[FAR], ..Leaf::default() };
    let acceptors =
        [None, Some(authority.acceptor_of(&leaf, &[], &[&TLS12], false)), Some(authority.acceptor_of(&leaf, &[], &[&TLS13], false))];
    let name = distance.far().to_owned();
    let (ready, is_ready) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        netns::enter(&name);
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async move {
            for (port, acceptor) in [80, 12, 13].into_iter().zip(acceptors) {
                let listener = TcpListener::bind(SocketAddr::new(FAR.parse().unwrap(), port)).await.unwrap();
                tokio::spawn(async move {
                    while let Ok((mut stream, _)) = listener.accept().await {
                        let acceptor = acceptor.clone();
                        tokio::spawn(async move {
                            // Each answer is one segment, so that nothing waits for an acknowledgement.
                            stream.set_nodelay(true).unwrap();
                            match acceptor {
                                None => {
                                    read_request(&mut stream).await;
                                    let _ = stream.write_all(ok("hello").as_bytes()).await;
                                }
                                Some(acceptor) => {
                                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                                    read_request(&mut stream).await;
                                    let _ = stream.write_all(ok("hello").as_bytes()).await;
                                    let _ = stream.flush().await;
                                }
                            }
                        });
                    }
                });
            }
            ready.send(()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    is_ready.recv().unwrap();
}

/// What each phase took at least, in some runs: what a busy machine adds is not the target's.
async fn least(kind: impl Fn() -> Kind) -> HttpPhases {
    let mut least = HttpPhases::default();
    for _ in 0..16 {
        let start = stopwatch::now();
        let sight = run(&probe(kind())).await;
        let taken = stopwatch::now() - start;
        let (Report::Http(report) | Report::Https(report)) = sight.passed() else { panic!("a report of http") };
        assert!(report.kernel_round_trip.unwrap().nanos >= 20_000_000, "{report:?}");
        let phases = report.hops[0].phases.unwrap();
        let HttpPhases { resolve, connect, tls, send, wait, transfer, .. } = &phases;
        let sum: i64 = [resolve, connect, tls, send, wait, transfer].into_iter().map(nanos).sum();
        assert!(u128::try_from(sum).unwrap() <= taken.as_nanos());
        let less = |old: &mut Option<prost_types::Duration>, new: Option<prost_types::Duration>| {
            if old.is_none() || nanos(&new) < nanos(old) {
                *old = new;
            }
        };
        less(&mut least.connect, phases.connect);
        less(&mut least.tls, phases.tls);
        less(&mut least.send, phases.send);
        less(&mut least.wait, phases.wait);
        less(&mut least.transfer, phases.transfer);
    }
    least
}

#[test]
fn each_round_trip_is_in_the_phase_that_waits_for_it() {
    let Some(distance) = Distance::of(ONE_WAY) else { return };
    let authority = Authority::new();
    serve(&distance, &authority);
    netns::enter(distance.near());
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let trips = |phase: &Option<prost_types::Duration>| nanos(phase) as f64 / ROUND_TRIP.as_nanos() as f64;
        for (port, handshake) in [(80, None), (12, Some(2.0)), (13, Some(1.0))] {
            let spec = |scheme: &str| HttpProbe {
                url: format!("{scheme}://{FAR}:{port}/"),
                tls: handshake.map(|_| authority.options()),
                ..HttpProbe::default()
            };
            let least = least(|| if handshake.is_some() { Kind::Https(spec("https")) } else { Kind::Http(spec("http")) }).await;
            // Never less than the distance, but for the moment between a packet's departure and the stamp that follows it; and of sixteen runs the
            // best has less than half a round trip of its own.
            let is = |phase: &Option<prost_types::Duration>, expected: f64| (expected - 0.1..expected + 0.5).contains(&trips(phase));
            assert!(is(&least.connect, 1.0), "{least:?}");
            assert!(is(&least.wait, 1.0), "{least:?}");
            assert!(is(&least.send, 0.0) && is(&least.transfer, 0.0), "{least:?}");
            assert_eq!(least.tls.is_some(), handshake.is_some());
            assert!(handshake.is_none_or(|expected| is(&least.tls, expected)), "{port}: {least:?}");
        }
    });
}
