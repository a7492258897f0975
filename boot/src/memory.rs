//! The machine's memory as the program's: the books about it, and the global allocator.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ops::Range;
use core::ptr;

use fata_hypercall::Pfn;
use fata_hypercall::metal::Xen;

use crate::frames::{FRAME_SIZE, Frames};
use crate::heap::Memory;
pub use crate::heap::Stats;
use crate::regions::Regions;

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

/// Gives free pages to Xen, the highest first: up to `count` of them, and 256 at the most in one call. Says how many went.
pub fn inflate(xen: Xen, count: usize) -> usize {
    // SAFETY: pages that are in the balloon are not given out until deflate has had them populated.
    let release = |pages: &[Pfn]| unsafe { xen.release_frames(pages) };
    GLOBAL.with(|memory| memory.inflate(count, release)).unwrap_or(0)
}

/// Gets pages back from Xen that [`inflate`] gave it: up to `count` of them, and 256 at the most in one call. Says how many came.
pub fn deflate(xen: Xen, count: usize) -> usize {
    // SAFETY: the pages are in the balloon, so Xen has their memory.
    let populate = |pages: &[Pfn]| unsafe { xen.populate_frames(pages) };
    GLOBAL.with(|memory| memory.deflate(count, populate)).unwrap_or(0)
}

/// Gives `usable` to the allocator, which keeps its books in there. What of it lies in `later` has no memory yet, and is in the
/// balloon. `None` if nothing is left beside the books.
///
/// # Safety
/// Called once. Below `later` it is RAM that nobody uses, mapped one to one and writable; nothing of it lies above.
pub(crate) unsafe fn init(usable: &mut Regions, later: Range<u64>) -> Option<()> {
    let words = Frames::bitmap_words(usable);
    let bytes = (words * size_of::<u64>()) as u64;
    let place = usable.take(bytes.next_multiple_of(FRAME_SIZE), later.start)?;
    let books = ptr::with_exposed_provenance_mut::<u64>(place as usize);
    // SAFETY: mapped memory of that many words.
    unsafe { books.write_bytes(0, words) };
    // SAFETY: the same, now with values; aligned to a page; and ours alone, since it is not usable any more.
    let bitmap = unsafe { core::slice::from_raw_parts_mut(books, words) };
    let mut frames = Frames::new(usable, bitmap);
    if cfg!(feature = "balloon") {
        frames.top_into_balloon(((later.end - later.start) / FRAME_SIZE) as usize);
    }
    // SAFETY: the caller's promise. Mapped one to one means that frame 0 would be at address 0.
    let memory = unsafe { Memory::new(frames, ptr::null_mut()) };
    // SAFETY: nothing has been allocated before, so nobody borrows.
    unsafe { *GLOBAL.0.get() = Some(memory) };
    Some(())
}
