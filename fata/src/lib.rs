//! Fata: the one crate an application names.
#![no_std]
#![deny(unsafe_code)] // start/metal.rs alone allows it, and says why

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod args;
mod console;
mod device;
mod env;
mod exit;
mod log_line;
mod logger;
mod network;
pub mod port;
pub mod random;
mod shutdown;
pub mod start;
pub mod stats;
pub mod xen;

pub use console::Console;
pub use env::Env;
pub use exit::{ExitCode, Failure, Outcome, Termination};
pub use fata_events::{Cancelled, Instant, JoinHandle, TimedOut};
pub use fata_macros::main;
pub use fata_net as net;
pub use logger::Logger;
pub use network::Error as NetworkError;
pub use shutdown::ShutdownRequest;
