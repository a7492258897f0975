//! Puts fragmented IPv4 packets together (RFC 791 section 3.2, RFC 815).
//!
//! smoltcp can do it too, but then nobody could verify the checksum of the whole: smoltcp is told not to (see
//! [`checksum`](crate::checksum)), and a fragment alone cannot be verified. And here memory is bounded over all
//! packets, its lack is an ordinary event, and fragments that overlap cost the packet: honest senders make none
//! (RFC 5722 forbids them for IPv6), so they can only be meant to show two readers two contents.

use alloc::vec::Vec;
use core::time::Duration;

use fata_events::Instant;

use crate::frame::{ETHERNET_HEADER, Fragment, FragmentKey};

/// How long the first fragment waits for the last (Linux: `ipfrag_time`, 30 s; RFC 1122 asks for 60 to 120).
const TIMEOUT: Duration = Duration::from_secs(30);
/// Packets under way at once.
const PACKETS: usize = 16;
/// Separate runs of bytes of one packet; more means that somebody plays games.
const RUNS: usize = 64;
/// The largest payload of an IPv4 packet.
const LARGEST: usize = 65_535 - 20;

/// Packets that are being put together.
#[derive(Debug)]
pub(crate) struct Reassembly {
    /// In order of age.
    packets: Vec<Partial>,
    limit: usize,
}

#[derive(Debug)]
struct Partial {
    key: FragmentKey,
    expires: Instant,
    /// Ethernet and IPv4 header of the first fragment.
    header: Vec<u8>,
    payload: Vec<u8>,
    /// What of `payload` is there, in order, no two runs touching.
    runs: Vec<(usize, usize)>,
    /// Length of the whole payload, once the last fragment is there.
    total: Option<usize>,
}

/// The fragment was dropped, and its packet with it unless it was only superfluous.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dropped;

impl Reassembly {
    /// At most `limit` bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            packets: Vec::new(),
            limit,
        }
    }

    /// Takes one fragment in. Gives the frame with the whole packet when it was the missing one.
    pub(crate) fn add(&mut self, now: Instant, frame: &[u8], fragment: &Fragment) -> Result<Option<Vec<u8>>, Dropped> {
        self.expire(now);
        let data = frame.get(fragment.start..fragment.end).ok_or(Dropped)?;
        let end = fragment.offset + data.len();
        // Only the last fragment may have a length that is no multiple of 8; an empty one says nothing.
        if data.is_empty() || end > LARGEST || (!fragment.last && !data.len().is_multiple_of(8)) {
            self.take(&fragment.key);
            return Err(Dropped);
        }
        let index = self.find_or_start(now, &fragment.key)?;
        let index = self.make_room(index, end);
        let added = match index.and_then(|index| self.packets.get_mut(index)) {
            Some(partial) => partial.add(frame, data, fragment),
            None => Err(Dropped),
        };
        match added {
            Ok(false) => Ok(None),
            Ok(true) => {
                let whole = self.take(&fragment.key).and_then(Partial::finish);
                whole.map(Some).ok_or(Dropped)
            }
            Err(Dropped) => {
                self.take(&fragment.key);
                Err(Dropped)
            }
        }
    }

    fn find_or_start(&mut self, now: Instant, key: &FragmentKey) -> Result<usize, Dropped> {
        if let Some(index) = self.packets.iter().position(|partial| partial.key == *key) {
            return Ok(index);
        }
        if self.packets.len() >= PACKETS {
            self.drop_oldest(usize::MAX);
        }
        self.packets.try_reserve(1).map_err(|_| Dropped)?;
        self.packets.push(Partial {
            key: *key,
            expires: now + TIMEOUT,
            header: Vec::new(),
            payload: Vec::new(),
            runs: Vec::new(),
            total: None,
        });
        Ok(self.packets.len() - 1)
    }

    /// Drops the oldest packets, except the one at `keep`, until that one can grow to `len` bytes. Gives where it is
    /// then.
    fn make_room(&mut self, mut keep: usize, len: usize) -> Option<usize> {
        loop {
            let others = self.packets.iter().enumerate().filter(|(index, _)| *index != keep);
            let used: usize = others.map(|(_, partial)| partial.payload.len()).sum();
            if used.saturating_add(len) <= self.limit {
                return Some(keep);
            }
            if self.drop_oldest(keep)? < keep {
                keep -= 1;
            }
        }
    }

    fn drop_oldest(&mut self, keep: usize) -> Option<usize> {
        let index = (0..self.packets.len()).find(|index| *index != keep)?;
        self.packets.remove(index);
        Some(index)
    }

    fn take(&mut self, key: &FragmentKey) -> Option<Partial> {
        let index = self.packets.iter().position(|partial| partial.key == *key)?;
        Some(self.packets.remove(index))
    }

    fn expire(&mut self, now: Instant) {
        while let Some(first) = self.packets.first() {
            if first.expires > now {
                return;
            }
            self.packets.remove(0);
        }
    }
}

impl Partial {
    fn add(&mut self, frame: &[u8], data: &[u8], fragment: &Fragment) -> Result<bool, Dropped> {
        let (start, end) = (fragment.offset, fragment.offset + data.len());
        let total = if fragment.last { Some(end) } else { self.total };
        if self.total.is_some_and(|known| Some(known) != total || end > known)
            || total.is_some_and(|total| self.payload.len() > total)
        {
            return Err(Dropped);
        }
        if self.runs.iter().any(|run| run.0 <= start && end <= run.1) {
            // The network may deliver a fragment twice. It counts only if it says the same again.
            return match self.payload.get(start..end) {
                Some(known) if known == data => Ok(false),
                _ => Err(Dropped),
            };
        }
        if self.runs.iter().any(|run| start < run.1 && run.0 < end) || self.runs.len() >= RUNS {
            return Err(Dropped);
        }
        if self.payload.len() < end {
            let more = end - self.payload.len();
            self.payload.try_reserve(more).map_err(|_| Dropped)?;
            self.payload.resize(end, 0);
        }
        self.runs.try_reserve(1).map_err(|_| Dropped)?;
        if start == 0 {
            let header = frame.get(..fragment.start).ok_or(Dropped)?;
            self.header.try_reserve_exact(header.len()).map_err(|_| Dropped)?;
            self.header.extend_from_slice(header);
        }
        self.payload.get_mut(start..end).ok_or(Dropped)?.copy_from_slice(data);
        self.total = total;
        self.note(start, end);
        Ok(self.runs.as_slice() == [(0, self.total.unwrap_or(usize::MAX))])
    }

    /// Adds a run, which overlaps none, and joins it to its neighbours.
    fn note(&mut self, start: usize, end: usize) {
        let at = self.runs.partition_point(|run| run.0 < start);
        self.runs.insert(at, (start, end));
        self.runs.dedup_by(|next, run| {
            let touching = run.1 == next.0;
            if touching {
                run.1 = next.1;
            }
            touching
        });
    }

    /// The frame with the whole packet: the first fragment's headers, with the length of all of it.
    fn finish(self) -> Option<Vec<u8>> {
        let mut frame = self.header;
        let total = u16::try_from(frame.len().checked_sub(ETHERNET_HEADER)? + self.payload.len()).ok()?;
        frame.try_reserve_exact(self.payload.len()).ok()?;
        frame.extend_from_slice(&self.payload);
        frame
            .get_mut(ETHERNET_HEADER + 2..ETHERNET_HEADER + 4)?
            .copy_from_slice(&total.to_be_bytes());
        // No longer a fragment. The header's checksum is of no use any more: smoltcp is told not to look at it,
        // because each fragment's was verified when it came.
        frame.get_mut(ETHERNET_HEADER + 6..ETHERNET_HEADER + 8)?.fill(0);
        Some(frame)
    }
}

#[cfg(test)]
mod tests;
