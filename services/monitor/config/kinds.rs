//! Limits by kind of probe.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use vantage_probes::KINDS;

use super::fields::Number;

/// A limit for some of the kinds, as a map of names to numbers. A kind that there is not is refused by its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KindLimits([Option<usize>; KINDS.len()]);

impl KindLimits {
    /// The limit of a kind, where it is named.
    pub fn of(&self, kind: &str) -> Option<usize> {
        KINDS.iter().zip(self.0).find(|(name, _)| **name == kind)?.1
    }

    /// The same with this limit of a kind; a kind that there is not is passed over.
    #[must_use]
    pub fn with(mut self, kind: &str, limit: usize) -> Self {
        if let Some((_, slot)) = KINDS.iter().zip(&mut self.0).find(|(name, _)| **name == kind) {
            *slot = Some(limit);
        }
        self
    }
}

impl<'de> Deserialize<'de> for KindLimits {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Named)
    }
}

/// Reads them, name by name.
struct Named;

impl<'de> Visitor<'de> for Named {
    type Value = KindLimits;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("numbers by kind, as {\"http\": 200}")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<KindLimits, M::Error> {
        let mut limits = KindLimits::default();
        while let Some(kind) = map.next_key::<String>()? {
            if !KINDS.contains(&kind.as_str()) {
                return Err(M::Error::custom(format!("unknown kind {kind:?}, expected one of {}", KINDS.join(", "))));
            }
            if limits.of(&kind).is_some() {
                return Err(M::Error::custom(format!("{kind} is there twice")));
            }
            limits = limits.with(&kind, map.next_value::<Number<1, 100_000>>()?.0);
        }
        Ok(limits)
    }
}
