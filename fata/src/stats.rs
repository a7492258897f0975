//! Figures of the running program.

#[cfg(feature = "net")]
use alloc::string::String;
#[cfg(feature = "net")]
use alloc::vec::Vec;
use core::time::Duration;

/// The heap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of memory that the program has for data now.
    pub total: usize,
    /// Bytes in use now.
    pub used: usize,
    /// Bytes that the hypervisor has, and that the program had or may have when the administrator lets it.
    pub ballooned: usize,
}

impl Memory {
    /// Bytes that are not in use.
    #[must_use]
    pub fn free(&self) -> usize {
        self.total.saturating_sub(self.used)
    }
}

/// Pages shared with other domains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Grants {
    /// Grant references in use.
    pub active: usize,
    /// Pages that are kept from use because a peer still has them mapped.
    pub quarantined: usize,
}

/// How the program and the machine's other parts have woken each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Events received; several that came before the program looked are one.
    pub received: u64,
    /// Events sent, each by a hypercall.
    pub sent: u64,
    /// How often the program had nothing to do and slept, each by a hypercall.
    pub sleeps: u64,
}

/// One network interface.
#[cfg(feature = "net")]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceStats {
    /// `net0`
    pub name: String,
    /// Whether frames can be exchanged.
    pub link_up: bool,
    /// What the stack on it has done; all zero if nobody asked for it yet.
    pub stack: fata_net::Stats,
}

/// Everything that [`Env::stats`](crate::Env::stats) knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Time since the program started.
    pub uptime: Duration,
    /// The heap.
    pub memory: Memory,
    /// Pages shared with other domains.
    pub grants: Grants,
    /// Open event channels.
    pub ports: usize,
    /// Events on them.
    pub events: Events,
    /// Places in the machine's configuration that are watched for changes.
    pub watches: usize,
    /// Tasks alive.
    pub tasks: usize,
    /// Timers running.
    pub timers: usize,
    /// Bytes that the console could not take.
    pub console_dropped: u64,
    /// The network interfaces.
    #[cfg(feature = "net")]
    pub interfaces: Vec<InterfaceStats>,
}
