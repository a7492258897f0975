//! Many requests over one connection: what waits, what is under way, who is to be told. No I/O and no hypervisor in here.
//!
//! ```text
//!   submit ──> waiting ──next──> sent ──receive──> over ──poll──> gone
//!                 │                │                 │
//!               forget           forget            forget
//!                 │                │ Tflush          │
//!                 v                v                 v
//!               gone           abandoned ────────> gone
//!                          its answer, or none, then Rflush
//! ```
//!
//! A connection begins with two requests of its own: for the version, and for the root directory.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::task::{Context, Poll, Waker};

use fata_hypercall::Errno;

use crate::Fault;
use crate::fid::{Fid, Fids, Graves};
use crate::wire::{AROUND_DATA, Header, NO_TAG, Request, SMALLEST_MSIZE, kind, reply};

/// Requests that are sent and not answered, at the most. As many again may take them back.
const MAX_SENT: usize = 32;

/// The fields of an answer, or why the server refused.
pub(crate) type Answer = Result<Vec<u8>, Errno>;

/// The files that a request is about. That which a walk makes is the second one.
pub(crate) type Uses = [Option<Rc<Fid>>; 2];

/// Who wants to know.
#[derive(Debug)]
enum Caller {
    /// A future, and its waker once it has been polled.
    Future(Option<Waker>),
    /// This module.
    Session,
    /// Nobody: the future was dropped, or there never was one.
    Nobody,
}

/// Where a request is on its way.
#[derive(Debug)]
enum Stage {
    /// The message, while it waits for its turn.
    Waiting(Vec<u8>),
    Sent,
    Over(Answer),
}

#[derive(Debug)]
struct Pending {
    id: u64,
    kind: u8,
    stage: Stage,
    caller: Caller,
    /// From when it is sent until the server is through with it.
    tag: Option<u16>,
    /// The longest answer, in bytes.
    room: u32,
    uses: Uses,
    /// Names in a walk.
    names: usize,
    /// The request that this one takes back.
    flushes: Option<u16>,
    /// It is being taken back.
    flushed: bool,
    /// The file that this one gives back.
    clunks: Option<u32>,
}

impl Pending {
    fn is_sent(&self) -> bool {
        matches!(self.stage, Stage::Sent)
    }

    fn is_waiting(&self) -> bool {
        matches!(self.stage, Stage::Waiting(_))
    }
}

/// The requests and files of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    id: u64,
    /// In the order of their submission.
    pending: Vec<Pending>,
    next_id: u64,
    /// The longest message.
    msize: u32,
    /// Bytes that the server can answer before we read; and how many of them the requests under way may need. A server that
    /// has no room for an answer may give up.
    ring: u32,
    reserved: u32,
    fids: Fids,
    root: Rc<Fid>,
    /// The root directory is there.
    open: bool,
}

impl Session {
    /// A connection that begins, over a ring with so many bytes in each direction, which a message may fill.
    pub(crate) fn new(id: u64, ring: u32, graves: Rc<Graves>) -> Self {
        let mut fids = Fids::new(id, graves);
        let root = fids.choose();
        let mut session = Self {
            id,
            pending: Vec::new(),
            next_id: 0,
            msize: ring,
            ring,
            reserved: 0,
            fids,
            root,
            open: false,
        };
        session.enqueue(&Request::Version { msize: ring }, [None, None], Caller::Session);
        session
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// The longest message.
    pub(crate) const fn msize(&self) -> u32 {
        self.msize
    }

    /// The most bytes of a file that one request can read or write.
    pub(crate) const fn longest_data(&self) -> u32 {
        self.msize - AROUND_DATA
    }

    /// The root directory, once it is there.
    pub(crate) fn root(&self) -> Option<&Rc<Fid>> {
        Some(&self.root).filter(|_| self.open)
    }

    /// A number for a file that does not exist yet.
    pub(crate) fn new_fid(&mut self) -> Rc<Fid> {
        self.bury();
        self.fids.choose()
    }

    /// Whether an answer is due.
    pub(crate) fn is_waiting(&self) -> bool {
        self.pending.iter().any(Pending::is_sent)
    }

    /// Whether the connection itself has asked for something, which no server has reason to keep for long.
    pub(crate) fn is_asking(&self) -> bool {
        let own = |pending: &Pending| matches!(pending.caller, Caller::Session);
        self.pending.iter().any(own)
    }

    /// Sees whether the server still knows us, unless that is being asked already.
    pub(crate) fn probe(&mut self) {
        let request = Request::GetAttributes { fid: self.root.number };
        if self.open && !self.is_asking() {
            self.enqueue(&request, [None, None], Caller::Session);
        }
    }

    // The callers' side

    /// Queues a request. The number is for [`poll`](Self::poll) and [`forget`](Self::forget).
    pub(crate) fn submit(&mut self, request: &Request<'_>, uses: Uses) -> u64 {
        self.enqueue(request, uses, Caller::Future(None)).id
    }

    fn enqueue(&mut self, request: &Request<'_>, uses: Uses, caller: Caller) -> &mut Pending {
        let id = self.next_id;
        self.next_id += 1;
        self.fids.graves.work.raise();
        self.pending.push_mut(Pending {
            id,
            kind: request.kind(),
            stage: Stage::Waiting(request.encode()),
            caller,
            tag: None,
            room: request.longest_answer(),
            uses,
            names: match request {
                Request::Walk { names, .. } => names.len(),
                _ => 0,
            },
            flushes: None,
            flushed: false,
            clunks: None,
        })
    }

    /// Takes the answer to a request, or leaves a waker. `None`: there is no such request.
    pub(crate) fn poll(&mut self, id: u64, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        let Some(index) = self.pending.iter().position(|pending| pending.id == id) else {
            return Poll::Ready(None);
        };
        match self.pending.get_mut(index) {
            Some(pending) if !matches!(pending.stage, Stage::Over(_)) => {
                pending.caller = Caller::Future(Some(cx.waker().clone()));
                return Poll::Pending;
            }
            _ => {}
        }
        match self.pending.remove(index).stage {
            Stage::Over(answer) => Poll::Ready(Some(answer)),
            _ => Poll::Ready(None),
        }
    }

    /// The caller of a request has lost interest. No harm if it has had its answer already.
    pub(crate) fn forget(&mut self, id: u64) {
        let Some(index) = self.pending.iter().position(|pending| pending.id == id) else {
            return;
        };
        match self.pending.get_mut(index) {
            Some(pending) if pending.is_sent() => {
                pending.caller = Caller::Nobody;
                pending.flushed = true;
                if let Some(tag) = pending.tag {
                    self.enqueue(&Request::Flush { tag }, [None, None], Caller::Nobody)
                        .flushes = Some(tag);
                }
            }
            _ => drop(self.pending.remove(index)),
        }
    }

    // The rings' side

    /// The next message to send, if there is one for which there is room: `writable` bytes, and as many as its answer may need.
    pub(crate) fn next(&mut self, writable: usize) -> Option<Vec<u8>> {
        self.bury();
        // What takes a request back goes first: the server shall not begin with that.
        let waiting = |pending: &&mut Pending| pending.is_waiting();
        let flush = self
            .pending
            .iter()
            .any(|pending| pending.is_waiting() && pending.flushes.is_some());
        let held = self.pending.iter().filter(|pending| pending.tag.is_some()).count();
        if held >= if flush { 2 * MAX_SENT } else { MAX_SENT } {
            return None;
        }
        let tag = (0..NO_TAG).find(|tag| self.pending.iter().all(|pending| pending.tag != Some(*tag)))?;
        let mut due = self.pending.iter_mut().filter(waiting);
        let pending = due.find(|pending| pending.flushes.is_some() == flush)?;
        let Stage::Waiting(message) = &mut pending.stage else {
            return None;
        };
        if message.len() > writable || pending.room > self.ring.saturating_sub(self.reserved) {
            return None;
        }
        let mut message = core::mem::take(message);
        let tag = if pending.kind == kind::VERSION { NO_TAG } else { tag };
        Request::set_tag(&mut message, tag);
        self.reserved += pending.room;
        pending.tag = Some(tag);
        pending.stage = Stage::Sent;
        Some(message)
    }

    /// Takes a whole answer.
    pub(crate) fn receive(&mut self, header: Header, payload: &[u8]) -> Result<(), Fault> {
        let due = |pending: &Pending| pending.tag == Some(header.tag) && pending.is_sent();
        let index = self.pending.iter().position(due).ok_or(Fault::Tag(header.tag))?;
        let pending = self.pending.get_mut(index).ok_or(Fault::Tag(header.tag))?;
        let asked = pending.kind;
        let answer = match header.kind {
            kind::ERROR => {
                let errno = reply::error(payload).ok_or(Fault::Malformed(asked))?;
                Err(u16::try_from(errno).map_or(Errno::EIO, Errno))
            }
            answered if answered == asked + 1 => Ok(payload.to_vec()),
            answered => return Err(Fault::Kind { asked, answered }),
        };
        if asked == kind::WALK
            && let Ok(payload) = &answer
        {
            let (found, _) = reply::walk(payload, pending.names).ok_or(Fault::Malformed(asked))?;
            if let [_, Some(made)] = &pending.uses
                && found == pending.names
            {
                made.known.set(true);
            }
        }
        self.reserved = self.reserved.saturating_sub(pending.room);
        match &mut pending.caller {
            Caller::Future(waker) => {
                if let Some(waker) = waker.take() {
                    waker.wake();
                }
                pending.tag = None;
                pending.uses = [None, None];
                pending.stage = Stage::Over(answer);
            }
            // Its tag is taken until the server has answered to the flush too.
            Caller::Nobody if pending.flushed => pending.stage = Stage::Over(answer),
            Caller::Nobody => {
                let Pending { flushes, clunks, .. } = self.pending.remove(index);
                if let Some(tag) = flushes {
                    self.taken_back(tag);
                }
                if let Some(number) = clunks {
                    self.fids.free(number);
                }
            }
            Caller::Session => {
                self.pending.remove(index);
                self.advance(asked, answer)?;
            }
        }
        Ok(())
    }

    /// The server is through with the request of this tag: if it has not been answered by now, it never will be.
    fn taken_back(&mut self, tag: u16) {
        let Some(index) = self.pending.iter().position(|pending| pending.tag == Some(tag)) else {
            return;
        };
        let pending = self.pending.remove(index);
        if pending.is_sent() {
            self.reserved = self.reserved.saturating_sub(pending.room);
            if let [_, Some(made)] = &pending.uses {
                // Perhaps it was made all the same. To give back what is not there does no harm.
                made.known.set(true);
            }
        }
    }

    /// What the connection itself asked for: the version, then the root directory, later whether that is still there.
    fn advance(&mut self, asked: u8, answer: Answer) -> Result<(), Fault> {
        match (asked, answer) {
            (kind::VERSION, Ok(payload)) => {
                let msize = reply::version(&payload).ok_or(Fault::Malformed(asked))?;
                let msize = msize.ok_or(Fault::Version)?;
                if !(SMALLEST_MSIZE..=self.msize).contains(&msize) {
                    return Err(Fault::MessageSize(msize));
                }
                self.msize = msize;
                let request = Request::Attach { fid: self.root.number };
                self.enqueue(&request, [None, None], Caller::Session);
                Ok(())
            }
            (kind::ATTACH, Ok(payload)) => {
                reply::qid(&payload).ok_or(Fault::Malformed(asked))?;
                self.open = true;
                Ok(())
            }
            (kind::VERSION, Err(_)) => Err(Fault::Version),
            (kind::ATTACH, Err(errno)) => Err(Fault::Attach(errno)),
            (_, Ok(_)) => Ok(()),
            (_, Err(_)) => Err(Fault::Forgotten),
        }
    }

    /// Gives back the files that nobody holds any more.
    fn bury(&mut self) {
        for grave in self.fids.graves.take() {
            if grave.session != self.id {
                continue;
            }
            if grave.known {
                let request = Request::Clunk { fid: grave.number };
                self.enqueue(&request, [None, None], Caller::Nobody).clunks = Some(grave.number);
            } else {
                self.fids.free(grave.number);
            }
        }
    }

    /// The connection is no more: whoever waits looks again, and finds another session, or none.
    pub(crate) fn end(self) {
        for pending in self.pending {
            if let Caller::Future(Some(waker)) = pending.caller {
                waker.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests;
