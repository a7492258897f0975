//! Pages that a peer may reach.

use alloc::vec::Vec;
use core::borrow::Borrow;
use core::fmt;
use core::ptr::NonNull;
use core::slice;
use core::sync::atomic::Ordering;

use fata_hypercall::abi::grant_table::{EntryV1, Flags};
use fata_hypercall::{DomId, GrantRef, Hypervisor, PAGE_SIZE, SharedPage};

use crate::table::end_access;
use crate::{Busy, Pages, Table};

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::ReadOnly {}
    impl Sealed for super::ReadWrite {}
}

/// What a peer may do with a shared page: [`ReadOnly`] or [`ReadWrite`].
pub trait Access: sealed::Sealed + 'static {
    /// What the entry in the grant table says.
    const FLAGS: Flags;
}

/// The peer may read. Only we write, so the bytes can be borrowed: [`Shared::bytes_mut`].
#[derive(Clone, Copy, Debug)]
pub struct ReadOnly;

/// The peer may read and write, so the bytes can be copied in and out but not borrowed: [`Shared::page`].
#[derive(Clone, Copy, Debug)]
pub struct ReadWrite;

impl Access for ReadOnly {
    const FLAGS: Flags = Flags::PERMIT_ACCESS.union(Flags::READONLY);
}

impl Access for ReadWrite {
    const FLAGS: Flags = Flags::PERMIT_ACCESS;
}

/// A run of pages that a peer may reach, one grant reference for each.
///
/// Dropped, the pages are revoked and freed; those that the peer still maps go to the table's quarantine instead.
///
/// Pages that the peer may write cannot be borrowed as bytes:
///
/// ```compile_fail
/// # use fata_grant::{ReadWrite, Shared};
/// # use fata_hypercall::Hypervisor;
/// fn rule_06_writable_pages_are_not_borrowed<H: Hypervisor>(shared: &Shared<H, ReadWrite>) -> &[u8] {
///     shared.bytes()
/// }
/// ```
///
/// A `Shared` of one page with [`ReadWrite`] is what a [`FrontRing`](crate::FrontRing) lives in: it can be borrowed
/// as its (first) page.
pub struct Shared<H: Hypervisor, A: Access> {
    table: Table<H>,
    first: NonNull<SharedPage>,
    references: Vec<GrantRef>,
    /// Their entries in the table, looked up once: [`reclaim`](Self::reclaim) and [`regrant`](Self::regrant) are the hot path.
    entries: Vec<NonNull<EntryV1>>,
    /// `None` only once revoked, inside `revoke` and `drop`.
    pages: Option<Pages<H>>,
    /// The table's, when the pages were shared.
    generation: u32,
    peer: DomId,
    _access: A,
}

impl<H: Hypervisor, A: Access> Shared<H, A> {
    pub(crate) fn new(
        table: Table<H>,
        pages: Pages<H>,
        references: Vec<GrantRef>,
        entries: Vec<NonNull<EntryV1>>,
        peer: DomId,
        access: A,
    ) -> Self {
        Self {
            generation: table.0.generation.get(),
            table,
            first: pages.first(),
            references,
            entries,
            pages: Some(pages),
            peer,
            _access: access,
        }
    }

    /// How many pages there are; never 0.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.references.len()
    }

    /// The references by which the peer names the pages, in their order.
    #[must_use]
    pub fn references(&self) -> &[GrantRef] {
        &self.references
    }

    /// The reference of one page.
    ///
    /// # Panics
    /// If there is no such page.
    #[must_use]
    #[allow(clippy::indexing_slicing, reason = "documented: the index is the caller's own")]
    pub fn reference(&self, page: usize) -> GrantRef {
        self.references[page]
    }

    /// Who may reach the pages.
    #[must_use]
    pub fn peer(&self) -> DomId {
        self.peer
    }

    /// Takes the pages back. Their bytes are as the peer left them.
    ///
    /// # Errors
    /// [`Busy`] if the peer still maps one: then the whole run is in the table's quarantine.
    pub fn revoke(mut self) -> Result<Pages<H>, Busy> {
        self.end().unwrap_or(Err(Busy))
    }

    fn end(&mut self) -> Option<Result<Pages<H>, Busy>> {
        let references = core::mem::take(&mut self.references);
        self.pages.take().map(|pages| self.table.end(pages, references))
    }

    fn all(&self) -> &[SharedPage] {
        // SAFETY: the run was allocated with this many pages and lives as long as `self`; a SharedPage makes no
        // claim about who else reads or writes it.
        unsafe { slice::from_raw_parts(self.first.as_ptr(), self.references.len()) }
    }
}

impl<H: Hypervisor> Shared<H, ReadOnly> {
    /// The bytes of all pages. The peer sees them too, but cannot change them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the run has this length and lives as long as `self`. Xen lets the peer only read, so nobody writes
        // while `self` is borrowed.
        unsafe { slice::from_raw_parts(self.first.as_ptr().cast(), self.references.len() * PAGE_SIZE) }
    }

    /// The bytes of all pages, for writing. The peer may see every step of it.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; `self` is borrowed exclusively, and the peer, which is no part of this program, only
        // reads.
        unsafe { slice::from_raw_parts_mut(self.first.as_ptr().cast(), self.references.len() * PAGE_SIZE) }
    }
}

impl<H: Hypervisor> Shared<H, ReadWrite> {
    /// One page, to copy from and to.
    ///
    /// # Panics
    /// If there is no such page.
    #[must_use]
    #[allow(clippy::indexing_slicing, reason = "documented: the index is the caller's own")]
    pub fn page(&self, index: usize) -> &SharedPage {
        &self.all()[index]
    }

    /// Ends the peer's access to one page: until [`regrant`](Self::regrant) its bytes are ours. A page that is ours
    /// already is simply borrowed again.
    ///
    /// This is the receive path: it costs one compare-and-swap, no hypercall and no allocation.
    ///
    /// # Errors
    /// [`Busy`] if the peer still maps the page. It stays shared.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn reclaim(&mut self, index: usize) -> Result<&mut [u8; PAGE_SIZE], Busy> {
        end_access(self.entry(index))?;
        // SAFETY: there is an entry for each page of the run, so the index is inside it.
        let mut page = unsafe { self.first.add(index) };
        // SAFETY: the entry is empty, so no peer reaches the page. Only `regrant` fills it again, and that needs
        // `self` exclusively, which the slice has borrowed; so nobody here reaches the page either.
        let page = unsafe { page.as_mut() };
        Ok(page.get_mut())
    }

    /// Lets the peer reach a reclaimed page again, under the same reference: one store. After the domain was
    /// [restored](Table::resume) it does nothing, for that peer does not exist any more.
    ///
    /// # Panics
    /// If there is no such page.
    pub fn regrant(&mut self, index: usize) {
        let entry = self.entry(index);
        // Domain and frame are still in the entry, unless Xen has emptied the table. Release: our last use of the bytes comes
        // before the permission.
        if entry.flags.load(Ordering::Relaxed) == 0 && self.generation == self.table.0.generation.get() {
            entry.flags.store(ReadWrite::FLAGS.bits(), Ordering::Release);
        }
    }

    #[allow(clippy::indexing_slicing, reason = "documented: the index is the caller's own")]
    fn entry(&self, index: usize) -> &EntryV1 {
        // SAFETY: the entry is in a frame of `self.table`, which stays as long as the hypervisor's handle in there, and so as
        // long as `self`. Entries are atomics and may be shared.
        unsafe { self.entries[index].as_ref() }
    }
}

impl<H: Hypervisor> Borrow<SharedPage> for Shared<H, ReadWrite> {
    fn borrow(&self) -> &SharedPage {
        self.page(0)
    }
}

impl<H: Hypervisor, A: Access> Drop for Shared<H, A> {
    fn drop(&mut self) {
        // Busy or not: the table has taken care of the pages.
        let _ = self.end();
    }
}

impl<H: Hypervisor, A: Access> fmt::Debug for Shared<H, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Shared({:p} + {} with {})",
            self.first,
            self.references.len(),
            self.peer
        )
    }
}
