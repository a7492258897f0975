//! Connections in TIME-WAIT, without their buffers.
//!
//! smoltcp keeps a socket with all its memory for ten seconds after both sides have closed. A server that closes
//! first would need hundreds of megabytes at a thousand connections per second. What TIME-WAIT has to do (RFC 9293
//! section 3.6.1) needs only the connection's name:
//!
//! * a FIN that the peer sends again, because our last acknowledgement got lost, is acknowledged again. The numbers
//!   for that are in the FIN itself: it acknowledges everything we ever sent, and ends what the peer ever sent;
//! * stray segments are dropped, and a RST changes nothing (RFC 1337);
//! * a new SYN for a port somebody listens on starts a new connection at once. (Linux compares sequence numbers
//!   first. Should the SYN be an old duplicate, then the peer answers the SYN-ACK with a RST.)

use alloc::collections::VecDeque;
use core::time::Duration;

use fata_events::Instant;

use crate::names::{Names, Tuple};

/// The connections in TIME-WAIT.
pub(crate) struct TimeWait {
    /// Those in `queue` that count, by their number.
    names: Names,
    /// In order of expiry.
    queue: VecDeque<(Instant, Tuple)>,
    /// The number of the first in `queue`; the others follow.
    first: u32,
    limit: usize,
    duration: Duration,
}

impl TimeWait {
    /// At most `limit` connections, each for `duration`.
    pub(crate) fn new(names: Names, limit: usize, duration: Duration) -> Self {
        Self {
            names,
            queue: VecDeque::new(),
            first: 0,
            limit,
            duration,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether this connection is one of them.
    pub(crate) fn contains(&self, tuple: &Tuple) -> bool {
        self.find(tuple).is_some()
    }

    /// Adds a connection; above the limit, the oldest one is forgotten.
    pub(crate) fn insert(&mut self, now: Instant, tuple: Tuple) {
        self.expire(now);
        self.remove(&tuple);
        if self.limit == 0 || self.queue.try_reserve(1).is_err() {
            return;
        }
        // Entries that were removed early stay in the queue: it is bounded by itself.
        while self.queue.len() >= self.limit {
            self.pop();
        }
        let number = self.first.wrapping_add(self.queue.len() as u32);
        if self.names.insert(&tuple, number).is_ok() {
            self.queue.push_back((now + self.duration, tuple));
        }
    }

    /// Forgets a connection, because its name is used again.
    pub(crate) fn remove(&mut self, tuple: &Tuple) {
        if let Some(number) = self.find(tuple) {
            self.names.remove(tuple, number);
        }
    }

    /// Forgets those whose time is over. They need no timer: it is called whenever it matters.
    pub(crate) fn expire(&mut self, now: Instant) {
        while self.queue.front().is_some_and(|(expires, _)| *expires <= now) {
            self.pop();
        }
    }

    fn find(&self, tuple: &Tuple) -> Option<u32> {
        self.names.find(tuple, &|number| {
            let index = number.wrapping_sub(self.first) as usize;
            self.queue.get(index).is_some_and(|(_, other)| other == tuple)
        })
    }

    fn pop(&mut self) {
        if let Some((_, tuple)) = self.queue.pop_front() {
            self.names.remove(&tuple, self.first);
            self.first = self.first.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::SeedRng;

    fn table(limit: usize) -> TimeWait {
        TimeWait::new(Names::new(&mut SeedRng::new(1)), limit, Duration::from_secs(10))
    }

    fn tuple(port: u16) -> Tuple {
        Tuple {
            local: ([10, 0, 0, 1], 80).into(),
            remote: ([10, 0, 0, 2], port).into(),
        }
    }

    #[test]
    fn the_oldest_is_forgotten_above_the_limit() {
        let mut table = table(3);
        for port in 1..=5 {
            table.insert(Instant::ZERO, tuple(port));
        }
        assert_eq!(table.len(), 3);
        assert!(!table.contains(&tuple(2)) && table.contains(&tuple(3)));
    }

    #[test]
    fn a_name_used_twice_lasts_as_long_as_its_second_use() {
        let mut table = table(8);
        table.insert(Instant::ZERO, tuple(1));
        table.remove(&tuple(1));
        assert!(!table.contains(&tuple(1)));
        table.insert(Instant::ZERO + Duration::from_secs(5), tuple(1));
        table.expire(Instant::ZERO + Duration::from_secs(10));
        assert!(table.contains(&tuple(1)));
        table.expire(Instant::ZERO + Duration::from_secs(15));
        assert_eq!(table.len(), 0);
    }
}
