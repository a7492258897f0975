//! xen/include/public/vcpu.h

/// `VCPUOP_is_up`: 1 or 0, or `ENOENT` for a virtual CPU that the domain does not have.
pub const IS_UP: u64 = 3;
