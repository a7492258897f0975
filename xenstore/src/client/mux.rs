//! Many requests over one ring: what waits, what is under way, who is to be told. No I/O and no hypervisor in here.
//!
//! ```text
//!   submit ──> waiting ──take──> sent ──receive──> answered ──claim──> gone
//!                 │                │                   │
//!               forget           forget              forget
//!                 │                │                   │
//!                 v                v                   v
//!               gone            orphan ──receive──> what it left behind is tidied up
//! ```
//!
//! A request whose caller lost interest keeps its place until its answer comes (rule 59): its number must not be
//! used again before, and what the answer gave us (a transaction, a watch) has to be given back.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::task::{Context, Poll, Waker, ready};

use fata_events::Signal;

use super::Stats;
use crate::wire::{HEADER_LEN, MessageType, Packet, Path, Request, WatchEvent, reply};
use crate::{Error, decimal, memory};

/// Requests that are sent and not answered. Stock servers stop reading at 20 (`xen:tools/xenstored/domain.c`).
pub(super) const MAX_SENT: usize = 16;

/// An answer, whole, and not yet looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    kind: MessageType,
    payload: Vec<u8>,
}

impl Answer {
    /// The payload of the answer to a request of the type `asked`, refusals taken out.
    pub(super) fn payload(&self, asked: MessageType) -> Result<&[u8], Error> {
        let packet = Packet {
            kind: self.kind,
            req_id: 0,
            tx_id: 0,
            payload: &self.payload,
        };
        reply::answer(asked, packet)
    }

    /// The same, for who keeps it.
    pub(super) fn into_payload(self, asked: MessageType) -> Result<Vec<u8>, Error> {
        self.payload(asked)?;
        Ok(self.payload)
    }
}

/// Where a request is on its way.
#[derive(Debug)]
enum Stage {
    /// The message, while it waits for its turn.
    Waiting(Vec<u8>),
    /// It was given to the ring, at least in part.
    Sent,
    /// It is over.
    Over(Result<Answer, Error>),
}

/// Who wants to know.
#[derive(Debug)]
enum Caller {
    /// A future, and its waker once it has been polled.
    Future(Option<Waker>),
    /// Nobody: the future was dropped, or there never was one.
    Nobody,
}

/// What the answer changes on our side of the store, whether somebody waits for it or not.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// Nothing.
    None,
    /// It opens a transaction: if nobody takes it, it has to be closed.
    Transaction,
    /// It sets the watch with this token: if that watch is gone by then, it has to be taken back.
    Watch { token: u32, path: Rc<str> },
}

#[derive(Debug)]
struct Pending {
    id: u32,
    kind: MessageType,
    /// It is not sent before the others are let go.
    held: bool,
    stage: Stage,
    caller: Caller,
    effect: Effect,
}

impl Pending {
    /// It waits for its turn to be sent.
    fn is_due(&self) -> bool {
        !self.held && matches!(self.stage, Stage::Waiting(_))
    }
}

/// What a watch shares with its guard.
#[derive(Debug)]
struct Watching {
    token: u32,
    path: Rc<str>,
    /// Counts events. One number, however many come (rule 62).
    events: Signal,
    /// The server has it, or had it before it was lost.
    set: bool,
    /// The request that sets it, until it is answered.
    asking: Option<u32>,
    /// The server has refused it.
    failed: Option<Error>,
}

/// The requests and watches of one connection.
#[derive(Debug)]
pub(super) struct Mux {
    /// In the order of their submission; those that wait are behind those that were sent.
    pending: Vec<Pending>,
    watches: Vec<Watching>,
    next_id: u32,
    next_token: u32,
    /// Which connection this is: transactions do not outlive theirs.
    generation: u32,
    /// How often the domain was restored.
    life: u32,
    /// Nothing is served any more, and why.
    stopped: Option<Error>,
    /// What is asked from now on is held back.
    holding: bool,
    /// Raised when an answer has come.
    answered: Signal,
    stats: Stats,
}

impl Mux {
    pub(super) fn new() -> Self {
        Self {
            pending: Vec::new(),
            watches: Vec::new(),
            next_id: 1,
            next_token: 1,
            generation: 0,
            life: 0,
            stopped: None,
            holding: false,
            answered: Signal::new(),
            stats: Stats::new(),
        }
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            pending: self.pending.len(),
            watches: self.watches.len(),
            ..self.stats
        }
    }

    pub(super) const fn count_retry(&mut self) {
        self.stats.retries += 1;
    }

    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) const fn life(&self) -> u32 {
        self.life
    }

    // The callers' side

    /// Queues a request. The number is for [`poll`](Self::poll) and [`forget`](Self::forget).
    pub(super) fn submit(&mut self, request: &Request<'_>, tx_id: u32, effect: Effect) -> Result<u32, Error> {
        self.enqueue(request, tx_id, effect, Caller::Future(None))
    }

    /// Queues a request that nobody waits for.
    pub(super) fn submit_detached(&mut self, request: &Request<'_>, tx_id: u32) {
        // It fails if the message is too long, which those that we detach never are, or if all has stopped, and then
        // the server has forgotten what we would take back.
        let _ = self.enqueue(request, tx_id, Effect::None, Caller::Nobody);
    }

    fn enqueue(&mut self, request: &Request<'_>, tx_id: u32, effect: Effect, caller: Caller) -> Result<u32, Error> {
        if let Some(error) = self.stopped {
            return Err(error);
        }
        while self.next_id == 0 || self.pending.iter().any(|pending| pending.id == self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        let mut message = Vec::new();
        request.encode(id, tx_id, &mut message)?;
        self.next_id = id.wrapping_add(1);
        self.stats.requests += 1;
        self.pending.push(Pending {
            id,
            kind: request.kind(),
            held: self.holding,
            stage: Stage::Waiting(message),
            caller,
            effect,
        });
        Ok(id)
    }

    /// Takes the answer to a request, or leaves a waker.
    pub(super) fn poll(&mut self, id: u32, cx: &mut Context<'_>) -> Poll<Result<Answer, Error>> {
        let Some(index) = self.pending.iter().position(|pending| pending.id == id) else {
            return Poll::Ready(Err(self.stopped.unwrap_or(Error::Stopped)));
        };
        match self.pending.get_mut(index) {
            Some(Pending {
                stage: Stage::Over(_), ..
            })
            | None => {}
            Some(pending) => {
                pending.caller = Caller::Future(Some(cx.waker().clone()));
                return Poll::Pending;
            }
        }
        match self.pending.remove(index).stage {
            Stage::Over(result) => Poll::Ready(result),
            _ => Poll::Ready(Err(Error::Stopped)),
        }
    }

    /// The caller of a request has lost interest. No harm if it has had its answer already.
    pub(super) fn forget(&mut self, id: u32) {
        let Some(index) = self.pending.iter().position(|pending| pending.id == id) else {
            return;
        };
        let Some(pending) = self.pending.get_mut(index) else {
            return;
        };
        pending.caller = Caller::Nobody;
        match &mut pending.stage {
            Stage::Sent => {}
            // A commit that was not sent becomes an abort, for the transaction has to end either way (rule 64).
            Stage::Waiting(message) if pending.kind == MessageType::TRANSACTION_END => {
                if let Some(commit) = message.get_mut(HEADER_LEN) {
                    *commit = b'F';
                }
            }
            _ => {
                let pending = self.pending.remove(index);
                if let Stage::Over(Ok(answer)) = pending.stage {
                    self.tidy_up(&pending.effect, &answer);
                }
            }
        }
    }

    /// Gives back what an answer gave us, when nobody is there to take it.
    fn tidy_up(&mut self, effect: &Effect, answer: &Answer) {
        if matches!(effect, Effect::Transaction)
            && let Ok(tx_id) = answer
                .payload(MessageType::TRANSACTION_START)
                .and_then(reply::transaction)
        {
            self.submit_detached(&Request::TransactionEnd(false), tx_id);
        }
    }

    // Watches

    /// Asks for a watch. Gives its token and its counter.
    pub(super) fn watch(&mut self, path: Path<'_>) -> Result<(u32, Signal), Error> {
        while self.watches.iter().any(|watch| watch.token == self.next_token) {
            self.next_token = self.next_token.wrapping_add(1);
        }
        let token = self.next_token;
        self.next_token = token.wrapping_add(1);
        let path: Rc<str> = path.as_str().into();
        let id = self.ask(token, &path)?;
        let events = Signal::new();
        let watch = Watching {
            token,
            path,
            events: events.clone(),
            set: false,
            asking: Some(id),
            failed: None,
        };
        self.watches.push(watch);
        Ok((token, events))
    }

    fn ask(&mut self, token: u32, path: &Rc<str>) -> Result<u32, Error> {
        let name = decimal::string(token.into());
        let request = Request::Watch {
            path: Path::new(path)?,
            token: name.as_bytes(),
            depth: None,
        };
        self.enqueue(
            &request,
            0,
            Effect::Watch {
                token,
                path: Rc::clone(path),
            },
            Caller::Nobody,
        )
    }

    /// The watch's guard is gone. The server is told once (rule 63): now, or when it answers the request that set it.
    pub(super) fn unwatch(&mut self, token: u32) {
        let Some(index) = self.watches.iter().position(|watch| watch.token == token) else {
            return;
        };
        let watch = self.watches.remove(index);
        if let Some(id) = watch.asking {
            self.forget(id);
        } else if watch.set {
            self.take_back(token, &watch.path);
        }
    }

    fn take_back(&mut self, token: u32, path: &str) {
        if let Ok(path) = Path::new(path) {
            self.submit_detached(
                &Request::Unwatch {
                    path,
                    token: decimal::string(token.into()).as_bytes(),
                },
                0,
            );
        }
    }

    /// Why a watch will see nothing any more.
    pub(super) fn watch_error(&self, token: u32) -> Option<Error> {
        let lost = self
            .watches
            .iter()
            .find(|watch| watch.token == token)
            .and_then(|watch| watch.failed);
        lost.or(self.stopped)
    }

    /// The server has forgotten transactions and watches: the watches are set again. Each fires when it is set.
    pub(super) fn forgotten(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        for index in 0..self.watches.len() {
            let Some(watch) = self.watches.get_mut(index) else {
                break;
            };
            if !watch.set {
                continue; // still being asked for, or refused
            }
            watch.set = false;
            let (token, path) = (watch.token, Rc::clone(&watch.path));
            let asked = self.ask(token, &path);
            if let Some(watch) = self.watches.get_mut(index) {
                watch.asking = asked.ok();
                watch.failed = asked.err();
            }
        }
    }

    // The ring's side

    /// Holds back what is asked from now on, or lets it go.
    pub(super) fn hold(&mut self, holding: bool) {
        self.holding = holding;
        if !holding {
            self.pending.iter_mut().for_each(|pending| pending.held = false);
        }
    }

    /// Ready when every request that is not held back has its answer.
    pub(super) fn poll_settled(&self, cx: &mut Context<'_>) -> Poll<()> {
        let is_settled = |pending: &Pending| pending.held || matches!(pending.stage, Stage::Over(_));
        loop {
            let seen = self.answered.count();
            if self.pending.iter().all(is_settled) {
                return Poll::Ready(());
            }
            ready!(self.answered.poll_after(seen, cx));
        }
    }

    /// Whether a message may be sent now.
    pub(super) fn has_message(&self) -> bool {
        let is_sent = |pending: &&Pending| matches!(pending.stage, Stage::Sent);
        let sent = self.pending.iter().filter(is_sent).count();
        sent < MAX_SENT && self.pending.iter().any(Pending::is_due)
    }

    /// The next message to send, in the order of submission. From here on it counts as sent.
    pub(super) fn take_message(&mut self) -> Option<Vec<u8>> {
        if !self.has_message() {
            return None;
        }
        let mut due = self.pending.iter_mut().filter(|pending| pending.is_due());
        due.find_map(|pending| match &mut pending.stage {
            Stage::Waiting(message) => {
                let message = core::mem::take(message);
                pending.stage = Stage::Sent;
                Some(message)
            }
            _ => None,
        })
    }

    /// Takes a message of the server's. What cannot be placed is counted and ignored (rule 61).
    ///
    /// # Errors
    /// [`Error::NoMemory`]: what it tells is lost, and so is the connection.
    pub(super) fn receive(&mut self, packet: Packet<'_>) -> Result<(), Error> {
        let placed = match packet.kind {
            MessageType::WATCH_EVENT => self.receive_event(packet.payload),
            kind => {
                let payload = memory::copy(packet.payload)?;
                self.receive_answer(packet.req_id, Answer { kind, payload })
            }
        };
        if placed.is_none() {
            self.stats.ignored += 1;
        }
        Ok(())
    }

    /// The event's path is neither believed nor kept: whoever watches looks again.
    fn receive_event(&mut self, payload: &[u8]) -> Option<()> {
        let event = WatchEvent::parse(payload).ok()?;
        let token = decimal::parse(event.token, 0..=u32::MAX.into())? as u32;
        let watch = self.watches.iter().find(|watch| watch.token == token)?;
        watch.events.raise();
        self.stats.events += 1;
        Some(())
    }

    fn receive_answer(&mut self, id: u32, answer: Answer) -> Option<()> {
        let is_asked = |pending: &Pending| pending.id == id && matches!(pending.stage, Stage::Sent);
        let index = self.pending.iter().position(is_asked)?;
        let pending = self.pending.get_mut(index)?;
        if let Effect::Watch { token, path } = &pending.effect {
            let (token, path) = (*token, Rc::clone(path));
            let outcome = answer.payload(pending.kind).and_then(reply::ok);
            self.watch_answered(token, &path, outcome);
        }
        let pending = self.pending.get_mut(index)?;
        match &mut pending.caller {
            Caller::Future(waker) => {
                let waker = waker.take();
                pending.stage = Stage::Over(Ok(answer));
                waker.into_iter().for_each(Waker::wake);
            }
            Caller::Nobody => {
                let pending = self.pending.remove(index);
                self.tidy_up(&pending.effect, &answer);
            }
        }
        self.answered.raise();
        Some(())
    }

    fn watch_answered(&mut self, token: u32, path: &str, outcome: Result<(), Error>) {
        match self.watches.iter_mut().find(|watch| watch.token == token) {
            Some(watch) => {
                watch.asking = None;
                watch.set = outcome.is_ok();
                watch.failed = outcome.err();
                if watch.failed.is_some() {
                    watch.events.raise();
                }
            }
            None if outcome.is_ok() => self.take_back(token, path),
            None => {}
        }
    }

    /// The connection is lost and a new one begins: whatever was asked or waits to be asked fails, and the watches
    /// are set again.
    pub(super) fn reconnect(&mut self) {
        self.stats.reconnects += 1;
        self.begin_anew(Error::Disconnected);
    }

    /// The same, because the domain is another one.
    pub(super) fn restore(&mut self) {
        self.life = self.life.wrapping_add(1);
        self.begin_anew(Error::Restored);
    }

    fn begin_anew(&mut self, error: Error) {
        self.fail_all(error);
        for watch in &mut self.watches {
            watch.set |= watch.asking.take().is_some();
        }
        self.forgotten();
    }

    /// It is over for good.
    pub(super) fn stop(&mut self, error: Error) {
        if self.stopped.is_none() {
            self.stopped = Some(error);
            self.fail_all(error);
            self.watches.iter().for_each(|watch| watch.events.raise());
            self.answered.raise();
        }
    }

    fn fail_all(&mut self, error: Error) {
        self.pending.retain_mut(|pending| {
            if matches!(pending.stage, Stage::Over(_)) {
                return true;
            }
            pending.stage = Stage::Over(Err(error));
            match &mut pending.caller {
                Caller::Future(waker) => {
                    waker.take().into_iter().for_each(Waker::wake);
                    true
                }
                Caller::Nobody => false,
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers go around: 0 belongs to watch events, and a request that was never answered keeps its own.
    #[test]
    fn a_number_in_use_is_not_given_out_again_rule_59() {
        let mut mux = Mux::new();
        let submit = |mux: &mut Mux| mux.submit(&Request::TransactionStart, 0, Effect::None);
        assert_eq!((submit(&mut mux), submit(&mut mux)), (Ok(1), Ok(2)));
        mux.next_id = u32::MAX;
        assert_eq!((submit(&mut mux), submit(&mut mux)), (Ok(u32::MAX), Ok(3)));
    }

    #[test]
    fn a_token_in_use_is_not_given_out_again() {
        let mut mux = Mux::new();
        let path = Path::new("a").unwrap();
        let watch = |mux: &mut Mux| mux.watch(path).unwrap().0;
        assert_eq!((watch(&mut mux), watch(&mut mux)), (1, 2));
        mux.next_token = 1;
        assert_eq!(watch(&mut mux), 3);
    }
}
