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

use super::shelf::MOST_ASKED;
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

/// Over which connected sockets a loop asks a UDP server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sockets {
    /// A new one for each request, as the UDP probe has it.
    Fresh,
    /// A new one each 64 requests, of which one is under way at a time, as the DNS probe has it.
    Shared,
    /// One for all requests: what is left when opening sockets costs nothing.
    Kept,
}

/// Asks a UDP server for `time`, with the kernel's stamp of the arrival asked for: sends a lot of requests, then reads as many answers. An answer has
/// to have the length of `request` at least.
pub fn udp(server: SocketAddr, request: &[u8], sockets: Sockets, time: Duration) -> io::Result<Tally> {
    let most_asked = match sockets {
        Sockets::Fresh => 1,
        Sockets::Shared => MOST_ASKED,
        Sockets::Kept => usize::MAX,
    };
    let mut lot: Vec<UdpSocket> = Vec::new();
    let mut asked = 0;
    repeat(time, |tally| {
        if lot.is_empty() || asked >= most_asked {
            lot.clear();
            asked = 0;
            let count = if sockets == Sockets::Kept { 1 } else { LOT };
            for _ in 0..count {
                lot.push(connect(server)?);
            }
        }
        asked += 1;
        for socket in lot.iter().cycle().take(LOT) {
            socket.send(request)?;
        }
        collect(lot.iter().cycle().take(LOT), request, tally)
    })
}

fn connect(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(server), socket2::Type::DGRAM.cloexec(), None)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(&server.into())?;
    Ok(socket.into())
}

/// Takes one answer from each of a lot.
fn collect<'l>(lot: impl Iterator<Item = &'l UdpSocket>, request: &[u8], tally: &mut Tally) -> io::Result<()> {
    let mut answer = [0; 2048];
    for socket in lot {
        tally.sent += 1;
        match socket.recv(&mut answer) {
            Ok(length) => tally.answered += u64::from(length >= request.len()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_udp_server_is_asked_from_as_many_ports_as_are_said() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let serving = std::thread::spawn(move || {
            let mut ports = std::collections::HashMap::<_, usize>::new();
            let mut request = [0; 8];
            while let Ok((length, from)) = server.recv_from(&mut request) {
                if &request[..length] == b"end" {
                    server.send_to(&ports.len().to_string().into_bytes(), from).unwrap();
                    server.send_to(&ports.values().max().unwrap().to_string().into_bytes(), from).unwrap();
                    ports.clear();
                    continue;
                }
                *ports.entry(from.port()).or_default() += 1;
                server.send_to(&request[..length], from).unwrap();
                if &request[..length] == b"stop" {
                    return;
                }
            }
        });
        let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
        asker.connect(address).unwrap();
        let told = || {
            asker.send(b"end").unwrap();
            [(); 2].map(|()| {
                let mut answer = [0; 20];
                let length = asker.recv(&mut answer).unwrap();
                std::str::from_utf8(&answer[..length]).unwrap().parse::<usize>().unwrap()
            })
        };
        for sockets in [Sockets::Fresh, Sockets::Shared, Sockets::Kept] {
            let tally = udp(address, b"ask", sockets, Duration::from_millis(100)).unwrap();
            // Where the server waits for a processor, some of its answers come too late.
            assert!(tally.sent >= 64 && (tally.sent / 2..=tally.sent).contains(&tally.answered), "{sockets:?}: {tally:?}");
            let ([ports, most], sent) = (told(), usize::try_from(tally.sent).unwrap());
            match sockets {
                // Ports come again, but not at once.
                Sockets::Fresh => assert!(ports >= LOT.min(sent), "{ports}"),
                Sockets::Shared => assert!(ports >= LOT && most * ports >= sent && most < sent, "{ports}, {most} of {sent}"),
                Sockets::Kept => assert_eq!((ports, most), (1, sent)),
            }
        }
        asker.send(b"stop").unwrap();
        serving.join().unwrap();
    }
}
