//! The checks that a benchmark places.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use vantage_contract::v1::{
    Check, DnsProbe, HttpProbe, NtpProbe, PingProbe, Probe, TcpProbe, TracerouteProbe, UdpProbe, probe::Kind, udp_probe::Payload,
};
use vantage_probes::stopwatch::to_proto;

use super::targets::Service;

/// The name that is asked for.
pub const NAME: &str = "www.example.com";
/// What is sent to a UDP server.
pub const PAYLOAD: &str = "ask";

/// So many addresses of loopback, each a target of its own: 250 of 127.1.0.0/24, of 127.1.1.0/24 and so on. At most 65,000 differ.
pub fn addresses(count: usize) -> Vec<Ipv4Addr> {
    (0..count).map(|number| Ipv4Addr::new(127, 1, (number / 250 % 260) as u8, (number % 250) as u8 + 1)).collect()
}

fn check(name: String, interval: Duration, kind: Kind) -> Check {
    let probe = Probe { timeout: Some(to_proto(Duration::from_secs(5))), kind: Some(kind), ..Probe::default() };
    Check { name, interval: Some(to_proto(interval)), probe: Some(probe), ..Check::default() }
}

/// One of the checks of a ping target.
pub fn ping(target: Ipv4Addr, number: usize, interval: Duration, count: u32, spacing: Duration) -> Check {
    let ping = PingProbe { host: target.to_string(), count, spacing: Some(to_proto(spacing)), ..PingProbe::default() };
    let mut check = check(format!("{target}-{number}"), interval, Kind::Ping(ping));
    if let Some(probe) = &mut check.probe {
        // The last request has to leave before the timeout.
        probe.timeout = Some(to_proto(spacing * count + Duration::from_secs(2)));
    }
    check
}

/// A path of one hop.
pub fn traceroute(target: Ipv4Addr, interval: Duration) -> Check {
    let traceroute = TracerouteProbe { host: target.to_string(), ..TracerouteProbe::default() };
    check(target.to_string(), interval, Kind::Traceroute(traceroute))
}

/// One of the checks of a target that is built in.
pub fn served(service: Service, target: SocketAddr, interval: Duration, number: usize) -> Check {
    let (host, port) = (target.ip().to_string(), u32::from(target.port()));
    let kind = match service {
        Service::Udp => Kind::Udp(UdpProbe { host, port, payload: Some(Payload::Text(PAYLOAD.into())), ..UdpProbe::default() }),
        Service::Dns => Kind::Dns(DnsProbe { server: host, port, query: NAME.into(), ..DnsProbe::default() }),
        // One sample, as a run of the others is one exchange.
        Service::Ntp => Kind::Ntp(NtpProbe { server: host, port, samples: 1, ..NtpProbe::default() }),
        Service::Tcp => Kind::Tcp(TcpProbe { host, port, ..TcpProbe::default() }),
        Service::Http => Kind::Http(HttpProbe { url: format!("http://{target}/"), ..HttpProbe::default() }),
        Service::Https => Kind::Https(HttpProbe { url: format!("https://{target}/"), ..HttpProbe::default() }),
    };
    check(format!("check-{number}"), interval, kind)
}
