//! `gzip` (RFC 1952): members, each with a header, deflate, and the sum and length of what it holds.

use flate2::Crc;

use super::{Fault, Sink, Undo, deflate::Inflate};

/// The longest header of a member: its extra field, name and comment are of no use here.
const MAX_HEADER: usize = 8 << 10;

/// The most members: enough for 64 MiB in the blocks of `bgzip`. Each costs the same, however little is in it.
const MAX_MEMBERS: u64 = 4096;

const MAGIC: [u8; 2] = [0x1f, 0x8b];
const TRAILER: usize = 8;

/// The coding.
#[derive(Default)]
pub(super) struct Gzip {
    state: State,
    /// What has come of a header or trailer.
    part: Vec<u8>,
    members: u64,
}

#[derive(Default)]
enum State {
    #[default]
    Header,
    Body(Box<(Inflate, Crc)>),
    Trailer(Crc),
    /// What follows is none of ours.
    Over,
}

impl Undo for Gzip {
    fn push(&mut self, mut coded: &[u8], sink: &mut dyn Sink) -> Result<(), Fault> {
        while !coded.is_empty() {
            match &mut self.state {
                State::Header => {
                    let had = self.part.len();
                    // What came before is the beginning of what comes now; a header is rarely longer than a few bytes.
                    let begin = if had == 0 {
                        coded
                    } else {
                        self.part.extend_from_slice(coded.get(..coded.len().min(MAX_HEADER)).unwrap_or_default());
                        &self.part
                    };
                    match header(begin) {
                        Header::Whole(length) if length <= MAX_HEADER => {
                            if self.members == MAX_MEMBERS {
                                return Err(Fault::Malformed(format!("there are more than {MAX_MEMBERS} members of gzip")));
                            }
                            coded = coded.get(length - had..).unwrap_or_default();
                            self.part.clear();
                            self.state = State::Body(Box::new((Inflate::new(false), Crc::new())));
                        }
                        Header::Short if begin.len() <= MAX_HEADER => {
                            if had == 0 {
                                self.part.extend_from_slice(coded);
                            }
                            coded = &[];
                        }
                        Header::Short | Header::Whole(_) => {
                            return Err(Fault::Malformed(format!("a header of gzip is longer than {} KiB", MAX_HEADER >> 10)));
                        }
                        Header::Wrong(_) if self.members > 0 => self.state = State::Over,
                        Header::Wrong(why) => return Err(Fault::Malformed(format!("it is no gzip: {why}"))),
                    }
                }
                State::Body(body) => {
                    let (inflate, sum) = &mut **body;
                    coded = inflate.push(coded, &mut Summed { sink, sum })?;
                    if inflate.is_over {
                        self.state = State::Trailer(std::mem::take(sum));
                    }
                }
                State::Trailer(sum) => {
                    let (ours, rest) = coded.split_at((TRAILER - self.part.len()).min(coded.len()));
                    self.part.extend_from_slice(ours);
                    coded = rest;
                    if self.part.len() == TRAILER {
                        if self.part != [sum.sum().to_le_bytes(), sum.amount().to_le_bytes()].concat() {
                            return Err(Fault::Malformed("the sum or the length in gzip is not that of what it holds".to_owned()));
                        }
                        self.part.clear();
                        self.members += 1;
                        self.state = State::Header;
                    }
                }
                State::Over => return Ok(()),
            }
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        // A few bytes after the end are no beginning of another member unless they say so.
        let is_between = matches!(self.state, State::Header) && !(self.part.len() >= MAGIC.len() && self.part.starts_with(&MAGIC));
        self.members > 0 && (is_between || matches!(self.state, State::Over))
    }
}

/// Sums up what passes.
struct Summed<'s> {
    sink: &'s mut dyn Sink,
    sum: &'s mut Crc,
}

impl Sink for Summed<'_> {
    fn room(&self) -> u64 {
        self.sink.room()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.sum.update(bytes);
        self.sink.put(bytes)
    }
}

enum Header {
    /// It goes on.
    Short,
    /// It is so many bytes long.
    Whole(usize),
    Wrong(&'static str),
}

/// Reads the header of a member (RFC 1952 section 2.3).
fn header(bytes: &[u8]) -> Header {
    const HAS_SUM: u8 = 2;
    const HAS_EXTRA: u8 = 4;
    const HAS_NAME: u8 = 8;
    const HAS_COMMENT: u8 = 16;
    if !MAGIC.starts_with(bytes.get(..bytes.len().min(2)).unwrap_or_default()) {
        return Header::Wrong("it begins with something else");
    }
    let Some([_, _, method, flags, ..]) = bytes.first_chunk::<10>() else { return Header::Short };
    if *method != 8 {
        return Header::Wrong("its method is not deflate");
    }
    if flags & 0xe0 != 0 {
        return Header::Wrong("it has flags that nobody knows");
    }
    let mut length = 10;
    if flags & HAS_EXTRA != 0 {
        let Some([low, high]) = bytes.get(length..).and_then(|rest| rest.first_chunk()) else { return Header::Short };
        length += 2 + usize::from(u16::from_le_bytes([*low, *high]));
    }
    for flag in [HAS_NAME, HAS_COMMENT] {
        if flags & flag != 0 {
            let Some(end) = bytes.get(length..).and_then(|rest| rest.iter().position(|byte| *byte == 0)) else { return Header::Short };
            length += end + 1;
        }
    }
    if flags & HAS_SUM != 0 {
        length += 2;
    }
    if bytes.len() < length { Header::Short } else { Header::Whole(length) }
}
