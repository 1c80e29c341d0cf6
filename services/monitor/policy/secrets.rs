//! Which files and variables orders may name.

use std::{fs, path::Path};

use super::Secrets;

impl Secrets {
    /// Whether they can be in force: relative paths would depend on where the process was started.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(file) = self.files.iter().find(|file| !file.is_absolute()) {
            return Err(format!("{:?} in secrets.files is not an absolute path", file.display().to_string()));
        }
        let is_name = |name: &&String| {
            let name = name.strip_suffix('*').unwrap_or(name);
            !name.contains(['*', '=', '\0']) && !name.is_empty()
        };
        // A bare `*` is refused with the rest: it would open the process's whole environment by a slip of the pen.
        match self.variables.iter().find(|name| !is_name(name)) {
            Some(name) => Err(format!("{name:?} in secrets.variables is neither a name nor the beginning of one with * at its end")),
            None => Ok(()),
        }
    }

    /// Permits a file, by where it really is.
    pub(super) fn permit_file(&self, file: &Path) -> Result<(), String> {
        // What is allowed may be a link, too, and come to lead elsewhere when a secret is renewed.
        let leads_there = |allowed: &Path| fs::canonicalize(allowed).is_ok_and(|allowed| file.starts_with(allowed));
        if self.files.iter().any(|allowed| file.starts_with(allowed) || leads_there(allowed)) {
            return Ok(());
        }
        Err(format!("policy: {} is not among the files that checks may name (secrets.files)", file.display()))
    }

    /// Permits a variable.
    pub(super) fn permit_variable(&self, name: &str) -> Result<(), String> {
        let fits = |allowed: &String| match allowed.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == allowed,
        };
        if self.variables.iter().any(fits) {
            return Ok(());
        }
        Err(format!("policy: {name} is not among the variables that checks may name (secrets.variables)"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use vantage_probes::Gate as _;

    use super::super::Policy;
    use super::*;

    fn policy(json: &serde_json::Value) -> Result<Policy, String> {
        serde_json::from_value(json.clone()).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_may_be_named_unless_it_is_allowed() {
        let policy = Policy::default();
        assert!(policy.permit_file(Path::new("/etc/hostname")).unwrap_err().contains("secrets.files"));
        assert!(policy.permit_variable("HOME").unwrap_err().contains("secrets.variables"));
        assert!(policy.permit_names_at_proxies().unwrap_err().contains("proxies.names"));
    }

    #[test]
    fn folders_files_and_links_to_either_allow_where_they_lead() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("real")).unwrap();
        fs::write(root.join("real/a"), "").unwrap();
        symlink(root.join("real"), root.join("link")).unwrap();
        let files = [root.join("link"), root.join("one")];
        let policy = policy(&serde_json::json!({ "secrets": { "files": files } })).unwrap();
        for allowed in ["real/a", "real/none", "one"] {
            assert_eq!(policy.permit_file(&root.join(allowed)), Ok(()), "{allowed}");
        }
        for denied in ["realm/a", "onerous", "two", ""] {
            assert!(policy.permit_file(&root.join(denied)).is_err(), "{denied}");
        }
    }

    #[test]
    fn variables_go_by_name_or_beginning() {
        let policy = policy(&serde_json::json!({ "secrets": { "variables": ["TOKEN", "CHECK_*"] } })).unwrap();
        for (name, is_allowed) in [("TOKEN", true), ("TOKENS", false), ("CHECK_A", true), ("CHECK_", true), ("CHECK", false)] {
            assert_eq!(policy.permit_variable(name).is_ok(), is_allowed, "{name}");
        }
    }

    #[test]
    fn slips_of_the_pen_are_refused() {
        for wrong in [
            serde_json::json!({ "secrets": { "files": ["secrets"] } }),
            serde_json::json!({ "secrets": { "variables": ["*"] } }),
            serde_json::json!({ "secrets": { "variables": ["A*B"] } }),
            serde_json::json!({ "secrets": { "variable": [] } }),
        ] {
            assert!(policy(&wrong).is_err(), "{wrong}");
        }
    }
}
