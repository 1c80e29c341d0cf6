//! TCP: connections that are made and closed again, beside blocking sockets and blackbox_exporter.

use std::time::Duration;

use vantage_monitor::bench::{checks, targets::Service};

use crate::{
    Plan, measure,
    peers::{Peer, Served},
};

/// How many checks, each ten times a second. So many that the server seldom rests, as it never does for the bare loop: to wake it is a part of
/// what a connection costs who makes it. And few enough that closed connections give their ports back in time (a second after, on loopback).
const CHECKS: usize = 1400;

/// Shows what a connection costs.
pub(crate) fn show(plan: &Plan) {
    let target = Served::start("tcp", Duration::ZERO);
    let interval = Duration::from_millis(100);
    let checks: Vec<_> = (0..CHECKS).map(|number| checks::served(Service::Tcp, target.address, interval, number)).collect();
    println!("\ntcp: {CHECKS} checks of one server, every {interval:?}");
    let window = measure(plan, &checks, interval);
    print!("{}", window.text());
    Peer::bare("bare loop, blocking sockets", &["tcp", &target.address.to_string()]).show(&window);
    let module = "    prober: tcp\n    timeout: 2s\n    tcp:\n      preferred_ip_protocol: ip4\n";
    if let Some(peer) = Peer::blackbox(module, &target.address.to_string(), 2000) {
        peer.show(&window);
    }
}
