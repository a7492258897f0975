//! Where the parts of the image lie: the symbols that `fata.ld` defines.

use core::ops::Range;

use crate::paging::Layout;

unsafe extern "C" {
    static __image_start: u8;
    static __text_start: u8;
    static __text_end: u8;
    static __page_tables: u8;
    static __stack_guard: u8;
    static __stack_bottom: u8;
    static __stack_top: u8;
    static __image_end: u8;
}

/// The tables that the entry code fills; the first is the root.
pub(crate) fn page_tables() -> u64 {
    (&raw const __page_tables).addr() as u64
}

/// The page under the stack, which is not mapped.
pub(crate) fn guard() -> Range<u64> {
    let bottom = (&raw const __stack_guard).addr() as u64;
    bottom..bottom + 4096
}

/// The stack. There is one; tasks keep their state on the heap.
pub(crate) fn stack() -> Range<u64> {
    (&raw const __stack_bottom).addr() as u64..(&raw const __stack_top).addr() as u64
}

/// The code.
pub(crate) fn text() -> Range<u64> {
    (&raw const __text_start).addr() as u64..(&raw const __text_end).addr() as u64
}

/// Everything, from the first byte that the loader fills to the last that it clears.
pub(crate) fn whole() -> Range<u64> {
    (&raw const __image_start).addr() as u64..(&raw const __image_end).addr() as u64
}

/// What the page tables make of it under PVH.
pub(crate) fn layout() -> Layout {
    Layout {
        rodata: whole().start..text().start,
        text: text(),
        tables: 0..0,
        guard: guard().start,
        end: whole().end,
    }
}
