//! SOCKS 5 (RFC 1928) with user and password (RFC 1929): the client's side of CONNECT, as bytes.

use std::net::{IpAddr, SocketAddr};

const VERSION: u8 = 5;
const LOGIN_VERSION: u8 = 1;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;

/// How many bytes of an answer say how long it is.
pub const HEAD: usize = 5;

/// How a client says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    Open,
    /// By user and password.
    Login,
    /// The server takes none of those that were offered.
    None,
}

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// To an address.
    Address(SocketAddr),
    /// To a name of at most 255 bytes, which the server resolves, and a port.
    Name(&'a str, u16),
}

/// The first message: the methods that are offered.
pub fn greeting(with_login: bool) -> Vec<u8> {
    if with_login { vec![VERSION, 2, 0, 2] } else { vec![VERSION, 1, 0] }
}

/// The method that the server has chosen, or what is wrong with its answer.
pub fn method(answer: [u8; 2]) -> Result<Method, String> {
    match answer {
        [VERSION, 0] => Ok(Method::Open),
        [VERSION, 2] => Ok(Method::Login),
        [VERSION, 0xff] => Ok(Method::None),
        [VERSION, other] => Err(format!("it chose method {other}, which was not offered")),
        _ => Err(foreign(answer[0])),
    }
}

/// User and password, each of 1 to 255 bytes; what is longer is cut.
pub fn login(user: &str, password: &str) -> Vec<u8> {
    let mut bytes = vec![LOGIN_VERSION];
    for part in [user, password] {
        counted(part, &mut bytes);
    }
    bytes
}

/// Whether user and password were accepted. Any other version than that of the login is let pass, as servers have it.
pub fn is_accepted(answer: [u8; 2]) -> bool {
    answer[1] == 0
}

/// The request to connect.
pub fn request(target: Target<'_>) -> Vec<u8> {
    let mut bytes = vec![VERSION, CONNECT, 0];
    let port = match target {
        Target::Address(address) => {
            match address.ip() {
                IpAddr::V4(address) => {
                    bytes.push(IPV4);
                    bytes.extend(address.octets());
                }
                IpAddr::V6(address) => {
                    bytes.push(IPV6);
                    bytes.extend(address.octets());
                }
            }
            address.port()
        }
        Target::Name(name, port) => {
            bytes.push(NAME);
            counted(name, &mut bytes);
            port
        }
    };
    bytes.extend(port.to_be_bytes());
    bytes
}

fn counted(text: &str, to: &mut Vec<u8>) {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    to.push(length);
    to.extend(text.bytes().take(length.into()));
}

/// The beginning of the answer to a request: its code, and how many bytes follow. Or what is wrong with it.
pub fn answer(head: [u8; HEAD]) -> Result<(u8, usize), String> {
    let [version, code, _, kind, length] = head;
    if version != VERSION {
        return Err(foreign(version));
    }
    // One byte of the address is in the head; the port follows the address.
    let rest = match kind {
        IPV4 => 4 - 1 + 2,
        IPV6 => 16 - 1 + 2,
        NAME => usize::from(length) + 2,
        other => return Err(format!("its answer has an address of type {other}")),
    };
    Ok((code, rest))
}

/// The words of RFC 1928 section 6 for the code of an answer.
pub fn words(code: u8) -> String {
    match code {
        0 => "succeeded",
        1 => "general failure",
        2 => "connection not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "hop limit exceeded",
        7 => "command not supported",
        8 => "address type not supported",
        _ => return format!("failure {code}"),
    }
    .to_owned()
}

fn foreign(version: u8) -> String {
    match version {
        b'H' => "it answers in HTTP".to_owned(),
        0 | 4 => "it answers in SOCKS 4".to_owned(),
        other => format!("its answer begins with the byte {other}, and not with version 5"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_those_of_the_rfc() {
        assert_eq!(greeting(false), [5, 1, 0]);
        assert_eq!(greeting(true), [5, 2, 0, 2]);
        assert_eq!(login("joe", "pw"), [1, 3, b'j', b'o', b'e', 2, b'p', b'w']);
        assert_eq!(request(Target::Address("192.0.2.1:443".parse().unwrap())), [5, 1, 0, 1, 192, 0, 2, 1, 1, 187]);
        let v6 = request(Target::Address("[2001:db8::1]:80".parse().unwrap()));
        assert_eq!((v6.len(), &v6[..6], &v6[19..]), (22, &[5, 1, 0, 4, 0x20, 1][..], &[1, 0, 80][..]));
        assert_eq!(request(Target::Name("a.b", 80)), [5, 1, 0, 3, 3, b'a', b'.', b'b', 0, 80]);
    }

    #[test]
    fn answers_say_how_long_they_are() {
        assert_eq!(answer([5, 0, 0, 1, 127]), Ok((0, 5)));
        assert_eq!(answer([5, 4, 0, 4, 0]), Ok((4, 17)));
        assert_eq!(answer([5, 5, 0, 3, 255]), Ok((5, 257)));
        assert!(answer(*b"HTTP/").unwrap_err().contains("HTTP"));
        assert!(answer([5, 0, 0, 2, 0]).unwrap_err().contains("type 2"));
        assert_eq!(method([5, 255]), Ok(Method::None));
        assert!(method([4, 0]).is_err() && method([5, 1]).is_err());
        assert!(is_accepted([1, 0]) && !is_accepted([1, 1]));
    }
}
