//! Content codings (RFC 9110 section 8.4.1): what to ask for, and what comes of what was sent.
//!
//! A body is decoded as it comes, and never further than its limit: memory and time depend on the limit, not on what a bomb would become.

mod brotli;
mod deflate;
mod gzip;
mod zstd;

use http::{HeaderMap, HeaderValue, header::CONTENT_ENCODING};
use vantage_contract::v1::HttpCoding;

use crate::{failure::Invalid, wire::text::escape};

/// The most codings on top of each other. One is usual, two is a misunderstanding, more is an attack.
const MAX_STAGES: usize = 4;

/// How much is decoded at once.
const PIECE: usize = 16 << 10;

/// The longest `Content-Encoding` that is told of.
const MAX_NAME: usize = 200;

/// A coding that can be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Coding {
    Gzip,
    Brotli,
    Deflate,
    Zstd,
}

impl Coding {
    /// By its name in headers (RFC 9110 section 18.6); `x-gzip` is an old spelling.
    fn named(name: &str) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("gzip") || is("x-gzip") {
            return Some(Self::Gzip);
        }
        [(Self::Brotli, "br"), (Self::Deflate, "deflate"), (Self::Zstd, "zstd")].into_iter().find(|(_, known)| is(known)).map(|(it, _)| it)
    }
}

/// The `Accept-Encoding` that asks for these codings; None: nothing is said.
pub(super) fn accept(codings: &[i32]) -> Result<Option<HeaderValue>, Invalid> {
    let mut names: Vec<&str> = Vec::new();
    for (at, number) in codings.iter().enumerate() {
        let name = match HttpCoding::try_from(*number) {
            Ok(HttpCoding::Gzip) => "gzip",
            Ok(HttpCoding::Br) => "br",
            Ok(HttpCoding::Deflate) => "deflate",
            Ok(HttpCoding::Zstd) => "zstd",
            Ok(HttpCoding::Unspecified) | Err(_) => return Err(Invalid::new(format!("content_codings[{at}]"), "is none that is known")),
        };
        if names.contains(&name) {
            return Err(Invalid::new(format!("content_codings[{at}]"), format!("{name} is there twice")));
        }
        names.push(name);
    }
    if names.is_empty() {
        return Ok(None);
    }
    HeaderValue::try_from(names.join(", ")).map(Some).map_err(|error| Invalid::new("content_codings", error.to_string()))
}

/// What the headers say of a body's codings.
pub(super) struct Said {
    /// Their names, as the headers have them.
    pub(super) names: String,
    /// How to undo them; an error is the coding that nobody here knows.
    codings: Result<Vec<Coding>, String>,
}

impl Said {
    /// Reads them.
    pub(super) fn by(headers: &HeaderMap) -> Self {
        let mut said = Self { names: String::new(), codings: Ok(Vec::new()) };
        for value in headers.get_all(CONTENT_ENCODING) {
            let text = escape(value.as_bytes());
            if !said.names.is_empty() {
                said.names.push_str(", ");
            }
            said.names.push_str(&text);
            for name in text.split(',').map(str::trim).filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity")) {
                let Ok(codings) = &mut said.codings else { break };
                match Coding::named(name) {
                    Some(coding) if codings.len() < MAX_STAGES => codings.push(coding),
                    Some(_) => said.codings = Err(format!("in more than {MAX_STAGES} codings")),
                    None => said.codings = Err(format!("as {:?}, which is not known here", shortened(name))),
                }
            }
        }
        said.names = shortened(&said.names).to_owned();
        said
    }

    /// What undoes the codings, at most to `limit` bytes. None: there is nothing that can be undone.
    pub(super) fn decoder(&self, limit: u64) -> Option<Decoder> {
        let codings = self.codings.as_ref().ok().filter(|codings| !codings.is_empty())?;
        // What was applied last is undone first.
        let stages = codings.iter().rev().map(|coding| Stage::new(*coding)).collect();
        Some(Decoder { stages, is_begun: false, decoded: 0, limit })
    }

    /// Why the body is not what it was before it was coded, in words. None: it is, or it can be decoded.
    pub(super) fn unknown(&self) -> Option<&str> {
        self.codings.as_ref().err().map(String::as_str)
    }
}

fn shortened(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_NAME)).unwrap_or(text)
}

/// The longest body, as it comes, that can be one of `limit` decoded bytes, with some room for codings that make it longer.
pub(super) fn coded_limit(limit: u64) -> u64 {
    limit + limit / 8 + (64 << 10)
}

/// Why a body can't be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not what it is said to be.
    Malformed(String),
    /// There is more of it than the limit allows.
    TooLarge,
    /// It is this monitor that can't.
    Ours(String),
}

/// Where decoded bytes go.
trait Sink {
    /// How many bytes may still come.
    fn room(&self) -> u64;
    fn put(&mut self, bytes: &[u8]) -> Result<(), Fault>;
}

/// Undoes one coding. What follows the end of gzip, deflate and brotli is passed over, as browsers do.
trait Undo: Send {
    /// Takes what comes next, all of it, and passes on what comes of it.
    fn push(&mut self, coded: &[u8], sink: &mut dyn Sink) -> Result<(), Fault>;
    /// Whether all that was coded has come.
    fn is_whole(&self) -> bool;
}

struct Stage {
    coding: Coding,
    undo: Box<dyn Undo>,
    /// How many bytes it has passed on.
    passed: u64,
}

impl Stage {
    fn new(coding: Coding) -> Self {
        let undo: Box<dyn Undo> = match coding {
            Coding::Gzip => Box::new(gzip::Gzip::default()),
            Coding::Brotli => Box::new(brotli::Brotli::default()),
            Coding::Deflate => Box::new(deflate::Deflate::default()),
            Coding::Zstd => Box::new(zstd::Zstd::default()),
        };
        Self { coding, undo, passed: 0 }
    }
}

/// Undoes the codings of one body.
pub(super) struct Decoder {
    stages: Vec<Stage>,
    is_begun: bool,
    decoded: u64,
    limit: u64,
}

impl Decoder {
    /// How many bytes were decoded; never more than the limit.
    pub(super) fn decoded(&self) -> u64 {
        self.decoded
    }

    /// Takes what comes next, and passes on what comes of it.
    pub(super) fn push(&mut self, coded: &[u8], out: &mut dyn FnMut(&[u8])) -> Result<(), Fault> {
        self.is_begun |= !coded.is_empty();
        let Self { stages, decoded, limit, .. } = self;
        let mut end = End { out, decoded, limit: *limit };
        feed(stages, coded, &mut end, coded_limit(*limit))
    }

    /// That was all. No body at all is none that is cut short: answers to HEAD have none.
    pub(super) fn finish(&self) -> Result<(), Fault> {
        match self.stages.iter().find(|stage| !stage.undo.is_whole()) {
            Some(stage) if self.is_begun => Err(Fault::Malformed(format!("what is coded by {:?} ends too early", stage.coding))),
            _ => Ok(()),
        }
    }
}

/// Feeds a chain of stages that ends in `end`; between them no more passes than `between`.
fn feed(stages: &mut [Stage], coded: &[u8], end: &mut dyn Sink, between: u64) -> Result<(), Fault> {
    match stages {
        [] => end.put(coded),
        [last] => last.undo.push(coded, end),
        [first, rest @ ..] => {
            let mut next = Next { rest, end, passed: &mut first.passed, between };
            first.undo.push(coded, &mut next)
        }
    }
}

/// What comes after a stage.
struct Next<'s> {
    rest: &'s mut [Stage],
    end: &'s mut dyn Sink,
    passed: &'s mut u64,
    between: u64,
}

impl Sink for Next<'_> {
    fn room(&self) -> u64 {
        self.between - *self.passed
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.len() as u64 > self.room() {
            return Err(Fault::TooLarge);
        }
        *self.passed += bytes.len() as u64;
        feed(self.rest, bytes, self.end, self.between)
    }
}

/// What comes after the last stage.
struct End<'s> {
    out: &'s mut dyn FnMut(&[u8]),
    decoded: &'s mut u64,
    limit: u64,
}

impl Sink for End<'_> {
    fn room(&self) -> u64 {
        self.limit - *self.decoded
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let fits = usize::try_from(self.room()).unwrap_or(usize::MAX).min(bytes.len());
        let within = bytes.get(..fits).unwrap_or_default();
        *self.decoded += within.len() as u64;
        (self.out)(within);
        if fits < bytes.len() { Err(Fault::TooLarge) } else { Ok(()) }
    }
}

/// How long a piece to decode for a sink: one byte more than it takes tells that there is too much.
fn piece(sink: &dyn Sink) -> usize {
    usize::try_from(sink.room() + 1).unwrap_or(PIECE).min(PIECE)
}

/// Decodes whatever as whatever, for fuzzing: it neither panics nor passes its limit.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(bytes: &[u8]) {
    const LIMIT: u64 = 10_000;
    let Some((which, coded)) = bytes.split_first() else { return };
    let all = [Coding::Gzip, Coding::Brotli, Coding::Deflate, Coding::Zstd];
    let at = |number: u8| all.get(usize::from(number) % all.len()).copied();
    let codings: Vec<_> =
        if *which < 128 { at(*which).into_iter().collect() } else { [at(*which), at(*which / 4)].into_iter().flatten().collect() };
    let said = Said { names: String::new(), codings: Ok(codings) };
    let decode = |size: usize| {
        let mut decoder = said.decoder(LIMIT).unwrap_or_else(|| unreachable!());
        let mut out = Vec::new();
        let pushed = coded.chunks(size).try_for_each(|chunk| decoder.push(chunk, &mut |piece| out.extend_from_slice(piece)));
        assert!(out.len() as u64 == decoder.decoded() && decoder.decoded() <= LIMIT);
        (pushed.and_then(|()| decoder.finish()).is_ok(), out)
    };
    let (whole, bytewise) = (decode(usize::MAX), decode(1));
    assert_eq!(whole.0, bytewise.0, "however it is cut, it is the same");
    assert!(!whole.0 || whole.1 == bytewise.1);
}

#[cfg(test)]
mod tests;
