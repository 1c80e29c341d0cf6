//! What a raw echo socket is woken for. It is handed every ICMP packet of the host, and two hundred of them would each read what the others
//! get: so a classic BPF program (bpf(4), linux/filter.h) lets only what is about its own requests through.

use nix::libc;
use socket2::SockFilter;

use crate::wire::icmp::Version;

const LOAD_HEADER_LENGTH: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const LOAD_INDEX: u32 = libc::BPF_LDX | libc::BPF_IMM;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_IND;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const SHIFT: u32 = libc::BPF_ALU | libc::BPF_LSH | libc::BPF_K;
const ADD: u32 = libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K;
const ADD_INDEX: u32 = libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X;
const TO_INDEX: u32 = libc::BPF_MISC | libc::BPF_TAX;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Echo replies with this identifier, and errors about echo requests with it. IPv4 packets come with their IP header, ICMPv6 ones without.
pub(super) fn about_requests_of(version: Version, identifier: u16) -> Vec<SockFilter> {
    let (request, reply) = (version.echo_request().into(), version.echo_reply().into());
    // To here both ways lead, with the index where the header of an echo message begins.
    let is_ours = [step(LOAD_HALF, 4), branch(IF_EQUAL, identifier.into(), 0, 1), step(RETURN, u32::MAX), step(RETURN, 0)];
    let find: &[Step] = match version {
        Version::V4 => &[
            step(LOAD_HEADER_LENGTH, 0),
            step(LOAD_BYTE, 0),
            branch(IF_EQUAL, reply, 14, 0),
            // Destination unreachable, source quench, time exceeded, parameter problem.
            branch(IF_EQUAL, 3, 3, 0),
            branch(IF_EQUAL, 4, 2, 0),
            branch(IF_EQUAL, 11, 1, 0),
            branch(IF_EQUAL, 12, 0, 13),
            // What is quoted carries ICMP; its header is behind the error's 8 bytes and an IP header of its own length.
            step(LOAD_BYTE, 8 + 9),
            branch(IF_EQUAL, 1, 0, 11),
            step(LOAD_BYTE, 8),
            step(AND, 0x0f),
            step(SHIFT, 2),
            step(ADD_INDEX, 0),
            step(ADD, 8),
            step(TO_INDEX, 0),
            step(LOAD_BYTE, 0),
            branch(IF_EQUAL, request, 0, 3),
        ],
        Version::V6 => &[
            step(LOAD_INDEX, 0),
            step(LOAD_BYTE, 0),
            branch(IF_EQUAL, reply, 6, 0),
            // Informational messages begin with 128.
            branch(IF_AT_LEAST, 128, 8, 0),
            step(LOAD_BYTE, 8 + 6),
            branch(IF_EQUAL, 58, 0, 6),
            step(LOAD_INDEX, 8 + 40),
            step(LOAD_BYTE, 0),
            branch(IF_EQUAL, request, 0, 3),
        ],
    };
    // The codes fit: the kernel's are 16 bits wide.
    find.iter().chain(&is_ours).map(|(code, value, so, not)| SockFilter::new(*code as u16, *so, *not, *value)).collect()
}

/// A code, its value, and how many steps to go on from the next one: where a comparison holds, and where it does not.
type Step = (u32, u32, u8, u8);

const fn step(code: u32, value: u32) -> Step {
    (code, value, 0, 0)
}

const fn branch(code: u32, value: u32, so: u8, not: u8) -> Step {
    (code, value, so, not)
}
