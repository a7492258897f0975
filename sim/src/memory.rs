//! Real pages. With the allocator in heap.rs, this file holds all of the crate's unsafe code.
//!
//! A run of pages is one heap allocation, shared by reference count between its domain and whoever has it mapped:
//! a peer that keeps a page too long reads stale bytes, as on Xen, never freed memory.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::collections::{BTreeMap, VecDeque};
use std::ptr::NonNull;
use std::rc::Rc;

use fata_hypercall::abi::event_fifo::{ControlBlock, EventWords};
use fata_hypercall::abi::grant_table::EntryV1;
use fata_hypercall::abi::shared_info::SharedInfo;
use fata_hypercall::{Gfn, PAGE_SIZE, SharedPage};

/// What a freed page is filled with: it is not a valid pointer, index, length or text.
pub const POISON: u8 = 0xdd;

/// How many freed pages are kept aside, poisoned, before their memory is really given back.
const KEPT_ASIDE: usize = 512;

/// A run of contiguous pages, zeroed at birth.
pub(crate) struct Run {
    first: NonNull<SharedPage>,
    count: usize,
}

impl Run {
    pub(crate) fn new(count: usize) -> Rc<Self> {
        let layout = Self::layout(count);
        // SAFETY: the layout has a size, because `layout` asks for at least one page.
        let memory = unsafe { alloc_zeroed(layout) };
        let first = NonNull::new(memory.cast()).unwrap_or_else(|| handle_alloc_error(layout));
        Rc::new(Self {
            first,
            count: count.max(1),
        })
    }

    fn layout(count: usize) -> Layout {
        let bytes = count
            .max(1)
            .checked_mul(PAGE_SIZE)
            .expect("a run of pages fits into the address space");
        Layout::from_size_align(bytes, PAGE_SIZE).expect("a run of pages fits into the address space")
    }

    pub(crate) const fn first(&self) -> NonNull<SharedPage> {
        self.first
    }

    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn page(&self, index: usize) -> &SharedPage {
        assert!(index < self.count, "page {index} of a run of {}", self.count);
        // SAFETY: in bounds of the allocation, by the assertion, which lives as long as `self`.
        let page = unsafe { self.first.add(index) };
        // SAFETY: zeroed memory is a valid SharedPage; a SharedPage may be referred to from many sides at once. The
        // domain may hold a `&mut` to its bytes only while nobody has a grant, and then nobody asks for this.
        unsafe { page.as_ref() }
    }

    /// The first page as the table of pending bits and clocks.
    pub(crate) const fn shared_info(&self) -> &SharedInfo {
        // SAFETY: a SharedInfo is smaller than a page, less aligned, and made of atomics only, for which any bytes
        // are valid; the memory lives as long as `self`.
        unsafe { self.first.cast().as_ref() }
    }

    /// The first page as a page of the grant table.
    pub(crate) const fn grant_entries(&self) -> &[EntryV1; EntryV1::PER_PAGE] {
        // SAFETY: the array is exactly one page and made of atomics only, for which any bytes are valid; the memory
        // lives as long as `self`.
        unsafe { self.first.cast().as_ref() }
    }

    /// The first page as the control block of the FIFO form.
    pub(crate) const fn control_block(&self) -> &ControlBlock {
        // SAFETY: a ControlBlock is smaller than a page, less aligned, and made of atomics only, for which any bytes are
        // valid; the memory lives as long as `self`.
        unsafe { self.first.cast().as_ref() }
    }

    /// The first page as words of the FIFO form.
    pub(crate) const fn event_words(&self) -> &EventWords {
        // SAFETY: the words are exactly one page and made of atomics only, for which any bytes are valid; the memory lives as
        // long as `self`.
        unsafe { self.first.cast().as_ref() }
    }

    fn fill(&self, byte: u8) {
        for index in 0..self.count {
            self.page(index).write(0, &[byte; PAGE_SIZE]);
        }
    }

    /// The first byte that is no longer `byte`.
    fn first_other_than(&self, byte: u8) -> Option<usize> {
        let mut bytes = [0; PAGE_SIZE];
        (0..self.count).find_map(|index| {
            self.page(index).read(0, &mut bytes);
            bytes.iter().position(|&b| b != byte).map(|at| index * PAGE_SIZE + at)
        })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout; the reference count says that this is the last owner.
        unsafe { dealloc(self.first.as_ptr().cast(), Self::layout(self.count)) };
    }
}

/// Why pages could not be freed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotAllocated;

/// One domain's memory.
pub(crate) struct Memory {
    limit: usize,
    /// Fresh pages are zeroed, as a hypervisor's allocator must do.
    zeroed: bool,
    used: usize,
    /// Pages of the limit that the hypervisor has.
    ballooned: usize,
    next_gfn: u64,
    /// By the first frame number of each run.
    by_gfn: BTreeMap<u64, Rc<Run>>,
    /// First frame number of each run, by the run's address.
    by_address: BTreeMap<usize, u64>,
    freed: VecDeque<(u64, Rc<Run>)>,
    freed_pages: usize,
}

impl Memory {
    pub(crate) const fn new(limit: usize, zeroed: bool, first_gfn: u64) -> Self {
        Self {
            limit,
            zeroed,
            used: 0,
            ballooned: 0,
            next_gfn: first_gfn,
            by_gfn: BTreeMap::new(),
            by_address: BTreeMap::new(),
            freed: VecDeque::new(),
            freed_pages: 0,
        }
    }

    /// Pages allocated at this moment.
    pub(crate) const fn used(&self) -> usize {
        self.used
    }

    /// Pages that can be allocated.
    pub(crate) const fn free_pages(&self) -> usize {
        self.limit - self.ballooned - self.used
    }

    /// Pages that the hypervisor has.
    pub(crate) const fn ballooned(&self) -> usize {
        self.ballooned
    }

    /// Gives free pages to the hypervisor: how many went.
    pub(crate) fn release(&mut self, count: usize) -> usize {
        let count = count.min(self.free_pages());
        self.ballooned += count;
        count
    }

    /// Gets pages back from the hypervisor: how many came.
    pub(crate) fn populate(&mut self, count: usize) -> usize {
        let count = count.min(self.ballooned);
        self.ballooned -= count;
        count
    }

    pub(crate) fn alloc(&mut self, count: usize) -> Option<NonNull<SharedPage>> {
        if count == 0 || count > self.free_pages() {
            return None;
        }
        self.used += count;
        let run = Run::new(count);
        if !self.zeroed {
            run.fill(POISON);
        }
        Some(self.adopt(run).1)
    }

    /// Gives frame numbers to pages that do not count against the limit: those that the toolstack made.
    pub(crate) fn adopt(&mut self, run: Rc<Run>) -> (Gfn, NonNull<SharedPage>) {
        let (gfn, first) = (self.next_gfn, run.first());
        // A hole after each run: a frame number one too far names nothing.
        self.next_gfn += run.count() as u64 + 1;
        self.by_address.insert(first.as_ptr().addr(), gfn);
        self.by_gfn.insert(gfn, run);
        (Gfn(gfn), first)
    }

    /// The frame numbers of a run that `alloc` returned.
    pub(crate) fn gfns(&self, first: NonNull<SharedPage>, count: usize) -> Result<std::ops::Range<u64>, NotAllocated> {
        let gfn = *self.by_address.get(&first.as_ptr().addr()).ok_or(NotAllocated)?;
        let run = self.by_gfn.get(&gfn).ok_or(NotAllocated)?;
        if run.count() == count {
            Ok(gfn..gfn + count as u64)
        } else {
            Err(NotAllocated)
        }
    }

    /// Poisons the pages and keeps them aside. Returns the frames of pages that were written after an earlier free.
    pub(crate) fn free(&mut self, first: NonNull<SharedPage>, count: usize) -> Result<Vec<Scribble>, NotAllocated> {
        let gfn = self.gfns(first, count)?.start;
        self.by_address.remove(&first.as_ptr().addr());
        let run = self.by_gfn.remove(&gfn).ok_or(NotAllocated)?;
        run.fill(POISON);
        self.used -= count;
        self.freed_pages += count;
        self.freed.push_back((gfn, run));
        let mut scribbles = Vec::new();
        while self.freed_pages > KEPT_ASIDE {
            let Some((gfn, run)) = self.freed.pop_front() else {
                break;
            };
            self.freed_pages -= run.count();
            scribbles.extend(Scribble::find(gfn, &run));
        }
        Ok(scribbles)
    }

    /// Freed pages, still kept aside, that somebody wrote to.
    pub(crate) fn scribbles(&self) -> Vec<Scribble> {
        self.freed
            .iter()
            .filter_map(|(gfn, run)| Scribble::find(*gfn, run))
            .collect()
    }

    pub(crate) fn gfn_of(&self, page: &SharedPage) -> Option<Gfn> {
        let address = page.as_ptr().addr();
        let (&start, &gfn) = self.by_address.range(..=address).next_back()?;
        let index = (address - start) / PAGE_SIZE;
        (index < self.by_gfn.get(&gfn)?.count()).then(|| Gfn(gfn + index as u64))
    }

    /// The run that holds a frame, and the frame's index in it.
    pub(crate) fn find(&self, gfn: Gfn) -> Option<(Rc<Run>, usize)> {
        let (&first, run) = self.by_gfn.range(..=gfn.0).next_back()?;
        let index = usize::try_from(gfn.0 - first).ok()?;
        (index < run.count()).then(|| (Rc::clone(run), index))
    }
}

/// A write to a page after it was freed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Scribble {
    /// First frame of the freed run.
    pub(crate) gfn: u64,
    /// The first byte that changed, from the start of the run.
    pub(crate) offset: usize,
}

impl Scribble {
    fn find(gfn: u64, run: &Run) -> Option<Self> {
        run.first_other_than(POISON).map(|offset| Self { gfn, offset })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(first: NonNull<SharedPage>) -> &'static SharedPage {
        // SAFETY: the tests below keep the run alive while they use the reference.
        unsafe { &*first.as_ptr() }
    }

    #[test]
    fn pages_are_zeroed_counted_and_limited() {
        let mut memory = Memory::new(3, true, 100);
        let first = memory.alloc(2).unwrap();
        let mut bytes = [1; PAGE_SIZE];
        page(first).read(0, &mut bytes);
        assert_eq!(bytes, [0; PAGE_SIZE]);
        assert_eq!(memory.gfn_of(page(first)), Some(Gfn(100)));
        assert!(memory.alloc(2).is_none());
        assert!(memory.alloc(0).is_none());
        assert!(memory.alloc(usize::MAX).is_none());
        assert!(memory.alloc(1).is_some());
        assert_eq!(memory.used(), 3);
        assert!(memory.find(Gfn(101)).is_some());
        assert!(memory.find(Gfn(102)).is_none(), "the hole after a run");
    }

    #[test]
    fn what_the_hypervisor_has_cannot_be_allocated() {
        let mut memory = Memory::new(5, true, 100);
        assert!(memory.alloc(2).is_some());
        assert_eq!(memory.release(10), 3, "not what is in use");
        assert!(memory.alloc(1).is_none());
        assert_eq!((memory.populate(1), memory.free_pages()), (1, 1));
        assert!(memory.alloc(1).is_some());
        assert_eq!((memory.populate(9), memory.ballooned()), (2, 0));
    }

    #[test]
    fn freed_pages_are_poisoned_and_a_late_write_shows() {
        let mut memory = Memory::new(3, true, 100);
        let first = memory.alloc(1).unwrap();
        assert_eq!(
            memory.free(first, 2),
            Err(NotAllocated),
            "not the count of the allocation"
        );
        assert_eq!(memory.free(first, 1), Ok(vec![]));
        assert_eq!(memory.free(first, 1), Err(NotAllocated), "freed twice");
        assert_eq!(page(first).get::<u32>(0), Some(0xdddd_dddd));
        assert_eq!(memory.gfn_of(page(first)), None);
        assert!(memory.scribbles().is_empty());
        page(first).write(17, &[1]);
        assert_eq!(memory.scribbles(), [Scribble { gfn: 100, offset: 17 }]);
    }
}
