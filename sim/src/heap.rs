//! A heap on which nothing can be read that nobody has written. Unsafe, because that is what an allocator is.

use std::alloc::{GlobalAlloc, Layout, System};

use crate::memory::POISON;

/// The system's heap, with fresh and freed memory filled with [`POISON`]: for a test that looks for those bytes where they
/// must not be.
///
/// ```
/// #[global_allocator]
/// static HEAP: fata_sim::PoisonHeap = fata_sim::PoisonHeap;
/// let fresh = Vec::<u8>::with_capacity(100); // POISON throughout, until it is written
/// # drop(fresh);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct PoisonHeap;

// SAFETY: memory comes from the system's allocator and goes back to it with the same layout; in between only bytes inside of
// it are written, while nobody else has it. `realloc` is the trait's own: a new block, a copy, and the old one poisoned.
unsafe impl GlobalAlloc for PoisonHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are those that the system's allocator wants.
        let memory = unsafe { System.alloc(layout) };
        if !memory.is_null() {
            // SAFETY: the block is new, ours, and this long.
            unsafe { memory.write_bytes(POISON, layout.size()) };
        }
        memory
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller gives the block up, and it is this long.
        unsafe { memory.write_bytes(POISON, layout.size()) };
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(memory, layout) };
    }
}
