//! A machine of two parts: pages and a grant table. The tests themselves play Xen and the peer.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use fata_hypercall::abi::grant_table::EntryV1;
use fata_hypercall::abi::shared_info::SharedInfo;
use fata_hypercall::{
    DomId, Errno, Gfn, GrantRef, Hypervisor, PAGE_SIZE, Port, ServiceRing, SharedPage, ShutdownReason, SystemTime,
    Version,
};

/// One in a model, which creates them anew for every run.
pub const FRAMES: usize = if cfg!(loom) { 1 } else { 4 };

#[derive(Clone)]
pub struct Machine(Rc<State>);

struct State {
    frames: Box<[[EntryV1; EntryV1::PER_PAGE]]>,
    made: Cell<u32>,
    claimed: Cell<bool>,
    pages: RefCell<BTreeMap<usize, (usize, u64)>>,
    next_gfn: Cell<u64>,
}

impl Machine {
    pub fn new() -> Self {
        Self(Rc::new(State {
            frames: (0..FRAMES)
                .map(|_| std::array::from_fn(|_| EntryV1::default()))
                .collect(),
            made: Cell::new(0),
            claimed: Cell::new(false),
            pages: RefCell::default(),
            next_gfn: Cell::new(0x1000),
        }))
    }

    /// What Xen sees.
    pub fn entry(&self, reference: GrantRef) -> &EntryV1 {
        let index = reference.0 as usize;
        &self.0.frames[index / EntryV1::PER_PAGE][index % EntryV1::PER_PAGE]
    }

    pub fn flags(&self, reference: GrantRef) -> u16 {
        self.entry(reference).flags.load(SeqCst)
    }

    /// The peer maps the page (8 reading, 16 writing).
    pub fn map(&self, reference: GrantRef, bits: u16) {
        assert!(
            self.entry(reference).flags.fetch_or(bits, SeqCst) & 1 == 1,
            "mapped without permission"
        );
    }

    pub fn unmap(&self, reference: GrantRef) {
        self.entry(reference).flags.fetch_and(!24, SeqCst);
    }

    pub fn pages_used(&self) -> usize {
        self.0.pages.borrow().values().map(|run| run.0).sum()
    }

    pub fn frames_made(&self) -> u32 {
        self.0.made.get()
    }

    pub fn set_next_gfn(&self, gfn: u64) {
        self.0.next_gfn.set(gfn);
    }
}

fn layout(count: usize) -> Layout {
    Layout::from_size_align(count * PAGE_SIZE, PAGE_SIZE).unwrap()
}

// SAFETY: pages are boxes of their own, and the table is the one that the tests' peer looks at.
unsafe impl Hypervisor for Machine {
    fn alloc_pages(&self, count: usize) -> Option<NonNull<SharedPage>> {
        // SAFETY: the size is not zero; Pages asks for one page or more.
        let first = NonNull::new(unsafe { alloc_zeroed(layout(count)) })?.cast::<SharedPage>();
        let gfn = self.0.next_gfn.replace(self.0.next_gfn.get() + count as u64);
        self.0.pages.borrow_mut().insert(first.as_ptr() as usize, (count, gfn));
        Some(first)
    }

    unsafe fn free_pages(&self, first: NonNull<SharedPage>, count: usize) {
        let run = self.0.pages.borrow_mut().remove(&(first.as_ptr() as usize));
        let (allocated, gfn) = run.expect("freed what was not allocated");
        assert_eq!(allocated, count);
        for entry in self
            .0
            .frames
            .iter()
            .flatten()
            .filter(|entry| entry.flags.load(SeqCst) != 0)
        {
            let frame = u64::from(entry.frame.load(SeqCst));
            assert!(
                !(gfn..gfn + count as u64).contains(&frame),
                "page {frame:#x} freed while granted"
            );
        }
        // SAFETY: allocated above with the same layout.
        unsafe { dealloc(first.as_ptr().cast(), layout(count)) };
    }

    fn gfn_of(&self, page: &SharedPage) -> Gfn {
        let address = page.as_ptr() as usize;
        let pages = self.0.pages.borrow();
        let (first, (_, gfn)) = pages.range(..=address).next_back().expect("a page of ours");
        Gfn(gfn + ((address - first) / PAGE_SIZE) as u64)
    }

    fn grant_max_frames(&self) -> u32 {
        FRAMES as u32
    }

    fn claim_grant_table(&self) -> bool {
        !self.0.claimed.replace(true)
    }

    fn release_grant_table(&self) {
        self.0.claimed.set(false);
    }

    unsafe fn grant_frame(&self, index: u32) -> Result<&[EntryV1; EntryV1::PER_PAGE], Errno> {
        self.0.made.set(self.0.made.get().max(index + 1));
        self.0.frames.get(index as usize).ok_or(Errno::ENOSPC)
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
        unreachable!("grants need no events")
    }

    fn tsc(&self) -> u64 {
        0
    }

    fn evtchn_alloc_unbound(&self, _: DomId) -> Result<Port, Errno> {
        Err(Errno::ENOSYS)
    }

    fn evtchn_close(&self, _: Port) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    fn evtchn_send(&self, _: Port) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    fn poll(&self, _: &[Port], _: Option<SystemTime>) {}

    fn shutdown(&self, _: ShutdownReason) {}

    fn console_io(&self, _: &[u8]) {}
}
