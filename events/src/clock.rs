//! Time, as the loop sees it.

use core::cell::Cell;
use core::fmt;
use core::ops::{Add, AddAssign, Sub};
use core::time::Duration;

/// A moment: nanoseconds since the clock's zero, which is when the guest started.
///
/// Arithmetic stops at the ends (584 years) instead of wrapping: an absurd timeout means "never", not "at once".
///
/// ```
/// use core::time::Duration;
/// use fata_events::Instant;
/// let start = Instant::from_nanos(500);
/// assert_eq!(start + Duration::from_nanos(20), Instant::from_nanos(520));
/// assert_eq!(start - Instant::from_nanos(600), Duration::ZERO);
/// assert_eq!(start + Duration::MAX, Instant::MAX);
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The clock's zero.
    pub const ZERO: Self = Self(0);
    /// As good as never.
    pub const MAX: Self = Self(u64::MAX);

    /// The moment `nanos` nanoseconds after the clock's zero.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's zero.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since the clock's zero.
    #[must_use]
    pub const fn since_zero(self) -> Duration {
        Duration::from_nanos(self.0)
    }
}

/// A duration in nanoseconds, cut to 64 bits.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.since_zero().fmt(f)
    }
}

/// Where the loop's time comes from.
pub trait Clock {
    /// Now. It never goes back.
    fn now(&self) -> Instant;
}

/// A clock that somebody else turns: for tests and simulation.
#[derive(Debug, Default)]
pub struct ManualClock(Cell<Instant>);

impl ManualClock {
    /// Turns the clock to `instant`; an earlier one than now is ignored, because clocks never go back.
    pub fn set(&self, instant: Instant) {
        self.0.set(self.0.get().max(instant));
    }

    /// Turns the clock on by `duration`.
    pub fn advance(&self, duration: Duration) {
        self.0.set(self.0.get() + duration);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.0.get()
    }
}
