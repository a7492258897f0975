//! Pages of another domain.

use core::fmt;

use fata_hypercall::{DomId, ForeignPage, GrantError, GrantRef, Hypervisor, SharedPage};

/// A page that another domain has granted to us, to copy from and to. Unmapped on drop.
///
/// It can be used whatever its granter does, even after that domain's end. If Xen refuses to unmap it, nobody can reach it
/// any more all the same; its place among the foreign pages stays taken.
///
/// A suspend of this domain makes the mapping void: drop it before.
///
/// ```no_run
/// # use fata_grant::Mapped;
/// # use fata_hypercall::{DomId, GrantError, GrantRef, Hypervisor};
/// fn first_word<H: Hypervisor>(hv: &H, granter: DomId, reference: GrantRef) -> Result<Option<u32>, GrantError> {
///     Ok(Mapped::map(hv, granter, reference)?.page().get(0))
/// }
/// ```
pub struct Mapped<H: Hypervisor> {
    hv: H,
    foreign: ForeignPage,
}

impl<H: Hypervisor> Mapped<H> {
    /// Maps the page that `granter` has granted us under `reference`, for reading and writing.
    ///
    /// # Errors
    /// What Xen says.
    pub fn map(hv: &H, granter: DomId, reference: GrantRef) -> Result<Self, GrantError> {
        Ok(Self {
            hv: hv.clone(),
            foreign: hv.map_grant(granter, reference)?,
        })
    }

    /// The page, which its granter may read and write at this moment.
    #[must_use]
    pub fn page(&self) -> &SharedPage {
        // SAFETY: the hypervisor has mapped the page, and keeps it there until `drop` asks it not to, after which there is no
        // `self` to borrow from. A SharedPage makes no claim about who else reads or writes it.
        unsafe { self.foreign.page.as_ref() }
    }
}

impl<H: Hypervisor> Drop for Mapped<H> {
    fn drop(&mut self) {
        // SAFETY: references to the page borrow `self`, so there is none. A page that stays mapped harms nobody.
        let _ = unsafe { self.hv.unmap_grant(self.foreign) };
    }
}

impl<H: Hypervisor> fmt::Debug for Mapped<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapped({:p})", self.foreign.page)
    }
}
