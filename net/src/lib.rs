//! Async TCP, UDP, DNS and DHCP over smoltcp, and the network device trait
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod config;
pub mod device;
mod error;
mod stats;

pub use config::{Cidr, Config, Ipv4Config, Ipv6Config, Limits, Status};
pub use device::{Capabilities, ChecksumOffload, Device, RxChecksum, RxFrame, TxChecksum, TxFrame, TxMeta};
pub use error::{Error, Result};
pub use stats::Stats;
