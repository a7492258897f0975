//! Files as the server knows them: numbers of our choice.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use fata_events::Signal;

/// A number that stands for a file at the server. Whoever needs it holds it, each request about it too; when nobody does any
/// more, it is [buried](Graves).
#[derive(Debug)]
pub(crate) struct Fid {
    pub(crate) number: u32,
    /// In which it means something.
    pub(crate) session: u64,
    /// The server may know it, and has to be told when it is of no interest any more.
    pub(crate) known: Cell<bool>,
    graves: Rc<Graves>,
}

/// The fids that nobody holds any more, and that nobody has told the server of.
#[derive(Debug, Default)]
pub(crate) struct Graves {
    dropped: RefCell<Vec<Grave>>,
    /// Raised when there is something to tell the server, whatever it is.
    pub(crate) work: Signal,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Grave {
    pub(crate) number: u32,
    pub(crate) session: u64,
    pub(crate) known: bool,
}

impl Graves {
    /// All that were dropped since the last call.
    pub(crate) fn take(&self) -> Vec<Grave> {
        self.dropped.take()
    }
}

impl Drop for Fid {
    fn drop(&mut self) {
        self.graves.dropped.borrow_mut().push(Grave {
            number: self.number,
            session: self.session,
            known: self.known.get(),
        });
        self.graves.work.raise();
    }
}

/// The numbers of one session.
#[derive(Debug)]
pub(crate) struct Fids {
    session: u64,
    next: u32,
    free: Vec<u32>,
    pub(crate) graves: Rc<Graves>,
}

impl Fids {
    pub(crate) fn new(session: u64, graves: Rc<Graves>) -> Self {
        Self {
            session,
            next: 0,
            free: Vec::new(),
            graves,
        }
    }

    /// A number that stands for nothing yet. There are more of them than there is memory for files.
    pub(crate) fn choose(&mut self) -> Rc<Fid> {
        let number = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        Rc::new(Fid {
            number,
            session: self.session,
            known: Cell::new(false),
            graves: Rc::clone(&self.graves),
        })
    }

    /// The server does not know this number any more.
    pub(crate) fn free(&mut self, number: u32) {
        self.free.push(number);
    }
}
