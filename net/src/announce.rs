//! When the neighbours are told where we are.

use core::time::Duration;

use fata_events::Instant;

/// How long after the one before each further announcement comes. A link that comes up is not the whole way: a Linux bridge takes
/// up to a second until it forwards for the port, and a neighbour that asked meanwhile asks again only a second later. So this is
/// said again, as often and as long as QEMU says it for a guest that was migrated (its `announce-` parameters). RFC 5227 asks for two at
/// the least.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(250),
    Duration::from_millis(350),
    Duration::from_millis(450),
];

/// Announcements that are due.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    /// Which of the pauses comes after the next one; `None`: all is said.
    next: Option<usize>,
    at: Option<Instant>,
}

impl Announcements {
    /// From now on, and at once: addresses are other ones, or the link is up.
    pub(crate) fn begin(&mut self) {
        self.next = Some(0);
        self.at = None;
    }

    /// Whether this is the first of a row.
    pub(crate) fn is_first(&self) -> bool {
        self.next == Some(0)
    }

    /// Whether one is due. It is said then.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let Some(next) = self.next.filter(|_| self.at.is_none_or(|at| at <= now)) else {
            return false;
        };
        let pause = PAUSES.get(next);
        self.next = pause.map(|_| next + 1);
        self.at = pause.map(|&pause| now + pause);
        true
    }

    /// When the next one is due, if it is not at once.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn six_within_a_good_second_and_then_silence() {
        let mut announcements = Announcements::default();
        let zero = Instant::ZERO;
        assert!(!announcements.take(zero) && announcements.deadline().is_none());
        announcements.begin();
        let mut said = Vec::new();
        let mut now = zero + Duration::from_secs(5);
        assert!(announcements.is_first());
        loop {
            assert!(announcements.take(now) && !announcements.take(now) && !announcements.is_first());
            said.push((now - zero).as_millis() - 5000);
            match announcements.deadline() {
                Some(at) => now = at,
                None => break,
            }
        }
        assert_eq!(said, [0, 50, 200, 450, 800, 1250]);
        assert!(!announcements.take(now + Duration::from_secs(9)));
        announcements.begin();
        assert!(announcements.take(now));
    }
}
