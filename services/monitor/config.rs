//! The monitor's settings: their names, units, ranges and defaults, in one place.
//!
//! They come from a JSON file (`serve --config FILE`; `deploy/monitor.json` is one), in which every field may be left out and none may be
//! unknown; flags and the environment (`VANTAGE_*`) win over it. Durations are text with a unit: "250ms", "10s", "1m 30s", "7d".

pub(crate) mod fields;
mod kinds;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use vantage_daemon::{
    access::{self, Role, Roles, RolesFile, ServerFiles},
    data::Data,
    exit::{Exit, Fatal},
    exposure::Protection,
    sqlite::Sync,
    tls::MinVersion,
};

use crate::{
    admission::three_quarters,
    journal::Bounds,
    pacer::Pacer,
    policy::{Policy, Source},
};

pub use kinds::KindLimits;

/// The port of the contract.
pub const PORT: u16 = 54321;

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// Everything that can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The name that every result carries, unique among a manager's monitors. 1 to 64 printable ASCII characters. Default: the host's
    /// name.
    #[serde(deserialize_with = "fields::name")]
    pub name: String,
    /// Where gRPC is served: address:port; port 0 takes any free one. Beyond loopback it needs `tls` with `client_ca_file` or with
    /// `token_file`. Default 127.0.0.1:54321.
    #[serde(deserialize_with = "fields::address")]
    pub listen: SocketAddr,
    /// Where AdminService is served, and then nowhere else: address:port, or "off", which leaves it where gRPC is. Beyond loopback it needs
    /// what `listen` needs. Default "off".
    #[serde(deserialize_with = "fields::listener")]
    pub admin_listen: Option<SocketAddr>,
    /// Where health (`/livez`, `/readyz`) and figures (`/metrics`) are served: address:port, or "off". On loopback in the clear and for everybody;
    /// beyond it as `listen` is, by the same certificates and tokens, for the roles "manager" and "admin", and health for whoever gets in.
    /// Nothing can be asked of the monitor there; the figures name its clients. Default 127.0.0.1:54322.
    #[serde(deserialize_with = "fields::listener")]
    pub http_listen: Option<SocketAddr>,
    /// TLS. Default: none.
    pub tls: Option<Tls>,
    /// A file whose content (without the line end, at least 16 characters) callers have to send as bearer token, and then may order. Of more than
    /// one line, each is a token: the new one beside the old, until all have it. Default: none.
    #[serde(deserialize_with = "fields::some_path")]
    pub token_file: Option<PathBuf>,
    /// The same for callers that may ask AdminService and not order. Default: none.
    #[serde(deserialize_with = "fields::some_path")]
    pub admin_token_file: Option<PathBuf>,
    /// Lets gRPC stand open beyond loopback without TLS or without anybody being known: for networks that keep others out by themselves.
    /// Default false.
    pub allow_unprotected_listener: bool,
    /// The same for health and figures, which are in the clear then. Default false.
    pub allow_unprotected_http_listener: bool,
    /// How much at once.
    pub limits: Limits,
    /// The folder where orders and results are kept until they are acknowledged: a path, or "memory", which ends with the process. One
    /// process has it at a time. Default: `monitor-NAME` in the standard folder (`$STATE_DIRECTORY`, `$XDG_STATE_HOME/vantage` or
    /// `$HOME/.local/state/vantage`).
    #[serde(deserialize_with = "fields::data")]
    pub data: Data,
    /// How much is kept for clients that are away, and how safely.
    pub journal: Journal,
    /// How long a client that stays away is remembered, with its orders. 1 minute to 365 days. Default 7 days.
    #[serde(deserialize_with = "fields::duration::<{ 60 * SECOND }, { 365 * DAY }, _>")]
    pub client_expiry: Duration,
    /// How the death of a silent peer is noticed.
    pub keepalive: Keepalive,
    /// How long a monitor that is told to stop waits for runs in flight and for their results to be taken. 0 to 1 hour. Default 10 s.
    #[serde(deserialize_with = "fields::duration::<0, HOUR, _>")]
    pub drain_timeout: Duration,
    /// What orders may ask. Read anew when the file changes, and on SIGHUP: the one part that is. Default: see
    /// [`PolicySettings`](crate::policy::PolicySettings).
    pub policy: Policy,
    /// Whether this monitor is in the process of its one manager: what that asks is its own business, and no matter for an audit. Not a setting
    /// of files.
    #[serde(skip)]
    pub is_embedded: bool,
    /// The policy in a file of its own, in place of `policy`: one of the two. Read anew as that is. Default: none.
    #[serde(deserialize_with = "fields::some_path")]
    pub policy_file: Option<PathBuf>,
}

/// TLS, from PEM files. They are read again when they change, and on SIGHUP; broken ones leave the old ones in force.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The monitor's certificate chain.
    #[serde(deserialize_with = "fields::path")]
    pub certificate_file: PathBuf,
    /// The key of it.
    #[serde(deserialize_with = "fields::path")]
    pub key_file: PathBuf,
    /// The authorities whose certificates callers have to show. Default: callers need none.
    #[serde(default, deserialize_with = "fields::some_path")]
    pub client_ca_file: Option<PathBuf>,
    /// The lowest version that is spoken: "1.2" or "1.3". Default "1.3".
    #[serde(default, deserialize_with = "fields::min_version")]
    pub min_version: MinVersion,
    /// Roles of callers' certificates in place of those that they say themselves, by what they are known by: `{"dns:desk.example": "manager",
    /// "cn:alice": "admin", "uri:spiffe://…": "manager", "email:…": "admin", "sha256:AB:CD:…": "none"}`. The least of those that fit counts;
    /// "none" shuts a certificate out. A certificate without a role is refused. Default: those with the URI name `vantage:role:manager` may
    /// order and ask, those with `vantage:role:admin` may ask.
    #[serde(default, deserialize_with = "fields::roles")]
    pub roles: Roles,
}

/// How much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Runs in flight; further ones wait. 1 to 100,000. Default 1000. Orders whose last two runs took long (more than a second, or more
    /// than a quarter of the timeout) have half of them at most; together with orders that are unproven (they have had no run yet, or only
    /// the last took long) three quarters.
    #[serde(deserialize_with = "fields::number::<1, 100_000, _, _>")]
    pub in_flight: usize,
    /// Runs of one kind in flight, by kind: `{"http": 200}`; of these, slow and unproven orders have the same shares. 1 to 100,000, and
    /// never more than `in_flight`. Default, for each kind that is not named: three quarters of `in_flight`, rounded down, at least 1, so
    /// that no kind takes every place.
    pub in_flight_by_kind: KindLimits,
    /// Runs that are due and wait for one in flight to end; further ones are skipped, OVERLOADED. Slow and unproven orders have the same
    /// shares of it. 0 to 1,000,000. Default 10,000.
    #[serde(deserialize_with = "fields::number::<0, 1_000_000, _, _>")]
    pub max_waiting: usize,
    /// Clients known, connected or away. A further one takes the place of one that is away, has no orders and was sent all its results; if
    /// there is none it gets RESOURCE_EXHAUSTED. 1 to 10,000. Default 100.
    #[serde(deserialize_with = "fields::number::<1, 10_000, _, _>")]
    pub clients: usize,
    /// Orders that one client may have standing; further ones get RESOURCE_EXHAUSTED. 1 to 1,000,000. Default 20,000.
    #[serde(deserialize_with = "fields::number::<1, 1_000_000, _, _>")]
    pub orders_per_client: usize,
    /// Runs that the orders of one client have in a second, by their intervals; an order beyond gets RESOURCE_EXHAUSTED. 1 to 1,000,000.
    /// Default 20,000.
    #[serde(deserialize_with = "fields::number::<1, 1_000_000, _, _>")]
    pub runs_per_second: u32,
    /// What the orders of one client take up in memory, in bytes, those of RunOnce while they are under way: about three times what they say as
    /// encoded, what their regular expressions are made into (16 KiB or more each), and 1 KiB for each. One beyond gets RESOURCE_EXHAUSTED.
    /// 64 KiB to 1 TiB. Default 256 MiB.
    #[serde(deserialize_with = "fields::number::<65_536, 1_099_511_627_776, _, _>")]
    pub order_bytes_per_client: u64,
    /// The same of all clients together. 64 KiB to 1 TiB. Default 512 MiB.
    #[serde(deserialize_with = "fields::number::<65_536, 1_099_511_627_776, _, _>")]
    pub order_bytes: u64,
    /// Requests of one client on its stream in a second, in the long run: orders, acknowledgements; a long one counts once for each 4 KiB. As many as `orders_per_client` and a
    /// thousand more may come at once; who goes on faster waits, by the flow control of HTTP/2. All clients together may ask twice as fast.
    /// 1 to 1,000,000. Default 5,000.
    #[serde(deserialize_with = "fields::number::<1, 1_000_000, _, _>")]
    pub requests_per_second: u32,
    /// Bytes of one request; a longer one ends its stream with RESOURCE_EXHAUSTED. 64 KiB to 64 MiB. Default 4 MiB.
    #[serde(deserialize_with = "fields::number::<65_536, 67_108_864, _, _>")]
    pub request_bytes: usize,
    /// Bytes of headers that a request may have (SETTINGS_MAX_HEADER_LIST_SIZE, RFC 9113); more are refused, 431. 4 KiB to 1 MiB.
    /// Default 16 KiB.
    #[serde(deserialize_with = "fields::number::<4096, 1_048_576, _, _>")]
    pub header_bytes: u32,
    /// Streams that a connection may have open at once (SETTINGS_MAX_CONCURRENT_STREAMS); further ones are refused, REFUSED_STREAM. A client
    /// needs one. 1 to 10,000. Default 128.
    #[serde(deserialize_with = "fields::number::<1, 10_000, _, _>")]
    pub streams_per_connection: u32,
}

/// How much is kept for clients that are away, or that do not acknowledge, and how safely. Beyond its bounds the oldest results become
/// `skipped`, JOURNAL_FULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Journal {
    /// Bytes for each client, as encoded: a result of tcp takes some 250. What accounts for dropped results comes on top; where it takes as much
    /// again, new orders are refused. 64 KiB to 64 GiB. Default 1 GiB on disk, 64 MiB in memory.
    #[serde(deserialize_with = "fields::some_number::<65_536, 68_719_476_736, _>")]
    pub bytes: Option<u64>,
    /// Bytes for all clients together, accounts of dropped results included. Where they would come beyond it, those that take least keep what they
    /// have, and the others get equal parts of the rest. Looked after once a second. 64 KiB to 1 PiB. Default none on disk, whose own end bounds it, and
    /// 512 MiB in memory.
    #[serde(deserialize_with = "fields::some_number::<65_536, 1_125_899_906_842_624, _>")]
    pub total_bytes: Option<u64>,
    /// How old a result may become. 1 minute to 365 days. Default 24 h.
    #[serde(deserialize_with = "fields::duration::<{ 60 * SECOND }, { 365 * DAY }, _>")]
    pub age: Duration,
    /// What a commit waits for. "full": the disk, some milliseconds; what was committed survives a power loss. "normal": the operating system;
    /// a killed process loses as little, but a power loss takes back the last seconds: results that a client had already are
    /// accounted for a second time then, as MONITOR_DOWN. Default "full".
    #[serde(deserialize_with = "fields::sync")]
    pub sync: Sync,
    /// How long results wait for others to be committed with. Each commit costs a write (and with "full" a flush) whatever it holds; a result
    /// is sent after its commit. For clients that are away it is at least 200 ms. A killed monitor loses what it measured since the last commit; those
    /// runs are accounted for as MONITOR_DOWN. 0 to 10 s. Default 10 ms.
    #[serde(deserialize_with = "fields::duration::<0, { 10 * SECOND }, _>")]
    pub commit_interval: Duration,
    /// Bytes for each client that wait for a disk that is slow, or takes nothing. Beyond it the oldest become JOURNAL_FULL. 64 KiB to 1 GiB.
    /// Default 4 MiB (4194304).
    #[serde(deserialize_with = "fields::number::<65_536, 1_073_741_824, _, _>")]
    pub unwritten_bytes: u64,
}

/// HTTP/2 keepalives (RFC 9113 section 6.7): a peer is given up after `interval + timeout` of silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keepalive {
    /// From one PING frame to the next. 1 s to 1 hour. Default 10 s.
    #[serde(deserialize_with = "fields::duration::<SECOND, HOUR, _>")]
    pub interval: Duration,
    /// How long the answer may take. 100 ms to 1 hour. Default 5 s.
    #[serde(deserialize_with = "fields::duration::<100, HOUR, _>")]
    pub timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: host_name(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
            http_listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT + 1))),
            admin_listen: None,
            tls: None,
            token_file: None,
            admin_token_file: None,
            allow_unprotected_listener: false,
            allow_unprotected_http_listener: false,
            limits: Limits::default(),
            data: Data::default(),
            journal: Journal::default(),
            client_expiry: Duration::from_millis(7 * DAY),
            keepalive: Keepalive::default(),
            drain_timeout: Duration::from_secs(10),
            policy: Policy::default(),
            is_embedded: false,
            policy_file: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight: 1000,
            in_flight_by_kind: KindLimits::default(),
            max_waiting: 10_000,
            clients: 100,
            orders_per_client: 20_000,
            runs_per_second: 20_000,
            order_bytes_per_client: 256 << 20,
            order_bytes: 512 << 20,
            requests_per_second: 5000,
            request_bytes: 4 << 20,
            header_bytes: 16 << 10,
            streams_per_connection: 128,
        }
    }
}

impl Limits {
    /// How fast one client may ask.
    pub(crate) fn pacer(&self) -> Pacer {
        Pacer::new(self.requests_per_second, self.request_burst())
    }

    /// How fast all clients together may ask.
    pub(crate) fn common_pacer(&self) -> Pacer {
        Pacer::new(self.requests_per_second.saturating_mul(2), self.request_burst().saturating_mul(2))
    }

    fn request_burst(&self) -> u32 {
        u32::try_from(self.orders_per_client).unwrap_or(u32::MAX).saturating_add(1000)
    }

    /// Runs of this kind that may be in flight.
    pub fn in_flight_of(&self, kind: &str) -> usize {
        let named = self.in_flight_by_kind.of(kind);
        named.unwrap_or_else(|| three_quarters(self.in_flight)).clamp(1, self.in_flight.max(1))
    }
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            bytes: None,
            total_bytes: None,
            age: Duration::from_millis(DAY),
            sync: Sync::default(),
            commit_interval: Duration::from_millis(10),
            unwritten_bytes: 4 << 20,
        }
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), timeout: Duration::from_secs(5) }
    }
}

impl Settings {
    /// Reads a settings file. Files that it names are looked for beside it. The error names file, line and column.
    pub fn load(file: &Path) -> Result<Self, Fatal> {
        let wrong = |why: String| Fatal::new(Exit::Config, why);
        let text = fs::read_to_string(file).map_err(|error| wrong(format!("read {}: {error}", file.display())))?;
        let located = |error: String| wrong(format!("{}: {error}", file.display()));
        let mut settings: Self = parse(&text).map_err(located)?;
        if settings.policy_file.is_some() && has_policy(&text) {
            return Err(located("policy and policy_file are two places for one thing: give one of them".to_owned()));
        }
        // Joining an absolute path leaves it as it is.
        let beside = |path: &mut PathBuf| *path = file.parent().unwrap_or(Path::new("")).join(&path);
        if let Some(tls) = &mut settings.tls {
            beside(&mut tls.certificate_file);
            beside(&mut tls.key_file);
            tls.client_ca_file.as_mut().map(beside);
        }
        settings.token_file.as_mut().map(beside);
        settings.policy_file.as_mut().map(beside);
        settings.admin_token_file.as_mut().map(beside);
        if let Data::Folder(folder) = &mut settings.data {
            beside(folder);
        }
        Ok(settings)
    }

    /// The bounds of one client's journal.
    pub fn bounds(&self) -> Bounds {
        let Journal { bytes, age, unwritten_bytes, .. } = self.journal;
        let default = if self.data == Data::Memory { 64 << 20 } else { 1 << 30 };
        Bounds { bytes: bytes.unwrap_or(default), age, unwritten_bytes }
    }

    /// The bound of the journal of all clients together, where there is one.
    pub fn total_bytes(&self) -> Option<u64> {
        self.journal.total_bytes.or((self.data == Data::Memory).then_some(512 << 20))
    }

    /// Where the policy is, of settings that were read from `file`.
    pub(crate) fn source(&self, file: &Path) -> Source {
        match &self.policy_file {
            Some(policy) => Source::File(policy.clone()),
            None => Source::Settings(file.to_owned()),
        }
    }

    /// The policy in force; all clones are one, so that a reload reaches everybody.
    pub fn policy(&self) -> Policy {
        self.policy.clone()
    }

    /// How the listeners of gRPC are protected.
    pub fn protection(&self) -> Protection {
        Protection {
            tls: self.tls.is_some(),
            client_certificates: self.tls.as_ref().is_some_and(|tls| tls.client_ca_file.is_some()),
            token: self.token_file.is_some() || self.admin_token_file.is_some(),
            overridden: self.allow_unprotected_listener,
        }
    }

    /// Whether health and figures are served as gRPC is, and not in the clear.
    pub fn protects_http(&self) -> bool {
        let beyond = self.http_listen.is_some_and(|address| !address.ip().to_canonical().is_loopback());
        beyond && !self.allow_unprotected_http_listener
    }

    /// Who may talk to this monitor. `file` is where these settings were read: its roles count anew when it changes.
    pub fn access(&self, file: Option<&Path>) -> access::Settings {
        let roles = self.tls.as_ref().map(|tls| tls.roles.clone()).unwrap_or_default();
        let token = |role: Role, file: &Option<PathBuf>| file.clone().map(|file| (role, file));
        let tls = self.tls.as_ref().map(|tls| ServerFiles {
            certificate: tls.certificate_file.clone(),
            key: tls.key_file.clone(),
            client_ca: tls.client_ca_file.clone(),
            min_version: tls.min_version,
        });
        let more_roles = file.filter(|_| tls.is_some()).map(|file| RolesFile { path: file.to_owned(), read: roles_of });
        access::Settings {
            tls,
            tokens: [token(Role::Manager, &self.token_file), token(Role::Admin, &self.admin_token_file)].into_iter().flatten().collect(),
            roles: if more_roles.is_some() { Roles::default() } else { roles },
            more_roles,
        }
    }
}

/// The roles in a settings file.
fn roles_of(file: &Path) -> Result<Roles, Fatal> {
    Settings::load(file).map(|settings| settings.tls.map(|tls| tls.roles).unwrap_or_default())
}

/// Reads settings, or a policy. The error is "limits.in_flight: must be 1 to 100000, is 0 at line 1 column 27".
pub(crate) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let settings = serde_path_to_error::deserialize(&mut reader).map_err(|error| match error.path().iter().next() {
        Some(_) => error.to_string(),
        None => error.into_inner().to_string(),
    })?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(settings)
}

/// Whether settings have a policy in them.
pub(crate) fn has_policy(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Part {
        policy: Option<IgnoredAny>,
    }
    serde_json::from_str::<Part>(text).is_ok_and(|part| part.policy.is_some())
}

/// The host's name, or "monitor" where it has none that can be used.
fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    fields::parse_name(name.trim_end()).unwrap_or_else(|_| "monitor".to_owned())
}

#[cfg(test)]
mod tests;
