//! The clock.

mod common;

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use common::Fake;
use fata_events::xen::PvClock;
use fata_events::{Clock, Instant};
use fata_hypercall::{Hypervisor, SystemTime};
use proptest::prelude::*;

#[test]
fn it_begins_at_zero_and_knows_what_xen_calls_it() {
    let hv = Fake::new();
    hv.0.tsc.set(500);
    let clock = PvClock::new(hv.clone());
    assert_eq!(clock.now(), Instant::ZERO);
    hv.0.tsc.set(2_000_000_500);
    assert_eq!(clock.now(), Instant::from_nanos(2_000_000_000));
    assert_eq!(clock.to_system_time(clock.now()), Some(clock.system_time()));
    assert_eq!(clock.system_time(), SystemTime(1_002_000_000_500));
    assert_eq!(
        clock.to_system_time(Instant::MAX),
        None,
        "Xen would take it for long ago"
    );
}

#[test]
fn a_deadline_is_never_zero_because_that_means_none() {
    let hv = Fake::new();
    hv.shared_info().vcpu_info[0].time.system_time.store(0, Relaxed);
    let clock = PvClock::new(hv);
    assert_eq!(clock.to_system_time(Instant::ZERO), Some(SystemTime(1)));
}

#[test]
fn it_never_goes_back() {
    let hv = Fake::new();
    let clock = PvClock::new(hv.clone());
    hv.0.tsc.set(1000);
    assert_eq!(clock.now(), Instant::from_nanos(1000));
    hv.0.tsc.set(400);
    assert_eq!(clock.now(), Instant::from_nanos(1000));
    // The other processor's counter is behind even the stamp.
    let time = &hv.shared_info().vcpu_info[0].time;
    time.tsc_timestamp.store(5000, Relaxed);
    time.system_time.store(1_000_000_001_500, Relaxed);
    assert_eq!(clock.now(), Instant::from_nanos(1500));
    hv.0.tsc.set(5100);
    assert_eq!(clock.now(), Instant::from_nanos(1600));
}

/// A PV guest's counter begins at 0 when the guest is made, and the first stamp is of Xen's last calibration before that.
#[test]
fn a_stamp_may_be_older_than_the_counter() {
    let hv = Fake::new();
    let time = &hv.shared_info().vcpu_info[0].time;
    time.tsc_timestamp.store(0_u64.wrapping_sub(700_000), Relaxed);
    hv.0.tsc.set(100);
    let clock = PvClock::new(hv.clone());
    assert_eq!(clock.system_time(), SystemTime(1_000_000_700_100));
    hv.0.tsc.set(5000);
    assert_eq!(clock.now(), Instant::from_nanos(4900));
}

#[test]
fn a_stamp_from_long_ago_does_not_overflow() {
    let hv = Fake::new();
    let clock = PvClock::new(hv.clone());
    let century = 100 * 365 * 86_400 * 1_000_000_000_u64;
    hv.0.tsc.set(century);
    assert_eq!(clock.now(), Instant::from_nanos(century));
    let time = &hv.shared_info().vcpu_info[0].time;
    time.tsc_shift.store(-128, Relaxed);
    let held = clock.now();
    time.tsc_shift.store(127, Relaxed);
    assert_eq!(clock.now(), held, "absurd shifts give no time rather than a panic");
}

/// While Xen writes, the version is odd, and what is read is mixed.
#[test]
fn it_waits_while_xen_writes() {
    let hv = Fake::new();
    let clock = PvClock::new(hv.clone());
    let time = &hv.shared_info().vcpu_info[0].time;
    time.version.store(7, Relaxed);
    time.system_time.store(u64::MAX / 2, Relaxed);
    let mut reads = 0;
    // The hook runs in the middle of each read, where the counter is read.
    hv.set_hook(move |hv| {
        let time = &hv.shared_info().vcpu_info[0].time;
        reads += 1;
        match reads {
            1 => {} // it takes its time
            2 => {
                time.system_time.store(1_000_000_000_010, Relaxed);
                time.version.store(8, Relaxed);
            }
            3 => {
                // Xen writes again, all of it within this read.
                time.system_time.store(1_000_000_000_020, Relaxed);
                time.version.store(10, Relaxed);
            }
            _ => {}
        }
    });
    assert_eq!(clock.now(), Instant::from_nanos(20));
}

/// Rule 57: the wall clock follows dom0's corrections, both ways.
#[test]
fn rule_57_the_wall_clock_is_read_anew() {
    let hv = Fake::new();
    let clock = PvClock::new(hv.clone());
    let info = hv.shared_info();
    info.wc_sec.store(1_800_000_000 - 1000, Relaxed);
    info.wc_nsec.store(999_999_999, Relaxed);
    assert_eq!(clock.wall_clock(), Duration::new(1_800_000_000, 999_999_999));
    info.wc_version.store(2, Relaxed);
    info.wc_sec.store(1_700_000_000, Relaxed);
    info.wc_nsec.store(0, Relaxed);
    hv.0.tsc.set(5);
    assert_eq!(clock.wall_clock(), Duration::new(1_700_001_000, 5));
    info.wc_sec_hi.store(1, Relaxed);
    assert_eq!(
        clock.wall_clock(),
        Duration::new((1 << 32) + 1_700_001_000, 5),
        "past 2106"
    );
    for field in [&info.wc_sec, &info.wc_sec_hi, &info.wc_nsec] {
        field.store(u32::MAX, Relaxed);
    }
    assert!(
        clock.wall_clock() > Duration::from_secs(u64::MAX - 1),
        "nonsense is no panic"
    );
}

proptest! {
    /// Against the formula in xen.h, computed without a limit on the width.
    #[test]
    fn scales_as_the_header_says(delta in 0..1_u64 << 50, mul in any::<u32>(), shift in -20_i8..12) {
        let hv = Fake::new();
        let time = &hv.shared_info().vcpu_info[0].time;
        time.system_time.store(0, Relaxed);
        time.tsc_timestamp.store(77, Relaxed);
        time.tsc_to_system_mul.store(mul, Relaxed);
        time.tsc_shift.store(shift, Relaxed);
        hv.0.tsc.set(77);
        let clock = PvClock::new(hv.clone());
        hv.0.tsc.set(77 + delta);
        let shifted = if shift < 0 { u128::from(delta) >> -shift } else { u128::from(delta) << shift };
        prop_assert_eq!(u128::from(clock.now().as_nanos()), (shifted * u128::from(mul)) >> 32);
    }
}

/// A restored domain's host has been up for another time: less long than the domain even. Time goes on where it stopped.
#[test]
fn it_goes_on_in_a_new_domain() {
    let hv = Fake::new();
    let clock = PvClock::new(hv.clone());
    hv.0.tsc.set(5_000_000_000_000);
    let before = clock.now();
    assert_eq!(before, Instant::from_nanos(5_000_000_000_000));

    let time = &hv.shared_info().vcpu_info[0].time;
    hv.0.tsc.set(70);
    time.system_time.store(1_000_000_000, Relaxed);
    clock.resume();
    assert_eq!(clock.now(), before);
    hv.0.tsc.set(1070);
    assert_eq!(clock.now(), before + Duration::from_nanos(1000));
    // Deadlines that were set before are as far away as they were.
    assert_eq!(
        clock.to_system_time(before + Duration::from_secs(3)),
        Some(SystemTime(4_000_000_070))
    );
    assert_eq!(
        clock.to_system_time(Instant::ZERO),
        Some(SystemTime(1)),
        "before that host was up"
    );
    assert_eq!(clock.to_system_time(Instant::MAX), None);
}
