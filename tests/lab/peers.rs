//! Real servers that speak TLS, at once or after something said in the clear.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::PathBuf,
    process::Command,
};

use super::{
    place, privilege,
    servers::{Server, installed, tcp_answers},
    tls::{Authority, Leaf},
};

/// OpenSSL, which staples this response if there is one, speaks this version alone, and keeps what it needs in the folder.
pub(crate) fn openssl(authority: &Authority, version: &str, staple: impl FnOnce(&PathBuf) -> Option<PathBuf>) -> Option<Server> {
    let (folder, address) = (tempfile::tempdir().unwrap(), place::own());
    authority.write(&Leaf::default(), folder.path());
    let path = folder.path().to_owned();
    let staple = staple(&path).map(|file| file.display().to_string());
    let (chain, key) = (path.join("chain.pem").display().to_string(), path.join("key.pem").display().to_string());
    let accept = address.to_string();
    let mut arguments = vec!["s_server", "-quiet", version, "-accept", &accept, "-cert", &chain, "-cert_chain", &chain, "-key", &key];
    if let Some(staple) = &staple {
        arguments.extend(["-status_file", staple]);
    }
    Server::start("openssl", &arguments, folder, address, tcp_answers)
}

/// What OpenSSL says, as a responder, of the certificate in this folder: good, or revoked.
pub(crate) fn openssl_says(folder: &PathBuf, is_revoked: bool) -> Option<PathBuf> {
    // Who starts the server says what is missing.
    installed("openssl")?;
    let run = |arguments: &[&str]| {
        let output = Command::new("openssl").args(arguments).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let serial = run(&["x509", "-in", "chain.pem", "-noout", "-serial"]);
    let serial = serial.trim().strip_prefix("serial=").unwrap();
    let status = if is_revoked { "R\t491231235959Z\t260101000000Z" } else { "V\t491231235959Z\t" };
    fs::write(folder.join("index.txt"), format!("{status}\t{serial}\tunknown\t/CN=x\n")).unwrap();
    run(&["ocsp", "-issuer", "issuer.pem", "-cert", "chain.pem", "-reqout", "request", "-no_nonce"]);
    let signed = ["-CA", "issuer.pem", "-rsigner", "issuer.pem", "-rkey", "issuer.key"];
    run(&[&["ocsp", "-index", "index.txt", "-reqin", "request", "-respout", "response", "-ndays", "1"][..], &signed].concat());
    Some(folder.join("response"))
}

/// slapd.
pub(crate) fn slapd(authority: &Authority) -> Option<Server> {
    let (folder, address) = (tempfile::tempdir().unwrap(), place::own());
    authority.write(&Leaf { names: &["127.0.0.1", "peer.lab"], ..Leaf::default() }, folder.path());
    let path = folder.path().display();
    let configuration = format!(
        "include /etc/ldap/schema/core.schema\npidfile {path}/pid\nTLSCertificateFile {path}/chain.pem\nTLSCertificateKeyFile {path}/key.pem\n\
         TLSCACertificateFile {path}/issuer.pem\ndatabase ldif\ndirectory {path}\nsuffix \"dc=lab\"\n"
    );
    let file = super::process::write(folder.path(), "slapd.conf", &configuration);
    Server::start("slapd", &["-d", "0", "-h", &format!("ldap://{address}"), "-f", &file], folder, address, tcp_answers)
}

/// Dovecot: IMAP at the server's address, POP3 at the next port.
pub(crate) fn dovecot(authority: &Authority) -> Option<Server> {
    if !is_root() {
        privilege::skipped("root, to run Dovecot");
        return None;
    }
    let (folder, address) = (tempfile::tempdir().unwrap(), place::own());
    let pop3 = place::own();
    assert_eq!(pop3.port(), address.port() + 1, "places are given in a row");
    authority.write(&Leaf { names: &["127.0.0.1", "peer.lab"], ..Leaf::default() }, folder.path());
    // Its login processes run as somebody else.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().display();
    let service = |protocol: &str, port: u16| {
        format!(
            "service {protocol}-login {{\n inet_listener {protocol} {{\n port = {port}\n }}\n inet_listener {protocol}s {{\n port = 0\n }}\n}}\n"
        )
    };
    let configuration = format!(
        "base_dir = {path}/run\nlog_path = {path}/dovecot.log\nprotocols = imap pop3\nssl = yes\nssl_cert = <{path}/chain.pem\n\
         ssl_key = <{path}/key.pem\nlisten = {}\ndefault_login_user = nobody\ndefault_internal_user = nobody\n\
         default_internal_group = nogroup\npassdb {{\n driver = static\n args = password=x\n}}\n{}{}",
        address.ip(),
        service("imap", address.port()),
        service("pop3", pop3.port()),
    );
    let file = super::process::write(folder.path(), "dovecot.conf", &configuration);
    Server::start("dovecot", &["-F", "-c", &file], folder, address, tcp_answers)
}

/// PostgreSQL, which does not run as root.
pub(crate) fn postgres(authority: &Authority) -> Option<Server> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let Some(programs) = versions.map(|version| version.path().join("bin")).find(|programs| programs.join("initdb").exists()) else {
        privilege::skipped("postgresql from Debian's packages");
        return None;
    };
    let (true, Some(user), Some(group)) = (is_root(), id("-u"), id("-g")) else {
        privilege::skipped("root, to run PostgreSQL as its own user");
        return None;
    };
    let (folder, address) = (tempfile::tempdir().unwrap(), place::own());
    authority.write(&Leaf { names: &["127.0.0.1", "peer.lab"], ..Leaf::default() }, folder.path());
    let own = |path: &std::path::Path| std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
    own(folder.path());
    for name in ["chain.pem", "key.pem"] {
        fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o600)).unwrap();
        own(&folder.path().join(name));
    }
    let as_user = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
    let (path, data) = (folder.path().display().to_string(), folder.path().join("data").display().to_string());
    let initdb = programs.join("initdb").display().to_string();
    let made = Command::new("setpriv").args(as_user).args([&initdb, "-D", &data, "-A", "trust", "--no-sync"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let program = programs.join("postgres").display().to_string();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let (chain, key) = (format!("ssl_cert_file={path}/chain.pem"), format!("ssl_key_file={path}/key.pem"));
    let own = [&program, "-D", &data, "-h", &host, "-p", &port, "-k", &path, "-c", "ssl=on", "-c", &chain, "-c", &key];
    Server::start("setpriv", &[&as_user[..], &own].concat(), folder, address, tcp_answers)
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The user or the group of PostgreSQL.
fn id(which: &str) -> Option<u32> {
    let output = Command::new("id").args([which, "postgres"]).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
