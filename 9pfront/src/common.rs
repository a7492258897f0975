//! What a share's users and its driver have in common: the session, if there is one, and why there is none.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::pin::Pin;
use core::task::{Context, Poll, ready};

use fata_events::Signal;

use crate::fid::{Fid, Graves};
use crate::session::{Session, Uses};
use crate::wire::Request;
use crate::{Error, Fault};

#[derive(Debug)]
pub(crate) struct Common {
    session: RefCell<Option<Session>>,
    /// How many there were.
    sessions: Cell<u64>,
    /// Files that were dropped; it raises a signal when there is something to send.
    pub(crate) graves: Rc<Graves>,
    /// What the toolstack calls the share, once known.
    pub(crate) tag: RefCell<Option<String>>,
    /// Why there is no session.
    problem: Cell<Option<Error>>,
    /// Why the last session ended.
    ended: Cell<Error>,
    /// An answer that its receiver could not make sense of.
    pub(crate) fault: Cell<Option<Fault>>,
    /// Raised for everybody: there is a session, or none any more, or the problem is another one.
    pub(crate) changes: Signal,
}

impl Common {
    pub(crate) fn new(changes: Signal) -> Self {
        Self {
            session: RefCell::default(),
            sessions: Cell::new(0),
            graves: Rc::default(),
            tag: RefCell::default(),
            problem: Cell::new(None),
            ended: Cell::new(Error::Closed),
            fault: Cell::new(None),
            changes,
        }
    }

    // The driver's side

    /// A session begins over a new connection, whose ring has room for so many bytes in each direction.
    pub(crate) fn begin(&self, ring: u32) {
        let id = self.sessions.get() + 1;
        self.sessions.set(id);
        self.fault.set(None);
        let session = Session::new(id, ring, Rc::clone(&self.graves));
        self.session.replace(Some(session));
    }

    /// The session is over, if there was one, on account of the problem, if there is one.
    pub(crate) fn end(&self) {
        let session = self.session.take();
        if let Some(session) = session {
            self.ended.set(self.why_not());
            session.end();
            self.changes.raise();
        }
    }

    /// Lets the driver move messages. `None` if there is no session.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Session) -> Result<T, Fault>) -> Option<Result<T, Fault>> {
        let mut slot = self.session.borrow_mut();
        let session = slot.as_mut()?;
        let was_open = session.root().is_some();
        let outcome = work(session);
        if session.root().is_some() != was_open {
            self.problem.set(None);
            self.changes.raise();
        }
        Some(outcome)
    }

    pub(crate) fn set_problem(&self, problem: Option<Error>) {
        if self.problem.replace(problem) != problem {
            self.changes.raise();
        }
    }

    // The users' side

    pub(crate) fn problem(&self) -> Option<Error> {
        self.problem.get()
    }

    /// The root directory, and how many bytes of a file one request can be about.
    pub(crate) fn root(&self) -> Result<(Rc<Fid>, u32), Error> {
        let session = self.session.borrow();
        let open = session
            .as_ref()
            .and_then(|session| Some((session.root()?, session.longest_data())));
        let (root, longest) = open.ok_or_else(|| self.why_not())?;
        Ok((Rc::clone(root), longest))
    }

    fn why_not(&self) -> Error {
        self.problem.get().unwrap_or(Error::Closed)
    }

    /// Has a request about files of one session sent, and waits for its answer. `parse` makes sense of its fields.
    pub(crate) async fn ask<T>(
        self: &Rc<Self>,
        fid: &Rc<Fid>,
        other: Option<&Rc<Fid>>,
        request: Request<'_>,
        parse: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<T, Error> {
        let asked = self.submit(&request, [Some(Rc::clone(fid)), other.cloned()], fid.session)?;
        let answer = asked.await?;
        parse(&answer).ok_or_else(|| {
            let fault = Fault::Malformed(request.kind());
            // Nobody else gets anything of this session, and the driver closes the connection.
            self.fault.set(Some(fault));
            self.set_problem(Some(Error::Fault(fault)));
            self.end();
            self.graves.work.raise();
            Error::Fault(fault)
        })
    }

    /// A number for a file that a walk from this one shall make.
    pub(crate) fn new_fid(&self, from: &Fid) -> Result<Rc<Fid>, Error> {
        let mut slot = self.session.borrow_mut();
        Ok(self.session_of(&mut slot, from.session)?.new_fid())
    }

    fn session_of<'a>(&self, slot: &'a mut Option<Session>, id: u64) -> Result<&'a mut Session, Error> {
        match slot {
            None => Err(self.why_not()),
            Some(session) if session.id() != id => Err(Error::Stale),
            Some(session) => Ok(session),
        }
    }

    fn submit(self: &Rc<Self>, request: &Request<'_>, uses: Uses, session: u64) -> Result<Asked, Error> {
        let mut slot = self.session.borrow_mut();
        let id = self.session_of(&mut slot, session)?.submit(request, uses);
        Ok(Asked {
            common: Rc::clone(self),
            session,
            id,
        })
    }
}

/// A request that was made.
struct Asked {
    common: Rc<Common>,
    session: u64,
    id: u64,
}

impl Future for Asked {
    type Output = Result<Vec<u8>, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = self.common.session.borrow_mut();
        let session = slot.as_mut().filter(|session| session.id() == self.session);
        let answer = match session {
            Some(session) => ready!(session.poll(self.id, cx)),
            None => None,
        };
        Poll::Ready(match answer {
            Some(answer) => answer.map_err(Error::Refused),
            None => Err(self.common.ended.get()),
        })
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(session) = &mut *self.common.session.borrow_mut()
            && session.id() == self.session
        {
            session.forget(self.id);
        }
    }
}
