//! What Xen does for a domain: wake rules, ports, grants, the clock, time, leaks.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use fata_hypercall::abi::grant_table::{EntryV1, Flags};
use fata_hypercall::{DomId, Errno, GrantError, GrantRef, Hypervisor, Port, SharedPage, ShutdownReason, SystemTime};
use fata_sim::{Access, Call, Domain, DomainConfig, EventFaults, Next, PortState, Sim};

/// Two domains with a channel between them.
fn pair(sim: &Sim) -> (Domain, Port, Domain, Port) {
    let (a, b) = (sim.domain("a"), sim.domain("b"));
    for domain in [&a, &b] {
        domain.set_spurious_wakes(0);
    }
    let near = a.evtchn_alloc_unbound(b.id()).unwrap();
    let far = b.bind_interdomain(a.id(), near).unwrap();
    assert!(b.take_pending(far), "a newly bound port is pending");
    (a, near, b, far)
}

fn grant(domain: &Domain, page: &SharedPage, reference: u32, peer: DomId, flags: Flags) {
    let entry: &EntryV1 = &domain.grant_entries(reference / 512).unwrap()[(reference % 512) as usize];
    entry.domid.store(peer.0, SeqCst);
    entry.frame.store(domain.gfn_of(page).0 as u32, SeqCst);
    entry.flags.store(flags.bits(), SeqCst);
}

fn flags(domain: &Domain, reference: u32) -> Flags {
    let entry = &domain.grant_entries(reference / 512).unwrap()[(reference % 512) as usize];
    Flags::from_bits_retain(entry.flags.load(SeqCst))
}

fn page(domain: &Domain) -> &'static SharedPage {
    // SAFETY: the tests keep the domain, and do not free the page while they use the reference.
    unsafe { &*domain.alloc_pages(1).unwrap().as_ptr() }
}

fn free(domain: &Domain, page: &'static SharedPage) {
    // SAFETY: from `page` above; the tests that free a page that is in use do so to be found out.
    unsafe { domain.free_pages(page.into(), 1) }
}

#[test]
fn an_event_goes_to_the_other_end() {
    let sim = Sim::new(1);
    let (a, near, b, far) = pair(&sim);
    assert_eq!(
        a.port_state(near),
        Some(PortState::Interdomain {
            remote: b.id(),
            port: far
        })
    );
    a.evtchn_send(near).unwrap();
    let word = &b.shared_info().evtchn_pending[far.0 as usize / 64];
    assert_ne!(word.load(SeqCst) & 1 << (far.0 % 64), 0);
    assert!(b.take_pending(far));
    assert!(!a.take_pending(near));
}

#[test]
fn a_closed_port_is_unbound_at_the_other_end_and_comes_back_first() {
    let sim = Sim::new(1);
    let (a, near, b, far) = pair(&sim);
    b.evtchn_close(far).unwrap();
    assert_eq!(a.port_state(near), Some(PortState::Unbound { remote: b.id() }));
    assert_eq!(a.evtchn_send(near), Ok(()), "nobody hears it, which is no error");
    assert_eq!(b.evtchn_close(far), Err(Errno::EINVAL));
    assert_eq!(b.evtchn_alloc_unbound(a.id()), Ok(far));
    let far = b.bind_interdomain(a.id(), near).unwrap();
    assert!(b.take_pending(far), "what was sent in between is not lost");
    assert_eq!(b.bind_interdomain(a.id(), near), Err(Errno::EINVAL), "bound already");
    let other = sim.domain("c");
    let not_for_c = a.evtchn_alloc_unbound(b.id()).unwrap();
    assert_eq!(other.bind_interdomain(a.id(), not_for_c), Err(Errno::EINVAL));
}

#[test]
fn a_send_on_a_closed_port_is_a_violation() {
    let sim = Sim::new(1);
    sim.expect_violations();
    let domain = sim.domain("a");
    assert_eq!(domain.evtchn_send(Port(9)), Err(Errno::EINVAL));
    assert_eq!(sim.take_violations().len(), 1);
}

#[test]
fn there_are_as_many_ports_as_configured() {
    let sim = Sim::new(1);
    let domain = sim.domain(DomainConfig {
        console: false,
        store: false,
        ..DomainConfig::new("a")
    });
    for expected in 1..1024 {
        assert_eq!(domain.evtchn_alloc_unbound(DomId::DOM0), Ok(Port(expected)));
    }
    assert_eq!(domain.evtchn_alloc_unbound(DomId::DOM0), Err(Errno::ENOSPC));
}

#[test]
fn poll_returns_at_once_if_a_listed_port_is_pending() {
    let sim = Sim::new(1);
    let (a, near, b, far) = pair(&sim);
    a.evtchn_send(near).unwrap();
    b.shared_info().evtchn_mask[far.0 as usize / 64].store(u64::MAX, SeqCst);
    b.poll(&[far], None);
    assert!(!b.is_asleep(), "masked or not");
    b.poll(&[Port(100), far], None);
    assert!(!b.is_asleep());
    b.poll(&[Port(100)], None);
    assert!(b.is_asleep(), "a pending port that is not listed does not count");
}

#[test]
fn a_sleeper_on_one_port_hears_that_port_only() {
    let sim = Sim::new(1);
    let (a, near, b, far) = pair(&sim);
    let near2 = a.evtchn_alloc_unbound(b.id()).unwrap();
    let far2 = b.bind_interdomain(a.id(), near2).unwrap();
    assert!(b.take_pending(far2));
    b.poll(&[far], None);
    a.evtchn_send(near2).unwrap();
    assert!(b.is_asleep());
    a.evtchn_send(near).unwrap();
    assert!(!b.is_asleep());

    assert!(b.take_pending(far) && b.take_pending(far2));
    b.poll(&[far, Port(100)], None);
    a.evtchn_send(near2).unwrap();
    assert!(!b.is_asleep(), "two ports in the list: any port wakes");
}

#[test]
fn a_bit_that_is_pending_already_wakes_nobody() {
    let sim = Sim::new(1);
    let (a, near, b, _) = pair(&sim);
    a.evtchn_send(near).unwrap();
    b.poll(&[], None);
    assert!(b.is_asleep(), "an empty list checks nothing");
    a.evtchn_send(near).unwrap();
    assert!(b.is_asleep(), "no edge");
}

#[test]
fn poll_may_return_without_a_reason() {
    let sim = Sim::new(1);
    let domain = sim.domain("a");
    domain.set_spurious_wakes(4);
    let early = (0..400).filter(|_| {
        domain.poll(&[], None);
        // Nothing puts a domain that returned early to sleep again but the next poll.
        let woke = !domain.is_asleep();
        if !woke {
            sim.dom0().evtchn_send(wake_port(&sim, &domain)).unwrap();
        }
        woke
    });
    assert!((50..150).contains(&early.count()));
}

/// A port of dom0 that leads to `domain`, new each time.
fn wake_port(sim: &Sim, domain: &Domain) -> Port {
    let port = domain.evtchn_alloc_unbound(DomId::DOM0).unwrap();
    sim.dom0().bind_interdomain(domain.id(), port).unwrap()
}

#[test]
fn a_deadline_wakes_exactly_on_time() {
    let sim = Sim::new(1);
    let domain = sim.domain("a");
    let start = sim.now().0;
    let woken = Rc::new(RefCell::new(Vec::new()));
    sim.add_guest(&domain, {
        let (domain, woken) = (domain.clone(), Rc::clone(&woken));
        domain.set_spurious_wakes(0);
        move || {
            woken.borrow_mut().push(domain.now().0);
            domain.poll(
                &[],
                Some(SystemTime(start + 3_000_000_000 * woken.borrow().len() as u64)),
            );
        }
    });
    sim.run_for(Duration::from_secs(10));
    let woken = woken.borrow();
    assert_eq!(
        woken[1..],
        [start + 3_000_000_000, start + 6_000_000_000, start + 9_000_000_000]
    );
    assert_eq!(sim.now().0, start + 10_000_000_000);
    assert_eq!(domain.activity().turns, 4, "an idle domain gets no turns");
}

#[test]
fn the_guests_clock_shows_virtual_time() {
    for seed in 0..16 {
        let sim = Sim::new(seed);
        let domain = sim.domain("a");
        let read = || {
            let time = &domain.shared_info().vcpu_info[0].time;
            let delta = domain.tsc().wrapping_sub(time.tsc_timestamp.load(SeqCst));
            let shift = time.tsc_shift.load(SeqCst);
            let delta = if shift < 0 { delta >> -shift } else { delta << shift };
            time.system_time.load(SeqCst)
                + ((u128::from(delta) * u128::from(time.tsc_to_system_mul.load(SeqCst))) >> 32) as u64
        };
        for _ in 0..5 {
            assert_eq!(read(), sim.now().0);
            sim.run_for(Duration::from_nanos(123_456_789));
        }
        sim.set_wall_clock(Duration::from_secs(2_000_000_000));
        let info = domain.shared_info();
        let at_zero = u64::from(info.wc_sec.load(SeqCst)) * 1_000_000_000 + u64::from(info.wc_nsec.load(SeqCst));
        assert_eq!(at_zero + sim.now().0, 2_000_000_000 * 1_000_000_000);
    }
}

#[test]
fn a_mapping_is_the_same_memory_and_shows_in_the_flags() {
    let sim = Sim::new(1);
    let (a, b) = (sim.domain("a"), sim.domain("b"));
    let page = page(&a);
    grant(&a, page, 600, b.id(), Flags::PERMIT_ACCESS);
    let mapping = b.map_grant(a.id(), GrantRef(600), Access::Write).unwrap();
    assert_eq!(flags(&a, 600), Flags::PERMIT_ACCESS | Flags::READING | Flags::WRITING);
    mapping.page().write(10, b"hello");
    let mut bytes = [0; 5];
    page.read(10, &mut bytes);
    assert_eq!(&bytes, b"hello");

    let reading = b.map_grant(a.id(), GrantRef(600), Access::Read).unwrap();
    drop(mapping);
    assert_eq!(
        flags(&a, 600),
        Flags::PERMIT_ACCESS | Flags::READING,
        "the last writer has gone"
    );
    drop(reading);
    assert_eq!(flags(&a, 600), Flags::PERMIT_ACCESS);
    b.copy_to_grant(a.id(), GrantRef(600), 4094, b"xy").unwrap();
    let mut two = [0; 2];
    b.copy_from_grant(a.id(), GrantRef(600), 4094, &mut two).unwrap();
    assert_eq!(&two, b"xy");
    assert_eq!(
        b.copy_from_grant(a.id(), GrantRef(600), 4095, &mut two),
        Err(GrantError::BadCopyArgument)
    );
    assert_eq!(flags(&a, 600), Flags::PERMIT_ACCESS);
}

#[test]
fn xen_refuses_what_is_not_granted() {
    let sim = Sim::new(1);
    let (a, b, c) = (sim.domain("a"), sim.domain("b"), sim.domain("c"));
    let page = page(&a);
    grant(&a, page, 8, b.id(), Flags::PERMIT_ACCESS | Flags::READONLY);
    let map = |peer: &Domain, reference, access| peer.map_grant(a.id(), GrantRef(reference), access).map(drop);
    assert_eq!(map(&b, 8, Access::Read), Ok(()));
    assert_eq!(map(&b, 8, Access::Write), Err(GrantError::General));
    assert_eq!(map(&c, 8, Access::Read), Err(GrantError::BadReference));
    assert_eq!(
        map(&b, 9, Access::Read),
        Err(GrantError::BadReference),
        "an empty entry"
    );
    assert_eq!(
        map(&b, 512, Access::Read),
        Err(GrantError::BadReference),
        "a frame that was never set up"
    );
    assert_eq!(map(&b, u32::MAX, Access::Read), Err(GrantError::BadReference));
    assert_eq!(
        b.map_grant(DomId(99), GrantRef(8), Access::Read).map(drop),
        Err(GrantError::BadDomain)
    );
    a.grant_entries(0).unwrap()[8].frame.store(1, SeqCst);
    assert_eq!(map(&b, 8, Access::Read), Err(GrantError::BadPage));
    assert_eq!(
        flags(&a, 8),
        Flags::PERMIT_ACCESS | Flags::READONLY,
        "no mark is left behind"
    );
}

#[test]
fn a_revoke_by_compare_and_swap_fails_while_mapped() {
    let sim = Sim::new(1);
    sim.expect_violations();
    let (a, b) = (sim.domain("a"), sim.domain("b"));
    let page = page(&a);
    grant(&a, page, 8, b.id(), Flags::PERMIT_ACCESS);
    let entry = &a.grant_entries(0).unwrap()[8];
    let mapping = b.map_grant(a.id(), GrantRef(8), Access::Read).unwrap();
    assert!(entry.flags.compare_exchange(1, 0, SeqCst, SeqCst).is_err());
    // A granter that just writes 0 is found out when the peer lets go.
    entry.flags.store(0, SeqCst);
    drop(mapping);
    assert!(sim.take_violations()[0].contains("took back grant 8"));
    grant(&a, page, 8, b.id(), Flags::PERMIT_ACCESS);
    assert!(entry.flags.compare_exchange(1, 0, SeqCst, SeqCst).is_ok());
    assert!(sim.take_violations().is_empty());
}

#[test]
fn the_shadow_sees_double_grants_and_freed_pages() {
    let sim = Sim::new(1);
    sim.expect_violations();
    let (a, b) = (sim.domain("a"), sim.domain("b"));
    let first = page(&a);
    grant(&a, first, 8, b.id(), Flags::PERMIT_ACCESS);
    grant(&a, first, 9, b.id(), Flags::PERMIT_ACCESS);
    assert!(sim.take_violations()[0].contains("twice, as 8 and 9"));
    a.grant_entries(0).unwrap()[9].flags.store(0, SeqCst);
    assert!(sim.take_violations().is_empty());

    let mapping = b.map_grant(a.id(), GrantRef(8), Access::Write).unwrap();
    free(&a, first);
    let found = sim.take_violations();
    assert!(
        found[0].contains("still grants") && found[1].contains("mapped by grant 8"),
        "{found:?}"
    );
    assert!(found[2].contains("not its page"), "{found:?}");
    mapping.page().write(3, &[0]);
    assert!(
        sim.take_violations()
            .iter()
            .any(|found| found.contains("wrote to freed frame"))
    );
    free(&a, first);
    assert!(sim.take_violations()[0].contains("does not have"));
}

#[test]
fn the_leak_checker_names_what_is_left() {
    let sim = Sim::new(1);
    let (a, b) = (sim.domain("a"), sim.domain("b"));
    sim.assert_no_leaks(&a);
    let page = page(&a);
    grant(&a, page, 8, b.id(), Flags::PERMIT_ACCESS);
    let mapping = b.map_grant(a.id(), GrantRef(8), Access::Read).unwrap();
    let port = a.evtchn_alloc_unbound(b.id()).unwrap();
    let leaks = sim.leaks(&a);
    assert_eq!(leaks.pages, 1);
    assert_eq!(leaks.grants, [(GrantRef(8), b.id())]);
    assert_eq!(leaks.mappings, [(GrantRef(8), b.id())]);
    assert_eq!(leaks.ports, [(port, PortState::Unbound { remote: b.id() })]);
    let text = leaks.to_string();
    for part in [
        "1 pages",
        "1 grants active (8 for d2)",
        "1 grants mapped (8 by d2)",
        "1 ports open (3 ",
    ] {
        assert!(text.contains(part), "{text}");
    }
    drop(mapping);
    a.evtchn_close(port).unwrap();
    a.grant_entries(0).unwrap()[8].flags.store(0, SeqCst);
    free(&a, page);
    sim.assert_no_leaks(&a);
}

#[test]
#[should_panic(expected = "leaked: 1 pages allocated")]
fn a_leak_fails_the_test() {
    let sim = Sim::new(1);
    let domain = sim.domain("a");
    page(&domain);
    sim.assert_no_leaks(&domain);
}

#[test]
fn calls_fail_as_planned() {
    let sim = Sim::new(1);
    let domain = sim.domain("a");
    domain.faults().fail(Call::AllocPages, 2, Errno::ENOMEM);
    domain.faults().fail(Call::GrantFrame, 1, Errno::ENOSPC);
    let first = page(&domain);
    assert!(domain.alloc_pages(1).is_none());
    assert_eq!(domain.grant_entries(1).map(drop), Err(Errno::ENOSPC));
    assert!(domain.grant_entries(1).is_ok());
    domain.faults().fail(Call::GrantFrame, 1, Errno::ENOSPC);
    assert!(domain.grant_entries(1).is_ok(), "it exists: no hypercall is made");
    assert_eq!(domain.grant_entries(64).map(drop), Err(Errno::EINVAL));
    free(&domain, first);
}

/// Three guests and a service that send to each other at random.
fn chatter(seed: u64) -> u64 {
    let sim = Sim::new(seed);
    let (a, near, b, far) = pair(&sim);
    for (domain, port) in [(a, near), (b, far)] {
        sim.add_guest(&domain.clone(), move || {
            if domain.take_pending(port) || domain.now().0.is_multiple_of(3) {
                domain.evtchn_send(port).unwrap();
            }
            domain.poll(&[port], Some(SystemTime(domain.now().0 + 5000)));
        });
    }
    sim.run_for(Duration::from_millis(1));
    sim.trace()
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let traces: Vec<_> = (0..8).map(chatter).collect();
    assert_eq!(traces, (0..8).map(chatter).collect::<Vec<_>>());
    let mut different = traces.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), traces.len(), "and another seed another run");
}

#[test]
fn services_sleep_until_woken_or_due() {
    let sim = Sim::new(1);
    let steps = Rc::new(Cell::new(0));
    let start = sim.now().0;
    let waker = sim.add_service("worker", |_| {
        let steps = Rc::clone(&steps);
        move || {
            steps.set(steps.get() + 1);
            match steps.get() {
                1 => Next::Again,
                2 => Next::Until(SystemTime(start + 1_000_000)),
                _ => Next::Sleep,
            }
        }
    });
    sim.run_until_idle();
    assert_eq!(steps.get(), 2);
    sim.run_for(Duration::from_millis(2));
    assert_eq!(steps.get(), 3);
    waker.wake();
    sim.run_until_idle();
    assert_eq!(steps.get(), 4);
}

#[test]
fn a_domain_that_shut_down_runs_no_more() {
    let sim = Sim::new(1);
    let domain = sim.domain("a");
    sim.add_guest(&domain, {
        let domain = domain.clone();
        move || {
            domain.console_io(b"bye\n");
            domain.shutdown(ShutdownReason::Crash);
        }
    });
    sim.run_for(Duration::from_secs(1));
    assert_eq!(domain.shutdown_reason(), Some(ShutdownReason::Crash));
    assert_eq!(domain.hypervisor_log(), b"bye\n");
    assert_eq!(domain.activity().turns, 1);
}

#[test]
#[should_panic(expected = "not done after 1s of virtual time, seed 7")]
fn a_run_that_does_not_end_says_so() {
    let sim = Sim::new(7);
    sim.run_until(|| false, Duration::from_secs(1));
}

#[test]
fn events_come_late_and_twice_but_they_come() {
    let sim = Sim::new(1);
    let (a, near, b, far) = pair(&sim);
    a.set_event_faults(EventFaults {
        late_one_in: 1,
        late_by: Duration::from_millis(1),
        again_one_in: 0,
    });
    b.evtchn_send(far).unwrap();
    assert!(!a.take_pending(near));
    sim.run_for(Duration::from_millis(2));
    assert!(a.take_pending(near));

    a.set_event_faults(EventFaults {
        late_one_in: 0,
        late_by: Duration::from_millis(1),
        again_one_in: 1,
    });
    b.evtchn_send(far).unwrap();
    assert!(a.take_pending(near), "at once");
    sim.run_for(Duration::from_millis(2));
    assert!(a.take_pending(near), "and again");
    sim.spurious_events(&a, 1);
    assert!(a.take_pending(near), "without a cause");
}
