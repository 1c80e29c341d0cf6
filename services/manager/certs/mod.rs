//! `certs`: an authority of our own, and the certificates by which manager, monitors and admins know each other.
//!
//! A folder has `ca.pem` and `ca.key`, and a pair for each holder: `manager.pem`, `admin.pem`, `monitor-NAME.pem`, each with its `.key` beside it.

mod advice;
mod folder;
mod holder;
mod issue;
mod show;

use std::{io::Write, path::PathBuf, time::SystemTime};

use clap::{Args, Subcommand};
use vantage_daemon::{
    clock,
    exit::{Exit, Fatal},
};

use folder::Folder;
use holder::{Holder, Kind};

/// What is done with certificates.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes an authority, and pairs for the manager, an admin and each monitor, in a new folder.
    Init {
        /// The folder, which must not have any of that yet.
        folder: PathBuf,
        /// For whom.
        #[command(flatten)]
        holders: Holders,
    },
    /// Makes further pairs, signed by the authority of a folder.
    Add {
        /// The folder.
        folder: PathBuf,
        /// For whom.
        #[command(flatten)]
        holders: Holders,
    },
    /// Makes new keys and certificates for those that have less than a third of their life left, or for those that are named. The authority
    /// stays.
    Renew {
        /// The folder.
        folder: PathBuf,
        /// Which, as their files are called: manager, admin, monitor-NAME.
        names: Vec<String>,
        /// All of them.
        #[arg(long, conflicts_with = "names")]
        all: bool,
    },
    /// Shows whose they are, their roles, when they end, and what is wrong with them. Exits with 1 if something is.
    Show {
        /// A folder, or files.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
}

/// For whom certificates are made.
#[derive(Debug, Clone, Default, Args)]
pub struct Holders {
    /// A monitor: its name, and by which names and addresses it is dialled (default: by its name). May be given more than once.
    #[arg(long = "monitor", value_name = "NAME[,DNS,IP]", value_parser = |text: &str| Holder::read(Kind::Monitor, text))]
    monitors: Vec<Holder>,
    /// A manager besides the one that `init` makes: its name, and under which names and addresses its page is asked for.
    #[arg(long = "manager", value_name = "NAME[,DNS,IP]", value_parser = |text: &str| Holder::read(Kind::Manager, text))]
    managers: Vec<Holder>,
    /// Somebody who may ask and not order, besides the one that `init` makes: a name.
    #[arg(long = "admin", value_name = "NAME", value_parser = |text: &str| Holder::read(Kind::Admin, text))]
    admins: Vec<Holder>,
}

impl Holders {
    fn all(&self) -> impl Iterator<Item = &Holder> {
        self.managers.iter().chain(&self.admins).chain(&self.monitors)
    }
}

/// Does it, and tells what was done.
pub fn tell(command: &Command, to: &mut dyn Write) -> Result<Exit, Fatal> {
    let now = clock::wall();
    let (text, exit) = match command {
        Command::Init { folder, holders } => (init(&Folder::make(folder)?, holders, now)?, Exit::Ok),
        Command::Add { folder, holders } => {
            let holders: Vec<Holder> = holders.all().cloned().collect();
            if holders.is_empty() {
                return Err(Fatal::new(Exit::Usage, "for whom? give --monitor, --manager or --admin"));
            }
            let folder = Folder::open(folder)?;
            folder.make_pairs(&holders, now)?;
            (advice::for_holders(&folder, &holders, now), Exit::Ok)
        }
        Command::Renew { folder, names, all } => (renew(&Folder::open(folder)?, names, *all, now)?, Exit::Ok),
        Command::Show { paths } => show::show(paths, now)?,
    };
    crate::config::say(&text, to).map(|()| exit)
}

fn init(folder: &Folder, holders: &Holders, now: SystemTime) -> Result<String, Fatal> {
    let mut all = vec![Holder::manager(), Holder::admin()];
    all.extend(holders.all().cloned());
    folder.make_authority(now)?;
    folder.make_pairs(&all, now)?;
    Ok(advice::for_authority(folder) + &advice::for_holders(folder, &all, now))
}

fn renew(folder: &Folder, names: &[String], all: bool, now: SystemTime) -> Result<String, Fatal> {
    let pairs = folder.pairs()?;
    if let Some(unknown) = names.iter().find(|name| !pairs.iter().any(|pair| pair.file == **name)) {
        let known = pairs.iter().map(|pair| pair.file.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Fatal::new(Exit::Usage, format!("there is no {unknown:?} in {}: there are {known}", folder.path().display())));
    }
    let mut text = String::new();
    for pair in pairs {
        if all || names.contains(&pair.file) || (names.is_empty() && issue::is_old(&pair.facts, now)) {
            let facts = folder.renew(&pair, now)?;
            text += &format!("{}: a new key, valid until {}\n", pair.file, show::date(facts.not_after));
        } else {
            text += &format!("{}: left as it is, valid until {}\n", pair.file, show::date(pair.facts.not_after));
        }
    }
    Ok(
        text + "Put the new files in place of the old ones, each pair together: running programs read them within seconds, and drop nothing.\n"
    )
}

#[cfg(test)]
mod tests;
