//! Secrets and bodies that a check has or names: looked up in each run, as far as the gate allows, and never shown.

use std::{
    env, fmt, fs,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use nix::fcntl::OFlag;
use vantage_contract::{
    secret::{self, LONGEST_BYTES, MASK},
    v1::{self, Attribution, Reason, secret::Source},
};
use zeroize::Zeroizing;

use crate::{
    failure::{Failure, Invalid},
    target::Gate,
};

/// A secret as the check has it, or where it is.
#[derive(Clone)]
pub(crate) struct Secret {
    /// The field, as a path within `Probe`: "https.auth.basic.password".
    field: String,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Here(Hidden),
    File(PathBuf),
    Variable(String),
}

/// A secret that was looked up. It is wiped from memory when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Hidden(Zeroizing<String>);

impl Hidden {
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The secret itself: for the wire, and for nothing else.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// The secrets of a run, to be taken out of all that is told of it: servers may send them back.
#[derive(Debug, Clone, Default)]
pub struct Masks(Vec<Hidden>);

/// What is shorter is no secret, and would take half of any sentence with it.
const SHORTEST_MASKED: usize = 4;

impl Masks {
    /// Never tells this.
    pub(crate) fn add(&mut self, secret: &Hidden) {
        if secret.expose().len() >= SHORTEST_MASKED && !self.0.contains(secret) {
            self.0.push(secret.clone());
            // Where one is part of another, the longer one goes first.
            self.0.sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
        }
    }

    /// Takes them out of a text.
    pub(crate) fn apply(&self, text: &mut String) {
        for secret in &self.0 {
            if text.contains(secret.expose()) {
                *text = text.replace(secret.expose(), MASK);
            }
        }
    }
}

impl Secret {
    /// Parses the secret in `field` of the kind `kind`; none where there is none.
    pub(crate) fn parse(kind: &str, field: &str, spec: Option<&v1::Secret>) -> Result<Option<Self>, Invalid> {
        let Some(spec) = spec else { return Ok(None) };
        let place = match &spec.source {
            None => return Err(Invalid::new(field, "says nothing: give \"file\", \"env\" or \"value\"")),
            Some(Source::Value(value)) if value.len() > LONGEST_BYTES => {
                return Err(Invalid::new(field, format!("must be at most {LONGEST_BYTES} bytes, is {}", value.len())));
            }
            Some(Source::Value(value)) => Place::Here(Hidden::new(value.clone())),
            Some(Source::File(path)) if path.is_empty() || path.contains('\0') => {
                return Err(Invalid::new(format!("{field}.file"), "is not the name of a file"));
            }
            Some(Source::File(path)) => Place::File(path.into()),
            Some(Source::Env(name)) if name.is_empty() || name.contains(['=', '\0']) => {
                return Err(Invalid::new(format!("{field}.env"), "is not the name of a variable"));
            }
            Some(Source::Env(name)) => Place::Variable(name.clone()),
        };
        Ok(Some(Self { field: format!("{kind}.{field}"), place }))
    }

    /// The same, for a field that must not be missing.
    pub(crate) fn required(kind: &str, field: &str, spec: Option<&v1::Secret>) -> Result<Self, Invalid> {
        Self::parse(kind, field, spec)?.ok_or_else(|| Invalid::new(field, "is missing"))
    }

    /// The secret, if it is in the check itself: what can be judged before any run.
    pub(crate) fn here(&self) -> Option<&Hidden> {
        match &self.place {
            Place::Here(hidden) => Some(hidden),
            Place::File(_) | Place::Variable(_) => None,
        }
    }

    /// Looks it up. What can't be is told by its field, and never the target's fault.
    pub(crate) async fn look_up(&self, gate: &Arc<dyn Gate>) -> Result<Hidden, Failure> {
        match &self.place {
            Place::Here(hidden) => Ok(hidden.clone()),
            Place::Variable(name) => {
                gate.permit_variable(name).map_err(|rule| denied(&self.field, &rule))?;
                let wrong = |problem: &str| self.invalid("env", &format!("the variable {name} {problem}"));
                let value = env::var_os(name).ok_or_else(|| wrong("is not set"))?;
                let text = value.into_string().map_err(|_| wrong("is not UTF-8"))?;
                if text.len() > LONGEST_BYTES {
                    Err(wrong(&format!("is longer than {LONGEST_BYTES} bytes")))
                } else {
                    Ok(Hidden::new(text))
                }
            }
            Place::File(path) => {
                let bytes = read(&self.field, path, LONGEST_BYTES, gate).await?;
                let text = std::str::from_utf8(secret::without_line_end(&bytes));
                text.map(|text| Hidden::new(text.to_owned())).map_err(|_| self.invalid("file", &format!("{} is not UTF-8", path.display())))
            }
        }
    }

    fn invalid(&self, source: &str, problem: &str) -> Failure {
        Invalid::new(format!("{}.{source}", self.field), problem).into()
    }
}

fn denied(field: &str, rule: &str) -> Failure {
    Failure::new(Reason::PolicyDenied, Attribution::Vantage, format!("{field}: {rule}"))
}

/// Reads a file that a check names in `field`, if the gate allows it: at most `most` bytes.
pub(crate) async fn read(field: &str, path: &Path, most: usize, gate: &Arc<dyn Gate>) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let (named, gate) = (path.to_owned(), Arc::clone(gate));
    let reading = tokio::task::spawn_blocking(move || permitted(&named, most, gate.as_ref()));
    match reading.await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(Refused::Rule(rule))) => Err(denied(field, &rule)),
        Ok(Err(Refused::File(problem))) => Err(Invalid::new(field, format!("{} {problem}", path.display())).into()),
        Err(_) => Err(Failure::internal(format!("{field}: reading {} broke off", path.display()))),
    }
}

#[derive(Debug)]
enum Refused {
    Rule(String),
    File(String),
}

impl From<std::io::Error> for Refused {
    fn from(error: std::io::Error) -> Self {
        Self::File(secret::cause(&error))
    }
}

/// Judged is where the path really leads; and, as links may be changed meanwhile, once more what has been opened.
fn permitted(path: &Path, most: usize, gate: &dyn Gate) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let real = fs::canonicalize(path).or_else(|error| {
        // Whether there is such a file is nobody's business where it could not be named if it were.
        gate.permit_file(&nearest(path)).map_err(Refused::Rule)?;
        Err(Refused::from(error))
    })?;
    gate.permit_file(&real).map_err(Refused::Rule)?;
    // A pipe that has taken the file's place must not be waited for.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(&real)?;
    let opened = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if opened != real {
        gate.permit_file(&opened).map_err(Refused::Rule)?;
    }
    secret::content(&file, most).map_err(Refused::File)
}

/// Where a path leads that leads to nothing: as far as there is something, and then what it says.
fn nearest(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut reached = PathBuf::new();
    for part in whole.components() {
        match part {
            Component::ParentDir => {
                reached.pop();
            }
            part => reached.push(part),
        }
        reached = fs::canonicalize(&reached).unwrap_or(reached);
    }
    reached
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::{OpenGate, target::Destination};

    /// Allows what lies in one folder, and one variable.
    struct Folder(PathBuf);

    impl Gate for Folder {
        fn permit(&self, _: Destination) -> Result<(), String> {
            Ok(())
        }

        fn permit_file(&self, file: &Path) -> Result<(), String> {
            if file.starts_with(&self.0) { Ok(()) } else { Err(format!("no: {}", file.display())) }
        }
    }

    async fn look_up(source: Source, gate: impl Gate + 'static) -> Result<String, (Reason, String)> {
        let gate: Arc<dyn Gate> = Arc::new(gate);
        let secret = Secret::required("http", "password", Some(&v1::Secret { source: Some(source) })).unwrap();
        let found = secret.look_up(&gate).await;
        found.map(|hidden| hidden.expose().to_owned()).map_err(|failure| (failure.reason, failure.sentence))
    }

    fn file(path: &Path) -> Source {
        Source::File(path.to_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn only_what_really_lies_in_an_allowed_folder_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (allowed, other) = (root.join("allowed"), root.join("other"));
        fs::create_dir(&allowed).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(allowed.join("token"), "t0ken\n").unwrap();
        fs::write(other.join("key"), "k3y").unwrap();
        symlink("token", allowed.join("inside")).unwrap();
        symlink(other.join("key"), allowed.join("outside")).unwrap();
        symlink(&other, allowed.join("folder")).unwrap();
        let ask = |path: PathBuf| look_up(file(&path), Folder(allowed.clone()));
        for path in ["token", "inside", "../allowed/token", "./token"] {
            assert_eq!(ask(allowed.join(path)).await, Ok("t0ken".into()), "{path}");
        }
        for path in ["outside", "../other/key", "folder/key", "folder/none", "../other/none", "../none/none"] {
            let (reason, sentence) = ask(allowed.join(path)).await.unwrap_err();
            assert_eq!(reason, Reason::PolicyDenied, "{path}: {sentence}");
            assert!(sentence.starts_with("http.password: no: ") && !sentence.contains("k3y"), "{sentence}");
        }
        let (reason, sentence) = ask(allowed.join("none")).await.unwrap_err();
        assert_eq!((reason, sentence.ends_with("allowed/none is not there")), (Reason::InvalidCheck, true), "{sentence}");
        assert_eq!(ask(allowed.clone()).await.unwrap_err().0, Reason::InvalidCheck);
    }

    #[tokio::test]
    async fn a_pipe_a_long_file_and_bytes_that_are_no_text_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(path("long"), "x".repeat(LONGEST_BYTES + 1)).unwrap();
        fs::write(path("bytes"), [0xff]).unwrap();
        for (name, problem) in
            [("pipe", "pipe is not a regular file"), ("long", "long is longer than 8192 bytes"), ("bytes", "bytes is not UTF-8")]
        {
            let (reason, sentence) = look_up(file(&path(name)), OpenGate).await.unwrap_err();
            assert_eq!(reason, Reason::InvalidCheck);
            assert!(sentence.ends_with(problem), "{sentence}");
        }
    }

    #[tokio::test]
    async fn variables_are_asked_for_by_name_and_a_gate_says_no_unless_it_says_otherwise() {
        assert_eq!(look_up(Source::Env("CARGO_PKG_NAME".into()), OpenGate).await, Ok("vantage-probes".into()));
        let unset = look_up(Source::Env("VANTAGE_NOT_SET".into()), OpenGate).await.unwrap_err();
        assert_eq!(unset, (Reason::InvalidCheck, "http.password.env: the variable VANTAGE_NOT_SET is not set".into()));
        let denied = look_up(Source::Env("CARGO_PKG_NAME".into()), Folder("/".into())).await.unwrap_err();
        assert_eq!(denied.0, Reason::PolicyDenied);
        assert_eq!(look_up(Source::Value("here".into()), Folder("/".into())).await, Ok("here".into()));
    }

    #[test]
    fn what_a_server_sends_back_is_masked_the_longest_first() {
        let mut masks = Masks::default();
        for secret in ["hunter2", "xx", "hunter2 and more"] {
            masks.add(&Hidden::new(secret.into()));
        }
        let mut text = "bad token hunter2, hunter2 and more, xx".to_owned();
        masks.apply(&mut text);
        assert_eq!(text, "bad token ***, ***, xx");
    }

    #[test]
    fn what_says_nothing_is_refused_by_field_and_nothing_is_shown() {
        let parse = |source| Secret::parse("http", "auth.bearer.token", Some(&v1::Secret { source })).err().map(|invalid| invalid.field);
        assert_eq!(parse(None).as_deref(), Some("auth.bearer.token"));
        assert_eq!(parse(Some(Source::File(String::new()))).as_deref(), Some("auth.bearer.token.file"));
        assert_eq!(parse(Some(Source::Env("A=B".into()))).as_deref(), Some("auth.bearer.token.env"));
        assert_eq!(parse(Some(Source::Value("x".repeat(8193)))).as_deref(), Some("auth.bearer.token"));
        assert_eq!(format!("{:?}", Hidden::new("hunter2".into())), "***");
    }
}
