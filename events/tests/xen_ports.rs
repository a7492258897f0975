//! Event channels in the two-level form.

mod common;
mod port_rules;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use common::Fake;
use fata_events::xen::{Channel, Error, Ports, XenLoop};
use fata_hypercall::{DomId, Errno, Hypervisor, Port};

pub(crate) fn ports(hv: &Fake) -> Ports<Fake> {
    Ports::new(hv.clone())
}

pub(crate) fn xen_loop(hv: &Fake) -> XenLoop<Fake> {
    XenLoop::new(hv.clone())
}

#[test]
fn ports_are_masked_opened_closed_and_never_owned_twice() {
    let hv = Fake::new();
    let ports = Ports::new(hv.clone());
    assert!(
        hv.shared_info()
            .evtchn_mask
            .iter()
            .all(|word| word.load(std::sync::atomic::Ordering::Relaxed) == u64::MAX)
    );
    let first = ports.alloc(DomId::DOM0).unwrap();
    let second = ports.alloc(DomId::DOM0).unwrap();
    assert_eq!((first.port(), second.port(), ports.len()), (Port(1), Port(2), 2));
    assert_eq!(ports.adopt(Port(2)).err(), Some(Error::InUse(Port(2))));
    assert_eq!(ports.adopt(Port(0)).err(), Some(Error::BadPort(Port(0))));
    let too_high = Error::NoFifo(Port(4096), Errno::ENOSYS);
    assert_eq!(ports.adopt(Port(4096)).err(), Some(too_high));
    assert_eq!(ports.adopt(Port(u32::MAX)).err(), Some(Error::BadPort(Port(u32::MAX))));
    let adopted = ports.adopt(Port(4095)).unwrap();

    first.notify();
    assert_eq!(*hv.0.sent.borrow(), [Port(1)]);
    drop(first);
    assert!(hv.0.open.borrow().iter().eq(&[2]));
    drop(adopted);
    assert!(
        ports.adopt(Port(4095)).is_ok(),
        "an adopted port is free for the next, and stays open"
    );
    drop(second);
    assert!(ports.is_empty());

    hv.0.max_ports.set(1);
    assert_eq!(ports.alloc(DomId::DOM0).err(), Some(Error::Xen(Errno::ENOSPC)));
    hv.0.max_ports.set(1 << 20);
    hv.0.open.borrow_mut().extend(1..4096_u32);
    assert_eq!(ports.alloc(DomId::DOM0).err(), Some(too_high));
    assert!(
        !hv.0.open.borrow().contains(&4096),
        "a port that is beyond us goes back"
    );
}

#[test]
fn every_port_is_first_in_turn() {
    let hv = Fake::new();
    let ports = Ports::new(hv.clone());
    let channels: Vec<Channel<Fake>> = (0..100).map(|_| ports.alloc(DomId::DOM0).unwrap()).collect();
    thread_local!(static ORDER: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) });
    struct Note(u32);
    impl Wake for Note {
        fn wake(self: Arc<Self>) {
            ORDER.with_borrow_mut(|order| order.push(self.0));
        }
    }
    let mut firsts = BTreeSet::new();
    for round in 0..128 {
        for channel in &channels {
            let waker = Waker::from(Arc::new(Note(channel.port().0)));
            assert!(channel.poll_after(round, &mut Context::from_waker(&waker)).is_pending());
            hv.signal(channel.port());
        }
        assert!(ports.dispatch());
        let order = ORDER.take();
        assert_eq!(order.len(), 100);
        firsts.insert(order[0]);
        assert!(!ports.dispatch());
    }
    assert_eq!(firsts.len(), 100, "nobody is always behind the same neighbour");
}
