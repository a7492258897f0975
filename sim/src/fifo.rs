//! The FIFO form of event channels (xen/common/event_fifo.c as facts).

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use fata_hypercall::abi::event_fifo::{ControlBlock, EventWords, LINKED, MASKED, PAGES, PENDING, WORDS_PER_PAGE};
use fata_hypercall::sync::AtomicU32;
use fata_hypercall::{Errno, Port};

use crate::domain::DomainState;
use crate::fifo_queue::Queue;
use crate::memory::Run;

/// The pages of one domain. They are its own memory on Xen, and are not counted here.
pub(crate) struct Fifo {
    queue: RefCell<Queue>,
    control: Rc<Run>,
    words: Box<[OnceCell<Rc<Run>>]>,
    /// How many of them are in use; none: the domain has the two-level form.
    known: Cell<usize>,
}

impl Default for Fifo {
    fn default() -> Self {
        Self {
            queue: RefCell::default(),
            control: Run::new(1),
            words: (0..PAGES).map(|_| OnceCell::new()).collect(),
            known: Cell::new(0),
        }
    }
}

impl Fifo {
    pub(crate) fn control(&self) -> Option<&ControlBlock> {
        (self.known.get() > 0).then(|| self.control.control_block())
    }

    pub(crate) fn words(&self, index: usize) -> Option<&EventWords> {
        let page = self.words.get(index).filter(|_| index < self.known.get())?;
        page.get().map(|run| run.event_words())
    }

    pub(crate) fn word(&self, port: Port) -> Option<&AtomicU32> {
        let index = port.0 as usize;
        self.words(index / WORDS_PER_PAGE)?.get(index % WORDS_PER_PAGE)
    }

    pub(crate) fn is_linked(&self, port: Port) -> bool {
        self.word(port).is_some_and(|word| word.load(SeqCst) & LINKED != 0)
    }

    /// Closing a port takes its event away.
    pub(crate) fn clear_pending(&self, port: Port) {
        if let Some(word) = self.word(port) {
            word.fetch_and(!PENDING, SeqCst);
        }
    }

    /// The domain begins anew.
    pub(crate) fn forget(&self) {
        self.known.set(0);
    }

    /// Sets a port pending. Whether it was not; `None` if the domain does not use this form.
    pub(crate) fn set_pending(&self, port: Port) -> Option<bool> {
        let control = self.control()?;
        Some(self.queue.borrow().set_pending(control, |port| self.word(port), port))
    }
}

impl DomainState {
    /// `EVTCHNOP_init_control` and `EVTCHNOP_expand_array`.
    pub(crate) fn use_fifo(&self, pages: usize) -> Result<(), Errno> {
        let fifo = &self.fifo;
        let runs = fifo.words.get(..pages).ok_or(Errno::ENOSPC)?;
        let known = fifo.known.get();
        if known == 0 {
            fifo.control.page(0).write(0, &[0; size_of::<ControlBlock>()]);
            fifo.queue.take();
        }
        for (page, run) in runs.iter().enumerate().skip(known) {
            let words = run.get_or_init(|| Run::new(1)).event_words();
            for (index, word) in words.iter().enumerate() {
                let port = Port((page * WORDS_PER_PAGE + index) as u32);
                let pending = known == 0 && self.is_pending(port);
                word.store(if pending { MASKED | PENDING } else { MASKED }, SeqCst);
            }
        }
        fifo.known.set(known.max(pages));
        Ok(())
    }
}
