//! A guest that opens as many event channels as its command line says, or as it gets, each connected to another one of its own,
//! and signals on all of them; and again after it was saved and restored.
//!
//! It stands on the crates below `fata`: boot, the loop and xenstore.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
mod kernel;

#[cfg(not(target_os = "none"))]
fn main() {
    println!("this is a kernel: build it for x86_64-unknown-none and start it under Xen");
}
