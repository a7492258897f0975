//! Virtual time, and the clock that a domain reads it by.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use fata_hypercall::abi::shared_info::{SharedInfo, VcpuTimeInfo};

use crate::rng::Rng;

/// `VCPU_TIME_INFO` flag: the counter is the same on all CPUs (`XEN_PVCLOCK_TSC_STABLE_BIT`).
const TSC_STABLE: u8 = 1;

/// How a domain's time-stamp counter runs. Every form converts to whole nanoseconds without rounding, so that a
/// domain that sleeps until t reads t when it wakes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tsc {
    /// Ticks at system time 0.
    base: u64,
    /// log2 of the ticks per nanosecond.
    log2_ghz: u8,
}

impl Tsc {
    pub(crate) const fn new(rng: &mut Rng) -> Self {
        Self {
            base: rng.below(1 << 48),
            log2_ghz: rng.below(4) as u8,
        }
    }

    /// The counter at `now`, in nanoseconds of system time.
    pub(crate) const fn at(self, now: u64) -> u64 {
        self.base.wrapping_add(now << self.log2_ghz)
    }

    /// Writes the record that converts the counter at `now` to `system_time`, as Xen does when it schedules a vCPU.
    ///
    /// ns = system_time + (((tsc - tsc_timestamp) shifted by tsc_shift) * mul >> 32), with mul = 2^31 throughout.
    pub(crate) fn anchor(self, time: &VcpuTimeInfo, now: u64, system_time: u64) {
        let version = time.version.load(Relaxed);
        time.version.store(version.wrapping_add(1), Relaxed);
        time.tsc_timestamp.store(self.at(now), Relaxed);
        time.system_time.store(system_time, Relaxed);
        time.tsc_to_system_mul.store(1 << 31, Relaxed);
        time.tsc_shift.store(1 - self.log2_ghz as i8, Relaxed);
        time.flags.store(TSC_STABLE, Relaxed);
        time.version.store(version.wrapping_add(2), Relaxed);
    }
}

/// Writes what the wall clock showed at system time 0.
pub(crate) fn write_wall_clock(info: &SharedInfo, at_system_time_zero: Duration) {
    let version = info.wc_version.load(Relaxed);
    info.wc_version.store(version.wrapping_add(1), Relaxed);
    let seconds = at_system_time_zero.as_secs();
    info.wc_sec.store(seconds as u32, Relaxed);
    info.wc_sec_hi.store((seconds >> 32) as u32, Relaxed);
    info.wc_nsec.store(at_system_time_zero.subsec_nanos(), Relaxed);
    info.wc_version.store(version.wrapping_add(2), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The conversion as xen/include/public/xen.h describes it.
    fn convert(time: &VcpuTimeInfo, tsc: u64) -> u64 {
        let delta = tsc.wrapping_sub(time.tsc_timestamp.load(Relaxed));
        let shift = time.tsc_shift.load(Relaxed);
        let delta = if shift < 0 { delta >> -shift } else { delta << shift };
        let scaled = (u128::from(delta) * u128::from(time.tsc_to_system_mul.load(Relaxed))) >> 32;
        time.system_time.load(Relaxed) + scaled as u64
    }

    #[test]
    fn every_counter_tells_the_exact_time() {
        let mut rng = Rng::new(3);
        for _ in 0..32 {
            let tsc = Tsc::new(&mut rng);
            let time = VcpuTimeInfo::default();
            let anchored = rng.below(1 << 40);
            tsc.anchor(&time, anchored, anchored);
            for after in [0, 1, 2, 3, 999, 1_000_000_007] {
                assert_eq!(convert(&time, tsc.at(anchored + after)), anchored + after, "{tsc:?}");
            }
            assert_eq!(time.version.load(Relaxed) % 2, 0);
        }
    }
}
