//! One allocator for everything: page frames for what is large or aligned to pages, a heap for the rest.
//!
//! The heap is [`talc`], which draws chunks of 64 KiB from the frames when it needs them and gives chunks back that
//! have become empty. It was chosen over an allocator of our own: maintained, fuzzed, constant-time, 8 bytes of
//! overhead, in-place growth, about 4 KiB of code.

use core::alloc::Layout;
use core::fmt;
use core::mem;
use core::ops::Range;
use core::ptr::{self, NonNull};

use talc::DefaultBinning;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

use fata_hypercall::Pfn;
use fata_hypercall::abi::memory::EXTENTS as BATCH;

use crate::frames::{FRAME_SIZE, Frames};

const PAGE: usize = FRAME_SIZE as usize;

/// Pages that the heap takes at a time.
const CHUNK_PAGES: usize = 16;

/// From this size on, in bytes, an allocation is made of whole pages. Rounding wastes an eighth at the most.
const LARGE: usize = 32 << 10;

/// What of memory is used for what. All figures are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// RAM that the allocator manages and has. The image, the loader's structures and the page tables for the image are not
    /// among it.
    pub total: usize,
    /// What of it is free for anything.
    pub free: usize,
    /// What is not among it because the balloon holds it: Xen has it, for now.
    pub ballooned: usize,
    /// The most that was ever in use.
    pub peak: usize,
    /// What the heap for small objects has taken, in chunks.
    pub heap: usize,
    /// What of the heap is in use by objects.
    pub heap_used: usize,
}

impl Stats {
    /// What is not free.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.total - self.free
    }
}

/// The frames, as talc's source of chunks.
struct Chunks<'a> {
    frames: Frames<'a>,
    /// Where frame 0 is in our address space: address 0 on metal, the start of a buffer in tests.
    origin: *mut u8,
    /// An empty chunk, kept so that a heap that breathes around a chunk's border does not go to the frames each time.
    /// An empty range if there is none.
    spare: Range<usize>,
    heap: usize,
    peak: usize,
}

impl fmt::Debug for Chunks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chunks")
    }
}

impl Chunks<'_> {
    fn take(&mut self, pages: usize, align: usize) -> Option<*mut u8> {
        let align = (align / PAGE).max(1) as u64;
        let frame = self.frames.alloc(pages, align).or_else(|| {
            self.drop_spare();
            self.frames.alloc(pages, align)
        })?;
        self.count();
        Some(self.origin.wrapping_add(frame as usize * PAGE))
    }

    fn count(&mut self) {
        self.peak = self.peak.max(self.frames.used());
    }

    fn frame_of(&self, address: usize) -> u64 {
        (address.wrapping_sub(self.origin.addr()) / PAGE) as u64
    }

    fn give_back(&mut self, address: usize, pages: usize) {
        // False would mean a double free, which the language excludes; the bitmap survives it.
        let _ = self.frames.free(self.frame_of(address), pages);
    }

    /// Ends the use of pages: they go into the balloon, or are free.
    fn sort(&mut self, pages: &[Pfn], ballooned: impl Fn(usize) -> bool) {
        for (index, page) in pages.iter().enumerate() {
            // False would mean that they were not in use, and they were taken a moment ago.
            let _ = match ballooned(index) {
                true => self.frames.put_into_balloon(page.0),
                false => self.frames.free(page.0, 1),
            };
        }
    }

    fn drop_spare(&mut self) {
        let spare = mem::take(&mut self.spare);
        if !spare.is_empty() {
            self.heap -= spare.len();
            self.give_back(spare.start, spare.len() / PAGE);
        }
    }
}

// SAFETY: acquire gives talc memory that came from the frames and that nobody else uses; resize takes back exactly a
// whole chunk that talc has just said to be empty. Neither allocates.
unsafe impl Source for Chunks<'_> {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // What talc adds to an object: alignment, a tag, and in the first chunk its lists.
        let overhead = talc::min_first_heap_size::<B>() + 64;
        let needed = (layout.size() + layout.align() + overhead).div_ceil(PAGE);
        let source = &mut talc.source;
        let chunk = if source.spare.len() >= needed * PAGE {
            mem::take(&mut source.spare)
        } else {
            // Where no whole chunk is left in one piece, the least will do.
            let pages = needed.max(CHUNK_PAGES);
            let (start, pages) = match source.take(pages, PAGE) {
                Some(start) => (start.addr(), pages),
                None => (source.take(needed, PAGE).ok_or(())?.addr(), needed),
            };
            source.heap += pages * PAGE;
            start..start + pages * PAGE
        };
        let base = source.origin.with_addr(chunk.start);
        // SAFETY: the chunk is ours alone, see above.
        unsafe { talc.claim(base, chunk.len()) }.map(|_| ()).ok_or(())
    }

    const TRACK_HEAP_END: bool = true;

    unsafe fn resize(&mut self, chunk_base: *mut u8, heap_end: *mut u8, is_heap_base: bool) -> *mut u8 {
        if !is_heap_base {
            return heap_end;
        }
        // Chunks are whole pages; talc moves the borders inwards by less than its unit.
        let start = (chunk_base.addr() - 1) / PAGE * PAGE;
        let end = heap_end.addr().next_multiple_of(PAGE);
        self.drop_spare();
        self.spare = start..end;
        chunk_base
    }
}

/// The allocator. `GlobalAlloc`'s contract, with an exclusive borrow in place of a lock.
#[derive(Debug)]
pub(crate) struct Memory<'a> {
    heap: Talc<Chunks<'a>, DefaultBinning>,
    used: usize,
}

/// How many pages an allocation is made of; `None` if it belongs on the heap.
fn pages(layout: Layout) -> Option<usize> {
    (layout.align() >= PAGE || layout.size() >= LARGE).then(|| layout.size().div_ceil(PAGE))
}

/// Up to `count` pages as `take` gives them.
fn fill(pages: &mut [Pfn; BATCH], count: usize, take: impl FnMut() -> Option<u64>) -> &[Pfn] {
    let mut taken = 0;
    for (page, frame) in pages.iter_mut().take(count).zip(core::iter::from_fn(take)) {
        *page = Pfn(frame);
        taken += 1;
    }
    pages.get(..taken).unwrap_or_default()
}

impl<'a> Memory<'a> {
    /// An allocator of `frames`.
    ///
    /// # Safety
    /// The free frames are memory that nobody else uses, and frame n of them is at `origin` + n * 4096, readable and
    /// writable.
    pub(crate) const unsafe fn new(frames: Frames<'a>, origin: *mut u8) -> Self {
        Self {
            heap: Talc::new(Chunks {
                frames,
                origin,
                spare: 0..0,
                heap: 0,
                peak: 0,
            }),
            used: 0,
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let Chunks { frames, heap, peak, .. } = &self.heap.source;
        Stats {
            total: (frames.total() - frames.ballooned()) * PAGE,
            free: frames.free_frames() * PAGE,
            ballooned: frames.ballooned() * PAGE,
            peak: peak * PAGE,
            heap: *heap,
            heap_used: self.used,
        }
    }

    /// Takes up to `count` free pages, [`BATCH`] at the most, and shows them to `release`, which says how many of them, from the
    /// first on, have gone. Says the same. What was ever in them is wiped out.
    pub(crate) fn inflate(&mut self, count: usize, release: impl FnOnce(&[Pfn]) -> usize) -> usize {
        let source = &mut self.heap.source;
        source.drop_spare();
        let origin = source.origin;
        let take = || {
            let (frame, used) = source.frames.take_highest()?;
            if used {
                // SAFETY: it was free and is taken: a page that nobody uses.
                unsafe { origin.wrapping_add(frame as usize * PAGE).write_bytes(0, PAGE) };
            }
            Some(frame)
        };
        let mut pages = [Pfn(0); BATCH];
        let pages = fill(&mut pages, count, take);
        let gone = release(pages);
        source.sort(pages, |index| index < gone);
        gone
    }

    /// Takes up to `count` pages out of the balloon, [`BATCH`] at the most, and shows them to `populate`, which says how many of
    /// them, from the first on, have memory again. They are free then. Says the same.
    pub(crate) fn deflate(&mut self, count: usize, populate: impl FnOnce(&[Pfn]) -> usize) -> usize {
        let source = &mut self.heap.source;
        let mut pages = [Pfn(0); BATCH];
        let pages = fill(&mut pages, count, || source.frames.take_from_balloon());
        let back = populate(pages);
        source.sort(pages, |index| index >= back);
        back
    }

    /// # Safety
    /// The size is not 0.
    pub(crate) unsafe fn alloc(&mut self, layout: Layout) -> *mut u8 {
        match pages(layout) {
            Some(pages) => self.heap.source.take(pages, layout.align()).unwrap_or(ptr::null_mut()),
            None => {
                // SAFETY: the size is not 0.
                let object = unsafe { self.heap.allocate(layout) };
                self.used += if object.is_some() { layout.size() } else { 0 };
                object.map_or(ptr::null_mut(), NonNull::as_ptr)
            }
        }
    }

    /// # Safety
    /// `object` was allocated here with this layout.
    pub(crate) unsafe fn dealloc(&mut self, object: *mut u8, layout: Layout) {
        match pages(layout) {
            Some(pages) => self.heap.source.give_back(object.addr(), pages),
            None => {
                self.used -= layout.size();
                // SAFETY: the caller's promise.
                unsafe { self.heap.deallocate(object, layout) }
            }
        }
    }

    /// Changes an object's size where it lies. `false`, and nothing changed, if that cannot be.
    ///
    /// # Safety
    /// `object` was allocated here with `layout`; `new_size` is not 0.
    pub(crate) unsafe fn resize(&mut self, object: *mut u8, layout: Layout, new_size: usize) -> bool {
        let Ok(new) = Layout::from_size_align(new_size, layout.align()) else {
            return false;
        };
        match (pages(layout), pages(new)) {
            (Some(old), Some(new)) => {
                let source = &mut self.heap.source;
                let end = object.addr() + old * PAGE;
                if new < old {
                    source.give_back(object.addr() + new * PAGE, old - new);
                } else if !source.frames.take(source.frame_of(end), new - old) {
                    return false;
                }
                source.count();
                true
            }
            (None, None) => {
                // SAFETY: the caller's promise.
                let done = unsafe { self.heap.try_realloc_in_place(object, layout, new_size) };
                if done {
                    self.used = self.used - layout.size() + new_size;
                }
                done
            }
            _ => false,
        }
    }
}

#[cfg(test)]
#[allow(clippy::multiple_unsafe_ops_per_block, reason = "one fact makes them all sound")]
mod tests {
    use super::*;
    use crate::regions::Regions;
    use proptest::prelude::*;

    const PAGES: usize = 256;

    /// Memory of which frame 0 is nobody's, as on metal. Aligned beyond what the tests ask for.
    #[repr(C, align(16384))]
    struct Ram([u8; PAGES * PAGE]);

    fn with_memory(run: impl FnOnce(&mut Memory<'_>)) {
        // SAFETY: bytes may be zero.
        let mut ram: Box<Ram> = unsafe { Box::new_zeroed().assume_init() };
        let mut usable = Regions::new();
        usable.add(PAGE as u64..100 * FRAME_SIZE);
        usable.add(101 * FRAME_SIZE..PAGES as u64 * FRAME_SIZE);
        let mut bitmap = vec![0; Frames::bitmap_words(&usable)];
        let frames = Frames::new(&usable, &mut bitmap);
        // SAFETY: the frames are the pages of `ram`, which outlives them and which nobody else touches.
        run(&mut unsafe { Memory::new(frames, (&raw mut *ram).cast()) });
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn pages_cost_pages() {
        with_memory(|memory| {
            let before = memory.stats();
            let page = layout(PAGE, PAGE);
            // SAFETY: the layouts are not empty, and what is freed was allocated with the same.
            unsafe {
                let first = memory.alloc(page);
                let second = memory.alloc(page);
                assert_eq!(second.addr() - first.addr(), PAGE);
                assert_eq!(memory.stats().used(), before.used() + 2 * PAGE);
                memory.dealloc(first, page);
                memory.dealloc(second, page);
            }
            assert_eq!(memory.stats().free, before.free);
            assert_eq!(memory.stats().peak, 2 * PAGE);
        });
    }

    #[test]
    fn out_of_memory_is_null_and_memory_comes_back() {
        with_memory(|memory| {
            let whole = memory.stats().free;
            let mut objects = Vec::new();
            loop {
                // SAFETY: the layout is not empty.
                let object = unsafe { memory.alloc(layout(1000, 8)) };
                if object.is_null() {
                    break;
                }
                objects.push(object);
            }
            assert!(objects.len() > whole / 1000 * 9 / 10, "{}", objects.len());
            assert!(memory.stats().free < 16 * PAGE, "{:?}", memory.stats());
            for object in objects {
                // SAFETY: allocated above.
                unsafe { memory.dealloc(object, layout(1000, 8)) };
            }
            let after = memory.stats();
            assert_eq!(after.heap_used, 0);
            // The first chunk holds talc's lists, and one may be kept.
            assert!(after.heap <= 2 * CHUNK_PAGES * PAGE, "{after:?}");
            // SAFETY: the layout is not empty.
            let large = unsafe { memory.alloc(layout(100 * PAGE, 1)) };
            assert!(!large.is_null());
        });
    }

    #[test]
    fn the_balloon_takes_free_pages_wiped_and_gives_them_back() {
        with_memory(|memory| {
            let whole = memory.stats();
            // SAFETY: the layouts are not empty, and what is freed was allocated with the same.
            let kept = unsafe {
                let used = memory.alloc(layout(90 * PAGE - 1, 1));
                used.write_bytes(7, 90 * PAGE - 1);
                let kept = memory.alloc(layout(PAGE, PAGE));
                kept.write_bytes(7, PAGE);
                memory.dealloc(used, layout(90 * PAGE - 1, 1));
                kept
            };
            let origin = memory.heap.source.origin;
            let mut gone = 0;
            let gone_is_clean = |pages: &[Pfn]| {
                for page in pages {
                    let page = origin.wrapping_add(page.0 as usize * PAGE);
                    assert_ne!(page, kept);
                    // SAFETY: a page of the test's memory.
                    let bytes = unsafe { core::slice::from_raw_parts(page, PAGE) };
                    assert!(bytes.iter().all(|&byte| byte == 0));
                }
                pages.len()
            };
            assert_eq!(memory.inflate(50, |pages| gone_is_clean(pages) - 20), 30);
            assert_eq!(memory.stats().ballooned, 30 * PAGE);
            loop {
                match memory.inflate(usize::MAX, gone_is_clean) {
                    0 => break,
                    more => gone += more,
                }
            }
            let empty = memory.stats();
            assert_eq!((empty.free, empty.total, empty.used()), (0, PAGE, PAGE));
            assert_eq!(gone + 30, whole.free / PAGE - 1);
            // SAFETY: the layout is not empty.
            let object = unsafe { memory.alloc(layout(8, 8)) };
            assert!(object.is_null(), "an allocation fails, whoever is to blame");

            assert_eq!(memory.deflate(10, |_| 0), 0, "the hypervisor has none");
            let lowest = memory.deflate(10, |pages| {
                assert!(pages.is_sorted());
                3
            });
            assert_eq!((lowest, memory.stats().free), (3, 3 * PAGE));
            while memory.deflate(usize::MAX, <[Pfn]>::len) > 0 {}
            // SAFETY: allocated above.
            unsafe { memory.dealloc(kept, layout(PAGE, PAGE)) };
            let after = memory.stats();
            assert_eq!((after.total, after.free, after.ballooned), (whole.total, whole.free, 0));
        });
    }

    #[test]
    fn large_objects_grow_where_they_lie() {
        with_memory(|memory| {
            let free = memory.stats().free;
            // SAFETY: the layouts are not empty, and objects are used with the layouts they have.
            unsafe {
                let object = memory.alloc(layout(LARGE, 1));
                assert!(memory.resize(object, layout(LARGE, 1), 2 * LARGE));
                let other = memory.alloc(layout(PAGE, PAGE));
                assert!(
                    !memory.resize(object, layout(2 * LARGE, 1), 3 * LARGE),
                    "something is in the way"
                );
                assert!(memory.resize(object, layout(2 * LARGE, 1), LARGE));
                assert!(
                    !memory.resize(object, layout(LARGE, 1), LARGE - 1),
                    "from pages to the heap it moves"
                );
                memory.dealloc(other, layout(PAGE, PAGE));
                memory.dealloc(object, layout(LARGE, 1));
            }
            assert_eq!(memory.stats().free, free);
        });
    }

    proptest! {
        #[test]
        fn objects_keep_what_was_written(
            steps in prop::collection::vec(
                (0_u8..4, prop_oneof![1_usize..200, 1_usize..70_000], 0_u32..14, any::<prop::sample::Index>()),
                1..150,
            )
        ) {
            with_memory(|memory| {
                let mut objects: Vec<(*mut u8, Layout, u8)> = Vec::new();
                let fill = |(object, layout, byte): (*mut u8, Layout, u8)| {
                    // SAFETY: the object has that many bytes.
                    unsafe { object.write_bytes(byte, layout.size()) };
                };
                let check = |(object, layout, byte): (*mut u8, Layout, u8)| {
                    // SAFETY: the object has that many bytes, all written.
                    let bytes = unsafe { core::slice::from_raw_parts(object, layout.size()) };
                    assert!(bytes.iter().all(|&b| b == byte));
                };
                for (n, (kind, size, align, pick)) in steps.into_iter().enumerate() {
                    match kind {
                        0 if !objects.is_empty() => {
                            let gone = objects.swap_remove(pick.index(objects.len()));
                            check(gone);
                            // SAFETY: allocated with this layout.
                            unsafe { memory.dealloc(gone.0, gone.1) };
                        }
                        1 if !objects.is_empty() => {
                            let index = pick.index(objects.len());
                            let (object, old, byte) = objects[index];
                            // SAFETY: allocated with this layout, and the size is not 0.
                            if unsafe { memory.resize(object, old, size) } {
                                let new = layout(size, old.align());
                                check((object, layout(size.min(old.size()), old.align()), byte));
                                objects[index] = (object, new, byte);
                                fill(objects[index]);
                            }
                        }
                        _ => {
                            let layout = layout(size, 1 << align);
                            // SAFETY: the size is not 0.
                            let object = unsafe { memory.alloc(layout) };
                            if !object.is_null() {
                                assert_eq!(object.addr() % layout.align(), 0);
                                objects.push((object, layout, n as u8));
                                fill((object, layout, n as u8));
                            }
                        }
                    }
                    assert_eq!(
                        memory.stats().heap_used,
                        objects.iter().filter(|o| pages(o.1).is_none()).map(|o| o.1.size()).sum::<usize>()
                    );
                }
                objects.iter().for_each(|&object| check(object));
                for (object, layout, _) in objects {
                    // SAFETY: allocated with this layout.
                    unsafe { memory.dealloc(object, layout) };
                }
                let stats = memory.stats();
                assert_eq!(stats.used(), stats.heap, "only the heap's own chunks are left");
                assert!(stats.heap <= 2 * CHUNK_PAGES * PAGE);
            });
        }
    }
}
