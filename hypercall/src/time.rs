//! Xen's clock.

/// Xen system time: nanoseconds since the host booted, as pvclock tells it and as `SCHEDOP_poll` wants its deadline.
///
/// Source: `vcpu_time_info` in xen/include/public/xen.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemTime(pub u64);
