//! The secrets of checks: what files and variables say is put in place before orders are placed, for monitors that are not to look it up
//! themselves. Which fields they are, the contract's descriptors say.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::{Path, PathBuf},
};

use vantage_contract::{
    file::{Complaint, Endpoint},
    json,
    secret::{self, Found, LONGEST_BYTES, LONGEST_DATA_BYTES, Named, Place},
    v1::{Check, MonitorAddress, SecretPlace},
};
use zeroize::Zeroizing;

use crate::{
    config::Judge,
    plan::{self, Plan},
};

/// The secrets of one reading of a file of checks. Each is looked up once.
pub(crate) struct Secrets<'j> {
    /// Where relative paths begin: the folder of the file of checks.
    folder: PathBuf,
    judge: &'j Judge,
    found: BTreeMap<(String, usize), Content>,
    /// The files that were looked for.
    pub(crate) files: BTreeSet<PathBuf>,
}

/// What a file or a variable has, or what is wrong with it.
type Content = Result<Zeroizing<Vec<u8>>, String>;

/// A field, and what is wrong with it.
type Wrong = (String, String);

impl<'j> Secrets<'j> {
    /// Those that the file of checks at `path` names. Who knows the fields of probes judges what was put in place, too.
    pub(crate) fn of(path: &Path, judge: &'j Judge) -> Self {
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        Self { folder, judge, found: BTreeMap::new(), files: BTreeSet::new() }
    }

    /// Puts the secrets of all orders in place, but for the monitors that look them up themselves; or says which fields are wrong.
    pub(crate) fn place(&mut self, checks: &[Check], monitors: &[MonitorAddress], plan: &mut Plan) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        for (number, check) in checks.iter().enumerate() {
            let mut complain = |(field, problem): Wrong| complaints.push(Complaint { check: number, field, problem });
            let places = names(check);
            if places.is_empty() {
                continue;
            }
            let mut filled: Option<Check> = None;
            for monitor in monitors {
                let Some(start) = plan.monitors.get_mut(&monitor.name).and_then(|orders| orders.get_mut(&check.name)) else { continue };
                let looks_up = monitor.secrets() == SecretPlace::Monitor;
                if looks_up {
                    places.iter().filter_map(|place| place.is_relative(monitor)).for_each(&mut complain);
                }
                let there = places.iter().find(|place| !looks_up || place.named == Named::Nothing);
                if let Some(there) = there.filter(|_| is_overheard(monitor)) {
                    complain((there.field.clone(), overheard(monitor)));
                    break;
                }
                if looks_up {
                    continue;
                }
                if filled.is_none() {
                    match self.fill(check) {
                        Ok(check) => filled = Some(check),
                        Err(wrong) => {
                            wrong.into_iter().for_each(&mut complain);
                            break;
                        }
                    }
                }
                if let Some(filled) = &filled {
                    *start = plan::order(filled);
                }
            }
        }
        complaints
    }

    /// The check with what its secrets and bodies name in their place.
    fn fill(&mut self, check: &Check) -> Result<Check, Vec<Wrong>> {
        let mut message = json::dynamic(check);
        let mut wrong = Vec::new();
        secret::visit(&mut message, &mut |mut found| {
            let (named, most) = (found.named(), longest(found.place));
            if let Some(content) = self.look_up(&named, most) {
                let field = field(&found);
                let content = match &content {
                    Ok(bytes) if found.place == Place::Secret => Ok(secret::without_line_end(bytes)),
                    Ok(bytes) => Ok(bytes.as_slice()),
                    Err(problem) => Err(problem.clone()),
                };
                // What a sentence says is wrong has the name before it.
                let put = content.and_then(|content| found.put(content).map_err(|problem| format!("{} {problem}", told(&named))));
                wrong.extend(put.err().map(|problem| (field, problem)));
            }
        });
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let filled: Check = message.transcode_to().map_err(|error| vec![(String::new(), format!("can't be put together: {error}"))])?;
        (self.judge)(&filled.probe.clone().unwrap_or_default()).map_err(|wrong| vec![wrong])?;
        Ok(filled)
    }

    fn look_up(&mut self, named: &Named, most: usize) -> Option<Content> {
        let key = (told(named), most);
        if let Some(known) = self.found.get(&key) {
            return Some(known.clone());
        }
        let content = match named {
            Named::Nothing => return None,
            Named::File(path) => {
                let path = self.folder.join(path);
                self.files.insert(path.clone());
                secret::read(&path, most).map_err(|problem| format!("{} {problem}", path.display()))
            }
            Named::Variable(name) => variable(name, most).map_err(|problem| format!("the variable {name} {problem}")),
        };
        self.found.insert(key, content.clone());
        Some(content)
    }
}

fn told(named: &Named) -> String {
    match named {
        Named::File(path) => path.clone(),
        Named::Variable(name) => format!("the variable {name}"),
        Named::Nothing => String::new(),
    }
}

fn longest(place: Place) -> usize {
    match place {
        Place::Secret => LONGEST_BYTES,
        Place::Data => LONGEST_DATA_BYTES,
    }
}

fn variable(name: &str, most: usize) -> Content {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err("has no name that a variable can have".into());
    }
    let value = env::var_os(name).ok_or("is not set")?;
    let bytes = Zeroizing::new(value.into_encoded_bytes());
    if bytes.len() > most { Err(format!("is longer than {most} bytes")) } else { Ok(bytes) }
}

/// A secret, or the file of a body, that a check has or names.
struct Mention {
    field: String,
    named: Named,
}

impl Mention {
    /// What is wrong with it for a monitor that looks it up itself.
    fn is_relative(&self, monitor: &MonitorAddress) -> Option<Wrong> {
        match &self.named {
            Named::File(path) if Path::new(path).is_relative() => {
                Some((self.field.clone(), format!("must be an absolute path: monitor {:?} looks it up", monitor.name)))
            }
            _ => None,
        }
    }
}

/// All that a check has or names.
fn names(check: &Check) -> Vec<Mention> {
    let mut mentions = Vec::new();
    secret::visit(&mut json::dynamic(check), &mut |mut found| {
        let (field, named) = (field(&found), found.named());
        if named != Named::Nothing || found.strip() {
            mentions.push(Mention { field, named });
        }
    });
    mentions
}

/// The field as the file of checks has it, where those of a probe stand beside those of its check.
fn field(found: &Found<'_>) -> String {
    let field = found.field();
    field.strip_prefix("probe.").map(str::to_owned).unwrap_or(field)
}

/// Whether the check has secrets of its own, or bodies that were put in place.
pub(crate) fn are_in(check: &Check) -> bool {
    let mut there = false;
    secret::visit(&mut json::dynamic(check), &mut |mut found| there |= found.strip());
    there
}

/// The check without them.
pub(crate) fn without(check: &Check) -> Check {
    let mut message = json::dynamic(check);
    let mut there = false;
    secret::visit(&mut message, &mut |mut found| there |= found.strip());
    if there { message.transcode_to().unwrap_or_default() } else { check.clone() }
}

/// Whether what goes to this monitor can be read on the way.
fn is_overheard(monitor: &MonitorAddress) -> bool {
    // The embedded one has no address yet.
    !monitor.address.is_empty() && Endpoint::parse(monitor).is_ok_and(|place| !place.tls && !place.is_loopback())
}

fn overheard(monitor: &MonitorAddress) -> String {
    let cure = "use an \"https://\" address, or have it look up what files and variables of its own say (\"secrets\": \"monitor\")";
    format!("a secret would go to monitor {:?} over the network in the clear; {cure}", monitor.name)
}

#[cfg(test)]
mod tests;
