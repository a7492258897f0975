//! The cooperative loop: tasks, timers and wakers; and, in [`xen`], Xen's event channels.
//!
//! Everything runs on one thread. A task is a future on the heap that need not be `Send`; a waker is `Send` and
//! `Sync` and does nothing but put its task into a queue. The loop knows no hypervisor: a port gives it a
//! [`Clock`], calls [`Executor::turn`] again and again, and sleeps when it is told [`Turn::Idle`]. Stepped by hand
//! under a [`ManualClock`] it is deterministic, which is how the simulator uses it.
//!
//! ```
//! use core::time::Duration;
//! use fata_events::{Executor, Instant, ManualClock, Turn};
//! use std::rc::Rc;
//!
//! let clock = Rc::new(ManualClock::default());
//! let mut executor = Executor::new(clock.clone());
//! let handle = executor.handle();
//! let sleeper = handle.spawn({
//!     let handle = handle.clone();
//!     async move {
//!         handle.sleep(Duration::from_secs(5)).await;
//!         handle.now()
//!     }
//! });
//!
//! // The loop says until when it has nothing to do. A real port sleeps until then; we turn the hands of the clock.
//! let deadline = Instant::ZERO + Duration::from_secs(5);
//! assert_eq!(executor.turn(), Turn::Idle { deadline: Some(deadline) });
//! clock.set(deadline);
//! assert_eq!(executor.turn(), Turn::Idle { deadline: None });
//! assert!(sleeper.is_finished());
//! ```
//!
//! # Waiting without losing anything
//!
//! A flag that says "something happened" loses events as soon as two things look at it. [`Signal`] counts instead,
//! and a waiter says which count it has seen; see there. Every event channel is such a counter.
//!
//! # Two futures at once
//!
//! [`select`] and [`join`] come from the crate `embassy-futures`, which needs neither heap nor executor.
#![no_std]
#![forbid(unsafe_code)]
// Nothing that a peer writes can cause a panic (rule 88).
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)]
#![warn(clippy::indexing_slicing, clippy::string_slice)]

extern crate alloc;

mod clock;
mod executor;
mod join_handle;
pub mod queue;
mod ready;
mod signal;
mod sync;
mod tasks;
mod timer_heap;
mod timers;
mod wait_list;
pub mod xen;
mod yield_now;

pub use clock::{Clock, Instant, ManualClock};
pub use embassy_futures::{join, select};
pub use executor::{Executor, Handle, Stats, Turn};
pub use join_handle::{Cancelled, JoinHandle};
pub use signal::{Raised, Signal, any};
pub use timers::{Sleep, TimedOut, Timeout};
pub use yield_now::{YieldNow, yield_now};
