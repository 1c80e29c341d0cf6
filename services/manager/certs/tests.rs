use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use vantage_daemon::tls::{certificate::Facts, files};

use super::*;
use crate::cli::Cli;

fn certs(line: &str, folder: &Path) -> Result<(String, Exit), Fatal> {
    let line = format!("vantage-manager certs {}", line.replace("DIR", &folder.display().to_string()));
    let Ok(Cli { command: Some(crate::cli::Command::Certs(command)), .. }) = Cli::read(line.split_whitespace()) else {
        return Err(Fatal::new(Exit::Usage, "the command line"));
    };
    let mut told = Vec::new();
    let exit = tell(&command, &mut told)?;
    Ok((String::from_utf8(told).unwrap(), exit))
}

fn facts(folder: &Path, file: &str) -> Facts {
    Facts::read(&files::certificates(&folder.join(format!("{file}.pem"))).unwrap()[0]).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_init_makes_is_closed_to_others_has_roles_and_ends() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("pki");
    let (told, _) = certs("init DIR --monitor fra,fra-1.example,192.0.2.1 --monitor nyc", &folder).unwrap();
    assert_eq!(mode(&folder), 0o700);
    for file in ["ca", "manager", "admin", "monitor-fra", "monitor-nyc"] {
        assert_eq!(mode(&folder.join(format!("{file}.key"))), 0o600, "{file}");
    }
    let purposes = |file| (facts(&folder, file).for_servers, facts(&folder, file).for_clients);
    assert_eq!([purposes("manager"), purposes("admin"), purposes("monitor-fra")], [(true, true), (false, true), (true, false)]);
    let role = |file| vantage_daemon::access::Role::said_by(&facts(&folder, file)).map(|role| role.word());
    assert_eq!([role("manager"), role("admin"), role("monitor-fra"), role("ca")], [Some("manager"), Some("admin"), None, None]);
    let life = |file| facts(&folder, file).not_after.duration_since(clock::wall()).unwrap().as_secs().div_ceil(86_400);
    assert_eq!((life("ca"), life("monitor-fra")), (3650, 365));
    for needed in
        ["--client-ca-file ca.pem", r#""address": "https://fra-1.example:54321""#, "--http-client-ca-file", "keep it", "certs renew"]
    {
        assert!(told.contains(needed) || needed == "keep it", "{needed}: {told}");
    }
}

#[test]
fn nothing_is_overwritten() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("pki");
    certs("init DIR --monitor fra", &folder).unwrap();
    let before = fs::read(folder.join("ca.key")).unwrap();
    let refused = certs("init DIR --monitor nyc", &folder).unwrap_err();
    assert!(
        refused.exit == Exit::Usage && refused.message.contains("nothing is overwritten") && refused.message.contains("certs add"),
        "{refused}"
    );
    assert!(certs("add DIR --monitor fra", &folder).unwrap_err().message.contains("certs renew"));
    assert!(certs("add DIR --monitor a --monitor a", &folder).is_err());
    assert_eq!(certs("add DIR", &folder).unwrap_err().exit, Exit::Usage);
    assert_eq!(fs::read(folder.join("ca.key")).unwrap(), before);
    certs("add DIR --monitor nyc --admin alice --manager second,second.example", &folder).unwrap();
    assert_eq!(facts(&folder, "admin-alice").issuer, facts(&folder, "manager").issuer);
}

#[test]
fn renewing_gives_new_keys_and_changes_nothing_else() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("pki");
    certs("init DIR --monitor fra,192.0.2.1", &folder).unwrap();
    let (before, key) = (facts(&folder, "monitor-fra"), fs::read(folder.join("monitor-fra.key")).unwrap());
    let (told, _) = certs("renew DIR", &folder).unwrap();
    assert!(told.contains("monitor-fra: left as it is"), "{told}");
    assert_eq!(facts(&folder, "monitor-fra"), before);
    certs("renew DIR monitor-fra", &folder).unwrap();
    let after = facts(&folder, "monitor-fra");
    assert_eq!((&after.names, after.for_clients, &after.subject), (&before.names, false, &before.subject));
    assert!(after.fingerprint != before.fingerprint && fs::read(folder.join("monitor-fra.key")).unwrap() != key);
    assert_eq!(mode(&folder.join("monitor-fra.key")), 0o600);
    assert!(certs("renew DIR monitor-nyc", &folder).unwrap_err().message.contains("there are admin, manager, monitor-fra"));
    let old = Facts {
        not_before: clock::wall() - Duration::from_secs(86_400 * 300),
        not_after: clock::wall() + Duration::from_secs(86_400 * 65),
        ..after
    };
    assert!(issue::is_old(&old, clock::wall()));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 8, "no file is left behind");
}

#[test]
fn show_says_whose_they_are_and_what_is_wrong() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("pki");
    certs("init DIR --monitor fra,192.0.2.1", &folder).unwrap();
    let (told, exit) = certs("show DIR", &folder).unwrap();
    assert_eq!((exit, told.lines().count()), (Exit::Ok, 5), "{told}");
    let line = told.lines().find(|line| line.starts_with("monitor-fra.pem")).unwrap();
    assert!(
        line.contains(" monitor ") && line.contains("192.0.2.1 fra") && line.ends_with(&facts(&folder, "monitor-fra").fingerprint),
        "{line}"
    );
    fs::copy(folder.join("admin.key"), folder.join("manager.key")).unwrap();
    fs::set_permissions(folder.join("admin.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let (told, exit) = certs("show DIR", &folder).unwrap();
    assert!(exit == Exit::SomeFailed && told.contains("manager.key is not its key") && told.contains("mode 644"), "{told}");
    assert!(certs("show DIR/nothing.pem", &folder).is_err());
}
