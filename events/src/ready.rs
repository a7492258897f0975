//! Which tasks are ready: the only state that wakers touch.

use alloc::collections::VecDeque;
use alloc::task::Wake;

use crate::sync::{Arc, AtomicBool, Mutex, Ordering};

/// A task: its place in the table, and which of the place's tenants it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskId {
    /// Place in the table.
    pub(crate) slot: u32,
    /// The place's tenants so far; an id that outlives its task finds another number there.
    pub(crate) generation: u32,
}

/// The tasks to run, in the order in which they were woken. A task is in it at most once.
#[derive(Debug, Default)]
pub(crate) struct ReadyQueue(Mutex<VecDeque<TaskId>>);

impl ReadyQueue {
    /// How many are in it.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// Takes the one that has waited longest.
    pub(crate) fn pop(&self) -> Option<TaskId> {
        self.0.lock().pop_front()
    }

    /// Makes room, so that waking `tasks` tasks allocates nothing.
    pub(crate) fn reserve(&self, tasks: usize) {
        let mut queue = self.0.lock();
        let missing = tasks.saturating_sub(queue.len());
        queue.reserve(missing);
    }

    fn push(&self, task: TaskId) {
        self.0.lock().push_back(task);
    }
}

/// What a waker points to. It outlives the task, and even the loop, as long as somebody keeps the waker.
#[derive(Debug)]
pub(crate) struct Header {
    id: TaskId,
    /// Whether the task is in the queue, or about to be.
    queued: AtomicBool,
    queue: Arc<ReadyQueue>,
}

impl Header {
    /// A header for a new task, not queued.
    pub(crate) fn new(id: TaskId, queue: Arc<ReadyQueue>) -> Self {
        Self {
            id,
            queued: AtomicBool::new(false),
            queue,
        }
    }

    /// Puts the task into the queue unless it is there.
    ///
    /// Nothing else happens here, whoever calls: no task runs inside another's wake (rule 54).
    pub(crate) fn enqueue(&self) {
        // The swap publishes what the waking side wrote, even if the task is queued already: see `unqueue`.
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.queue.push(self.id);
        }
    }

    /// The task has been taken from the queue and is about to run; from here on a wake queues it again.
    ///
    /// It must come before the poll: a wake during the poll would otherwise be lost. It is a swap and not a store,
    /// so that it reads the last waker's `true` and sees all that was written before that wake.
    pub(crate) fn unqueue(&self) {
        self.queued.swap(false, Ordering::AcqRel);
    }
}

impl Wake for Header {
    fn wake(self: Arc<Self>) {
        self.enqueue();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.enqueue();
    }
}
