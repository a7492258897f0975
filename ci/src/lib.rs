//! The machines the integration tests run on, and those tests.
//!
//! # The Xen host
//!
//! [`XenHost`] is a real Xen 4.17 with a real Linux 6.1 as dom0 and the real toolstack, inside QEMU, on any x86-64 Linux
//! with Debian's `apt-get`: no root, no hardware virtualisation, nothing installed. The first start makes it, later ones
//! take about a second:
//!
//! 1. `packages`: apt downloads QEMU, Xen, Linux and dom0's programs into a private folder; dpkg-deb unpacks them.
//! 2. `image`: QEMU is copied with the libraries it needs and its own loader, so that nothing of this computer is mixed in.
//!    dom0's programs, their libraries and the needed Linux modules become an initial RAM disk, dom0's only file system.
//! 3. `snapshot`: Xen and dom0 boot once, with the scripts in `ci/dom0`; QEMU writes the machine's state to a file.
//! 4. Every [`XenHost::start`] reads that file. Commands and files travel over TCP through QEMU's user network to an agent
//!    in dom0, at any time and as often as one likes.
//!
//! # What it costs
//!
//! On two cores, without other load: 20 s to download (125 MB), unpack and build, 11 s to boot and save the snapshot, once;
//! then 0.5 to 1 s from [`XenHost::start`] to an answering dom0. A command in dom0 takes 0.1 s, a file of 250 KB 0.1 s, `xl
//! create` of a small guest 0.5 to 1 s. Under load everything takes longer in proportion; it is all computation.
//! A host takes about 0.5 GB of memory.
//!
//! # The cache
//!
//! Everything lies in [`Cache`], one folder, which may be deleted at any time:
//!
//! | entry | what | size |
//! |---|---|---|
//! | `lock` | held while something is built | 0 |
//! | `apt/` | package index; while building, also the downloaded packages (130 MB) | 19 MB |
//! | `machine-HASH/` | QEMU (50 MB), Xen, Linux, dom0's RAM disk (14 MB), the Linux guest (65 MB); `packages.txt` names the versions | 137 MB |
//! | `run/` | for each host that runs, links, sockets and logs; removed at its end | 0 |
//! | `snapshot-HASH/` | a booted host, one per recipe, clock and memory size; `boot.log` is what Xen said while it booted | 180 MB |
//!
//! While it is built it needs another 800 MB for a short time.
//!
//! HASH is of the recipe (`recipe`, QEMU's arguments, our scripts): a changed recipe is built anew. Two machines
//! and four snapshots stay, those last used, so that two checkouts do not take each other's away; none in use is removed.
//! Folders with `.part` at their end are unfinished and are removed by the next start.

#![forbid(unsafe_code)]

mod agent;
pub mod bench;
mod cache;
pub mod cpio;
mod domain;
mod error;
mod host;
mod image;
mod modules;
pub mod network;
mod packages;
mod progress;
mod qemu;
mod qmp;
mod recipe;
mod rogue;
mod run_folder;
mod snapshot;
pub mod suite;
mod tree;

pub use agent::Output;
pub use cache::Cache;
pub use domain::{Domain, DomainState, Guest, quoted};
pub use error::Error;
pub use host::{Clock, Options, XenHost};
pub use progress::{Progress, Reporter, Stage};
