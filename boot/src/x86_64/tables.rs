//! The page tables that the processor uses under PVH.

use core::arch::asm;
use core::ptr;

use super::{MAPPED_AT_ENTRY, image};
use crate::frames::FRAME_SIZE;
use crate::paging::{ENTRIES, Tables};
use crate::regions::Regions;

/// The live tables, which the entry code has begun, with the memory that more of them are taken from.
pub(super) struct Live<'a>(pub(super) &'a mut Regions);

impl Tables for Live<'_> {
    fn root(&self) -> u64 {
        image::page_tables()
    }

    fn get(&self, table: u64, index: usize) -> u64 {
        let table = ptr::with_exposed_provenance::<u64>(table as usize);
        // SAFETY: `table` is the root or was read from a present entry, so it is a page table; it lies below 4 GiB and
        // is mapped one to one. The index stays within it. Only this code writes tables.
        unsafe { table.wrapping_add(index % ENTRIES).read_volatile() }
    }

    fn set(&mut self, table: u64, index: usize, entry: u64) {
        let table = ptr::with_exposed_provenance_mut::<u64>(table as usize);
        // SAFETY: as above; and every entry set maps memory to itself, so no address changes its meaning.
        unsafe { table.wrapping_add(index % ENTRIES).write_volatile(entry) }
    }

    fn new_table(&mut self) -> Option<u64> {
        let page = self.0.take(FRAME_SIZE, MAPPED_AT_ENTRY)?;
        // SAFETY: just taken, hence nobody's; mapped.
        unsafe { ptr::with_exposed_provenance_mut::<u8>(page as usize).write_bytes(0, FRAME_SIZE as usize) };
        Some(page)
    }
}

/// Makes the processor forget the translations it remembers.
pub(super) fn flush() {
    // SAFETY: writes back to CR3 what it holds; the map differs only in what callers of this module changed on purpose.
    unsafe { asm!("mov {0}, cr3", "mov cr3, {0}", out(reg) _, options(nostack, preserves_flags)) }
}
