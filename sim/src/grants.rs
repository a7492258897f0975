//! Grants as Xen serves them to the other domain (xen/common/grant_table.c as facts): mapping, copying, and the
//! flags in the entry that say so while it lasts.

use std::collections::BTreeMap;
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

use fata_hypercall::abi::grant_table::{EntryV1, Flags};
use fata_hypercall::{DomId, ForeignPage, Gfn, GrantError, GrantRef, PAGE_SIZE, SharedPage};

use crate::domain::{Domain, DomainState};
use crate::faults::Call;
use crate::memory::Run;

/// The most pages of other domains that a driver has mapped at a time: as many as there is room for on metal.
const FOREIGN_PAGES_MAX: usize = 767;

/// What a peer wants of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read it.
    Read,
    /// To read and write it.
    Write,
}

/// One entry in use: Xen's active entry.
#[derive(Clone, Debug)]
struct Pin {
    peer: DomId,
    gfn: u32,
    readers: u32,
    writers: u32,
}

/// Entries of one domain's table that peers use at this moment.
#[derive(Default)]
pub(crate) struct Pins(BTreeMap<u32, Pin>);

impl Pins {
    /// Nobody uses any entry.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// Reference, frame and peer of each entry in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, u32, DomId)> + '_ {
        self.0.iter().map(|(&reference, pin)| (reference, pin.gfn, pin.peer))
    }
}

/// Pages of other domains that one domain has mapped, by handle.
#[derive(Default)]
pub(crate) struct Foreign {
    mapped: BTreeMap<u32, Mapping>,
    last_handle: u32,
}

impl Foreign {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.mapped.len()
    }

    fn add(&mut self, mapping: Mapping) -> ForeignPage {
        self.last_handle += 1;
        let page = NonNull::from(mapping.page());
        self.mapped.insert(self.last_handle, mapping);
        ForeignPage {
            page,
            handle: self.last_handle,
        }
    }
}

impl DomainState {
    pub(crate) fn entry(&self, reference: GrantRef) -> Option<&EntryV1> {
        let per_page = EntryV1::PER_PAGE as u32;
        self.grant_page(reference.0 / per_page)?
            .get((reference.0 % per_page) as usize)
    }

    /// Checks the entry and marks it in use.
    fn pin(&self, peer: DomId, reference: GrantRef, access: Access) -> Result<(Rc<Run>, usize), GrantError> {
        let entry = self.entry(reference).ok_or(GrantError::BadReference)?;
        let mut marks = Flags::READING;
        if access == Access::Write {
            marks |= Flags::WRITING;
        }
        let mut seen = entry.flags.load(Acquire);
        loop {
            let flags = Flags::from_bits_retain(seen);
            if !flags.contains(Flags::PERMIT_ACCESS)
                || seen & 3 != Flags::PERMIT_ACCESS.bits()
                || entry.domid.load(Acquire) != peer.0
            {
                return Err(GrantError::BadReference);
            }
            if access == Access::Write && flags.contains(Flags::READONLY) {
                return Err(GrantError::General);
            }
            match entry.flags.compare_exchange(seen, seen | marks.bits(), AcqRel, Acquire) {
                Ok(_) => break,
                Err(now) => seen = now,
            }
        }
        let mut pins = self.pins.borrow_mut();
        // While an entry is in use, Xen goes by what it read the first time.
        let frame = pins
            .0
            .get(&reference.0)
            .map_or_else(|| entry.frame.load(Acquire), |pin| pin.gfn);
        let Some(page) = self.memory.borrow().find(Gfn(u64::from(frame))) else {
            if !pins.0.contains_key(&reference.0) {
                entry.flags.fetch_and(!(Flags::READING | Flags::WRITING).bits(), AcqRel);
            }
            return Err(GrantError::BadPage);
        };
        let pin = pins.0.entry(reference.0).or_insert(Pin {
            peer,
            gfn: frame,
            readers: 0,
            writers: 0,
        });
        match access {
            Access::Read => pin.readers += 1,
            Access::Write => pin.writers += 1,
        }
        Ok(page)
    }

    /// Ends one use. Returns false if the granter took the grant back in the meantime, which only a granter that
    /// ignores the flags can.
    fn unpin(&self, reference: GrantRef, access: Access) -> bool {
        let mut pins = self.pins.borrow_mut();
        let Some(pin) = pins.0.get_mut(&reference.0) else {
            return false;
        };
        match access {
            Access::Read => pin.readers -= 1,
            Access::Write => pin.writers -= 1,
        }
        let (none_left, no_writers, gfn) = (pin.readers == 0 && pin.writers == 0, pin.writers == 0, pin.gfn);
        if none_left {
            pins.0.remove(&reference.0);
        }
        let Some(entry) = self.entry(reference) else {
            return false;
        };
        let mut marks = Flags::empty();
        if no_writers {
            marks |= Flags::WRITING;
        }
        if none_left {
            marks |= Flags::READING;
        }
        let before = Flags::from_bits_retain(entry.flags.fetch_and(!marks.bits(), AcqRel));
        before.contains(Flags::PERMIT_ACCESS | Flags::READING) && entry.frame.load(Acquire) == gfn
    }
}

/// A page of another domain, mapped: the same memory. Unmapped when dropped.
pub struct Mapping {
    peer: Domain,
    granter: Rc<DomainState>,
    /// The granter's, when it was mapped. The page of a domain that was restored since is a page of the old one's.
    incarnation: u32,
    reference: GrantRef,
    access: Access,
    run: Rc<Run>,
    index: usize,
}

impl Mapping {
    /// The page itself.
    #[must_use]
    pub fn page(&self) -> &SharedPage {
        self.run.page(self.index)
    }

    /// The reference it was mapped by.
    #[must_use]
    pub const fn reference(&self) -> GrantRef {
        self.reference
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        let is_same = self.incarnation == self.granter.incarnation.get();
        if is_same && !self.granter.unpin(self.reference, self.access) {
            let granter = self.granter.id();
            self.peer.machine.violation(format!(
                "{granter} took back grant {} while {} still had it mapped",
                self.reference,
                self.peer.id()
            ));
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Mapping of {} grant {} ({:?})",
            self.granter.id(),
            self.reference,
            self.access
        )
    }
}

impl Domain {
    /// `GNTTABOP_map_grant_ref`: the page that `granter` granted to this domain under `reference`.
    ///
    /// # Errors
    /// As Xen's: see [`GrantError`].
    pub fn map_grant(&self, granter: DomId, reference: GrantRef, access: Access) -> Result<Mapping, GrantError> {
        let granter = self.machine.domain(granter).ok_or(GrantError::BadDomain)?;
        let (run, index) = granter.pin(self.id(), reference, access)?;
        self.machine.note(0x6, u64::from(reference.0));
        Ok(Mapping {
            peer: self.clone(),
            incarnation: granter.incarnation.get(),
            granter,
            reference,
            access,
            run,
            index,
        })
    }

    /// `GNTTABOP_map_grant_ref` as a driver asks for it, at a place of the hypervisor's choice.
    pub(crate) fn map_foreign(&self, granter: DomId, reference: GrantRef) -> Result<ForeignPage, GrantError> {
        let full = self.state.foreign.borrow().len() >= FOREIGN_PAGES_MAX;
        if full || self.state.faults.consult(Call::MapGrant).is_some() {
            return Err(GrantError::NoSpace);
        }
        let mapping = self.map_grant(granter, reference, Access::Write)?;
        Ok(self.state.foreign.borrow_mut().add(mapping))
    }

    /// `GNTTABOP_unmap_grant_ref`.
    pub(crate) fn unmap_foreign(&self, page: ForeignPage) -> Result<(), GrantError> {
        let mapping = self.state.foreign.borrow_mut().mapped.remove(&page.handle);
        match mapping {
            Some(mapping) if NonNull::from(mapping.page()) == page.page => Ok(()),
            _ => {
                self.machine
                    .violation(format!("{self:?} unmapped {page:?}, which is not mapped"));
                Err(GrantError::BadHandle)
            }
        }
    }

    /// Ends all mappings, as Xen does when the domain ends.
    pub(crate) fn unmap_all(&self) {
        let mapped = std::mem::take(&mut self.state.foreign.borrow_mut().mapped);
        drop(mapped);
    }

    /// `GNTTABOP_copy` from a granted page.
    ///
    /// # Errors
    /// As Xen's: see [`GrantError`].
    pub fn copy_from_grant(
        &self,
        granter: DomId,
        reference: GrantRef,
        offset: usize,
        to: &mut [u8],
    ) -> Result<(), GrantError> {
        within_page(offset, to.len())?;
        let page = self.map_grant(granter, reference, Access::Read)?;
        page.page().read(offset, to);
        Ok(())
    }

    /// `GNTTABOP_copy` to a granted page.
    ///
    /// # Errors
    /// As Xen's: see [`GrantError`].
    pub fn copy_to_grant(
        &self,
        granter: DomId,
        reference: GrantRef,
        offset: usize,
        from: &[u8],
    ) -> Result<(), GrantError> {
        within_page(offset, from.len())?;
        let page = self.map_grant(granter, reference, Access::Write)?;
        page.page().write(offset, from);
        Ok(())
    }
}

fn within_page(offset: usize, len: usize) -> Result<(), GrantError> {
    match offset.checked_add(len) {
        Some(end) if end <= PAGE_SIZE => Ok(()),
        _ => Err(GrantError::BadCopyArgument),
    }
}
