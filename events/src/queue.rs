//! A queue between tasks of one loop: many senders, one receiver.
//!
//! ```
//! # use fata_events::{Executor, ManualClock, queue};
//! # let mut executor = Executor::new(std::rc::Rc::new(ManualClock::default()));
//! let (sender, mut receiver) = queue::bounded(2);
//! executor.handle().spawn(async move {
//!     for i in 0..5 {
//!         sender.send(i).await.unwrap();
//!     }
//! }).detach();
//! let sum = executor.handle().spawn(async move {
//!     let mut sum = 0;
//!     while let Some(i) = receiver.receive().await {
//!         sum += i;
//!     }
//!     assert_eq!(sum, 10);
//! });
//! executor.run_until_idle();
//! assert!(sum.is_finished());
//! ```

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::poll_fn;
use core::task::{Context, Poll};

use crate::Signal;

struct Inner<T> {
    items: RefCell<VecDeque<T>>,
    capacity: usize,
    senders: Cell<usize>,
    receiver: Cell<bool>,
    /// An item came, or the last sender went.
    filled: Signal,
    /// An item went, or the receiver did.
    drained: Signal,
}

/// Why nothing was sent. The item comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendError<T> {
    /// The queue is full.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Closed(_) => "Closed",
        })
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the queue is full",
            Self::Closed(_) => "the queue's receiver is gone",
        })
    }
}

impl<T> core::error::Error for SendError<T> {}

/// The end that items go in at. Clones feed the same queue.
pub struct Sender<T>(Rc<Inner<T>>);

/// The end that items come out of, in the order in which they went in.
pub struct Receiver<T>(Rc<Inner<T>>);

/// A queue of at most `capacity` items (at least one).
#[must_use]
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let inner = Rc::new(Inner {
        items: RefCell::default(),
        capacity: capacity.max(1),
        senders: Cell::new(1),
        receiver: Cell::new(true),
        filled: Signal::new(),
        drained: Signal::new(),
    });
    (Sender(Rc::clone(&inner)), Receiver(inner))
}

/// A queue that takes as many items as memory does. Only for items whose number something else bounds.
#[must_use]
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    bounded(usize::MAX)
}

impl<T> Sender<T> {
    /// Sends an item if there is room now.
    ///
    /// # Errors
    /// [`SendError::Full`] or [`SendError::Closed`], with the item.
    pub fn try_send(&self, item: T) -> Result<(), SendError<T>> {
        let inner = &*self.0;
        if !inner.receiver.get() {
            return Err(SendError::Closed(item));
        }
        if inner.items.borrow().len() >= inner.capacity {
            return Err(SendError::Full(item));
        }
        inner.items.borrow_mut().push_back(item);
        inner.filled.raise();
        Ok(())
    }

    /// Sends an item when there is room.
    ///
    /// # Errors
    /// [`SendError::Closed`] with the item when the receiver is gone.
    pub async fn send(&self, mut item: T) -> Result<(), SendError<T>> {
        loop {
            let seen = self.0.drained.count();
            match self.try_send(item) {
                Err(SendError::Full(back)) => item = back,
                done => return done,
            }
            self.0.drained.after(seen).await;
        }
    }

    /// Whether the receiver is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        !self.0.receiver.get()
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.senders.set(self.0.senders.get() + 1);
        Self(Rc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.senders.set(self.0.senders.get() - 1);
        if self.0.senders.get() == 0 {
            self.0.filled.raise();
        }
    }
}

impl<T> Receiver<T> {
    /// Takes the next item, if there is one now.
    pub fn try_receive(&mut self) -> Option<T> {
        let item = self.0.items.borrow_mut().pop_front()?;
        self.0.drained.raise();
        Some(item)
    }

    /// Takes the next item when there is one; `None` when there is none and all senders are gone.
    pub async fn receive(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }

    /// The same for hand-written futures.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        if let Some(item) = self.try_receive() {
            return Poll::Ready(Some(item));
        }
        if self.0.senders.get() == 0 {
            return Poll::Ready(None);
        }
        self.0.filled.poll_after(self.0.filled.count(), cx).map(|_| None)
    }

    /// How many items wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.items.borrow().len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Drop for Receiver<T> {
    /// What nobody will take is dropped now, not with the last sender.
    fn drop(&mut self) {
        self.0.receiver.set(false);
        let items = self.0.items.take();
        drop(items);
        self.0.drained.raise();
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("waiting", &self.0.items.borrow().len())
            .finish()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("waiting", &self.len()).finish()
    }
}
