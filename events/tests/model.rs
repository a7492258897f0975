//! Random programs, run on the loop and on a model of it that is simple enough to believe.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use fata_events::{Executor, Instant, JoinHandle, ManualClock, Signal, Turn, yield_now};
use proptest::prelude::*;

const SIGNALS: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    /// A task that waits for a signal again and again.
    SpawnWaiter(usize),
    /// A task that sleeps once.
    SpawnSleeper(u64),
    /// A task that gives way so many times.
    SpawnYielder(u32),
    /// A task that waits for a signal, but no longer than so long, again and again.
    SpawnTimeout(usize, u64),
    Raise(usize),
    Cancel(usize),
    Advance(u64),
    Turn,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (0..SIGNALS).prop_map(Op::SpawnWaiter),
        2 => (0..20_u64).prop_map(Op::SpawnSleeper),
        1 => (0..4_u32).prop_map(Op::SpawnYielder),
        2 => (0..SIGNALS, 0..10_u64).prop_map(|(signal, limit)| Op::SpawnTimeout(signal, limit)),
        4 => (0..SIGNALS).prop_map(Op::Raise),
        2 => (0..40_usize).prop_map(Op::Cancel),
        4 => (0..8_u64).prop_map(Op::Advance),
        8 => Just(Op::Turn),
    ]
}

/// What the model knows of a task.
#[derive(Clone, Debug)]
enum Task {
    Waiter {
        signal: usize,
        seen: u64,
    },
    Sleeper {
        length: u64,
        until: Option<u64>,
    },
    Yielder {
        left: u32,
    },
    Timeout {
        signal: usize,
        seen: u64,
        limit: u64,
        until: Option<u64>,
    },
}

#[derive(Default)]
struct Model {
    tasks: BTreeMap<usize, Task>,
    counts: [u64; SIGNALS],
    now: u64,
    /// The time as the loop saw it last, and in how many turns it looks again.
    looked: u64,
    until_look: u32,
}

impl Model {
    /// Which tasks a turn runs to a visible step, and whether it leaves more to do now.
    fn turn(&mut self) -> (Vec<usize>, bool) {
        let mut steps = Vec::new();
        let mut ended = Vec::new();
        let mut more = false;
        if self.until_look == 0 {
            (self.looked, self.until_look) = (self.now, 8);
        }
        self.until_look -= 1;
        let over = |until: &mut Option<u64>, length: u64| {
            let new = if length == 0 { self.looked } else { self.now + length };
            *until.get_or_insert(new) <= self.looked
        };
        for (&id, task) in &mut self.tasks {
            match task {
                Task::Waiter { signal, seen } => {
                    if self.counts[*signal] > *seen {
                        *seen = self.counts[*signal];
                        steps.push(id);
                    }
                }
                Task::Sleeper { length, until } => {
                    if over(until, *length) {
                        steps.push(id);
                        ended.push(id);
                    }
                }
                Task::Yielder { left } => {
                    if *left == 0 {
                        steps.push(id);
                        ended.push(id);
                    } else {
                        *left -= 1;
                        more = true;
                    }
                }
                Task::Timeout {
                    signal,
                    seen,
                    limit,
                    until,
                } => {
                    let over = over(until, *limit);
                    if self.counts[*signal] > *seen {
                        *seen = self.counts[*signal];
                    } else if !over {
                        continue;
                    }
                    steps.push(id);
                    // It sleeps anew, unless that would be over at once: then the task ends (see `spawn`).
                    if *limit == 0 {
                        ended.push(id);
                    } else {
                        *until = Some(self.now + *limit);
                    }
                }
            }
        }
        for id in ended {
            self.tasks.remove(&id);
        }
        if !more {
            self.until_look = 0;
        }
        (steps, more)
    }

    fn deadline(&self) -> Option<Instant> {
        let untils = self.tasks.values().filter_map(|task| match task {
            Task::Sleeper { until, .. } | Task::Timeout { until, .. } => *until,
            _ => None,
        });
        untils.min().map(Instant::from_nanos)
    }
}

/// Counts the futures that are alive.
struct Alive(Rc<Cell<usize>>);

impl Alive {
    fn new(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Every turn runs exactly the tasks that the model says, each once; it announces the right deadline; nothing is
    /// lost, nothing runs after it was cancelled, and nothing is left over.
    #[test]
    fn the_loop_does_what_the_model_does(ops in prop::collection::vec(op(), 0..200)) {
        let clock = Rc::new(ManualClock::default());
        let mut executor = Executor::new(clock.clone());
        let handle = executor.handle();
        let signals: Vec<Signal> = (0..SIGNALS).map(|_| Signal::new()).collect();
        let steps: Rc<RefCell<Vec<usize>>> = Rc::default();
        let alive = Rc::new(Cell::new(0));
        let mut handles: BTreeMap<usize, JoinHandle<()>> = BTreeMap::new();
        let mut model = Model::default();
        let mut next = 0;

        for op in ops {
            let id = next;
            let step = { let steps = steps.clone(); move || steps.borrow_mut().push(id) };
            let spawned = match op.clone() {
                Op::SpawnWaiter(signal) => {
                    let (watched, alive) = (signals[signal].clone(), Alive::new(&alive));
                    let mut seen = watched.count();
                    model.tasks.insert(id, Task::Waiter { signal, seen });
                    Some(handle.spawn(async move {
                        let _alive = alive;
                        loop {
                            seen = watched.after(seen).await;
                            step();
                        }
                    }))
                }
                Op::SpawnSleeper(length) => {
                    let (handle2, alive) = (handle.clone(), Alive::new(&alive));
                    model.tasks.insert(id, Task::Sleeper { length, until: None });
                    Some(handle.spawn(async move {
                        let _alive = alive;
                        handle2.sleep(Duration::from_nanos(length)).await;
                        step();
                    }))
                }
                Op::SpawnYielder(times) => {
                    let alive = Alive::new(&alive);
                    model.tasks.insert(id, Task::Yielder { left: times });
                    Some(handle.spawn(async move {
                        let _alive = alive;
                        for _ in 0..times {
                            yield_now().await;
                        }
                        step();
                    }))
                }
                Op::SpawnTimeout(signal, limit) => {
                    let (watched, handle2, alive) = (signals[signal].clone(), handle.clone(), Alive::new(&alive));
                    let mut seen = watched.count();
                    model.tasks.insert(id, Task::Timeout { signal, seen, limit, until: None });
                    Some(handle.spawn(async move {
                        let _alive = alive;
                        loop {
                            let outcome = handle2.timeout(Duration::from_nanos(limit), watched.after(seen)).await;
                            seen = outcome.unwrap_or(seen);
                            step();
                            if limit == 0 {
                                break;
                            }
                        }
                    }))
                }
                Op::Raise(signal) => {
                    signals[signal].raise();
                    model.counts[signal] += 1;
                    None
                }
                Op::Cancel(id) => {
                    // A handle of a task that has ended may be dropped as well.
                    handles.remove(&id);
                    model.tasks.remove(&id);
                    None
                }
                Op::Advance(nanos) => {
                    clock.advance(Duration::from_nanos(nanos));
                    model.now += nanos;
                    None
                }
                Op::Turn => {
                    let turn = executor.turn();
                    let (expected, more) = model.turn();
                    let mut did = steps.take();
                    did.sort_unstable();
                    prop_assert_eq!(did, expected);
                    let expected = if more { Turn::Ready } else { Turn::Idle { deadline: model.deadline() } };
                    prop_assert_eq!(turn, expected);
                    None
                }
            };
            if let Some(task) = spawned {
                handles.insert(id, task);
                next += 1;
            }
            prop_assert_eq!(executor.stats().tasks, model.tasks.len());
            prop_assert_eq!(alive.get(), model.tasks.len());
        }
        drop(executor);
        prop_assert_eq!(alive.get(), 0);
        prop_assert_eq!(handle.stats().timers, 0);
    }
}
