//! A guest with more ports than the two-level form has, each connected to another one of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use fata_events::xen::{Channel, Error, Ports, XenLoop};
use fata_hypercall::{DomId, Errno, Hypervisor, Suspended};
use fata_sim::{Call, Domain, DomainConfig, EventFaults, Sim, check};

const PAIRS: u32 = 2100;
const ROUNDS: u32 = 6;
const ALL: u32 = PAIRS * ROUNDS;

fn domain(sim: &Sim, event_channels: u32) -> Domain {
    sim.domain(DomainConfig {
        event_channels,
        ..DomainConfig::new("many")
    })
}

fn pair(ports: &Ports<Domain>) -> Result<[Channel<Domain>; 2], Error> {
    let near = ports.alloc(DomId::SELF)?;
    let far = ports.bind(DomId::SELF, near.port())?;
    Ok([near, far])
}

/// Signals to and fro between two ports, which are closed and opened again now and then. It waits for each signal: one that
/// is lost is the end of it.
async fn ping(ports: Ports<Domain>, number: u32, done: Rc<Cell<u32>>) {
    let mut ends = pair(&ports).expect("there are ports enough");
    for round in 0..ROUNDS {
        for end in [0, 1] {
            if !ends[0].is_open() {
                ends = pair(&ports).expect("a restored domain has as many");
            }
            let (from, to) = (&ends[end], &ends[1 - end]);
            let seen = to.count();
            from.notify();
            to.after(seen).await;
        }
        if (round + number).is_multiple_of(4) {
            drop(ends);
            ends = pair(&ports).expect("there are as many as before");
        }
        done.set(done.get() + 1);
    }
}

/// Has all of them at it, with events that come late and twice; in between, the domain is restored, or copied. It begins
/// anew with the two-level form each time, and changes over again.
#[test]
fn four_thousand_ports_lose_nothing() {
    check(0..100, |sim| {
        let domain = domain(sim, 8191);
        domain.set_event_faults(EventFaults {
            late_one_in: 9,
            late_by: Duration::from_micros(300),
            again_one_in: 11,
        });
        let done = Rc::new(Cell::new(0));
        let mut guest = XenLoop::new(domain.clone());
        for number in 0..PAIRS {
            let task = ping(guest.ports().clone(), number, Rc::clone(&done));
            guest.handle().spawn(task).detach();
        }
        // It looks whether it is asked to suspend itself, even if all of the others wait for late events.
        let handle = guest.handle();
        let tick = async move {
            loop {
                handle.sleep(Duration::from_micros(100)).await;
            }
        };
        guest.handle().spawn(tick).detach();
        let ports = guest.ports().clone();
        let suspend = Rc::new(Cell::new(false));
        let (asked, hv) = (Rc::clone(&suspend), domain.clone());
        sim.add_guest(&domain, move || {
            if asked.replace(false) && hv.suspend() == Ok(Suspended::Restored) {
                guest.clock().resume();
                guest.ports().resume();
            }
            guest.turn();
        });
        for outcome in [Suspended::Restored, Suspended::Cancelled, Suspended::Restored] {
            let enough = done.get() + 1 + sim.random(u64::from(ALL / 4)) as u32;
            sim.run_until(|| done.get() >= enough, Duration::from_secs(60));
            sim.suspend(&domain, outcome);
            suspend.set(true);
            sim.run_until(|| !sim.is_suspending(&domain), Duration::from_secs(1));
        }
        sim.run_until(|| done.get() == ALL, Duration::from_secs(60));
        assert!(domain.evtchn_control().is_some() && ports.is_empty() && ports.awaited() == 0);
        sim.remove_guest(&domain);
        sim.assert_no_leaks(&domain);
    });
}

/// At the domain's limit, and where there is no memory for the words, the error says what to do; and what is open goes on.
#[test]
fn want_of_ports_and_of_words_is_an_error() {
    check(0..4, |sim| {
        let domain = domain(sim, 1500);
        domain.faults().fail(Call::EvtchnFifo, 1, Errno::ENOMEM);
        let ports = Ports::new(domain.clone());
        let open = RefCell::new(Vec::new());
        let fill = || loop {
            match ports.alloc(DomId::SELF) {
                Ok(channel) => open.borrow_mut().push(channel),
                Err(error) => return error,
            }
        };
        let error = fill();
        assert_eq!((error, open.borrow().len()), (Error::Xen(Errno::ENOSPC), 1498));
        assert!(error.to_string().contains("max_event_channels="), "{error}");
        assert!(domain.evtchn_control().is_some(), "there was memory the second time");
        open.take();
        assert!(ports.is_empty() && pair(&ports).is_ok());
    });
}
