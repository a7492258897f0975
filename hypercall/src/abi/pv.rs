//! What only a PV guest meets: xen/include/public/xen.h, arch-x86/xen.h and arch-x86/xen-x86_64.h

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::assert_layout;

/// How [`StartInfo::magic`] begins.
pub const START_MAGIC: &[u8] = b"xen-3.0-x86_64";

/// `start_info`: what Xen's domain builder tells a PV guest.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StartInfo {
    /// [`START_MAGIC`] and NULs.
    pub magic: [u8; 32],
    /// Pages that the domain has.
    pub nr_pages: u64,
    /// Machine address of the shared-info page.
    pub shared_info: u64,
    /// `SIF_*`.
    pub flags: u32,
    /// Padding.
    pub pad0: u32,
    /// Machine frame of the xenstore ring; 0 if there is none.
    pub store_mfn: u64,
    /// Its port.
    pub store_evtchn: u32,
    /// Padding.
    pub pad1: u32,
    /// Machine frame of the console ring; 0 if there is none.
    pub console_mfn: u64,
    /// Its port.
    pub console_evtchn: u32,
    /// Padding.
    pub pad2: u32,
    /// Virtual address of the top-level page table, which is the first of all tables.
    pub pt_base: u64,
    /// Pages of tables.
    pub nr_pt_frames: u64,
    /// Virtual address of the list of machine frames: one word per page.
    pub mfn_list: u64,
    /// Virtual address of the module; 0 if there is none.
    pub mod_start: u64,
    /// Bytes of it.
    pub mod_len: u64,
    /// The command line, which ends in NUL.
    pub cmd_line: [u8; 1024],
    /// With `XEN_ELFNOTE_INIT_P2M`: first frame of the list.
    pub first_p2m_pfn: u64,
    /// And how many it takes.
    pub nr_p2m_frames: u64,
}
assert_layout!(StartInfo, 1168 / 8, magic @ 0, nr_pages @ 32, shared_info @ 40, flags @ 48, store_mfn @ 56,
    store_evtchn @ 64, console_mfn @ 72, console_evtchn @ 80, pt_base @ 88, nr_pt_frames @ 96, mfn_list @ 104,
    mod_start @ 112, mod_len @ 120, cmd_line @ 128, first_p2m_pfn @ 1152, nr_p2m_frames @ 1160);

/// `SIF_INITDOMAIN`: this is Xen's first domain.
pub const SIF_INITDOMAIN: u32 = 2;

/// `machine_to_phys_mapping`: virtual address of Xen's list that leads from machine frames to their owners' own numbers,
/// one word per frame. Readable for every PV guest.
pub const MACHINE_TO_PHYS: u64 = 0xffff_8000_0000_0000;

/// `FLAT_RING3_CS64`: the code segment that a PV kernel runs in.
pub const FLAT_RING3_CS64: u16 = 0xe033;

/// `MMUEXT_TLB_FLUSH_LOCAL`
pub const TLB_FLUSH_LOCAL: u32 = 6;
/// `UVMF_INVLPG`
pub const UVMF_INVLPG: u64 = 2;

/// `mmu_update`: one entry of a page table, and what shall stand in it.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MmuUpdate {
    /// In: machine address of the entry; the lowest bits are the kind, of which 0 is an ordinary update.
    pub ptr: u64,
    /// In: the entry, with a machine address in it.
    pub val: u64,
}
assert_layout!(MmuUpdate, 16 / 8, ptr @ 0, val @ 8);

/// `mmuext_op`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MmuextOp {
    /// In: `MMUEXT_*`.
    pub cmd: u32,
    /// In: a machine frame or an address.
    pub arg1: u64,
    /// In: a count or a pointer.
    pub arg2: u64,
}
assert_layout!(MmuextOp, 24 / 8, cmd @ 0, arg1 @ 8, arg2 @ 16);

/// `trap_info`: who handles an exception.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct TrapInfo {
    /// In: the vector.
    pub vector: u8,
    /// In: bits 0 and 1 the privilege from which it may be called, bit 2 set to mask events.
    pub flags: u8,
    /// In: code segment of the handler.
    pub cs: u16,
    /// In: the handler; 0 ends the table.
    pub address: u64,
}
assert_layout!(TrapInfo, 16 / 8, vector @ 0, flags @ 1, cs @ 2, address @ 8);
