//! The file with the policy: read at the start, and anew when it changes or on SIGHUP. A wrong one changes nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use vantage_daemon::{
    clock,
    exit::{Exit, Fatal},
    watch::Watch,
};

use super::{Policy, PolicySettings, rules::Compiled};
use crate::config::{Settings, parse};

/// A file is a page or two; one of more than this is another file.
const MOST_BYTES: u64 = 4 << 20;

/// Where the policy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// A file of its own.
    File(PathBuf),
    /// The settings file.
    Settings(PathBuf),
}

impl Source {
    /// The file.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Settings(path) => path,
        }
    }

    /// Reads it: whole, and right in all its parts, or not at all.
    pub(crate) fn load(&self) -> Result<PolicySettings, Fatal> {
        match self {
            Self::File(path) => read(path),
            Self::Settings(path) => Settings::load(path).map(|settings| settings.policy().settings()),
        }
    }

    /// Reads it anew and puts it in force, or tells what is wrong with it and leaves the old one.
    fn reload(&self, policy: &Policy, why: &str) {
        let outcome = self.load().and_then(|settings| policy.replace(settings).map_err(|why| Fatal::new(Exit::Config, why)));
        let file = self.path().display();
        match &outcome {
            Ok(()) => tracing::info!(%file, why, "the policy is in force as the file has it now"),
            Err(error) => tracing::error!(%file, why, %error, "the policy's file is wrong: the old policy stays in force"),
        }
        policy.note_reload(outcome.map_err(|error| error.to_string()), clock::wall());
    }
}

/// Reads a policy from a file of its own. The error names file, line and column.
pub(super) fn read(path: &Path) -> Result<PolicySettings, Fatal> {
    let wrong = |why: String| Fatal::new(Exit::Config, why);
    let size = fs::metadata(path).map_err(|error| wrong(format!("read {}: {error}", path.display())))?.len();
    if size > MOST_BYTES {
        return Err(wrong(format!("{}: has {size} bytes; a policy has {MOST_BYTES} at most", path.display())));
    }
    let text = fs::read_to_string(path).map_err(|error| wrong(format!("read {}: {error}", path.display())))?;
    parse_policy(&text).map_err(|error| wrong(format!("{}: {error}", path.display())))
}

/// Reads a policy, and whether it can be in force.
pub(crate) fn parse_policy(text: &str) -> Result<PolicySettings, String> {
    let settings: PolicySettings = parse(text)?;
    Compiled::new(settings.clone())?;
    Ok(settings)
}

/// Follows the file for as long as the future lives: reads it anew when it has changed, and when `asked` says so.
pub(crate) async fn follow(source: Option<Source>, policy: Policy, mut asked: tokio::sync::mpsc::Receiver<()>) {
    let Some(source) = source else {
        while asked.recv().await.is_some() {
            tracing::warn!("nothing to reload: there is no file with a policy");
        }
        return;
    };
    let mut watch = Watch::start([source.path().to_owned()]);
    loop {
        let why = tokio::select! {
            Some(()) = asked.recv() => "SIGHUP",
            () = watch.changed() => "the file changed",
        };
        source.reload(&policy, why);
    }
}

#[cfg(test)]
mod tests {
    use vantage_daemon::readiness::Readiness;

    use super::*;

    #[test]
    fn a_wrong_file_leaves_the_policy_as_it_is_and_health_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (path, policy, readiness) = (folder.path().join("policy.json"), Policy::default(), Readiness::default());
        policy.report_to(&readiness);
        let source = Source::File(path.clone());
        fs::write(&path, r#"{"kinds": {"deny": ["ping"]}}"#).unwrap();
        source.reload(&policy, "test");
        assert!(policy.permit_kind("ping").is_err());
        for wrong in [r#"{"kinds": {"deny": []}, "nmae": 1}"#, r#"{"kinds": {"deny": ["pign"]}}"#, "", "{}{}"] {
            fs::write(&path, wrong).unwrap();
            source.reload(&policy, "test");
            assert!(policy.permit_kind("ping").is_err(), "{wrong}");
            assert!(readiness.complaints()[0].starts_with("policy: the old one stays in force: "), "{:?}", readiness.complaints());
            assert!(policy.to_proto().error.contains("policy.json"));
        }
        fs::write(&path, "{}").unwrap();
        source.reload(&policy, "test");
        assert_eq!((policy.permit_kind("ping"), readiness.complaints().len()), (Ok(()), 0));
        let status = policy.status();
        assert_eq!((status.reloads, status.failed_reloads, status.trouble), (2, 4, None));
    }

    #[test]
    fn the_error_names_file_line_and_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.json");
        fs::write(&path, "{\n  \"networks\": {\"deny\": [\"10.0.0.1/8\"]}\n}").unwrap();
        let error = read(&path).unwrap_err();
        assert_eq!(error.exit, Exit::Config);
        assert!(error.message.contains("policy.json: networks.deny[0]: ") && error.message.contains("at line 2 column"), "{error}");
        assert!(read(&folder.path().join("none")).unwrap_err().message.starts_with("read "));
    }
}
