//! A lot of packets that the kernel takes or gives in one call: sendmmsg(2), recvmmsg(2).
#![expect(
    unsafe_code,
    reason = "nix's recvmmsg does not say anew how much room there is for control messages, so only the first lot has its stamps"
)]

use std::{io, net::Ipv4Addr, os::fd::RawFd, ptr};

use nix::{errno::Errno, libc};

use super::LOT;

/// Room for a packet of the loop with an IP header.
const ROOM: usize = 160;
/// Room for the control messages of a packet: three timestamps, or these and an extended error with its address.
const CONTROL: usize = 160;

#[derive(Clone, Copy)]
#[repr(align(8))]
struct Control([u8; CONTROL]);

/// Buffers, addresses and headers of a lot. Each header points into the vectors beside it, which never grow.
pub(super) struct Lot {
    bytes: Vec<[u8; ROOM]>,
    control: Vec<Control>,
    addresses: Vec<libc::sockaddr_in>,
    parts: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
}

/// A packet, or a stamp, that was taken.
pub(super) struct Taken<'l> {
    pub(super) bytes: &'l [u8],
    pub(super) from: Ipv4Addr,
    /// The kernel's stamp in nanoseconds since 1970.
    pub(super) stamp: Option<i64>,
    /// The number of the packet whose departure the stamp is.
    pub(super) key: Option<u32>,
}

impl Lot {
    pub(super) fn new() -> Self {
        // SAFETY: these are plain numbers and pointers; all of them zero is an empty one of each.
        let (address, part, header) = unsafe { std::mem::zeroed::<(libc::sockaddr_in, libc::iovec, libc::mmsghdr)>() };
        let mut lot = Self {
            bytes: vec![[0; ROOM]; LOT],
            control: vec![Control([0; CONTROL]); LOT],
            addresses: vec![address; LOT],
            parts: vec![part; LOT],
            headers: vec![header; LOT],
        };
        for slot in 0..LOT {
            lot.parts[slot] = libc::iovec { iov_base: lot.bytes[slot].as_mut_ptr().cast(), iov_len: ROOM };
            let header = &mut lot.headers[slot].msg_hdr;
            header.msg_iov = &raw mut lot.parts[slot];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut lot.addresses[slot]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        }
        lot
    }

    /// Puts a packet into a slot.
    pub(super) fn put(&mut self, slot: usize, to: Ipv4Addr, packet: &[u8]) {
        self.bytes[slot][..packet.len()].copy_from_slice(packet);
        self.parts[slot].iov_len = packet.len();
        self.addresses[slot].sin_family = libc::AF_INET as libc::sa_family_t;
        self.addresses[slot].sin_addr.s_addr = u32::from(to).to_be();
    }

    /// Sends the first `count` slots. Returns how many left.
    pub(super) fn send(&mut self, fd: RawFd, count: usize) -> io::Result<usize> {
        let count = count.min(LOT);
        // SAFETY: `count` headers are there, and what they point to lives in the vectors of `self`, at their full lengths.
        let sent = unsafe { libc::sendmmsg(fd, self.headers.as_mut_ptr(), count as libc::c_uint, 0) };
        Ok(usize::try_from(Errno::result(sent)?).unwrap_or_default())
    }

    /// Takes what is there, without waiting: packets, or with MSG_ERRQUEUE in `flags` stamps of departure. Returns how many.
    pub(super) fn receive(&mut self, fd: RawFd, flags: libc::c_int) -> io::Result<usize> {
        for slot in 0..LOT {
            // The kernel leaves the lengths of what came; they have to say again how much room there is.
            self.parts[slot].iov_len = ROOM;
            let header = &mut self.headers[slot].msg_hdr;
            header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_control = self.control[slot].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL;
        }
        // SAFETY: `LOT` headers are there, and what they point to lives in the vectors of `self`, at the lengths just set.
        let taken =
            unsafe { libc::recvmmsg(fd, self.headers.as_mut_ptr(), LOT as libc::c_uint, flags | libc::MSG_DONTWAIT, ptr::null_mut()) };
        match Errno::result(taken) {
            Ok(taken) => Ok(usize::try_from(taken).unwrap_or_default()),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What the last [`receive`](Self::receive) put into a slot.
    pub(super) fn taken(&self, slot: usize) -> Taken<'_> {
        let header = &self.headers[slot];
        let length = (header.msg_len as usize).min(ROOM);
        let from = Ipv4Addr::from(u32::from_be(self.addresses[slot].sin_addr.s_addr));
        let mut taken = Taken { bytes: &self.bytes[slot][..length], from, stamp: None, key: None };
        // SAFETY: the kernel has filled the control buffer of this header, which lives in `self`, and set its length; CMSG_FIRSTHDR and
        // CMSG_NXTHDR stay within it, and each message has the type that its level and number stand for (unaligned reads ask no more).
        unsafe {
            let mut control = libc::CMSG_FIRSTHDR(&raw const header.msg_hdr);
            while let Some(message) = control.as_ref() {
                let data = libc::CMSG_DATA(control);
                match (message.cmsg_level, message.cmsg_type) {
                    // The first of three in SCM_TIMESTAMPING, the only one in SCM_TIMESTAMPNS.
                    (libc::SOL_SOCKET, libc::SCM_TIMESTAMPING | libc::SCM_TIMESTAMPNS) => {
                        let at = data.cast::<libc::timespec>().read_unaligned();
                        taken.stamp = Some(at.tv_sec * 1_000_000_000 + at.tv_nsec);
                    }
                    (libc::SOL_IP, libc::IP_RECVERR) => {
                        taken.key = Some(data.cast::<libc::sock_extended_err>().read_unaligned().ee_data);
                    }
                    _ => {}
                }
                control = libc::CMSG_NXTHDR(&raw const header.msg_hdr, control);
            }
        }
        taken
    }
}
