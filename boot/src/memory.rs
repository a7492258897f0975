//! The machine's memory as the program's: finding it, mapping it, and the global allocator.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ops::Range;
use core::ptr;

use crate::frames::{FRAME_SIZE, Frames};
use crate::heap::Memory;
pub use crate::heap::Stats;
use crate::paging;
use crate::regions::Regions;
use crate::x86_64::{image, tables};

/// Memory below this address is mapped from the first instruction on.
const MAPPED_AT_ENTRY: u64 = 1 << 32;

/// What stands in the way of having memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Error {
    /// There is none below 4 GiB, or not enough for the books about it.
    None,
    /// It does not suffice for page tables.
    PageTables,
}

struct Global(UnsafeCell<Option<Memory<'static>>>);

// SAFETY: one CPU runs the image with interrupts off, so nothing comes between the beginning and the end of an
// allocation but a fault, after which nothing is allocated.
unsafe impl Sync for Global {}

#[global_allocator]
static GLOBAL: Global = Global(UnsafeCell::new(None));

impl Global {
    fn with<R>(&self, run: impl FnOnce(&mut Memory<'static>) -> R) -> Option<R> {
        // SAFETY: the only place that borrows, and nothing that `run` does comes back here: the allocator does not
        // allocate.
        unsafe { &mut *self.0.get() }.as_mut().map(run)
    }
}

// SAFETY: Memory keeps GlobalAlloc's contract: distinct, aligned, large enough objects that stay where they are until
// freed. Before init every allocation fails.
unsafe impl GlobalAlloc for Global {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        self.with(|memory| unsafe { memory.alloc(layout) })
            .unwrap_or(ptr::null_mut())
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        self.with(|memory| unsafe { memory.dealloc(object, layout) });
    }

    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        if self.with(|memory| unsafe { memory.resize(object, layout, new_size) }) == Some(true) {
            return object;
        }
        // SAFETY: the caller promises that the new size is fit for a layout.
        let new = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the caller promises that the size is not 0.
        let moved = unsafe { self.alloc(new) };
        if !moved.is_null() {
            // SAFETY: two distinct objects of at least that size.
            unsafe { moved.copy_from_nonoverlapping(object, layout.size().min(new_size)) };
            // SAFETY: the caller's promise.
            unsafe { self.dealloc(object, layout) };
        }
        moved
    }
}

/// What of memory is used for what.
#[must_use]
pub fn stats() -> Stats {
    GLOBAL.with(|memory| memory.stats()).unwrap_or_default()
}

/// Gives `usable` to the allocator, maps what of it is not mapped yet, and puts the final protection on all of it.
///
/// # Safety
/// Called once. `usable` is RAM that nobody uses.
pub(crate) unsafe fn init(usable: &Regions) -> Result<(), Error> {
    // The books go where memory is mapped already.
    let words = Frames::bitmap_words(usable);
    let pages = (words * size_of::<u64>()).div_ceil(FRAME_SIZE as usize);
    let fits = |r: &&Range<u64>| r.end.min(MAPPED_AT_ENTRY).saturating_sub(r.start) >= pages as u64 * FRAME_SIZE;
    let place = usable
        .as_slice()
        .iter()
        .find(fits)
        .filter(|_| words > 0)
        .ok_or(Error::None)?
        .start;
    let books = ptr::with_exposed_provenance_mut::<u64>(place as usize);
    // SAFETY: usable memory, mapped, of that many words.
    unsafe { books.write_bytes(0, words) };
    // SAFETY: the same, now with values; aligned to a page; and ours alone, since the frames are taken below.
    let bitmap = unsafe { core::slice::from_raw_parts_mut(books, words) };
    let mut frames = Frames::new(usable, bitmap);
    if !frames.take(place / FRAME_SIZE, pages) {
        return Err(Error::None);
    }

    let new_page = || {
        // Lowest first: as long as there is any below 4 GiB, it is mapped.
        let page = frames.alloc(1, 1)? * FRAME_SIZE;
        if page >= MAPPED_AT_ENTRY {
            return None;
        }
        // SAFETY: just taken, hence nobody's; mapped.
        unsafe { ptr::with_exposed_provenance_mut::<u8>(page as usize).write_bytes(0, FRAME_SIZE as usize) };
        Some(page)
    };
    let mut tables = tables::Live { new_page };
    paging::refine(&mut tables, &image::layout()).map_err(|_| Error::PageTables)?;
    for range in usable.as_slice().iter().filter(|range| range.end > MAPPED_AT_ENTRY) {
        paging::map(&mut tables, range.clone()).map_err(|_| Error::PageTables)?;
    }
    tables::flush();

    // SAFETY: the caller's promise, and all of it is mapped one to one now, so frame 0 would be at address 0.
    let memory = unsafe { Memory::new(frames, ptr::null_mut()) };
    // SAFETY: nothing has been allocated before, so nobody borrows.
    unsafe { *GLOBAL.0.get() = Some(memory) };
    Ok(())
}
