//! What a PV guest needs beside the trait: its list of machine frames, page tables that Xen checks, a trap table.
//!
//! A PV guest runs on machine memory. It counts its own pages from 0 ([`Pfn`]); Xen and the peers know them by their
//! machine frames ([`Gfn`]), which the domain builder wrote into a list, "p2m".

use core::ptr::{from_mut, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

use super::call::{Gate, call, call4, set_gate};
use super::{CONSOLE, GRANT_FRAMES_MAX, STORE, WINDOW, WINDOW_PAGES, Xen, is_grant_frame_mapped};
use crate::abi::pv::{MmuUpdate, MmuextOp, StartInfo, TLB_FLUSH_LOCAL, TrapInfo, UVMF_INVLPG};
use crate::abi::{grant_table, nr};
use crate::{DomId, Errno, Gfn, Hypervisor, PAGE_SIZE, Pfn, Port, Suspended};

/// An entry of the lowest page table: present, writable, not to be executed.
const DATA_PAGE: u64 = 1 | 1 << 1 | 1 << 63;

/// The list of machine frames; null under PVH.
static P2M: AtomicPtr<u64> = AtomicPtr::new(null_mut());
/// How many it has.
static P2M_LEN: AtomicUsize = AtomicUsize::new(0);
/// The top-level page table.
static ROOT: AtomicU64 = AtomicU64::new(0);
/// What the domain builder told us, and tells us again after a restore.
static START_INFO: AtomicPtr<StartInfo> = AtomicPtr::new(null_mut());

/// The machine frame of a page of ours; `None` where the domain has no memory.
pub(super) fn machine_frame(pfn: Pfn) -> Option<Gfn> {
    let index = usize::try_from(pfn.0).ok()?;
    if index >= P2M_LEN.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: the index is within the list, which set_frames was told is there for good.
    let frame = unsafe { P2M.load(Ordering::Relaxed).wrapping_add(index).read() };
    // A hole is all ones. No machine has addresses of more than 52 bits.
    (frame < 1 << 40).then_some(Gfn(frame))
}

/// How many pages have memory.
pub(super) fn pages_with_memory() -> usize {
    let pages = 0..P2M_LEN.load(Ordering::Relaxed) as u64;
    pages.filter(|&page| machine_frame(Pfn(page)).is_some()).count()
}

/// What the list says where the domain has no memory (`INVALID_P2M_ENTRY`).
const NO_FRAME: u64 = u64::MAX;

/// Writes down the machine frame of a page of ours. A page beyond the list has none.
///
/// # Safety
/// It is that page's: what is granted is found by this list.
unsafe fn set_machine_frame(pfn: Pfn, frame: u64) {
    if (pfn.0 as usize) < P2M_LEN.load(Ordering::Relaxed) {
        // SAFETY: the index is within the list, which is there for good and which only this module writes to.
        unsafe { P2M.load(Ordering::Relaxed).wrapping_add(pfn.0 as usize).write(frame) }
    }
}

/// Ends the mapping of a page of ours, and says which machine frame it was. Xen can have that then.
///
/// # Safety
/// Nobody uses the page.
pub(super) unsafe fn let_go(page: Pfn) -> Option<Gfn> {
    let frame = machine_frame(page)?;
    // SAFETY: the caller's promise.
    unsafe { Xen(()).update_va_mapping(page.0 * PAGE_SIZE as u64, 0) }.ok()?;
    // SAFETY: the page has none from now on.
    unsafe { set_machine_frame(page, NO_FRAME) };
    Some(frame)
}

/// Makes a machine frame of ours the memory of a page that has none.
///
/// # Safety
/// Xen has given us the frame for this page.
pub(super) unsafe fn adopt(page: Pfn, frame: Gfn) -> Result<(), Errno> {
    map(page.0 * PAGE_SIZE as u64, frame)?;
    // SAFETY: the caller's promise.
    unsafe { set_machine_frame(page, frame.0) };
    Ok(())
}

/// Where the toolstack is to find the list of machine frames, for a window at `window`: behind it, and at a multiple of 1 GiB.
///
/// Its walks along the list (`map_p2m_list` in xen/tools/libs/guest/xg_sr_save_x86_pv.c, `xc_core_arch_map_p2m_list_rw` in
/// xg_core_x86.c) take an index that counts from the first 2 MiB of the list for one that counts from the last multiple of 1 GiB.
/// Only there are the two the same; elsewhere they may find less memory than there is, or none.
#[must_use]
pub const fn list_address(window: u64) -> u64 {
    (window + WINDOW_PAGES * PAGE_SIZE as u64).next_multiple_of(1 << 30)
}

/// Where the domain builder put a service: the page of its ring, and its port.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// The ring's page, which is mapped at this number times 4096.
    pub page: Pfn,
    /// The event channel.
    pub port: Port,
}

impl Xen {
    /// The Xen under a PV kernel.
    ///
    /// # Safety
    /// Xen's domain builder has entered this image by its note `XEN_ELFNOTE_ENTRY`. Before [`init_pv`](Self::init_pv) has
    /// succeeded there is neither a shared-info page nor a grant table: the caller asks for neither of the two.
    #[must_use]
    pub unsafe fn pv() -> Self {
        set_gate(Gate::Syscall);
        Self(())
    }

    /// Says where the builder's list of machine frames is, one word per page of the domain.
    ///
    /// # Safety
    /// There are `len` words at `list`, for good, which nobody writes to but this module.
    pub unsafe fn set_frames(self, list: *mut u64, len: usize) {
        P2M.store(list, Ordering::Relaxed);
        P2M_LEN.store(len, Ordering::Relaxed);
    }

    /// Says where the builder put the console's and xenstore's rings.
    ///
    /// # Safety
    /// The pages are those of the rings, mapped at their number times 4096, for good.
    pub unsafe fn set_services(self, console: Option<Service>, store: Option<Service>) {
        for (known, told) in [(&CONSOLE, console), (&STORE, store)] {
            if let Some(Service { page, port }) = told {
                known.pfn.value.store(page.0, Ordering::Relaxed);
                known.evtchn.value.store(port.0.into(), Ordering::Relaxed);
            }
        }
    }

    /// The machine frame of a page of ours; `None` where the domain has no memory.
    #[must_use]
    pub fn machine_frame(self, pfn: Pfn) -> Option<Gfn> {
        machine_frame(pfn)
    }

    /// Maps the shared-info page, and settles on version 1 of the grant table.
    ///
    /// # Errors
    /// What Xen said to the mapping.
    ///
    /// # Safety
    /// From the address `window` on, [`WINDOW_PAGES`] pages are not mapped to anything and have page tables, for good. At
    /// [`list_address`] the list of machine frames is mapped as well. `start_info` is the builder's, in a page of its own,
    /// writable, for good; nobody else writes to it. `root` is the top-level page table. Called once, after
    /// [`set_frames`](Self::set_frames).
    pub unsafe fn init_pv(self, window: u64, start_info: *mut StartInfo, root: Pfn) -> Result<(), Errno> {
        WINDOW.store(window, Ordering::Relaxed);
        START_INFO.store(start_info, Ordering::Relaxed);
        ROOT.store(root.0, Ordering::Relaxed);
        map_shared_info()?;
        self.use_version_1()
    }

    /// Changes entries of page tables (`HYPERVISOR_mmu_update`). Xen refuses whatever would give the domain memory that
    /// is not its own, or write access to a page table.
    ///
    /// # Errors
    /// What Xen said; some of the updates may have been made.
    ///
    /// # Safety
    /// No address that Rust code relies on changes its meaning, or loses an access that it has.
    pub unsafe fn mmu_update(self, updates: &[MmuUpdate]) -> Result<(), Errno> {
        let (first, count) = (updates.as_ptr() as u64, updates.len() as u64);
        // SAFETY: as many updates as are said are there; the rest is the caller's promise.
        unsafe { call4(nr::MMU_UPDATE, first, count, 0, DomId::SELF.0.into()) }.map(|_| ())
    }

    /// Changes the lowest page table's entry for one address (`HYPERVISOR_update_va_mapping`).
    ///
    /// # Errors
    /// What Xen said: there is no table for the address, or the entry is not one that this domain may have.
    ///
    /// # Safety
    /// As for [`mmu_update`](Self::mmu_update).
    pub unsafe fn update_va_mapping(self, address: u64, entry: u64) -> Result<(), Errno> {
        // SAFETY: the caller's promise.
        unsafe { call(nr::UPDATE_VA_MAPPING, address, entry, UVMF_INVLPG) }.map(|_| ())
    }

    /// Makes the processor forget the translations it remembers (`MMUEXT_TLB_FLUSH_LOCAL`).
    pub fn flush_tlb(self) {
        let mut arg = MmuextOp {
            cmd: TLB_FLUSH_LOCAL,
            ..Default::default()
        };
        // SAFETY: one operation, which lives through the call and only costs time. Xen has no reason to refuse it.
        let _ = unsafe { call4(nr::MMUEXT_OP, from_mut(&mut arg) as u64, 1, 0, DomId::SELF.0.into()) };
    }

    /// Names the handlers of exceptions (`HYPERVISOR_set_trap_table`).
    ///
    /// # Errors
    /// What Xen said.
    ///
    /// # Safety
    /// The last entry has address 0; all others lead to handlers that take what Xen pushes.
    pub unsafe fn set_trap_table(self, traps: &[TrapInfo]) -> Result<(), Errno> {
        // SAFETY: Xen reads up to the entry with address 0, which the caller says is there.
        unsafe { call(nr::SET_TRAP_TABLE, traps.as_ptr() as u64, 0, 0) }.map(|_| ())
    }
}

/// Maps the `index`th page of the grant table, which grows to it, at `address` in the window.
pub(super) fn map_grant_frame(index: u32, address: u64) -> Result<(), Errno> {
    let mut frames = [0_u64; GRANT_FRAMES_MAX as usize];
    let mut arg = grant_table::SetupTable {
        dom: DomId::SELF.0,
        nr_frames: (index + 1).min(GRANT_FRAMES_MAX),
        frame_list: frames.as_mut_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: the list has room for as many frames as the argument says; both live through the call.
    unsafe {
        call(
            nr::GRANT_TABLE_OP,
            grant_table::SETUP_TABLE,
            from_mut(&mut arg) as u64,
            1,
        )
    }?;
    match frames.get(index as usize) {
        Some(&frame) if arg.status == 0 => map(address, Gfn(frame)),
        _ => Err(Errno::ENOSPC),
    }
}

/// What the domain builder, or the toolstack after a restore, says.
fn start_info() -> StartInfo {
    // SAFETY: init_pv was told that it is there for good. The toolstack writes it while we stand still, which is inside a
    // hypercall, and the compiler knows that those change memory; of us only `suspend` writes it.
    unsafe { START_INFO.load(Ordering::Relaxed).read() }
}

/// Maps the shared-info page, and tells in it where the list of machine frames is: who saves or dumps the domain reads its
/// memory by that.
pub(super) fn map_shared_info() -> Result<(), Errno> {
    let frame = Gfn(start_info().shared_info / PAGE_SIZE as u64);
    let window = WINDOW.load(Ordering::Relaxed);
    map(window, frame)?;
    let root = machine_frame(Pfn(ROOT.load(Ordering::Relaxed))).ok_or(Errno::EINVAL)?;
    let arch = &Xen(()).shared_info().arch;
    arch.max_pfn
        .store(P2M_LEN.load(Ordering::Relaxed) as u64, Ordering::Relaxed);
    arch.p2m_vaddr.store(list_address(window), Ordering::Relaxed);
    arch.p2m_cr3.store(root.0 * PAGE_SIZE as u64, Ordering::Release);
    Ok(())
}

/// `SCHEDOP_shutdown` with `SHUTDOWN_suspend`, as a PV guest makes it.
///
/// The toolstack rewrites page tables, and can do so only if nothing but the domain's own memory is mapped. It finds
/// `start_info` by the third argument, with the rings' pages in it by our own numbers, and leaves there what is new.
/// Source: `process_start_info` in xen/tools/libs/guest/xg_sr_restore_x86_pv.c.
pub(super) fn suspend() -> Result<Suspended, Errno> {
    let place = START_INFO.load(Ordering::Relaxed);
    let record = machine_frame(Pfn(place as u64 / PAGE_SIZE as u64)).ok_or(Errno::EINVAL)?;
    let told = StartInfo {
        store_mfn: STORE.pfn.value.load(Ordering::Relaxed),
        console_mfn: CONSOLE.pfn.value.load(Ordering::Relaxed),
        ..start_info()
    };
    // SAFETY: init_pv was told that the structure is there for good, writable, and that nobody else writes to it.
    unsafe { place.write(told) };
    unmap_window()?;
    let suspended = Xen(()).suspend_at(record.0)?;
    if suspended == Suspended::Restored {
        let told = start_info();
        CONSOLE
            .evtchn
            .value
            .store(told.console_evtchn.into(), Ordering::Relaxed);
        STORE.evtchn.value.store(told.store_evtchn.into(), Ordering::Relaxed);
    }
    Ok(suspended)
}

/// Takes away what Xen shares with us: it is not memory of the domain's.
fn unmap_window() -> Result<(), Errno> {
    let xen = Xen(());
    let frames = (0..GRANT_FRAMES_MAX).filter(|&index| is_grant_frame_mapped(index));
    frames
        .map(|index| xen.grant_address(index))
        .chain([WINDOW.load(Ordering::Relaxed)])
        // SAFETY: nobody looks at the window before it is mapped again: nothing else runs meanwhile.
        .try_for_each(|address| unsafe { xen.update_va_mapping(address, 0) })
}

/// Maps a machine frame, writable and not to be executed, where nothing is: in the window, or at the place of a page of ours
/// that has no memory.
fn map(address: u64, frame: Gfn) -> Result<(), Errno> {
    let entry = (frame.0 * PAGE_SIZE as u64) | DATA_PAGE;
    // SAFETY: nothing is there.
    unsafe { Xen(()).update_va_mapping(address, entry) }
}
