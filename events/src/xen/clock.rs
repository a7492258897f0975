//! Time from Xen: pvclock and the wall clock (`vcpu_time_info` and `wc_*` in xen/include/public/xen.h).

use core::cell::Cell;
use core::fmt;
use core::time::Duration;

use fata_hypercall::abi::shared_info::VcpuTimeInfo;
use fata_hypercall::sync::{AtomicU32, Ordering, fence, spin_loop};
use fata_hypercall::{Hypervisor, SystemTime};

use crate::{Clock, Instant};

/// The domain's clock. Its zero is when it was made, that is when the guest started.
///
/// Reading it takes no hypercall: Xen tells in shared memory how to turn the processor's time-stamp counter into
/// nanoseconds.
pub struct PvClock<H> {
    hv: H,
    /// What Xen's system time was, or would have been, when the clock's was 0. A host that the domain was moved to may have
    /// been up for less long than the domain.
    zero: Cell<i64>,
    /// The latest time told. Without `TSC_STABLE` the counters of two processors disagree, and the domain may have
    /// moved from one to the other; so time is held at the latest until the other counter has caught up.
    latest: Cell<SystemTime>,
}

impl<H: Hypervisor> PvClock<H> {
    /// A clock whose zero is now.
    #[must_use]
    pub fn new(hv: H) -> Self {
        let now = read_time(&hv);
        Self {
            hv,
            zero: Cell::new(now.0.cast_signed()),
            latest: Cell::new(now),
        }
    }

    /// Xen system time: nanoseconds since the host booted.
    #[must_use]
    pub fn system_time(&self) -> SystemTime {
        let now = read_time(&self.hv).max(self.latest.get());
        self.latest.set(now);
        now
    }

    /// `instant` as Xen counts it, for `SCHEDOP_poll`. `None` if Xen cannot count that far, which is 292 years: its time
    /// is signed, and it would take what is beyond for long ago.
    #[must_use]
    pub fn to_system_time(&self, instant: Instant) -> Option<SystemTime> {
        let time = self.zero.get().checked_add_unsigned(instant.as_nanos())?;
        // Never 0, which means "no deadline" there.
        Some(SystemTime(time.max(1).cast_unsigned()))
    }

    /// Goes on in a new Xen domain ([`Suspended::Restored`](fata_hypercall::Suspended::Restored)), whose host counts from
    /// another beginning. The time in which the domain stood still is no time of this clock's.
    pub fn resume(&self) {
        let told = self.latest.get().0.cast_signed();
        let now = read_time(&self.hv);
        let moved = now.0.cast_signed().wrapping_sub(told);
        self.zero.set(self.zero.get().wrapping_add(moved));
        self.latest.set(now);
    }

    /// Time since 1970 (UTC, without leap seconds). It may jump: Xen corrects it when dom0 sets the time, so it is
    /// read anew each time (rule 57).
    #[must_use]
    pub fn wall_clock(&self) -> Duration {
        let info = self.hv.shared_info();
        let at_boot = read_versioned(&info.wc_version, || {
            let low = info.wc_sec.load(Ordering::Relaxed);
            let high = info.wc_sec_hi.load(Ordering::Relaxed);
            let seconds = u64::from(high) << 32 | u64::from(low);
            Duration::from_secs(seconds)
                .saturating_add(Duration::from_nanos(info.wc_nsec.load(Ordering::Relaxed).into()))
        });
        at_boot.saturating_add(Duration::from_nanos(self.system_time().0))
    }
}

impl<H: Hypervisor> Clock for PvClock<H> {
    fn now(&self) -> Instant {
        let since = self.system_time().0.cast_signed().saturating_sub(self.zero.get());
        Instant::from_nanos(since.max(0).cast_unsigned())
    }
}

impl<H> fmt::Debug for PvClock<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PvClock")
            .field("zero", &self.zero)
            .field("latest", &self.latest)
            .finish_non_exhaustive()
    }
}

/// Reads what Xen writes under a version: odd while it writes, another one afterwards.
///
/// It waits for as long as Xen writes, which is a few instructions, and Xen is trusted.
fn read_versioned<T>(version: &AtomicU32, read: impl Fn() -> T) -> T {
    loop {
        let before = version.load(Ordering::Acquire);
        let value = read();
        fence(Ordering::Acquire); // the version is read again only after the value
        if before & 1 == 0 && version.load(Ordering::Relaxed) == before {
            return value;
        }
        spin_loop();
    }
}

pub(super) fn read_time<H: Hypervisor>(hv: &H) -> SystemTime {
    let [vcpu, ..] = &hv.shared_info().vcpu_info;
    read_versioned(&vcpu.time.version, || system_time_at(&vcpu.time, hv.tsc()))
}

/// The system time when the counter shows `tsc`.
fn system_time_at(time: &VcpuTimeInfo, tsc: u64) -> SystemTime {
    // The stamp may be from before the counter was 0, and is then negative, modulo 2^64: so it is in a PV guest younger than
    // Xen's last calibration. A counter before the stamp is that of another processor, a little behind: no time has passed.
    let ticks = tsc.wrapping_sub(time.tsc_timestamp.load(Ordering::Relaxed));
    let ticks = ticks.cast_signed().max(0).cast_unsigned();
    let shift = time.tsc_shift.load(Ordering::Relaxed);
    let distance = u32::from(shift.unsigned_abs());
    let scaled = if shift < 0 {
        ticks.checked_shr(distance)
    } else {
        ticks.checked_shl(distance)
    }
    .unwrap_or(0);
    // 64 by 32 bits: the product has 96, so a stamp may be as old as it likes.
    let product = u128::from(scaled) * u128::from(time.tsc_to_system_mul.load(Ordering::Relaxed));
    let passed = (product >> 32) as u64;
    SystemTime(time.system_time.load(Ordering::Relaxed).wrapping_add(passed))
}
