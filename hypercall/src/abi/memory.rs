//! xen/include/public/memory.h

use super::assert_layout;

/// `XENMEM_decrease_reservation`
pub const DECREASE_RESERVATION: u64 = 1;
/// `XENMEM_populate_physmap`
pub const POPULATE_PHYSMAP: u64 = 6;
/// `XENMEM_add_to_physmap`
pub const ADD_TO_PHYSMAP: u64 = 7;
/// `XENMEM_memory_map`
pub const MEMORY_MAP: u64 = 9;

/// `XENMAPSPACE_shared_info`
pub const SPACE_SHARED_INFO: u32 = 0;
/// `XENMAPSPACE_grant_table`
pub const SPACE_GRANT_TABLE: u32 = 1;

/// How many extents we pass at a time. Xen takes any number; these are 2 KiB of stack, and a moment.
pub const EXTENTS: usize = 256;

/// `xen_memory_reservation`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MemoryReservation {
    /// In: address of an array of frame numbers, one word per extent. Out, when a PV guest populates: machine frames.
    pub extent_start: u64,
    /// In: how many.
    pub nr_extents: u64,
    /// In: an extent is 2 to the power of this many pages.
    pub extent_order: u32,
    /// In: `XENMEMF_*`; 0 for any memory.
    pub mem_flags: u32,
    /// In: whose memory; `DOMID_SELF`.
    pub domid: u16,
}
assert_layout!(MemoryReservation, 32 / 8, extent_start @ 0, nr_extents @ 8, extent_order @ 16, mem_flags @ 20,
    domid @ 24);

/// `xen_add_to_physmap`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct AddToPhysmap {
    /// In: whose map; `DOMID_SELF`.
    pub domid: u16,
    /// In: pages, for ranges only.
    pub size: u16,
    /// In: `SPACE_*`.
    pub space: u32,
    /// In: index into that space.
    pub idx: u64,
    /// In: where it shall appear. A RAM page that was there is freed.
    pub gpfn: u64,
}
assert_layout!(AddToPhysmap, 24 / 8, domid @ 0, size @ 2, space @ 4, idx @ 8, gpfn @ 16);

/// `xen_memory_map`
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct MemoryMap {
    /// In: room in the buffer; out: entries written.
    pub nr_entries: u32,
    /// In: address of an array of [`E820Entry`].
    pub buffer: u64,
}
assert_layout!(MemoryMap, 16 / 8, nr_entries @ 0, buffer @ 8);

/// An E820 entry as `XENMEM_memory_map` writes it: 20 bytes, unaligned.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, packed)]
pub struct E820Entry {
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// 1 is RAM.
    pub kind: u32,
}
assert_layout!(E820Entry, 20 / 1, addr @ 0, size @ 8, kind @ 16);
