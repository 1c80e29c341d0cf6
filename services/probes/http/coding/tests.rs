use std::io::Write as _;

use flate2::{
    Compression,
    write::{DeflateEncoder, GzEncoder, ZlibEncoder},
};

use super::*;

/// What brotli 1.0.9 makes of ten million zeros, and of the same with `--large_window=28`.
const BROTLI_ZEROS: &[u8] = &[0x9f, 0x7f, 0x96, 0x98, 0xf8, 0x27, 0x00, 0xe2, 0xb1, 0x40, 0x20, 0xc7, 0x11, 0x13];
const LARGE_WINDOW: &[u8] = &[0x11, 0x5c, 0xfe, 0x59, 0x62, 0xe2, 0x9f, 0x00, 0x88, 0xc7, 0x02, 0x01, 0x39, 0x8e, 0x98];
/// The same text by brotli.
const TEXT: &[u8] = br#"{"status":"ok","nodes":[1,2,3],"text":"hello hello hello hello"}"#;
const BROTLI_TEXT: &[u8] = &[
    0xa1, 0xf8, 0x01, 0x00, 0xe9, 0x38, 0x8c, 0x1d, 0x4f, 0x17, 0x3f, 0x02, 0xc1, 0xa2, 0xd2, 0x89, 0x23, 0x54, 0xf2, 0x16, 0xd9, 0x5a,
    0xdb, 0xdb, 0x31, 0x32, 0x33, 0x6f, 0x9a, 0x45, 0xa7, 0xab, 0x2f, 0x38, 0xe4, 0x80, 0xf9, 0xa0, 0x2d, 0x8b, 0xec, 0x58, 0x36, 0x2a,
    0xaa, 0xfa, 0x98, 0x7a, 0x49, 0x1e, 0xce, 0xe1, 0xa0, 0x86, 0x9d, 0x1c, 0xef, 0x8b, 0x03,
];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bare(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8], window: u32) -> Vec<u8> {
    let mut context = zstd_safe::CCtx::create();
    context.set_parameter(zstd_safe::CParameter::WindowLog(window)).unwrap();
    context.set_parameter(zstd_safe::CParameter::ContentSizeFlag(false)).unwrap();
    context.set_parameter(zstd_safe::CParameter::ChecksumFlag(true)).unwrap();
    let mut coded = Vec::with_capacity(zstd_safe::compress_bound(bytes.len()));
    context.compress2(&mut coded, bytes).unwrap();
    coded
}

fn said(names: &[&'static str]) -> Said {
    let mut headers = HeaderMap::new();
    for name in names {
        headers.append(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    Said::by(&headers)
}

/// Decodes in chunks of `size`.
fn decode(name: &'static str, coded: &[u8], limit: u64, size: usize) -> (Vec<u8>, Result<(), Fault>) {
    let mut decoder = said(&[name]).decoder(limit).unwrap();
    let mut out = Vec::new();
    let pushed = coded.chunks(size).try_for_each(|chunk| decoder.push(chunk, &mut |piece| out.extend_from_slice(piece)));
    assert_eq!(decoder.decoded(), out.len() as u64);
    (out, pushed.and_then(|()| decoder.finish()))
}

#[test]
fn every_coding_is_undone_however_it_is_cut() {
    let text = TEXT.repeat(1000);
    let tests = [
        ("gzip", gzip(&text)),
        ("X-GZip", gzip(&text)),
        ("gzip", [gzip(&text[..7]), gzip(b""), gzip(&text[7..])].concat()),
        ("deflate", zlib(&text)),
        ("Deflate", bare(&text)),
        ("zstd", zstd(&text, 20)),
        ("zstd", [zstd(&text[..7], 20), zstd(&text[7..], 23)].concat()),
        ("identity, gzip", gzip(&text)),
        ("gzip, deflate", zlib(&gzip(&text))),
        ("zstd, gzip, deflate, gzip", gzip(&bare(&gzip(&zstd(&text, 20))))),
    ];
    for (name, coded) in tests {
        for size in [1, 7, 1000, usize::MAX] {
            assert_eq!(decode(name, &coded, text.len() as u64, size), (text.clone(), Ok(())), "{name} in chunks of {size}");
        }
    }
    for size in [1, 7, usize::MAX] {
        assert_eq!(decode("br", BROTLI_TEXT, 64, size), (TEXT.to_vec(), Ok(())));
    }
}

#[test]
fn no_more_is_decoded_than_the_limit() {
    let zeros = vec![0; 10_000_000];
    let tests = [
        ("gzip", gzip(&zeros)),
        ("deflate", zlib(&zeros)),
        ("deflate", bare(&zeros)),
        ("br", BROTLI_ZEROS.to_vec()),
        ("zstd", zstd(&zeros, 23)),
        ("gzip, gzip", gzip(&gzip(&zeros))),
        ("gzip, br", BROTLI_ZEROS.to_vec()),
    ];
    for (name, coded) in &tests {
        for limit in [1, 128, 9_999_999] {
            let (out, result) = decode(name, coded, limit, usize::MAX);
            if *name == "gzip, br" {
                assert!(matches!(result, Err(Fault::Malformed(_))), "zeros are no gzip");
                continue;
            }
            assert_eq!((out.len() as u64, result), (limit, Err(Fault::TooLarge)), "{name}");
        }
    }
    for (name, coded) in &tests[..6] {
        assert_eq!(decode(name, coded, 10_000_000, usize::MAX), (zeros.clone(), Ok(())), "{name}");
    }
    // A bomb within a bomb never becomes what it would become: between the two, no more passes than a body that is allowed could take.
    let endless = gzip(&gzip(b"").repeat(4000));
    assert_eq!(decode("gzip, gzip", &endless, 128, usize::MAX).1, Err(Fault::TooLarge));
}

#[test]
fn windows_beyond_the_standards_are_refused() {
    let zeros = vec![0; 10_000_000];
    assert!(matches!(decode("zstd", &zstd(&zeros, 24), 10_000_000, usize::MAX).1, Err(Fault::Malformed(_))));
    assert!(matches!(decode("br", LARGE_WINDOW, 10_000_000, usize::MAX).1, Err(Fault::Malformed(_))));
}

#[test]
fn what_is_cut_short_or_broken_is_malformed_and_what_follows_is_passed_over() {
    for (name, coded) in
        [("gzip", gzip(TEXT)), ("deflate", zlib(TEXT)), ("deflate", bare(TEXT)), ("br", BROTLI_TEXT.to_vec()), ("zstd", zstd(TEXT, 20))]
    {
        for length in 1..coded.len() {
            assert!(matches!(decode(name, &coded[..length], 1000, 3).1, Err(Fault::Malformed(_))), "{name}: {length} of {}", coded.len());
        }
        assert_eq!(decode(name, b"", 1000, 1).1, Ok(()), "no body is no broken one");
        let broken: Vec<_> = (0..coded.len())
            .filter(|at| {
                let mut coded = coded.clone();
                coded[*at] ^= 0xff;
                decode(name, &coded, 1000, 3) != (TEXT.to_vec(), Ok(()))
            })
            .collect();
        assert!(broken.len() * 4 >= coded.len() * 3, "{name}: {broken:?} of {}", coded.len());
        assert!(matches!(decode(name, b"<!DOCTYPE html>", 1000, 3).1, Err(Fault::Malformed(_))), "{name}");
        if name != "zstd" {
            let (out, result) = decode(name, &[&coded, &b"\0\0and more"[..]].concat(), 1000, 3);
            assert_eq!((out.as_slice(), result), (TEXT, Ok(())), "{name}");
        }
    }
}

#[test]
fn headers_and_members_without_end_are_malformed() {
    let named = |length: usize| [&[0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 3][..], &vec![b'x'; length], &[0], &bare(TEXT)].concat();
    let sum = &gzip(TEXT)[gzip(TEXT).len() - 8..];
    assert_eq!(decode("gzip", &[&named(4000), sum].concat(), 1000, 1000).1, Ok(()));
    for size in [1, 1000, usize::MAX] {
        assert!(matches!(decode("gzip", &[&named(9000), sum].concat(), 1000, size).1, Err(Fault::Malformed(_))));
    }
    assert!(matches!(decode("gzip", &gzip(b"").repeat(5000), 1_000_000, usize::MAX).1, Err(Fault::Malformed(_))));
}

#[test]
fn a_coding_that_nobody_knows_is_named_and_nothing_is_decoded() {
    assert_eq!(said(&[]).unknown(), None);
    assert_eq!(said(&["identity", ""]).unknown(), None);
    assert!(said(&["identity"]).decoder(1).is_none());
    let unknown = said(&["gzip", "compress"]);
    assert_eq!((unknown.names.as_str(), unknown.unknown()), ("gzip, compress", Some("as \"compress\", which is not known here")));
    assert!(unknown.decoder(1).is_none());
    assert_eq!(said(&["gzip, gzip, gzip", "gzip, gzip"]).unknown(), Some("in more than 4 codings"));
}

#[test]
fn codings_are_asked_for_by_name() {
    let accept = |codings: &[HttpCoding]| accept(&codings.iter().map(|coding| i32::from(*coding)).collect::<Vec<_>>());
    assert_eq!(accept(&[]), Ok(None));
    assert_eq!(accept(&[HttpCoding::Br, HttpCoding::Gzip]), Ok(Some(HeaderValue::from_static("br, gzip"))));
    assert_eq!(accept(&[HttpCoding::Gzip, HttpCoding::Gzip]).unwrap_err().field, "content_codings[1]");
    assert_eq!(accept(&[HttpCoding::Unspecified]).unwrap_err().field, "content_codings[0]");
}
