//! What the kernel says of a socket's memory: `SO_MEMINFO` (Linux 4.12), which nix does not know.

#![expect(unsafe_code, reason = "nix does not know the option, and socket2 none of its kind")]

use std::{
    mem::size_of_val,
    os::fd::{AsRawFd, BorrowedFd},
};

use nix::libc;

/// The option; libc names only its indices.
const SO_MEMINFO: libc::c_int = 55;

/// Packets that were dropped at the socket for want of room. None where the kernel does not say.
pub(super) fn drops(socket: BorrowedFd<'_>) -> Option<u32> {
    let mut figures = [0_u32; 9];
    let mut length = size_of_val(&figures) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `figures`, which has as many, and any bytes are numbers.
    let outcome =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, figures.as_mut_ptr().cast(), &raw mut length) };
    (outcome == 0).then(|| figures.get(libc::SK_MEMINFO_DROPS as usize).copied()).flatten()
}
