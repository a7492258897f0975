//! The console as the rest of the program sees it.

use alloc::rc::Rc;
use alloc::string::String;
use core::cell::{Cell, RefCell, RefMut};
use core::fmt;
use core::future::poll_fn;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use fata_events::xen::{Channel, Ports, PvClock};
use fata_events::{Clock, Signal, any};
use fata_grant::{ByteLayout, ByteRing, RingError};
use fata_hypercall::Hypervisor;

use crate::Error;
use crate::input::Input;
use crate::line::Line;
use crate::output::{Next, Output, Ring};

/// How often [`Console::flush`] looks in vain before it gives up: a daemon that wakes us without taking anything.
const VAIN_LOOKS: u32 = 64;

/// What a console did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes put into the ring, line ends as two.
    pub written: u64,
    /// Bytes of text that did not get into the ring: ring and backlog were full, or there was no ring any more. Xen's log may have
    /// the latter; a release build of Xen does not take them.
    pub dropped: u64,
    /// Bytes that wait in memory for room in the ring.
    pub backlog: usize,
    /// Bytes typed.
    pub received: u64,
    /// Notifications sent to the daemon.
    pub notifications: u64,
    /// The console's ring is in use; otherwise output goes to Xen's log.
    pub open: bool,
}

/// The domain's console. Clones are the same console.
///
/// ```no_run
/// # fn example<H: fata_hypercall::Hypervisor>(xen: &fata_events::xen::XenLoop<H>, hv: H) {
/// use fata_console::Console;
///
/// let console = Console::new(hv, xen.ports());
/// xen.handle().spawn(console.clone().run()).detach();
/// writeln!(console, "up after {:?}", xen.handle().now());
/// # }
/// ```
pub struct Console<H: Hypervisor>(Rc<Shared<H>>);

struct Shared<H: Hypervisor> {
    hv: H,
    /// `None` if the domain has no console ring.
    channel: RefCell<Option<Rc<Channel<H>>>>,
    state: RefCell<State>,
    /// There is something for [`Console::run`] to do.
    work: Signal,
    /// The ring was closed.
    closed: Signal,
    /// The daemon's events up to the last look at what was typed.
    read_at: Cell<u64>,
    notifications: Cell<u64>,
}

struct State {
    /// `None` without a ring, and after the peer broke it.
    ring: Option<ByteRing>,
    output: Output,
    input: Input,
    line: Line,
}

impl<H: Hypervisor> Shared<H> {
    fn channel(&self) -> Option<Rc<Channel<H>>> {
        self.channel.borrow().clone()
    }

    /// Goes on without the ring, which the peer broke.
    #[cold]
    fn close(&self, mut state: RefMut<'_, State>) {
        self.hv
            .console_io(b"console: impossible ring index; output goes to Xen's log\n");
        state.output.rescue(|bytes| self.hv.console_io(bytes));
        drop(state);
        self.closed.raise();
    }
}

/// Why the ring could not be used.
enum Unusable {
    /// There is none, or none any more.
    Closed,
    /// It is in use further up the stack: a panic or a log message inside the console.
    Busy,
}

impl<H: Hypervisor> Clone for Console<H> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<H: Hypervisor> Console<H> {
    /// Takes up the domain's console. Without one, or if its ring makes no sense, output goes to Xen's log.
    #[must_use]
    pub fn new(hv: H, ports: &Ports<H>) -> Self {
        let (ring, channel) = attach(&hv, ports).unzip();
        let state = State {
            ring,
            output: Output::new(),
            input: Input::new(),
            line: Line::default(),
        };
        Self(Rc::new(Shared {
            hv,
            channel: RefCell::new(channel),
            state: RefCell::new(state),
            work: Signal::new(),
            closed: Signal::new(),
            read_at: Cell::new(0),
            notifications: Cell::new(0),
        }))
    }

    /// Goes on in a new Xen domain ([`Suspended::Restored`](fata_hypercall::Suspended::Restored)): takes up its console, after
    /// [`Ports::resume`]. What the daemon had not taken before is lost, or not, as the toolstack likes: it may have emptied
    /// the ring.
    pub fn resume(&self, ports: &Ports<H>) {
        let shared = &*self.0;
        let (ring, channel) = attach(&shared.hv, ports).unzip();
        shared.channel.replace(channel);
        if let Ok(mut state) = shared.state.try_borrow_mut() {
            state.ring = ring;
        }
        shared.work.raise();
    }

    /// Writes text. LF becomes CR LF. It never blocks and never fails: see the crate's page for what happens to text
    /// that finds no room.
    ///
    /// It may be called from anywhere, also while the console itself is at work (from a panic, or from a log message
    /// below it): then, and without a ring, the text goes to Xen's log.
    pub fn write(&self, text: &[u8]) {
        let next = self.with_ring(|state, ring| {
            state.output.write(ring, text)?;
            Ok((state.output.next(ring)?, state.output.is_waiting()))
        });
        match next {
            Ok((Next::Nothing, _)) => {}
            Ok((Next::Later, _)) => self.0.work.raise(),
            Ok((Next::Now, waiting)) => {
                self.announce();
                if waiting {
                    self.0.work.raise();
                }
            }
            Err(_) => {
                self.0.hv.console_io(text);
                if let Ok(mut state) = self.0.state.try_borrow_mut() {
                    state.output.lose(text.len());
                }
            }
        }
    }

    /// Writes formatted text, so that `write!` and `writeln!` work on a console.
    pub fn write_fmt(&self, text: fmt::Arguments<'_>) {
        let mut whole = Whole {
            console: self,
            bytes: [0; 256],
            len: 0,
        };
        // The console cannot fail; a `Display` that does has written what it has written.
        let _ = fmt::write(&mut whole, text);
        whole.flush();
    }

    /// The console's life: notifies the daemon once for each burst of output, and moves the backlog into the ring as
    /// the daemon makes room. It never ends: where there is no ring, or none any more, a restore may bring one.
    pub async fn run(self) {
        let mut woken = false;
        loop {
            let (work, channel) = (self.0.work.count(), self.0.channel());
            let events = channel.as_ref().map_or(0, |channel| channel.count());
            let pumped = self.with_ring(|state, ring| {
                let before = state.output.backlog();
                state.output.pump(ring)?;
                Ok((state.output.is_waiting(), state.output.backlog() < before))
            });
            // Without a ring there is nothing to do before `resume` brings one.
            let (waiting, moved) = pumped.unwrap_or_default();
            self.announce();
            if let (true, Some(channel)) = (woken, &channel) {
                channel.served(moved);
            }
            woken = poll_fn(|cx| {
                // The daemon says each time that it has taken something. Nobody wants to know unless something waits.
                let event = match &channel {
                    Some(channel) if waiting => channel.poll_after(events, cx),
                    _ => Poll::Pending,
                };
                any([self.0.work.poll_after(work, cx), event]).map(|()| event.is_ready())
            })
            .await;
        }
    }

    /// Reads what was typed, when there is something; at least one byte unless `to` is empty. The bytes are as the
    /// terminal sends them: a line ends with CR, and nothing is echoed.
    ///
    /// # Errors
    /// [`Error::Closed`] if there is no ring, or when it is closed.
    pub fn read(&self, to: &mut [u8]) -> impl Future<Output = Result<usize, Error>> {
        poll_fn(|cx| self.poll_read(to, cx))
    }

    fn poll_read(&self, to: &mut [u8], cx: &mut Context<'_>) -> Poll<Result<usize, Error>> {
        loop {
            let channel = self.0.channel().ok_or(Error::Closed)?;
            let (events, closed) = (channel.count(), self.0.closed.count());
            let count = self.try_read(to)?;
            if self.0.read_at.replace(events) != events {
                channel.served(count > 0);
            }
            if count > 0 || to.is_empty() {
                return Poll::Ready(Ok(count));
            }
            ready!(any([
                channel.poll_after(events, cx),
                self.0.closed.poll_after(closed, cx)
            ]));
        }
    }

    /// Reads a line as it is typed: echoes, obeys backspace, ends at CR, LF or both, which are not part of it. At
    /// most [`MAX_LINE`](crate::MAX_LINE) bytes; bytes that are not UTF-8 are replaced.
    ///
    /// Dropping the future loses nothing: the next call goes on with the unfinished line.
    ///
    /// # Errors
    /// [`Error::Closed`] if there is no ring, or when it is closed.
    pub fn read_line(&self) -> impl Future<Output = Result<String, Error>> {
        poll_fn(|cx| self.poll_line(cx))
    }

    /// [`read_line`](Self::read_line) for hand-written futures.
    ///
    /// # Errors
    /// The same.
    pub fn poll_line(&self, cx: &mut Context<'_>) -> Poll<Result<String, Error>> {
        loop {
            let mut typed = [0; 64];
            let count = ready!(self.poll_read(&mut typed, cx))?;
            if let Some(line) = self.edit_line(typed.get(..count).unwrap_or_default()) {
                return Poll::Ready(Ok(line));
            }
        }
    }

    /// Feeds what was typed to the line; what comes after its end is kept for the next read.
    fn edit_line(&self, typed: &[u8]) -> Option<String> {
        // Taken out, because the echo goes through the console too.
        let mut line = core::mem::take(&mut self.0.state.borrow_mut().line);
        let mut complete = None;
        let mut rest = typed;
        while let (None, Some((&byte, after))) = (&complete, rest.split_first()) {
            complete = line.push(byte, |echo| self.write(echo));
            rest = after;
        }
        let mut state = self.0.state.borrow_mut();
        state.line = line;
        state.input.put_back(rest);
        complete
    }

    /// Reads what is there now; 0 if there is nothing.
    fn try_read(&self, to: &mut [u8]) -> Result<usize, Error> {
        let read = self.with_ring(|state, ring| state.input.read(ring, to));
        let (count, from_ring) = read.map_err(|_| Error::Closed)?;
        if from_ring > 0 {
            self.notify(); // the daemon may wait for room
        }
        Ok(count)
    }

    /// Waits, without the loop, until the daemon has taken everything, at most for `limit`: for the last words of a
    /// domain. `true` if nothing is left.
    ///
    /// It sleeps in `SCHEDOP_poll` between looks, and gives up early on a daemon that only pretends to work. From
    /// inside a task, write and go on instead: this one stops the whole loop.
    pub fn flush(&self, clock: &PvClock<H>, limit: Duration) -> bool {
        let Some(channel) = self.0.channel() else { return true };
        let deadline = clock.now() + limit;
        let mut left_before = usize::MAX;
        let mut vain = 0;
        loop {
            // Taking the count clears the pending bit; set, it would keep poll from sleeping.
            let _ = channel.count();
            let left = self.with_ring(|state, ring| {
                state.output.pump(ring)?;
                Ok(ring.used()? + state.output.backlog())
            });
            let left = match left {
                Ok(0) => return true,
                Ok(left) => left,
                Err(Unusable::Closed) => return true, // it went to Xen's log
                Err(Unusable::Busy) => return false,
            };
            vain = if left < left_before { 0 } else { vain + 1 };
            if vain > VAIN_LOOKS || clock.now() >= deadline {
                return false;
            }
            if left_before == usize::MAX {
                self.notify(); // whatever it was told before: this is its last chance
            }
            self.announce();
            left_before = left;
            self.0.hv.poll(&[channel.port()], clock.to_system_time(deadline));
        }
    }

    /// What it did.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let notifications = self.0.notifications.get();
        let Ok(state) = self.0.state.try_borrow() else {
            return Stats {
                notifications,
                ..Stats::default()
            };
        };
        Stats {
            written: state.output.written(),
            dropped: state.output.dropped(),
            backlog: state.output.backlog(),
            received: state.input.received(),
            notifications,
            open: state.ring.is_some(),
        }
    }

    /// Does something with the ring. If it turns out to be broken, it is closed.
    fn with_ring<R>(&self, act: impl FnOnce(&mut State, &mut Ring<'_>) -> Result<R, RingError>) -> Result<R, Unusable> {
        let shared = &*self.0;
        let mut state = shared.state.try_borrow_mut().map_err(|_| Unusable::Busy)?;
        let mut ring = state.ring.take().ok_or(Unusable::Closed)?;
        let service = shared.hv.console_ring().ok_or(Unusable::Closed)?;
        let result = act(
            &mut state,
            &mut Ring {
                ring: &mut ring,
                page: service.page,
            },
        );
        match result {
            Ok(value) => {
                state.ring = Some(ring);
                Ok(value)
            }
            Err(_) => {
                shared.close(state);
                Err(Unusable::Closed)
            }
        }
    }

    /// Notifies the daemon of output that it was not told of, if there is any.
    fn announce(&self) {
        let due = self
            .0
            .state
            .try_borrow_mut()
            .is_ok_and(|mut state| state.output.announce());
        if due {
            self.notify();
        }
    }

    fn notify(&self) {
        if let Some(channel) = self.0.channel() {
            self.0.notifications.set(self.0.notifications.get() + 1);
            channel.notify();
        }
    }
}

/// The domain's console ring and its port, if they can be used.
fn attach<H: Hypervisor>(hv: &H, ports: &Ports<H>) -> Option<(ByteRing, Rc<Channel<H>>)> {
    let service = hv.console_ring()?;
    let ring = ByteRing::attach(ByteLayout::CONSOLE, service.page).ok();
    let found = ring.zip(ports.adopt(service.port).ok());
    if found.is_none() {
        hv.console_io(b"console: the ring is unusable; output goes to Xen's log\n");
    }
    found.map(|(ring, channel)| (ring, Rc::new(channel)))
}

impl<H: Hypervisor> fmt::Write for Console<H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write(text.as_bytes());
        Ok(())
    }
}

/// Puts the pieces together that formatting produces, so that a line is taken or dropped as a whole.
struct Whole<'a, H: Hypervisor> {
    console: &'a Console<H>,
    bytes: [u8; 256],
    len: usize,
}

impl<H: Hypervisor> Whole<'_, H> {
    fn flush(&mut self) {
        self.console.write(self.bytes.get(..self.len).unwrap_or_default());
        self.len = 0;
    }
}

impl<H: Hypervisor> fmt::Write for Whole<'_, H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > self.bytes.len() - self.len {
            self.flush();
        }
        match self.bytes.get_mut(self.len..self.len + text.len()) {
            Some(room) => {
                room.copy_from_slice(text.as_bytes());
                self.len += text.len();
            }
            None => self.console.write(text.as_bytes()),
        }
        Ok(())
    }
}

impl<H: Hypervisor> fmt::Debug for Console<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Console").field(&self.stats()).finish()
    }
}
