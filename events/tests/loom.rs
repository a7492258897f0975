//! Wakes from elsewhere, and events that come late, in every order that the memory model allows.
//!
//! Run by `cargo fata test loom`. The code under test is the crate's own, compiled with loom's atomics. Xen's side of
//! `SCHEDOP_poll` is a model, below. Each model was seen to fail, on the changes that are named with it.
#![cfg(loom)]

mod common;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use common::Fake;
use fata_events::xen::{PvClock, XenLoop};
use fata_events::{Executor, JoinHandle, ManualClock};
use fata_hypercall::abi::event_fifo::WORDS_PER_PAGE;
use fata_hypercall::{Hypervisor, Port};
use loom::sync::atomic::Ordering::{AcqRel, Relaxed, Release, SeqCst};
use loom::sync::atomic::{AtomicBool, AtomicU32, fence};
use loom::sync::{Condvar, Mutex};
use loom::thread;

type Flags = Rc<[AtomicU32; 2]>;

fn flags() -> Flags {
    Rc::new([AtomicU32::new(0), AtomicU32::new(0)])
}

/// A task that ends when all of `flags` that it needs are up, and its waker.
fn waiter(executor: &mut Executor, flags: &Flags, needed: &'static [usize]) -> (JoinHandle<()>, Waker) {
    let waker = Rc::new(RefCell::new(None));
    let (flags, slot) = (Rc::clone(flags), Rc::clone(&waker));
    let task = executor.handle().spawn(poll_fn(move |cx| {
        slot.borrow_mut().get_or_insert_with(|| cx.waker().clone());
        // Relaxed: it is the wake that makes visible what was written before it.
        if needed.iter().all(|&i| flags[i].load(Relaxed) == 1) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }));
    executor.run_until_idle();
    let waker = waker.borrow_mut().take().expect("it was polled");
    (task, waker)
}

/// Puts up a flag, then wakes.
fn raise(flags: &Flags, index: usize, waker: Waker) -> thread::JoinHandle<()> {
    let flags = Rc::clone(flags);
    thread::spawn(move || {
        flags[index].store(1, Relaxed);
        waker.wake();
    })
}

/// Two wake one task while it may be running: none of the wakes is lost, not even the one that finds the task queued
/// already, and each shows the task what was written before it.
///
/// Fails when `unqueue` comes after the poll, when it is a store instead of a swap, and when the swap in `enqueue` or in
/// `unqueue` is relaxed.
#[test]
fn no_wake_is_lost() {
    loom::model(|| {
        let mut executor = Executor::new(Rc::new(ManualClock::default()));
        let flags = flags();
        let (task, waker) = waiter(&mut executor, &flags, &[0, 1]);
        let threads = [raise(&flags, 0, waker.clone()), raise(&flags, 1, waker)];
        executor.turn();
        for thread in threads {
            thread.join().unwrap();
        }
        executor.run_until_idle();
        assert!(task.is_finished());
    });
}

/// Two wake a task each while the loop takes tasks from the queue: each runs, and runs once for its wake.
///
/// Fails when the queue drops what is pushed while it is emptied, and when `enqueue` pushes a task that is queued.
#[test]
fn the_ready_queue_loses_and_doubles_nothing() {
    loom::model(|| {
        let mut executor = Executor::new(Rc::new(ManualClock::default()));
        let flags = flags();
        let (first, one) = waiter(&mut executor, &flags, &[0]);
        let (second, two) = waiter(&mut executor, &flags, &[1]);
        let polls = executor.stats().polls;
        one.wake_by_ref();
        one.wake_by_ref();
        let threads = [raise(&flags, 0, one), raise(&flags, 1, two)];
        executor.turn();
        for thread in threads {
            thread.join().unwrap();
        }
        executor.run_until_idle();
        assert!(first.is_finished() && second.is_finished());
        let polls = executor.stats().polls - polls;
        assert!(
            (2..=3).contains(&polls),
            "{polls} polls: one more if the second wake came after the first poll"
        );
    });
}

/// The scheduler's and the event channels' part of Xen (`do_poll` in xen/common/sched/core.c, `evtchn_check_pollers` and what
/// sets a port pending in xen/common).
struct Xen {
    hv: Fake,
    /// The vCPU is in `SCHEDOP_poll`.
    polling: AtomicBool,
    sleep: Mutex<()>,
    woken: Condvar,
}

impl Xen {
    fn poll(&self, ports: &[Port]) {
        // Locked, as all of Xen's operations on bits are; and the vCPU is marked before the ports are looked at.
        self.polling.swap(true, AcqRel);
        fence(SeqCst);
        if ports.iter().any(|port| self.hv.is_pending(*port)) {
            self.polling.swap(false, AcqRel);
            // In the FIFO form it may be pending and not linked yet: for the few instructions that Xen has left to do.
            thread::yield_now();
            return;
        }
        let mut asleep = self.sleep.lock().unwrap();
        while self.polling.load(Relaxed) {
            asleep = self.woken.wait(asleep).unwrap();
        }
    }

    /// The peer's `EVTCHNOP_send`. Only a bit that becomes set wakes.
    fn send(&self, port: Port) {
        if !self.hv.set_pending(port) {
            return;
        }
        fence(SeqCst);
        if self.polling.swap(false, AcqRel) {
            let _asleep = self.sleep.lock().unwrap();
            self.woken.notify_one();
        }
    }
}

/// A peer that puts a message onto each of its rings, one after the other, and signals. For each ring there is a task. If an
/// event is lost the domain sleeps for ever, which loom reports as a deadlock.
fn late_events(fifo: bool, rounds: u32, ports: &'static [Port]) {
    let mut model = loom::model::Builder::new();
    // Without a bound it takes minutes; more than two switches against a thread's will have never found anything.
    model.preemption_bound = Some(3);
    model.check(move || {
        let hv = Fake::new();
        let xen = Rc::new(Xen {
            hv: hv.clone(),
            polling: AtomicBool::new(false),
            sleep: Mutex::new(()),
            woken: Condvar::new(),
        });
        // The turn in which the last task ends goes to sleep, too, for ever.
        let left = Rc::new(Cell::new(ports.len()));
        hv.set_sleep({
            let (xen, left) = (Rc::clone(&xen), Rc::clone(&left));
            move |ports| {
                if left.get() > 0 {
                    xen.poll(ports);
                }
            }
        });
        let mut guest = XenLoop::new(hv.clone());
        if fifo {
            hv.offer_fifo();
            drop(guest.ports().adopt(Port(WORDS_PER_PAGE as u32)));
        }
        let rings: Rc<[AtomicU32]> = ports.iter().map(|_| AtomicU32::new(0)).collect();
        for (index, &port) in ports.iter().enumerate() {
            let channel = guest.ports().adopt(port).unwrap();
            let (rings, left) = (Rc::clone(&rings), Rc::clone(&left));
            let task = async move {
                loop {
                    let seen = channel.count();
                    if rings[index].load(Relaxed) == rounds {
                        return left.set(left.get() - 1);
                    }
                    channel.after(seen).await;
                }
            };
            guest.handle().spawn(task).detach();
        }
        let peer = thread::spawn(move || {
            for message in 1..=rounds {
                for (index, &port) in ports.iter().enumerate() {
                    rings[index].store(message, Relaxed);
                    xen.send(port);
                }
            }
        });
        while left.get() > 0 {
            guest.turn();
        }
        peer.join().unwrap();
        // It holds the hypervisor that holds it.
        hv.set_sleep(|_| ());
    });
}

/// A peer that signals at any moment, also between the loop's last look and its sleep: whoever waits for the port sees all
/// that the peer wrote.
///
/// Fails when `take` clears bits by a load and a store, when a bit is cleared after the look at the ring instead of before,
/// when `wait_list` leaves the port out, and when the model of Xen looks at the ports before it marks the vCPU.
#[test]
fn an_event_that_comes_late_wakes_the_domain() {
    late_events(false, 2, &[Port(3)]);
}

/// The same in the FIFO form, for one port that is linked again and again.
#[test]
fn a_late_event_of_the_fifo_form_wakes_the_domain() {
    late_events(true, 2, &[Port(3)]);
}

/// And for two ports: Xen links the second behind the first while that is taken out of the list.
#[test]
fn a_port_is_linked_while_its_neighbour_is_taken() {
    late_events(true, 1, &[Port(2), Port(3)]);
}

/// Xen writes the clock while it is read: the reader sees the old values or the new ones, never some of each.
///
/// Fails without the second look at the version, without the fence before it, and when the first look is relaxed.
#[test]
fn a_clock_that_is_being_written_is_read_whole() {
    loom::model(|| {
        let hv = Fake::new();
        let clock = PvClock::new(hv.clone());
        let before = clock.system_time().0;
        let xen = thread::spawn({
            let hv = hv.clone();
            move || {
                let time = &hv.shared_info().vcpu_info[0].time;
                // `version_update_begin` and `version_update_end` in xen/arch/x86/time.c.
                time.version.store(1, Relaxed);
                fence(Release);
                // A second later by both, so that the two in mixture are a second off.
                time.tsc_timestamp.store(1_000_000_000, Relaxed);
                time.system_time.store(before + 1_000_000_000, Relaxed);
                time.version.store(2, Release);
            }
        });
        hv.0.tsc.set(2_000_000_000);
        assert_eq!(clock.system_time().0, before + 2_000_000_000);
        xen.join().unwrap();
    });
}
