//! What holds of event channels in whichever form they come, against a hypervisor that does nothing by itself.
//!
//! The tests are run once for each form: by `xen_ports.rs` and `xen_fifo.rs`, which say how to begin.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::common::Fake;
use fata_events::xen::{Channel, XenLoop};
use fata_events::yield_now;
use fata_hypercall::abi::sched::POLL_MAX_PORTS;
use fata_hypercall::{DomId, Hypervisor, Port, SystemTime};
use proptest::prelude::*;

/// Polls a future once, with a waker that does nothing.
fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// A new owner of a number does not get the old owner's event.
#[test]
fn a_closed_port_takes_its_event_with_it() {
    let hv = Fake::new();
    let ports = crate::ports(&hv);
    let old = ports.alloc(DomId::DOM0).unwrap();
    hv.signal(old.port());
    drop(old);
    let new = ports.alloc(DomId::DOM0).unwrap();
    assert_eq!((new.port(), new.count()), (Port(1), 0));
}

/// Rule 49: an event that comes before the wait is not lost, wherever it comes.
#[test]
fn rule_49_an_event_before_the_wait_is_not_lost() {
    for moment in 0..4 {
        let hv = Fake::new();
        if moment == 0 {
            hv.signal(Port(5)); // before anybody owned it: the console's port may ring at boot
        }
        let ports = crate::ports(&hv);
        let channel = ports.adopt(Port(5)).unwrap();
        if moment == 1 {
            hv.signal(Port(5));
        }
        ports.dispatch();
        if moment == 2 {
            hv.signal(Port(5));
        }
        let mut wait = pin!(channel.after(0));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(wait.as_mut().poll(&mut cx).is_pending());
        if moment == 3 {
            hv.signal(Port(5));
        }
        assert!(ports.dispatch());
        assert_eq!(wait.as_mut().poll(&mut cx), Poll::Ready(1), "moment {moment}");
        assert_eq!(channel.count(), 1);
    }
}

#[test]
fn the_count_takes_in_what_is_pending() {
    let hv = Fake::new();
    let ports = crate::ports(&hv);
    let channel = ports.alloc(DomId::DOM0).unwrap();
    hv.signal(channel.port());
    assert_eq!(channel.count(), 1);
    assert!(!hv.is_pending(channel.port()));
    assert_eq!(channel.count(), 1);
    assert_eq!(poll_once(channel.after(0)), Poll::Ready(1));
    assert!(poll_once(channel.after(1)).is_pending());
}

/// Rule 50: the pending bit is clear before anybody is woken, so an event during the handler sets it again.
#[test]
fn rule_50_pending_is_cleared_before_waking() {
    struct Check(Port);
    thread_local! {
        static SEEN: RefCell<Vec<bool>> = const { RefCell::new(Vec::new()) };
        static HV: RefCell<Option<Fake>> = const { RefCell::new(None) };
    }
    impl Wake for Check {
        fn wake(self: Arc<Self>) {
            HV.with_borrow(|hv| {
                let hv = hv.as_ref().unwrap();
                SEEN.with_borrow_mut(|seen| seen.push(hv.is_pending(self.0)));
                hv.signal(self.0);
            });
        }
    }
    let hv = Fake::new();
    HV.set(Some(hv.clone()));
    let ports = crate::ports(&hv);
    let channel = ports.alloc(DomId::DOM0).unwrap();
    let waker = Waker::from(Arc::new(Check(channel.port())));
    let mut wait = pin!(channel.after(0));
    assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    hv.signal(channel.port());
    assert!(ports.dispatch());
    assert_eq!(SEEN.take(), [false]);
    assert!(hv.is_pending(channel.port()), "the event during the wake is kept");
    let mut next = pin!(channel.after(1));
    assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(ports.dispatch());
    assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    HV.set(None);
}

/// Rules 51 and 53: the sleeping domain watches what its tasks wait for, until their earliest deadline.
#[test]
fn rule_51_before_sleeping_bits_are_clear_and_ports_are_listed() {
    let hv = Fake::new();
    let mut xen = crate::xen_loop(&hv);
    let channels: Vec<_> = (0..3).map(|_| xen.ports().alloc(DomId::DOM0).unwrap()).collect();
    hv.signal(Port(1));
    hv.signal(Port(3));
    let handle = xen.handle();
    for (index, channel) in channels.into_iter().enumerate() {
        let handle2 = handle.clone();
        handle
            .spawn(async move {
                if index == 1 {
                    handle2.sleep(Duration::from_millis(7)).await; // holds port 2 and does not wait for it
                }
                let mut seen = 0;
                loop {
                    seen = channel.after(seen).await;
                }
            })
            .detach();
    }
    while xen.turn() {}
    let deadline = Some(SystemTime(1_000_000_000_000 + 7_000_000));
    let poll = hv.last_poll();
    assert_eq!(
        (poll.ports, poll.deadline, poll.slept),
        (vec![Port(1), Port(3)], deadline, true)
    );
    assert!(!hv.is_pending(Port(1)) && !hv.is_pending(Port(3)));

    // What Xen would do at the deadline.
    hv.0.tsc.set(7_000_000);
    while xen.turn() {}
    let poll = hv.last_poll();
    assert_eq!((poll.ports, poll.deadline), (vec![Port(1), Port(2), Port(3)], None));
}

#[test]
fn an_idle_domain_polls_once_and_one_that_works_does_not() {
    let hv = Fake::new();
    let mut xen = crate::xen_loop(&hv);
    assert!(!xen.turn());
    assert_eq!(hv.last_poll().ports, []);
    xen.handle()
        .spawn(async {
            for _ in 0..100 {
                yield_now().await;
            }
        })
        .detach();
    let rounds = (0..).take_while(|_| xen.turn()).count();
    assert_eq!((rounds, hv.0.polls.borrow().len()), (100, 2));
}

/// Rule 55: a port that nobody listens to costs nothing after the first wake, however often it fires: its pending bit
/// stays set, and Xen wakes nobody for a bit that is set already.
#[test]
fn rule_55_a_storm_on_an_idle_port_is_silent() {
    let hv = Fake::new();
    let mut xen = crate::xen_loop(&hv);
    let noisy = xen.ports().alloc(DomId::DOM0).unwrap();
    for _ in 0..1_000_000 {
        hv.signal(noisy.port());
    }
    assert!(!xen.turn(), "there is nothing to do for it");
    let poll = hv.last_poll();
    assert!(poll.slept && poll.ports.is_empty());
    assert!(hv.is_pending(noisy.port()));
    assert_eq!(noisy.count(), 1, "and it is not lost either");
}

/// Rule 55: the same beside a port that is listened to: only that one's event is taken.
#[test]
fn rule_55_an_idle_neighbour_keeps_its_event() {
    let hv = Fake::new();
    let ports = crate::ports(&hv);
    let (idle, busy) = (ports.alloc(DomId::DOM0).unwrap(), ports.alloc(DomId::DOM0).unwrap());
    assert!(poll_once(busy.after(0)).is_pending());
    hv.signal(idle.port());
    hv.signal(busy.port());
    assert!(ports.dispatch());
    assert_eq!((hv.is_pending(idle.port()), hv.is_pending(busy.port())), (true, false));
    assert_eq!((idle.count(), busy.count()), (1, 1), "each counted once");
}

/// Rule 55: 10^6 events for a task that listens cost one poll of it per turn, and the others get their turns.
#[test]
fn xsa_332_a_storm_gets_one_turn_per_turn() {
    let hv = Fake::new();
    let mut xen = crate::xen_loop(&hv);
    let noisy = xen.ports().alloc(DomId::DOM0).unwrap();
    let port = noisy.port();
    // It fires at every moment that there is.
    hv.set_hook(move |hv| hv.signal(port));
    let served = Rc::new(Cell::new(0));
    let counter = served.clone();
    let handle = xen.handle();
    handle
        .spawn(async move {
            loop {
                let seen = noisy.count();
                counter.set(counter.get() + 1);
                noisy.after(seen).await;
            }
        })
        .detach();
    let slept = Rc::new(Cell::new(0));
    let sleeps = slept.clone();
    let handle2 = handle.clone();
    handle
        .spawn(async move {
            loop {
                handle2.sleep(Duration::from_micros(1)).await;
                sleeps.set(sleeps.get() + 1);
            }
        })
        .detach();
    for turn in 1..=10_000 {
        for _ in 0..100 {
            hv.signal(port);
        }
        hv.0.tsc.set(hv.0.tsc.get() + 1000);
        xen.turn();
        assert!(served.get() <= turn, "at most once a turn");
    }
    assert!(slept.get() >= 9_990, "a timer fires in every turn: {}", slept.get());
    assert!(served.get() >= 4_000, "and the noisy one is served: {}", served.get());
}

/// A task that waits for `channel` and finds nothing, except that one event in `found_every` is for something (0: none).
fn spawn_listener(xen: &XenLoop<Fake>, channel: Channel<Fake>, found_every: u64) -> Rc<Cell<u64>> {
    let woken = Rc::new(Cell::new(0_u64));
    let counter = woken.clone();
    xen.handle()
        .spawn(async move {
            let mut seen = channel.count();
            loop {
                seen = channel.after(seen).await;
                counter.set(counter.get() + 1);
                channel.served(found_every != 0 && counter.get().is_multiple_of(found_every));
            }
        })
        .detach();
    woken
}

/// Rule 55, XSA-332 and XSA-391: a peer that signals in a loop and has nothing to say costs a bounded number of turns,
/// which does not depend on how fast it signals.
#[test]
fn xsa_391_spurious_events_are_listened_to_less_and_less() {
    let hv = Fake::new();
    let mut xen = crate::xen_loop(&hv);
    let channel = xen.ports().alloc(DomId::DOM0).unwrap();
    let port = channel.port();
    let woken = spawn_listener(&xen, channel, 0);
    while xen.turn() {}
    let turns = hv.storm_for_a_second(&mut xen, port);
    assert!(woken.get() < 150, "{} wakes", woken.get());
    assert!(turns < 500, "{turns} turns");
    assert!(
        woken.get() > 90,
        "and it is listened to 100 times a second: {}",
        woken.get()
    );
}

/// The first events for nothing are forgiven, and one for something ends all pauses.
#[test]
fn xsa_391_an_honest_peer_is_never_kept_waiting() {
    let hv = Fake::new();
    let mut xen = crate::xen_loop(&hv);
    let channel = xen.ports().alloc(DomId::DOM0).unwrap();
    let port = channel.port();
    let woken = spawn_listener(&xen, channel, 32);
    while xen.turn() {}
    for signals in 1..=1000 {
        hv.signal(port);
        while xen.turn() {}
        assert_eq!(woken.get(), signals);
    }
    assert_eq!(hv.last_poll().deadline, None);
}

/// A pause is over on time, without a task or a timer of anybody's; and the port's end is the pause's end.
#[test]
fn xsa_391_a_pause_ends_on_time_and_with_its_port() {
    let hv = Fake::new();
    let mut xen = crate::xen_loop(&hv);
    let channel = Rc::new(xen.ports().alloc(DomId::DOM0).unwrap());
    let waiting = |seen| {
        let _ = channel.poll_after(seen, &mut Context::from_waker(Waker::noop()));
        channel.poll_after(seen, &mut Context::from_waker(Waker::noop()))
    };
    for _ in 0..32 {
        channel.served(false);
    }
    assert!(waiting(0).is_pending());
    assert_eq!(
        (xen.ports().end_of_pause(), xen.ports().awaited()),
        (None, 1),
        "forgiven"
    );
    hv.signal(channel.port());
    assert!(xen.ports().dispatch());
    for (pause, vain) in [
        (50_000, 1),
        (100_000, 1),
        (200_000, 1),
        (10_000_000, 20),
        (10_000_000, u32::MAX),
    ] {
        for _ in 0..vain.min(100) {
            channel.served(false);
        }
        let seen = channel.count();
        assert!(waiting(seen).is_pending());
        let until = SystemTime(hv.system_time() + pause);
        assert_eq!((xen.ports().end_of_pause(), xen.ports().awaited()), (Some(until), 0));
        hv.signal(channel.port());
        hv.0.tsc.set(hv.0.tsc.get() + pause - 1);
        assert!(!xen.ports().dispatch() && waiting(seen).is_pending());
        assert!(!xen.turn());
        assert_eq!((hv.last_poll().ports, hv.last_poll().deadline), (vec![], Some(until)));
        hv.0.tsc.set(hv.0.tsc.get() + 1);
        assert!(xen.ports().dispatch());
        assert_eq!(waiting(seen), Poll::Ready(seen + 1));
    }
    assert!(waiting(channel.count()).is_pending());
    let ports = xen.ports().clone();
    drop(channel);
    assert_eq!(ports.end_of_pause(), None);
}

/// Rule 56: a turn costs what is pending, not what is open.
#[test]
fn rule_56_a_turn_costs_what_is_pending() {
    let hv = Fake::new();
    let mut xen = crate::xen_loop(&hv);
    let handle = xen.handle();
    for _ in 0..1000 {
        let channel = xen.ports().alloc(DomId::DOM0).unwrap();
        handle
            .spawn(async move {
                let mut seen = 0;
                loop {
                    seen = channel.after(seen).await;
                }
            })
            .detach();
    }
    while xen.turn() {}
    let before = handle.stats().polls;
    hv.signal(Port(17));
    hv.signal(Port(999));
    while xen.turn() {}
    assert_eq!(handle.stats().polls - before, 2);
}

/// More ports than `SCHEDOP_poll` takes: each gets its turn in the list, and the sleep is short.
#[test]
fn more_than_128_ports_take_turns_in_the_list() {
    for count in [127, 128, 129, 200, 256, 300, 4095] {
        let hv = Fake::new();
        let mut xen = crate::xen_loop(&hv);
        let handle = xen.handle();
        for _ in 0..count {
            let channel = xen.ports().alloc(DomId::DOM0).unwrap();
            handle.spawn(async move { channel.after(0).await }).detach();
        }
        assert_eq!(xen.ports().len(), count);
        let mut listed = BTreeSet::new();
        let rounds = count.div_ceil(POLL_MAX_PORTS);
        for _ in 0..rounds {
            assert!(!xen.turn());
            let poll = hv.last_poll();
            assert_eq!(poll.ports.len(), count.min(POLL_MAX_PORTS));
            assert_eq!(
                poll.ports.iter().collect::<BTreeSet<_>>().len(),
                poll.ports.len(),
                "each once"
            );
            listed.extend(poll.ports);
            let soon = SystemTime(hv.system_time() + 10_000_000);
            assert_eq!(poll.deadline, (count > POLL_MAX_PORTS).then_some(soon), "{count} ports");
        }
        assert_eq!(listed.len(), count, "every port was listed within {rounds} rounds");
    }
}

/// The next list begins in the middle of a word, and there is room for all who are left: each is in it, and once.
#[test]
fn a_list_that_begins_in_the_middle_goes_all_the_way_around() {
    let ports = crate::ports(&Fake::new());
    let mut channels: Vec<Channel<Fake>> = (0..200).map(|_| ports.alloc(DomId::DOM0).unwrap()).collect();
    let mut context = Context::from_waker(Waker::noop());
    for channel in &channels {
        assert!(channel.poll_after(0, &mut context).is_pending());
    }
    let mut list = [Port(0); POLL_MAX_PORTS];
    assert_eq!(ports.wait_list(&mut list), POLL_MAX_PORTS);
    channels.drain(..100);
    let expected: BTreeSet<_> = channels.iter().map(Channel::port).collect();
    let len = ports.wait_list(&mut list);
    assert_eq!(list[0], Port(129), "behind the last one of the first list");
    assert_eq!((len, list[..len].iter().copied().collect()), (100, expected));
}

#[test]
fn what_came_and_went_is_counted() {
    let hv = Fake::new();
    let mut xen = crate::xen_loop(&hv);
    assert!(xen.ports().is_empty());
    let channel = xen.ports().alloc(DomId::DOM0).unwrap();
    let port = channel.port();
    assert!(!xen.ports().is_empty());
    for _ in 0..3 {
        channel.notify();
    }
    hv.signal(port);
    assert_eq!(channel.count(), 1, "one by a look at the bit");
    let listener = xen.handle().spawn(async move { channel.after(1).await });
    while xen.turn() {}
    hv.signal(port);
    while xen.turn() {}
    assert!(listener.is_finished(), "and one by the dispatch");
    let stats = xen.ports().stats();
    assert_eq!((stats.sent, stats.received, stats.sleeps), (3, 2, 2));
    assert_eq!(hv.0.polls.borrow().len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Rules 49 to 51 together. Peers put work onto their rings and signal, at random moments: between any two things
    /// that the loop does, also inside poll before it looks at the bits. Whenever the domain really sleeps, no peer's
    /// work may be left undone.
    #[test]
    fn rule_52_no_wake_up_is_lost(seed in any::<u64>(), ports in 1_usize..5, signals in 1_u32..60) {
        let hv = Fake::new();
        let mut xen = crate::xen_loop(&hv);
        let ring = |index| (Port(index as u32 * 70 + 1), Cell::new(0), Cell::new(0));
        let rings: Rc<Vec<_>> = Rc::new((0..ports).map(ring).collect());
        for index in 0..ports {
            let rings = rings.clone();
            let channel = xen.ports().adopt(rings[index].0).unwrap();
            let handle = xen.handle();
            let napping = index % 2 == 1;
            xen.handle().spawn(async move {
                let (_, produced, consumed) = &rings[index];
                loop {
                    let seen = channel.count();
                    channel.notify(); // a moment for the peer, between the count and the look
                    consumed.set(produced.get());
                    if napping {
                        let _ = handle.timeout(Duration::from_micros(3), channel.after(seen)).await;
                    } else {
                        channel.after(seen).await;
                    }
                }
            }).detach();
        }
        let left = Rc::new(Cell::new(signals));
        let mut random = seed | 1;
        let (left2, rings2) = (left.clone(), rings.clone());
        hv.set_hook(move |hv| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random.is_multiple_of(3) && left2.get() > 0 {
                let (port, produced, _) = &rings2[(random >> 8) as usize % rings2.len()];
                left2.set(left2.get() - 1);
                produced.set(produced.get() + 1);
                hv.signal(*port);
            }
        });
        let mut asleep_at = 0;
        for _ in 0..2000 {
            if xen.turn() {
                continue;
            }
            let poll = hv.last_poll();
            if !poll.slept {
                continue;
            }
            for (port, produced, consumed) in rings.iter() {
                let heard = poll.ports.contains(port) && !hv.is_pending(*port);
                prop_assert!(heard, "a port whose next event would not wake it");
                prop_assert_eq!(produced.get(), consumed.get(), "work is left on port {:?}", port);
            }
            asleep_at += 1;
            if left.get() == 0 && asleep_at > 3 {
                break;
            }
            hv.0.tsc.set(hv.0.tsc.get() + 500);
        }
        prop_assert_eq!(left.get(), 0);
        prop_assert!(asleep_at > 0, "it does go to sleep");
    }
}

/// What was opened in a domain's former life signals nobody, hears nothing and closes nothing, although its number may be
/// somebody else's by now. Who waits for it is woken, to see that it is gone.
#[test]
fn a_port_of_a_former_life_does_nothing() {
    let hv = Fake::new();
    let ports = crate::ports(&hv);
    let old = ports.alloc(DomId::DOM0).unwrap();
    let seen = old.count();
    assert_eq!(poll_once(old.after(seen)), Poll::Pending);
    assert!(ports.awaited() == 1 && old.is_open());

    // As Xen leaves it: no ports, no masks.
    hv.0.open.borrow_mut().clear();
    hv.forget_fifo();
    for word in &hv.shared_info().evtchn_mask {
        word.store(0, std::sync::atomic::Ordering::Relaxed);
    }
    ports.resume();
    let masks = &hv.shared_info().evtchn_mask;
    assert!(
        masks
            .iter()
            .all(|word| word.load(std::sync::atomic::Ordering::Relaxed) == u64::MAX)
    );
    assert!(ports.is_empty() && ports.awaited() == 0 && !old.is_open());
    assert!(poll_once(old.after(seen)).is_ready(), "woken once");

    let new = ports.alloc(DomId::DOM0).unwrap();
    assert_eq!(new.port(), old.port());
    let seen = old.count();
    assert_eq!(poll_once(old.after(seen)), Poll::Pending);
    assert_eq!(ports.awaited(), 0, "nobody waits for the new one");
    hv.signal(new.port());
    assert_eq!(old.count(), seen, "the event is the new one's");
    assert_eq!(new.count(), 1);
    old.notify();
    assert!(hv.0.sent.borrow().is_empty());
    assert_eq!(poll_once(new.after(1)), Poll::Pending);
    drop(old);
    assert!(hv.0.open.borrow().contains(&new.port().0) && ports.len() == 1 && ports.awaited() == 1);
}
