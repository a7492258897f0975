//! A PV guest's page tables: Xen checks every entry before the processor sees it.
//!
//! The entries hold machine frames. To the outside this module shows them as [`paging`] knows them, with the guest's own
//! frames. Tables that are in use are read-only and are changed by Xen on our behalf, many entries with one hypercall; a
//! new table is filled in as plain memory, and becomes read-only when it is linked.

use core::ptr;

use fata_hypercall::abi::pv::{MACHINE_TO_PHYS, MmuUpdate};
use fata_hypercall::metal::Xen;
use fata_hypercall::{Errno, Pfn};

use crate::frames::FRAME_SIZE;
use crate::paging::{self, ADDRESS, ENTRIES, NO_EXECUTE, PRESENT, Tables};
use crate::regions::Regions;

/// Updates that are kept for one hypercall: 2 KiB of the stack.
const QUEUE: usize = 128;

/// The live tables, with the memory that more of them are taken from.
pub(super) struct Live<'a> {
    xen: Xen,
    root: u64,
    memory: &'a mut Regions,
    /// Where what has memory ends.
    end: u64,
    /// The newest table, as long as no other refers to it.
    unlinked: Option<u64>,
    queue: [MmuUpdate; QUEUE],
    queued: usize,
    result: Result<(), Errno>,
}

impl<'a> Live<'a> {
    /// The tables that the domain builder made, from `root` on.
    pub(super) const fn new(xen: Xen, root: u64, memory: &'a mut Regions, end: u64) -> Self {
        Self {
            xen,
            root,
            memory,
            end,
            unlinked: None,
            queue: [MmuUpdate { ptr: 0, val: 0 }; QUEUE],
            queued: 0,
            result: Ok(()),
        }
    }

    /// Takes so many bytes of memory, whole pages, the lowest that there are.
    pub(super) fn take(&mut self, bytes: u64) -> Option<u64> {
        self.memory.take(bytes.next_multiple_of(FRAME_SIZE), self.end)
    }

    /// Has Xen make what is left to be changed.
    ///
    /// # Errors
    /// What Xen said to the first change that it refused, if it did.
    pub(super) fn finish(mut self) -> Result<(), Errno> {
        self.commit();
        self.xen.flush_tlb();
        self.result
    }

    fn commit(&mut self) {
        let queue = self.queue.get(..self.queued).unwrap_or_default();
        if queue.is_empty() {
            return;
        }
        // SAFETY: every entry that is present maps a page of ours one to one, so no address changes its meaning. Access
        // is lost only where the caller wants protection, and to tables, which are written to in no other way.
        let done = unsafe { self.xen.mmu_update(queue) };
        self.queued = 0;
        self.result = self.result.and(done);
    }

    /// `entry` as the processor reads it. Where the domain has no memory there is nothing to map.
    fn to_machine(&self, entry: u64) -> u64 {
        let frame = self.xen.machine_frame(Pfn((entry & ADDRESS) / FRAME_SIZE));
        match frame {
            Some(frame) if entry & PRESENT != 0 => entry & !ADDRESS | (frame.0 * FRAME_SIZE),
            _ => 0,
        }
    }

    /// Takes away our own write access to a table, without which Xen accepts none.
    fn make_read_only(&mut self, table: u64) {
        let entry = self.to_machine(table | PRESENT | NO_EXECUTE);
        // SAFETY: it maps the same page as before; only this module uses it, and writes to it no more.
        let done = unsafe { self.xen.update_va_mapping(table, entry) };
        self.result = self.result.and(done);
    }
}

impl Tables for Live<'_> {
    fn root(&self) -> u64 {
        self.root
    }

    fn get(&self, table: u64, index: usize) -> u64 {
        let table = ptr::with_exposed_provenance::<u64>(table as usize);
        // SAFETY: `table` is the root or was read from a present entry, so it is a page table, and all of them are mapped
        // one to one. The index stays within it.
        let entry = unsafe { table.wrapping_add(index % ENTRIES).read_volatile() };
        if entry & PRESENT == 0 {
            return 0;
        }
        let list = ptr::with_exposed_provenance::<u64>(MACHINE_TO_PHYS as usize);
        let frame = (entry & ADDRESS) / FRAME_SIZE;
        // SAFETY: Xen's list is mapped for every PV guest, and has a word for the frame, since Xen let it into an entry.
        let own = unsafe { list.wrapping_add(frame as usize).read_volatile() };
        entry & !ADDRESS | (own * FRAME_SIZE)
    }

    fn set(&mut self, table: u64, index: usize, entry: u64) {
        let val = self.to_machine(entry);
        let index = index % ENTRIES;
        if self.unlinked == Some(table) {
            let table = ptr::with_exposed_provenance_mut::<u64>(table as usize);
            // SAFETY: new_table took this page, it is writable still, and the index stays within it.
            unsafe { table.wrapping_add(index).write_volatile(val) };
            return;
        }
        let link = self.unlinked.filter(|&new| entry & ADDRESS == new);
        if let Some(new) = link {
            // What is queued may be this page's own mapping, writable.
            self.commit();
            self.make_read_only(new);
            self.unlinked = None;
        }
        let slot = self.to_machine(table | PRESENT) & ADDRESS;
        if let Some(update) = self.queue.get_mut(self.queued) {
            update.ptr = slot + (index * size_of::<u64>()) as u64;
            update.val = val;
            self.queued += 1;
        }
        // What was linked is read soon, by way of the processor's own tables.
        if link.is_some() || self.queued == QUEUE {
            self.commit();
        }
    }

    fn new_table(&mut self) -> Option<u64> {
        // Lowest first, and memory is mapped from low to high: so it is mapped as long as there is any that is.
        let page = self.take(FRAME_SIZE)?;
        if !paging::is_mapped(self, page) {
            return None;
        }
        // SAFETY: just taken, hence nobody's; mapped, and not as a table.
        unsafe { ptr::with_exposed_provenance_mut::<u8>(page as usize).write_bytes(0, FRAME_SIZE as usize) };
        self.unlinked = Some(page);
        Some(page)
    }
}
