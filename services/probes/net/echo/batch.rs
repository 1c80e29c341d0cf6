//! Many packets with one system call: `sendmmsg` and `recvmmsg` (Linux 3.0), with their control messages.
//!
//! Written here because nix 0.31 loses the control messages of a reused `recvmmsg`, and shares one control message between all packets of a
//! `sendmmsg`, where each request has its own hop limit and source.

#![expect(unsafe_code, reason = "neither nix nor socket2 has calls for many packets whose control messages survive")]

use std::{
    io,
    mem::{offset_of, size_of, zeroed},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use nix::libc;

/// Packets that go or come with one call.
pub(super) const PACKETS: usize = 64;

/// Room for the control messages of one packet: stamps 64, extended error with its sender 64, hop limit, drop count, and what is to come.
const CONTROL: usize = 320;

/// Room for a socket address.
const NAME: usize = size_of::<libc::sockaddr_in6>();

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Name([u8; NAME]);

/// Room for up to [`PACKETS`] packets of up to `size` bytes. The arrays are never reallocated while headers point into them.
pub(super) struct Batch {
    headers: Box<[libc::mmsghdr]>,
    // Only pointed to by `headers`.
    _parts: Box<[libc::iovec]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    bytes: Box<[u8]>,
    size: usize,
    filled: usize,
}

/// A packet that was received.
pub(super) struct Packet<'b> {
    /// Its bytes, as far as there was room.
    pub(super) bytes: &'b [u8],
    /// Who sent it; from the error queue: to whom the packet went that the error is about.
    pub(super) peer: Option<IpAddr>,
    control: &'b [u8],
}

impl Batch {
    /// Room for packets of up to `size` bytes.
    pub(super) fn new(size: usize) -> Self {
        let mut bytes = vec![0; PACKETS * size].into_boxed_slice();
        let mut names = vec![Name([0; NAME]); PACKETS].into_boxed_slice();
        let mut controls = vec![Control([0; CONTROL]); PACKETS].into_boxed_slice();
        let mut parts: Box<[libc::iovec]> = bytes
            .chunks_exact_mut(size.max(1))
            .take(PACKETS)
            .map(|chunk| libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: size })
            .collect();
        let headers = parts
            .iter_mut()
            .zip(names.iter_mut().zip(controls.iter_mut()))
            .map(|(part, (name, control))| {
                // SAFETY: all fields of an mmsghdr are integers and pointers, for which zero is a value; musl has private padding, so it
                // can't be written out as a literal.
                let mut header: libc::mmsghdr = unsafe { zeroed() };
                header.msg_hdr.msg_name = ptr::from_mut(name).cast();
                header.msg_hdr.msg_iov = part;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_control = ptr::from_mut(control).cast();
                header
            })
            .collect();
        Self { headers, _parts: parts, names, controls, bytes, size, filled: 0 }
    }

    /// The largest packet that there is room for.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Forgets all packets.
    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Adds a packet of `length` bytes to `to`, written by `write`, with the control messages that `control` appends. Nothing happens where
    /// there is no room.
    pub(super) fn add(&mut self, to: IpAddr, length: usize, write: impl FnOnce(&mut [u8]), control: impl FnOnce(&mut Ancillary<'_>)) {
        let at = self.filled;
        let (Some(header), Some(name), Some(room)) = (self.headers.get_mut(at), self.names.get_mut(at), self.controls.get_mut(at)) else {
            return;
        };
        let Some(bytes) = self.bytes.get_mut(at * self.size..at * self.size + length).filter(|bytes| bytes.len() <= self.size) else {
            return;
        };
        write(bytes);
        let mut ancillary = Ancillary { room: &mut room.0, used: 0 };
        control(&mut ancillary);
        let used = ancillary.used;
        let named = write_name(&mut name.0, to);
        if let Some(part) = self._parts.get_mut(at) {
            part.iov_len = length;
        }
        set_lengths(&mut header.msg_hdr, named, used);
        self.filled += 1;
    }

    /// Sends the packets from number `first` on, without waiting: how many left. An error means that the first of them did not.
    pub(super) fn send(&mut self, socket: BorrowedFd<'_>, first: usize, most: usize) -> io::Result<usize> {
        let count = self.filled.saturating_sub(first).min(most);
        let Some(headers) = self.headers.get_mut(first..first + count).filter(|headers| !headers.is_empty()) else { return Ok(0) };
        loop {
            // SAFETY: `headers` is a valid array of `count` headers; each points to an address, a control buffer and one part of bytes, all
            // owned by self, alive, and as long as their headers say.
            let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count as libc::c_uint, libc::MSG_DONTWAIT as _) };
            match usize::try_from(sent) {
                Ok(sent) => return Ok(sent),
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Takes what is there, in place of what it held, without waiting: how many packets. `errors`: from the error queue.
    pub(super) fn receive(&mut self, socket: BorrowedFd<'_>, errors: bool) -> io::Result<usize> {
        self.filled = 0;
        for (header, part) in self.headers.iter_mut().zip(self._parts.iter_mut()) {
            part.iov_len = self.size;
            set_lengths(&mut header.msg_hdr, NAME, CONTROL);
        }
        let flags = libc::MSG_DONTWAIT | if errors { libc::MSG_ERRQUEUE } else { 0 };
        loop {
            // SAFETY: as for `send`; the lengths were just set to those of the buffers, which nothing else refers to while self is borrowed
            // mutably. The timeout may be null.
            let received = unsafe {
                libc::recvmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), PACKETS as libc::c_uint, flags as _, ptr::null_mut())
            };
            match usize::try_from(received) {
                Ok(received) => {
                    self.filled = received.min(PACKETS);
                    return Ok(self.filled);
                }
                Err(_) => {
                    let error = io::Error::last_os_error();
                    match error.kind() {
                        io::ErrorKind::Interrupted => {}
                        io::ErrorKind::WouldBlock => return Ok(0),
                        _ => return Err(error),
                    }
                }
            }
        }
    }

    /// The packets that were received.
    pub(super) fn packets(&self) -> impl Iterator<Item = Packet<'_>> {
        self.headers.iter().take(self.filled).enumerate().map(|(at, header)| {
            let length = usize::try_from(header.msg_len).unwrap_or_default().min(self.size);
            let controlled = length_of_control(&header.msg_hdr).min(CONTROL);
            Packet {
                bytes: self.bytes.get(at * self.size..at * self.size + length).unwrap_or_default(),
                peer: self.names.get(at).and_then(|name| read_name(&name.0)),
                control: self.controls.get(at).and_then(|control| control.0.get(..controlled)).unwrap_or_default(),
            }
        })
    }
}

fn set_lengths(header: &mut libc::msghdr, name: usize, control: usize) {
    header.msg_namelen = name as libc::socklen_t;
    // size_t with glibc, socklen_t with musl.
    header.msg_controllen = control as _;
}

fn length_of_control(header: &libc::msghdr) -> usize {
    // size_t with glibc, socklen_t with musl.
    let length: u64 = header.msg_controllen as _;
    usize::try_from(length).unwrap_or_default()
}

/// Control messages of a packet that is sent.
pub(super) struct Ancillary<'b> {
    room: &'b mut [u8; CONTROL],
    used: usize,
}

impl Ancillary<'_> {
    /// Appends one. Does nothing where there is no room for it.
    pub(super) fn append(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let length = HEADER + data.len();
        let Some(room) = self.room.get_mut(self.used..self.used + aligned(length)) else { return };
        room.fill(0);
        put(room, offset_of!(libc::cmsghdr, cmsg_len), &length.to_ne_bytes());
        put(room, offset_of!(libc::cmsghdr, cmsg_level), &level.to_ne_bytes());
        put(room, offset_of!(libc::cmsghdr, cmsg_type), &kind.to_ne_bytes());
        put(room, HEADER, data);
        self.used += aligned(length);
    }
}

/// The length of a control message's header, as CMSG_LEN(0) has it.
const HEADER: usize = aligned(size_of::<libc::cmsghdr>());

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(size_of::<usize>())
}

fn put(room: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(room) = room.get_mut(at..at + bytes.len()) {
        room.copy_from_slice(bytes);
    }
}

impl<'b> Packet<'b> {
    /// The control messages: level, type, data.
    pub(super) fn control(&self) -> impl Iterator<Item = (libc::c_int, libc::c_int, &'b [u8])> + use<'b> {
        let mut rest = self.control;
        std::iter::from_fn(move || {
            // The length is a size_t with glibc; musl has a socklen_t and padding that the kernel writes as a size_t, too.
            let length = usize::from_ne_bytes(*rest.first_chunk()?);
            let level = libc::c_int::from_ne_bytes(*rest.get(offset_of!(libc::cmsghdr, cmsg_level)..)?.first_chunk()?);
            let kind = libc::c_int::from_ne_bytes(*rest.get(offset_of!(libc::cmsghdr, cmsg_type)..)?.first_chunk()?);
            let data = rest.get(HEADER..length)?;
            rest = rest.get(aligned(length)..).unwrap_or_default();
            Some((level, kind, data))
        })
    }
}

/// Writes a socket address; its length.
fn write_name(name: &mut [u8; NAME], address: IpAddr) -> usize {
    name.fill(0);
    match address {
        IpAddr::V4(address) => {
            put(name, 0, &(libc::AF_INET as libc::sa_family_t).to_ne_bytes());
            put(name, offset_of!(libc::sockaddr_in, sin_addr), &address.octets());
            size_of::<libc::sockaddr_in>()
        }
        IpAddr::V6(address) => {
            put(name, 0, &(libc::AF_INET6 as libc::sa_family_t).to_ne_bytes());
            put(name, offset_of!(libc::sockaddr_in6, sin6_addr), &address.octets());
            size_of::<libc::sockaddr_in6>()
        }
    }
}

/// Reads a socket address, as in [`Packet::peer`] and behind an extended error.
pub(super) fn read_name(name: &[u8]) -> Option<IpAddr> {
    let family = libc::sa_family_t::from_ne_bytes(*name.first_chunk()?);
    match libc::c_int::from(family) {
        libc::AF_INET => {
            let octets: [u8; 4] = *name.get(offset_of!(libc::sockaddr_in, sin_addr)..)?.first_chunk()?;
            Some(Ipv4Addr::from(octets).into())
        }
        libc::AF_INET6 => {
            let octets: [u8; 16] = *name.get(offset_of!(libc::sockaddr_in6, sin6_addr)..)?.first_chunk()?;
            Some(Ipv6Addr::from(octets).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{SocketAddr, UdpSocket},
        os::fd::AsFd,
    };

    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let target = UdpSocket::bind("127.0.0.1:0").unwrap();
        let source = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Packets go by address alone; the port comes from here.
        source.connect(target.local_addr().unwrap()).unwrap();
        (source, target)
    }

    #[test]
    fn many_packets_go_and_come_with_one_call_each() {
        let target = UdpSocket::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(to) = target.local_addr().unwrap() else { panic!("IPv4") };
        let source = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut out = Batch::new(100);
        for number in 0..40_u8 {
            out.add((*to.ip()).into(), 3, |bytes| bytes.fill(number), |_| {});
            // The name has no port for echo sockets; UDP wants one.
            out.names[usize::from(number)].0[2..4].copy_from_slice(&to.port().to_be_bytes());
        }
        assert_eq!(out.send(source.as_fd(), 0, 40).unwrap(), 40);
        let mut back = Batch::new(2);
        assert_eq!(back.receive(target.as_fd(), false).unwrap(), 40);
        for (number, packet) in (0..).zip(back.packets()) {
            assert_eq!(packet.bytes, [number, number], "cut at the size of the room");
            assert_eq!(packet.peer, Some(source.local_addr().unwrap().ip()));
        }
        assert_eq!(back.receive(target.as_fd(), false).unwrap(), 0, "nothing more, and no waiting");
    }

    #[test]
    fn control_messages_reach_the_kernel_and_come_back() {
        let (source, target) = pair();
        let on: libc::c_int = 1;
        nix::sys::socket::setsockopt(&target, nix::sys::socket::sockopt::Ipv4RecvTtl, &(on == 1)).unwrap();
        let mut out = Batch::new(10);
        let SocketAddr::V4(to) = target.local_addr().unwrap() else { panic!("IPv4") };
        out.add(
            (*to.ip()).into(),
            1,
            |bytes| bytes.fill(7),
            |control| control.append(libc::IPPROTO_IP, libc::IP_TTL, &9_i32.to_ne_bytes()),
        );
        out.names[0].0[2..4].copy_from_slice(&to.port().to_be_bytes());
        assert_eq!(out.send(source.as_fd(), 0, 1).unwrap(), 1);
        let mut back = Batch::new(10);
        // Twice with the same room: the second time has its control messages, too.
        for _ in 0..2 {
            assert_eq!(back.receive(target.as_fd(), false).unwrap(), 1);
            let packet = back.packets().next().unwrap();
            let hops: Vec<_> = packet.control().collect();
            assert_eq!(hops, [(libc::IPPROTO_IP, libc::IP_TTL, &9_i32.to_ne_bytes()[..])]);
            assert_eq!(out.send(source.as_fd(), 0, 1).unwrap(), 1);
        }
    }
}
