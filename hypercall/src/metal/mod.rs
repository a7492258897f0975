//! The real Xen, under PVH and PV on x86-64: a zero-sized [`Hypervisor`] whose methods are hypercalls.
//!
//! What Xen gives each domain once (the shared-info page, the frames of the grant table), and what other domains grant it,
//! is mapped into a window of addresses that hold no RAM, so that no page of ours is lost and no superpage is broken. The state that this
//! needs, and which kind of guest this is, are a few atomics in this module: the only globals of the crate, and only on
//! metal.
//!
//! Both kinds of guest map their memory one to one: what lies at virtual address n * 4096 is the guest's own page n
//! ([`Pfn`]). They differ in the instruction that enters Xen, in the number by which Xen knows a page, and in how
//! the window is filled ([`pv`]).

extern crate alloc;

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use core::arch::asm;
use core::arch::x86_64::{__cpuid, _mm_lfence, _rdtsc};
use core::ptr::{NonNull, from_mut};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

mod balloon;
mod call;
#[cfg(feature = "fifo")]
mod fifo;
mod foreign;
pub mod pv;

use call::{Gate, call, is_pv, set_gate};

#[cfg(feature = "fifo")]
use crate::abi::event_fifo::{ControlBlock, EventWords};
use crate::abi::grant_table::{self, EntryV1};
use crate::abi::shared_info::SharedInfo;
use crate::abi::{event_channel, hvm, memory, nr, sched, vcpu};
use crate::{
    DomId, Errno, ForeignPage, Gfn, GrantError, GrantRef, Hypervisor, PAGE_SIZE, Pfn, Port, ServiceRing, SharedPage,
    ShutdownReason, Suspended, SystemTime, Version,
};

/// The Xen that this image runs on. There is one, so it needs no bytes.
#[derive(Clone, Copy, Debug)]
pub struct Xen(());

/// The most grant-table frames we use: 131,072 references.
const GRANT_FRAMES_MAX: u32 = 256;

/// The most pages of other domains that are mapped at a time: the largest vchan, of 513 pages, and 254 more. With what else is in
/// the window these are 4 MiB, which is what two page tables of the lowest level cover.
const FOREIGN_PAGES_MAX: usize = 767;

/// Pages in the window: the shared-info page, then the grant table's, then those of other domains.
pub const WINDOW_PAGES: u64 = 1 + GRANT_FRAMES_MAX as u64 + FOREIGN_PAGES_MAX as u64;

/// First byte of the window; 0 before [`Xen::init`] or [`Xen::init_pv`].
static WINDOW: AtomicU64 = AtomicU64::new(0);
/// Set while the grant table has an owner.
static GRANT_TABLE_CLAIMED: AtomicBool = AtomicBool::new(false);
/// A bit per grant-table frame that is mapped.
static GRANT_FRAMES_MAPPED: [AtomicU64; GRANT_FRAMES_MAX as usize / 64] = [const { AtomicU64::new(0) }; _];

/// Where the toolstack put a service.
struct Service {
    pfn: HvmParam,
    evtchn: HvmParam,
}

static CONSOLE: Service = Service {
    pfn: HvmParam::new(hvm::PARAM_CONSOLE_PFN),
    evtchn: HvmParam::new(hvm::PARAM_CONSOLE_EVTCHN),
};
static STORE: Service = Service {
    pfn: HvmParam::new(hvm::PARAM_STORE_PFN),
    evtchn: HvmParam::new(hvm::PARAM_STORE_EVTCHN),
};

/// An HVM parameter, which is asked for once: it does not change before the domain is restored. A PV guest has none, and is
/// told the same at its start.
struct HvmParam {
    index: u32,
    /// 0: not known yet, or not there.
    value: AtomicU64,
}

impl HvmParam {
    const fn new(index: u32) -> Self {
        Self {
            index,
            value: AtomicU64::new(0),
        }
    }

    /// Has it asked for again.
    fn forget(&self) {
        self.value.store(0, Ordering::Relaxed);
    }

    fn get(&self, xen: Xen) -> Option<u64> {
        match self.value.load(Ordering::Relaxed) {
            0 => {
                let value = xen.hvm_param(self.index)?;
                self.value.store(value, Ordering::Relaxed);
                Some(value)
            }
            value => Some(value),
        }
    }
}

impl Xen {
    /// Looks for Xen's CPUID leaves. `None`: this is some other hypervisor, or none.
    ///
    /// # Safety
    /// Before [`init`](Self::init) has succeeded there is neither a shared-info page nor a grant table, and memory is
    /// mapped one to one up to 4 GiB already: the caller asks for neither of the two.
    #[must_use]
    pub unsafe fn detect() -> Option<Self> {
        // Viridian may take the first leaves, so Xen's can be further up (xen/include/public/arch-x86/cpuid.h).
        (0..0x100_u32).find(|n| {
            let leaf = __cpuid(0x4000_0000 + n * 0x100);
            [leaf.ebx, leaf.ecx, leaf.edx] == [0x566e_6558, 0x6558_4d4d, 0x4d4d_566e]
        })?;
        let vendor = __cpuid(0);
        let amd = vendor.ecx == u32::from_le_bytes(*b"cAMD") || vendor.ecx == u32::from_le_bytes(*b"uine");
        set_gate(if amd { Gate::Vmmcall } else { Gate::Vmcall });
        Some(Self(()))
    }

    /// Maps the shared-info page and settles on version 1 of the grant table.
    ///
    /// # Errors
    /// What Xen said to the mapping.
    ///
    /// # Safety
    /// [`WINDOW_PAGES`] guest frames from `window` on hold no RAM and no device, and are mapped one to one,
    /// writable and cacheable, for good. Called once.
    pub unsafe fn init(self, window: Gfn) -> Result<(), Errno> {
        WINDOW.store(window.0 * PAGE_SIZE as u64, Ordering::Relaxed);
        self.map_shared_info()?;
        self.use_version_1()
    }

    /// Has the shared-info page appear in the window, and the toolstack know that we talk to it.
    fn map_shared_info(self) -> Result<(), Errno> {
        let window = Gfn(WINDOW.load(Ordering::Relaxed) / PAGE_SIZE as u64);
        self.add_to_physmap(memory::SPACE_SHARED_INFO, 0, window)?;
        // Any interrupt will do, since none is ever delivered: every port is masked. Without one the toolstack takes us for a
        // domain without PV drivers and does not tell us that a suspend was cancelled (`modify_returncode` in
        // xen/tools/libs/guest/xg_resume.c).
        self.set_hvm_param(hvm::PARAM_CALLBACK_IRQ, 1)
    }

    /// Settles on version 1 of the grant table.
    fn use_version_1(self) -> Result<(), Errno> {
        // A kernel that ran here before us (kexec) may have left version 2.
        let mut arg = grant_table::SetVersion { version: 1 };
        // SAFETY: the argument is what this operation wants, and lives through the call.
        let set = unsafe {
            call(
                nr::GRANT_TABLE_OP,
                grant_table::SET_VERSION,
                from_mut(&mut arg) as u64,
                1,
            )
        };
        match set {
            // The pv-shim knows one version only, and not this operation.
            Ok(_) | Err(Errno::EOPNOTSUPP) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The memory map as Xen tells it (`XENMEM_memory_map`): how many of `entries` it filled.
    ///
    /// # Errors
    /// What Xen said.
    pub fn memory_map(self, entries: &mut [memory::E820Entry]) -> Result<usize, Errno> {
        let mut arg = memory::MemoryMap {
            nr_entries: u32::try_from(entries.len()).unwrap_or(u32::MAX),
            buffer: entries.as_mut_ptr() as u64,
        };
        // SAFETY: the buffer has room for as many entries as the argument says, and both live through the call.
        unsafe { call(nr::MEMORY_OP, memory::MEMORY_MAP, from_mut(&mut arg) as u64, 0) }?;
        Ok((arg.nr_entries as usize).min(entries.len()))
    }

    /// How many virtual CPUs the domain has, counted up to `limit`.
    #[must_use]
    pub fn vcpus(self, limit: u32) -> u32 {
        (0..limit)
            // SAFETY: VCPUOP_is_up has no argument structure.
            .take_while(|&n| unsafe { call(nr::VCPU_OP, vcpu::IS_UP, n.into(), 0) }.is_ok())
            .count() as u32
    }

    fn add_to_physmap(self, space: u32, idx: u64, gpfn: Gfn) -> Result<(), Errno> {
        let mut arg = memory::AddToPhysmap {
            domid: DomId::SELF.0,
            size: 0,
            space,
            idx,
            gpfn: gpfn.0,
        };
        // SAFETY: the argument is what this operation wants, and lives through the call. What it maps over is the
        // window, which holds nothing.
        unsafe { call(nr::MEMORY_OP, memory::ADD_TO_PHYSMAP, from_mut(&mut arg) as u64, 0) }.map(|_| ())
    }

    fn hvm_param(self, index: u32) -> Option<u64> {
        let mut arg = hvm::Param {
            domid: DomId::SELF.0,
            index,
            ..Default::default()
        };
        // SAFETY: the argument is what this operation wants, and lives through the call.
        unsafe { call(nr::HVM_OP, hvm::GET_PARAM, from_mut(&mut arg) as u64, 0) }.ok()?;
        // 0 and ~0 both stand for "not there".
        (arg.value != 0 && arg.value != u64::MAX).then_some(arg.value)
    }

    fn set_hvm_param(self, index: u32, value: u64) -> Result<(), Errno> {
        let mut arg = hvm::Param {
            domid: DomId::SELF.0,
            index,
            value,
            ..Default::default()
        };
        // SAFETY: the argument is what this operation wants, and lives through the call.
        unsafe { call(nr::HVM_OP, hvm::SET_PARAM, from_mut(&mut arg) as u64, 0) }.map(|_| ())
    }

    fn service_ring(self, service: &Service) -> Option<ServiceRing<'static>> {
        let page = service.pfn.get(self)?.checked_mul(PAGE_SIZE as u64)?;
        let port = Port(u32::try_from(service.evtchn.get(self)?).ok()?);
        // SAFETY: Xen says that the ring's page is at this frame, which boot maps one to one for good (under PVH it is
        // below 4 GiB); it is page-aligned and only ever seen through SharedPage.
        let page = unsafe { &*(page as *const SharedPage) };
        Some(ServiceRing { page, port })
    }

    /// The address in the window at which a frame of the grant table is mapped, or will be.
    fn grant_address(self, index: u32) -> u64 {
        WINDOW.load(Ordering::Relaxed) + (1 + u64::from(index)) * PAGE_SIZE as u64
    }

    /// Maps a frame of the grant table, which grows to it, into the window.
    fn map_grant_frame(self, index: u32) -> Result<(), Errno> {
        let address = self.grant_address(index);
        if is_pv() {
            pv::map_grant_frame(index, address)
        } else {
            self.add_to_physmap(memory::SPACE_GRANT_TABLE, index.into(), Gfn(address / PAGE_SIZE as u64))
        }
    }

    /// Asks the toolstack to have the domain go on elsewhere, and stands still until it does, or has decided otherwise.
    /// `record`: under PV, the machine frame of `start_info`.
    fn suspend_at(self, record: u64) -> Result<Suspended, Errno> {
        let mut arg = sched::Shutdown {
            reason: sched::SHUTDOWN_SUSPEND,
        };
        // SAFETY: the argument is what this operation wants, and lives through the call.
        let result = unsafe { call(nr::SCHED_OP, sched::SHUTDOWN, from_mut(&mut arg) as u64, record) }?;
        Ok(if result == 0 {
            Suspended::Restored
        } else {
            Suspended::Cancelled
        })
    }

    /// Makes the new domain like the one that we were, as far as that was our doing: what it shares with Xen is again where
    /// our references point. Under PV it is not in a suspended domain, and so not in the old one either.
    fn restore(self) -> Result<(), Errno> {
        if is_pv() {
            pv::map_shared_info()?;
        } else {
            for param in [&CONSOLE.pfn, &CONSOLE.evtchn, &STORE.pfn, &STORE.evtchn] {
                param.forget();
            }
            self.map_shared_info()?;
        }
        self.use_version_1()?;
        self.map_grant_frames()
    }

    /// Maps every frame of the grant table that has been handed out.
    fn map_grant_frames(self) -> Result<(), Errno> {
        // The highest first, so that the table grows once.
        (0..GRANT_FRAMES_MAX)
            .rev()
            .filter(|&index| is_grant_frame_mapped(index))
            .try_for_each(|index| self.map_grant_frame(index))
    }

    /// Behind them, where other domains' pages are mapped.
    fn foreign_base(self) -> u64 {
        self.grant_address(GRANT_FRAMES_MAX)
    }
}

// SAFETY: pages come from the global allocator, and memory is mapped one to one; the grant table is the one that Xen
// mapped into the window, for good.
unsafe impl Hypervisor for Xen {
    fn alloc_pages(&self, count: usize) -> Option<NonNull<SharedPage>> {
        let layout = page_layout(count)?;
        // SAFETY: page_layout never gives a layout of size zero.
        NonNull::new(unsafe { alloc_zeroed(layout) }.cast())
    }

    unsafe fn free_pages(&self, first: NonNull<SharedPage>, count: usize) {
        if let Some(layout) = page_layout(count) {
            // SAFETY: the caller says that these pages came from alloc_pages with the same count.
            unsafe { dealloc(first.as_ptr().cast(), layout) }
        }
    }

    fn gfn_of(&self, page: &SharedPage) -> Gfn {
        // Memory is mapped one to one.
        let pfn = Pfn(page.as_ptr() as u64 / PAGE_SIZE as u64);
        if is_pv() {
            // What is no memory of ours has no number; this one fits into no grant.
            pv::machine_frame(pfn).unwrap_or(Gfn(u64::MAX))
        } else {
            Gfn(pfn.0)
        }
    }

    fn console_ring(&self) -> Option<ServiceRing<'_>> {
        self.service_ring(&CONSOLE)
    }

    fn store_ring(&self) -> Option<ServiceRing<'_>> {
        self.service_ring(&STORE)
    }

    fn version(&self) -> Option<Version> {
        // SAFETY: XENVER_version has no argument structure.
        let version = unsafe { call(nr::XEN_VERSION, nr::XENVER_VERSION, 0, 0) }.ok()?;
        Some(Version {
            major: (version >> 16) as u16,
            minor: version as u16,
        })
    }

    fn shared_info(&self) -> &SharedInfo {
        let window = WINDOW.load(Ordering::Relaxed);
        // SAFETY: whoever has a handle knows that init comes first (see detect). It mapped the shared-info page there for good; all
        // its fields are atomics.
        unsafe { &*(window as *const SharedInfo) }
    }

    #[inline]
    fn tsc(&self) -> u64 {
        // The fence keeps the processor from reading the counter before what precedes it in the program.
        // SAFETY: every x86-64 has both instructions, and Xen lets guests use them.
        unsafe { _mm_lfence() };
        // SAFETY: as above.
        unsafe { _rdtsc() }
    }

    fn evtchn_alloc_unbound(&self, remote: DomId) -> Result<Port, Errno> {
        let mut arg = event_channel::AllocUnbound {
            dom: DomId::SELF.0,
            remote_dom: remote.0,
            port: 0,
        };
        // SAFETY: the argument is what this operation wants, and lives through the call.
        unsafe {
            call(
                nr::EVENT_CHANNEL_OP,
                event_channel::ALLOC_UNBOUND,
                from_mut(&mut arg) as u64,
                0,
            )
        }?;
        Ok(Port(arg.port))
    }

    fn evtchn_bind_interdomain(&self, remote: DomId, remote_port: Port) -> Result<Port, Errno> {
        let mut arg = event_channel::BindInterdomain {
            remote_dom: remote.0,
            remote_port: remote_port.0,
            local_port: 0,
        };
        // SAFETY: the argument is what this operation wants, and lives through the call.
        unsafe {
            call(
                nr::EVENT_CHANNEL_OP,
                event_channel::BIND_INTERDOMAIN,
                from_mut(&mut arg) as u64,
                0,
            )
        }?;
        Ok(Port(arg.local_port))
    }

    fn evtchn_close(&self, port: Port) -> Result<(), Errno> {
        let mut arg = event_channel::PortArg { port: port.0 };
        // SAFETY: the argument is what this operation wants, and lives through the call.
        unsafe { call(nr::EVENT_CHANNEL_OP, event_channel::CLOSE, from_mut(&mut arg) as u64, 0) }.map(|_| ())
    }

    fn evtchn_send(&self, port: Port) -> Result<(), Errno> {
        let mut arg = event_channel::PortArg { port: port.0 };
        // SAFETY: the argument is what this operation wants, and lives through the call.
        unsafe { call(nr::EVENT_CHANNEL_OP, event_channel::SEND, from_mut(&mut arg) as u64, 0) }.map(|_| ())
    }

    fn evtchn_is_connected(&self, port: Port) -> Result<bool, Errno> {
        let mut arg = event_channel::Status {
            dom: DomId::SELF.0,
            port: port.0,
            ..Default::default()
        };
        // SAFETY: the argument is what this operation wants, and lives through the call.
        unsafe {
            call(
                nr::EVENT_CHANNEL_OP,
                event_channel::STATUS,
                from_mut(&mut arg) as u64,
                0,
            )
        }?;
        Ok(arg.status == event_channel::STATUS_INTERDOMAIN)
    }

    #[cfg(feature = "fifo")]
    fn evtchn_use_fifo(&self, pages: usize) -> Result<(), Errno> {
        fifo::use_fifo(*self, pages)
    }

    #[cfg(feature = "fifo")]
    fn evtchn_control(&self) -> Option<&ControlBlock> {
        fifo::control()
    }

    #[cfg(feature = "fifo")]
    fn evtchn_words(&self, index: usize) -> Option<&EventWords> {
        fifo::words(index)
    }

    fn poll(&self, ports: &[Port], deadline: Option<SystemTime>) {
        let ports = ports.get(..sched::POLL_MAX_PORTS).unwrap_or(ports);
        let mut arg = sched::Poll {
            ports: ports.as_ptr() as u64,
            nr_ports: ports.len() as u32,
            // 0 would mean for ever; the first nanosecond of the host has passed, so 1 means at once.
            timeout: deadline.map_or(0, |at| at.0.max(1)),
        };
        // SAFETY: the array has as many ports as the argument says (Port is a transparent u32); both live through
        // the call. A refusal is an early return, which the caller must expect anyway.
        let _ = unsafe { call(nr::SCHED_OP, sched::POLL, from_mut(&mut arg) as u64, 0) };
    }

    fn shutdown(&self, reason: ShutdownReason) {
        let mut arg = sched::Shutdown { reason: reason as u32 };
        loop {
            // SAFETY: the argument is what this operation wants, and lives through the call.
            let _ = unsafe { call(nr::SCHED_OP, sched::SHUTDOWN, from_mut(&mut arg) as u64, 0) };
            // Only a Xen that refuses brings us here. There is nothing left to run.
            // SAFETY: hlt with interrupts off stops the CPU, which is what is wanted, or is a fault in a PV guest, which is
            // not worse; it touches no memory.
            unsafe { asm!("hlt", options(nomem, nostack)) };
        }
    }

    fn suspend(&self) -> Result<Suspended, Errno> {
        if foreign::any() {
            return Err(Errno::EBUSY);
        }
        let suspended = if is_pv() { pv::suspend() } else { self.suspend_at(0) };
        #[cfg(feature = "fifo")]
        if suspended == Ok(Suspended::Restored) {
            fifo::forget();
        }
        if (is_pv() || suspended == Ok(Suspended::Restored)) && self.restore().is_err() {
            // Everybody's references point to what is not there any more.
            self.console_io(b"fata: the restored domain does not get back what it had\n");
            self.shutdown(ShutdownReason::Crash);
        }
        suspended
    }

    fn grant_max_frames(&self) -> u32 {
        let mut arg = grant_table::QuerySize {
            dom: DomId::SELF.0,
            ..Default::default()
        };
        // SAFETY: the argument is what this operation wants, and lives through the call.
        let asked = unsafe {
            call(
                nr::GRANT_TABLE_OP,
                grant_table::QUERY_SIZE,
                from_mut(&mut arg) as u64,
                1,
            )
        };
        // Every Xen has given at least 4.
        let max = if asked.is_ok() && arg.status == 0 {
            arg.max_nr_frames
        } else {
            4
        };
        max.min(GRANT_FRAMES_MAX)
    }

    fn claim_grant_table(&self) -> bool {
        !GRANT_TABLE_CLAIMED.swap(true, Ordering::Relaxed)
    }

    fn release_grant_table(&self) {
        GRANT_TABLE_CLAIMED.store(false, Ordering::Relaxed);
    }

    unsafe fn grant_frame(&self, index: u32) -> Result<&[EntryV1; EntryV1::PER_PAGE], Errno> {
        let mapped = GRANT_FRAMES_MAPPED.get(index as usize / 64).ok_or(Errno::ENOSPC)?;
        if !is_grant_frame_mapped(index) {
            self.map_grant_frame(index)?;
            mapped.fetch_or(1 << (index % 64), Ordering::Relaxed);
        }
        let address = self.grant_address(index);
        // SAFETY: this frame of the grant table is mapped there for good, that is, whenever anything but `suspend` runs; an
        // entry is made of atomics.
        Ok(unsafe { &*(address as *const [EntryV1; EntryV1::PER_PAGE]) })
    }

    fn map_grant(&self, granter: DomId, reference: GrantRef) -> Result<ForeignPage, GrantError> {
        foreign::map(self.foreign_base(), granter, reference)
    }

    unsafe fn unmap_grant(&self, page: ForeignPage) -> Result<(), GrantError> {
        // SAFETY: the caller's promise.
        unsafe { foreign::unmap(self.foreign_base(), &page) }
    }

    fn console_io(&self, bytes: &[u8]) {
        // SAFETY: Xen reads as many bytes as the slice has. A refusal (a release build of Xen) is expected.
        let _ = unsafe {
            call(
                nr::CONSOLE_IO,
                nr::CONSOLEIO_WRITE,
                bytes.len() as u64,
                bytes.as_ptr() as u64,
            )
        };
    }
}

fn is_grant_frame_mapped(index: u32) -> bool {
    let word = GRANT_FRAMES_MAPPED.get(index as usize / 64);
    word.is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (index % 64) != 0)
}

fn page_layout(count: usize) -> Option<Layout> {
    let bytes = count.checked_mul(PAGE_SIZE).filter(|&bytes| bytes > 0)?;
    Layout::from_size_align(bytes, PAGE_SIZE).ok()
}
