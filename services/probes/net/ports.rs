//! Source ports for datagrams that nothing in the answer ties to their request.
//!
//! The kernel draws source ports at random, so a port may come again at once, and an answer that comes too late for the run that asked would be
//! taken for one to the run that has the port now. Here each port of the kernel's range comes again only after all the others have had their turn, in
//! an order that was shuffled when the process began: what the next one is can't be guessed from the last.

use std::{
    fs, io,
    ops::RangeInclusive,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::random;

/// How many ports that somebody else has are passed over before the kernel may choose.
const TRIES: usize = 256;

/// The ports in their order, and whose turn it is. Empty until the first is needed: a process that needs none holds no memory for them.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    order: OnceLock<Vec<u16>>,
    next: AtomicUsize,
}

impl Ports {
    /// Binds to the next port that is free. Where none is known to be, port 0: the kernel's choice.
    pub(crate) fn bind(&self, mut bind: impl FnMut(u16) -> io::Result<()>) -> io::Result<()> {
        let order = self.order.get_or_init(|| shuffled(&range(), &reserved()));
        for _ in 0..order.len().min(TRIES) {
            let turn = self.next.fetch_add(1, Ordering::Relaxed) % order.len();
            match bind(order[turn]) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                bound => return bound,
            }
        }
        bind(0)
    }
}

/// The ports that this machine gives to those who name none (ip(7), `ip_local_port_range`); Linux's own default where it does not say.
fn range() -> RangeInclusive<u16> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) if first > 0 && first <= last => first..=last,
        _ => 32_768..=60_999,
    }
}

/// Ports within it that are somebody's (`ip_local_reserved_ports`): "54321-54322,60000".
fn reserved() -> Vec<RangeInclusive<u16>> {
    parse_reserved(&fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default())
}

fn parse_reserved(text: &str) -> Vec<RangeInclusive<u16>> {
    let parse = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(parse).collect()
}

/// All ports of the range but those, in an order of their own.
fn shuffled(range: &RangeInclusive<u16>, reserved: &[RangeInclusive<u16>]) -> Vec<u16> {
    let mut ports: Vec<u16> = range.clone().filter(|port| !reserved.iter().any(|taken| taken.contains(port))).collect();
    let mut bytes = vec![0; 4 * ports.len()];
    // A machine that gives no random numbers gives the same order each time.
    let _ = random::fill(&mut bytes);
    // Fisher and Yates. With 32 bits for at most 16 no place is more likely than another by more than 2⁻¹⁶.
    for (last, bytes) in bytes.as_chunks().0.iter().enumerate().skip(1) {
        let other = (u64::from(u32::from_be_bytes(*bytes)) * (last as u64 + 1)) >> 32;
        ports.swap(last, usize::try_from(other).unwrap_or(last));
    }
    ports
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn of(range: RangeInclusive<u16>, reserved: &str) -> Ports {
        let ports = Ports::default();
        ports.order.set(shuffled(&range, &parse_reserved(reserved))).unwrap();
        ports
    }

    fn take(ports: &Ports, count: usize, is_free: impl Fn(u16) -> bool) -> Vec<u16> {
        let bind = |port| if is_free(port) { Ok(()) } else { Err(io::ErrorKind::AddrInUse.into()) };
        let mut taken = Vec::new();
        for _ in 0..count {
            let mut chosen = 0;
            ports
                .bind(|port| {
                    chosen = port;
                    bind(port)
                })
                .unwrap();
            taken.push(chosen);
        }
        taken
    }

    #[test]
    fn a_port_comes_again_only_after_all_the_others() {
        let ports = of(40_000..=40_999, "");
        let taken = take(&ports, 3000, |_| true);
        for window in taken.windows(1000) {
            assert_eq!(window.iter().collect::<HashSet<_>>().len(), 1000);
        }
        assert!(taken.windows(2).filter(|pair| pair[1] == pair[0] + 1).count() < 100, "not one after the other");
    }

    #[test]
    fn reserved_ports_are_left_alone_and_taken_ones_passed_over() {
        let ports = of(40_000..=40_009, "39999-40001,40009\n");
        let taken: HashSet<_> = take(&ports, 50, |port| port != 40_005).into_iter().collect();
        assert_eq!(taken, HashSet::from([40_002, 40_003, 40_004, 40_006, 40_007, 40_008]));
        assert_eq!(take(&ports, 1, |port| port == 0), [0], "the kernel's choice, where none is free");
    }
}
