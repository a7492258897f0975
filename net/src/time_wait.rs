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

use alloc::collections::{BTreeMap, VecDeque};
use core::net::SocketAddr;
use core::time::Duration;

use fata_events::Instant;

/// A connection's name, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Tuple {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// The connections in TIME-WAIT.
#[derive(Debug)]
pub(crate) struct TimeWait {
    expiry: BTreeMap<Tuple, Instant>,
    /// In order of expiry. An entry counts only if `expiry` says the same.
    queue: VecDeque<(Instant, Tuple)>,
    limit: usize,
    duration: Duration,
}

impl TimeWait {
    /// At most `limit` connections, each for `duration`.
    pub(crate) fn new(limit: usize, duration: Duration) -> Self {
        Self {
            expiry: BTreeMap::new(),
            queue: VecDeque::new(),
            limit,
            duration,
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.expiry.len()
    }

    /// Whether this connection is one of them.
    pub(crate) fn contains(&self, tuple: &Tuple) -> bool {
        !self.expiry.is_empty() && self.expiry.contains_key(tuple)
    }

    /// Adds a connection; above the limit, the oldest one is forgotten.
    pub(crate) fn insert(&mut self, now: Instant, tuple: Tuple) {
        self.expire(now);
        if self.limit == 0 || self.queue.try_reserve(1).is_err() || !room_for_a_node() {
            return;
        }
        // Entries that were removed early stay in the queue: it is bounded by itself.
        while self.queue.len() >= self.limit {
            self.pop();
        }
        let expires = now + self.duration;
        self.queue.push_back((expires, tuple));
        self.expiry.insert(tuple, expires);
    }

    /// Forgets a connection, because its name is used again.
    pub(crate) fn remove(&mut self, tuple: &Tuple) {
        self.expiry.remove(tuple);
    }

    /// Forgets those whose time is over. They need no timer: it is called whenever it matters.
    pub(crate) fn expire(&mut self, now: Instant) {
        while self.queue.front().is_some_and(|(expires, _)| *expires <= now) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((expires, tuple)) = self.queue.pop_front()
            && self.expiry.get(&tuple) == Some(&expires)
        {
            self.expiry.remove(&tuple);
        }
    }
}

/// `BTreeMap` cannot say that there is no memory. An insertion needs a node or two; there is one thread, so what can
/// be had and is given back can be had again.
fn room_for_a_node() -> bool {
    alloc::vec::Vec::<u8>::new().try_reserve_exact(4096).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(port: u16) -> Tuple {
        Tuple {
            local: ([10, 0, 0, 1], 80).into(),
            remote: ([10, 0, 0, 2], port).into(),
        }
    }

    #[test]
    fn the_oldest_is_forgotten_above_the_limit() {
        let mut table = TimeWait::new(3, Duration::from_secs(10));
        for port in 1..=5 {
            table.insert(Instant::ZERO, tuple(port));
        }
        assert_eq!(table.len(), 3);
        assert!(!table.contains(&tuple(2)) && table.contains(&tuple(3)));
    }

    #[test]
    fn a_name_used_twice_lasts_as_long_as_its_second_use() {
        let mut table = TimeWait::new(8, Duration::from_secs(10));
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
