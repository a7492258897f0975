//! Waking allocates nothing: room for every task's place in the queue was made when the task was. Nor does waiting, once
//! there have been as many who wait.

#[path = "common/counting.rs"]
mod counting;

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};

use counting::allocations;
use fata_events::{Executor, ManualClock, Signal};

#[test]
fn waking_a_thousand_tasks_allocates_nothing() {
    let mut executor = Executor::new(Rc::new(ManualClock::default()));
    let signals: Vec<_> = (0..1000).map(|_| Signal::new()).collect();
    for signal in &signals {
        let signal = signal.clone();
        executor
            .handle()
            .spawn(async move {
                signal.after(0).await;
            })
            .detach();
        executor.run_until_idle(); // so that the queue was never longer than one
    }
    let before = allocations();
    signals.iter().for_each(Signal::raise);
    assert_eq!(allocations() - before, 0);
    executor.run_until_idle();
    assert_eq!(executor.stats().tasks, 0);
}

#[test]
fn rule_59_a_dropped_wait_gives_its_place_back() {
    let signal = Signal::new();
    let wait = || {
        let mut context = Context::from_waker(Waker::noop());
        assert!(pin!(signal.after(0)).poll(&mut context).is_pending());
    };
    wait();
    let before = allocations();
    (0..1000).for_each(|_| wait());
    assert_eq!(allocations() - before, 0);
}
