//! Xen's ABI as typed Rust, and the [`Hypervisor`] trait that every driver is written against.
//!
//! * [`abi`]: the structures and constants of Xen's public headers, one module per header, with their layouts
//!   asserted at compile time.
//! * [`Hypervisor`]: what a driver may ask of the machine it runs on. Narrow, typed and safe to call. On metal it
//!   is `metal::Xen`, a zero-sized type whose methods are hypercalls; in tests it is a handle to a
//!   simulated domain. Protocol code cannot tell the difference.
//! * [`SharedPage`]: 4 KiB that another domain may read or write at this very moment. It can be copied from and
//!   to, never borrowed as bytes.
//!
//! Hypercalls are instructions of ours (`vmcall` or `vmmcall` by CPU vendor, `syscall` in a PV guest, chosen once). There
//! is no hypercall page: see XSA-466.
//!
//! # Why not the crate `xen-sys`
//!
//! It was evaluated and is used as a second opinion only: `tests/xen_sys.rs` compares our constants and layouts
//! with its own. It loads the fifth argument of a hypercall into the wrong register, needs an external hypercall
//! page, and has nothing on grants, rings or `hvm_start_info`.
#![no_std]
// Nothing that a peer writes can cause a panic (rule 88).
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]
#![warn(clippy::indexing_slicing, clippy::string_slice)]

pub mod abi;
mod errno;
mod grant_error;
mod hypervisor;
mod ids;
#[cfg_attr(loom, path = "page_model.rs")]
mod page;
#[doc(hidden)]
pub mod sync;
mod time;

#[cfg(all(target_arch = "x86_64", target_os = "none"))]
pub mod metal;

pub use errno::Errno;
pub use grant_error::GrantError;
pub use hypervisor::{ForeignPage, Hypervisor, ServiceRing, ShutdownReason, Suspended, Version};
pub use ids::{DomId, Gfn, GrantRef, Pfn, Port};
pub use page::{PAGE_SIZE, SharedPage};
pub use time::SystemTime;
