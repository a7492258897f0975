//! Hypercall numbers (`__HYPERVISOR_*`, xen/include/public/xen.h).

/// `set_trap_table`
pub const SET_TRAP_TABLE: u32 = 0;
/// `mmu_update`
pub const MMU_UPDATE: u32 = 1;
/// `memory_op`
pub const MEMORY_OP: u32 = 12;
/// `update_va_mapping`
pub const UPDATE_VA_MAPPING: u32 = 14;
/// `xen_version`
pub const XEN_VERSION: u32 = 17;
/// `console_io`
pub const CONSOLE_IO: u32 = 18;
/// `grant_table_op`
pub const GRANT_TABLE_OP: u32 = 20;
/// `vcpu_op`
pub const VCPU_OP: u32 = 24;
/// `mmuext_op`
pub const MMUEXT_OP: u32 = 26;
/// `sched_op`
pub const SCHED_OP: u32 = 29;
/// `event_channel_op`
pub const EVENT_CHANNEL_OP: u32 = 32;
/// `hvm_op`
pub const HVM_OP: u32 = 34;

/// `XENVER_version`: the result is major << 16 | minor.
pub const XENVER_VERSION: u64 = 0;
/// `CONSOLEIO_write`
pub const CONSOLEIO_WRITE: u64 = 0;
