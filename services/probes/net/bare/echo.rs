//! Echo requests in lots, over one unconnected socket.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, AsRawFd, RawFd},
    time::Duration,
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{TimestampingFlag, setsockopt, sockopt, sockopt::SetStruct},
    time::{ClockId, clock_gettime},
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{LOT, PATIENCE, Tally, lot::Lot, repeat, since_epoch};
use crate::wire::{icmp, icmp::Version, ip::Ipv4};

/// Which ICMP types a raw socket is not handed: a bit for each (raw(7)).
#[derive(Debug, Clone, Copy)]
struct IcmpFilter;
const SOL_RAW: libc::c_int = 255;
const ICMP_FILTER: libc::c_int = 1;
nix::setsockopt_impl!(IcmpFilter, SOL_RAW, ICMP_FILTER, u32, SetStruct<'_, u32>);

/// Which stamps the kernel takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamps {
    /// Of the arrival; the departure is the clock before the lot was sent.
    Arrival,
    /// Of departure and arrival.
    Both,
}

/// The loop's socket.
pub struct Echo {
    socket: Socket,
    raw: bool,
    stamps: Stamps,
    identifier: u16,
}

impl Echo {
    /// Opens one: a datagram echo socket, or a raw one where that is not allowed. Errors: neither is.
    pub fn open(stamps: Stamps) -> io::Result<Self> {
        let open = |kind: Type| Socket::new(Domain::IPV4, kind.nonblocking().cloexec(), Some(Protocol::ICMPV4));
        let (socket, raw) = match open(Type::DGRAM) {
            Ok(socket) => (socket, false),
            Err(_) => (open(Type::RAW)?, true),
        };
        if raw {
            // Echo replies, type 0, alone: on loopback the requests come back too.
            setsockopt(&socket, IcmpFilter, &!1)?;
        }
        match stamps {
            Stamps::Arrival => setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?,
            Stamps::Both => {
                use TimestampingFlag as Flag;
                let all = Flag::SOF_TIMESTAMPING_TX_SOFTWARE
                    | Flag::SOF_TIMESTAMPING_RX_SOFTWARE
                    | Flag::SOF_TIMESTAMPING_SOFTWARE
                    | Flag::SOF_TIMESTAMPING_OPT_ID
                    | Flag::SOF_TIMESTAMPING_OPT_TSONLY;
                setsockopt(&socket, sockopt::Timestamping, &all)?;
            }
        }
        let identifier = u16::try_from(std::process::id() & 0xffff).unwrap_or_default();
        Ok(Self { socket, raw, stamps, identifier })
    }

    /// "datagram" or "raw".
    pub fn style(&self) -> &'static str {
        if self.raw { "raw" } else { "datagram" }
    }

    /// Pings the targets one after the other, a lot at a time, for `time`.
    pub fn run(&self, targets: &[Ipv4Addr], time: Duration) -> io::Result<Tally> {
        let (fd, mut out, mut inn) = (self.socket.as_raw_fd(), Lot::new(), Lot::new());
        let (mut next, mut key) = (0, 0_u32);
        let mut departures = [0_i64; LOT];
        let mut round = 0_u64;
        repeat(time, |tally| {
            round += 1;
            let count = LOT.min(targets.len());
            let mut lot = [Ipv4Addr::UNSPECIFIED; LOT];
            for (slot, place) in lot.iter_mut().enumerate().take(count) {
                *place = targets[next];
                next = (next + 1) % targets.len();
                out.put(slot, *place, &self.request(slot, round));
            }
            let left = i64::try_from(since_epoch(clock_gettime(ClockId::CLOCK_REALTIME)?).as_nanos()).unwrap_or_default();
            departures.fill(left);
            let sent = out.send(fd, count)?;
            tally.sent += sent as u64;
            if self.stamps == Stamps::Both {
                self.departures(fd, &mut inn, key, &mut departures)?;
            }
            key = key.wrapping_add(u32::try_from(sent).unwrap_or_default());
            let mut answered = [false; LOT];
            let mut missing = sent;
            while missing > 0 {
                let taken = inn.receive(fd, 0)?;
                if taken == 0 && !self.wait()? {
                    break;
                }
                for index in 0..taken {
                    let taken = inn.taken(index);
                    let Some(slot) = self.slot(taken.bytes, round) else { continue };
                    if taken.from != lot[slot] || answered[slot] {
                        continue;
                    }
                    answered[slot] = true;
                    missing -= 1;
                    tally.answered += 1;
                    if let Some(arrived) = taken.stamp {
                        tally.stamped_both += u64::from(departures[slot] != left);
                        tally.stamped_arrival += u64::from(departures[slot] == left);
                        tally.round_trips += Duration::from_nanos(u64::try_from(arrived - departures[slot]).unwrap_or_default());
                    }
                }
            }
            Ok(())
        })
    }

    /// The request of a slot: the slot is its sequence, and its payload of 56 bytes begins with the number of the round.
    fn request(&self, slot: usize, round: u64) -> [u8; icmp::HEADER + 56] {
        let mut packet = [0x5a; icmp::HEADER + 56];
        let [i0, i1] = self.identifier.to_be_bytes();
        packet[..8].copy_from_slice(&[Version::V4.echo_request(), 0, 0, 0, i0, i1, 0, slot as u8]);
        packet[8..16].copy_from_slice(&round.to_be_bytes());
        let sum = crate::wire::checksum::internet(&packet);
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    /// Whose reply it is.
    fn slot(&self, packet: &[u8], round: u64) -> Option<usize> {
        let message = if self.raw { Ipv4::parse(packet)?.payload } else { packet };
        let echo = icmp::Echo::parse(Version::V4, message)?;
        let ours = echo.kind == Version::V4.echo_reply()
            && (!self.raw || echo.identifier == self.identifier)
            && echo.payload.len() == 56
            && echo.payload.starts_with(&round.to_be_bytes());
        ours.then_some(usize::from(echo.sequence)).filter(|slot| *slot < LOT)
    }

    /// Takes the stamps of departure that are there.
    fn departures(&self, fd: RawFd, lot: &mut Lot, first: u32, departures: &mut [i64; LOT]) -> io::Result<()> {
        loop {
            let taken = lot.receive(fd, libc::MSG_ERRQUEUE)?;
            for index in 0..taken {
                let taken = lot.taken(index);
                let slot = taken.key.and_then(|key| usize::try_from(key.wrapping_sub(first)).ok());
                if let (Some(stamp), Some(departure)) = (taken.stamp, slot.and_then(|slot| departures.get_mut(slot))) {
                    *departure = stamp;
                }
            }
            if taken < LOT {
                return Ok(());
            }
        }
    }

    /// Waits for more. False: nothing came.
    fn wait(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
        Ok(poll(&mut fds, patience)? > 0 && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bare_loop_has_an_answer_and_its_stamps_for_each_request() {
        let targets: Vec<_> = (1..=100).map(|last| Ipv4Addr::new(127, 1, 0, last)).collect();
        for stamps in [Stamps::Arrival, Stamps::Both] {
            // Where echo sockets are forbidden there is nothing to compare.
            let Ok(echo) = Echo::open(stamps) else { return };
            let tally = echo.run(&targets, Duration::from_millis(50)).unwrap();
            assert!(tally.sent >= 64 && tally.answered == tally.sent, "{tally:?}");
            let stamped = if stamps == Stamps::Both { tally.stamped_both } else { tally.stamped_arrival };
            assert!(stamped * 10 > tally.answered * 9, "{stamps:?}: {tally:?}");
            assert!(tally.per_busy_second() > 0.0 && tally.mean_round_trip() > Duration::ZERO);
        }
    }
}
