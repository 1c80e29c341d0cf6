//! Signed zones, made with BIND's tools.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::privilege;

/// Signs zones, with keys of its own.
pub(crate) struct Signer {
    folder: TempDir,
}

impl Signer {
    pub(crate) fn new() -> Option<Self> {
        if program("dnssec-signzone").is_none() || program("dnssec-keygen").is_none() {
            privilege::skipped("dnssec-keygen and dnssec-signzone from Debian's bind9-utils");
            return None;
        }
        Some(Self { folder: tempfile::tempdir().unwrap() })
    }

    /// The text of a zone, signed: what is given after its SOA and NS records. `how` is more for dnssec-signzone.
    pub(crate) fn sign(&self, zone: &str, text: &str, how: &[&str]) -> String {
        for flags in [&["-f", "KSK"][..], &[]] {
            self.run("dnssec-keygen", &[&["-q", "-a", "ECDSAP256SHA256"], flags, &[zone]].concat());
        }
        let file = self.path(zone);
        fs::write(&file, plain(text)).unwrap();
        // Without -P the tool would refuse what tests want to be wrong.
        self.run("dnssec-signzone", &[&["-q", "-P", "-S", "-o", zone], how, &[file.to_str().unwrap()]].concat());
        fs::read_to_string(self.path(&format!("{zone}.signed"))).unwrap()
    }

    /// The DS records of a zone that was signed, for its parent.
    pub(crate) fn ds(&self, zone: &str) -> String {
        fs::read_to_string(self.path(&format!("dsset-{zone}."))).unwrap()
    }

    /// A file with the key-signing key of a zone that was signed.
    pub(crate) fn anchor(&self, zone: &str) -> String {
        let keys = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let of_zone = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("K{zone}.+"));
        let is_key = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "key");
        let signs_keys = |path: &PathBuf| fs::read_to_string(path).unwrap().contains("DNSKEY 257");
        keys.filter(of_zone).filter(is_key).find(signs_keys).unwrap().to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, name: &str, arguments: &[&str]) {
        let done = Command::new(program(name).unwrap()).current_dir(self.folder.path()).args(arguments).output().unwrap();
        assert!(done.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// The text of a zone that is not signed.
pub(crate) fn plain(text: &str) -> String {
    format!("$TTL 60\n@ IN SOA ns1.lab. admin.lab. 1 3600 600 86400 60\n@ IN NS ns1.lab.\n{text}\n")
}

fn program(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/usr/sbin"].map(|place| Path::new(place).join(name)).into_iter().find(|path| path.exists())
}
