//! A simulated hypervisor for tests: domains, grants, event channels, xenstored, netback, virtual time.

mod check;
mod clock;
mod consoled;
mod domain;
mod faults;
mod grants;
mod leaks;
mod machine;
mod memory;
pub mod netback;
mod ports;
mod rng;
mod sim;
mod store;
mod toolstack;
pub mod wire;

pub use check::check;
pub use consoled::Consoled;
pub use domain::{Activity, Domain, DomainConfig};
pub use faults::{Call, Faults};
pub use grants::{Access, GrantError, Mapping};
pub use leaks::Leaks;
pub use memory::POISON;
pub use netback::Netback;
pub use ports::PortState;
pub use rng::Rng;
pub use sim::{Next, Sim, Waker};
pub use store::{Operation, Perm, Quota, Store, StoreWatch};
pub use toolstack::{ShutdownRequest, VifConfig};
