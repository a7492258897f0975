//! From the first instruction to main: everything between Xen's domain builder, which starts an image as a PVH or as a
//! PV guest, and a Rust program on bare x86-64.
//!
//! A program links this crate, names its main function with `entry!`, and is linked with `-Tfata.ld` (the script
//! comes from this crate's build script). What it gets:
//!
//! * a heap: `alloc` works, and `memory` tells how much there is;
//! * page protection: nothing is both writable and executable, page zero and the page under the stack are not there;
//! * a `console` for first and last words; panics and faults end in a report on it and `SHUTDOWN_crash`;
//! * an end: `shutdown`.
//!
//! `examples/misbehave.rs` is a program that uses this crate alone, and shows what becomes of each kind of fault.
//!
//! One virtual CPU runs, interrupts are off for good, and there is one stack of 128 KiB: an event loop keeps its tasks
//! on the heap.
//!
//! The modules that only decide ([`start_info`], [`pv_start_info`], [`memory_map`], [`regions`], [`frames`]) compile and are tested on
//! the host; the others exist on metal alone (`x86_64-unknown-none`).
#![cfg_attr(not(test), no_std)]

#[cfg(target_os = "none")]
extern crate alloc;

pub mod frames;
pub mod memory_map;
pub mod pv_start_info;
pub mod regions;
pub mod start_info;

#[cfg(any(target_os = "none", test))]
mod console_ring;
#[cfg(any(target_os = "none", test))]
pub mod heap;
#[cfg(any(target_os = "none", test))]
mod paging;

#[cfg(target_os = "none")]
mod cell;
#[cfg(target_os = "none")]
pub mod console;
#[cfg(target_os = "none")]
pub mod crash;
#[cfg(target_os = "none")]
mod info;
#[cfg(target_os = "none")]
pub mod memory;
#[cfg(target_os = "none")]
pub mod shutdown;
#[cfg(target_os = "none")]
mod x86_64;

#[cfg(target_os = "none")]
pub use info::{BootInfo, ExitStatus};
