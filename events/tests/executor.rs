//! The loop: tasks, cancellation, fairness, timers.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fata_events::{
    Cancelled, Clock, Executor, Handle, Instant, JoinHandle, ManualClock, Signal, TimedOut, Turn, any, yield_now,
};

fn setup() -> (Executor, Handle, Rc<ManualClock>) {
    let clock = Rc::new(ManualClock::default());
    let executor = Executor::new(clock.clone());
    let handle = executor.handle();
    (executor, handle, clock)
}

/// What a finished task gave.
fn result<T: 'static>(executor: &mut Executor, task: JoinHandle<T>) -> Result<T, Cancelled> {
    let slot = Rc::new(RefCell::new(None));
    let out = slot.clone();
    let handle = executor.handle();
    handle
        .spawn(async move { *out.borrow_mut() = Some(task.await) })
        .detach();
    executor.run_until_idle();
    slot.take().expect("the task has ended")
}

/// Counts how often it was dropped.
struct Bomb(Rc<Cell<u32>>);

impl Drop for Bomb {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

#[test]
fn a_task_runs_and_gives_its_result() {
    let (mut executor, handle, _) = setup();
    let task = handle.spawn(async { 6 * 7 });
    assert!(!task.is_finished(), "nothing runs before the first turn");
    assert_eq!(result(&mut executor, task), Ok(42));
    assert_eq!(executor.stats().tasks, 0);
    assert_eq!(executor.stats().spawned, 2);
}

#[test]
fn a_task_may_await_another() {
    let (mut executor, handle, clock) = setup();
    let inner = handle.spawn({
        let handle = handle.clone();
        async move {
            handle.sleep(Duration::from_millis(3)).await;
            "late"
        }
    });
    let outer = handle.spawn(async move { inner.await.map(str::len) });
    assert_eq!(executor.run_until_idle(), Some(Instant::from_nanos(3_000_000)));
    clock.advance(Duration::from_millis(3));
    assert_eq!(result(&mut executor, outer), Ok(Ok(4)));
}

#[test]
fn dropping_the_handle_cancels_and_detaching_does_not() {
    let (mut executor, handle, _) = setup();
    let dropped = Rc::new(Cell::new(0));
    let task = |bomb: Bomb| {
        handle.spawn(async move {
            let _bomb = bomb;
            pending::<()>().await;
        })
    };
    let cancelled = task(Bomb(dropped.clone()));
    task(Bomb(dropped.clone())).detach();
    executor.turn();
    assert_eq!((dropped.get(), executor.stats().tasks), (0, 2));
    drop(cancelled);
    assert_eq!(
        (dropped.get(), executor.stats().tasks),
        (1, 1),
        "dropped at once, not in the next turn"
    );
    drop(executor);
    assert_eq!(dropped.get(), 2, "the loop takes its tasks with it");
}

#[test]
fn a_task_that_never_ran_is_dropped_too() {
    let (mut executor, handle, _) = setup();
    let dropped = Rc::new(Cell::new(0));
    let bomb = Bomb(dropped.clone());
    let task = handle.spawn(async move { drop(bomb) });
    task.cancel();
    assert_eq!(dropped.get(), 1);
    executor.turn();
    assert_eq!(executor.stats().polls, 0);
}

#[test]
fn a_task_that_cancels_itself_runs_to_its_next_await() {
    let (mut executor, handle, _) = setup();
    let own = Rc::new(RefCell::new(None));
    let reached = Rc::new(Cell::new(0));
    let dropped = Rc::new(Cell::new(0));
    let task = handle.spawn({
        let (own, reached, bomb) = (own.clone(), reached.clone(), Bomb(dropped.clone()));
        async move {
            let _bomb = bomb;
            let mine: Option<JoinHandle<()>> = own.take();
            drop(mine);
            reached.set(1);
            yield_now().await;
            reached.set(2);
        }
    });
    *own.borrow_mut() = Some(task);
    executor.run_until_idle();
    assert_eq!((reached.get(), dropped.get(), executor.stats().tasks), (1, 1, 0));
}

#[test]
fn tasks_cancel_each_other_in_both_orders() {
    for first in [0, 1] {
        let (mut executor, handle, _) = setup();
        let handles: Rc<RefCell<Vec<Option<JoinHandle<()>>>>> = Rc::default();
        let ended: Rc<RefCell<Vec<usize>>> = Rc::default();
        for me in 0..2 {
            let (handles, ended) = (handles.clone(), ended.clone());
            let task = handle.spawn({
                let handles = handles.clone();
                async move {
                    if me == first {
                        let other = handles.borrow_mut()[1 - me].take();
                        drop(other);
                    } else {
                        yield_now().await;
                        yield_now().await;
                    }
                    ended.borrow_mut().push(me);
                }
            });
            handles.borrow_mut().push(Some(task));
        }
        executor.run_until_idle();
        assert_eq!(*ended.borrow(), [first]);
        assert_eq!(executor.stats().tasks, 0);
    }
}

#[test]
fn the_end_of_the_loop_ends_whoever_waits_and_whoever_comes_late() {
    let (mut executor, handle, _) = setup();
    let dropped = Rc::new(Cell::new(0));
    let task = handle.spawn(pending::<()>());
    // A task whose drop spawns another: it must not come to rest in a loop that is gone.
    let bomb = SpawnOnDrop(handle.clone(), dropped.clone());
    handle
        .spawn(async move {
            let _bomb = bomb;
            pending::<()>().await;
        })
        .detach();
    executor.turn();
    let signal = Signal::new();
    drop(executor);
    assert!(task.is_finished());
    let mut task = pin!(task);
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(task.as_mut().poll(&mut cx), Poll::Ready(Err(Cancelled)));
    assert_eq!(dropped.get(), 1);

    let late = handle.spawn(async move { signal.after(0).await });
    assert!(late.is_finished(), "nothing is spawned on a loop that is gone");
    assert_eq!(handle.stats().tasks, 0);

    struct SpawnOnDrop(Handle, Rc<Cell<u32>>);
    impl Drop for SpawnOnDrop {
        fn drop(&mut self) {
            let bomb = Bomb(self.1.clone());
            self.0
                .spawn(async move {
                    let _bomb = bomb;
                    pending::<()>().await;
                })
                .detach();
        }
    }
}

#[test]
fn a_waker_outlives_its_task_and_its_loop() {
    let (mut executor, handle, _) = setup();
    let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
    let task = handle.spawn({
        let kept = kept.clone();
        poll_fn(move |cx| {
            *kept.borrow_mut() = Some(cx.waker().clone());
            Poll::<()>::Pending
        })
    });
    executor.turn();
    drop(task);
    let waker = kept.take().unwrap();
    // The place of the dead task is taken by another, which must not be woken in its stead.
    let polls = Rc::new(Cell::new(0));
    let counter = polls.clone();
    let _next = handle.spawn(poll_fn(move |_| {
        counter.set(counter.get() + 1);
        Poll::<()>::Pending
    }));
    executor.run_until_idle();
    waker.wake_by_ref();
    executor.run_until_idle();
    assert_eq!(polls.get(), 1);
    drop(executor);
    std::thread::spawn(move || waker.wake()).join().unwrap();
}

/// Rule 54: wakers only enqueue. A task that wakes another is not interrupted by it, and a turn runs each task once.
#[test]
fn rule_54_waking_only_enqueues() {
    let (mut executor, handle, _) = setup();
    let log: Rc<RefCell<Vec<&str>>> = Rc::default();
    let signal = Signal::new();
    let waiter = handle.spawn({
        let (log, signal) = (log.clone(), signal.clone());
        async move {
            signal.after(0).await;
            log.borrow_mut().push("woken");
        }
    });
    executor.turn();
    let raiser = handle.spawn({
        let log = log.clone();
        async move {
            signal.raise();
            signal.raise();
            log.borrow_mut().push("raised");
        }
    });
    assert_eq!(executor.turn(), Turn::Ready, "the woken task waits for the next turn");
    assert_eq!(*log.borrow(), ["raised"]);
    assert_eq!(executor.turn(), Turn::Idle { deadline: None });
    assert_eq!(*log.borrow(), ["raised", "woken"]);
    assert!(waiter.is_finished() && raiser.is_finished());
}

/// Rule 54: tasks that are always ready do not keep timers from firing.
#[test]
fn rule_54_load_does_not_starve_timers() {
    let (mut executor, handle, clock) = setup();
    for _ in 0..10 {
        handle
            .spawn(async {
                loop {
                    yield_now().await;
                }
            })
            .detach();
    }
    let sleeper = handle.spawn({
        let handle = handle.clone();
        async move { handle.sleep(Duration::from_millis(1)).await }
    });
    for _ in 0..10 {
        assert_eq!(executor.turn(), Turn::Ready);
        assert!(!sleeper.is_finished());
    }
    clock.advance(Duration::from_millis(1));
    let mut turns = 10;
    while !sleeper.is_finished() {
        assert_eq!(executor.turn(), Turn::Ready);
        turns += 1;
    }
    assert!(turns <= 10 + 8, "a busy loop looks at the clock in every eighth turn");
    assert_eq!(executor.stats().polls, 10 * turns + 2, "everybody ran once a turn");
    assert_eq!(executor.stats().turns, turns);
}

/// Rule 53: a deadline in the past is over at once. (Every port runs this through its own clock.)
#[test]
fn rule_53_a_deadline_in_the_past_is_over_at_once() {
    for now in [1000, 3_600_000_000_000] {
        let (mut executor, handle, clock) = setup();
        clock.set(Instant::from_nanos(now));
        let task = handle.spawn({
            let handle = handle.clone();
            async move {
                handle.sleep(Duration::ZERO).await;
                handle.sleep_until(Instant::ZERO).await;
                handle.sleep_until(handle.now() - Duration::from_nanos(1)).await;
                handle.sleep_until(handle.now()).await;
                handle.timeout(Duration::ZERO, pending::<()>()).await
            }
        });
        assert_eq!(executor.turn(), Turn::Idle { deadline: None });
        assert!(task.is_finished());
        assert_eq!(result(&mut executor, task), Ok(Err(TimedOut)));
    }
}

/// A clock that moves whenever somebody looks.
#[derive(Default)]
struct Ticking(Cell<u64>);

impl Clock for Ticking {
    fn now(&self) -> Instant {
        self.0.set(self.0.get() + 100);
        Instant::from_nanos(self.0.get())
    }
}

/// Whoever goes by the time at which the turn began, and sleeps until a time that passes in the middle of it, gives way.
/// If the sleep looked at the clock itself it would be over at once, and he would never find that the time has passed.
#[test]
fn a_deadline_that_passes_in_the_middle_of_a_turn_ends_it() {
    let mut executor = Executor::new(Rc::new(Ticking::default()));
    let handle = executor.handle();
    let rounds = Rc::new(Cell::new(0));
    let task = handle.spawn({
        let (handle, rounds) = (handle.clone(), rounds.clone());
        async move {
            let deadline = handle.turn_began() + Duration::from_nanos(50);
            while handle.turn_began() < deadline {
                rounds.set(rounds.get() + 1);
                assert!(rounds.get() < 100, "it goes round without giving way");
                let _later = handle.now();
                handle.sleep_until(deadline).await;
            }
        }
    });
    while !task.is_finished() {
        executor.turn();
    }
    assert_eq!(rounds.get(), 1);
}

/// A clock that counts how often it is looked at.
#[derive(Default)]
struct Watched {
    clock: ManualClock,
    looks: Cell<u64>,
}

impl Clock for Watched {
    fn now(&self) -> Instant {
        self.looks.set(self.looks.get() + 1);
        self.clock.now()
    }
}

/// A look at the clock can cost as much as a hypercall.
#[test]
fn a_sleep_is_not_compared_with_the_clock() {
    let clock = Rc::new(Watched::default());
    let mut executor = Executor::new(clock.clone());
    let handle = executor.handle();
    clock.clock.set(Instant::from_nanos(5_000_000_000));
    executor.turn();
    let began = handle.turn_began();
    assert_eq!(began, Instant::from_nanos(5_000_000_000));
    clock.clock.advance(Duration::from_micros(1));
    assert_eq!(handle.turn_began(), began, "the turn did not begin anew");
    let mut context = Context::from_waker(Waker::noop());
    let before = clock.looks.get();
    for away in [Duration::from_secs(1), Duration::from_micros(500)] {
        let mut sleep = pin!(handle.sleep_until(began + away));
        assert_eq!(sleep.deadline(), began + away);
        for _ in 0..10 {
            assert!(sleep.as_mut().poll(&mut context).is_pending());
        }
    }
    assert_eq!(clock.looks.get(), before);
}

#[test]
fn a_busy_loop_looks_at_the_clock_in_every_eighth_turn() {
    let clock = Rc::new(Watched::default());
    let mut executor = Executor::new(clock.clone());
    let busy = async {
        loop {
            yield_now().await;
        }
    };
    executor.handle().spawn(busy).detach();
    let before = clock.looks.get();
    for _ in 0..80 {
        assert_eq!(executor.turn(), Turn::Ready);
    }
    assert_eq!(clock.looks.get() - before, 10);
}

#[test]
fn any_is_ready_when_one_is() {
    for (one, other) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let poll = |ready| if ready == 1 { Poll::Ready(7) } else { Poll::Pending };
        assert_eq!(any([poll(one), poll(other)]).is_ready(), one + other > 0);
    }
}

#[test]
fn a_timeout_prefers_the_result_and_leaves_no_timer() {
    let (mut executor, handle, clock) = setup();
    let task = handle.spawn({
        let handle = handle.clone();
        async move {
            let ready = handle.timeout(Duration::ZERO, async { 1 }).await;
            let in_time = handle
                .timeout(Duration::from_millis(2), async {
                    handle.sleep(Duration::from_millis(1)).await;
                    2
                })
                .await;
            let late = handle
                .timeout(Duration::from_millis(2), handle.sleep(Duration::MAX))
                .await;
            (ready, in_time, late)
        }
    });
    while let Some(deadline) = executor.run_until_idle() {
        clock.set(deadline);
    }
    assert_eq!(handle.stats().timers, 0);
    assert_eq!(handle.now(), Instant::from_nanos(3_000_000));
    assert_eq!(result(&mut executor, task), Ok((Ok(1), Ok(2), Err(TimedOut))));
}

#[test]
fn a_sleep_that_moves_to_another_task_wakes_that_one() {
    let (mut executor, handle, clock) = setup();
    let mut sleep = Box::pin(handle.sleep(Duration::from_millis(1)));
    let first = handle.spawn(async move {
        poll_fn(|cx| {
            assert!(sleep.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        Some(sleep)
    });
    executor.turn();
    let second = handle.spawn(async move {
        let sleep = first.await.unwrap();
        sleep.unwrap().await;
    });
    executor.run_until_idle();
    assert!(!second.is_finished());
    clock.advance(Duration::from_millis(1));
    executor.run_until_idle();
    assert!(second.is_finished());
}

#[test]
fn timers_with_one_deadline_fire_in_the_order_they_were_set() {
    let (mut executor, handle, clock) = setup();
    let log: Rc<RefCell<Vec<u32>>> = Rc::default();
    for i in 0..50 {
        let (log, handle2) = (log.clone(), handle.clone());
        handle
            .spawn(async move {
                handle2.sleep(Duration::from_millis(5)).await;
                log.borrow_mut().push(i);
            })
            .detach();
    }
    executor.turn();
    clock.advance(Duration::from_millis(5));
    executor.turn();
    assert!(log.borrow().iter().copied().eq(0..50));
}

/// Rule 59: a future that was dropped while it waited leaves nothing behind that grows.
#[test]
fn rule_59_dropped_waiters_leave_nothing_behind() {
    let (mut executor, handle, clock) = setup();
    let signal = Signal::new();
    for _ in 0..1000 {
        let task = handle.spawn({
            let (signal, handle) = (signal.clone(), handle.clone());
            async move { handle.timeout(Duration::from_secs(1), signal.after(0)).await }
        });
        executor.turn();
        assert_eq!(handle.stats().timers, 1);
        drop(task);
        assert_eq!(handle.stats().timers, 0);
    }
    let before = executor.stats().polls;
    signal.raise();
    clock.advance(Duration::from_secs(2));
    executor.run_until_idle();
    assert_eq!(executor.stats().polls, before);
}

#[test]
fn a_signal_wakes_all_who_wait_and_folds_what_came_together() {
    let (mut executor, handle, _) = setup();
    let signal = Signal::new();
    let tasks: Vec<_> = (0..3)
        .map(|seen| {
            let signal = signal.clone();
            handle.spawn(async move { signal.after(seen).await })
        })
        .collect();
    executor.run_until_idle();
    signal.raise();
    signal.raise();
    executor.run_until_idle();
    let counts: Vec<bool> = tasks.iter().map(JoinHandle::is_finished).collect();
    assert_eq!(counts, [true, true, false], "after(2) waits for the third");
    let mut tasks = tasks;
    let third = tasks.remove(2);
    for task in tasks {
        assert_eq!(result(&mut executor, task), Ok(2));
    }
    signal.raise();
    assert_eq!(result(&mut executor, third), Ok(3));
}

#[test]
fn a_guest_of_a_signal_is_woken_once_per_event() {
    let (mut executor, handle, _) = setup();
    let signal = Signal::new();
    let polls = Rc::new(Cell::new(0));
    let task = handle.spawn({
        let (signal, polls) = (signal.clone(), polls.clone());
        poll_fn(move |cx| {
            polls.set(polls.get() + 1);
            assert!(signal.poll_after(2, cx).is_pending() || signal.count() == 3);
            signal.poll_after(2, cx)
        })
    });
    for _ in 0..3 {
        executor.run_until_idle();
        signal.raise();
    }
    executor.run_until_idle();
    assert_eq!(polls.get(), 4);
    assert!(task.is_finished());
}
