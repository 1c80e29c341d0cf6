//! The echo engine: all pings of a process over one long-lived socket for each family.
//!
//! A thread of its own sends and receives in batches, so that neither thousands of sockets nor a busy runtime stand between a packet and
//! its stamps. The stamps are the kernel's; that the thread reads a packet a little later than it came changes no figure, and under load it
//! waits on purpose until there is a batch. `core` decides who sends what when and whose reply it is; `lane` is a socket; `batch` the system
//! calls; this file the thread and the way in.

mod batch;
mod clocks;
mod core;
mod lane;
mod meminfo;
mod tally;
mod thread;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::sync::oneshot;

use self::lane::{Lane, Road};
#[cfg(test)]
pub(crate) use self::tally::{Reply, Stuffing};
pub(crate) use self::{
    core::{Landing, Order},
    tally::{Fate, Tally},
};
use crate::{
    failure::{Failure, Moment},
    wire::icmp::Version,
};

/// What the thread is told.
enum Command {
    /// Here is the socket of a road.
    Open(usize, Box<Lane>),
    /// Carry this out, over that road.
    Begin(Order, usize, oneshot::Sender<Landing>),
}

/// What the thread and its callers share.
struct Shared {
    commands: Mutex<Vec<Command>>,
    /// The thread waits without looking at the commands, until `bell` is rung.
    asleep: AtomicBool,
    /// Nobody asks any more: the thread ends when nothing is under way.
    closed: AtomicBool,
    /// The thread has ended, for whatever reason.
    ended: AtomicBool,
    bell: EventFd,
}

impl Shared {
    fn tell(&self, command: Command) {
        self.commands.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        self.ring();
    }

    fn ring(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // It counts rings; it can't overflow, as each is answered before the next.
            let _ = self.bell.write(1);
        }
    }
}

/// The thread, once there is one, and the sockets it has.
struct Crew {
    shared: Arc<Shared>,
    /// The style of each road's socket, once it is open.
    styles: [Option<&'static str>; Road::COUNT],
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.ring();
    }
}

/// All pings of a process. Its thread and sockets are made when they are first needed and end with it.
#[derive(Default)]
pub struct EchoEngine {
    crew: Mutex<Option<Crew>>,
}

impl EchoEngine {
    /// Sends echo requests and waits for what becomes of them, and says over which style of socket: "datagram" or "raw".
    ///
    /// Fails NOT_PERMITTED where this process may have no echo socket, LOCAL_NETWORK where the source is no address of this machine.
    pub(crate) async fn fly(&self, order: Order) -> Result<(Landing, &'static str), Failure> {
        if let Some(source) = order.source {
            claim(source)?;
        }
        let (landing, style) = self.start(order)?;
        let landing = landing.await.map_err(|_| Failure::internal("the echo engine broke: a fault in Vantage"))?;
        Ok((landing, style))
    }

    fn start(&self, order: Order) -> Result<(oneshot::Receiver<Landing>, &'static str), Failure> {
        let road = Road { version: Version::of(order.target), dont_fragment: order.manner.dont_fragment };
        let mut crew = self.crew.lock().unwrap_or_else(PoisonError::into_inner);
        let crew = match &mut *crew {
            Some(crew) if !crew.shared.ended.load(Ordering::SeqCst) => crew,
            absent => absent.insert(assemble()?),
        };
        let style = match crew.styles.get_mut(road.number()) {
            Some(Some(style)) => *style,
            place => {
                let lane = Lane::open(order.target, road)?;
                let style = lane.style();
                crew.shared.tell(Command::Open(road.number(), Box::new(lane)));
                place.into_iter().for_each(|place| *place = Some(style));
                style
            }
        };
        let (done, landing) = oneshot::channel();
        crew.shared.tell(Command::Begin(order, road.number(), done));
        Ok((landing, style))
    }
}

fn assemble() -> Result<Crew, Failure> {
    let failed = |error: std::io::Error| Failure::of_io("start the echo engine", &error, Moment::AtOnce);
    let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|errno| failed(errno.into()))?;
    let shared = Arc::new(Shared {
        commands: Mutex::default(),
        asleep: AtomicBool::new(false),
        closed: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        bell,
    });
    let theirs = Arc::clone(&shared);
    std::thread::Builder::new().name("vantage-echo".into()).spawn(move || thread::work(theirs)).map_err(failed)?;
    Ok(Crew { shared, styles: [None; Road::COUNT] })
}

/// Makes sure that `source` is an address of this machine: a control message that names another is refused with an errno that says less.
fn claim(source: IpAddr) -> Result<(), Failure> {
    let domain = if source.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    Socket::new(domain, Type::DGRAM, None)
        .and_then(|socket| socket.bind(&SockAddr::from(SocketAddr::new(source, 0))))
        .map_err(|error| Failure::of_io(format!("bind to {source}"), &error, Moment::AtOnce))
}
