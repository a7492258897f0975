//! Fata: the one crate an application names.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod args;
mod exit;
pub mod random;

pub use exit::{ExitCode, Failure, Outcome, Termination};
