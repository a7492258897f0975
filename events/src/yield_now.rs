//! Letting the others go first.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

/// Gives way: the task runs again in the next turn, after every task that is ready now and every due timer.
///
/// For work that computes for long: nothing interrupts a task, so it has to offer.
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// The future of [`yield_now`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
