//! The loop.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use crate::join_handle::{JoinHandle, LifeLine, Promise};
use crate::ready::{ReadyQueue, TaskId};
use crate::sync::Arc;
use crate::tasks::Tasks;
use crate::timer_heap::TimerHeap;
use crate::{Clock, Instant};

/// What a turn left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Tasks are ready: turn again.
    Ready,
    /// Nothing to do before `deadline`, or before somebody wakes a task.
    Idle {
        /// When the next timer is due. It may have passed already: the turn itself took time.
        deadline: Option<Instant>,
    },
}

/// What the loop has done and has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tasks alive.
    pub tasks: usize,
    /// Timers running.
    pub timers: usize,
    /// Tasks ever spawned.
    pub spawned: u64,
    /// Polls of tasks.
    pub polls: u64,
    /// Turns of the loop.
    pub turns: u64,
}

/// What the loop and its handles share.
pub(crate) struct Shared {
    clock: Rc<dyn Clock>,
    ready: Arc<ReadyQueue>,
    tasks: RefCell<Tasks>,
    pub(crate) timers: RefCell<TimerHeap>,
    /// The loop is gone: nothing may be spawned, because nothing would ever run or drop it.
    closed: Cell<bool>,
    spawned: Cell<u64>,
    polls: Cell<u64>,
    turns: Cell<u64>,
    /// When the turn began, as of the last look at the clock.
    turn_began: Cell<Instant>,
    /// Turns until the next look.
    until_look: Cell<u32>,
}

/// A loop that is always busy looks at the clock once in so many turns.
const LOOK_EVERY: u32 = 8;

impl Shared {
    pub(crate) fn turn_began(&self) -> Instant {
        self.turn_began.get()
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// When the turn that begins does so, as far as it knows.
    fn begin_turn(&self) -> Instant {
        match self.until_look.get().checked_sub(1) {
            Some(left) => self.until_look.set(left),
            None => {
                self.until_look.set(LOOK_EVERY - 1);
                self.turn_began.set(self.now());
            }
        }
        self.turn_began.get()
    }

    /// Cancels a task, wherever it is. Its future is dropped here, or after its poll if it is being polled.
    pub(crate) fn cancel(&self, id: TaskId) {
        let task = self.tasks.borrow_mut().cancel(id);
        drop(task); // may run anything, so the table is no longer borrowed
    }
}

/// The loop: runs tasks and timers, one turn at a time.
///
/// Dropping it drops all tasks.
pub struct Executor(Rc<Shared>);

/// A way into the loop, for its tasks and for those who set it up. Clones are cheap; it stays on its thread.
#[derive(Clone)]
pub struct Handle(pub(crate) Rc<Shared>);

impl Executor {
    /// A loop without tasks.
    #[must_use]
    pub fn new(clock: Rc<dyn Clock>) -> Self {
        let now = clock.now();
        Self(Rc::new(Shared {
            clock,
            ready: Arc::default(),
            tasks: RefCell::default(),
            timers: RefCell::default(),
            closed: Cell::new(false),
            spawned: Cell::new(0),
            polls: Cell::new(0),
            turns: Cell::new(0),
            turn_began: Cell::new(now),
            until_look: Cell::new(0),
        }))
    }

    /// A handle to spawn, sleep and look at the clock with.
    #[must_use]
    pub fn handle(&self) -> Handle {
        Handle(Rc::clone(&self.0))
    }

    /// Wakes the tasks whose timers are due, then runs every task that is ready at this moment, once.
    ///
    /// A task that is woken meanwhile, even by itself, waits for the next turn. So a turn's length is bounded by the
    /// tasks there are, and whoever drives the loop gets to look at timers and events between two runs of the same
    /// task, whatever the load (rule 54).
    ///
    /// It looks at the clock in the first turn after an idle one, and in every eighth turn of a loop that is never idle:
    /// where Xen answers for the time-stamp counter, a look costs as much as a hypercall.
    pub fn turn(&mut self) -> Turn {
        let shared = &*self.0;
        shared.turns.set(shared.turns.get() + 1);
        let now = shared.begin_turn();
        loop {
            let due = shared.timers.borrow_mut().pop_due(now);
            match due {
                Some(waker) => waker.wake(),
                None => break,
            }
        }
        // First in, first out: the first `len` are those that are ready now; what is woken from here on is behind them.
        for _ in 0..shared.ready.len() {
            if let Some(id) = shared.ready.pop() {
                Self::run(shared, id);
            }
        }
        if shared.ready.len() > 0 {
            Turn::Ready
        } else {
            shared.until_look.set(0);
            Turn::Idle {
                deadline: shared.timers.borrow().earliest(),
            }
        }
    }

    fn run(shared: &Shared, id: TaskId) {
        // The borrow ends with the statement: the task may spawn and cancel others, and itself.
        let Some(mut task) = shared.tasks.borrow_mut().start(id) else {
            return;
        };
        shared.polls.set(shared.polls.get() + 1);
        task.header.unqueue();
        let poll = task.future.as_mut().poll(&mut Context::from_waker(&task.waker));
        let remains = match poll {
            Poll::Pending => shared.tasks.borrow_mut().park(id, task),
            Poll::Ready(()) => {
                shared.tasks.borrow_mut().finish(id);
                Some(task)
            }
        };
        drop(remains);
    }

    /// Turns until there is nothing to do now; says when the next timer is due.
    ///
    /// For tests and tools. It does not return while tasks keep waking each other.
    pub fn run_until_idle(&mut self) -> Option<Instant> {
        loop {
            if let Turn::Idle { deadline } = self.turn() {
                return deadline;
            }
        }
    }

    /// What it has done and has to do.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.handle().stats()
    }
}

impl Drop for Executor {
    /// Tasks hold handles, and handles hold the loop: cut the circle.
    fn drop(&mut self) {
        self.0.closed.set(true);
        loop {
            let task = self.0.tasks.borrow_mut().cancel_any();
            if task.is_none() {
                break;
            }
        }
    }
}

impl Handle {
    /// Starts a task; it first runs in the next turn.
    ///
    /// The handle that comes back is the task's life line: dropping it cancels the task.
    /// [`JoinHandle::detach`] lets it run by itself.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
    {
        let (promise, state) = Promise::new();
        JoinHandle::new(self.insert(Box::pin(promise.until(future))), state)
    }

    /// Takes a task in, unless the loop is gone; then the task is dropped.
    fn insert(&self, future: Pin<Box<dyn Future<Output = ()>>>) -> LifeLine {
        let shared = &*self.0;
        let task = (!shared.closed.get()).then(|| {
            let mut tasks = shared.tasks.borrow_mut();
            let (id, header) = tasks.insert(&shared.ready, future);
            shared.ready.reserve(tasks.alive());
            shared.spawned.set(shared.spawned.get() + 1);
            header.enqueue();
            id
        });
        LifeLine {
            handle: self.clone(),
            task,
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.now()
    }

    /// When this turn of the loop began; under load, when one of the last eight did.
    ///
    /// For those to whom the time since then does not matter. Where Xen answers for the time-stamp counter, which it
    /// does on processors whose counters it does not trust, a look at the clock costs as much as a hypercall.
    #[must_use]
    pub fn turn_began(&self) -> Instant {
        self.0.turn_began()
    }

    /// What the loop has done and has to do.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let shared = &*self.0;
        Stats {
            tasks: shared.tasks.borrow().alive(),
            timers: shared.timers.borrow().len(),
            spawned: shared.spawned.get(),
            polls: shared.polls.get(),
            turns: shared.turns.get(),
        }
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Executor").field(&self.stats()).finish()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.stats()).finish()
    }
}
