//! A simulated hypervisor for tests: domains, grants, event channels, xenstored, netback, virtual time.

mod clock;
mod domain;
mod faults;
mod grants;
mod leaks;
mod machine;
mod memory;
mod ports;
mod rng;
mod sim;
mod toolstack;

pub use domain::{Activity, Domain, DomainConfig};
pub use faults::{Call, Faults};
pub use grants::{Access, GrantError, Mapping};
pub use leaks::Leaks;
pub use memory::POISON;
pub use ports::PortState;
pub use rng::Rng;
pub use sim::{Next, Sim, Waker};
