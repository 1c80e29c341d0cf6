//! How single settings are read. A value out of range is refused while it is read, so that the error knows line and column.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, de::Error};
use vantage_daemon::{access::Roles, data::Data, sqlite::Sync, tls::MinVersion};

/// A duration with a unit ("250ms", "10s", "1m 30s", "7d"), in range.
pub(crate) fn parse_duration(text: &str, least_millis: u64, most_millis: u64) -> Result<Duration, String> {
    let wrong = |error: String| format!("{text:?} {error}");
    let duration = vantage_contract::duration::parse(text).map_err(|error| wrong(error.to_string()))?;
    let duration = Duration::try_from(duration).map_err(|error| wrong(error.to_string()))?;
    let (least, most) = (Duration::from_millis(least_millis), Duration::from_millis(most_millis));
    if (least..=most).contains(&duration) {
        return Ok(duration);
    }
    Err(format!("must be {least:?} to {most:?}, is {duration:?}"))
}

/// A duration from `LEAST` to `MOST` milliseconds.
pub(super) fn duration<'de, const LEAST: u64, const MOST: u64, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(from)?, LEAST, MOST).map_err(D::Error::custom)
}

/// How long draining may take, as `Settings::drain_timeout` says.
pub(crate) fn parse_drain_timeout(text: &str) -> Result<Duration, String> {
    parse_duration(text, 0, super::HOUR)
}

/// A number from `LEAST` to `MOST`.
pub(crate) fn number<'de, const LEAST: u64, const MOST: u64, N, D>(from: D) -> Result<N, D::Error>
where
    N: TryFrom<u64, Error: fmt::Display>,
    D: Deserializer<'de>,
{
    let number = u64::deserialize(from)?;
    if !(LEAST..=MOST).contains(&number) {
        return Err(D::Error::custom(format!("must be {LEAST} to {MOST}, is {number}")));
    }
    N::try_from(number).map_err(D::Error::custom)
}

/// A number from `LEAST` to `MOST`, of a setting whose default is not one number.
pub(super) fn some_number<'de, const LEAST: u64, const MOST: u64, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    number::<LEAST, MOST, u64, D>(from).map(Some)
}

/// A folder, or "memory".
pub(super) fn data<'de, D: Deserializer<'de>>(from: D) -> Result<Data, D::Error> {
    path(from).map(|path| if path.as_os_str() == "memory" { Data::Memory } else { Data::Folder(path) })
}

/// "full" or "normal".
pub(super) fn sync<'de, D: Deserializer<'de>>(from: D) -> Result<Sync, D::Error> {
    match String::deserialize(from)?.as_str() {
        "full" => Ok(Sync::Full),
        "normal" => Ok(Sync::Normal),
        other => Err(D::Error::custom(format!("{other:?} is neither \"full\" nor \"normal\""))),
    }
}

/// "1.2" or "1.3".
pub(super) fn min_version<'de, D: Deserializer<'de>>(from: D) -> Result<MinVersion, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

/// Marks of certificates, and roles.
pub(super) fn roles<'de, D: Deserializer<'de>>(from: D) -> Result<Roles, D::Error> {
    let entries = BTreeMap::<String, String>::deserialize(from)?;
    Roles::read(entries.iter().map(|(mark, role)| (mark.as_str(), role.as_str()))).map_err(D::Error::custom)
}

/// A number from `LEAST` to `MOST`, where it is not a field of its own.
pub(super) struct Number<const LEAST: u64, const MOST: u64>(pub(super) usize);

impl<'de, const LEAST: u64, const MOST: u64> Deserialize<'de> for Number<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        number::<LEAST, MOST, _, _>(from).map(Self)
    }
}

/// A name: see [`parse_name`].
pub(super) fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    parse_name(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// 1 to 64 printable ASCII characters, no space at either end: a response header carries it.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if printable && text.trim() == text && (1..=64).contains(&text.len()) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a name: 1 to 64 printable ASCII characters, no space at either end"))
}

/// An address with port, or "off".
pub(super) fn listener<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    parse_listener(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// An address with port, or "off".
pub(crate) fn parse_listener(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| format!("{text:?} is neither address:port nor \"off\""))
}

/// An address with port.
pub(super) fn address<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(from)?;
    text.parse().map_err(|_| D::Error::custom(format!("{text:?} is not address:port, as \"127.0.0.1:54321\"")))
}

/// The path of a file.
pub(super) fn some_path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    path(from).map(Some)
}

/// The path of a file: not empty.
pub(super) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() { Err(D::Error::custom("the name of a file is empty")) } else { Ok(text.into()) }
}
