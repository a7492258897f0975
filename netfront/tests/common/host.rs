//! A host on the guest's bridge.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use fata_sim::wire::Packet;
use fata_sim::{Next, Sim};

/// A host on the bridge: sends what it is given, keeps what it gets.
#[derive(Clone, Default)]
pub struct Host {
    out: Rc<RefCell<VecDeque<Packet>>>,
    pub got: Rc<RefCell<Vec<Packet>>>,
    waker: Rc<RefCell<Option<fata_sim::Waker>>>,
}

impl Host {
    pub fn start(sim: &Sim) -> Self {
        let host = Self::default();
        let inner = host.clone();
        let waker = sim.add_service("host", |waker| {
            let plug = sim.bridge("xenbr0").plug(&waker);
            move || {
                while let Some(packet) = plug.receive() {
                    inner.got.borrow_mut().push(packet);
                }
                match inner.out.borrow_mut().pop_front() {
                    Some(packet) => plug.send(packet),
                    None => return Next::Sleep,
                }
                Next::Again
            }
        });
        host.waker.replace(Some(waker));
        host
    }

    pub fn send(&self, bytes: Vec<u8>) {
        self.send_packet(Packet::new(bytes));
    }

    pub fn send_packet(&self, packet: Packet) {
        self.out.borrow_mut().push_back(packet);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake();
        }
    }

    pub fn received(&self) -> usize {
        self.got.borrow().len()
    }
}

/// The frame as it comes back.
pub fn reflected(mut bytes: Vec<u8>) -> Vec<u8> {
    let (to, from) = bytes[..12].split_at_mut(6);
    to.swap_with_slice(from);
    bytes
}
