//! A counter to wait for.

use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use crate::wait_list::{Place, WaitList};

#[derive(Debug, Default)]
struct Inner {
    count: Cell<u64>,
    waiters: WaitList,
}

/// Counts events, and wakes who waits for one that it has not seen.
///
/// The waiter says which count it knows: anything later ends the wait at once. So an event between looking at the
/// state and waiting is never lost, and any number of waiters can watch the same signal. (The idea is MirageOS's
/// `Activations.after`; see rule 49.)
///
/// Clones are the same signal.
///
/// ```
/// # use fata_events::{Executor, ManualClock, Signal};
/// # use std::rc::Rc;
/// # let mut executor = Executor::new(Rc::new(ManualClock::default()));
/// let signal = Signal::new();
/// let task = executor.handle().spawn({
///     let signal = signal.clone();
///     async move {
///         let seen = signal.count();
///         signal.raise(); // comes before the wait, but after the look
///         signal.after(seen).await
///     }
/// });
/// executor.turn();
/// assert!(task.is_finished());
/// ```
#[derive(Clone, Default)]
pub struct Signal(Rc<Inner>);

impl Signal {
    /// A signal at count 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Events so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.count.get()
    }

    /// Counts one event and wakes everybody who waits.
    pub fn raise(&self) {
        self.0.count.set(self.0.count.get() + 1);
        self.0.waiters.wake_all();
    }

    /// Waits until the count is above `seen`; gives the new count, which may be more than one higher.
    pub fn after(&self, seen: u64) -> Raised {
        Raised {
            signal: self.clone(),
            seen,
            place: None,
        }
    }

    /// The same for hand-written futures: `cx`'s task is woken by the next event if there is none yet.
    pub fn poll_after(&self, seen: u64, cx: &mut Context<'_>) -> Poll<u64> {
        if self.count() > seen {
            return Poll::Ready(self.count());
        }
        self.0.waiters.wait_as_guest(cx.waker());
        Poll::Pending
    }
}

/// Ready when one of these is, for who waits for several counters: `poll_fn(|cx| any([one.poll_after(..), ..]))`.
///
/// All have been polled, so that each of them wakes the task.
pub fn any<const N: usize>(polls: [Poll<u64>; N]) -> Poll<()> {
    match polls.iter().any(Poll::is_ready) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signal").field(&self.count()).finish()
    }
}

/// The future of [`Signal::after`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Raised {
    signal: Signal,
    seen: u64,
    place: Option<Place>,
}

impl Future for Raised {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<u64> {
        let this = &mut *self;
        if this.signal.count() > this.seen {
            return Poll::Ready(this.signal.count());
        }
        this.signal.0.waiters.wait(&mut this.place, cx.waker());
        Poll::Pending
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.signal.0.waiters.leave(place);
        }
    }
}
