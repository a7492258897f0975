//! The stream.

use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::poll_fn;
use core::task::{Context, Poll, ready};

use fata_events::{Signal, any};

use crate::Error;
use crate::end::End;
use crate::layout::{READ, WRITTEN};
use crate::vchans::Kept;

/// One end of a stream of bytes between two domains. Dropping it closes it.
///
/// It can be read and written at the same time, by different tasks too: all methods take `&self`, and the traits of
/// `embedded-io-async` are there for `&Vchan` as well. What several tasks write is mixed, and what they read is shared out.
pub struct Vchan {
    /// `None` once it is closed.
    end: RefCell<Option<End>>,
    /// Raised then.
    closed: Signal,
    why: Cell<Error>,
    /// Dropped then.
    kept: Cell<Option<Kept>>,
}

impl Vchan {
    pub(crate) fn new(end: End, kept: Kept) -> Self {
        Self {
            end: RefCell::new(Some(end)),
            closed: Signal::new(),
            why: Cell::new(Error::Closed),
            kept: Cell::new(Some(kept)),
        }
    }

    /// Waits until the client has come. A client's own end is connected from the start.
    ///
    /// # Errors
    /// [`Error::Closed`] after [`close`](Self::close).
    pub fn connected(&self) -> impl Future<Output = Result<(), Error>> {
        poll_fn(|cx| self.poll(cx, 0, |end| Ok(end.is_met().then_some(()))))
    }

    /// Reads some bytes, as soon as there is one. 0 means that the peer has closed its end and all was read (or that `to` is
    /// empty).
    ///
    /// # Errors
    /// [`Error::BadIndex`] if the peer claims to have written what cannot be: then the vchan is closed. [`Error::Closed`]
    /// after [`close`](Self::close).
    pub fn read(&self, to: &mut [u8]) -> impl Future<Output = Result<usize, Error>> {
        poll_fn(|cx| self.poll(cx, WRITTEN, |end| end.read(to)))
    }

    /// Writes some of `bytes`, as soon as there is room, and gives how many. The peer can read them at once.
    ///
    /// # Errors
    /// [`Error::Closed`] if the peer has closed its end, or this one is closed; [`Error::BadIndex`] if the peer claims to
    /// have read what cannot be: then the vchan is closed.
    pub fn write(&self, bytes: &[u8]) -> impl Future<Output = Result<usize, Error>> {
        poll_fn(|cx| self.poll(cx, READ, |end| end.write(bytes)))
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As [`write`](Self::write); some of the bytes may have been written.
    pub fn write_all(&self, mut bytes: &[u8]) -> impl Future<Output = Result<(), Error>> {
        poll_fn(move |cx| {
            while !bytes.is_empty() {
                let count = ready!(self.poll(cx, READ, |end| end.write(bytes)))?;
                bytes = bytes.get(count..).unwrap_or_default();
            }
            Poll::Ready(Ok(()))
        })
    }

    /// Waits until the peer has read everything that was written. A peer need not read what is left when it learns of a
    /// close, so flush before.
    ///
    /// # Errors
    /// [`Error::Closed`] if it never will; [`Error::BadIndex`].
    pub fn flush(&self) -> impl Future<Output = Result<(), Error>> {
        poll_fn(|cx| self.poll(cx, READ, End::is_flushed))
    }

    /// Whether the peer is there, or may still come.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.end.borrow_mut().as_mut().is_some_and(End::is_open)
    }

    /// Closes this end, at once. The peer can read what was written before, and whoever waits here gets
    /// [`Error::Closed`]. Nothing of the peer's is used or granted after this, except for pages of ours that it still
    /// maps: they stay in the grant table's quarantine until it lets go.
    pub fn close(&self) {
        self.end_with(Error::Closed);
    }

    fn end_with(&self, why: Error) {
        if let Some(end) = self.end.take() {
            self.why.set(why);
            end.set_open(false);
            self.kept.take();
            self.closed.raise();
        }
    }

    /// Has `attempt` look at the rings until it is content. In between it waits for an event; `wish` is what the peer shall
    /// send one for.
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        wish: u8,
        mut attempt: impl FnMut(&mut End) -> Result<Option<T>, Error>,
    ) -> Poll<Result<T, Error>> {
        loop {
            let mut slot = self.end.borrow_mut();
            let Some(end) = &mut *slot else {
                return Poll::Ready(Err(self.why.get()));
            };
            let (events, closed) = (end.link.events(), self.closed.count());
            let mut outcome = attempt(end);
            if let Ok(None) = outcome {
                end.ask(wish);
                outcome = attempt(end);
            }
            end.judge(events);
            match outcome {
                Ok(Some(done)) => return Poll::Ready(Ok(done)),
                Ok(None) => drop(ready!(any([
                    end.poll_after(events, cx),
                    self.closed.poll_after(closed, cx),
                ]))),
                Err(error) => {
                    drop(slot);
                    if matches!(error, Error::BadIndex(_)) {
                        self.end_with(error);
                    }
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl Drop for Vchan {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Vchan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vchan")
            .field("open", &self.is_open())
            .finish_non_exhaustive()
    }
}
