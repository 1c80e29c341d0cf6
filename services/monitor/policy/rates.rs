//! How many packets may leave in what time: pure, with time as an argument.
//!
//! A bucket is the instant at which it will be full again (the generic cell rate algorithm, ITU-T I.371): one number, and a bucket that
//! is full need not be kept.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use tokio::time::Instant;

use super::settings::{Rate, Rates};

/// Buckets kept of one sort. Beyond, what would need another is refused.
const MOST_BUCKETS: usize = 1 << 16;
/// Buckets before it is first looked for full ones.
const FIRST_SWEEP: usize = 1 << 10;

/// The least time between two looks for full ones: where there are none, looking costs as much as where there are many.
const SWEEP_PAUSE: Duration = Duration::from_millis(100);

/// One bucket.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    /// When it is full again; none: it is.
    full: Option<Instant>,
}

impl Rate {
    /// How long one packet takes to be made up for.
    fn per_packet(&self) -> Duration {
        Duration::from_secs(1) / self.packets_per_second.max(1)
    }

    fn burst_time(&self) -> Duration {
        self.per_packet() * self.burst()
    }
}

impl Bucket {
    /// How it would be after so many packets left `now`; none where that is more than it holds.
    fn less(self, packets: u32, rate: &Rate, now: Instant) -> Option<Self> {
        let full = self.full.map_or(now, |full| full.max(now)).checked_add(rate.per_packet().checked_mul(packets)?)?;
        (full.duration_since(now) <= rate.burst_time()).then_some(Self { full: Some(full) })
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full.is_none_or(|full| full <= now)
    }
}

/// The buckets of addresses or networks.
#[derive(Debug)]
struct Buckets<K> {
    buckets: HashMap<K, Bucket>,
    /// How many there have to be before it is looked for full ones.
    next_sweep: usize,
    /// When that was done last.
    last_sweep: Option<Instant>,
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self { buckets: HashMap::new(), next_sweep: FIRST_SWEEP, last_sweep: None }
    }
}

impl<K: Eq + Hash> Buckets<K> {
    fn of(&self, key: &K) -> Bucket {
        self.buckets.get(key).copied().unwrap_or_default()
    }

    /// Whether there is room for the bucket; those that are full make some.
    fn has_room_for(&mut self, key: &K, now: Instant) -> bool {
        let is_rested = self.last_sweep.is_none_or(|last| now.saturating_duration_since(last) >= SWEEP_PAUSE);
        if self.buckets.len() >= self.next_sweep && is_rested {
            self.last_sweep = Some(now);
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            self.next_sweep = (2 * self.buckets.len()).clamp(FIRST_SWEEP, MOST_BUCKETS);
        }
        self.buckets.len() < MOST_BUCKETS || self.buckets.contains_key(key)
    }
}

/// What all clients of a monitor have left.
#[derive(Debug, Default)]
pub(super) struct Meters {
    total: Bucket,
    addresses: Buckets<IpAddr>,
    networks: Buckets<IpAddr>,
}

impl Meters {
    /// Takes so many packets to an address from all buckets that they count for, or from none: then it says which had too few.
    pub(super) fn take(
        &mut self,
        rates: &Rates,
        client: Option<&mut Bucket>,
        to: IpAddr,
        packets: u32,
        now: Instant,
    ) -> Result<(), String> {
        let refuse = |rate: &Rate, whom: &str, which: &str| {
            let Rate { packets_per_second, .. } = rate;
            if packets > rate.burst() {
                return format!("policy: {packets} packets at once {whom}, {} are allowed (rates.{which}.burst)", rate.burst());
            }
            format!("policy: more than {packets_per_second} packets a second {whom} (rates.{which})")
        };
        let total = match &rates.total {
            Some(rate) => Some(self.total.less(packets, rate, now).ok_or_else(|| refuse(rate, "from this monitor", "total"))?),
            None => None,
        };
        let of_client = match (&rates.client, &client) {
            (Some(rate), Some(bucket)) => Some(bucket.less(packets, rate, now).ok_or_else(|| refuse(rate, "for this client", "client"))?),
            _ => None,
        };
        let around = network_of(to);
        // This machine protects itself: it has other limits.
        let own = |rate: &Option<Rate>, buckets: &mut Buckets<IpAddr>, key: IpAddr, which: &str| match rate {
            Some(rate) if !to.is_loopback() => {
                if !buckets.has_room_for(&key, now) {
                    return Err(format!(
                        "policy: {MOST_BUCKETS} addresses have been sent to of late, and no more are counted (rates.{which})"
                    ));
                }
                let whom = if which == "address" { format!("to {to}") } else { format!("to the network around {to}") };
                buckets.of(&key).less(packets, rate, now).map(Some).ok_or_else(|| refuse(rate, &whom, which))
            }
            _ => Ok(None),
        };
        let of_network = own(&rates.network, &mut self.networks, around, "network")?;
        let of_address = own(&rates.address, &mut self.addresses, to, "address")?;

        self.total = total.unwrap_or_default();
        if let (Some(bucket), Some(less)) = (client, of_client) {
            *bucket = less;
        }
        of_network.map(|less| self.networks.buckets.insert(around, less));
        of_address.map(|less| self.addresses.buckets.insert(to, less));
        Ok(())
    }
}

/// The /24 or /48 around an address, by its first one.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !0xff).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80)).into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use vantage_daemon::clock;

    use super::*;

    fn rate(packets_per_second: u32, burst: u32) -> Rate {
        Rate { packets_per_second, burst: Some(burst) }
    }

    const NONE: Rates = Rates { total: None, client: None, address: None, network: None };
    const A: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
    const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

    #[test]
    fn a_burst_may_leave_at_once_and_is_made_up_for_at_the_rate() {
        let (rates, start) = (Rates { address: Some(rate(10, 5)), ..NONE }, clock::monotonic());
        let mut meters = Meters::default();
        let mut take = |packets, to, millis| meters.take(&rates, None, to, packets, start + Duration::from_millis(millis));
        assert_eq!(take(5, A, 0), Ok(()));
        assert_eq!(take(1, A, 0).unwrap_err(), "policy: more than 10 packets a second to 192.0.2.1 (rates.address)");
        assert_eq!(take(5, B, 0), Ok(()), "another address has its own");
        assert!(take(1, A, 99).is_err());
        assert_eq!(take(1, A, 100), Ok(()));
        assert!(take(1, A, 101).is_err());
        assert_eq!(take(5, A, 10_000), Ok(()));
        assert_eq!(take(6, A, 20_000).unwrap_err(), "policy: 6 packets at once to 192.0.2.1, 5 are allowed (rates.address.burst)");
    }

    #[test]
    fn a_refusal_by_one_bucket_takes_nothing_from_the_others() {
        let (rates, now) =
            (Rates { network: Some(rate(1, 3)), address: Some(rate(1, 2)), total: Some(rate(1, 4)), ..NONE }, clock::monotonic());
        let mut meters = Meters::default();
        let mut take = |packets, to| meters.take(&rates, None, to, packets, now).map_err(|why| why.rsplit_once('(').unwrap().1.to_owned());
        assert_eq!(take(2, A), Ok(()));
        assert_eq!(take(1, A), Err("rates.address)".into()));
        assert_eq!(take(1, B), Ok(()), "the refusal before did not count for the network");
        assert_eq!(take(1, B), Err("rates.network)".into()));
        assert_eq!(take(1, ELSEWHERE), Ok(()));
        assert_eq!(take(1, ELSEWHERE), Err("rates.total)".into()));
    }

    #[test]
    fn each_client_has_its_own_bucket_and_loopback_none() {
        let (rates, now) = (Rates { client: Some(rate(1, 1)), address: Some(rate(1, 1)), ..NONE }, clock::monotonic());
        let (mut meters, mut one, mut two) = (Meters::default(), Bucket::default(), Bucket::default());
        let here = IpAddr::from([127, 0, 0, 9]);
        assert_eq!(meters.take(&rates, Some(&mut one), here, 1, now), Ok(()));
        assert!(meters.take(&rates, Some(&mut one), here, 1, now).unwrap_err().ends_with("for this client (rates.client)"));
        assert_eq!(meters.take(&rates, Some(&mut two), here, 1, now), Ok(()), "the address is this machine's");
    }

    #[test]
    fn networks_are_of_24_and_48_bits() {
        let of = |address: &str| network_of(address.parse().unwrap()).to_string();
        assert_eq!((of("192.0.2.77").as_str(), of("2001:db8:1:2::3").as_str()), ("192.0.2.0", "2001:db8:1::"));
    }

    #[test]
    fn buckets_that_are_full_are_forgotten_and_those_that_are_not_are_bounded() {
        let (rates, start) = (Rates { address: Some(rate(1000, 10)), ..NONE }, clock::monotonic());
        let mut meters = Meters::default();
        for number in 0..200_000_u32 {
            let now = start + Duration::from_micros(u64::from(number) * 100);
            meters.take(&rates, None, Ipv4Addr::from_bits(0x0a00_0000 + number).into(), 1, now).unwrap();
        }
        assert!(meters.addresses.buckets.len() <= 2 * FIRST_SWEEP, "{}", meters.addresses.buckets.len());
        let slow = Rates { address: Some(rate(1, 10)), ..NONE };
        let mut refused = 0;
        for number in 0..100_000_u32 {
            refused += u32::from(meters.take(&slow, None, Ipv4Addr::from_bits(0x0b00_0000 + number).into(), 1, start).is_err());
        }
        assert!(refused > 0 && meters.addresses.buckets.len() <= MOST_BUCKETS);
    }

    proptest! {
        #[test]
        fn no_more_than_burst_and_rate_ever_leave(asked in prop::collection::vec((0_u64..500, 1_u32..20), 1..200)) {
            let (rates, start) = (Rates { address: Some(rate(20, 30)), ..NONE }, clock::monotonic());
            let (mut meters, mut millis, mut left) = (Meters::default(), 0, 0);
            for (pause, packets) in asked {
                millis += pause;
                if meters.take(&rates, None, A, packets, start + Duration::from_millis(millis)).is_ok() {
                    left += u64::from(packets);
                }
                prop_assert!(left <= 30 + millis * 20 / 1000 + 1);
            }
        }
    }
}
