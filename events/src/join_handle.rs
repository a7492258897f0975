//! The other end of a task.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;

use crate::Handle;
use crate::ready::TaskId;

/// The task ended without a result: the loop it ran on is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelled;

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task was cancelled")
    }
}

impl core::error::Error for Cancelled {}

/// What the two ends of a task share.
pub(crate) struct JoinState<T> {
    value: Cell<Option<T>>,
    over: Cell<bool>,
    joiner: RefCell<Option<Waker>>,
}

/// The task's end: it is kept with a value, or broken by being dropped.
pub(crate) struct Promise<T>(Rc<JoinState<T>>);

impl<T> Promise<T> {
    pub(crate) fn new() -> (Self, Rc<JoinState<T>>) {
        let state = Rc::new(JoinState {
            value: Cell::new(None),
            over: Cell::new(false),
            joiner: RefCell::new(None),
        });
        (Self(Rc::clone(&state)), state)
    }

    /// The task that keeps it, with what comes of `future`.
    pub(crate) fn until<F: Future<Output = T>>(self, future: F) -> Promised<F> {
        Promised {
            future,
            promise: Some(self),
        }
    }

    fn keep(self, value: T) {
        self.0.value.set(Some(value));
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.0.over.set(true);
        let joiner = self.0.joiner.take();
        if let Some(waker) = joiner {
            waker.wake();
        }
    }
}

pin_project! {
    /// The future of [`Promise::until`].
    // Not an async block: see `Timeout`.
    pub(crate) struct Promised<F: Future> {
        #[pin]
        future: F,
        promise: Option<Promise<F::Output>>,
    }
}

impl<F: Future> Future for Promised<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let value = ready!(this.future.poll(cx));
        if let Some(promise) = this.promise.take() {
            promise.keep(value);
        }
        Poll::Ready(())
    }
}

/// A task that was spawned. Awaiting it gives the task's result.
///
/// **Dropping it cancels the task**: its future is dropped, and with it all that it holds. What a task owns thus
/// never outlives who asked for it, unless that one says so by [`detach`](JoinHandle::detach).
///
/// A task that is cancelled while it runs (it dropped its own handle) runs on to its next `await`.
#[must_use = "dropping a JoinHandle cancels the task; `.detach()` lets it run"]
pub struct JoinHandle<T> {
    line: LifeLine,
    state: Rc<JoinState<T>>,
}

/// Cancels a task when it is dropped. It does not know the task's result.
pub(crate) struct LifeLine {
    pub(crate) handle: Handle,
    /// `None` when there is nothing to cancel any more.
    pub(crate) task: Option<TaskId>,
}

impl Drop for LifeLine {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            self.handle.0.cancel(task);
        }
    }
}

impl<T> JoinHandle<T> {
    pub(crate) fn new(line: LifeLine, state: Rc<JoinState<T>>) -> Self {
        Self { line, state }
    }

    /// Lets the task run to its end by itself. Its result is dropped.
    pub fn detach(mut self) {
        self.line.task = None;
    }

    /// Cancels the task: the same as dropping the handle, for places where that should be seen.
    pub fn cancel(self) {}

    /// Whether the task has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.state.over.get()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, Cancelled>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.state.over.get() {
            return Poll::Ready(self.state.value.take().ok_or(Cancelled));
        }
        let mut joiner = self.state.joiner.borrow_mut();
        match &mut *joiner {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle")
            .field("task", &self.line.task)
            .field("finished", &self.is_finished())
            .finish()
    }
}
