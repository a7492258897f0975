//! Memory that goes back to Xen and comes again.
//!
//! Under PVH a page that was given back is a hole at its number, and comes back there; how the guest maps it is its own
//! affair. Under PV it is a machine frame that the guest has to let go of first. What comes back for it is another one, which
//! has to be mapped and written down.

use core::ptr::from_mut;

use super::call::{call, is_pv};
use super::{Xen, pv};
use crate::abi::memory::EXTENTS;
use crate::abi::{memory, nr};
use crate::{DomId, Gfn, Pfn};

impl Xen {
    /// How many pages of ours have memory, by a PV guest's list of machine frames. `None` under PVH, where nobody tells.
    #[must_use]
    pub fn pages_with_memory(self) -> Option<usize> {
        is_pv().then(pv::pages_with_memory)
    }

    /// Gives pages to Xen (`XENMEM_decrease_reservation`), [`EXTENTS`] at the most. Says how many it took, from the first
    /// on. Xen does not clear them before others get them.
    ///
    /// # Safety
    /// Nobody uses the pages, and nobody does before [`populate_frames`](Self::populate_frames) has brought them back.
    pub unsafe fn release_frames(self, pages: &[Pfn]) -> usize {
        let mut frames = [0; EXTENTS];
        let mut count = 0;
        for (slot, &page) in frames.iter_mut().zip(pages) {
            *slot = page.0;
            if is_pv() {
                // SAFETY: nobody uses the page.
                let Some(frame) = (unsafe { pv::let_go(page) }) else {
                    break;
                };
                *slot = frame.0;
            }
            count += 1;
        }
        let frames = frames.get_mut(..count).unwrap_or_default();
        // SAFETY: the caller's promise; a PV guest has no mapping of the pages any more.
        let done = unsafe { reservation(memory::DECREASE_RESERVATION, frames) };
        if is_pv() {
            for (&page, &frame) in pages.iter().zip(&*frames).skip(done) {
                // SAFETY: Xen did not take it, so it is the page's still. Then the entry that was good before is good again.
                let _ = unsafe { pv::adopt(page, Gfn(frame)) };
            }
        }
        done
    }

    /// Gets memory from Xen for pages that have none (`XENMEM_populate_physmap`), [`EXTENTS`] at the most. Says how many
    /// it got, from the first on; anything may be in them.
    ///
    /// # Safety
    /// [`release_frames`](Self::release_frames) took the pages, or they are within a PV guest's list and never had memory.
    pub unsafe fn populate_frames(self, pages: &[Pfn]) -> usize {
        let mut frames = [0; EXTENTS];
        frames.iter_mut().zip(pages).for_each(|(slot, page)| *slot = page.0);
        let frames = frames.get_mut(..pages.len().min(EXTENTS)).unwrap_or_default();
        // SAFETY: the pages are holes, so what Xen puts there is nobody's.
        let done = unsafe { reservation(memory::POPULATE_PHYSMAP, frames) };
        if is_pv() {
            for (index, (&page, &frame)) in pages.iter().zip(&*frames).enumerate().take(done) {
                // SAFETY: Xen has just given us the frame for this page, which has had none.
                if unsafe { pv::adopt(page, Gfn(frame)) }.is_err() {
                    let rest = frames.get_mut(index..done).unwrap_or_default();
                    // SAFETY: nobody has seen these frames.
                    unsafe { reservation(memory::DECREASE_RESERVATION, rest) };
                    return index;
                }
            }
        }
        done
    }
}

/// Has Xen change what memory we have, page by page. How many it did; for a PV guest that populates, `frames` are machine
/// frames then.
///
/// # Safety
/// What is taken is in nobody's use; what is populated is a hole.
unsafe fn reservation(operation: u64, frames: &mut [u64]) -> usize {
    let mut arg = memory::MemoryReservation {
        extent_start: frames.as_mut_ptr() as u64,
        nr_extents: frames.len() as u64,
        domid: DomId::SELF.0,
        ..Default::default()
    };
    // SAFETY: as many frame numbers as are said are there, and both live through the call; the rest is the caller's promise.
    let done = unsafe { call(nr::MEMORY_OP, operation, from_mut(&mut arg) as u64, 0) };
    done.map_or(0, |done| (done as usize).min(frames.len()))
}
