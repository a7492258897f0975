//! When the neighbours are told where we are.

use core::array;
use core::time::Duration;

use fata_events::Instant;

/// How long after the one before each further announcement comes when the link was lost and is back. The neighbours want to go on,
/// and those who ask for us meanwhile may ask in vain: a Linux bridge takes up to a second until it forwards for a new port. So it
/// is said as often and as long as QEMU says it for a guest that was migrated (its `announce-` parameters).
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
    /// When the next one is.
    at: Option<Instant>,
    /// What comes between those after it.
    pauses: Option<array::IntoIter<Duration, { PAUSES.len() }>>,
}

impl Announcements {
    /// At once: our addresses are others, or the link is up.
    ///
    /// The first time it is said only once. A neighbour that has nothing of us yet will ask, and so tell where it is. One that knows
    /// sends what it has kept for us without asking, and smoltcp does not keep an answer until it knows where to send it.
    pub(crate) fn begin(&mut self) {
        self.at = Some(Instant::ZERO);
    }

    /// When the link is back it will be said again and again, for a good second.
    pub(crate) fn link_lost(&mut self) {
        self.pauses = Some(PAUSES.into_iter());
    }

    /// Whether one is due. It is said then.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        if self.at.is_none_or(|at| at > now) {
            return false;
        }
        let pause = self.pauses.as_mut().and_then(Iterator::next);
        self.at = pause.map(|pause| now + pause);
        true
    }

    /// When the next one is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.at
    }
}
