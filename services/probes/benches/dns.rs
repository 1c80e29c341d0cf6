//! What a run of the kind dns costs: `Plan::run` of one question over UDP, beside a bare loop that opens a socket, asks, hears and closes.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark says what it saw, and ends where it can't go on")]

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use nix::time::{ClockId, clock_gettime};
use vantage_contract::v1::{DnsProbe, Outcome, Probe, probe::Kind};
use vantage_probes::{OpenGate, Plan, World};

const RUNS: u32 = 30_000;

/// A server in a thread of its own that answers each question with one address.
fn serve() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            // Without the OPT record.
            let mut answer = buffer[..length - 11].to_vec();
            answer[2] |= 0x80;
            answer[7] = 1;
            answer[11] = 0;
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1]);
            let _ = socket.send_to(&answer, client);
        }
    });
    address
}

/// The processor time of this thread.
fn spent() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap())
}

fn told(what: &str, spent: Duration) -> Duration {
    let each = spent / RUNS;
    println!("{what}: {each:?} of processor time each, {:.0} a second", 1.0 / each.as_secs_f64());
    each
}

fn main() {
    let server = serve();
    let question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x01\x07example\x04test\x00\x00\x01\x00\x01\x00\x00\x29\x04\xd0\x00\x00\x00\x00\x00\x00";
    let before = spent();
    for _ in 0..RUNS {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(server).unwrap();
        socket.send(question).unwrap();
        socket.recv(&mut [0; 512]).unwrap();
    }
    let bare = told("bare", spent() - before);

    let spec =
        DnsProbe { server: server.ip().to_string(), port: server.port().into(), query: "example.test".into(), ..DnsProbe::default() };
    let plan = Plan::parse(&Probe { kind: Some(Kind::Dns(spec)), ..Probe::default() }).unwrap();
    let world = World::new(Arc::new(OpenGate));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ran = runtime.block_on(async {
        let before = spent();
        for _ in 0..RUNS {
            let sight = plan.run(&world).await;
            assert_eq!(sight.outcome, Outcome::Passed, "{}", sight.summary);
        }
        spent() - before
    });
    let ran = told("run", ran);
    println!("a run is {:.2} of the bare loop", bare.as_secs_f64() / ran.as_secs_f64());
}
