//! The bare loop over TCP.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::{Tally, repeat};
use crate::stopwatch;

/// Connects to a server for `time`, with a blocking socket that is closed as soon as it is connected, one after the other.
pub fn tcp(server: SocketAddr, time: Duration) -> io::Result<Tally> {
    repeat(time, |tally| {
        let before = stopwatch::now();
        tally.sent += 1;
        drop(TcpStream::connect(server)?);
        tally.answered += 1;
        tally.round_trips += before.elapsed();
        Ok(())
    })
}
