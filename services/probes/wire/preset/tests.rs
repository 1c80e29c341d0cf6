use proptest::prelude::*;

use super::*;
use crate::wire::text::hex;

const ALL: [Preset; 8] = [Preset::Dns, Preset::Ntp, Preset::Snmp, Preset::Sip, Preset::Stun, Preset::Coap, Preset::Memcached, Preset::Quic];

/// Bytes that are random enough for a test: each differs.
fn seed() -> [u8; SEED] {
    std::array::from_fn(|index| u8::try_from(index * 7 + 0x11).unwrap())
}

fn question(preset: Preset) -> Vec<u8> {
    preset.question(&seed(), "192.0.2.7:40000".parse().unwrap(), "198.51.100.9:5060".parse().unwrap())
}

fn judge(preset: Preset, answer: &str) -> Answer {
    preset.judge(&question(preset), &hex(answer).unwrap())
}

#[test]
fn each_question_has_these_bytes() {
    let bytes = |preset| -> String { question(preset).iter().map(|byte| format!("{byte:02x}")).collect() };
    assert_eq!(bytes(Preset::Dns), "1118000000010000000000000000020001");
    assert_eq!(bytes(Preset::Ntp), format!("23{}11181f262d343b42", "00".repeat(39)));
    assert_eq!(bytes(Preset::Snmp), "302902010104067075626c6963a01c020451181f26020100020100300e300c06082b060102010101000500");
    assert_eq!(bytes(Preset::Stun), "000100002112a44211181f262d343b424950575e");
    assert_eq!(bytes(Preset::Coap), "40001118");
    assert_eq!(bytes(Preset::Memcached), format!("1118000000010000{}", "76657273696f6e0d0a"));
    let quic = question(Preset::Quic);
    assert_eq!((quic.len(), &quic[..23]), (1200, hex("c01a1a1a2a082d343b424950575e08656c737a81888f96").unwrap().as_ref()));
    let sip = String::from_utf8(question(Preset::Sip)).unwrap();
    assert!(
        sip.starts_with(
            "OPTIONS sip:198.51.100.9:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7:40000;branch=z9hG4bK11181f262d343b42;rport\r\n"
        )
    );
    assert!(sip.contains("\r\nCall-ID: 4950575e656c737a\r\nCSeq: 1 OPTIONS\r\n") && sip.ends_with("\r\n\r\n"));
}

#[test]
fn an_answer_repeats_what_is_ours_and_one_to_another_question_does_not() {
    let pairs = [
        (Preset::Dns, "1118818000010000000000000000020001", "1119818000010000000000000000020001"),
        // Format error, without the question.
        (Preset::Dns, "111881810000000000000000", "111981810000000000000000"),
        (Preset::Stun, "010100002112a44211181f262d343b424950575e", "010100002112a44211181f262d343b424950575f"),
        (Preset::Stun, "011100042112a44211181f262d343b424950575e80220000", "011100042112a44200181f262d343b424950575e80220000"),
        (Preset::Coap, "70001118", "70001119"),
        (Preset::Coap, "60001118", "60001018"),
        (Preset::Memcached, "111800000001000056455253494f4e20312e362e31380d0a", "111900000001000056455253494f4e20312e362e31380d0a"),
        // The id in as few bytes as another writes it, and lengths of two bytes.
        (
            Preset::Snmp,
            "30820029020101040670 75626c6963a21c020451181f26020100020100300e300c06082b060102010101000500",
            "302902010104067075626c6963a21c020451181f27020100020100300e300c06082b060102010101000500",
        ),
        (Preset::Quic, "c00000000008656c737a81888f96082d343b424950575e00000001", "c00000000008656c737a81888f97082d343b424950575e00000001"),
    ];
    for (preset, ours, another) in pairs {
        assert_eq!(judge(preset, ours), Answer::Ours, "{preset:?}");
        assert_eq!(judge(preset, another), Answer::Stranger, "{preset:?}");
    }
    let mut ntp = [0; 48];
    ntp[0] = 0x24;
    ntp[24..32].copy_from_slice(&seed()[..8]);
    let question = question(Preset::Ntp);
    assert_eq!(Preset::Ntp.judge(&question, &ntp), Answer::Ours);
    ntp[31] ^= 1;
    assert_eq!(Preset::Ntp.judge(&question, &ntp), Answer::Stranger);
}

#[test]
fn what_real_servers_said_to_these_questions_is_their_answer() {
    let captured = [
        // unbound 1.17.1, memcached 1.6.18, chronyd 4.3, libcoap 4.3.1, aioquic, coturn 4.6.1 and net-snmp 5.9.3, on 24 November 2026.
        (Preset::Dns, "1118848300010000000000000000020001"),
        (Preset::Memcached, "111800000001000056455253494f4e20312e362e31380d0a"),
        (Preset::Ntp, "240300e600000000000000007f7f0101eeb028470be4793311181f262d343b42eeb0285f84d36063eeb0285f852dd528"),
        (Preset::Coap, "70001118"),
        (Preset::Quic, "be0000000008656c737a81888f96082d343b424950575e000000016b3343cf"),
        (
            Preset::Stun,
            "0101003c2112a44211181f262d343b424950575e002000080001cc575e12a443000100080001ed457f000001802b000800015bb67f000001\
             80220014436f7475726e2d342e362e312027476f72737427",
        ),
        (
            Preset::Snmp,
            "306202010104067075626c6963a255020451181f260201000201003047304506082b0601020101010004394c696e757820766d20362e31382e34342d\
             66632d7636363920233120534d5020505245454d50545f44594e414d4943204030207838365f3634",
        ),
    ];
    for (preset, answer) in captured {
        assert_eq!(judge(preset, answer), Answer::Ours, "{preset:?}");
    }
    // kamailio 5.6.3.
    let answer = "SIP/2.0 200 OK\r\n\
        Via: SIP/2.0/UDP 192.0.2.7:40000;branch=z9hG4bK11181f262d343b42;rport=48094;received=127.0.0.1\r\n\
        From: <sip:probe@192.0.2.7:40000>;tag=81888f96\r\n\
        To: <sip:198.51.100.9:5060>;tag=5497176f96ac98204aead303f19a0d17.bc24a2f2\r\n\
        Call-ID: 4950575e656c737a\r\nCSeq: 1 OPTIONS\r\n\
        Server: kamailio (5.6.3 (x86_64/linux))\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(Preset::Sip.judge(&question(Preset::Sip), answer.as_bytes()), Answer::Ours);
}

#[test]
fn a_question_that_comes_back_as_it_is_and_things_of_other_protocols_are_no_answers() {
    for preset in ALL {
        for other in ALL {
            assert_eq!(preset.judge(&question(preset), &question(other)), Answer::Foreign, "{preset:?} {other:?}");
        }
        assert_eq!(preset.judge(&question(preset), b""), Answer::Foreign);
        assert_eq!(preset.judge(&question(preset), b"HTTP/1.1 400 Bad Request\r\n\r\n"), Answer::Foreign);
    }
    // A negotiation that offers nothing is none.
    assert_eq!(judge(Preset::Quic, "c00000000008656c737a81888f96082d343b424950575e"), Answer::Stranger);
    // An error needs no question, success without one is nothing.
    assert_eq!(judge(Preset::Dns, "111881800000000000000000"), Answer::Foreign);
    // Our own question with something before it, whatever its id.
    for id in 0..=u8::MAX {
        let mut question = question(Preset::Dns);
        question[1] = id;
        assert_eq!(Preset::Dns.judge(&question, &[b"[", question.as_slice()].concat()), Answer::Foreign);
    }
}

#[test]
fn a_sip_answer_is_known_by_branch_call_and_number_however_its_headers_are_spelt() {
    let answer = |branch: &str, call: &str, number: &str| {
        let text = format!(
            "SIP/2.0 405 Method Not Allowed\r\nv: SIP/2.0/UDP 192.0.2.7:40000;rport=40000;received=192.0.2.7;branch={branch}\r\n\
             i:{call}\r\nCSEQ: {number}\r\nContent-Length: 0\r\n\r\n"
        );
        Preset::Sip.judge(&question(Preset::Sip), text.as_bytes())
    };
    assert_eq!(answer("z9hG4bK11181f262d343b42", "4950575e656c737a", "1  OPTIONS"), Answer::Ours);
    assert_eq!(answer("z9hG4bK11181f262d343b43", "4950575e656c737a", "1 OPTIONS"), Answer::Stranger);
    assert_eq!(answer("z9hG4bK11181f262d343b42", "another", "1 OPTIONS"), Answer::Stranger);
    assert_eq!(answer("z9hG4bK11181f262d343b42", "4950575e656c737a", "2 OPTIONS"), Answer::Stranger);
}

#[test]
fn names_are_those_of_the_contract() {
    for preset in ALL {
        assert_eq!(Preset::named(preset.name()), Some(preset));
        assert!(Preset::NAMES.contains(&preset.name()));
    }
    assert_eq!(Preset::named("radius"), None);
}

proptest! {
    #[test]
    fn any_bytes_are_judged_without_panic(seed in prop::array::uniform32(any::<u8>()), bytes in prop::collection::vec(any::<u8>(), 0..120), cut in 0_usize..64) {
        let (local, remote) = ("[2001:db8::1]:1".parse().unwrap(), "[2001:db8::2]:2".parse().unwrap());
        for preset in ALL {
            let question = preset.question(&seed, local, remote);
            preset.judge(&question, &bytes);
            // What is like an answer, up to somewhere.
            let mut like = question.clone();
            like.truncate(cut);
            like.extend(&bytes);
            preset.judge(&question, &like);
        }
    }

    #[test]
    fn no_two_questions_are_the_same(one in prop::array::uniform32(any::<u8>()), other in prop::array::uniform32(any::<u8>())) {
        let (local, remote) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
        // SNMP's ids have 30 bits.
        prop_assume!(one[..2] != other[..2] && one[4..20] != other[4..20] && [one[0] & 0x3f, one[1]] != [other[0] & 0x3f, other[1]]);
        for preset in ALL {
            prop_assert_ne!(preset.question(&one, local, remote), preset.question(&other, local, remote));
        }
    }
}
