//! Sleeping, and giving up.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use pin_project_lite::pin_project;

use crate::timer_heap::TimerKey;
use crate::{Handle, Instant};

/// The time was up before the future was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut;

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("timed out")
    }
}

impl core::error::Error for TimedOut {}

impl Handle {
    /// Waits for `duration`. Zero is over at once.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.after(duration))
    }

    /// Waits until `deadline`. One that was past [when the turn began](Self::turn_began) is over at once, without giving
    /// way (rule 53); one that has passed since is over in the next turn.
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep {
            handle: self.clone(),
            deadline,
            timer: None,
        }
    }

    /// Runs `future`, but no longer than `duration` from now on; then it is dropped.
    ///
    /// The future is asked first: one that is ready wins, even at a `duration` of zero.
    ///
    /// # Errors
    /// The output is [`TimedOut`] when the time is up.
    pub fn timeout<F: Future>(&self, duration: Duration, future: F) -> Timeout<F> {
        self.timeout_at(self.after(duration), future)
    }

    /// The end of `duration`.
    fn after(&self, duration: Duration) -> Instant {
        if duration.is_zero() {
            return self.turn_began();
        }
        self.now() + duration
    }

    /// Runs `future`, but no longer than until `deadline`; then it is dropped.
    ///
    /// # Errors
    /// The output is [`TimedOut`] when the time is up.
    pub fn timeout_at<F: Future>(&self, deadline: Instant, future: F) -> Timeout<F> {
        Timeout {
            future,
            sleep: self.sleep_until(deadline),
        }
    }
}

pin_project! {
    /// The future of [`Handle::timeout`] and [`Handle::timeout_at`].
    // Not an async block: that would hold `future` twice, once as what it captured and once as what it awaits, and futures
    // are large.
    #[derive(Debug)]
    #[must_use = "a future does nothing unless it is awaited"]
    pub struct Timeout<F> {
        #[pin]
        future: F,
        sleep: Sleep,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, TimedOut>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.future.poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => Pin::new(this.sleep).poll(cx).map(|()| Err(TimedOut)),
        }
    }
}

/// The future of [`Handle::sleep`] and [`Handle::sleep_until`]. Dropping it cancels the timer.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Sleep {
    handle: Handle,
    deadline: Instant,
    /// Set by the first poll. It may have fired since.
    timer: Option<TimerKey>,
}

impl Sleep {
    /// When it is over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let shared = &*self.handle.0;
        // By the time at which timers are told, too: whoever goes by `turn_began` and sleeps until then finds that time has
        // passed when he wakes. And it makes a poll of a timeout cheap.
        let timer = match self.timer {
            Some(timer) => shared.timers.borrow_mut().update(timer, cx.waker()).then_some(timer),
            None if shared.turn_began() >= self.deadline => None,
            None => Some(shared.timers.borrow_mut().insert(self.deadline, cx.waker().clone())),
        };
        match timer {
            Some(timer) => {
                self.timer = Some(timer);
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            self.handle.0.timers.borrow_mut().remove(timer);
        }
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish()
    }
}
