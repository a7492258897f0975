//! The stream.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::poll_fn;
use core::task::{Context, Poll, ready};
use core::time::Duration;

use fata_events::{Handle, Instant, Signal, any};

use crate::Error;
use crate::end::End;
use crate::layout::{READ, WRITTEN};
use crate::vchans::Kept;

/// How often the other end is looked after while somebody waits for it: see [`End::look_after_peer`].
const LOOK_AFTER: Duration = Duration::from_secs(5);

/// One end of a stream of bytes between two domains. Dropping it closes it.
///
/// It can be read and written at the same time, by different tasks too: all methods take `&self`, and the traits of
/// `embedded-io-async` are there for `&Vchan` as well. What several tasks write is mixed, and what they read is shared out.
pub struct Vchan(pub(crate) Rc<State>);

/// What is there while it is open, and why it is not.
pub(crate) struct State {
    /// `None` once it is closed.
    end: RefCell<Option<End>>,
    /// Raised then.
    closed: Signal,
    why: Cell<Error>,
    /// Dropped then.
    kept: Cell<Option<Kept>>,
    handle: Handle,
    /// When the other end was looked after.
    looked: Cell<Instant>,
}

impl Vchan {
    pub(crate) fn new(end: End, kept: Option<Kept>, handle: &Handle) -> Self {
        Self(Rc::new(State {
            end: RefCell::new(Some(end)),
            closed: Signal::new(),
            why: Cell::new(Error::Closed),
            kept: Cell::new(kept),
            handle: handle.clone(),
            looked: Cell::new(handle.now()),
        }))
    }

    /// Waits until the client has come. A client's own end is connected from the start.
    ///
    /// # Errors
    /// [`Error::Closed`] after [`close`](Self::close).
    pub async fn connected(&self) -> Result<(), Error> {
        self.wait(0, |end| Ok(end.is_met().then_some(()))).await
    }

    /// Reads some bytes, as soon as there is one. 0 means that the peer has closed its end and all was read (or that `to` is
    /// empty).
    ///
    /// # Errors
    /// [`Error::BadIndex`] if the peer claims to have written what cannot be: then the vchan is closed. [`Error::Closed`]
    /// after [`close`](Self::close).
    pub async fn read(&self, to: &mut [u8]) -> Result<usize, Error> {
        self.wait(WRITTEN, |end| end.read(to)).await
    }

    /// Writes some of `bytes`, as soon as there is room, and gives how many. The peer can read them at once.
    ///
    /// # Errors
    /// [`Error::Closed`] if the peer has closed its end, or this one is closed; [`Error::BadIndex`] if the peer claims to
    /// have read what cannot be: then the vchan is closed.
    pub async fn write(&self, bytes: &[u8]) -> Result<usize, Error> {
        self.wait(READ, |end| end.write(bytes)).await
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As [`write`](Self::write); some of the bytes may have been written.
    pub async fn write_all(&self, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            let count = self.write(bytes).await?;
            bytes = bytes.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    /// Waits until the peer has read everything that was written. A peer need not read what is left when it learns of a
    /// close, so flush before.
    ///
    /// # Errors
    /// [`Error::Closed`] if it never will; [`Error::BadIndex`].
    pub async fn flush(&self) -> Result<(), Error> {
        self.wait(READ, End::is_flushed).await
    }

    /// Whether the peer is there, or may still come, as far as is known: see [the crate's page](crate#when-the-other-end-goes-away).
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.end.borrow_mut().as_mut().is_some_and(End::is_open)
    }

    /// Closes this end, at once. The peer can read what was written before, and whoever waits here gets
    /// [`Error::Closed`]. Nothing of the peer's is used or granted after this, except for pages of ours that it still
    /// maps: they stay in the grant table's quarantine until it lets go.
    pub fn close(&self) {
        self.0.end_with(Error::Closed);
    }

    /// Has `attempt` look at the rings until it is content, and looks after the other end if that takes long.
    async fn wait<T>(
        &self,
        wish: u8,
        mut attempt: impl FnMut(&mut End) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        let state = &*self.0;
        loop {
            let done = poll_fn(|cx| self.poll(cx, wish, &mut attempt));
            // Since the last look, not since now: who gives up and waits again all the time is told as well.
            match state.handle.timeout_at(state.looked.get() + LOOK_AFTER, done).await {
                Ok(done) => return done,
                Err(_) => state.look(),
            }
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
            let state = &*self.0;
            let mut slot = state.end.borrow_mut();
            let Some(end) = &mut *slot else {
                return Poll::Ready(Err(state.why.get()));
            };
            let (events, closed) = (end.link.events(), state.closed.count());
            let mut outcome = attempt(end);
            if let Ok(None) = outcome {
                end.ask(wish);
                outcome = attempt(end);
            }
            end.judge(events);
            match outcome {
                Ok(Some(done)) => return Poll::Ready(Ok(done)),
                Ok(None) => ready!(any([end.poll_after(events, cx), state.closed.poll_after(closed, cx),])),
                Err(error) => {
                    drop(slot);
                    if matches!(error, Error::BadIndex(_)) {
                        state.end_with(error);
                    }
                    return Poll::Ready(Err(error));
                }
            }
        }
    }
}

impl State {
    /// Looks after the other end.
    fn look(&self) {
        self.looked.set(self.handle.now());
        if let Some(end) = &mut *self.end.borrow_mut() {
            end.look_after_peer();
        }
    }

    /// Closes it, unless it is.
    pub(crate) fn end_with(&self, why: Error) {
        if let Some(end) = self.end.take() {
            self.why.set(why);
            end.set_open(false);
            self.kept.take();
            self.closed.raise();
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

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use core::pin::pin;
    use core::task::Waker;

    use fata_events::{Executor, ManualClock};
    use fata_hypercall::SharedPage;
    use fata_hypercall::sync::Ordering::SeqCst;

    use super::*;
    use crate::Sizes;
    use crate::layout::{Layout, Side};
    use crate::link::Link;

    /// A page on which the peer does something just when we look at it for the `when`th time.
    struct Racing {
        page: SharedPage,
        looks: Cell<usize>,
        when: usize,
        peer: fn(&SharedPage),
        /// What it was asked to tell us of, once it has.
        wishes: Rc<Cell<Option<u8>>>,
    }

    impl Link for Racing {
        fn first(&self) -> &SharedPage {
            if self.looks.replace(self.looks.get() + 1) == self.when {
                (self.peer)(&self.page);
                self.wishes.set(self.page.load_u8(Side::Server.own_wishes(), SeqCst));
            }
            &self.page
        }
        fn put(&self, offset: usize, from: &[u8]) {
            self.page.write(offset, from);
        }
        fn get(&self, offset: usize, to: &mut [u8]) {
            self.page.read(offset, to);
        }
        fn events(&self) -> u64 {
            0
        }
        fn poll_after(&self, _seen: u64, _cx: &mut Context<'_>) -> Poll<u64> {
            Poll::Pending
        }
        fn served(&self, _found: bool) {}
        fn notify(&self) {}
        fn has_peer(&self) -> bool {
            true
        }
    }

    /// Has the peer do something at each of our looks in turn: it is seen, or the peer is asked to tell us.
    fn race(prepare: fn(&SharedPage), peer: fn(&SharedPage), wish: u8, is_done: fn(&Vchan) -> bool) {
        let layout = Layout::with_room(Sizes::default()).unwrap();
        let executor = Executor::new(Rc::new(ManualClock::default()));
        // The first look is that of `End::new`, before the client has come.
        for when in 1.. {
            let link = Racing {
                page: SharedPage::new_zeroed(),
                looks: Cell::new(0),
                when,
                peer,
                wishes: Rc::default(),
            };
            link.page.store_u8(Side::Server.peer_live(), 1, SeqCst);
            prepare(&link.page);
            let wishes = Rc::clone(&link.wishes);
            let end = End::new(Box::new(link), layout, Side::Server).unwrap();
            let vchan = Vchan::new(end, None, &executor.handle());
            let done = is_done(&vchan);
            match wishes.get() {
                Some(wishes) => assert!(done || wishes & wish != 0, "lost at look {when}"),
                None => {
                    assert!(when > 4, "there are more looks than that");
                    return;
                }
            }
        }
    }

    fn is_ready(future: impl Future) -> bool {
        pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn rule_09_asking_for_a_notification_looks_once_more() {
        let written = |page: &SharedPage| page.store_u32(4, 5, SeqCst);
        race(|_| {}, written, WRITTEN, |vchan| is_ready(vchan.read(&mut [0; 8])));
        // The ring is full: 2048 bytes that were written and not read.
        let full = |page: &SharedPage| page.store_u32(12, 2048, SeqCst);
        let taken = |page: &SharedPage| page.store_u32(8, 100, SeqCst);
        race(full, taken, READ, |vchan| is_ready(vchan.write(&[0; 8])));
        let all = |page: &SharedPage| page.store_u32(8, 2048, SeqCst);
        race(full, all, READ, |vchan| is_ready(vchan.flush()));
    }
}
