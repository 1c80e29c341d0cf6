//! What people read and write: escaped text, hexadecimal, addresses, durations.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use bytes::{Bytes, BytesMut};

/// An address, written as `to_string` writes it. That takes ten times as long over IPv4, and each run shows some.
pub fn address(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let mut text = String::with_capacity("255.255.255.255".len());
            put_v4(&mut text, address);
            text
        }
        IpAddr::V6(address) => address.to_string(),
    }
}

/// An address with its port, in the same way.
pub fn socket(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(address) => {
            let mut text = String::with_capacity("255.255.255.255:65535".len());
            put_v4(&mut text, *address.ip());
            text.push(':');
            put_number(&mut text, address.port().into());
            text
        }
        SocketAddr::V6(address) => address.to_string(),
    }
}

/// How long something took, with three digits after the point, as `{:.3?}` writes it. That takes five times as long, and each ping shows some.
pub fn duration(taken: Duration) -> String {
    let nanos = taken.subsec_nanos();
    let (whole, rest, unit, name) = match (taken.as_secs(), nanos) {
        (seconds @ 1.., _) => (seconds, nanos, 1_000_000_000, "s"),
        (_, 1_000_000..) => (u64::from(nanos / 1_000_000), nanos % 1_000_000, 1_000_000, "ms"),
        (_, 1000..) => (u64::from(nanos / 1000), nanos % 1000, 1000, "µs"),
        _ => (nanos.into(), 0, 1000, "ns"),
    };
    let step = unit / 1000;
    let (thousandths, rest) = (rest / step, rest % step);
    // To the nearest, and of two that are as near to the even one.
    let rounded = thousandths + u32::from(rest * 2 > step || (rest * 2 == step && thousandths % 2 == 1));
    let mut text = String::with_capacity("1000.000µs".len());
    put_number(&mut text, whole.saturating_add((rounded / 1000).into()));
    text.push('.');
    for unit in [100, 10, 1] {
        put_digit(&mut text, (rounded / unit).into());
    }
    text.push_str(name);
    text
}

fn put_v4(text: &mut String, address: Ipv4Addr) {
    let [first, rest @ ..] = address.octets();
    put_number(text, first.into());
    for octet in rest {
        text.push('.');
        put_number(text, octet.into());
    }
}

fn put_number(text: &mut String, number: u64) {
    if number >= 10 {
        put_number(text, number / 10);
    }
    put_digit(text, number);
}

/// The last digit of a number.
fn put_digit(text: &mut String, number: u64) {
    // One of ten.
    text.push(char::from(b'0' + (number % 10) as u8));
}

/// Parses bytes in hexadecimal; white space does not count. An error says what is wrong with them.
pub fn hex(text: &str) -> Result<Bytes, String> {
    let mut bytes = BytesMut::with_capacity(text.len() / 2);
    let mut high = None;
    for letter in text.chars().filter(|letter| !letter.is_ascii_whitespace()) {
        let digit = letter
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
            .ok_or_else(|| format!("has {letter:?}, which is no hexadecimal digit"))?;
        match high.take() {
            None => high = Some(digit),
            Some(high) => bytes.extend([high << 4 | digit]),
        }
    }
    if high.is_some() { Err("has an odd number of digits".to_owned()) } else { Ok(bytes.freeze()) }
}

/// Text as it is, and what is not printable as `\xNN`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                letter if letter.is_control() => {
                    let mut buffer = [0; 4];
                    letter.encode_utf8(&mut buffer).bytes().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
                }
                letter => text.push(letter),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_printable_is_escaped_and_text_is_not() {
        assert_eq!(escape(b"220 caf\xc3\xa9\r\n"), "220 café\\x0d\\x0a");
        assert_eq!(escape(b"\xff\x7f"), "\\xff\\x7f");
    }

    #[test]
    fn addresses_are_written_as_the_standard_library_writes_them() {
        for number in (0..=u16::MAX).chain([0, 9, 10, 99, 100, 255]) {
            let [high, low] = number.to_be_bytes();
            let v4 = SocketAddr::from(([high, low, low ^ high, 0], number));
            let v6 = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, number], number));
            for address in [v4, v6] {
                assert_eq!(socket(address), address.to_string());
                assert_eq!(super::address(address.ip()), address.ip().to_string());
            }
        }
    }

    #[test]
    fn durations_are_written_as_the_standard_library_writes_them() {
        let near = |nanos: u64| (nanos.saturating_sub(1100)..nanos + 1100).map(Duration::from_nanos);
        let edges = [0, 1_000_000, 999_999_999, 1_000_000_000, 1_999_500_000, 59_999_999_999, 3_600_000_500_000].into_iter().flat_map(near);
        let spread = (0..64).flat_map(|bits| (0..50).map(move |number| Duration::from_nanos((1 << bits) + (number << bits) / 50)));
        for taken in edges.chain(spread).chain([Duration::from_secs(u64::MAX)]) {
            assert_eq!(duration(taken), format!("{taken:.3?}"));
        }
    }

    #[test]
    fn hexadecimal_ignores_spaces() {
        assert_eq!(hex("00 fF\n12").unwrap().as_ref(), [0, 0xff, 0x12]);
    }
}
