//! Names and presentation forms of DNS: rcodes, types, classes and the data of records (RFC 1035 section 5.1, RFC 3597, RFC 6895).

use std::{
    borrow::Cow,
    fmt::Write,
    net::{Ipv4Addr, Ipv6Addr},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    dns::{Answer, IN, Reader, Record},
    name, text,
};

/// Rcodes by number.
const RCODES: &[(u16, &str)] = &[
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (6, "YXDOMAIN"),
    (7, "YXRRSET"),
    (8, "NXRRSET"),
    (9, "NOTAUTH"),
    (10, "NOTZONE"),
    (11, "DSOTYPENI"),
    (16, "BADVERS"),
    (17, "BADKEY"),
    (18, "BADTIME"),
    (19, "BADMODE"),
    (20, "BADNAME"),
    (21, "BADALG"),
    (22, "BADTRUNC"),
    (23, "BADCOOKIE"),
];

/// Classes by number.
const CLASSES: &[(u16, &str)] = &[(IN, "IN"), (3, "CH"), (4, "HS"), (254, "NONE"), (255, "ANY")];

/// A part of a record's data, in the order of the wire.
#[derive(Clone, Copy)]
enum Part {
    Name,
    U8,
    U16,
    U32,
    V4,
    V6,
    /// A character string, in quotes.
    Text,
    /// One or more of them, to the end.
    Texts,
    /// The rest as one string, in quotes.
    RestText,
    /// The tag of a CAA record: a string without quotes.
    Tag,
    /// The rest in hexadecimal.
    Hex,
    /// The rest in base 64.
    Base64,
    /// A type's name.
    Type,
    /// Seconds of 1970 as YYYYMMDDHHmmSS (RFC 4034 section 3.2).
    Time,
    /// Hexadecimal after its length, or "-" (RFC 5155 section 3.3).
    Salt,
    /// Base 32 after its length (RFC 5155 section 3.3).
    Base32,
    /// A map of types, to the end (RFC 4034 section 4.1.2).
    Types,
    /// Service parameters, to the end (RFC 9460 section 2.1).
    Params,
}

/// Types by number, and what their data is made of where it is more than bytes.
const TYPES: &[(u16, &str, &[Part])] = {
    use Part::*;
    &[
        (1, "A", &[V4]),
        (2, "NS", &[Name]),
        (5, "CNAME", &[Name]),
        (6, "SOA", &[Name, Name, U32, U32, U32, U32, U32]),
        (7, "MB", &[Name]),
        (8, "MG", &[Name]),
        (9, "MR", &[Name]),
        (10, "NULL", &[]),
        (11, "WKS", &[]),
        (12, "PTR", &[Name]),
        (13, "HINFO", &[Text, Text]),
        (14, "MINFO", &[Name, Name]),
        (15, "MX", &[U16, Name]),
        (16, "TXT", &[Texts]),
        (17, "RP", &[Name, Name]),
        (18, "AFSDB", &[U16, Name]),
        (21, "RT", &[U16, Name]),
        (24, "SIG", &[Type, U8, U8, U32, Time, Time, U16, Name, Base64]),
        (25, "KEY", &[U16, U8, U8, Base64]),
        (28, "AAAA", &[V6]),
        (29, "LOC", &[]),
        (33, "SRV", &[U16, U16, U16, Name]),
        (35, "NAPTR", &[U16, U16, Text, Text, Text, Name]),
        (36, "KX", &[U16, Name]),
        (37, "CERT", &[U16, U16, U8, Base64]),
        (39, "DNAME", &[Name]),
        (41, "OPT", &[]),
        (42, "APL", &[]),
        (43, "DS", &[U16, U8, U8, Hex]),
        (44, "SSHFP", &[U8, U8, Hex]),
        (45, "IPSECKEY", &[]),
        (46, "RRSIG", &[Type, U8, U8, U32, Time, Time, U16, Name, Base64]),
        (47, "NSEC", &[Name, Types]),
        (48, "DNSKEY", &[U16, U8, U8, Base64]),
        (49, "DHCID", &[Base64]),
        (50, "NSEC3", &[U8, U8, U16, Salt, Base32, Types]),
        (51, "NSEC3PARAM", &[U8, U8, U16, Salt]),
        (52, "TLSA", &[U8, U8, U8, Hex]),
        (53, "SMIMEA", &[U8, U8, U8, Hex]),
        (55, "HIP", &[]),
        (59, "CDS", &[U16, U8, U8, Hex]),
        (60, "CDNSKEY", &[U16, U8, U8, Base64]),
        (61, "OPENPGPKEY", &[Base64]),
        (62, "CSYNC", &[U32, U16, Types]),
        (63, "ZONEMD", &[U32, U8, U8, Hex]),
        (64, "SVCB", &[U16, Name, Params]),
        (65, "HTTPS", &[U16, Name, Params]),
        (99, "SPF", &[Texts]),
        (108, "EUI48", &[]),
        (109, "EUI64", &[]),
        (249, "TKEY", &[]),
        (250, "TSIG", &[]),
        (251, "IXFR", &[]),
        (252, "AXFR", &[]),
        (255, "ANY", &[]),
        (256, "URI", &[U16, U16, RestText]),
        (257, "CAA", &[U8, Tag, RestText]),
    ]
};

/// The name of an rcode: "NXDOMAIN", or "RCODE12" where it has none.
pub(crate) fn rcode_name(number: u16) -> Cow<'static, str> {
    name_of(RCODES.iter().copied(), number, "RCODE")
}

/// The number of an rcode, by name in any case, as "RCODE12" or as a number up to 4095.
pub(crate) fn rcode_number(text: &str) -> Option<u16> {
    number_of(RCODES.iter().copied(), text, "RCODE").filter(|number| *number < 1 << 12)
}

/// The name of a type: "MX", or "TYPE65280" where it has none (RFC 3597).
pub(crate) fn type_name(number: u16) -> Cow<'static, str> {
    name_of(TYPES.iter().map(|(number, name, _)| (*number, *name)), number, "TYPE")
}

/// The number of a type, by name in any case, as "TYPE257" or as a number.
pub(crate) fn type_number(text: &str) -> Option<u16> {
    number_of(TYPES.iter().map(|(number, name, _)| (*number, *name)), text, "TYPE")
}

/// The number of a class, by name in any case, as "CLASS3" or as a number.
pub(crate) fn class_number(text: &str) -> Option<u16> {
    number_of(CLASSES.iter().copied(), text, "CLASS")
}

fn name_of(mut table: impl Iterator<Item = (u16, &'static str)>, number: u16, prefix: &str) -> Cow<'static, str> {
    table.find(|(known, _)| *known == number).map_or_else(|| format!("{prefix}{number}").into(), |(_, name)| name.into())
}

fn number_of<'t>(mut table: impl Iterator<Item = (u16, &'t str)>, text: &str, prefix: &str) -> Option<u16> {
    let text = text.to_ascii_uppercase();
    let by_name = table.find(|(_, name)| *name == text).map(|(number, _)| number);
    by_name.or_else(|| text.strip_prefix(prefix).unwrap_or(&text).parse().ok())
}

/// The data of a record in presentation form, as zone files write it. What this file does not know, or what does not have the form of its
/// type, is shown as RFC 3597 says: `\# 4 0A000001`.
pub(crate) fn present(answer: &Answer, record: &Record) -> String {
    let parts = TYPES.iter().find(|(number, ..)| *number == record.record_type).map_or(&[][..], |(_, _, parts)| parts);
    // Addresses are the Internet's; in other classes the same types carry other things.
    let known = record.class == IN || !matches!(parts, [Part::V4 | Part::V6]);
    if known && !parts.is_empty() {
        let mut data = answer.data(record);
        let mut words = Vec::with_capacity(parts.len());
        if parts.iter().all(|part| part.present(&mut data, &mut words).is_some()) && data.is_empty() {
            return if words.len() == 1 { words.remove(0) } else { words.join(" ") };
        }
    }
    let bytes = answer.data(record).rest();
    format!(r"\# {} {}", bytes.len(), hex(bytes)).trim_end().to_owned()
}

impl Part {
    fn present(self, data: &mut Reader<'_>, words: &mut Vec<String>) -> Option<()> {
        let word = match self {
            Self::Name => name::show(&data.name()?),
            Self::U8 => data.u8()?.to_string(),
            Self::U16 => data.u16()?.to_string(),
            Self::U32 => data.u32()?.to_string(),
            Self::V4 => text::address(<[u8; 4]>::try_from(data.take(4)?).ok()?.into()),
            Self::V6 => Ipv6Addr::from(<[u8; 16]>::try_from(data.take(16)?).ok()?).to_string(),
            Self::Text => quoted(data.string()?),
            Self::Texts => {
                while !data.is_empty() {
                    words.push(quoted(data.string()?));
                }
                return (!words.is_empty()).then_some(());
            }
            Self::RestText => quoted(data.rest()),
            Self::Tag => {
                let tag = data.string()?;
                std::str::from_utf8(tag)
                    .ok()
                    .filter(|tag| !tag.is_empty() && tag.bytes().all(|byte| byte.is_ascii_alphanumeric()))?
                    .to_owned()
            }
            Self::Hex => hex(data.rest()),
            Self::Base64 => STANDARD.encode(data.rest()),
            Self::Type => type_name(data.u16()?).into_owned(),
            Self::Time => time(data.u32()?),
            Self::Salt => match data.string()? {
                [] => "-".to_owned(),
                salt => hex(salt),
            },
            Self::Base32 => base32(data.string()?),
            Self::Types => {
                while !data.is_empty() {
                    let (window, length) = (u16::from(data.u8()?), data.u8()?);
                    for (position, byte) in (0_u16..).zip(data.take(length.into())?) {
                        let set = (0..8).filter(|bit| byte & 0x80 >> bit != 0);
                        words.extend(set.map(|bit| type_name(window << 8 | position << 3 | bit).into_owned()));
                        if position >= 32 {
                            return None;
                        }
                    }
                }
                return Some(());
            }
            Self::Params => {
                while !data.is_empty() {
                    let (key, length) = (data.u16()?, data.u16()?);
                    words.push(param(key, data.take(length.into())?)?);
                }
                return Some(());
            }
        };
        words.push(word);
        Some(())
    }
}

/// A service parameter (RFC 9460 section 14.3.2).
fn param(key: u16, value: &[u8]) -> Option<String> {
    let names = ["mandatory", "alpn", "no-default-alpn", "port", "ipv4hint", "ech", "ipv6hint"];
    let name = |key: u16| names.get(usize::from(key)).map_or_else(|| format!("key{key}"), |name| (*name).to_owned());
    let listed = |size: usize, show: &dyn Fn(&[u8]) -> String| {
        let whole = !value.is_empty() && value.len().is_multiple_of(size);
        whole.then(|| value.chunks(size).map(show).collect::<Vec<_>>().join(","))
    };
    let shown = match key {
        0 => listed(2, &|two| name(u16::from_be_bytes([two[0], two[1]])))?,
        1 => {
            let mut protocols = Vec::new();
            let mut rest = value;
            while let [length, tail @ ..] = rest {
                let (protocol, tail) = tail.split_at_checked((*length).into())?;
                protocols.push(escaped(protocol));
                rest = tail;
            }
            format!("\"{}\"", protocols.join(","))
        }
        2 if value.is_empty() => return Some(name(key)),
        3 => u16::from_be_bytes(value.try_into().ok()?).to_string(),
        4 => listed(4, &|four| Ipv4Addr::new(four[0], four[1], four[2], four[3]).to_string())?,
        5 => STANDARD.encode(value),
        6 => listed(16, &|bytes| <[u8; 16]>::try_from(bytes).map(|bytes| Ipv6Addr::from(bytes).to_string()).unwrap_or_default())?,
        _ if value.is_empty() => return Some(name(key)),
        _ => quoted(value),
    };
    Some(format!("{}={shown}", name(key)))
}

/// A character string in quotes, with what is not printable as `\DDD` (RFC 1035 section 5.1).
fn quoted(bytes: &[u8]) -> String {
    format!("\"{}\"", escaped(bytes))
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b' '..=b'~' => text.push(char::from(*byte)),
            // Writing to a string can't fail.
            _ => drop(write!(text, "\\{byte:03}")),
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}

/// Base 32 with the extended hex alphabet, without padding (RFC 4648 section 7).
fn base32(bytes: &[u8]) -> String {
    let alphabet = b"0123456789ABCDEFGHIJKLMNOPQRSTUV";
    bytes
        .chunks(5)
        .flat_map(|chunk| {
            let bits = chunk.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte)) << (8 * (5 - chunk.len()));
            (0..(8 * chunk.len()).div_ceil(5)).map(move |digit| char::from(alphabet[(bits >> (35 - 5 * digit)) as usize & 31]))
        })
        .collect()
}

/// Seconds since 1970 as YYYYMMDDHHmmSS, by the civil calendar.
fn time(seconds: u32) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 1 March of year 0, so that the leap day is the last of its year.
    let since = days + 719_468;
    let (era, day_of_era) = (since / 146_097, since % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u32::from(month <= 2);
    format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::dns::Question;
    use hickory_proto::rr::Name;
    use proptest::prelude::*;

    /// The presentation of one record with this type and data.
    fn shown(record_type: u16, data: &[u8]) -> String {
        let question = Question { name: Name::root(), record_type, class: IN };
        let mut message = vec![0, 1, 0x80, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0];
        message.extend([record_type.to_be_bytes(), IN.to_be_bytes()].concat());
        message.push(0);
        message.extend([record_type.to_be_bytes(), IN.to_be_bytes(), [0, 0], [0, 60]].concat());
        message.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        message.extend(data);
        let answer = Answer::decode(message, 1, &question).unwrap();
        present(&answer, &answer.answers[0])
    }

    #[test]
    fn data_is_shown_as_zone_files_write_it() {
        assert_eq!(shown(1, &[192, 0, 2, 1]), "192.0.2.1");
        assert_eq!(shown(15, b"\0\x0a\x04mail\x04test\0"), "10 mail.test.");
        assert_eq!(shown(16, b"\x05a \"b\\\x01\xff"), r#""a \"b\\" "\255""#);
        assert_eq!(shown(257, b"\0\x05issueca.test"), r#"0 issue "ca.test""#);
        assert_eq!(shown(43, &[0x12, 0x34, 8, 2, 0xab, 0xcd]), "4660 8 2 ABCD");
        assert_eq!(shown(47, b"\x01b\0\x00\x01\x40\x01\x01\x40"), "b. A CAA");
        assert_eq!(shown(51, &[1, 0, 0, 5, 0]), "1 0 5 -");
        assert_eq!(shown(65, b"\0\x01\0\0\x01\0\x06\x02h2\x02h3\0\x03\0\x02\x01\xbb"), r#"1 . alpn="h2,h3" port=443"#);
    }

    #[test]
    fn unknown_and_broken_data_is_shown_in_the_generic_form() {
        assert_eq!(shown(65_280, &[10, 0, 0, 1]), r"\# 4 0A000001");
        assert_eq!(shown(1, &[10, 0, 0]), r"\# 3 0A0000");
        assert_eq!(shown(1, &[10, 0, 0, 1, 9]), r"\# 5 0A00000109");
        assert_eq!(shown(10, &[]), r"\# 0");
    }

    #[test]
    fn numbers_and_names_stand_for_each_other() {
        assert_eq!(type_number("mx"), Some(15));
        assert_eq!((type_number("257"), type_number("TYPE257"), type_number("caa")), (Some(257), Some(257), Some(257)));
        assert_eq!((type_name(257), type_name(65_280)), ("CAA".into(), "TYPE65280".into()));
        assert_eq!((rcode_number("nxdomain"), rcode_number("3"), rcode_number("RCODE3841")), (Some(3), Some(3), Some(3841)));
        assert_eq!((rcode_number("4096"), type_number("65536"), type_number("-1")), (None, None, None));
        assert_eq!((class_number("ch"), class_number("CLASS3")), (Some(3), Some(3)));
    }

    #[test]
    fn times_and_base_32_are_those_of_the_standards() {
        assert_eq!(time(0), "19700101000000");
        assert_eq!(time(951_782_400), "20000229000000");
        assert_eq!(time(1_700_000_000), "20231114221320");
        // RFC 4648 section 10.
        assert_eq!(base32(b"foobar"), "CPNMUOJ1E8");
        assert_eq!(base32(b"foo"), "CPNMU");
    }

    proptest! {
        #[test]
        fn any_data_of_any_type_is_shown(record_type in 0_u16..300, data in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assume!(record_type != 41);
            prop_assert!(shown(record_type, &data).is_ascii());
        }
    }
}
