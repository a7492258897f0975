//! The bridge in dom0.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;

use super::impairment::{Fate, Impairment};
use super::packet::Packet;
use crate::sim::Waker;

/// Looks at every packet on its way, may change it, and says how many copies go on: 0 loses it, 2 doubles it.
pub type Filter = Box<dyn FnMut(&mut Packet) -> usize>;

struct Port {
    number: u64,
    queue: VecDeque<Packet>,
    waker: Waker,
}

struct State {
    ports: Vec<Port>,
    last_port: u64,
    /// Which port an address was last seen on.
    learned: BTreeMap<[u8; 6], u64>,
    filter: Option<Filter>,
    impairment: Impairment,
    /// Overtaken by the next one.
    late: Option<(u64, Packet)>,
    tap: Option<Vec<Packet>>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            ports: Vec::new(),
            last_port: 0,
            learned: BTreeMap::new(),
            filter: None,
            impairment: Impairment::NONE,
            late: None,
            tap: None,
        }
    }
}

/// A learning bridge. Clones are the same bridge.
#[derive(Clone, Default)]
pub struct Switch {
    state: Rc<RefCell<State>>,
}

impl Switch {
    /// Plugs something in. `waker` is woken when a packet comes.
    #[must_use]
    pub fn plug(&self, waker: &Waker) -> Plug {
        let mut state = self.state.borrow_mut();
        state.last_port += 1;
        let number = state.last_port;
        state.ports.push(Port {
            number,
            queue: VecDeque::new(),
            waker: waker.clone(),
        });
        Plug {
            switch: self.clone(),
            number,
        }
    }

    /// From now on `filter` decides about every packet.
    pub fn set_filter(&self, filter: impl FnMut(&mut Packet) -> usize + 'static) {
        self.state.borrow_mut().filter = Some(Box::new(filter));
    }

    /// Every packet goes through unchanged again.
    pub fn clear_filter(&self) {
        self.state.borrow_mut().filter = None;
    }

    /// From now on the bridge is so bad.
    pub fn impair(&self, impairment: Impairment) {
        self.state.borrow_mut().impairment = impairment;
    }

    /// From now on every packet is recorded for [`tapped`](Self::tapped).
    pub fn tap(&self) {
        self.state.borrow_mut().tap = Some(Vec::new());
    }

    /// The packets since the last time, as they came in; none without [`tap`](Self::tap).
    #[must_use]
    pub fn tapped(&self) -> Vec<Packet> {
        self.state
            .borrow_mut()
            .tap
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    fn forward(&self, from: u64, mut packet: Packet) {
        let filter = self.state.borrow_mut().filter.take();
        let mut copies = 1;
        if let Some(mut filter) = filter {
            copies = filter(&mut packet);
            self.state.borrow_mut().filter.get_or_insert(filter);
        }
        let state = &mut *self.state.borrow_mut();
        if let Some(tap) = &mut state.tap {
            tap.push(packet.clone());
        }
        let fate = match state.ports.iter().find(|port| port.number == from) {
            Some(port) => state.impairment.apply(port.waker.machine(), &mut packet),
            None => Fate::Lost,
        };
        let late = state.late.take();
        match fate {
            Fate::Lost => {}
            Fate::Late => state.late = Some((from, packet)),
            Fate::Arrives { copies: more } => state.deliver(from, &packet, copies * more),
        }
        if let Some((from, packet)) = late {
            state.deliver(from, &packet, 1);
        }
    }
}

impl State {
    fn deliver(&mut self, from: u64, packet: &Packet, copies: usize) {
        let (Some(to), Some(&source)) = (
            packet.bytes.first_chunk::<6>(),
            packet.bytes.get(6..).and_then(<[u8]>::first_chunk::<6>),
        ) else {
            return;
        };
        self.learned.insert(source, from);
        // A group address goes to all, as does one that nobody has used yet.
        let only = if to[0] & 1 == 0 {
            self.learned.get(to).copied()
        } else {
            None
        };
        for _ in 0..copies {
            for port in &mut self.ports {
                if port.number != from && only.is_none_or(|only| only == port.number) {
                    port.queue.push_back(packet.clone());
                    port.waker.wake();
                }
            }
        }
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Switch({} ports)", self.state.borrow().ports.len())
    }
}

/// A place in a [`Switch`]. Dropping it pulls the plug.
#[derive(Debug)]
pub struct Plug {
    switch: Switch,
    number: u64,
}

impl Plug {
    /// Sends a packet into the switch.
    pub fn send(&self, packet: Packet) {
        self.switch.forward(self.number, packet);
    }

    /// Takes the next packet from the switch.
    #[must_use]
    pub fn receive(&self) -> Option<Packet> {
        let mut state = self.switch.state.borrow_mut();
        state
            .ports
            .iter_mut()
            .find(|port| port.number == self.number)?
            .queue
            .pop_front()
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        let mut state = self.switch.state.borrow_mut();
        state.ports.retain(|port| port.number != self.number);
        state.learned.retain(|_, port| *port != self.number);
    }
}
