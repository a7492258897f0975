//! Has the sockets send, in turn.
//!
//! Only those on the [`agenda`](crate::agenda) are looked at. Each sends one packet and goes to the end of the line if it
//! has more, so a large transfer does not hold up a small answer.

use core::net::IpAddr;
use core::time::Duration;

use fata_events::Instant;
use smoltcp::iface::PollResult;
use smoltcp::socket::Socket;
use smoltcp::wire::IpAddress;

use crate::agenda::Id;
use crate::device::Device;
use crate::phy::Port;
use crate::state::{State, time};

/// First and longest pause when smoltcp says that there is something to send, and sends nothing.
const STALL: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// The pauses of who says so.
#[derive(Debug)]
pub(crate) struct Stall {
    pause: Duration,
    /// It happened in this round.
    now: bool,
}

impl Default for Stall {
    fn default() -> Self {
        Self {
            pause: STALL.0,
            now: false,
        }
    }
}

impl Stall {
    /// When to try again.
    fn until(&mut self, now: Instant) -> Instant {
        self.now = true;
        now + self.pause
    }

    /// The round is over.
    fn end(&mut self, progress: bool) {
        self.pause = match self.now && !progress {
            true => (self.pause * 2).min(STALL.1),
            false => STALL.0,
        };
        self.now = false;
    }
}

impl State {
    /// Puts sockets whose time has come on the agenda. Their stages end now, even if the device has no room.
    pub(crate) fn fire(&mut self, now: Instant) {
        while let Some(id) = self.sockets.agenda.next_due(now) {
            self.advance(now, id, false);
            if let Some(slot) = self.sockets.get(id) {
                let deadline = slot.deadline;
                self.sockets.agenda.set_timer(id, deadline);
                self.sockets.agenda.touch(id);
            }
        }
    }

    /// Sends what there is to send, up to the burst limit. Gives when the interface itself has something to send.
    pub(crate) fn send<D: Device>(&mut self, now: Instant, device: &mut D) -> Option<Instant> {
        let before = self.egress.frames;
        // Without a link nothing can be sent, but who has timed out shall know.
        let without_link = if self.status.link_up {
            0
        } else {
            self.sockets.agenda.ready()
        };
        self.send_fragments(now, device);
        if self.egress.exhausted && without_link == 0 {
            return None;
        }
        // What belongs to no socket: router solicitations, memberships of groups.
        let mut port = Port::device(device, &self.capabilities, &mut self.egress);
        self.interface.poll_egress(time(now), &mut port, &mut self.nobody);
        let own = self.poll_at(now, None);
        let no_room = self.egress.exhausted;
        for count in 0..self.limits.burst {
            self.send_fragments(now, device);
            if self.egress.exhausted && count >= without_link {
                break;
            }
            let Some(id) = self.sockets.agenda.next_ready() else {
                break;
            };
            if self.sockets.get(id).is_some() {
                self.send_one(now, device, id, own);
            }
        }
        let own = match own {
            // The device says when there is room.
            Some(_) if no_room => None,
            Some(at) if at <= now => Some(self.stall.until(now)),
            own => own,
        };
        self.stall.end(self.egress.frames > before);
        own
    }

    /// Has one socket send one packet.
    fn send_one<D: Device>(&mut self, now: Instant, device: &mut D, id: Id, own: Option<Instant>) {
        self.egress.exhausted = false;
        let attempts = self.egress.attempts;
        let mut port = Port::device(device, &self.capabilities, &mut self.egress);
        let set = &mut self.sockets.slot(id).set;
        let sent = self.interface.poll_egress(time(now), &mut port, set) == PollResult::SocketStateChanged;
        if self.egress.exhausted {
            return self.sockets.agenda.touch(id);
        }
        if sent {
            self.sockets.stop_waiting(id);
        } else if self.egress.attempts > attempts {
            // smoltcp had room, and did not use it for this packet: it does not know where the next hop is.
            let hop = self.next_hop(id);
            self.sockets.wait_for(id, hop);
        }
        let mut at = self.poll_at(now, Some(id));
        if at.is_some() && at == own {
            // The interface's time hides the socket's own, which is not earlier.
            at = at.max(Some(now + STALL.0));
        }
        let more = at.is_some_and(|at| at <= now);
        self.advance(now, id, !more);
        let Some(deadline) = self.sockets.get(id).map(|slot| slot.deadline) else {
            return;
        };
        if more {
            at = match sent {
                true => None,
                false => Some(self.stall.until(now)),
            };
        }
        self.sockets.agenda.set_timer(id, at.into_iter().chain(deadline).min());
        if more && sent {
            self.sockets.agenda.touch(id);
        }
    }

    /// When smoltcp wants to send, for this socket or for the interface itself.
    fn poll_at(&mut self, now: Instant, id: Option<Id>) -> Option<Instant> {
        let set = match id {
            Some(id) => &self.sockets.slot(id).set,
            None => &self.nobody,
        };
        let at = self.interface.poll_at(time(now), set)?;
        let micros = u64::try_from(at.total_micros()).unwrap_or(0);
        Some(Instant::from_nanos(micros.saturating_mul(1000)))
    }

    /// Who has to be reached for what this connection sends. `None` for UDP: that depends on the datagram.
    fn next_hop(&mut self, id: Id) -> Option<IpAddr> {
        let remote = match self.sockets.slot(id).socket() {
            Socket::Tcp(socket) => socket.remote_endpoint()?.addr,
            _ => return None,
        };
        if self.interface.ip_addrs().iter().any(|cidr| cidr.contains_addr(&remote)) {
            return Some(remote.into());
        }
        let router = match remote {
            IpAddress::Ipv4(_) => self.interface.routes().get_default_ipv4_route(),
            IpAddress::Ipv6(_) => self.interface.routes().get_default_ipv6_route(),
        };
        router.map(|route| route.via_router.into())
    }

    /// Sends the rest of the packet that smoltcp is sending in fragments.
    pub(crate) fn send_fragments<D: Device>(&mut self, now: Instant, device: &mut D) {
        self.egress.exhausted = false;
        self.egress.only_fragments = true;
        while self.egress.fragmenting && !self.egress.exhausted {
            let before = self.egress.frames;
            let mut port = Port::device(device, &self.capabilities, &mut self.egress);
            self.interface.poll_egress(time(now), &mut port, &mut self.nobody);
            if self.egress.frames == before {
                break;
            }
        }
        self.egress.only_fragments = false;
    }
}
