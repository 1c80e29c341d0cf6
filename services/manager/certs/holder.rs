//! Whose certificate it is.

use std::net::IpAddr;

use vantage_daemon::{
    access::{ROLE_URI, Role},
    tls::certificate::Name,
};

/// What a holder does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It serves orders: a server, and nobody's client.
    Monitor,
    /// It gives orders, and may serve its page.
    Manager,
    /// It asks.
    Admin,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::Manager => Role::Manager.word(),
            Self::Admin => Role::Admin.word(),
        }
    }
}

/// Who gets a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) kind: Kind,
    /// What it is called.
    pub(super) name: String,
    /// By what it is reached: DNS names and addresses.
    pub(super) reached: Vec<Name>,
}

impl Holder {
    /// The manager that every folder has. Its page is asked for from its own machine, unless more is said.
    pub(super) fn manager() -> Self {
        let loopback = ["localhost", "127.0.0.1", "::1"].map(|name| reached(name).unwrap_or_else(|_| Name::Dns(name.to_owned())));
        Self { kind: Kind::Manager, name: "manager".into(), reached: loopback.to_vec() }
    }

    /// The admin that every folder has.
    pub(super) fn admin() -> Self {
        Self { kind: Kind::Admin, name: "admin".into(), reached: Vec::new() }
    }

    /// From NAME[,DNS,IP]….
    pub(super) fn read(kind: Kind, text: &str) -> Result<Self, String> {
        let mut parts = text.split(',').map(str::trim);
        let name = parts.next().unwrap_or_default().to_owned();
        let is_sound = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) && !name.starts_with(['.', '-']);
        if !is_sound || !(1..=64).contains(&name.len()) {
            return Err(format!("{name:?} is not a name: 1 to 64 letters, digits, \"-\", \"_\" or \".\", a letter or digit first"));
        }
        let mut names: Vec<Name> = parts.map(reached).collect::<Result<_, _>>()?;
        if kind == Kind::Admin && !names.is_empty() {
            return Err("an admin is not reached by anything: give a name alone".into());
        }
        if kind == Kind::Monitor {
            match reached(&name) {
                Ok(own) if !names.contains(&own) => names.push(own),
                Err(why) if names.is_empty() => return Err(format!("{why}: say how the monitor is dialled, as {name},DNS or {name},IP")),
                _ => {}
            }
        }
        Ok(Self { kind, name, reached: names })
    }

    /// What its files are called, without their ends.
    pub(super) fn file(&self) -> String {
        let word = self.kind.word();
        if self.name == word { word.to_owned() } else { format!("{word}-{}", self.name) }
    }

    /// All names of its certificate; one says its role.
    pub(super) fn names(&self) -> Vec<Name> {
        let role = Name::Uri(format!("{ROLE_URI}{}", self.kind.word()));
        self.reached.iter().cloned().chain([role]).collect()
    }

    /// By what others dial it.
    pub(super) fn dialled(&self) -> String {
        match self.reached.first() {
            Some(Name::Address(IpAddr::V6(address))) => format!("[{address}]"),
            Some(name) => name.to_string(),
            None => self.name.clone(),
        }
    }
}

/// A DNS name (RFC 1123 section 2.1; a wildcard is none of one host) or an address.
fn reached(text: &str) -> Result<Name, String> {
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(Name::Address(address));
    }
    let is_label = |label: &str| {
        let sound = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        sound && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.len() <= 253
        && text.split('.').all(is_label)
        && !text.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Ok(Name::Dns(text.to_owned()));
    }
    Err(format!("{text:?} is neither a DNS name nor an address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_monitor_is_reached_by_its_name_and_by_what_is_given() {
        let fra = Holder::read(Kind::Monitor, "fra,fra-1.example,192.0.2.1,2001:db8::1").unwrap();
        let names: Vec<_> = fra.names().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["fra-1.example", "192.0.2.1", "2001:db8::1", "fra", "vantage:role:monitor"]);
        assert_eq!((fra.file().as_str(), fra.dialled().as_str()), ("monitor-fra", "fra-1.example"));
        assert_eq!(Holder::read(Kind::Monitor, "fra,[::1]").unwrap().dialled(), "[::1]");
        assert_eq!(Holder::read(Kind::Monitor, "fra_1,fra.example").unwrap().reached.len(), 1);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for wrong in ["", "../ca", "a/b", ".a", "-a", "a b", "fra,http://x", "fra,a..b", "fra,*.example", "fra,300.1.1.1", "fra_1"] {
            assert!(Holder::read(Kind::Monitor, wrong).is_err(), "{wrong}");
        }
        assert!(Holder::read(Kind::Admin, "alice,alice.example").unwrap_err().contains("name alone"));
        assert_eq!(Holder::read(Kind::Admin, "alice").unwrap().file(), "admin-alice");
        assert_eq!((Holder::manager().file(), Holder::admin().file()), ("manager".into(), "admin".into()));
    }
}
