//! Servers that stall, break off, garble or flood in the middle of a handshake cost their timeout at most, and little memory.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use vantage_contract::v1::{CertificateProblem, Reason, TcpProbe, TcpStep, TlsOptions, probe::Kind, tcp_step::Step};
use vantage_probes::{Sight, stopwatch::Phase};

use super::{seen, shaking, silent};
use crate::lab::{
    http::{Server, reset},
    probe::{Verdict as _, assert_ended_by_the_timeout, hasty, probe, run},
    tls::{Authority, EACH, Leaf, Terms, Versions, presenting},
};

/// What is done to what the server says.
#[derive(Debug, Clone, Copy)]
enum Harm {
    /// So many bytes are passed on, then nothing.
    Stall,
    /// Then the connection is reset.
    Reset,
    /// Then it is closed.
    Close,
    /// The next byte is another.
    Garble,
}

/// A way to a server on which what it says comes to harm after so many bytes. It counts what was passed on.
async fn harmed(server: &Server, harm: Harm, after: usize) -> (Server, Arc<AtomicUsize>) {
    let (address, passed) = (server.address, Arc::new(AtomicUsize::new(0)));
    let counter = passed.clone();
    let way = Server::start(move |mut near, _| {
        let counter = counter.clone();
        async move {
            let mut far = TcpStream::connect(address).await.unwrap();
            let (mut there, mut back) = ([0; 4096], [0; 4096]);
            loop {
                tokio::select! {
                    count = near.read(&mut there) => match count {
                        Ok(count @ 1..) if far.write_all(&there[..count]).await.is_ok() => {}
                        _ => return,
                    },
                    count = far.read(&mut back) => {
                        let Ok(count @ 1..) = count else { return };
                        let so_far = counter.load(Ordering::SeqCst);
                        let left = after.saturating_sub(so_far).min(count);
                        let is_now = left < count && so_far <= after;
                        let end = match harm {
                            Harm::Garble if is_now => {
                                back[left] ^= 0x55;
                                count
                            }
                            Harm::Garble => count,
                            _ => left,
                        };
                        if near.write_all(&back[..end]).await.is_err() {
                            return;
                        }
                        counter.fetch_add(end, Ordering::SeqCst);
                        match harm {
                            Harm::Close if is_now => return,
                            Harm::Reset if is_now => return reset(near),
                            Harm::Stall if is_now => std::future::pending().await,
                            _ => {}
                        }
                    }
                }
            }
        }
    })
    .await;
    (way, passed)
}

/// At each byte of the handshake, or, as that takes minutes, at some of them: `VANTAGE_EVERY_BYTE` asks for all.
fn places(total: usize) -> impl Iterator<Item = usize> {
    let step = if std::env::var_os("VANTAGE_EVERY_BYTE").is_some() { 1 } else { 29 };
    // The first bytes are the header of the first record, and its message's.
    (0..10).chain((10..total).step_by(step))
}

/// What becomes of a handshake that comes to harm at each of these places.
async fn at_each_place(versions: Versions, harm: Harm) -> Vec<(usize, Sight)> {
    let authority = Authority::new();
    let server = silent(presenting(authority.issue(&Leaf::default()), Terms { versions, ..Terms::default() })).await;
    let (whole, count) = harmed(&server, Harm::Garble, usize::MAX).await;
    run(&shaking(&whole, authority.options())).await.passed();
    let total = count.load(Ordering::SeqCst);
    assert!(total > 500, "{total}");

    let sight = async |place| {
        let (way, _) = harmed(&server, harm, place).await;
        let wanted = TcpProbe { steps: vec![TcpStep { step: Some(Step::Expect("x".into())) }], ..tcp(&way, authority.options()) };
        // A length that is made too long makes both sides wait.
        let probe = if matches!(harm, Harm::Stall | Harm::Garble) { hasty(Kind::Tcp(wanted)) } else { probe(Kind::Tcp(wanted)) };
        (place, run(&probe).await)
    };
    let (mut sights, mut places) = (Vec::new(), places(total.min(1400)).peekable());
    // A few at a time: each computes.
    while places.peek().is_some() {
        sights.extend(futures_util::future::join_all(places.by_ref().take(8).map(sight)).await);
    }
    sights
}

fn tcp(server: &Server, tls: TlsOptions) -> TcpProbe {
    TcpProbe { host: server.address.ip().to_string(), port: server.address.port().into(), tls: Some(tls), ..TcpProbe::default() }
}

#[tokio::test]
async fn a_handshake_that_stalls_at_any_byte_is_ended_by_the_timeout() {
    for versions in EACH {
        for (place, sight) in at_each_place(versions, Harm::Stall).await {
            assert_ended_by_the_timeout(&sight);
            let last = sight.phases.last().unwrap().0;
            assert!(matches!(last, Phase::Tls | Phase::Wait), "{place}: {last:?}");
            assert!(sight.summary.contains(if last == Phase::Tls { "in the TLS handshake" } else { "got nothing" }), "{}", sight.summary);
            let tls = seen(sight.because(Reason::TimedOut));
            assert_eq!(tls.handshake_round_trip_count == 0, last == Phase::Tls, "{place}: {tls:?}");
        }
    }
}

#[tokio::test]
async fn a_handshake_that_is_reset_or_closed_at_any_byte_is_a_disconnect() {
    for versions in EACH {
        for harm in [Harm::Reset, Harm::Close] {
            for (_, sight) in at_each_place(versions, harm).await {
                sight.because(Reason::Disconnected);
            }
        }
    }
}

#[tokio::test]
async fn a_handshake_with_any_byte_changed_never_passes_and_is_never_our_fault() {
    for versions in EACH {
        for (place, sight) in at_each_place(versions, Harm::Garble).await {
            let is_known = matches!(sight.reason, Reason::TlsFailed | Reason::CertificateInvalid | Reason::Disconnected | Reason::TimedOut);
            assert!(is_known, "{place}: {sight:?}");
        }
    }
}

#[tokio::test]
async fn a_chain_larger_than_any_is_refused_before_it_has_come() {
    let authority = Authority::new();
    for versions in EACH {
        let (mut chain, key) = authority.issue(&Leaf::default());
        chain.push(CertificateDer::from(vec![0x30; 10 << 20]));
        let server = silent(presenting((chain, key), Terms { versions, ..Terms::default() })).await;
        let (way, passed) = harmed(&server, Harm::Garble, usize::MAX).await;
        let sight = run(&shaking(&way, authority.options())).await;
        assert!(sight.summary.ends_with("the server sends a message of more than 64 KiB"), "{}", sight.summary);
        sight.because(Reason::TlsFailed);
        // What was passed on lies in the kernel, mostly.
        assert!(passed.load(Ordering::SeqCst) < 8 << 20, "{passed:?}");
    }
}

#[tokio::test]
async fn a_chain_of_very_many_certificates_is_judged_and_cut() {
    let authority = Authority::new();
    let (leaf, key) = authority.issue(&Leaf::default());
    // As many as go into a message.
    let tiny = std::iter::repeat_n(CertificateDer::from(vec![0x30, 3, 2, 1, 1]), 1000);
    // Each has the name of the leaf's issuer, and another key: each has to be tried.
    let params = {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "Lab Intermediate");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    };
    let likely = (0..120).map(|_| params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone());
    for (more, problem) in [(tiny.collect::<Vec<_>>(), CertificateProblem::Malformed), (likely.collect(), CertificateProblem::Other)] {
        let chain = [vec![leaf[0].clone()], more].concat();
        let server = silent(presenting((chain, key.clone_key()), Terms::default())).await;
        let sight = run(&shaking(&server, authority.options())).await;
        let tls = seen(sight.because(Reason::CertificateInvalid));
        assert_eq!((tls.certificate_problem(), tls.certificates.len()), (problem, 16), "{}", tls.certificate_error);
    }
}

/// A server that reads the ClientHello and then says this for ever.
async fn repeating(bytes: &'static [u8]) -> (Server, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    let server = Server::start(move |mut stream, _| {
        let counter = counter.clone();
        async move {
            let _ = stream.read_u8().await;
            let many = bytes.repeat(64);
            while stream.write_all(&many).await.is_ok() {
                counter.fetch_add(many.len(), Ordering::SeqCst);
            }
        }
    })
    .await;
    (server, count)
}

#[tokio::test]
async fn a_flood_in_place_of_a_handshake_ends_at_once_or_by_the_timeout() {
    for bytes in [
        // A warning alert; one of change cipher spec; an empty record of the handshake; one that says that it is 16 MiB long; a HelloRequest.
        &[21, 3, 3, 0, 2, 1, 90][..],
        &[20, 3, 3, 0, 1, 1],
        &[22, 3, 3, 0, 0],
        &[22, 3, 3, 0, 4, 11, 0xff, 0xff, 0xff],
        &[22, 3, 3, 0, 4, 0, 0, 0, 0],
        // Application data before there are keys; a ServerHello of nothing; no TLS at all.
        &[23, 3, 3, 0, 1, 0],
        &[22, 3, 3, 0, 4, 2, 0, 0, 0],
        b"\0\0\0\0",
        b"-ERR what do you want\r\n",
    ] {
        let (server, _) = repeating(bytes).await;
        let sight = run(&hasty(Kind::Tcp(tcp(&server, TlsOptions { insecure: true, ..TlsOptions::default() })))).await;
        assert!(matches!(sight.reason, Reason::TlsFailed | Reason::TimedOut | Reason::Disconnected), "{bytes:?}: {sight:?}");
    }
}

#[tokio::test]
async fn endless_changes_of_keys_after_the_handshake_end_by_the_timeout_or_before() {
    let authority = Authority::new();
    let server = crate::lab::tls::serve(presenting(authority.issue(&Leaf::default()), Terms::default()), |mut stream, _| async move {
        while stream.get_mut().1.refresh_traffic_keys().is_ok() && stream.flush().await.is_ok() {}
    })
    .await;
    let wanted = TcpProbe { steps: vec![TcpStep { step: Some(Step::Expect("x".into())) }], ..tcp(&server, authority.options()) };
    let sight = run(&hasty(Kind::Tcp(wanted))).await;
    assert!(matches!(sight.reason, Reason::TlsFailed | Reason::TimedOut | Reason::Disconnected), "{sight:?}");
}
