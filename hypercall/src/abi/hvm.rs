//! xen/include/public/hvm/hvm_op.h, hvm/params.h and arch-x86/hvm/start_info.h

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::assert_layout;

/// `HVMOP_set_param`
pub const SET_PARAM: u64 = 0;
/// `HVMOP_get_param`
pub const GET_PARAM: u64 = 1;

/// `HVM_PARAM_CALLBACK_IRQ`
pub const PARAM_CALLBACK_IRQ: u32 = 0;
/// `HVM_PARAM_STORE_PFN`
pub const PARAM_STORE_PFN: u32 = 1;
/// `HVM_PARAM_STORE_EVTCHN`
pub const PARAM_STORE_EVTCHN: u32 = 2;
/// `HVM_PARAM_CONSOLE_PFN`
pub const PARAM_CONSOLE_PFN: u32 = 17;
/// `HVM_PARAM_CONSOLE_EVTCHN`
pub const PARAM_CONSOLE_EVTCHN: u32 = 18;

/// `xen_hvm_param`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Param {
    /// In: whose; `DOMID_SELF`.
    pub domid: u16,
    /// Zero.
    pub pad: u16,
    /// In: which one.
    pub index: u32,
    /// In or out.
    pub value: u64,
}
assert_layout!(Param, 16 / 8, domid @ 0, pad @ 2, index @ 4, value @ 8);

/// `XEN_HVM_START_MAGIC_VALUE`
pub const START_MAGIC: u32 = 0x336e_c578;

/// `hvm_start_info`, version 1. Version 0 ends before `memmap_paddr`.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct StartInfo {
    /// [`START_MAGIC`].
    pub magic: u32,
    /// 0 or 1, or newer and compatible.
    pub version: u32,
    /// `SIF_*`.
    pub flags: u32,
    /// Entries in the module list.
    pub nr_modules: u32,
    /// Physical address of the module list.
    pub modlist_paddr: u64,
    /// Physical address of the command line, which ends in NUL; 0 if there is none.
    pub cmdline_paddr: u64,
    /// Physical address of the ACPI RSDP; 0 if there is none.
    pub rsdp_paddr: u64,
    /// Physical address of the memory map; version 1 and newer.
    pub memmap_paddr: u64,
    /// Entries in the memory map; 0 if there is none.
    pub memmap_entries: u32,
    /// Zero.
    pub reserved: u32,
}
assert_layout!(StartInfo, 56 / 8, magic @ 0, version @ 4, flags @ 8, nr_modules @ 12, modlist_paddr @ 16,
    cmdline_paddr @ 24, rsdp_paddr @ 32, memmap_paddr @ 40, memmap_entries @ 48, reserved @ 52);

impl StartInfo {
    /// Bytes in version 0.
    pub const SIZE_V0: usize = 40;
}

/// `hvm_modlist_entry`
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ModlistEntry {
    /// Physical address of the module.
    pub paddr: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Physical address of its command line; 0 if there is none.
    pub cmdline_paddr: u64,
    /// Zero.
    pub reserved: u64,
}
assert_layout!(ModlistEntry, 32 / 8, paddr @ 0, size @ 8, cmdline_paddr @ 16, reserved @ 24);

/// `hvm_memmap_table_entry`
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemmapEntry {
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// E820 type; [`MEMMAP_RAM`] is usable.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
}
assert_layout!(MemmapEntry, 24 / 8, addr @ 0, size @ 8, kind @ 16, reserved @ 20);

/// `XEN_HVM_MEMMAP_TYPE_RAM`
pub const MEMMAP_RAM: u32 = 1;
