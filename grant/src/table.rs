//! The grant table (xen/include/public/grant_table.h, version 1).

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::mem;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use fata_hypercall::abi::grant_table::{EntryV1, Flags, RESERVED_ENTRIES};
use fata_hypercall::{DomId, GrantRef, Hypervisor, SharedPage};

use crate::{Access, Busy, Error, Pages, ShareError, Shared};

/// How often a compare-and-swap on an entry is tried before the page counts as busy. Only a peer that maps and
/// unmaps at that very moment can make one fail.
const TRIES: usize = 16;
/// The most pages of a peer's that may be in quarantine when a connection with it is made.
const QUARANTINE_LIMIT: usize = 256;

/// Numbers about a [`Table`]; `in_use`, `free` and `quarantined` count references, of
/// which every shared page has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Pages of 512 entries that the table has.
    pub frames: u32,
    /// Pages that it may have.
    pub max_frames: u32,
    /// References in use, those in quarantine not counted.
    pub in_use: usize,
    /// References that can be given out before the table has to grow.
    pub free: usize,
    /// References whose page a peer did not let go.
    pub quarantined: usize,
    /// Pages that are kept on account of them: a run stays whole.
    pub quarantined_pages: usize,
}

/// The grant table of a domain: a cheap handle, all clones of which are the same table.
///
/// It grows page by page, up to what Xen allows. Giving out and taking back a reference is O(1) and allocates
/// nothing.
///
/// A page that its peer still maps when it is revoked goes to *quarantine*: neither the page nor its reference is
/// used again until [`retry_quarantine`](Self::retry_quarantine) has revoked it.
pub struct Table<H: Hypervisor>(pub(crate) Rc<Inner<H>>);

pub(crate) struct Inner<H: Hypervisor> {
    hv: H,
    max_frames: u32,
    /// The table itself. Points into what `hv` handed out, which stays as long as `hv` does.
    frames: RefCell<Vec<NonNull<[EntryV1; EntryV1::PER_PAGE]>>>,
    free: RefCell<Vec<GrantRef>>,
    quarantine: RefCell<Quarantine<H>>,
    /// There is a [`Tender`].
    tended: Cell<bool>,
    /// References that exist, less those that belong to the toolstack.
    total: Cell<usize>,
    /// How often the domain was restored: what was shared before is not any more.
    pub(crate) generation: Cell<u32>,
}

/// Who tries again what is in quarantine. There is one at a time.
#[derive(Debug)]
pub struct Tender<H: Hypervisor>(Table<H>);

impl<H: Hypervisor> Tender<H> {
    /// See [`Table::retry_quarantine`].
    #[must_use]
    pub fn retry(&self) -> usize {
        self.0.retry_quarantine()
    }
}

impl<H: Hypervisor> Drop for Tender<H> {
    fn drop(&mut self) {
        self.0.0.tended.set(false);
    }
}

/// Room for what a shared run knows of each of its pages.
#[derive(Default)]
struct Room {
    references: Vec<GrantRef>,
    entries: Vec<NonNull<EntryV1>>,
}

/// What peers did not let go. It is never freed, only emptied.
struct Quarantine<H: Hypervisor> {
    /// Shared runs that live, for each of which there is room here: revoking allocates nothing.
    live: usize,
    held: Vec<Held<H>>,
}

/// One run of pages, of which at least one is still mapped.
struct Held<H: Hypervisor> {
    pages: Pages<H>,
    references: Vec<GrantRef>,
}

impl<H: Hypervisor> Table<H> {
    /// The table of `hv`'s domain. Nothing is allocated before the first share.
    ///
    /// # Panics
    /// If the domain has a `Table` already: two of them would give out the same references.
    #[must_use]
    pub fn new(hv: H) -> Self {
        Self::with_limit(hv, u32::MAX)
    }

    /// The same, that never grows beyond `max_frames` pages of 512 entries.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub fn with_limit(hv: H, max_frames: u32) -> Self {
        assert!(hv.claim_grant_table(), "the domain's grant table has an owner");
        Self(Rc::new(Inner {
            max_frames: hv.grant_max_frames().min(max_frames),
            hv,
            frames: RefCell::default(),
            free: RefCell::default(),
            quarantine: RefCell::new(Quarantine {
                live: 0,
                held: Vec::new(),
            }),
            tended: Cell::new(false),
            total: Cell::new(0),
            generation: Cell::new(0),
        }))
    }

    /// Goes on in a new Xen domain ([`Suspended::Restored`](fata_hypercall::Suspended::Restored)), whose table is empty: no
    /// peer reaches any page of ours.
    ///
    /// What is [`Shared`] stays so in these books, until its owner drops it: every entry is as if it had been revoked, and
    /// none is granted again. The quarantine is over.
    pub fn resume(&self) {
        self.0.generation.set(self.0.generation.get().wrapping_add(1));
        self.retry_quarantine();
    }

    /// The domain that the table belongs to.
    #[must_use]
    pub fn hypervisor(&self) -> &H {
        &self.0.hv
    }

    /// Lets `peer` reach `pages`, one reference for each. Pages that another domain could read before are zeroed.
    ///
    /// # Errors
    /// [`ShareError`] with the pages in it, if there are not enough references.
    ///
    /// ```no_run
    /// # use fata_grant::{Error, Pages, ReadWrite, Table};
    /// # use fata_hypercall::{DomId, GrantRef, Hypervisor};
    /// fn share_a_ring<H: Hypervisor>(hv: &H, table: &Table<H>) -> Result<GrantRef, Error> {
    ///     let pages = Pages::alloc(hv, 1)?;
    ///     let ring = table.share(pages, DomId::DOM0, ReadWrite)?;
    ///     Ok(ring.reference(0)) // what the backend is told
    /// }
    /// ```
    pub fn share<A: Access>(&self, mut pages: Pages<H>, peer: DomId, access: A) -> Result<Shared<H, A>, ShareError<H>> {
        let Room {
            mut references,
            mut entries,
        } = match self.prepare(&pages) {
            Ok(room) => room,
            Err(error) => return Err(ShareError { error, pages }),
        };
        if pages.seen_by.is_some_and(|seen| seen != peer) {
            pages.as_mut_slice().fill(0);
        }
        pages.seen_by = Some(peer);

        self.0.take(&mut references, pages.len());
        for (index, &reference) in references.iter().enumerate() {
            let entry = self.0.entry(reference);
            entry.domid.store(peer.0, Ordering::Relaxed);
            entry
                .frame
                .store(self.0.frame_of(&pages, index).unwrap_or(0), Ordering::Relaxed);
            // Whatever is in the page, and the other two fields, come before the permission.
            entry.flags.store(A::FLAGS.bits(), Ordering::Release);
            entries.push(NonNull::from(entry));
        }
        Ok(Shared::new(self.clone(), pages, references, entries, peer, access))
    }

    /// Shares `count` fresh pages of zeroes.
    ///
    /// # Errors
    /// [`Error`] if there are no pages or no references.
    pub fn share_zeroed<A: Access>(&self, count: usize, peer: DomId, access: A) -> Result<Shared<H, A>, Error> {
        Ok(self.share(Pages::alloc(&self.0.hv, count)?, peer, access)?)
    }

    /// Makes the table grow until `count` references are free, so that sharing that many pages cannot fail for want
    /// of them.
    ///
    /// # Errors
    /// [`Error::Exhausted`], [`Error::Grow`], [`Error::NoMemory`].
    pub fn reserve(&self, count: usize) -> Result<(), Error> {
        while self.0.free.borrow().len() < count {
            self.0.grow(count)?;
        }
        Ok(())
    }

    /// Tries again to revoke what is in quarantine; [`share`](Self::share) does so too. Returns how many references remain.
    pub fn retry_quarantine(&self) -> usize {
        let mut quarantine = self.0.quarantine.borrow_mut();
        quarantine.held.retain_mut(|run| {
            self.0.revoke(&mut run.references);
            !run.references.is_empty()
        });
        quarantine.references()
    }

    /// Whether another connection may be made with a peer. One that keeps a page of each would have all of our memory in the end.
    ///
    /// # Errors
    /// [`Error::Quarantine`] if more than 256 pages are in quarantine on its account.
    pub fn check_quarantine(&self, peer: DomId) -> Result<(), Error> {
        let quarantine = self.0.quarantine.borrow();
        let of_peer = quarantine.held.iter().filter(|run| run.pages.seen_by == Some(peer));
        match of_peer.map(|run| run.pages.len()).sum() {
            0..=QUARANTINE_LIMIT => Ok(()),
            pages => Err(Error::Quarantine { peer, pages }),
        }
    }

    /// The task of trying again what is in quarantine, for one who has it until he drops it. `None` if there is nothing to do, or
    /// somebody has it already.
    #[must_use]
    pub fn tend_quarantine(&self) -> Option<Tender<H>> {
        let idle = self.0.quarantine.borrow().held.is_empty() || self.0.tended.replace(true);
        (!idle).then(|| Tender(self.clone()))
    }

    /// How full the table is.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let free = self.0.free.borrow().len();
        let quarantine = self.0.quarantine.borrow();
        let quarantined = quarantine.references();
        Stats {
            frames: self.0.frames.borrow().len() as u32,
            max_frames: self.0.max_frames,
            in_use: self.0.total.get() - free - quarantined,
            free,
            quarantined,
            quarantined_pages: quarantine.held.iter().map(|run| run.pages.len()).sum(),
        }
    }

    /// Everything that can fail about sharing `pages`, so that nothing is half done.
    fn prepare(&self, pages: &Pages<H>) -> Result<Room, Error> {
        for index in 0..pages.len() {
            self.0.frame_of(pages, index)?;
        }
        // What a peer has let go meanwhile comes back when something new is shared, which is never in a hurry.
        self.retry_quarantine();
        self.reserve(pages.len())?;
        let mut room = Room::default();
        let Room { references, entries } = &mut room;
        references.try_reserve_exact(pages.len()).map_err(|_| Error::NoMemory)?;
        entries.try_reserve_exact(pages.len()).map_err(|_| Error::NoMemory)?;
        let mut quarantine = self.0.quarantine.borrow_mut();
        let live = quarantine.live + 1;
        quarantine.held.try_reserve(live).map_err(|_| Error::NoMemory)?;
        quarantine.live = live;
        Ok(room)
    }

    /// Revokes a run as a whole. If a page is busy the run goes to quarantine.
    pub(crate) fn end(&self, pages: Pages<H>, mut references: Vec<GrantRef>) -> Result<Pages<H>, Busy> {
        self.0.revoke(&mut references);
        let mut quarantine = self.0.quarantine.borrow_mut();
        quarantine.live -= 1;
        if references.is_empty() {
            return Ok(pages);
        }
        quarantine.held.push(Held { pages, references });
        Err(Busy)
    }
}

impl<H: Hypervisor> Inner<H> {
    #[allow(
        clippy::indexing_slicing,
        reason = "only references that the table gave out get here"
    )]
    fn entry(&self, reference: GrantRef) -> &EntryV1 {
        let index = reference.0 as usize;
        let frame = self.frames.borrow()[index / EntryV1::PER_PAGE];
        // SAFETY: the pointer was a reference borrowed from `self.hv`, which neither moves (it is in an Rc) nor
        // changes, so that borrow could have lasted as long as `self`. Entries are atomics and may be shared.
        let frame = unsafe { frame.as_ref() };
        &frame[index % EntryV1::PER_PAGE]
    }

    fn frame_of(&self, pages: &Pages<H>, index: usize) -> Result<u32, Error> {
        let page: NonNull<SharedPage> = pages.first();
        // SAFETY: the caller's index is below the run's length, so the page is inside one allocation.
        let page = unsafe { page.add(index) };
        // SAFETY: the page lives as long as `pages`; a SharedPage may be borrowed while others use it.
        let gfn = self.hv.gfn_of(unsafe { page.as_ref() });
        u32::try_from(gfn.0).map_err(|_| Error::TooHigh(gfn))
    }

    /// Adds one page of entries.
    #[allow(clippy::indexing_slicing, reason = "as long as it is counted")]
    fn grow(&self, wanted: usize) -> Result<(), Error> {
        let mut frames = self.frames.borrow_mut();
        let mut free = self.free.borrow_mut();
        let index = frames.len() as u32;
        if index >= self.max_frames {
            return Err(Error::Exhausted {
                wanted,
                free: free.len(),
            });
        }
        frames.try_reserve(1).map_err(|_| Error::NoMemory)?;
        // Room for every reference there will be, so that giving one back never allocates.
        let total = (index as usize + 1) * EntryV1::PER_PAGE;
        let missing = total - free.len();
        free.try_reserve(missing).map_err(|_| Error::NoMemory)?;

        // SAFETY: we have claimed the table, and grant only what the callers' types allow: see `share`.
        let entries = unsafe { self.hv.grant_frame(index) }.map_err(Error::Grow)?;
        frames.push(NonNull::from(entries));
        let base = index * EntryV1::PER_PAGE as u32;
        let before = free.len();
        // Backwards, so that they are given out in order. An entry that is not empty is somebody else's: the
        // toolstack's, or left by a kernel that ran before us.
        free.extend(
            (0..EntryV1::PER_PAGE as u32)
                .rev()
                .filter(|&i| base + i >= RESERVED_ENTRIES && entries[i as usize].flags.load(Ordering::Relaxed) == 0)
                .map(|i| GrantRef(base + i)),
        );
        self.total.set(self.total.get() + free.len() - before);
        Ok(())
    }

    /// Takes `count` references, which the caller has reserved, into `references`, which has room.
    fn take(&self, references: &mut Vec<GrantRef>, count: usize) {
        let mut free = self.free.borrow_mut();
        let rest = free.len() - count;
        references.extend(free.drain(rest..).rev());
    }

    /// Ends access to as many references as possible, and leaves the busy ones.
    fn revoke(&self, references: &mut Vec<GrantRef>) {
        let mut free = self.free.borrow_mut();
        references.retain(|&reference| {
            let busy = end_access(self.entry(reference)).is_err();
            if !busy {
                free.push(reference);
            }
            busy
        });
    }
}

impl<H: Hypervisor> Drop for Inner<H> {
    fn drop(&mut self) {
        // Whatever was shared holds a handle of the table, so nothing is, except what is in quarantine: entries of a next
        // table that are not empty are not given out.
        self.hv.release_grant_table();
    }
}

impl<H: Hypervisor> Quarantine<H> {
    fn references(&self) -> usize {
        self.held.iter().map(|run| run.references.len()).sum()
    }
}

impl<H: Hypervisor> Drop for Quarantine<H> {
    fn drop(&mut self) {
        // The table is gone and nobody will ever ask again: what a peer may still write to stays taken for ever.
        for run in mem::take(&mut self.held) {
            mem::forget(run.pages);
        }
    }
}

impl<H: Hypervisor> Clone for Table<H> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<H: Hypervisor> fmt::Debug for Table<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}

/// Takes the permission back. Only a compare-and-swap that succeeds proves that the peer does not use the page: to
/// look first and revoke then is a race (XSA-396).
pub(crate) fn end_access(entry: &EntryV1) -> Result<(), Busy> {
    let mut flags = entry.flags.load(Ordering::Acquire);
    if flags == 0 {
        return Ok(());
    }
    for _ in 0..TRIES {
        if Flags::from_bits_retain(flags).intersects(Flags::READING | Flags::WRITING) {
            return Err(Busy);
        }
        // Acquire: what the peer wrote is visible to whoever reads the page after this.
        match entry
            .flags
            .compare_exchange(flags, 0, Ordering::AcqRel, Ordering::Relaxed)
        {
            Ok(_) => return Ok(()),
            Err(now) => flags = now,
        }
    }
    Err(Busy)
}
