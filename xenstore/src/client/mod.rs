//! The client: requests, transactions and watches over one ring.

mod mux;
mod nodes;
mod ring;
mod transaction;
mod watch;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::ops::Deref;
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use fata_events::xen::Ports;
use fata_events::{Handle, Signal};
use fata_hypercall::Hypervisor;

use crate::Error;
use crate::wire::{MessageType, Request, reply};
use mux::{Effect, Mux};
use ring::Line;

pub use transaction::Transaction;
pub use watch::Watch;

/// What a client has done and has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests so far.
    pub requests: u64,
    /// Watch events so far.
    pub events: u64,
    /// Messages of the server's that belong to nothing: unknown numbers, tokens or types.
    pub ignored: u64,
    /// Transactions that had to be tried again.
    pub retries: u64,
    /// Connections that were lost and made again.
    pub reconnects: u64,
    /// Requests that wait for their turn or their answer, those that nobody waits for any more included.
    pub pending: usize,
    /// Watches alive.
    pub watches: usize,
}

impl Stats {
    const fn new() -> Self {
        Self {
            requests: 0,
            events: 0,
            ignored: 0,
            retries: 0,
            reconnects: 0,
            pending: 0,
            watches: 0,
        }
    }
}

/// What all clones of a client share.
#[derive(Debug)]
struct Shared {
    mux: RefCell<Mux>,
    /// Raised when there may be something to send.
    kick: Signal,
    /// Transactions under way.
    transactions: Cell<usize>,
    /// Raised when one of them ends.
    transaction_ended: Signal,
    handle: Handle,
}

impl Shared {
    /// Works on the requests, and has what they have become sent.
    fn with<T>(&self, work: impl FnOnce(&mut Mux) -> T) -> T {
        let mut mux = self.mux.borrow_mut();
        let result = work(&mut mux);
        if mux.has_message() {
            self.kick.raise();
        }
        result
    }
}

impl Shared {
    #[inline(never)]
    fn forget(&self, id: u32) {
        self.with(|mux| mux.forget(id));
    }

    /// The payload of the answer to the request `id` of the type `kind`.
    fn poll(&self, id: Result<u32, Error>, kind: MessageType, cx: &mut Context<'_>) -> Poll<Result<Vec<u8>, Error>> {
        Poll::Ready(ready!(self.mux.borrow_mut().poll(id?, cx))?.into_payload(kind))
    }
}

/// The store as a domain sees it: its nodes, transactions over them, and watches.
///
/// Clones are the same client. Paths are relative to `/local/domain/<us>` unless they begin with a slash. Requests of
/// several callers are under way at the same time, 16 at most; further ones wait their turn in the order in which
/// they came. Dropping the future of a request is allowed at any time.
///
/// All methods fail with [`Error::Refused`] if the server refuses, [`Error::BadPath`] and [`Error::TooLong`] before
/// anything is sent, [`Error::BadMessage`] if the answer makes no sense, and with what ended the connection when it
/// has ended. What else is possible stands with the method.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Rc<Shared>,
    /// The transaction that node operations belong to, and the connection it was opened on.
    transaction: Option<(u32, u32)>,
}

impl Client {
    /// Sends a request. `understand` makes of the server's answer what the caller wants.
    fn ask<T>(&self, request: Result<Request<'_>, Error>, understand: Understand<T>) -> Asked<'_, T> {
        match self.submit(request) {
            Ok((id, kind)) => self.asked(Ok(id), kind, understand),
            Err(error) => self.asked(Err(error), MessageType::ERROR, understand),
        }
    }

    fn submit(&self, request: Result<Request<'_>, Error>) -> Result<(u32, MessageType), Error> {
        let request = request?;
        let tx_id = match self.transaction {
            Some((_, generation)) if generation != self.shared.mux.borrow().generation() => {
                return Err(Error::Disconnected);
            }
            Some((id, _)) => id,
            None => 0,
        };
        let id = self.shared.with(|mux| mux.submit(&request, tx_id, Effect::None))?;
        Ok((id, request.kind()))
    }

    fn asked<T>(&self, id: Result<u32, Error>, kind: MessageType, understand: Understand<T>) -> Asked<'_, T> {
        Asked {
            shared: &self.shared,
            id,
            kind,
            understand,
        }
    }

    /// Sends a request whose answer says nothing but yes or no.
    fn done(&self, request: Result<Request<'_>, Error>) -> Asked<'_, ()> {
        self.ask(request, is_ok)
    }

    /// Opens a transaction on the server. Gives its number, and the connection that it was asked for on.
    fn begin(&self) -> (Asked<'_, u32>, u32) {
        let (id, generation) = self.shared.with(|mux| {
            let id = mux.submit(&Request::TransactionStart, 0, Effect::Transaction);
            (id, mux.generation())
        });
        let asked = self.asked(id, MessageType::TRANSACTION_START, |answer| {
            answer.and_then(reply::transaction)
        });
        (asked, generation)
    }

    /// The loop that the client's pauses run on.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.shared.handle
    }

    /// Which life of the domain this is: another number after each restore.
    #[must_use]
    pub fn life(&self) -> u32 {
        self.shared.mux.borrow().life()
    }

    /// What it has done and has to do.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.mux.borrow().stats()
    }
}

/// What a server's answer, or the want of one, means to a caller.
type Understand<T> = fn(Result<&[u8], Error>) -> Result<T, Error>;

/// For requests whose answer says nothing but yes or no.
fn is_ok(answer: Result<&[u8], Error>) -> Result<(), Error> {
    answer.and_then(reply::ok)
}

/// A request under way: the future of its answer. Dropped early, it withdraws the request, or lets the server's answer
/// be ignored.
///
/// It is one plain type, not an async block for each kind of request: whoever awaits many of them stays small.
#[derive(Debug)]
#[must_use = "a request that is dropped is withdrawn"]
pub struct Asked<'a, T> {
    shared: &'a Shared,
    /// The request's number; or why it could not be made.
    id: Result<u32, Error>,
    kind: MessageType,
    understand: Understand<T>,
}

impl<T> Future for Asked<'_, T> {
    type Output = Result<T, Error>;

    // Awaited in many places, none of which is in a hurry.
    #[inline(never)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.shared.poll(self.id, self.kind, cx));
        Poll::Ready((self.understand)(answer.as_deref().map_err(|error| *error)))
    }
}

impl<T> Drop for Asked<'_, T> {
    fn drop(&mut self) {
        if let Ok(id) = self.id {
            self.shared.forget(id);
        }
    }
}

/// A domain's connection to the store: a [`Client`], and the ring it works over.
///
/// Clones are the same connection. Nothing moves until [`run`](Self::run) is polled; requests made earlier wait.
#[derive(Debug)]
pub struct Store<H: Hypervisor> {
    client: Client,
    line: Rc<Line<H>>,
}

impl<H: Hypervisor> Clone for Store<H> {
    fn clone(&self) -> Self {
        Self {
            client: self.client.clone(),
            line: Rc::clone(&self.line),
        }
    }
}

impl<H: Hypervisor> Deref for Store<H> {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl<H: Hypervisor> Store<H> {
    /// Takes charge of the domain's store ring. Nothing is sent and the page is not touched.
    ///
    /// # Errors
    /// [`Error::NoRing`] if the toolstack gave the domain none; [`Error::Port`] if its port has an owner already.
    pub fn new(hv: H, ports: &Ports<H>, handle: Handle) -> Result<Self, Error> {
        let port = hv.store_ring().ok_or(Error::NoRing)?.port;
        let channel = ports.adopt(port).map_err(|_| Error::Port)?;
        let shared = Rc::new(Shared {
            mux: RefCell::new(Mux::new()),
            kick: Signal::new(),
            transactions: Cell::new(0),
            transaction_ended: Signal::new(),
            handle,
        });
        let client = Client {
            shared,
            transaction: None,
        };
        Ok(Self {
            client,
            line: Rc::new(Line::new(hv, channel)),
        })
    }

    /// The client alone, for those who need not know what hypervisor is underneath.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Falls quiet: what was asked before has its answer when this is ready, and what is asked from now on waits as long as what
    /// it gives is kept.
    ///
    /// A domain that is suspended must not have half a request in its ring: who answers it after a restore is a server that
    /// has never heard of the domain.
    pub async fn quiet(&self) -> Quiet {
        let shared = Rc::clone(&self.client.shared);
        shared.mux.borrow_mut().hold(true);
        let quiet = Quiet(shared);
        poll_fn(|cx| quiet.0.mux.borrow().poll_settled(cx)).await;
        quiet
    }

    /// Goes on in a new Xen domain ([`Suspended::Restored`](fata_hypercall::Suspended::Restored)), after [`Ports::resume`]:
    /// takes up its ring and sets all watches again, each of which fires. Transactions are gone. To be called while it is
    /// [quiet](Self::quiet).
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::BadRing`]; then it is over, and everybody is told.
    pub fn resume(&self, ports: &Ports<H>) -> Result<(), Error> {
        let mut mux = self.client.shared.mux.borrow_mut();
        self.line
            .resume(ports)
            .inspect(|()| mux.restore())
            .inspect_err(|error| mux.stop(*error))
    }

    /// Moves messages between callers and ring: to be spawned once, and to be kept alive.
    ///
    /// It ends only when the connection is lost for good, and says why; then, or when it is dropped, every caller and
    /// every watch gets an error. A server that can reconnect (`server_features` bit 1) is given one attempt after
    /// each failure that came after a message: callers get an error, watches are set again.
    pub fn run(&self) -> impl Future<Output = Error> + use<H> {
        let line = Rc::clone(&self.line);
        let guard = StopOnDrop(Rc::clone(&self.client.shared));
        async move {
            let shared = &guard.0;
            let error = line.serve(shared).await;
            shared.mux.borrow_mut().stop(error);
            error
        }
    }
}

/// A store that sends nothing, until this is dropped: see [`Store::quiet`].
#[derive(Debug)]
#[must_use = "dropped, it lets requests go on"]
pub struct Quiet(Rc<Shared>);

impl Drop for Quiet {
    fn drop(&mut self) {
        self.0.with(|mux| mux.hold(false));
    }
}

/// Nobody waits for ever for a connection that nobody serves.
struct StopOnDrop(Rc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.mux.borrow_mut().stop(Error::Stopped);
    }
}
