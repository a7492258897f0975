//! Pages that are ours alone.

use core::fmt;
use core::ptr::NonNull;
use core::slice;

use fata_hypercall::{DomId, Hypervisor, PAGE_SIZE, SharedPage};

use crate::Error;

/// A run of contiguous pages that no other domain can reach. Freed on drop.
///
/// Granted memory is dedicated: whole pages, never a corner of the heap whose neighbours a peer would see (XSA-403).
pub struct Pages<H: Hypervisor> {
    hv: H,
    first: NonNull<SharedPage>,
    count: usize,
    /// The last domain that could read the pages.
    pub(crate) seen_by: Option<DomId>,
}

impl<H: Hypervisor> Pages<H> {
    /// Takes `count` contiguous pages of zeroes.
    ///
    /// # Errors
    /// [`Error::NoMemory`]; also if `count` is 0.
    pub fn alloc(hv: &H, count: usize) -> Result<Self, Error> {
        if count == 0 {
            return Err(Error::NoMemory);
        }
        let first = hv.alloc_pages(count).ok_or(Error::NoMemory)?;
        Ok(Self {
            hv: hv.clone(),
            first,
            count,
            seen_by: None,
        })
    }

    /// How many pages there are; never 0.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.count
    }

    /// The bytes of all pages.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: the run came from alloc_pages, is ours until it is dropped, and no peer is granted access.
        unsafe { slice::from_raw_parts(self.first.as_ptr().cast(), self.count * PAGE_SIZE) }
    }

    /// The bytes of all pages.
    #[must_use]
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.first.as_ptr().cast(), self.count * PAGE_SIZE) }
    }

    /// Where the run begins.
    pub(crate) fn first(&self) -> NonNull<SharedPage> {
        self.first
    }
}

impl<H: Hypervisor> Drop for Pages<H> {
    fn drop(&mut self) {
        // SAFETY: first and count are those of alloc_pages; slices borrow `self`, so none remains; pages that a peer
        // may still reach are inside a `Shared` or in quarantine, and neither drops its `Pages` before they are back.
        unsafe { self.hv.free_pages(self.first, self.count) };
    }
}

impl<H: Hypervisor> fmt::Debug for Pages<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pages({:p} + {})", self.first, self.count)
    }
}
