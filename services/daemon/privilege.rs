//! Giving up what a process may do and does not need: a fault in it can then do no more than the process itself.

use rustix::{
    fs::Mode,
    process::umask,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set, set_capabilities,
        set_no_new_privs,
    },
};

use crate::exit::{Exit, Fatal};

/// What a process may need of root's powers (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// CAP_NET_RAW: raw sockets, where datagram echo sockets are not allowed.
    pub raw_sockets: bool,
}

impl Needs {
    /// The capabilities that are kept, if they are there at all. Ports below 1024 stay possible: a listener on one is opened later.
    fn kept(self) -> CapabilitySet {
        let raw = if self.raw_sockets { CapabilitySet::NET_RAW } else { CapabilitySet::empty() };
        raw | CapabilitySet::NET_BIND_SERVICE
    }
}

/// Gives up, for good, all capabilities but those that are needed, and the gaining of new ones by executing files. To be called before
/// there is another thread: capabilities belong to threads, and those that come after have no more than their maker. Who runs this as
/// root reads files as their owner or group from here on, as everybody does, at the start and when they are read anew. What this process
/// writes from here on is for its own user alone.
pub fn reduce(needs: Needs) -> Result<(), Fatal> {
    let refused = |act: &str, error: rustix::io::Errno| Fatal::new(Exit::OsError, format!("{act}: {error}"));
    umask(Mode::RWXG | Mode::RWXO);
    set_no_new_privs(true).map_err(|error| refused("forbid new privileges", error))?;
    let held = capabilities(None).map_err(|error| refused("read the capabilities", error))?;
    let kept = held.permitted & needs.kept();
    // Nothing is executed from here on, so that these two are empty rooms; they are closed all the same, as far as that is allowed
    // (CAP_SETPCAP) and known (an old kernel has fewer capabilities).
    for capability in CapabilitySet::all().difference(kept).iter() {
        let _ = remove_capability_from_bounding_set(capability);
    }
    let _ = clear_ambient_capability_set();
    let reduced = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, reduced).map_err(|error| refused("give up capabilities", error))
}

/// What this process may do of root's powers, by the names of capabilities(7), for people: "none", "CAP_NET_RAW".
pub fn held() -> String {
    let Ok(sets) = capabilities(None) else { return "unknown".to_owned() };
    let names: Vec<_> = sets.permitted.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_sockets_are_kept_only_where_they_are_needed() {
        assert!(!Needs { raw_sockets: false }.kept().contains(CapabilitySet::NET_RAW));
        let kept = Needs { raw_sockets: true }.kept();
        assert_eq!(kept, CapabilitySet::NET_RAW | CapabilitySet::NET_BIND_SERVICE);
    }

    #[test]
    fn a_thread_that_gave_up_its_capabilities_has_none_that_it_does_not_need() {
        // Capabilities belong to threads: the others of this test program keep theirs.
        let left = std::thread::spawn(|| {
            reduce(Needs::default()).unwrap();
            reduce(Needs::default()).unwrap();
            (capabilities(None).unwrap(), held())
        });
        let (sets, told) = left.join().unwrap();
        assert!(CapabilitySet::NET_BIND_SERVICE.contains(sets.permitted), "{sets:?}");
        assert_eq!(sets.inheritable, CapabilitySet::empty());
        assert!(["none", "CAP_NET_BIND_SERVICE"].contains(&told.as_str()), "{told}");
    }
}
