//! `shared_info`, `vcpu_info` and the clock in them (xen/include/public/xen.h, arch-x86/xen.h).
//!
//! Xen writes these while we read, so every field is an atomic.

use core::array;

use super::assert_layout;
use crate::sync::{AtomicI8, AtomicU8, AtomicU32, AtomicU64};

/// Words of pending and mask bits. A model has fewer atomics to follow.
pub const EVTCHN_WORDS: usize = if cfg!(loom) { 1 } else { 64 };
/// Ports of the two-level ABI: 64 words of 64 bits.
pub const EVTCHN_PORTS: u32 = EVTCHN_WORDS as u32 * 64;
/// Virtual CPUs that have their `vcpu_info` in the page.
const VCPUS: usize = if cfg!(loom) { 1 } else { 32 };

/// `vcpu_time_info`: what turns the time-stamp counter into [`SystemTime`](crate::SystemTime).
#[derive(Debug, Default)]
#[repr(C)]
pub struct VcpuTimeInfo {
    /// Odd while Xen is writing.
    pub version: AtomicU32,
    /// Padding.
    pub pad0: AtomicU32,
    /// Counter when `system_time` was taken.
    pub tsc_timestamp: AtomicU64,
    /// Nanoseconds since the host booted.
    pub system_time: AtomicU64,
    /// Nanoseconds per (shifted) tick, times 2^32.
    pub tsc_to_system_mul: AtomicU32,
    /// Left shift of the ticks; negative means right.
    pub tsc_shift: AtomicI8,
    /// Bit 0: the counter is the same on all CPUs.
    pub flags: AtomicU8,
    /// Padding.
    pub pad1: [AtomicU8; 2],
}
assert_layout!(VcpuTimeInfo, 32 / 8, version @ 0, tsc_timestamp @ 8, system_time @ 16, tsc_to_system_mul @ 24,
    tsc_shift @ 28, flags @ 29);

/// `vcpu_info`
#[derive(Debug, Default)]
#[repr(C)]
pub struct VcpuInfo {
    /// Non-zero: events wait.
    pub evtchn_upcall_pending: AtomicU8,
    /// Non-zero: do not interrupt.
    pub evtchn_upcall_mask: AtomicU8,
    /// One bit per word of pending bits.
    pub evtchn_pending_sel: AtomicU64,
    /// `arch.cr2` and padding.
    pub arch: [AtomicU64; 2],
    /// The clock.
    pub time: VcpuTimeInfo,
}
assert_layout!(VcpuInfo, 64 / 8, evtchn_upcall_pending @ 0, evtchn_upcall_mask @ 1, evtchn_pending_sel @ 8,
    arch @ 16, time @ 32);

/// `arch_shared_info`: what a PV guest tells those who look at its memory. Zero: nothing.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ArchSharedInfo {
    /// Words in the list of machine frames.
    pub max_pfn: AtomicU64,
    /// Machine frame of an older form of that list.
    pub pfn_to_mfn_frame_list_list: AtomicU64,
    /// Why an NMI came.
    pub nmi_reason: AtomicU64,
    /// Machine address of the top-level page table by which the list can be found.
    pub p2m_cr3: AtomicU64,
    /// Virtual address of the list.
    pub p2m_vaddr: AtomicU64,
    /// Counts the changes of where the list is mapped.
    pub p2m_generation: AtomicU64,
}
assert_layout!(ArchSharedInfo, 48 / 8, max_pfn @ 0, pfn_to_mfn_frame_list_list @ 8, nmi_reason @ 16, p2m_cr3 @ 24,
    p2m_vaddr @ 32, p2m_generation @ 40);

/// `shared_info`
#[derive(Debug)]
#[repr(C)]
pub struct SharedInfo {
    /// One for each of the first 32 virtual CPUs.
    pub vcpu_info: [VcpuInfo; VCPUS],
    /// A bit per port: set by Xen, cleared by us.
    pub evtchn_pending: [AtomicU64; EVTCHN_WORDS],
    /// A bit per port: no selector bit and no upcall for it.
    pub evtchn_mask: [AtomicU64; EVTCHN_WORDS],
    /// Odd while Xen is writing the wall clock.
    pub wc_version: AtomicU32,
    /// Wall clock at system time 0: seconds since 1970, low half.
    pub wc_sec: AtomicU32,
    /// And nanoseconds.
    pub wc_nsec: AtomicU32,
    /// Seconds, high half.
    pub wc_sec_hi: AtomicU32,
    /// PV's own matters.
    pub arch: ArchSharedInfo,
}
assert_layout!(SharedInfo, 3136 / 8, vcpu_info @ 0, evtchn_pending @ 2048, evtchn_mask @ 2560, wc_version @ 3072,
    wc_sec @ 3076, wc_nsec @ 3080, wc_sec_hi @ 3084, arch @ 3088);

impl Default for SharedInfo {
    fn default() -> Self {
        Self {
            vcpu_info: array::from_fn(|_| VcpuInfo::default()),
            evtchn_pending: array::from_fn(|_| AtomicU64::new(0)),
            evtchn_mask: array::from_fn(|_| AtomicU64::new(0)),
            wc_version: AtomicU32::new(0),
            wc_sec: AtomicU32::new(0),
            wc_nsec: AtomicU32::new(0),
            wc_sec_hi: AtomicU32::new(0),
            arch: ArchSharedInfo::default(),
        }
    }
}
