//! Xenstore client and the xenbus handshake
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod client;
pub mod control;
pub mod decimal;
mod error;
pub mod wire;
pub mod xenbus;

pub use client::{Client, Stats, Store, Transaction, Watch};
pub use error::Error;
