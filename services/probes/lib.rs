//! What Vantage can measure. One file per kind of probe, one shape: parse, run, tests.
//!
//! This package knows sockets. It has never heard of gRPC, orders or schedules: [`Plan::parse`] turns a `Probe` of the contract into
//! something that can be run, or says which field is wrong; [`Plan::run`] runs it once and says what it saw.
//!
//! `wire` is pure bytes; `net` is the only folder that opens sockets; kinds use both and never each other, except `https` that is `http`.

mod addresses;
mod connect;
pub mod failure;
pub mod gate;
mod hurry;
pub mod net;
mod pattern;
pub mod run;
mod secret;
pub mod stopwatch;
pub mod target;
pub mod wire;

mod dns;
mod http;
mod https;
mod ntp;
mod ping;
#[cfg(feature = "quic")]
mod quic;
mod tcp;
mod tls;
mod traceroute;
mod udp;

use vantage_contract::v1::{self, probe::Kind as Spec, probe_result::Report};

pub use failure::{Failure, Invalid};
pub use gate::{Demand, Destination, Gate, OpenGate};
pub use hurry::{Hurry, Hurrying};
pub use run::{Run, Sight, World};
pub use target::{Host, Options};

/// A kind of probe: how its message is parsed, and how it is run once.
pub trait Probe: Sized + Send + Sync {
    /// The contract's message that configures it.
    type Spec;
    /// The contract's message that says what it saw. Filled in as the run goes on, so that a timeout keeps what was seen.
    type Report: Default + Send;

    /// The timeout where the check names none.
    const DEFAULT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

    /// Whether it connects by TCP, so that addresses can race to be the first (`addresses: happy_eyeballs`).
    const CONNECTS: bool = false;

    /// Parses once, at the border: what comes out can be run. `options` are the shared fields of the same check.
    fn parse(spec: &Self::Spec, options: &Options) -> Result<Self, Invalid>;

    /// The target as the check names it, for people: a host, host:port or URL, without credentials.
    fn target(&self) -> String;

    /// The host of the target: whose addresses are probed.
    fn host(&self) -> &Host;

    /// The most that a run does to one address, for a policy to judge before anything is done.
    fn demand(&self) -> Demand<'_> {
        Demand::default()
    }

    /// Whether a run only waits for the network, without computing much between: then many of them may share a task. TLS computes.
    fn is_light(&self) -> bool {
        true
    }

    /// Whether the kernel stamps what is measured, so that it may be looked at a little later than it came. Said of a target by address: a
    /// name's resolution is timed by the process's own clock.
    fn is_stamped(&self) -> bool {
        false
    }

    /// Runs once. The caller ends it at the deadline wherever it stalls; a kind that has something better to say than "timed out"
    /// ends itself by [`Run::deadline`]. Returns the sentence of a run that passed.
    fn run(&self, run: &mut Run<'_, Self::Report>) -> impl Future<Output = Result<String, Failure>> + Send;

    /// Writes into the report what is known only when the run is over, however it ended: where its time went. And
    /// takes out of it what must not be told.
    fn settle(_report: &mut Self::Report, _times: &stopwatch::Times, _masks: &secret::Masks) {}
}

/// The one table of kinds: spelling, type of its plan, and (by the contract) spec and report. A kind that the contract has and this
/// table lacks is a compile error.
macro_rules! kinds {
    ($($variant:ident $name:literal $plan:ty),* $(,)?) => {
        /// A probe of any kind, parsed.
        enum Kind {
            $(
                #[doc = $name]
                $variant(Box<$plan>),
            )*
        }

        /// The names of all kinds, as `Probe.kind` spells them.
        pub const KINDS: &[&str] = &[$($name),*];

        /// The kind's name.
        fn name_of(spec: &Spec) -> &'static str {
            match spec {
                $(Spec::$variant(_) => $name,)*
            }
        }

        impl Kind {
            fn parse(spec: &Spec, probe: &v1::Probe) -> Result<(Self, Options), Invalid> {
                match spec {
                    $(Spec::$variant(spec) => {
                        let options = Options::parse(probe, <$plan as Probe>::DEFAULT_TIMEOUT)?;
                        options.selection.fits(<$plan as Probe>::CONNECTS, $name)?;
                        let plan = <$plan as Probe>::parse(spec, &options)
                            .map_err(|invalid| Invalid::new(format!("{}.{}", $name, invalid.field), invalid.problem))?;
                        Ok((Self::$variant(Box::new(plan)), options))
                    })*
                }
            }

            fn is_light(&self) -> bool {
                match self {
                    $(Self::$variant(plan) => plan.is_light(),)*
                }
            }

            fn is_stamped(&self) -> bool {
                match self {
                    $(Self::$variant(plan) => plan.is_stamped() && matches!(plan.host(), Host::Address(_)),)*
                }
            }

            fn target(&self) -> String {
                match self {
                    $(Self::$variant(plan) => plan.target(),)*
                }
            }

            fn demand(&self) -> Demand<'_> {
                match self {
                    $(Self::$variant(plan) => plan.demand(),)*
                }
            }

            async fn run(&self, world: &World, options: &Options) -> Sight {
                match self {
                    $(Self::$variant(plan) => Box::pin(addresses::conduct(&**plan, world, options, Report::$variant)).await,)*
                }
            }
        }
    };
}

kinds! {
    Ping "ping" ping::Ping,
    Traceroute "traceroute" traceroute::Traceroute,
    Http "http" http::Http,
    Https "https" https::Https,
    Tcp "tcp" tcp::Tcp,
    Udp "udp" udp::Udp,
    Dns "dns" dns::Dns,
    Ntp "ntp" ntp::Ntp,
}

/// A probe that can be run: parsed and in range.
pub struct Plan {
    kind: Kind,
    name: &'static str,
    options: Options,
    pattern_bytes: usize,
}

impl Plan {
    /// Parses a probe of the contract, or names the field that is wrong.
    pub fn parse(probe: &v1::Probe) -> Result<Self, Invalid> {
        let spec = probe.kind.as_ref().ok_or_else(|| Invalid::new("kind", format!("is missing: give one of {}", KINDS.join(", "))))?;
        let (parsed, pattern_bytes) = pattern::weighed(|| Kind::parse(spec, probe));
        let (kind, options) = parsed?;
        Ok(Self { kind, name: name_of(spec), options, pattern_bytes })
    }

    /// The kind's name as the contract spells it: "ping".
    pub fn kind(&self) -> &'static str {
        self.name
    }

    /// The target as the check names it, without credentials.
    pub fn target(&self) -> String {
        self.kind.target()
    }

    /// Whether a run only waits for the network, without computing much between: then many of them may share a task.
    pub fn is_light(&self) -> bool {
        self.kind.is_light()
    }

    /// The most that a run does to one address.
    pub fn demand(&self) -> Demand<'_> {
        self.kind.demand()
    }

    /// What its regular expressions take up in memory, in bytes, rounded up.
    pub fn pattern_bytes(&self) -> usize {
        self.pattern_bytes
    }

    /// Whether the kernel stamps all that a run measures, so that whoever waits for it may be woken a little late. Of others a [`Hurrying`] is
    /// to be held while they run.
    pub fn is_stamped(&self) -> bool {
        self.kind.is_stamped()
    }

    /// How long a run may take.
    pub fn timeout(&self) -> std::time::Duration {
        self.options.timeout
    }

    /// Runs once. Never takes longer than the timeout, but for a few milliseconds.
    pub async fn run(&self, world: &World) -> Sight {
        self.kind.run(world, &self.options).await
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan").field("kind", &self.name).field("target", &self.target()).field("options", &self.options).finish()
    }
}

/// The kind's name of a probe that may not be parseable: "" where it has none.
pub fn kind_of(probe: &v1::Probe) -> &'static str {
    probe.kind.as_ref().map_or("", name_of)
}
