//! What happens to the machine as a whole: it is saved, and goes on, perhaps elsewhere.

use alloc::rc::Rc;
use core::cell::Cell;
use core::fmt;
use core::time::Duration;

use fata_events::{Handle, Signal, yield_now};

use crate::Env;

/// How long tasks that are told of a suspend may hold it up, all together.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something that happened to the machine.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// It is about to be suspended: saved, migrated or copied. It stands still as soon as everybody who was told has dropped
    /// his [`Hold`], and after five seconds in any case.
    Suspending(Hold),
    /// It goes on where it was: the suspend failed or was given up, or only a copy was made (`xl save -c`). Nothing has
    /// changed.
    Cancelled,
    /// It goes on in a new place, some time later. Sockets, timers and the interfaces' addresses are kept; links go down
    /// and come up again. The monotonic clock has not counted the time in between; the wall clock has.
    Resumed,
}

/// What a task is told of the machine's life: [`Env::lifecycle`].
///
/// ```no_run
/// # use fata::{Env, LifecycleEvent};
/// async fn keep_a_cache_fresh(env: Env) {
///     let mut lifecycle = env.lifecycle();
///     loop {
///         match lifecycle.next().await {
///             LifecycleEvent::Suspending(hold) => {
///                 // Write out what must not be lost, then:
///                 drop(hold);
///             }
///             LifecycleEvent::Resumed => { /* ask again what may have changed meanwhile */ }
///             _ => {}
///         }
///     }
/// }
/// ```
pub struct Lifecycle {
    env: Env,
    /// Events that it has told of.
    seen: u64,
}

impl Lifecycle {
    /// Waits for the next event. Who is late is told of the last one only.
    pub async fn next(&mut self) -> Event {
        let state = &self.env.0.lifecycle;
        self.seen = state.events.after(self.seen).await;
        match state.phase.get() {
            Phase::Suspending => Event::Suspending(Hold::new(&state.holds)),
            Phase::Cancelled => Event::Cancelled,
            Phase::Resumed => Event::Resumed,
        }
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

/// Holds up a suspend until it is dropped.
#[derive(Debug)]
#[must_use = "dropped, it lets the machine be suspended"]
pub struct Hold(Rc<Holds>);

impl Hold {
    fn new(holds: &Rc<Holds>) -> Self {
        holds.count.set(holds.count.get() + 1);
        Self(Rc::clone(holds))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.dropped.raise();
    }
}

#[derive(Debug, Default)]
struct Holds {
    count: Cell<usize>,
    dropped: Signal,
}

/// The last event.
#[derive(Clone, Copy, Default)]
enum Phase {
    Suspending,
    #[default]
    Cancelled,
    Resumed,
}

/// The port's side.
#[derive(Default)]
pub(crate) struct State {
    phase: Cell<Phase>,
    events: Signal,
    holds: Rc<Holds>,
}

impl State {
    pub(crate) fn subscribe(&self, env: Env) -> Lifecycle {
        Lifecycle {
            env,
            seen: self.events.count(),
        }
    }

    fn tell(&self, phase: Phase) {
        self.phase.set(phase);
        self.events.raise();
    }

    /// Tells tasks of a suspend, and gives them time.
    pub(crate) async fn suspending(&self, handle: &Handle) {
        self.tell(Phase::Suspending);
        // Who waits is ready now, and takes its hold before this task's next turn is over.
        yield_now().await;
        yield_now().await;
        let released = async {
            loop {
                let seen = self.holds.dropped.count();
                if self.holds.count.get() == 0 {
                    break;
                }
                self.holds.dropped.after(seen).await;
            }
        };
        if handle.timeout(PATIENCE, released).await.is_err() {
            log::warn!(
                "a task has held up the suspend for {} s; it is not waited for",
                PATIENCE.as_secs()
            );
        }
    }

    /// Nothing came of it.
    pub(crate) fn cancelled(&self) {
        self.tell(Phase::Cancelled);
    }

    /// The machine goes on in a new place.
    pub(crate) fn resumed(&self) {
        self.tell(Phase::Resumed);
    }
}
