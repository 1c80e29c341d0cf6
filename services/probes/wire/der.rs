//! DER (X.690), strictly: what is written in another way than the one that DER allows is not read.

/// It is not DER, or not what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not what DER allows here")]
pub struct Malformed;

/// The tags that are read here.
pub mod tag {
    #![expect(missing_docs, reason = "they are called as X.680 calls them")]
    pub const BOOLEAN: u8 = 0x01;
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OCTET_STRING: u8 = 0x04;
    pub const OBJECT_IDENTIFIER: u8 = 0x06;
    pub const ENUMERATED: u8 = 0x0a;
    pub const GENERALIZED_TIME: u8 = 0x18;
    pub const SEQUENCE: u8 = 0x30;

    /// A tag that only this place gives a meaning to, around other elements.
    pub const fn context(number: u8) -> u8 {
        0xa0 | number
    }
}

/// An element: its tag, its content, and all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'d> {
    /// The tag, with class and form.
    pub tag: u8,
    /// Without tag and length.
    pub content: &'d [u8],
    /// With them.
    pub whole: &'d [u8],
}

/// Reads elements one after the other.
#[derive(Debug, Clone)]
pub struct Reader<'d>(&'d [u8]);

impl<'d> Reader<'d> {
    /// Reads these bytes.
    pub fn new(bytes: &'d [u8]) -> Self {
        Self(bytes)
    }

    /// Whether that was all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next element.
    pub fn any(&mut self) -> Result<Element<'d>, Malformed> {
        let whole = self.0;
        let (tag, rest) = whole.split_first().ok_or(Malformed)?;
        // Tags of more than one byte are for numbers beyond those that anything here has.
        if tag & 0x1f == 0x1f {
            return Err(Malformed);
        }
        let (first, rest) = rest.split_first().ok_or(Malformed)?;
        let (length, rest) = match *first {
            short @ ..0x80 => (usize::from(short), rest),
            long => {
                let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f)).ok_or(Malformed)?;
                // In as few bytes as possible; four are enough for all that is ever read.
                let length = bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
                if !(1..=4).contains(&bytes.len()) || bytes.first() == Some(&0) || length < 0x80 {
                    return Err(Malformed);
                }
                (length, rest)
            }
        };
        let (content, rest) = rest.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        let whole = whole.get(..whole.len() - rest.len()).ok_or(Malformed)?;
        Ok(Element { tag: *tag, content, whole })
    }

    /// The next element, which has this tag.
    pub fn next(&mut self, tag: u8) -> Result<Element<'d>, Malformed> {
        self.any().and_then(|element| if element.tag == tag { Ok(element) } else { Err(Malformed) })
    }

    /// The next element, if it has this tag.
    pub fn next_if(&mut self, tag: u8) -> Result<Option<Element<'d>>, Malformed> {
        if self.0.first() == Some(&tag) { self.next(tag).map(Some) } else { Ok(None) }
    }

    /// Inside of the next element, which has this tag.
    pub fn inside(&mut self, tag: u8) -> Result<Self, Malformed> {
        self.next(tag).map(|element| Self(element.content))
    }

    /// Inside of the next element, if it has this tag.
    pub fn inside_if(&mut self, tag: u8) -> Result<Option<Self>, Malformed> {
        Ok(self.next_if(tag)?.map(|element| Self(element.content)))
    }

    /// Asserts that that was all.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    /// A bit string of whole bytes.
    pub fn bytes_of_bits(&mut self) -> Result<&'d [u8], Malformed> {
        match self.next(tag::BIT_STRING)?.content {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(Malformed),
        }
    }

    /// An enumerated value; those of one byte are all that there are.
    pub fn enumerated(&mut self) -> Result<u8, Malformed> {
        match self.next(tag::ENUMERATED)?.content {
            [value @ ..0x80] => Ok(*value),
            _ => Err(Malformed),
        }
    }

    /// A boolean that is false where it is missing, and never there to say so.
    pub fn boolean_or_false(&mut self) -> Result<bool, Malformed> {
        match self.next_if(tag::BOOLEAN)?.map(|element| element.content) {
            None => Ok(false),
            Some([0xff]) => Ok(true),
            Some(_) => Err(Malformed),
        }
    }

    /// An instant in seconds since 1970, as RFC 5280 section 4.1.2.5.2 writes it: YYYYMMDDHHMMSSZ.
    pub fn instant(&mut self) -> Result<i64, Malformed> {
        let [digits @ .., b'Z'] = self.next(tag::GENERALIZED_TIME)?.content else { return Err(Malformed) };
        if digits.len() != 14 || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Malformed);
        }
        let number = |from: usize, length: usize| {
            digits.iter().skip(from).take(length).fold(0, |number, digit| number * 10 + i64::from(digit - b'0'))
        };
        let (year, month, day) = (number(0, 4), number(4, 2), number(6, 2));
        let (hour, minute, second) = (number(8, 2), number(10, 2), number(12, 2));
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if is_leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return Err(Malformed),
        };
        if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 {
            return Err(Malformed);
        }
        Ok(((days_before(year, month) + day - 1) * 24 + hour) * 3600 + minute * 60 + second)
    }
}

/// Days from 1970 to the first of a month. Years begin in March here, so that the leap day is the last.
fn days_before(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let in_year = (153 * ((month + 9) % 12) + 2) / 5;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + in_year - 719_468
}

/// The same content under a tag, with its length before it.
pub fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes();
    let digits = length.iter().position(|byte| *byte != 0).map_or(&length[3..], |first| length.get(first..).unwrap_or_default());
    let mut bytes = Vec::with_capacity(content.len() + 6);
    bytes.push(tag);
    match digits {
        [short @ ..0x80] => bytes.push(*short),
        digits => {
            bytes.push(0x80 | u8::try_from(digits.len()).unwrap_or_default());
            bytes.extend(digits);
        }
    }
    bytes.extend(content);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(text: &str) -> Result<i64, Malformed> {
        Reader::new(&wrap(tag::GENERALIZED_TIME, text.as_bytes())).instant()
    }

    #[test]
    fn instants_are_counted_from_1970() {
        assert_eq!(instant("19700101000000Z"), Ok(0));
        assert_eq!(instant("20261122081905Z"), Ok(1_795_335_545));
        assert_eq!(instant("20000229235959Z"), Ok(951_868_799));
        assert_eq!(instant("19691231235959Z"), Ok(-1));
        for wrong in [
            "20260229000000Z",
            "20261322081905Z",
            "20261122081960Z",
            "20261122081905.5Z",
            "20261122081905+0100",
            "20261122Z",
            "19000229000000Z",
        ] {
            assert_eq!(instant(wrong), Err(Malformed), "{wrong}");
        }
    }

    #[test]
    fn lengths_have_one_spelling() {
        let read = |bytes: &[u8]| Reader::new(bytes).any().map(|element| element.content.len());
        assert_eq!(read(&[4, 2, 0, 0]), Ok(2));
        assert_eq!(read(&[&[4, 0x81, 0x80][..], &[0; 128]].concat()), Ok(128));
        for wrong in [
            &[4, 0x81, 2, 0, 0][..],
            &[4, 0x82, 0, 0x80],
            &[4, 0x80, 0, 0],
            &[4, 3, 0, 0],
            &[0x1f, 0x81, 0],
            &[4],
            &[4, 0x85, 1, 0, 0, 0, 0],
        ] {
            assert_eq!(read(wrong), Err(Malformed), "{wrong:?}");
        }
        for length in [0, 1, 127, 128, 255, 256, 65_535, 65_536] {
            let whole = wrap(tag::OCTET_STRING, &vec![7; length]);
            assert_eq!(Reader::new(&whole).any().unwrap(), Element { tag: 4, content: &vec![7; length], whole: &whole });
        }
    }
}
