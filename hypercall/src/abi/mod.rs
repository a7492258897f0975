//! Xen's public headers, one module each. The layouts are those of x86-64 and are asserted at compile time.
//!
//! Device protocols (`io/netif.h`, `io/xs_wire.h`, ...) are with their drivers.

pub mod event_channel;
pub mod event_fifo;
pub mod grant_table;
pub mod hvm;
pub mod memory;
pub mod nr;
pub mod pv;
pub mod sched;
pub mod shared_info;
pub mod vcpu;

/// Asserts size, alignment and field offsets of a structure at compile time.
macro_rules! assert_layout {
    ($type:ty, $size:literal / $align:literal, $($($field:ident).+ @ $offset:literal),* $(,)?) => {
        // A model checker's atomics are larger.
        #[cfg(not(loom))]
        const _: () = {
            assert!(core::mem::size_of::<$type>() == $size);
            assert!(core::mem::align_of::<$type>() == $align);
            $(assert!(core::mem::offset_of!($type, $($field).+) == $offset);)*
        };
    };
}
pub(crate) use assert_layout;
