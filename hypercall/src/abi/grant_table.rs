//! xen/include/public/grant_table.h, version 1 of the table.

use super::assert_layout;
use crate::PAGE_SIZE;
use crate::sync::{AtomicU16, AtomicU32};

/// `GNTTABOP_map_grant_ref`
pub const MAP_GRANT_REF: u64 = 0;
/// `GNTTABOP_unmap_grant_ref`
pub const UNMAP_GRANT_REF: u64 = 1;
/// `GNTTABOP_setup_table`
pub const SETUP_TABLE: u64 = 2;
/// `GNTTABOP_query_size`
pub const QUERY_SIZE: u64 = 6;
/// `GNTTABOP_set_version`
pub const SET_VERSION: u64 = 8;

bitflags::bitflags! {
    /// `GTF_*`: what a grant permits, and what the peer does with it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Flags: u16 {
        /// `GTF_permit_access`: the peer may map the page or copy from and to it.
        const PERMIT_ACCESS = 1;
        /// `GTF_readonly`: but not write to it.
        const READONLY = 4;
        /// `GTF_reading`: it has it mapped, or is copying from it, at this moment. Set by Xen.
        const READING = 8;
        /// `GTF_writing`: the same for writing. Set by Xen.
        const WRITING = 16;
    }
}

/// `grant_entry_v1`: one entry of the table, which Xen reads and writes while we do.
///
/// To grant: write `domid` and `frame`, then `flags` with release ordering. To revoke: compare-and-swap `flags` to
/// zero, which Xen's own `READING` and `WRITING` make fail.
#[derive(Debug, Default)]
#[repr(C)]
pub struct EntryV1 {
    /// [`Flags`].
    pub flags: AtomicU16,
    /// Who is granted access.
    pub domid: AtomicU16,
    /// Which of our frames; 32 bits, so version 1 reaches 16 TiB.
    pub frame: AtomicU32,
}
assert_layout!(EntryV1, 8 / 4, flags @ 0, domid @ 2, frame @ 4);

impl EntryV1 {
    /// Entries in a page.
    pub const PER_PAGE: usize = PAGE_SIZE / size_of::<Self>();
}

/// References below this one belong to the toolstack (0 the console, 1 xenstore).
pub const RESERVED_ENTRIES: u32 = 8;

/// `gnttab_setup_table`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SetupTable {
    /// In: whose table.
    pub dom: u16,
    /// In: pages that it shall have at the least.
    pub nr_frames: u32,
    /// Out: 0, or `GNTST_*` below zero.
    pub status: i16,
    /// In: address of room for as many frame numbers.
    pub frame_list: u64,
}
assert_layout!(SetupTable, 24 / 8, dom @ 0, nr_frames @ 4, status @ 8, frame_list @ 16);

/// `gnttab_query_size`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct QuerySize {
    /// In: whose table.
    pub dom: u16,
    /// Out: pages it has.
    pub nr_frames: u32,
    /// Out: pages it may have.
    pub max_nr_frames: u32,
    /// Out: 0, or `GNTST_*` below zero.
    pub status: i16,
}
assert_layout!(QuerySize, 16 / 4, dom @ 0, nr_frames @ 4, max_nr_frames @ 8, status @ 12);

/// `gnttab_set_version`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct SetVersion {
    /// In: 1 or 2. Out: what it was set to.
    pub version: u32,
}
assert_layout!(SetVersion, 4 / 4, version @ 0);

/// `GNTMAP_host_map`: map the page where the processor sees it.
pub const MAP_HOST: u32 = 2;

/// `gnttab_map_grant_ref`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MapGrantRef {
    /// In: where to map the page. Under PVH a guest-physical address, under PV a virtual one.
    pub host_addr: u64,
    /// In: `MAP_*`.
    pub flags: u32,
    /// In: the granter's reference.
    pub reference: u32,
    /// In: the granter.
    pub dom: u16,
    /// Out: 0, or `GNTST_*` below zero.
    pub status: i16,
    /// Out: by which the mapping is ended.
    pub handle: u32,
    /// Out: the address for devices; not asked for.
    pub dev_bus_addr: u64,
}
assert_layout!(MapGrantRef, 32 / 8, host_addr @ 0, flags @ 8, reference @ 12, dom @ 16, status @ 18, handle @ 20, dev_bus_addr @ 24);

/// `gnttab_unmap_grant_ref`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct UnmapGrantRef {
    /// In: where the page is mapped.
    pub host_addr: u64,
    /// In: 0, for there is no mapping for devices.
    pub dev_bus_addr: u64,
    /// In: the mapping's handle.
    pub handle: u32,
    /// Out: 0, or `GNTST_*` below zero.
    pub status: i16,
}
assert_layout!(UnmapGrantRef, 24 / 8, host_addr @ 0, dev_bus_addr @ 8, handle @ 16, status @ 20);
