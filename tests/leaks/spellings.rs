//! Denied addresses in all their spellings.

use serde_json::json;

use super::{Attempts, INSIDE, METADATA, Places};

/// Ways to write 169.254.169.254, or an address that leads there.
const SPELLINGS: &[&str] = &[
    METADATA,
    "2852039166",
    "0xa9fea9fe",
    "0XA9FEA9FE",
    "025177524776",
    "0251.0376.0251.0376",
    "0xa9.0xfe.0xa9.0xfe",
    "0xa9.254.0251.254",
    "0000251.254.169.254",
    "169.16689662",
    "169.254.43518",
    "169.254.169.254.",
    "\u{ff11}\u{ff16}\u{ff19}.\u{ff12}\u{ff15}\u{ff14}.\u{ff11}\u{ff16}\u{ff19}.\u{ff12}\u{ff15}\u{ff14}",
    "169\u{3002}254\u{3002}169\u{3002}254",
    "\u{2460}\u{2465}\u{2468}.\u{2461}\u{2464}\u{2463}.\u{2460}\u{2465}\u{2468}.\u{2461}\u{2464}\u{2463}",
    "1\u{ad}69.254.169.254",
    "::ffff:169.254.169.254",
    "[::ffff:a9fe:a9fe]",
    "0:0:0:0:0:ffff:a9fe:a9fe",
    "64:ff9b::169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b:1:a9fe:a9:fe00::",
    "64:ff9b:1:0:a9:fea9:fe00:0",
    "2001:db8:64::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:5601:5601",
    "2001:0:a9fe:a9fe:8000:63bf:3fff:fdd2",
    "2001:db8::5efe:a9fe:a9fe",
    "2001:db8::200:5efe:a9fe:a9fe",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
];

/// Others that are denied.
const OTHERS: &[&str] = &[
    INSIDE,
    "::ffff:10.66.0.1",
    "64:ff9b::10.66.0.1",
    "2001:db8:66::1",
    "169.254.1.1",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "0.0.0.0",
    "0",
    "0x0",
    "0.0.0.1",
    "::",
    "::ffff:0.0.0.0",
    "255.255.255.255",
    "4294967295",
    "10.9.0.255",
    "::ffff:10.9.0.255",
    "224.0.0.1",
    "239.255.255.250",
    "ff02::1",
    "ff0e::1",
];

pub(super) fn all(places: &Places) -> Attempts {
    let mut attempts = Attempts::new();
    let bracketed = |host: &str| if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.to_owned() };
    for (number, host) in SPELLINGS.iter().chain(OTHERS).enumerate() {
        let mut add = |kind: &str, check| attempts.push((format!("{kind}-{number}"), check));
        add("tcp", json!({ "tcp": { "host": host, "port": 80 } }));
        add("ping", json!({ "ping": { "host": host, "count": 1 } }));
        add("http", json!({ "http": { "url": format!("http://{}/latest", bracketed(host)) } }));
    }
    // The other kinds have the same reader of hosts, and dial by other means.
    for (number, host) in [METADATA, "0xa9fea9fe", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", INSIDE].into_iter().enumerate() {
        let mut add = |kind: &str, check| attempts.push((format!("{kind}-{number}"), check));
        add("https", json!({ "https": { "url": format!("https://{}/", bracketed(host)) } }));
        add("udp", json!({ "udp": { "host": host, "port": 53, "text": "x", "source_ports": 4 } }));
        add("ntp", json!({ "ntp": { "server": host } }));
        for method in ["icmp", "udp", "tcp"] {
            add(&format!("traceroute-{method}"), json!({ "traceroute": { "host": host, "method": method, "max_hops": 2 } }));
        }
        for transport in ["udp", "tcp", "tls", "https", "quic"] {
            add(&format!("dns-{transport}"), json!({ "dns": { "server": host, "query": "www.test", "transport": transport } }));
        }
        add("dns-zone", json!({ "dns": { "server": host, "query": "www.test", "zone_consistency": true } }));
        add("all", json!({ "tcp": { "host": host, "port": 80 }, "addresses": "all" }));
        add("happy", json!({ "tcp": { "host": host, "port": 80 }, "addresses": "happy_eyeballs" }));
    }
    // This monitor's own listeners, at every address that leads to them.
    for (number, host) in
        ["127.0.0.1", "127.77.0.1", "0x7f.1", "localhost", "::ffff:127.0.0.1", "10.9.0.1", "64:ff9b::127.0.0.1"].into_iter().enumerate()
    {
        for (name, port) in [("grpc", places.grpc), ("http", places.http)] {
            attempts.push((format!("own-{name}-{number}"), json!({ "tcp": { "host": host, "port": port } })));
        }
        let url = format!("http://{}:{}/metrics", bracketed(host), places.http);
        attempts.push((format!("own-page-{number}"), json!({ "http": { "url": url } })));
    }
    attempts
}
