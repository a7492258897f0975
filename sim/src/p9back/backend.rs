//! The backend's side of the handshake, and requests on their way.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use fata_hypercall::{DomId, Port};

use super::ring::Ring;
use super::server::Server;
use super::tree::{Inode, Node};
use super::{P9Config, P9Trick};
use crate::domain::Domain;
use crate::netback::XenbusState;
use crate::ports::PortState;
use crate::sim::{Next, Sim, Waker};
use crate::store::{Store, StoreWatch};

/// A request that was taken and not answered.
struct Request {
    kind: u8,
    tag: u16,
    fields: Vec<u8>,
    /// It is not going to be answered, out of malice.
    silent: bool,
}

/// What is there while it is connected.
struct Connection {
    ring: Ring,
    port: Port,
    server: Server,
    pending: Vec<Request>,
    /// The rest of an answer, of which only a part was written.
    partly: Vec<u8>,
}

/// One device's driver.
pub(super) struct Backend {
    dom0: Domain,
    guest: DomId,
    front: String,
    back: String,
    config: P9Config,
    /// What it tells the frontend before that connects.
    pub(super) offers: BTreeMap<String, String>,
    store: Store,
    frontend: Option<StoreWatch>,
    waker: Waker,
    state: XenbusState,
    connection: Option<Connection>,
    pub(super) root: Node,
    pub(super) room: Rc<Cell<u64>>,
    pub(super) malice: (u64, &'static [P9Trick]),
    pub(super) silent: bool,
    pub(super) connects: u32,
    pub(super) served: u64,
    pub(super) taken_back: u64,
    pub(super) tricks: u64,
    /// It broke a rule in this connection, so what the frontend does is not its fault.
    lenient: bool,
    alive: bool,
    removed: bool,
}

impl Backend {
    pub(super) fn new(sim: &Sim, guest: DomId, front: String, back: String, config: P9Config, waker: Waker) -> Self {
        let store = sim.store().clone();
        Self {
            dom0: sim.dom0().clone(),
            guest,
            frontend: Some(store.watch(&format!("{front}/state"), &waker)),
            front,
            back,
            offers: [
                ("versions", "1".to_owned()),
                ("max-rings", "8".to_owned()),
                ("max-ring-page-order", config.max_order.to_string()),
            ]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
            config,
            store,
            waker,
            state: XenbusState::Initialising,
            connection: None,
            root: Inode::directory(),
            room: Rc::new(Cell::new(1 << 30)),
            malice: (0, &[]),
            silent: false,
            connects: 0,
            served: 0,
            taken_back: 0,
            tricks: 0,
            lenient: false,
            alive: true,
            removed: false,
        }
    }

    /// Goes on as the backend of the same device in a new domain.
    pub(super) fn move_to(&mut self, guest: DomId, front: String, back: String) {
        self.crash();
        self.alive = true;
        (self.guest, self.front, self.back) = (guest, front, back);
        self.frontend = Some(self.store.watch(&format!("{}/state", self.front), &self.waker));
        self.state = XenbusState::Initialising;
    }

    pub(super) const fn is_removed(&self) -> bool {
        self.removed
    }

    pub(super) const fn state(&self) -> XenbusState {
        self.state
    }

    pub(super) fn fids(&self) -> usize {
        self.connection
            .as_ref()
            .map_or(0, |connection| connection.server.fids())
    }

    pub(super) fn remove(&mut self) -> (String, String) {
        self.crash();
        self.removed = true;
        (self.front.clone(), self.back.clone())
    }

    pub(super) fn crash(&mut self) {
        self.alive = false;
        self.frontend = None;
        self.disconnect();
    }

    pub(super) fn restart(&mut self) {
        if self.removed {
            return;
        }
        self.crash();
        self.alive = true;
        // What it finds in the ring may be about its former life's files.
        self.lenient = true;
        self.frontend = Some(self.store.watch(&format!("{}/state", self.front), &self.waker));
        self.switch_to(XenbusState::Initialising);
    }

    fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take() {
            let _ = self.dom0.machine.close(&self.dom0.state, connection.port);
        }
    }

    fn key(&self, name: &str) -> Option<String> {
        self.store.read_text(&format!("{}/{name}", self.front))
    }

    fn publish(&self, name: &str, value: &str) {
        let _ = self.store.write(&format!("{}/{name}", self.back), value);
    }

    fn switch_to(&mut self, state: XenbusState) {
        self.state = state;
        self.publish("state", &(state as u8).to_string());
    }

    /// The guest has broken a rule, unless we have.
    fn accuse(&self, what: &str) {
        if !self.lenient {
            let guest = self.guest;
            self.dom0.machine.violation(format!("9pfs for {guest}: {what}"));
        }
    }

    /// What waits for somebody who sleeps, while all sleep.
    pub(super) fn due(&self) -> Option<String> {
        let connection = self.connection.as_ref()?;
        let guest = self.dom0.machine.domain(self.guest)?;
        if self.silent || self.lenient || guest.sleep.get().is_none() {
            return None;
        }
        let told = self.dom0.state.is_pending(connection.port);
        if connection.ring.queued() > 0 && !told {
            return Some(format!("the guest has sent and not notified ({})", self.back));
        }
        let Some(PortState::Interdomain { port, .. }) = self.dom0.port_state(connection.port) else {
            return None;
        };
        let asleep = connection.ring.unread() > 0 && !guest.is_pending(port);
        asleep.then(|| format!("the guest sleeps over an answer ({})", self.back))
    }

    /// One small piece of work.
    pub(super) fn step(&mut self) -> Next {
        if self.silent || !self.alive {
            return Next::Sleep;
        }
        if self.state == XenbusState::Initialising {
            for (key, value) in &self.offers {
                self.publish(key, value);
            }
            self.switch_to(XenbusState::InitWait);
            return Next::Again;
        }
        if self.frontend.as_ref().is_some_and(StoreWatch::take) {
            self.follow_frontend();
            return Next::Again;
        }
        if self.serve() { Next::Again } else { Next::Sleep }
    }

    /// `xen_be_check_state`: looks at the frontend's state and goes as far as it can.
    fn follow_frontend(&mut self) {
        use XenbusState::{Closed, Closing, Connected, InitWait, Initialised, Initialising, Unknown};
        match (XenbusState::parse(&self.key("state").unwrap_or_default()), self.state) {
            (Closing | Closed | Unknown, Connected | InitWait | Closing) => {
                self.disconnect();
                self.switch_to(Closed);
            }
            (Initialised | Connected, InitWait) => match self.connect() {
                Ok(connection) => {
                    self.connection = Some(connection);
                    self.connects += 1;
                    self.switch_to(Connected);
                }
                Err(why) => self.accuse(&why),
            },
            (Initialising, Closed) => {
                self.lenient = false;
                self.switch_to(InitWait);
            }
            _ => {}
        }
    }

    fn connect(&self) -> Result<Connection, String> {
        let number = |name: &str| {
            let value = self.key(name).ok_or_else(|| format!("no {name}"))?;
            value.parse::<u32>().map_err(|_| format!("{name} is {value:?}"))
        };
        if self.key("version").as_deref() != Some("1") || number("num-rings")? != 1 {
            return Err("another version, or several rings".to_owned());
        }
        let ring = Ring::attach(&self.dom0, self.guest, number("ring-ref0")?, self.config.max_order)?;
        let port = self.dom0.bind_interdomain(self.guest, Port(number("event-channel-0")?));
        let port = port.map_err(|errno| format!("binding the event channel: {errno}"))?;
        self.dom0.own_port(port, &self.waker);
        let (root, room) = (Rc::clone(&self.root), Rc::clone(&self.room));
        Ok(Connection {
            ring,
            port,
            server: Server::new(root, self.config.msize, room),
            pending: Vec::new(),
            partly: Vec::new(),
        })
    }

    /// Takes a request, or answers one, in any order.
    fn serve(&mut self) -> bool {
        let Some(mut connection) = self.connection.take() else {
            return false;
        };
        let _ = self.dom0.take_pending(connection.port);
        let busy = self.work(&mut connection);
        if let Err(wrong) = &busy {
            // QEMU gives up on a guest that makes no sense.
            self.accuse(wrong);
            let _ = self.dom0.machine.close(&self.dom0.state, connection.port);
            self.switch_to(XenbusState::Closing);
        } else if self.state == XenbusState::Connected {
            self.connection = Some(connection);
        } else {
            let _ = self.dom0.machine.close(&self.dom0.state, connection.port);
        }
        busy.unwrap_or(true)
    }

    fn notify(&self, connection: &Connection) {
        let _ = self.dom0.machine.send(&self.dom0.state, connection.port);
    }

    fn work(&mut self, connection: &mut Connection) -> Result<bool, String> {
        if !connection.partly.is_empty() {
            let rest = std::mem::take(&mut connection.partly);
            connection.ring.write(&rest);
            self.notify(connection);
            return Ok(true);
        }
        let answer_first = self.dom0.machine.one_in(2);
        if answer_first && self.answer(connection)? {
            return Ok(true);
        }
        if take(connection)? {
            return Ok(true);
        }
        self.answer(connection)
    }

    /// Serves one of the requests that were taken.
    fn answer(&mut self, connection: &mut Connection) -> Result<bool, String> {
        let able: Vec<_> = (0..connection.pending.len())
            .filter(|&at| !connection.pending[at].silent)
            .collect();
        let Some(&chosen) = able.get(self.dom0.machine.below(able.len().max(1) as u64) as usize) else {
            return Ok(false);
        };
        let request = connection.pending.remove(chosen);
        self.served += 1;
        if request.kind == 108 {
            self.taken_back += 1;
            let old = request.fields.first_chunk().map(|tag| u16::from_le_bytes(*tag));
            let old = connection.pending.iter().position(|pending| Some(pending.tag) == old);
            // It is done all the same, with an answer or without; or it is not.
            if let Some(old) = old {
                let old = connection.pending.remove(old);
                match self.dom0.machine.below(3) {
                    0 => {}
                    1 => drop(connection.server.serve(old.kind, &old.fields)?),
                    _ => {
                        let answer = connection.server.serve(old.kind, &old.fields)?;
                        self.send(connection, old.kind, old.tag, answer)?;
                    }
                }
            }
            self.send(connection, 108, request.tag, Ok(Vec::new()))?;
            return Ok(true);
        }
        let answer = connection.server.serve(request.kind, &request.fields)?;
        if self.dom0.machine.one_in(self.malice.0) && self.malice.0 > 0 {
            let tricks = self.malice.1;
            let trick = tricks[self.dom0.machine.below(tricks.len() as u64) as usize];
            self.lenient = true;
            self.tricks += 1;
            self.play(connection, trick, request, answer);
        } else {
            self.send(connection, request.kind, request.tag, answer)?;
        }
        Ok(true)
    }

    /// Puts an answer into the ring, sometimes in two parts.
    fn send(
        &mut self,
        connection: &mut Connection,
        kind: u8,
        tag: u16,
        answer: Result<Vec<u8>, u32>,
    ) -> Result<(), String> {
        let message = message(kind, tag, answer);
        if connection.ring.unread() + message.len() as u32 + connection.partly.len() as u32 > connection.ring.half {
            return Err(format!("no room for an answer of {} bytes", message.len()));
        }
        if !connection.partly.is_empty() {
            connection.partly.extend(message);
            return Ok(());
        }
        let parts = self.dom0.machine.one_in(8);
        let cut = if parts {
            self.dom0.machine.below(message.len() as u64) as usize
        } else {
            message.len()
        };
        let (now, later) = message.split_at(cut);
        connection.ring.write(now);
        connection.partly = later.to_vec();
        self.notify(connection);
        Ok(())
    }

    fn play(&mut self, connection: &mut Connection, trick: P9Trick, request: Request, answer: Result<Vec<u8>, u32>) {
        let below = |bound: u64| self.dom0.machine.below(bound);
        let mut honest = message(request.kind, request.tag, answer);
        match trick {
            P9Trick::Size => {
                let sizes = [
                    0,
                    1,
                    6,
                    connection.server.msize + 1,
                    u32::MAX,
                    below(1 << 32) as u32 | 1 << 20,
                ];
                honest[..4].copy_from_slice(&sizes[below(6) as usize].to_le_bytes());
            }
            P9Trick::Tag => {
                let tag = request.tag.wrapping_add(100 + below(1000) as u16);
                honest[5..7].copy_from_slice(&tag.to_le_bytes());
            }
            P9Trick::Kind => honest[4] = honest[4].wrapping_add(2 + below(200) as u8),
            P9Trick::Fields => {
                let bytes = (0..below(60)).map(|_| below(256) as u8).collect();
                honest = message(request.kind, request.tag, Ok(bytes));
            }
            P9Trick::Twice => honest.extend_from_within(..),
            P9Trick::Index => {
                connection.ring.jump(below(2) == 0, 1 << 17 | below(1 << 32) as u32);
                self.notify(connection);
                return;
            }
            P9Trick::Scribble => connection.ring.scribble(below(1 << 32) as u32),
            P9Trick::Silent => {
                connection.pending.push(Request {
                    silent: true,
                    ..request
                });
                return;
            }
            P9Trick::Close => {
                self.switch_to(XenbusState::Closing);
                return;
            }
            P9Trick::Junk => honest.iter_mut().for_each(|byte| *byte = below(256) as u8),
        }
        connection.ring.write(&honest);
        self.notify(connection);
    }
}

/// Takes the next request out of the ring.
fn take(connection: &mut Connection) -> Result<bool, String> {
    let queued = connection.ring.queued();
    if queued == 0 {
        return Ok(false);
    }
    if queued > connection.ring.half {
        return Err("an impossible index".to_owned());
    }
    if queued < 7 {
        return Err("a part of a message".to_owned());
    }
    let header = connection.ring.peek(7);
    let size = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
    let most = if connection.server.msize == 0 {
        queued
    } else {
        connection.server.msize
    };
    if size < 7 || size > queued || size > most {
        return Err(format!(
            "a message of {size} bytes of which {queued} are there; {most} were agreed"
        ));
    }
    let (kind, tag) = (header[4], u16::from_le_bytes([header[5], header[6]]));
    if connection.pending.iter().any(|pending| pending.tag == tag) {
        return Err(format!("tag {tag} for a second request"));
    }
    let fields = connection.ring.peek(size).split_off(7);
    connection.ring.consume(size);
    connection.pending.push(Request {
        kind,
        tag,
        fields,
        silent: false,
    });
    Ok(true)
}

fn message(kind: u8, tag: u16, answer: Result<Vec<u8>, u32>) -> Vec<u8> {
    let (kind, fields) = match answer {
        Ok(fields) => (kind + 1, fields),
        Err(errno) => (7, errno.to_le_bytes().to_vec()),
    };
    let mut message = (7 + fields.len() as u32).to_le_bytes().to_vec();
    message.push(kind);
    message.extend(tag.to_le_bytes());
    message.extend(fields);
    message
}
