//! Arithmetic with time: it ends at both ends, and does not wrap.

use std::time::Duration;

use fata_events::Instant;

#[test]
fn instants_and_durations() {
    let (early, late) = (Instant::from_nanos(5), Instant::from_nanos(12));
    let seven = Duration::from_nanos(7);
    assert_eq!((early + seven, late - seven, late - early), (late, early, seven));
    let mut instant = early;
    instant += seven;
    assert_eq!((instant, instant.since_zero()), (late, Duration::from_nanos(12)));
    assert_eq!(format!("{late:?}"), "12ns");
}

#[test]
fn time_ends_and_does_not_wrap() {
    let one = Duration::from_nanos(1);
    assert_eq!(Instant::ZERO - one, Instant::ZERO);
    assert_eq!(Instant::MAX + one, Instant::MAX);
    assert_eq!(Instant::ZERO + Duration::MAX, Instant::MAX);
    assert_eq!(Instant::MAX - Duration::MAX, Instant::ZERO);
    assert_eq!(
        Instant::ZERO - Instant::MAX,
        Duration::ZERO,
        "what is earlier is no time ago"
    );
}
