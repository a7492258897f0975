//! When to try again after something went wrong.

use core::time::Duration;

/// The pauses between attempts: a second, then twice as long each time, up to a minute. So a backend that breaks the
/// protocol each time costs a connection a minute.
#[derive(Debug)]
pub(crate) struct Retry {
    pause: Duration,
}

/// The first pause.
const SHORTEST: Duration = Duration::from_secs(1);
/// The last one. What has gone well for as long as this is no part of the trouble before.
const LONGEST: Duration = Duration::from_secs(60);

impl Retry {
    pub(crate) const fn new() -> Self {
        Self { pause: SHORTEST }
    }

    /// How long to pause after an attempt that ended badly, `lasted` after it began.
    pub(crate) fn pause(&mut self, lasted: Duration) -> Duration {
        if lasted >= LONGEST {
            self.pause = SHORTEST;
        }
        let pause = self.pause;
        self.pause = LONGEST.min(2 * pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn pauses_grow_to_a_minute_and_begin_anew_when_it_went_well() {
        let mut retry = Retry::new();
        let mut pauses = |lasted| {
            let pauses = core::iter::repeat_with(|| retry.pause(Duration::from_secs(lasted)).as_secs());
            pauses.take(8).collect::<Vec<_>>()
        };
        assert_eq!(pauses(59), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses(60), [1; 8]);
        assert_eq!(pauses(0)[..2], [2, 4]);
    }
}
