//! Bare loops over the same sockets as the probes': what a benchmark compares them to. No runs, no reports, no other waiting than for
//! the kernel; one thread, in lots of [`LOT`]. They answer "how much of what the kernel can do is left".

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use nix::{
    sys::{
        socket::{setsockopt, sockopt},
        time::TimeSpec,
    },
    time::{ClockId, clock_gettime},
};

mod echo;
mod lot;
mod tcp;
pub mod web;

pub use echo::{Echo, Stamps};
pub use tcp::tcp;

use crate::stopwatch;

/// How many packets are on their way at once, and go to the kernel in one call where it takes more than one.
pub const LOT: usize = 64;

/// How long a lot is waited for, before what is missing counts as lost.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a loop did.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// Requests that left.
    pub sent: u64,
    /// True answers to them.
    pub answered: u64,
    /// Answers whose round trip has a stamp of the kernel at both ends.
    pub stamped_both: u64,
    /// Answers whose arrival alone has one.
    pub stamped_arrival: u64,
    /// Processor time of the thread that ran the loop, in user mode and in the kernel.
    pub busy: Duration,
    /// The sum of the round trips.
    pub round_trips: Duration,
}

impl Tally {
    /// Answered requests per second of processor time. 0 where none was used.
    pub fn per_busy_second(&self) -> f64 {
        if self.busy.is_zero() { 0.0 } else { self.answered as f64 / self.busy.as_secs_f64() }
    }

    /// The mean round trip. Zero without an answer.
    pub fn mean_round_trip(&self) -> Duration {
        self.round_trips.checked_div(u32::try_from(self.answered).unwrap_or(u32::MAX)).unwrap_or_default()
    }
}

/// The processor time that this thread has used.
fn busy() -> io::Result<Duration> {
    Ok(since_epoch(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?))
}

fn since_epoch(at: TimeSpec) -> Duration {
    Duration::new(u64::try_from(at.tv_sec()).unwrap_or_default(), u32::try_from(at.tv_nsec()).unwrap_or_default())
}

/// Does a lot again and again for about `time`, and accounts for the processor time.
fn repeat(time: Duration, mut lot: impl FnMut(&mut Tally) -> io::Result<()>) -> io::Result<Tally> {
    let (mut tally, began, before) = (Tally::default(), stopwatch::now(), busy()?);
    while began.elapsed() < time {
        lot(&mut tally)?;
    }
    tally.busy = busy()?.saturating_sub(before);
    Ok(tally)
}

/// Asks a UDP server for `time`: a connected socket of its own for each request, as the probes have it, with the kernel's stamp of the
/// arrival asked for; a lot of sockets is opened and sent to, then read and closed. An answer has to have the length of `request` at least.
pub fn udp(server: SocketAddr, request: &[u8], time: Duration) -> io::Result<Tally> {
    let mut sockets = Vec::with_capacity(LOT);
    repeat(time, |tally| {
        for _ in 0..LOT {
            let socket = socket2::Socket::new(socket2::Domain::for_address(server), socket2::Type::DGRAM.cloexec(), None)?;
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(&server.into())?;
            let socket = UdpSocket::from(socket);
            socket.send(request)?;
            sockets.push(socket);
        }
        collect(sockets.drain(..), request, tally)
    })
}

/// The same over one connected socket for all: what is left when opening sockets costs nothing.
pub fn udp_kept(server: SocketAddr, request: &[u8], time: Duration) -> io::Result<Tally> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(server)?;
    repeat(time, |tally| {
        for _ in 0..LOT {
            socket.send(request)?;
        }
        collect((0..LOT).map(|_| &socket), request, tally)
    })
}

/// Takes one answer from each of a lot.
fn collect<S: std::borrow::Borrow<UdpSocket>>(lot: impl Iterator<Item = S>, request: &[u8], tally: &mut Tally) -> io::Result<()> {
    let mut answer = [0; 2048];
    for socket in lot {
        tally.sent += 1;
        match socket.borrow().recv(&mut answer) {
            Ok(length) => tally.answered += u64::from(length >= request.len()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
