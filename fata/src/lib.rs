//! Fata, a library operating system: the one crate an application names.
//!
//! ```no_run
//! #![cfg_attr(target_os = "none", no_std, no_main)]
//!
//! use fata::{Env, NetworkError};
//!
//! /// Sends back what it gets, one client after the other.
//! #[fata::main]
//! async fn main(env: Env) -> Result<(), NetworkError> {
//!     let net = env.net().await?;
//!     let listener = net.listen(7)?;
//!     loop {
//!         let stream = listener.accept().await?;
//!         let mut buffer = [0; 512];
//!         while let Ok(length @ 1..) = stream.read(&mut buffer).await {
//!             stream.write_all(&buffer[..length]).await?;
//!         }
//!     }
//! }
//! ```
//!
//! Built for `x86_64-unknown-none` this is an image that Xen starts: `cargo fata run NAME`.
//!
//! # What a program has
//!
//! * [`main`](macro@main): the attribute that makes a function the program.
//! * [`Env`]: everything around it. Network ([`net`]), console, boot arguments ([`args`]), clocks, tasks, random
//!   numbers ([`random`]), figures ([`stats`]), and the wish that it end.
//! * The crate `log`, whose messages go to the console as `log=` says.
//! * An end: `main` returns, and the machine is switched off with an exit status ([`Termination`]).
//!
//! It runs on one thread. Tasks are futures on one loop, so what they share needs no lock.
//!
//! The network is the feature `net`, which is on. A program that has no use for it names this crate with
//! `default-features = false`, and its image is half as large. The feature `vchan`, which is off, adds streams to other
//! domains of the same host (`Env::vchans`); `9pfs`, which is off too, directories of the host (`Env::share`).
//!
//! # What is below
//!
//! The facade knows machines through the traits in [`port`]. The one port so far is [`xen`], which is generic over
//! the hypervisor: on metal it is Xen, in tests it is the simulator's, as here.
//!
//! ```
//! use std::rc::Rc;
//! use std::time::Duration;
//! use fata::stats::Memory;
//! use fata::xen::{Facts, start};
//! use fata_sim::{Consoled, Sim};
//!
//! let sim = Sim::new(1);
//! let domain = sim.domain("guest");
//! let console = Consoled::start(&sim, &domain).unwrap();
//! let facts = Facts { command_line: "-- you".into(), entropy: vec![0; 32], ram: Rc::new(Memory::default) };
//! let mut guest = start(domain.clone(), facts, |env| async move {
//!     env.sleep(Duration::from_secs(1)).await;
//!     env.console().print(&format!("Hello, {}!\n", env.args().application()[0]));
//! });
//! sim.add_guest(&domain, move || {
//!     guest.turn();
//! });
//! sim.run_until(|| domain.shutdown_reason().is_some(), Duration::from_secs(5));
//! assert_eq!(console.text(), "Hello, you!\r\nfata: exit status 0\r\n");
//! ```
#![no_std]
#![deny(unsafe_code)] // start/metal.rs alone allows it, and says why

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod args;
mod console;
#[cfg(feature = "net")]
mod device;
mod env;
mod exit;
#[cfg(feature = "suspend")]
mod lifecycle;
mod log_line;
mod logger;
#[cfg(feature = "net")]
mod network;
pub mod port;
pub mod random;
#[cfg(feature = "9pfs")]
mod share;
mod shutdown;
pub mod start;
pub mod stats;
pub mod xen;

pub use console::Console;
pub use env::Env;
pub use exit::{ExitCode, Failure, Outcome, Termination};
#[cfg(feature = "9pfs")]
pub use fata_9pfront as p9;
#[cfg(any(feature = "net", feature = "9pfs"))]
pub use fata_events::Signal;
pub use fata_events::{Cancelled, Instant, JoinHandle, Sleep, TimedOut, Timeout};
pub use fata_macros::main;
#[cfg(feature = "net")]
pub use fata_net as net;
#[cfg(feature = "vchan")]
pub use fata_vchan as vchan;
#[cfg(feature = "suspend")]
pub use lifecycle::{Event as LifecycleEvent, Hold, Lifecycle};
pub use logger::Logger;
#[cfg(feature = "net")]
pub use network::Error as NetworkError;
pub use shutdown::ShutdownRequest;
