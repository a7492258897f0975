//! xenstored's end of a domain's ring page (struct xenstore_domain_interface in xs_wire.h).

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Acquire, Release};

use fata_hypercall::{DomId, Port, SharedPage};

use super::server::Server;
use super::wire::{HEADER, Header, PAYLOAD_MAX};
use crate::domain::Domain;
use crate::grants::Mapping;
use crate::rng::Rng;

const RING: u32 = 1024;
const REQUESTS: usize = 0;
const REPLIES: usize = 1024;
pub(super) const REQ_CONS: usize = 2048;
pub(super) const REQ_PROD: usize = 2052;
const RSP_CONS: usize = 2056;
const RSP_PROD: usize = 2060;
const SERVER_FEATURES: usize = 2064;
const CONNECTION: usize = 2068;
const ERROR: usize = 2072;

/// `XENSTORE_SERVER_FEATURE_RECONNECTION` and `_ERROR`.
const FEATURES: u32 = 1 | 2;
/// `XENSTORE_RECONNECT`: the guest asks for a new connection.
const RECONNECT: u32 = 1;
const ERROR_RING_INDEX: u32 = 2;
const ERROR_PROTOCOL: u32 = 3;

/// What the toolstack leaves in the page before the domain starts. The protocol says that indices need not start at
/// 0 nor unused bytes be 0, so they do not.
pub(crate) fn prepare(page: &SharedPage, rng: &mut Rng) {
    for word in 0..2 * RING as usize / 8 {
        page.set(word * 8, &rng.next_u64());
    }
    let (requests, replies) = (rng.next_u64() as u32, rng.next_u64() as u32);
    for (offset, value) in [
        (REQ_CONS, requests),
        (REQ_PROD, requests),
        (RSP_CONS, replies),
        (RSP_PROD, replies),
    ] {
        page.store_u32(offset, value, Release);
    }
    page.store_u32(SERVER_FEATURES, FEATURES, Release);
}

/// Whether a request waits in the ring, or an answer to one.
pub(crate) fn is_busy(page: &SharedPage) -> bool {
    let load = |offset| page.load_u32(offset, Acquire).unwrap_or(0);
    load(REQ_PROD) != load(REQ_CONS)
}

/// A connection: the ring, and what is on its way through it.
pub(crate) struct Connection {
    pub(crate) domain: DomId,
    pub(crate) port: Port,
    dom0: Domain,
    page: Mapping,
    /// Requests as far as they have come in.
    input: Vec<u8>,
    replies: VecDeque<Vec<u8>>,
    /// The message that is being written, whole; others must not come in between.
    output: VecDeque<u8>,
    dead: bool,
}

impl Connection {
    pub(crate) const fn new(domain: DomId, port: Port, dom0: Domain, page: Mapping) -> Self {
        Self {
            domain,
            port,
            dom0,
            page,
            input: Vec::new(),
            replies: VecDeque::new(),
            output: VecDeque::new(),
            dead: false,
        }
    }

    fn load(&self, offset: usize) -> u32 {
        self.page.page().load_u32(offset, Acquire).unwrap_or(0)
    }

    fn store(&self, offset: usize, value: u32) {
        self.page.page().store_u32(offset, value, Release);
    }

    fn notify(&self) {
        let _ = self.dom0.machine.send(&self.dom0.state, self.port);
    }

    /// Stops serving, as the daemon does after a message that makes no sense.
    fn die(&mut self, error: u32, why: &str) {
        self.dead = true;
        self.store(ERROR, error);
        self.notify();
        self.dom0
            .machine
            .violation(format!("xenstored gave up the connection of {}: {why}", self.domain));
    }

    /// Whether a step would do anything.
    pub(crate) fn has_work(&self, server: &Server) -> bool {
        if self.load(CONNECTION) == RECONNECT {
            return true;
        }
        let output = !self.output.is_empty() || !self.replies.is_empty() || server.has_event(self.domain);
        let input = self.load(REQ_PROD) != self.load(REQ_CONS) || self.is_complete();
        !self.dead && (input && self.may_ask(server) || output && self.room() > 0)
    }

    /// The guest has taken enough answers to be asked for more questions.
    fn may_ask(&self, server: &Server) -> bool {
        self.replies.len() < server.quota.requests
    }

    /// What waits for somebody who sleeps, while all sleep.
    pub(crate) fn due(&self, server: &Server) -> Option<String> {
        let guest = self.dom0.machine.domain(self.domain)?;
        guest.sleep.get()?;
        // What has ended hears nothing.
        if guest.shutdown.get().is_some() {
            return None;
        }
        let own = guest.store.get()?.port.get();
        if !self.dead && self.load(RSP_PROD) != self.load(RSP_CONS) && !guest.is_pending(own) {
            return Some(format!("{} sleeps over what xenstored has written", self.domain));
        }
        (self.has_work(server) && !self.dom0.state.is_pending(self.port))
            .then(|| format!("{} has written to xenstored and not notified", self.domain))
    }

    fn room(&self) -> u32 {
        RING.saturating_sub(self.load(RSP_PROD).wrapping_sub(self.load(RSP_CONS)))
    }

    fn is_complete(&self) -> bool {
        Header::parse(&self.input).is_some_and(|header| self.input.len() >= HEADER + header.len as usize)
    }

    /// Moves some bytes, or answers one request.
    pub(crate) fn step(&mut self, server: &mut Server) {
        if self.load(CONNECTION) == RECONNECT {
            self.reconnect(server);
        } else if !self.dead {
            if self.may_ask(server) {
                self.receive();
                self.answer(server);
            }
            self.transmit(server);
        }
    }

    fn reconnect(&mut self, server: &mut Server) {
        server.release(self.domain);
        server.introduce(self.domain);
        self.input.clear();
        self.replies.clear();
        self.output.clear();
        self.dead = false;
        for offset in [REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, ERROR] {
            self.store(offset, 0);
        }
        self.store(CONNECTION, 0);
        self.notify();
    }

    fn receive(&mut self) {
        let (cons, prod) = (self.load(REQ_CONS), self.load(REQ_PROD));
        let available = prod.wrapping_sub(cons);
        if available > RING {
            self.die(ERROR_RING_INDEX, "impossible request indices");
            return;
        }
        if available == 0 {
            return;
        }
        let mut cons = cons;
        while cons != prod {
            let at = REQUESTS + (cons % RING) as usize;
            self.input.push(self.page.page().load_u8(at, Acquire).unwrap_or(0));
            cons = cons.wrapping_add(1);
        }
        self.store(REQ_CONS, cons);
        self.notify();
    }

    fn answer(&mut self, server: &mut Server) {
        let Some(header) = Header::parse(&self.input) else {
            return;
        };
        let len = header.len as usize;
        if len > PAYLOAD_MAX {
            self.die(ERROR_PROTOCOL, &format!("a payload of {len} bytes"));
        } else if self.input.len() >= HEADER + len {
            let message: Vec<u8> = self.input.drain(..HEADER + len).collect();
            self.replies
                .push_back(server.request(self.domain, header, &message[HEADER..]));
        }
    }

    /// Writes as much as fits, or by chance a little less, so that messages arrive in pieces. Replies and events
    /// have no order between them.
    fn transmit(&mut self, server: &mut Server) {
        let (cons, prod) = (self.load(RSP_CONS), self.load(RSP_PROD));
        let used = prod.wrapping_sub(cons);
        if used > RING {
            self.die(ERROR_RING_INDEX, "impossible reply indices");
            return;
        }
        let mut room = RING - used;
        let machine = &self.dom0.machine;
        if machine.one_in(8) {
            room = room.min(1 + machine.below(32) as u32);
        }
        let mut prod = prod;
        while room > 0 {
            if self.output.is_empty() {
                let event_first = machine.one_in(2) || self.replies.is_empty();
                let next = if event_first {
                    server.next_event(self.domain)
                } else {
                    None
                };
                let Some(next) = next.or_else(|| self.replies.pop_front()) else {
                    break;
                };
                self.output.extend(next);
            }
            let Some(byte) = self.output.pop_front() else { break };
            self.page
                .page()
                .store_u8(REPLIES + (prod % RING) as usize, byte, Release);
            prod = prod.wrapping_add(1);
            room -= 1;
        }
        if prod.wrapping_sub(cons) != used {
            self.store(RSP_PROD, prod);
            self.notify();
        }
    }
}
