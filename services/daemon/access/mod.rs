//! Who may talk to us, and what they may do: by client certificates, by tokens, or both; from files that may change at any time.
//!
//! What is in force is one value, which a reload replaces whole: a broken file changes nothing. Whoever is in when it changes is judged anew.

mod figures;
mod lease;
mod role;
mod tokens;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

pub use crate::tls::server::ServerFiles;
use crate::{
    audit::{Audit, Event},
    clock,
    door::Peer,
    exit::Fatal,
    readiness::Readiness,
    tls::{expiry::Expiry, server::ServerTls},
    watch::Watch,
};
pub(crate) use figures::Counts;
pub use lease::{Leased, Pass};
pub use role::{Mark, ROLE_URI, Role, Roles};
use tokens::Tokens;

/// How often files are looked at that can't be watched, and expiries.
const LOOK: Duration = Duration::from_secs(60);
/// The condition of readiness that a broken file leaves unmet.
const CONDITION: &str = "credentials";

/// From where it is known who may talk to us.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// TLS; none: in the clear.
    pub tls: Option<ServerFiles>,
    /// Files with tokens, and what they allow.
    pub tokens: Vec<(Role, PathBuf)>,
    /// Roles of certificates that do not say theirs, or not the right one.
    pub roles: Roles,
    /// A file with more of them, which counts anew when it changes.
    pub more_roles: Option<RolesFile>,
}

/// A file with roles in it, and how they are read.
#[derive(Debug, Clone)]
pub struct RolesFile {
    /// Where it is.
    pub path: PathBuf,
    /// Reads the roles of it.
    pub read: fn(&Path) -> Result<Roles, Fatal>,
}

impl Settings {
    fn paths(&self) -> Vec<PathBuf> {
        let more = self.more_roles.iter().map(|file| file.path.clone());
        self.tls.iter().flat_map(ServerFiles::paths).chain(self.tokens.iter().map(|(_, path)| path.clone())).chain(more).collect()
    }
}

/// What is in force.
#[derive(Debug)]
pub(crate) struct Force {
    pub(crate) tls: Option<ServerTls>,
    tokens: Tokens,
    roles: Roles,
}

impl Force {
    fn load(settings: &Settings) -> Result<Self, Fatal> {
        Ok(Self {
            tls: settings.tls.as_ref().map(ServerTls::load).transpose()?,
            tokens: Tokens::load(&settings.tokens)?,
            roles: match &settings.more_roles {
                Some(file) => settings.roles.clone().and((file.read)(&file.path)?),
                None => settings.roles.clone(),
            },
        })
    }

    fn wants_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.verifier.is_some())
    }

    /// What differs, for people; empty: nothing.
    fn changes(&self, from: &Self) -> Vec<&'static str> {
        let tls = |force: &Self| force.tls.as_ref().map(|tls| (tls.own.clone(), tls.authorities.clone()));
        let (now, then) = (tls(self).unzip(), tls(from).unzip());
        let parts = [
            ("certificate", now.0 != then.0),
            ("client authorities", now.1 != then.1),
            ("tokens", !self.tokens.is_same(&from.tokens)),
            ("roles", self.roles != from.roles),
        ];
        parts.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }
}

/// Why somebody is not let in, or not allowed what they ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No certificate was shown.
    NoCertificate,
    /// No token was shown.
    NoToken,
    /// A token was shown that is not in force.
    WrongToken,
    /// What was shown is no longer accepted, and why.
    NoLonger(String),
    /// The certificate is sound, and has no role here.
    NoRole {
        /// Whose it is.
        subject: String,
    },
    /// The role is too little for what was asked.
    Role {
        /// What they may.
        has: Role,
        /// What they would have to.
        needs: Role,
    },
}

impl Refusal {
    /// Whether it is not known who asks; otherwise it is known, and not allowed.
    pub fn is_unknown(&self) -> bool {
        match self {
            Self::NoCertificate | Self::NoToken | Self::WrongToken | Self::NoLonger(_) => true,
            Self::NoRole { .. } | Self::Role { .. } => false,
        }
    }

    /// A word for figures.
    pub fn word(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::NoToken => "no_token",
            Self::WrongToken => "wrong_token",
            Self::NoLonger(_) => "no_longer_accepted",
            Self::NoRole { .. } => "no_role",
            Self::Role { .. } => "wrong_role",
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("a client certificate is needed"),
            Self::NoToken => f.write_str("a token is needed: send `authorization: Bearer TOKEN`"),
            Self::WrongToken => f.write_str("that token is not known here"),
            Self::NoLonger(why) => write!(f, "you are no longer accepted: {why}"),
            Self::NoRole { subject } => write!(
                f,
                "the certificate of {subject:?} says no role (a URI name {ROLE_URI}manager or {ROLE_URI}admin), and the settings give it none \
                 (tls.roles)"
            ),
            Self::Role { has, needs } => write!(f, "you have the role {has}, and this is for the role {needs}"),
        }
    }
}

/// Decides who may talk to us. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    force: watch::Sender<Arc<Force>>,
    audit: Audit,
    readiness: Readiness,
    expiry: Expiry,
    counts: Counts,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
    is_broken: AtomicBool,
}

impl Access {
    /// Reads all files. Nobody watches them yet: see [`Access::watch`].
    pub fn open(settings: Settings, audit: Audit, readiness: Readiness) -> Result<Self, Fatal> {
        let force = Force::load(&settings)?;
        let expiry = Expiry::new(readiness.clone());
        let access = Self(Arc::new(Inner {
            settings,
            force: watch::Sender::new(Arc::new(force)),
            audit,
            readiness,
            expiry,
            counts: Counts::default(),
            reloads: AtomicU64::default(),
            failed_reloads: AtomicU64::default(),
            is_broken: AtomicBool::default(),
        }));
        access.look();
        Ok(access)
    }

    /// The way to tell of what is decided.
    pub fn audit(&self) -> &Audit {
        &self.0.audit
    }

    /// When the certificates end; others that the process depends on may be added.
    pub fn expiry(&self) -> &Expiry {
        &self.0.expiry
    }

    /// Whether there is TLS.
    pub fn has_tls(&self) -> bool {
        self.force().tls.is_some()
    }

    /// Whether anybody is asked who they are.
    pub fn asks(&self) -> bool {
        let force = self.force();
        force.wants_certificates() || !force.tokens.is_empty()
    }

    /// Reads all files again: all of them count, or none. It is told what changed, or what is wrong.
    pub fn reload(&self) {
        let Inner { settings, audit, readiness, is_broken, .. } = &*self.0;
        let (former, now) = (self.force(), clock::wall());
        let loaded = Force::load(settings).and_then(|force| match (&force.tls, &former.tls) {
            // A certificate that is out of date takes the place of none that is good.
            (Some(new), Some(old)) if !new.own.is_valid(now) && old.own.is_valid(now) => {
                let file = settings.tls.as_ref().map(|tls| tls.certificate.display().to_string()).unwrap_or_default();
                Err(Fatal::new(crate::exit::Exit::Config, format!("{file}: the new certificate is not valid now, and the old one is")))
            }
            _ => Ok(force),
        });
        match loaded {
            Ok(force) => {
                let changes = force.changes(&former).join(", ");
                self.0.reloads.fetch_add(1, Ordering::Relaxed);
                is_broken.store(false, Ordering::Relaxed);
                readiness.forget(CONDITION);
                if changes.is_empty() {
                    tracing::debug!("certificates and tokens were read again: nothing changed");
                    return;
                }
                let own = force.tls.as_ref().map(|tls| tls.own.fingerprint.clone()).unwrap_or_default();
                self.0.force.send_replace(Arc::new(force));
                audit.tell(Event::CredentialsChanged, |event| {
                    tracing::info!(target: "audit", event, changes, certificate = own, decision = "in_force", "other credentials are in force");
                });
                self.look();
            }
            Err(Fatal { message, .. }) => {
                self.0.failed_reloads.fetch_add(1, Ordering::Relaxed);
                is_broken.store(true, Ordering::Relaxed);
                tracing::error!(error = message, "new certificates or tokens are broken: the old ones stay in force");
                audit.tell(Event::CredentialsChanged, |event| {
                    tracing::warn!(target: "audit", event, error = message, decision = "left_aside", "the old credentials stay in force");
                });
                readiness.unmet(CONDITION, format!("the new ones are broken, the old ones stay in force: {message}"));
            }
        }
    }

    /// Watches the files, SIGHUP, and how near the ends of certificates are, until `stop`.
    pub async fn watch(self, stop: CancellationToken) {
        let paths = self.0.settings.paths();
        let mut watch = (!paths.is_empty()).then(|| Watch::start(paths));
        // What changed between the first reading and now.
        if watch.is_some() {
            self.reload();
        }
        let mut hangup = signal(SignalKind::hangup()).ok();
        let mut look = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = changed(&mut watch) => self.reload(),
                () = hung_up(&mut hangup) => self.reload(),
                _ = look.tick() => {
                    // A broken file may be mended where nobody saw it.
                    if self.0.is_broken.load(Ordering::Relaxed) {
                        self.reload();
                    }
                    self.look();
                }
            }
        }
    }

    /// Whether somebody may do what needs this role, and as what they are known.
    pub fn admit(&self, peer: &Peer, authorization: Option<&[u8]>, needs: Role) -> Result<Pass, Refusal> {
        let token = authorization.and_then(tokens::shown);
        let pass = Pass { access: self.clone(), peer: peer.clone(), token, has_header: authorization.is_some(), needs };
        pass.check(&self.force()).map(|role| {
            peer.note_admitted(role, &self.0.audit);
            pass
        })
    }

    /// Tells of a refusal, and counts it.
    pub fn refuse(&self, peer: &Peer, refusal: &Refusal, what: &str, code: &str) {
        self.0.counts.refused(peer.listener(), refusal.word());
        self.0.audit.tell(Event::Refused, |event| {
            let (identity, tls) = (peer.identity(), peer.tls_version());
            tracing::warn!(target: "audit", event, listener = peer.listener(), address = %peer.address(), identity, tls, what, code, why = %refusal, "refused");
        });
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    pub(crate) fn force(&self) -> Arc<Force> {
        Arc::clone(&self.0.force.borrow())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Force>> {
        self.0.force.subscribe()
    }

    fn look(&self) {
        let force = self.force();
        if let Some(tls) = &force.tls {
            let authorities = tls.authorities.iter().map(|facts| ("client_ca", facts.clone()));
            self.0.expiry.set("", std::iter::once(("server", tls.own.clone())).chain(authorities));
        }
        self.0.expiry.look(clock::wall());
    }
}

async fn hung_up(signal: &mut Option<Signal>) {
    match signal {
        // Who listens receives for ever.
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

async fn changed(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => std::future::pending().await,
    }
}
