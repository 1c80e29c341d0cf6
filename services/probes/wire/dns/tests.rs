use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

/// What unbound 1.17.1 answered to `www.test A`, asked with identifier 0x1234, EDNS and 1232 bytes.
const TWO_ADDRESSES: &str = "1234858000010002000000010377777704746573740000010001c00c000100010000012c0004c0000202\
    c00c000100010000012c0004c000020100002904d0000000000000";
/// The same of `nobody.test AAAA`: NXDOMAIN, with the zone's SOA record.
const NO_SUCH_NAME: &str = "123485830001000000010001066e6f626f6479047465737400001c0001c013000600010000012c0020026e73c01304686f7374\
    c01378c404c900001c2000000258000151800000012c00002904d0000000000000";

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes().chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn question(name: &str, record_type: u16) -> Question {
    let mut name = crate::wire::name::parse(name).unwrap();
    name.set_fqdn(true);
    Question { name, record_type, class: IN }
}

fn manner() -> Manner {
    Manner { recursion_desired: true, checking_disabled: false, edns_size: Some(1232), dnssec_ok: false, nsid: false, exact_case: false }
}

#[test]
fn a_question_is_the_bytes_that_dig_sends() {
    let sent = question("www.test", A).encode(0x1234, manner());
    assert_eq!(sent, bytes("123401000001000000000001037777770474657374000001000100002904d0000000000000"));
    let bare = Manner { recursion_desired: false, checking_disabled: true, edns_size: None, ..manner() };
    assert_eq!(question(".", 2).encode(1, bare), bytes("0001001000010000000000000000020001"));
    let naming = question("www.test", A).encode(0x1234, Manner { nsid: true, ..manner() });
    assert_eq!(naming, bytes("123401000001000000000001037777770474657374000001000100002904d000000000000400030000"));
}

#[test]
fn letters_that_came_back_in_another_case_are_told_from_a_stranger() {
    let asked = question("www.test", A).in_case([0b101; 32]).unwrap();
    assert_eq!(crate::wire::name::show(&asked.name), "WwW.test.");
    let mut same = bytes(TWO_ADDRESSES);
    let decode = |bytes: Vec<u8>, exact| Answer::decode_in_case(bytes, 0x1234, &asked, exact).map(|_| ());
    assert_eq!((decode(same.clone(), true), decode(same.clone(), false)), (Err(Refusal::OtherCase), Ok(())));
    same[13] = b'W';
    same[15] = b'W';
    assert_eq!(decode(same, true), Ok(()));
}

#[test]
fn a_server_that_names_itself_is_heard_and_two_opt_records_are_not() {
    let mut named = bytes(TWO_ADDRESSES);
    let end = named.len();
    // A cookie of one byte, then the name.
    named[end - 1] = 12;
    named.extend(b"\x00\x0a\x00\x01x\x00\x03\x00\x03ns1");
    let answer = Answer::decode(named.clone(), 0x1234, &question("www.test", A)).unwrap();
    assert_eq!(answer.nsid(), Some(&b"ns1"[..]));
    for cut in [1, 2, 5] {
        let mut broken = named.clone();
        broken[end - 1] -= cut;
        broken.truncate(broken.len() - usize::from(cut));
        assert_eq!(Answer::decode(broken, 0x1234, &question("www.test", A)).unwrap().nsid(), None);
    }
    let mut twice = bytes(TWO_ADDRESSES);
    twice[11] = 2;
    twice.extend_from_within(end - 11..);
    assert!(matches!(Answer::decode(twice, 0x1234, &question("www.test", A)), Err(Refusal::Malformed(_))));
}

#[test]
fn a_real_answer_is_read_whole() {
    let answer = Answer::decode(bytes(TWO_ADDRESSES), 0x1234, &question("WWW.test", A)).unwrap();
    assert_eq!((answer.rcode, answer.authoritative, answer.recursion_available, answer.truncated), (0, true, true, false));
    assert_eq!((answer.answers.len(), answer.authorities.len(), answer.additionals.len()), (2, 0, 0));
    assert_eq!(answer.answers[0].ttl, 300);
    let found = answer.addresses_of(&question("www.test", A).name);
    assert_eq!(found, [IpAddr::from([192, 0, 2, 2]), IpAddr::from([192, 0, 2, 1])]);

    let answer = Answer::decode(bytes(NO_SUCH_NAME), 0x1234, &question("nobody.test", AAAA)).unwrap();
    assert_eq!((answer.rcode, answer.answers.len(), answer.authorities.len()), (3, 0, 1));
    let soa = crate::wire::rdata::present(&answer, &answer.authorities[0]);
    assert_eq!(soa, "ns.test. host.test. 2026112201 7200 600 86400 300");
}

#[test]
fn an_answer_to_somebody_else_is_a_strangers() {
    let decode = |id, name, record_type| Answer::decode(bytes(TWO_ADDRESSES), id, &question(name, record_type)).map(|_| ());
    assert_eq!(decode(0x1235, "www.test", A), Err(Refusal::Stranger));
    assert_eq!(decode(0x1234, "w.test", A), Err(Refusal::Stranger));
    assert_eq!(decode(0x1234, "www.test", AAAA), Err(Refusal::Stranger));
    assert_eq!(decode(0x1234, "www.test", A), Ok(()));
}

#[test]
fn an_extended_rcode_is_put_together_and_a_negative_ttl_is_none() {
    let mut answer = bytes(TWO_ADDRESSES);
    let length = answer.len();
    answer[length - 6] = 1;
    answer[3] |= 7;
    answer[32] = 0x80;
    let answer = Answer::decode(answer, 0x1234, &question("www.test", A)).unwrap();
    assert_eq!((answer.rcode, answer.answers[0].ttl), (23, 0));
}

#[test]
fn pointers_that_go_round_or_forward_are_refused() {
    for target in [0xc01a_u16, 0xc0ff, 0xc000] {
        let mut answer = bytes(TWO_ADDRESSES);
        answer[26..28].copy_from_slice(&target.to_be_bytes());
        assert!(matches!(Answer::decode(answer, 0x1234, &question("www.test", A)), Err(Refusal::Malformed(_))));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut message = bytes(TWO_ADDRESSES);
        message.truncate(26);
        message.extend(tail);
        if let Ok(answer) = Answer::decode(message, 0x1234, &question("www.test", A)) {
            answer.addresses_of(&question("www.test", A).name);
            answer.nsid();
            for record in answer.answers.iter().chain(&answer.additionals) {
                crate::wire::rdata::present(&answer, record);
            }
        }
    }

    #[test]
    fn a_changed_byte_never_panics(at in 0_usize..200, byte in any::<u8>(), cut in 0_usize..200) {
        let mut message = bytes(NO_SUCH_NAME);
        let (at, cut) = (at % message.len(), message.len().saturating_sub(cut));
        message[at] = byte;
        message.truncate(cut);
        let _ = Answer::decode(message, 0x1234, &question("nobody.test", AAAA));
    }

    #[test]
    fn other_codecs_read_our_questions(labels in prop::collection::vec("[a-z0-9_-]{1,63}", 1..4), record_type: u16, class in 1_u16..254) {
        use hickory_proto::op::Message;
        let question = Question { record_type, class, ..question(&labels.join("."), A) };
        let read = Message::from_vec(&question.encode(7, manner())).unwrap();
        prop_assert_eq!(read.queries[0].name(), &question.name);
        prop_assert_eq!(u16::from(read.queries[0].query_type()), record_type);
        prop_assert_eq!(u16::from(read.queries[0].query_class()), class);
    }
}
