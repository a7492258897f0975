//! The one gate between a driver and the machine.

use core::ptr::NonNull;

use crate::abi::event_fifo::{ControlBlock, EventWords};
use crate::abi::grant_table::EntryV1;
use crate::abi::shared_info::SharedInfo;
use crate::{DomId, Errno, Gfn, GrantError, GrantRef, Port, SharedPage, SystemTime};

/// Why a domain stops (`SHUTDOWN_*`, xen/include/public/sched.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ShutdownReason {
    /// The work is done; the toolstack destroys the domain (`on_poweroff`).
    PowerOff = 0,
    /// Start again (`on_reboot`).
    Reboot = 1,
    /// Something is broken; the toolstack may keep the domain for a look (`on_crash`).
    Crash = 3,
}

/// How a domain that had suspended itself goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suspended {
    /// Where it was: the toolstack only took a copy, or gave up. All is as before.
    Cancelled,
    /// In a new Xen domain, on this host or another (`xl restore`, `xl migrate`). Its memory and registers are what they
    /// were; all that Xen and others kept for the old domain is gone, see [`Hypervisor::suspend`].
    Restored,
}

/// Xen's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// 4 in 4.17.
    pub major: u16,
    /// 17 in 4.17.
    pub minor: u16,
}

/// A page and a port that the toolstack set up before the domain's first instruction: the console's or xenstore's.
#[derive(Clone, Copy, Debug)]
pub struct ServiceRing<'a> {
    /// The ring's page, shared with the service.
    pub page: &'a SharedPage,
    /// The event channel to the service.
    pub port: Port,
}

/// A page of another domain that is mapped here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignPage {
    /// Where it is.
    pub page: NonNull<SharedPage>,
    /// By which Xen knows the mapping (`grant_handle_t`).
    pub handle: u32,
}

/// What a driver may ask of the machine it runs on.
///
/// An implementation is a handle: cheap to clone, and every clone is the same domain. All methods are safe; what
/// they hand out is memory that outlives the handle or borrows from it. None of them blocks, except that
/// [`poll`](Hypervisor::poll) may.
///
/// # Safety
/// The safety of pages shared with other domains rests on what an implementation does:
///
/// * [`alloc_pages`](Hypervisor::alloc_pages) gives memory that nothing else uses, zeroed, until it is freed.
/// * [`grant_frame`](Hypervisor::grant_frame) gives the table that the peers' access really goes through, and so does
///   each clone of the handle. The table stays where it is as long as any clone lives.
/// * [`gfn_of`](Hypervisor::gfn_of) names the very page that it is given.
/// * [`map_grant`](Hypervisor::map_grant) gives a page that is there, and at a place of its own, until
///   [`unmap_grant`](Hypervisor::unmap_grant) has succeeded.
///
/// Numbers that Xen returned are passed on as they are: callers check them.
pub unsafe trait Hypervisor: Clone + 'static {
    // Memory

    /// Takes `count` contiguous pages of zeroes; `None` when there are none.
    fn alloc_pages(&self, count: usize) -> Option<NonNull<SharedPage>>;

    /// Gives pages back.
    ///
    /// # Safety
    /// `first` and `count` are those of one [`alloc_pages`](Hypervisor::alloc_pages) call, no reference to the
    /// pages remains, and no peer can reach them any more.
    unsafe fn free_pages(&self, first: NonNull<SharedPage>, count: usize);

    /// The number by which Xen knows a page. It need not be mapped for anybody else.
    fn gfn_of(&self, page: &SharedPage) -> Gfn;

    // What the toolstack prepared

    /// The console ring of this domain, if it has one.
    fn console_ring(&self) -> Option<ServiceRing<'_>>;

    /// The xenstore ring of this domain, if it has one.
    fn store_ring(&self) -> Option<ServiceRing<'_>>;

    /// Xen's version; `None` if it does not say.
    fn version(&self) -> Option<Version>;

    // Time

    /// The page of pending bits, clocks and wall time that Xen keeps for the domain.
    fn shared_info(&self) -> &SharedInfo;

    /// The time-stamp counter that the clock in [`shared_info`](Hypervisor::shared_info) is told in.
    fn tsc(&self) -> u64;

    // Event channels (xen/include/public/event_channel.h)

    /// `EVTCHNOP_alloc_unbound`: a new port that `remote` may bind to.
    ///
    /// # Errors
    /// `ENOSPC` when all ports are taken; whatever else Xen says.
    fn evtchn_alloc_unbound(&self, remote: DomId) -> Result<Port, Errno>;

    /// `EVTCHNOP_bind_interdomain`: a new port that is connected to a port which `remote` left unbound for us. The new port
    /// is pending at once.
    ///
    /// # Errors
    /// `ESRCH` if there is no such domain, `EINVAL` if its port is not unbound for us, `ENOSPC` when all of ours are taken;
    /// whatever else Xen says.
    fn evtchn_bind_interdomain(&self, remote: DomId, remote_port: Port) -> Result<Port, Errno> {
        let _ = (remote, remote_port);
        Err(Errno::ENOSYS)
    }

    /// `EVTCHNOP_close`.
    ///
    /// # Errors
    /// `EINVAL` if the port is not open.
    fn evtchn_close(&self, port: Port) -> Result<(), Errno>;

    /// `EVTCHNOP_send`: signals the other end.
    ///
    /// # Errors
    /// `EINVAL` if the port is not open. A port whose other end has gone is no error.
    fn evtchn_send(&self, port: Port) -> Result<(), Errno>;

    /// `EVTCHNOP_status`: whether the port is connected to one of another domain. It is not before that domain binds to it,
    /// and no longer once the other port was closed, of which nothing else tells.
    ///
    /// # Errors
    /// `EINVAL` if the port cannot be; whatever else Xen says.
    fn evtchn_is_connected(&self, port: Port) -> Result<bool, Errno> {
        let _ = port;
        Err(Errno::ENOSYS)
    }

    /// `EVTCHNOP_init_control` and `EVTCHNOP_expand_array`: from now on events come by the FIFO form, and there are at least
    /// `pages` pages of event words, for 1024 ports each. To be called again for more. There is no way back, except that a
    /// domain that is [restored](Suspended::Restored) begins with the two-level form.
    ///
    /// Every port is masked at first. What was pending before is pending afterwards; an event that comes in this very moment
    /// may leave its bit in [`shared_info`](Hypervisor::shared_info).
    ///
    /// # Errors
    /// `ENOSYS` if there is no such form, which is the default; `ENOMEM` if there is no memory for the words; whatever else
    /// Xen says. Then the form is the one that it was.
    fn evtchn_use_fifo(&self, pages: usize) -> Result<(), Errno> {
        let _ = pages;
        Err(Errno::ENOSYS)
    }

    /// Where the lists of the FIFO form begin; `None` while the domain uses the two-level form.
    fn evtchn_control(&self) -> Option<&ControlBlock> {
        None
    }

    /// The `index`th page of the FIFO form's words; `None` if there is none. The same index gives the same page.
    fn evtchn_words(&self, index: usize) -> Option<&EventWords> {
        let _ = index;
        None
    }

    // Scheduling (xen/include/public/sched.h)

    /// `SCHEDOP_poll`: sleeps until one of `ports` is pending, another port becomes pending, or `deadline` has
    /// passed. Xen's time is signed, so a deadline above `i64::MAX` has. It may return early for no reason. Xen takes 128
    /// ports at most; the first 128 are used.
    fn poll(&self, ports: &[Port], deadline: Option<SystemTime>);

    /// `SCHEDOP_shutdown`. On metal it does not come back.
    fn shutdown(&self, reason: ShutdownReason);

    /// `SCHEDOP_shutdown` with `SHUTDOWN_suspend`: stands still until the toolstack lets the domain go on.
    ///
    /// After [`Suspended::Restored`] event channels are closed, but for new ones to console and xenstore, whose rings have
    /// to be asked for again; the grant table is empty, with its pages where they were; masks, clocks and the wall clock in
    /// [`shared_info`](Hypervisor::shared_info), which is where it was, are other ones; xenstore has forgotten watches and
    /// transactions, and the domain may have another number.
    ///
    /// That is what a toolstack makes of a domain that says it was restored, and all of `xl`'s do. One that has the old domain go on
    /// with that answer (`xc_domain_resume` with `fast` = 0) leaves event channels as they were: in the FIFO form, if they had it,
    /// while we begin with the two-level form and hear nothing.
    ///
    /// # Errors
    /// Xen refuses to suspend the domain: all is as before. `EBUSY` while a page of another domain is
    /// [mapped](Hypervisor::map_grant), which could not come along. `ENOSYS` from what cannot do it at all, which is the default.
    fn suspend(&self) -> Result<Suspended, Errno> {
        Err(Errno::ENOSYS)
    }

    // Grant table (xen/include/public/grant_table.h), version 1

    /// How many pages of 512 entries the grant table may grow to.
    fn grant_max_frames(&self) -> u32;

    /// Makes the caller the owner of the grant table; `false` if it has one already. One owner hands out the entries,
    /// so that nobody opens a page that somebody else has just closed.
    fn claim_grant_table(&self) -> bool;

    /// Ends what [`claim_grant_table`](Hypervisor::claim_grant_table) began. What is granted stays granted.
    fn release_grant_table(&self);

    /// The `index`th page of the grant table, made to exist if need be. The same index gives the same page.
    ///
    /// # Errors
    /// Whatever Xen says when the table cannot grow.
    ///
    /// # Safety
    /// Writing to an entry lets another domain read or write memory. Only the owner of the table writes to it, and
    /// grants only pages of which it knows that nobody here relies on what the peer may do to them.
    unsafe fn grant_frame(&self, index: u32) -> Result<&[EntryV1; EntryV1::PER_PAGE], Errno>;

    /// `GNTTABOP_map_grant_ref`: makes the page that `granter` has granted us under `reference` visible here, for reading
    /// and writing.
    ///
    /// The page stays, whatever the granter does, even if its domain ends. Only a suspend of our own domain takes it away:
    /// who maps pages unmaps them before that.
    ///
    /// # Errors
    /// [`GrantError`]; [`GrantError::NoSpace`] if there is no more place to map anything at.
    fn map_grant(&self, granter: DomId, reference: GrantRef) -> Result<ForeignPage, GrantError> {
        let _ = (granter, reference);
        Err(GrantError::General)
    }

    /// `GNTTABOP_unmap_grant_ref`: ends what [`map_grant`](Hypervisor::map_grant) began.
    ///
    /// # Errors
    /// [`GrantError`]; then the page stays mapped, and its place taken.
    ///
    /// # Safety
    /// No reference to the page remains.
    unsafe fn unmap_grant(&self, page: ForeignPage) -> Result<(), GrantError> {
        let _ = page;
        Err(GrantError::General)
    }

    // Last words

    /// Writes to Xen's own log (`CONSOLEIO_write`), as far as Xen lets a guest. For what the console ring cannot
    /// carry: the first and the last words.
    fn console_io(&self, bytes: &[u8]);
}
