//! The ring page and the port: bytes out, bytes in (xen/include/public/io/xs_wire.h, `xen:docs/misc/xenstore-ring.txt`).

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::mem;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll, ready};

use fata_events::any;
use fata_events::xen::{Channel, Ports};
use fata_grant::{ByteLayout, ByteRing};
use fata_hypercall::{Hypervisor, SharedPage};

use super::Shared;
use crate::Error;
use crate::wire::Assembler;

/// Offsets in the ring page, beyond the two rings (`struct xenstore_domain_interface`).
const SERVER_FEATURES: usize = 2064;
const CONNECTION: usize = 2068;
const ERROR: usize = 2072;

/// Bits of `server_features`.
const FEATURE_RECONNECT: u32 = 1;
const FEATURE_ERROR: u32 = 2;

/// The value of `connection` while a reconnect is under way.
const RECONNECT: u32 = 1;

/// Messages taken in before everybody else gets a turn, however fast the server refills the ring.
const MESSAGES_PER_TURN: usize = 32;

/// Bytes copied out of the ring at once.
const BUFFER: usize = 256;

/// The ring of a domain and its event channel.
#[derive(Debug)]
pub(super) struct Line<H: Hypervisor> {
    hv: H,
    /// Another one after each restore of the domain.
    channel: RefCell<Rc<Channel<H>>>,
}

/// What one look at the ring did.
struct Progress {
    /// Bytes moved either way: the server must be told.
    moved: bool,
    /// There may be more to do at once.
    again: bool,
}

/// One connection's own state: it ends with it.
struct Connection<'a> {
    page: &'a SharedPage,
    ring: ByteRing,
    /// The server's events up to the last look at the ring.
    events: u64,
    input: Assembler,
    output: Vec<u8>,
    sent: usize,
    /// Messages received.
    received: u64,
}

impl<H: Hypervisor> Line<H> {
    pub(super) fn new(hv: H, channel: Channel<H>) -> Self {
        Self {
            hv,
            channel: RefCell::new(Rc::new(channel)),
        }
    }

    /// Goes on over the ring of a new Xen domain. Nothing was under way in the old one: [`Store::quiet`](super::Store::quiet).
    pub(super) fn resume(&self, ports: &Ports<H>) -> Result<(), Error> {
        let ring = self.hv.store_ring().ok_or(Error::NoRing)?;
        let channel = ports.adopt(ring.port).map_err(|_| Error::Port)?;
        // Of what the old server has written a part may have been read: the rest makes no sense to anybody. The new one
        // speaks when it is spoken to.
        let ring = ByteRing::attach(ByteLayout::XENSTORE, ring.page).and_then(|mut bytes| bytes.skip(ring.page));
        self.channel.replace(Rc::new(channel));
        ring.map_err(|_| Error::BadRing)
    }

    /// Serves the callers until the connection is lost for good.
    pub(super) async fn serve(&self, shared: &Shared) -> Error {
        loop {
            let Some(ring) = self.hv.store_ring() else {
                return Error::NoRing;
            };
            let page = ring.page;
            let channel = Rc::clone(&self.channel.borrow());
            connected(page, &channel).await;
            let (error, received) = match Connection::new(page, channel.count()) {
                Ok(mut connection) => {
                    let lost = poll_fn(|cx| poll_messages(&channel, &mut connection, shared, cx)).await;
                    (lost, connection.received)
                }
                Err(error) => (error, 0),
            };
            if !channel.is_open() {
                continue; // the domain was restored
            }
            let can_reconnect = load(page, SERVER_FEATURES) & FEATURE_RECONNECT != 0;
            if !can_reconnect || received == 0 {
                return error;
            }
            shared.mux.borrow_mut().reconnect();
            page.store_u32(CONNECTION, RECONNECT, Ordering::SeqCst);
            channel.notify();
        }
    }
}

/// Waits while a reconnect is under way; it may be at the very start too (dom0less).
fn connected<H: Hypervisor>(page: &SharedPage, channel: &Channel<H>) -> impl Future<Output = ()> {
    poll_fn(|cx| {
        loop {
            let seen = channel.count();
            if load(page, CONNECTION) != RECONNECT || !channel.is_open() {
                return Poll::Ready(());
            }
            ready!(channel.poll_after(seen, cx));
        }
    })
}

/// Moves messages until there is nothing to do. Ready when that cannot go on, with the reason.
fn poll_messages<H: Hypervisor>(
    channel: &Channel<H>,
    connection: &mut Connection<'_>,
    shared: &Shared,
    cx: &mut Context<'_>,
) -> Poll<Error> {
    loop {
        if !channel.is_open() {
            return Poll::Ready(Error::Disconnected);
        }
        let before = mem::replace(&mut connection.events, channel.count());
        let kicked = shared.kick.count();
        let progress = match connection.pump(shared) {
            Ok(progress) => progress,
            Err(error) => return Poll::Ready(error),
        };
        if progress.moved {
            channel.notify();
        }
        if progress.moved || connection.events != before {
            channel.served(progress.moved);
        }
        if let Some(error) = stopped(connection.page) {
            return Poll::Ready(error);
        }
        if progress.again {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let event = channel.poll_after(connection.events, cx);
        ready!(any([event, shared.kick.poll_after(kicked, cx)]));
    }
}

impl<'a> Connection<'a> {
    /// Takes up the ring where it is: offsets start anywhere, and nothing in the page is ours to clear (rule 66).
    fn new(page: &'a SharedPage, events: u64) -> Result<Self, Error> {
        let ring = ByteRing::attach(ByteLayout::XENSTORE, page).map_err(|_| Error::BadRing)?;
        Ok(Self {
            page,
            ring,
            events,
            input: Assembler::new(),
            output: Vec::new(),
            sent: 0,
            received: 0,
        })
    }

    /// Takes in what there is and sends what there is room for, within bounds.
    fn pump(&mut self, shared: &Shared) -> Result<Progress, Error> {
        let mut moved = false;
        let mut messages = 0;
        let mut buffer = [0; BUFFER];
        while messages < MESSAGES_PER_TURN {
            let wanted = self.input.wanted()?;
            if wanted == 0 {
                if let Some(packet) = self.input.packet() {
                    shared.mux.borrow_mut().receive(packet)?;
                }
                self.input.clear();
                self.received += 1;
                messages += 1;
                continue;
            }
            let (space, _) = buffer.split_at_mut(wanted.min(BUFFER));
            let len = self.ring.read(self.page, space).map_err(|_| Error::BadRing)?;
            if len == 0 {
                break;
            }
            moved = true;
            self.input.feed(space.get(..len).unwrap_or_default())?;
        }
        moved |= self.send(shared)?;
        Ok(Progress {
            moved,
            again: messages == MESSAGES_PER_TURN,
        })
    }

    /// Sends until the ring is full or there is no more.
    fn send(&mut self, shared: &Shared) -> Result<bool, Error> {
        let mut moved = false;
        loop {
            let rest = self.output.get(self.sent..).unwrap_or_default();
            if rest.is_empty() {
                match shared.mux.borrow_mut().take_message() {
                    Some(message) => (self.output, self.sent) = (message, 0),
                    None => return Ok(moved),
                }
                continue;
            }
            let len = self.ring.write(self.page, rest).map_err(|_| Error::BadRing)?;
            if len == 0 {
                return Ok(moved);
            }
            self.sent += len;
            moved = true;
        }
    }
}

/// Why the server has stopped, if it says that it has.
fn stopped(page: &SharedPage) -> Option<Error> {
    if load(page, SERVER_FEATURES) & FEATURE_ERROR == 0 {
        return None;
    }
    match load(page, ERROR) {
        0 => None,
        code => Some(Error::ServerStopped(code)),
    }
}

fn load(page: &SharedPage, offset: usize) -> u32 {
    page.load_u32(offset, Ordering::Acquire).unwrap_or(0)
}
