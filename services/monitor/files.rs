//! Descriptors for the runs in flight: as many as the settings ask for, or a word of warning.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::doctor::{files_needed, runs_within};

/// What to do about the limit of open files of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Provision {
    /// It is enough.
    Enough,
    /// Raise it to this; a hard limit below what is needed remains a lack.
    Raise { to: u64, lacking: bool },
    /// Nothing can be done from here.
    Lacking,
}

/// What to do where `needed` may be open, and the soft and hard limits are these. Both limits are numbers of descriptors.
fn provision(needed: u64, soft: u64, hard: u64) -> Provision {
    if soft >= needed {
        return Provision::Enough;
    }
    if hard <= soft {
        return Provision::Lacking;
    }
    Provision::Raise { to: needed.min(hard), lacking: hard < needed }
}

/// Raises the soft limit of open files (RLIMIT_NOFILE, setrlimit(2)), as far as the hard one lets it, to what `in_flight` runs may need, and
/// returns how many runs may be in flight with that. Where these are fewer, a warning names both numbers and the cure.
pub fn provide(in_flight: usize) -> usize {
    let needed = files_needed(in_flight);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        tracing::warn!(needed, in_flight, "how many files may be open can't be told here (ulimit -n)");
        return in_flight;
    };
    let limit = match provision(needed, soft, hard) {
        Provision::Enough => return in_flight,
        Provision::Lacking => soft,
        Provision::Raise { to, lacking } => match setrlimit(Resource::RLIMIT_NOFILE, to, hard) {
            Ok(()) if !lacking => {
                tracing::debug!(from = soft, to, "limit of open files raised");
                return in_flight;
            }
            Ok(()) => to,
            Err(error) => {
                tracing::debug!(%error, to, "the limit of open files can't be raised");
                soft
            }
        },
    };
    let possible = runs_within(limit).clamp(1, in_flight);
    tracing::warn!(
        limit,
        needed,
        in_flight,
        possible,
        "{in_flight} runs in flight may need {needed} open files, and {limit} are allowed, so that {possible} may be in flight: allow more \
         (`ulimit -n {needed}`, LimitNOFILE={needed} with systemd) or lower limits.in_flight"
    );
    possible
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_raised_as_far_as_it_has_to_and_may_be() {
        assert_eq!(provision(2256, 4096, 4096), Provision::Enough);
        assert_eq!(provision(2256, 1024, 524_288), Provision::Raise { to: 2256, lacking: false });
        assert_eq!(provision(2256, 1024, 2000), Provision::Raise { to: 2000, lacking: true });
        assert_eq!(provision(2256, 1024, 1024), Provision::Lacking);
    }
}
