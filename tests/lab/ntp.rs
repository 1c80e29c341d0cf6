//! Scripted NTP servers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vantage_probes::wire::ntp::{Packet, Stamp};

use super::udp::UdpServer;

/// Our clock, as a server that runs ahead of it has it.
pub(crate) fn clock(ahead: Duration) -> Stamp {
    #[expect(clippy::disallowed_methods, reason = "a server has a clock")]
    let now = SystemTime::now();
    Stamp::of_unix(now.duration_since(UNIX_EPOCH).expect("a clock after 1970") + ahead)
}

/// The answer of a stratum 3 server in step with us, to this request.
pub(crate) fn in_step(request: &[u8]) -> Packet {
    let request = Packet::decode(request).expect("the probe's request is an NTP packet");
    assert_eq!((request.mode, request.version, request.leap, request.stratum), (3, 4, 0, 0));
    let now = clock(Duration::ZERO);
    Packet {
        leap: 0,
        version: 4,
        mode: 4,
        stratum: 3,
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

/// A server whose answers are those of [`in_step`], changed by a script that gets the number of the request.
pub(crate) async fn server(mut change: impl FnMut(usize, &mut Packet) + Send + 'static) -> UdpServer {
    UdpServer::start(move |number, request| {
        let mut packet = in_step(request);
        change(number, &mut packet);
        vec![packet.encode().to_vec()]
    })
    .await
}
