//! xen/include/public/sched.h

use super::assert_layout;

/// `SCHEDOP_shutdown`
pub const SHUTDOWN: u64 = 2;
/// `SHUTDOWN_suspend`
pub const SHUTDOWN_SUSPEND: u32 = 2;
/// `SCHEDOP_poll`
pub const POLL: u64 = 3;
/// The most ports that one `SCHEDOP_poll` takes.
pub const POLL_MAX_PORTS: usize = 128;

/// `sched_poll`
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Poll {
    /// In: address of an array of ports.
    pub ports: u64,
    /// In: how many, at most [`POLL_MAX_PORTS`].
    pub nr_ports: u32,
    /// In: absolute system time in nanoseconds; 0 for no limit.
    pub timeout: u64,
}
assert_layout!(Poll, 24 / 8, ports @ 0, nr_ports @ 8, timeout @ 16);

/// `sched_shutdown`
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Shutdown {
    /// In: `SHUTDOWN_*`.
    pub reason: u32,
}
assert_layout!(Shutdown, 4 / 4, reason @ 0);
