//! A simulated hypervisor for tests: domains, grants, event channels, xenstored, netback, a 9pfs backend, virtual time.
//!
//! Several domains run in one thread, in an order that a seed decides, under a clock that moves only when all sleep. Backends
//! and daemons also get on in the middle of a guest's turn, wherever it makes a hypercall or looks at its clock or events.
//! The crates that run on Xen run here as they are: a [`Domain`] is a [`Hypervisor`](fata_hypercall::Hypervisor).
//! Pages are real and truly shared, pending bits are set where Xen sets them, and the backend is as strict as
//! Linux's.
//!
//! # Testing an application
//!
//! Boot it, talk to it from a host on its bridge, shut it down, and see that nothing is left:
//!
//! ```
//! use std::net::SocketAddr;
//! use std::rc::Rc;
//! use std::time::Duration;
//! use fata::{Env, NetworkError};
//! use fata_sim::wire::{Host, HostConfig, Impairment};
//! use fata_sim::{Consoled, ShutdownRequest, VifConfig, check};
//!
//! async fn greeter(env: Env) -> Result<(), NetworkError> {
//!     let listener = env.net().await?.listen(7)?;
//!     loop {
//!         let stream = listener.accept().await?;
//!         stream.write_all(b"hello").await?;
//!         stream.close().await?;
//!     }
//! }
//!
//! check(0..10, |sim| {
//!     let domain = sim.domain("greeter");
//!     let vif = sim.add_vif(&domain, VifConfig::default());
//!     let console = Consoled::start(sim, &domain).unwrap();
//!     let host = Host::start(sim, &sim.bridge("xenbr0"), HostConfig::default()); // 10.0.0.1
//!     sim.bridge("xenbr0").impair(Impairment { loss: 20, ..Impairment::NONE });
//!     let ram = Rc::new(|| fata::stats::Memory { total: 8 << 20, ..Default::default() });
//!     let facts = fata::xen::Facts { command_line: "ipv4=10.0.0.2/24".into(), entropy: vec![7; 32], ram };
//!     let mut guest = fata::xen::start(domain.clone(), facts, greeter);
//!     sim.add_guest(&domain, move || { guest.turn(); });
//!     sim.run_until(|| vif.is_connected(), Duration::from_secs(10));
//!     sim.run_for(Duration::from_secs(1)); // it listens a moment later
//!
//!     let client = host.connect(SocketAddr::from(([10, 0, 0, 2], 7)));
//!     sim.run_until(|| client.is_closed_by_peer(), Duration::from_secs(10));
//!     assert_eq!(client.take(), b"hello");
//!     client.close();
//!
//!     sim.request_shutdown(&domain, ShutdownRequest::PowerOff);
//!     sim.run_until(|| domain.shutdown_reason().is_some(), Duration::from_secs(30));
//!     sim.run_for(Duration::from_secs(1)); // the console daemon reads the last words
//!     assert!(console.text().contains("exit status 0"));
//!     sim.remove_guest(&domain);
//!     sim.assert_no_leaks(&domain);
//! });
//! ```
//!
//! A run that fails prints the line that replays it: `FATA_SEED=... cargo test ...`.
//!
//! # What is where
//!
//! | To do | Use |
//! |---|---|
//! | run a driver without the facade | [`Sim::add_guest`] with a turn of its event loop |
//! | look at or change the store | [`Sim::store`] |
//! | choose what the backend offers, says of checksums, how it fills buffers | [`VifConfig::backend`] |
//! | lose, double, delay or damage packets by chance | [`wire::Switch::impair`] |
//! | change or record packets | [`wire::Switch`] |
//! | make a hypercall fail, once or by chance | [`Domain::faults`] |
//! | have events come late, twice, or without a cause | [`Domain::set_event_faults`], [`Sim::spurious_events`] |
//! | save and restore a domain, or only copy it | [`Sim::suspend`] |
//! | have xenstored pause, refuse commits, repeat events | [`Store::set_stopped`], [`Store::set_faults`] |
//! | kill a driver domain, start it anew, have it hang | [`Backend::crash`], [`restart`](Backend::restart), [`set_silent`](Backend::set_silent) |
//! | take a device away, or give it another backend | [`Sim::remove_device`], [`forget_device`](Sim::forget_device), [`move_device`](Sim::move_device) |
//! | share a directory, and look at it from the host | [`Sim::add_share`] |
//! | have a backend break the rules | [`Netback::set_malice`], [`P9Back::set_malice`] |
//! | see that no memory is shown to anybody by mistake | [`Domain::watch_for_poison`], [`PoisonHeap`] |
//! | write a service of your own | [`Sim::add_service`] |
//! | find broken rules rather than stop at them | [`Sim::expect_violations`] |
//!
//! # What is watched all the time
//!
//! A run stops, with the name of the culprit, when a domain sends on a closed port, frees a page that is granted or
//! mapped, writes to a page after freeing it, grants a page twice, takes a grant back while it is mapped, breaks a
//! ring, changes what it has sent before the answer, or sends what Linux's netback would drop or punish; and when all sleep
//! although something is due: a lost wake-up, which a retransmission would cover up.
//!
//! # What is not simulated
//!
//! Several vCPUs, the FIFO event ABI, grant table version 2. A domain that calls
//! [`poll`](fata_hypercall::Hypervisor::poll) twice in one turn does not wait in between: nobody else can run then.

mod backend;
mod canary;
mod check;
mod clock;
mod consoled;
mod domain;
mod events;
mod faults;
mod fifo;
mod fifo_queue;
mod grants;
mod heap;
mod leaks;
mod machine;
mod memory;
pub mod netback;
mod p9back;
mod ports;
mod restore;
mod rng;
mod sim;
mod stalls;
mod store;
mod toolstack;
pub mod wire;

pub use backend::{Backend, Driver, XenbusState};
pub use canary::find_poison;
pub use check::check;
pub use consoled::Consoled;
pub use domain::{Activity, Domain, DomainConfig};
pub use events::EventFaults;
pub use faults::{Call, Faults};
pub use grants::{Access, Mapping};
pub use heap::PoisonHeap;
pub use leaks::Leaks;
pub use memory::POISON;
pub use netback::{Netback, VifConfig};
pub use p9back::{P9Back, P9Config, P9Driver, P9Trick};
pub use ports::PortState;
pub use rng::Rng;
pub use sim::{Next, Sim, Waker};
pub use store::{Operation, Perm, Quota, Store, StoreFaults, StoreWatch};
pub use toolstack::ShutdownRequest;
