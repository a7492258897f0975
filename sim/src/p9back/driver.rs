//! What QEMU's backend does about a frontend, and requests on their way.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::ring::Ring;
use super::server::Server;
use super::tree::{Inode, Node};
use super::{P9Config, P9Trick};
use crate::backend::{Driver, End, Line, Malice, Nodes, XenbusState};
use crate::sim::Next;

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
    line: Line,
    server: Server,
    pending: Vec<Request>,
    /// The rest of an answer, of which only a part was written.
    partly: Vec<u8>,
    /// What the frontend does is not its fault: we have broken a rule, the ring may be about files of a server before us, or the
    /// toolstack has asked it to leave.
    lenient: bool,
}

/// What is a 9pfs backend's own.
pub struct P9Driver {
    config: P9Config,
    /// What it tells the frontend before that connects.
    pub(super) offers: BTreeMap<String, String>,
    connection: Option<Connection>,
    pub(super) root: Node,
    pub(super) room: Rc<Cell<u64>>,
    pub(super) malice: Malice<P9Trick>,
    pub(super) connects: u32,
    pub(super) served: u64,
    pub(super) taken_back: u64,
    pub(super) tricks: u64,
}

impl Driver for P9Driver {
    const KIND: &'static str = "9pfs";
    const NAME: &'static str = "9pfs";

    fn nodes(&self, _: u32) -> Nodes {
        Nodes {
            front: vec![("tag", self.config.tag.clone())],
            back: vec![("path", "/srv/share".to_owned()), ("security_model", "none".to_owned())],
        }
    }

    fn offer(&mut self, end: &End) {
        for (key, value) in &self.offers {
            end.publish(key, value);
        }
    }

    /// `xen_be_check_state`: goes as far as it can.
    fn follow(&mut self, end: &mut End, frontend: XenbusState) {
        use XenbusState::{Closed, Closing, Connected, InitWait, Initialised, Initialising, Unknown};
        match (frontend, end.state()) {
            (Closing | Closed | Unknown, Connected | InitWait | Closing) => {
                self.connection = None;
                end.switch_to(Closed);
            }
            (Initialised | Connected, InitWait) => match self.connect(end) {
                Ok(connection) => {
                    self.connection = Some(connection);
                    self.connects += 1;
                    end.switch_to(Connected);
                }
                Err(_) if end.is_restarted() => {}
                Err(why) => end.accuse(&why),
            },
            (Initialising, Closed) => end.wait_anew(),
            _ => {}
        }
    }

    /// Takes a request, or answers one, in any order.
    fn work(&mut self, end: &mut End) -> Next {
        let Some(mut connection) = self.connection.take() else {
            return Next::Sleep;
        };
        let _ = connection.line.take_event();
        let busy = self.serve(end, &mut connection);
        if let Err(wrong) = &busy {
            // QEMU gives up on a guest that makes no sense.
            if !connection.lenient {
                end.accuse(wrong);
            }
            end.switch_to(XenbusState::Closing);
        } else if end.state() == XenbusState::Connected {
            self.connection = Some(connection);
        }
        if busy.unwrap_or(true) { Next::Again } else { Next::Sleep }
    }

    fn due(&self) -> Option<&'static str> {
        let Connection { ring, line, .. } = self.connection.as_ref().filter(|connection| !connection.lenient)?;
        if ring.queued() > 0 && !line.has_event() {
            return Some("the guest has sent and not notified");
        }
        (ring.unread() > 0 && line.is_quiet()).then_some("the guest sleeps over an answer")
    }

    fn excuse(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.lenient = true;
        }
    }

    fn disconnect(&mut self) {
        self.connection = None;
    }
}

impl P9Driver {
    pub(super) fn new(config: P9Config) -> Self {
        let offers = [
            ("versions", "1".to_owned()),
            ("max-rings", "8".to_owned()),
            ("max-ring-page-order", config.max_order.to_string()),
        ];
        Self {
            config,
            offers: offers.map(|(key, value)| (key.to_owned(), value)).into(),
            connection: None,
            root: Inode::directory(),
            room: Rc::new(Cell::new(1 << 30)),
            malice: Malice::NONE,
            connects: 0,
            served: 0,
            taken_back: 0,
            tricks: 0,
        }
    }

    pub(super) fn fids(&self) -> usize {
        self.connection
            .as_ref()
            .map_or(0, |connection| connection.server.fids())
    }

    fn connect(&self, end: &End) -> Result<Connection, String> {
        if end.key("version").as_deref() != Some("1") || end.number("num-rings")? != 1 {
            return Err("another version, or several rings".to_owned());
        }
        let ring = Ring::attach(&end.dom0, end.guest, end.number("ring-ref0")?, self.config.max_order)?;
        let line = end.bind(end.number("event-channel-0")?)?;
        let (root, room) = (Rc::clone(&self.root), Rc::clone(&self.room));
        Ok(Connection {
            ring,
            line,
            server: Server::new(root, self.config.msize, room),
            pending: Vec::new(),
            partly: Vec::new(),
            lenient: end.is_restarted(),
        })
    }

    fn serve(&mut self, end: &mut End, connection: &mut Connection) -> Result<bool, String> {
        if !connection.partly.is_empty() {
            let rest = std::mem::take(&mut connection.partly);
            connection.ring.write(&rest);
            connection.line.notify();
            return Ok(true);
        }
        let answer_first = end.dom0.machine.one_in(2);
        if answer_first && self.answer(end, connection)? {
            return Ok(true);
        }
        if take(connection)? {
            return Ok(true);
        }
        self.answer(end, connection)
    }

    /// Serves one of the requests that were taken.
    fn answer(&mut self, end: &mut End, connection: &mut Connection) -> Result<bool, String> {
        let able: Vec<_> = (0..connection.pending.len())
            .filter(|&at| !connection.pending[at].silent)
            .collect();
        let Some(&chosen) = able.get(end.dom0.machine.below(able.len().max(1) as u64) as usize) else {
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
                match end.dom0.machine.below(3) {
                    0 => {}
                    1 => drop(connection.server.serve(old.kind, &old.fields)?),
                    _ => {
                        let answer = connection.server.serve(old.kind, &old.fields)?;
                        send(end, connection, old.kind, old.tag, answer)?;
                    }
                }
            }
            send(end, connection, 108, request.tag, Ok(Vec::new()))?;
            return Ok(true);
        }
        let answer = connection.server.serve(request.kind, &request.fields)?;
        if let Some(trick) = self.malice.choose(&end.dom0) {
            connection.lenient = true;
            self.tricks += 1;
            play(end, connection, trick, request, answer);
        } else {
            send(end, connection, request.kind, request.tag, answer)?;
        }
        Ok(true)
    }
}

/// Puts an answer into the ring, sometimes in two parts.
fn send(
    end: &End,
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
    let parts = end.dom0.machine.one_in(8);
    let cut = if parts {
        end.dom0.machine.below(message.len() as u64) as usize
    } else {
        message.len()
    };
    let (now, later) = message.split_at(cut);
    connection.ring.write(now);
    connection.partly = later.to_vec();
    connection.line.notify();
    Ok(())
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

/// Answers as no backend may.
fn play(end: &mut End, connection: &mut Connection, trick: P9Trick, request: Request, answer: Result<Vec<u8>, u32>) {
    let dom0 = end.dom0.clone();
    let below = |bound: u64| dom0.machine.below(bound);
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
            connection.line.notify();
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
            end.switch_to(XenbusState::Closing);
            return;
        }
        P9Trick::JunkState => end.junk_state(),
        P9Trick::Junk => honest.iter_mut().for_each(|byte| *byte = below(256) as u8),
    }
    connection.ring.write(&honest);
    connection.line.notify();
}
