//! The sockets, each alone in a set of its own.
//!
//! smoltcp looks at every socket of a set for every packet in and out. So it is always given a set with the one socket
//! that a packet is for, or that has something to send; which one that is, is found here:
//!
//! ```text
//!  frame ──► ingress: whose is it?                                      application: read, write, close
//!              │   TCP: names (hash of both addresses and ports)             │
//!              │   UDP: ports          none: a set without sockets,          │
//!              ▼                             and smoltcp refuses             │
//!  smoltcp with that one set ──► payload in its buffer, task woken           │
//!              │                                                             │
//!              └────────────► agenda: ready, in turn ◄───────────────────────┤
//!                               │        ▲     ▲                             │
//!                               ▼        │     └── timers: the sockets' own, and the deadlines of their stages
//!  smoltcp with that one set ──►│ one frame out; more to send: to the end of the line
//!              │                │
//!              │                └── nothing more: its next timer
//!              └── no Ethernet address for the next hop: waits until the neighbour speaks
//! ```

use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use fata_events::Instant;
use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::{Socket, tcp, udp};

use crate::agenda::{Agenda, Id};
use crate::frame::TcpHeader;
use crate::names::{Names, Tuple};
use crate::{Error, Result};

/// What a socket is there for at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A connection whose SYN has come, but not the acknowledgement of ours.
    HalfOpen { listener: u64 },
    /// A connection that a stream holds, or that waits for `accept`.
    Open,
    /// A connection that nobody holds any more.
    Closing,
    /// A UDP socket.
    Bound,
    /// A UDP socket that was dropped before everything was sent.
    Lingering,
    /// The stack's own.
    Dhcp,
}

/// One socket.
pub(crate) struct Slot {
    pub(crate) set: SocketSet<'static>,
    pub(crate) stage: Stage,
    /// When the stage is over, whatever smoltcp says.
    pub(crate) deadline: Option<Instant>,
    /// It had something to send, and its neighbour's address was not known.
    pub(crate) waiting: bool,
    /// A connection's name. smoltcp forgets it when the connection is over.
    name: Option<Tuple>,
    /// Up to where the peer had acknowledged when it last had room for more.
    open_at: Option<u32>,
}

impl Slot {
    pub(crate) fn socket(&mut self) -> &mut Socket<'static> {
        match self.set.iter_mut().next() {
            Some((_, socket)) => socket,
            None => unreachable!("a slot holds its socket until it is freed"),
        }
    }

    /// Whether this segment only closes a window that was open at the same place before: the one that opened it has
    /// overtaken it. (A peer must not take a window back, RFC 9293 section 3.8.6.)
    ///
    /// smoltcp would believe it, as it does not ask which segment is newer. If what it has sent by then is lost, it
    /// never sends it again, as there is no window, and does not probe either; its peer, whose window is open, waits.
    pub(crate) fn is_overtaken(&mut self, header: &TcpHeader) -> bool {
        if header.window > 0 {
            self.open_at = Some(header.acknowledgement);
            return false;
        }
        let plain = header.payload == 0 && !header.syn && !header.fin && !header.rst;
        plain && self.open_at == Some(header.acknowledgement)
    }
}

/// A place in the table.
enum Place {
    Taken(Slot),
    /// And where the next free one is.
    Free(Option<Id>),
}

/// All sockets of a stack.
pub(crate) struct Sockets {
    places: Vec<Place>,
    free: Option<Id>,
    names: Names,
    /// UDP sockets with their ports; there are few.
    ports: Vec<(u16, Id)>,
    connections: usize,
    /// Who waits for a neighbour, and for which (UDP: whichever).
    waiting: Vec<(Option<IpAddr>, Id)>,
    pub(crate) agenda: Agenda,
}

impl Sockets {
    pub(crate) fn new(names: Names) -> Self {
        Self {
            places: Vec::new(),
            free: None,
            names,
            ports: Vec::new(),
            connections: 0,
            waiting: Vec::new(),
            agenda: Agenda::default(),
        }
    }

    /// How many connections there are.
    pub(crate) fn connections(&self) -> usize {
        self.connections
    }

    /// The UDP sockets with their ports.
    pub(crate) fn ports(&self) -> &[(u16, Id)] {
        &self.ports
    }

    /// Adds a connection. If the name belongs to one that is over, it is the new one's from now on.
    pub(crate) fn add_connection(&mut self, socket: tcp::Socket<'static>, name: Tuple, stage: Stage) -> Result<Id> {
        let (id, set) = self.reserve()?;
        if let Some(old) = self.find(&name) {
            self.names.remove(&name, old);
        }
        self.names.insert(&name, id)?;
        self.connections += 1;
        self.add(id, set, Socket::Tcp(socket), stage, Some(name));
        Ok(id)
    }

    /// Adds a UDP socket that is bound.
    pub(crate) fn add_datagrams(&mut self, socket: udp::Socket<'static>) -> Result<Id> {
        let (id, set) = self.reserve()?;
        self.ports.try_reserve(1).map_err(|_| Error::OutOfMemory)?;
        self.ports.push((socket.endpoint().port, id));
        self.add(id, set, Socket::Udp(socket), Stage::Bound, None);
        Ok(id)
    }

    /// Adds the stack's own socket.
    pub(crate) fn add_own(&mut self, socket: Socket<'static>) -> Result<Id> {
        let (id, set) = self.reserve()?;
        self.add(id, set, socket, Stage::Dhcp, None);
        Ok(id)
    }

    /// Makes room for one more. Gives its number, and the set to put it in.
    fn reserve(&mut self) -> Result<(Id, SocketSet<'static>)> {
        let mut storage = Vec::new();
        storage.try_reserve_exact(1).map_err(|_| Error::OutOfMemory)?;
        let set = SocketSet::new(storage);
        if let Some(id) = self.free {
            return Ok((id, set));
        }
        let id = Id::try_from(self.places.len()).map_err(|_| Error::OutOfMemory)?;
        self.places.try_reserve(1).map_err(|_| Error::OutOfMemory)?;
        self.agenda.reserve(self.places.len() + 1)?;
        self.places.push(Place::Free(None));
        self.free = Some(id);
        Ok((id, set))
    }

    fn add(&mut self, id: Id, mut set: SocketSet<'static>, socket: Socket<'static>, stage: Stage, name: Option<Tuple>) {
        set.add(socket);
        let slot = Slot {
            set,
            stage,
            deadline: None,
            waiting: false,
            name,
            open_at: None,
        };
        if let Some(place) = self.places.get_mut(id as usize)
            && let Place::Free(next) = core::mem::replace(place, Place::Taken(slot))
        {
            self.free = next;
        }
        self.agenda.touch(id);
    }

    /// Frees a socket and its buffers at once.
    pub(crate) fn remove(&mut self, id: Id) {
        self.stop_waiting(id);
        let Some(place) = self.places.get_mut(id as usize) else {
            return;
        };
        if let Place::Taken(slot) = core::mem::replace(place, Place::Free(self.free)) {
            match slot.name {
                Some(name) => {
                    self.connections -= 1;
                    self.names.remove(&name, id);
                }
                None => self.ports.retain(|(_, other)| *other != id),
            }
            self.agenda.set_timer(id, None);
            self.free = Some(id);
        }
    }

    /// The socket of this number, unless it is gone.
    pub(crate) fn get(&mut self, id: Id) -> Option<&mut Slot> {
        match self.places.get_mut(id as usize) {
            Some(Place::Taken(slot)) => Some(slot),
            _ => None,
        }
    }

    /// A socket that somebody holds, and which therefore exists.
    pub(crate) fn slot(&mut self, id: Id) -> &mut Slot {
        match self.get(id) {
            Some(slot) => slot,
            None => unreachable!("a socket is not freed while somebody holds it"),
        }
    }

    pub(crate) fn tcp(&mut self, id: Id) -> &mut tcp::Socket<'static> {
        self.slot(id).set.get_mut(SocketHandle::default())
    }

    pub(crate) fn udp(&mut self, id: Id) -> &mut udp::Socket<'static> {
        self.slot(id).set.get_mut(SocketHandle::default())
    }

    /// All of them.
    pub(crate) fn iter(&mut self) -> impl Iterator<Item = (Id, &mut Slot)> {
        let places = self.places.iter_mut().enumerate();
        places.filter_map(|(index, place)| match place {
            Place::Taken(slot) => Some((index as Id, slot)),
            Place::Free(_) => None,
        })
    }

    /// The connection of this name. It may be over: then smoltcp knows no name for it.
    pub(crate) fn find(&self, name: &Tuple) -> Option<Id> {
        self.names.find(name, &|id| match self.places.get(id as usize) {
            Some(Place::Taken(slot)) => slot.name.as_ref() == Some(name),
            _ => false,
        })
    }

    /// The UDP socket that a datagram for `to` is for. `group`: that is not one host's address.
    pub(crate) fn bound(&mut self, to: SocketAddr, group: bool) -> Option<Id> {
        let takes = |sockets: &mut Self, id| {
            let bound = sockets.udp(id).endpoint().addr;
            group || bound.is_none_or(|bound| IpAddr::from(bound) == to.ip())
        };
        (0..self.ports.len()).find_map(|index| {
            let (port, id) = *self.ports.get(index)?;
            (port == to.port() && takes(self, id)).then_some(id)
        })
    }

    /// Looks at all of them soon, also at those that wait.
    pub(crate) fn touch_all(&mut self) {
        for (_, id) in core::mem::take(&mut self.waiting) {
            self.slot(id).waiting = false;
        }
        for id in 0..self.places.len() as Id {
            self.agenda.touch(id);
        }
    }

    /// Sets when its stage is over.
    pub(crate) fn set_deadline(&mut self, id: Id, deadline: Instant) {
        if let Some(slot) = self.get(id) {
            slot.deadline = Some(deadline);
            self.agenda.set_timer_before(id, deadline);
        }
    }

    /// It waits for this neighbour (`None`: one that only smoltcp knows).
    pub(crate) fn wait_for(&mut self, id: Id, neighbour: Option<IpAddr>) {
        // Without memory for it, it tries again when smoltcp does, after a second.
        if !self.slot(id).waiting && self.waiting.try_reserve(1).is_ok() {
            self.waiting.push((neighbour, id));
            self.slot(id).waiting = true;
        }
    }

    /// It waits no more.
    pub(crate) fn stop_waiting(&mut self, id: Id) {
        if let Some(slot) = self.get(id)
            && core::mem::take(&mut slot.waiting)
        {
            self.waiting.retain(|(_, other)| *other != id);
        }
    }

    /// Whether anybody waits for a neighbour.
    pub(crate) fn anybody_waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// This neighbour has said where he is: who waits for him tries again.
    pub(crate) fn neighbour_spoke(&mut self, who: IpAddr) {
        let mut waiting = core::mem::take(&mut self.waiting);
        waiting.retain(|(neighbour, id)| {
            let found = *neighbour == Some(who);
            if found {
                self.slot(*id).waiting = false;
            }
            if found || neighbour.is_none() {
                self.agenda.touch(*id);
            }
            !found
        });
        self.waiting = waiting;
    }
}

#[cfg(test)]
mod tests;
