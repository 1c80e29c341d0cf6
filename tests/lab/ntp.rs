//! Scripted NTP servers: truthful ones, and those that lie in each way there is.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::net::UdpSocket;
use vantage_probes::wire::ntp::{Packet, Stamp};

use super::udp::UdpServer;

/// Our clock, as a server that runs ahead of it has it.
pub(crate) fn clock(ahead: Duration) -> Stamp {
    #[expect(clippy::disallowed_methods, reason = "a server has a clock")]
    let now = SystemTime::now();
    Stamp::of_unix(now.duration_since(UNIX_EPOCH).expect("a clock after 1970") + ahead)
}

/// The answer of a stratum 3 server in step with us, to this request, in its version.
pub(crate) fn in_step(request: &[u8]) -> Packet {
    assert_eq!(request.len(), 48, "no extension fields, no MAC");
    let request = Packet::decode(request).expect("the probe's request is an NTP packet");
    assert_eq!((request.mode, request.leap, request.stratum, request.reference, request.origin), (3, 0, 0, Stamp(0), Stamp(0)));
    answer(&request)
}

/// The same for a request that says more of its sender.
pub(crate) fn answer(request: &Packet) -> Packet {
    let now = clock(Duration::ZERO);
    Packet {
        leap: 0,
        version: request.version,
        mode: 4,
        stratum: 3,
        poll: 6,
        precision: -24,
        root_delay: 1 << 10,
        root_dispersion: 1 << 8,
        reference_id: [192, 0, 2, 1],
        reference: Stamp(now.0 - (16 << 32)),
        origin: request.transmit,
        receive: now,
        transmit: now,
    }
}

/// Makes a kiss-o'-death of an answer (RFC 5905 section 7.4).
pub(crate) fn kiss(packet: &mut Packet, code: [u8; 4]) {
    (packet.leap, packet.stratum, packet.reference_id) = (3, 0, code);
}

/// A server whose answers are those of [`in_step`], changed by a script that gets the number of the request.
pub(crate) async fn server(mut change: impl FnMut(usize, &mut Packet) + Send + 'static) -> UdpServer {
    UdpServer::start(move |number, request| {
        let mut packet = in_step(request);
        change(number, &mut packet);
        vec![packet.encode().to_vec()]
    })
    .await
}

/// A path to a server that takes `out` there and `back`, by two timers: both take a little longer, and never less.
pub(crate) async fn path(target: SocketAddr, out: Duration, back: Duration) -> UdpServer {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
    UdpServer::serve(socket, move |_, request, (socket, client)| {
        let (request, socket) = (request.to_vec(), socket.clone());
        tokio::spawn(async move {
            let onward = UdpSocket::bind("127.0.0.1:0").await.expect("bind");
            tokio::time::sleep(out).await;
            onward.send_to(&request, target).await.expect("send");
            let mut answer = [0; 1024];
            let length = onward.recv(&mut answer).await.expect("an answer");
            tokio::time::sleep(back).await;
            socket.send_to(&answer[..length], client).await.expect("send");
        });
        Vec::new()
    })
}
