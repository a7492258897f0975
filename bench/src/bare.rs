//! A machine that costs nothing: memory, a clock, and no peers.

#[path = "../../sim/src/fifo_queue.rs"]
mod fifo_queue;

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::array;
use std::cell::{Cell, OnceCell};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use fata_hypercall::abi::event_fifo::{ControlBlock, EventWords, MASKED, WORDS_PER_PAGE};
use fata_hypercall::abi::grant_table::EntryV1;
use fata_hypercall::abi::shared_info::SharedInfo;
use fata_hypercall::{
    DomId, Errno, Gfn, Hypervisor, PAGE_SIZE, Port, ServiceRing, SharedPage, ShutdownReason, SystemTime, Version,
};

#[derive(Clone)]
pub(crate) struct Bare(Rc<State>);

struct State {
    info: SharedInfo,
    table: [EntryV1; EntryV1::PER_PAGE],
    tsc: Cell<u64>,
    next_port: Cell<u32>,
    fifo: OnceCell<Fifo>,
}

/// The FIFO form, from the first port on that needs it.
#[derive(Default)]
struct Fifo {
    queue: fifo_queue::Queue,
    control: ControlBlock,
    words: Vec<EventWords>,
}

impl Bare {
    pub(crate) fn new() -> Self {
        let info = SharedInfo::default();
        let time = &info.vcpu_info[0].time;
        time.tsc_to_system_mul.store(1 << 31, Relaxed);
        time.tsc_shift.store(1, Relaxed);
        Self(Rc::new(State {
            info,
            table: std::array::from_fn(|_| EntryV1::default()),
            tsc: Cell::new(0),
            next_port: Cell::new(1),
            fifo: OnceCell::new(),
        }))
    }

    /// What Xen does when a peer signals.
    pub(crate) fn signal(&self, port: Port) {
        if let Some(Fifo { queue, control, words }) = self.0.fifo.get() {
            let word = |port: Port| {
                words
                    .get(port.0 as usize / WORDS_PER_PAGE)?
                    .get(port.0 as usize % WORDS_PER_PAGE)
            };
            queue.set_pending(control, word, port);
            return;
        }
        self.0.info.evtchn_pending[port.0 as usize / 64].fetch_or(1 << (port.0 % 64), SeqCst);
    }
}

fn layout(count: usize) -> Layout {
    Layout::from_size_align(count * PAGE_SIZE, PAGE_SIZE).expect("a size that there is")
}

// SAFETY: pages come from the allocator, zeroed and aligned; the table lives as long as any clone; there are no peers.
unsafe impl Hypervisor for Bare {
    fn alloc_pages(&self, count: usize) -> Option<NonNull<SharedPage>> {
        // SAFETY: a run of pages is never empty.
        NonNull::new(unsafe { alloc_zeroed(layout(count)) }.cast())
    }
    unsafe fn free_pages(&self, first: NonNull<SharedPage>, count: usize) {
        // SAFETY: allocated above with the same layout.
        unsafe { dealloc(first.as_ptr().cast(), layout(count)) };
    }
    fn gfn_of(&self, _page: &SharedPage) -> Gfn {
        Gfn(1)
    }
    fn console_ring(&self) -> Option<ServiceRing<'_>> {
        None
    }
    fn store_ring(&self) -> Option<ServiceRing<'_>> {
        None
    }
    fn version(&self) -> Option<Version> {
        None
    }
    fn shared_info(&self) -> &SharedInfo {
        &self.0.info
    }
    fn tsc(&self) -> u64 {
        self.0.tsc.replace(self.0.tsc.get() + 1)
    }
    fn evtchn_alloc_unbound(&self, _remote: DomId) -> Result<Port, Errno> {
        Ok(Port(self.0.next_port.replace(self.0.next_port.get() + 1)))
    }
    fn evtchn_use_fifo(&self, _pages: usize) -> Result<(), Errno> {
        let page = |_| array::from_fn(|_| AtomicU32::new(MASKED));
        self.0.fifo.get_or_init(|| Fifo {
            words: (0..8).map(page).collect(),
            ..Fifo::default()
        });
        Ok(())
    }
    fn evtchn_control(&self) -> Option<&ControlBlock> {
        self.0.fifo.get().map(|fifo| &fifo.control)
    }
    fn evtchn_words(&self, index: usize) -> Option<&EventWords> {
        self.0.fifo.get()?.words.get(index)
    }
    fn evtchn_close(&self, _port: Port) -> Result<(), Errno> {
        Ok(())
    }
    fn evtchn_send(&self, _port: Port) -> Result<(), Errno> {
        Ok(())
    }
    fn poll(&self, _ports: &[Port], _deadline: Option<SystemTime>) {}
    fn shutdown(&self, _reason: ShutdownReason) {}
    fn grant_max_frames(&self) -> u32 {
        1
    }
    fn claim_grant_table(&self) -> bool {
        true
    }
    fn release_grant_table(&self) {}
    unsafe fn grant_frame(&self, _index: u32) -> Result<&[EntryV1; EntryV1::PER_PAGE], Errno> {
        Ok(&self.0.table)
    }
    fn console_io(&self, _bytes: &[u8]) {}
}
