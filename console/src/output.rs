//! What is written, on its way into the ring.
#![allow(clippy::indexing_slicing, reason = "no index comes from the ring's page")]

use fata_grant::{ByteLayout, ByteRing, RingError};
use fata_hypercall::SharedPage;

use crate::backlog::Backlog;

/// Text is taken or dropped by the line. A line longer than this is taken in pieces, so that even one longer than
/// ring and backlog together comes through as far as it fits.
const PIECE: usize = 256;

/// The ring and the page that it is in.
pub(crate) struct Ring<'a> {
    pub(crate) ring: &'a mut ByteRing,
    pub(crate) page: &'a SharedPage,
}

impl Ring<'_> {
    fn room(&self) -> Result<usize, RingError> {
        self.ring.writable(self.page)
    }

    /// Bytes that the daemon has not taken yet.
    pub(crate) fn used(&self) -> Result<usize, RingError> {
        Ok(ByteLayout::CONSOLE.output.size as usize - self.room()?)
    }
}

/// What was put into the ring.
#[derive(Default)]
struct Sent {
    /// Bytes in the ring that the daemon was not told of.
    unannounced: usize,
    /// Bytes ever.
    total: u64,
}

impl Sent {
    /// Puts as many bytes into the ring as there is room for.
    fn put(&mut self, ring: &mut Ring<'_>, bytes: &[u8]) -> Result<usize, RingError> {
        let count = ring.ring.write(ring.page, bytes)?;
        self.unannounced += count;
        self.total += count as u64;
        Ok(count)
    }
}

/// What is to be done after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing.
    Nothing,
    /// Notify the daemon at the end of the turn, or wait for room.
    Later,
    /// Notify the daemon.
    Now,
}

/// Output: the backlog, and what is known of what was dropped.
pub(crate) struct Output {
    backlog: Backlog,
    sent: Sent,
    /// Bytes dropped that the reader was not told of.
    lost: u64,
    /// The rest of the current line is dropped too.
    skipping: bool,
    /// The last byte taken: tells whether a line has begun, and whether a line feed has its carriage return.
    last: u8,
    /// Bytes dropped ever.
    dropped: u64,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self {
            backlog: Backlog::new(),
            sent: Sent::default(),
            lost: 0,
            skipping: false,
            last: b'\n',
            dropped: 0,
        }
    }

    /// Takes text: LF becomes CR LF; what finds no room is dropped by the line and counted.
    ///
    /// # Errors
    /// The ring's, if the peer broke it; the text may be taken up to any line then.
    pub(crate) fn write(&mut self, ring: &mut Ring<'_>, text: &[u8]) -> Result<(), RingError> {
        self.pump(ring)?;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            for piece in line.chunks(PIECE) {
                self.write_piece(ring, piece)?;
            }
        }
        Ok(())
    }

    fn write_piece(&mut self, ring: &mut Ring<'_>, piece: &[u8]) -> Result<(), RingError> {
        let ends_line = piece.last() == Some(&b'\n');
        let mut buffer = [0; PIECE + 1];
        let translated = translate(piece, self.last, &mut buffer);
        let notice = if self.lost > 0 { Notice::MAX } else { 0 };
        if self.skipping || translated.len() + notice > self.room(ring)? {
            self.lose(piece.len());
            self.skipping = !ends_line;
            return Ok(());
        }
        self.tell_lost(ring)?;
        self.put(ring, translated)
    }

    /// Counts bytes that do not get into the ring; the reader is told as soon as there is room, or a ring again.
    pub(crate) fn lose(&mut self, count: usize) {
        self.lost += count as u64;
        self.dropped += count as u64;
    }

    /// Room in ring and backlog together.
    fn room(&self, ring: &Ring<'_>) -> Result<usize, RingError> {
        // Behind a backlog the ring's room is not ours to take: order matters.
        let in_ring = if self.backlog.len() == 0 { ring.room()? } else { 0 };
        Ok(in_ring + self.backlog.room())
    }

    /// Puts bytes into the ring, or into the backlog if they have to wait. The caller has made sure that they fit.
    fn put(&mut self, ring: &mut Ring<'_>, bytes: &[u8]) -> Result<(), RingError> {
        if let Some(&last) = bytes.last() {
            self.last = last;
        }
        let now = if self.backlog.len() == 0 {
            self.sent.put(ring, bytes)?
        } else {
            0
        };
        self.backlog.push(bytes.get(now..).unwrap_or_default());
        Ok(())
    }

    /// Moves the backlog into the ring as far as there is room, and says what was lost before it.
    ///
    /// # Errors
    /// The ring's, if the peer broke it.
    pub(crate) fn pump(&mut self, ring: &mut Ring<'_>) -> Result<(), RingError> {
        // Two rounds at most, because the backlog wraps.
        while self.backlog.len() > 0 {
            match self.sent.put(ring, self.backlog.front())? {
                0 => return Ok(()),
                count => self.backlog.consume(count),
            }
        }
        if self.lost > 0 && self.room(ring)? >= Notice::MAX {
            self.tell_lost(ring)?;
        }
        Ok(())
    }

    /// Says that something was lost, on a line of its own.
    fn tell_lost(&mut self, ring: &mut Ring<'_>) -> Result<(), RingError> {
        if self.lost == 0 {
            return Ok(());
        }
        let notice = Notice::new(self.lost, self.last != b'\n');
        self.lost = 0;
        self.put(ring, notice.bytes())
    }

    /// What is to be done after a write.
    ///
    /// The daemon is told at once at the end of a line, or when the ring is full, and only when it has taken all that
    /// it was told of: before that it is still at work, and one notification at the end of the turn is enough for the
    /// whole burst.
    pub(crate) fn next(&self, ring: &Ring<'_>) -> Result<Next, RingError> {
        let complete = self.last == b'\n' || self.backlog.len() > 0;
        Ok(
            if self.sent.unannounced > 0 && complete && ring.used()? <= self.sent.unannounced {
                Next::Now
            } else if self.sent.unannounced > 0 || self.is_waiting() {
                Next::Later
            } else {
                Next::Nothing
            },
        )
    }

    /// Whether the daemon has to be told of something; and counts it as told.
    pub(crate) fn announce(&mut self) -> bool {
        core::mem::take(&mut self.sent.unannounced) > 0
    }

    /// Whether something waits for room in the ring.
    pub(crate) fn is_waiting(&self) -> bool {
        self.backlog.len() > 0 || self.lost > 0
    }

    /// Takes the backlog out piece by piece, when there is no ring any more.
    pub(crate) fn rescue(&mut self, mut sink: impl FnMut(&[u8])) {
        while self.backlog.len() > 0 {
            let count = self.backlog.front().len();
            sink(self.backlog.front());
            self.backlog.consume(count);
            self.lose(count);
        }
    }

    /// Bytes in the backlog.
    pub(crate) fn backlog(&self) -> usize {
        self.backlog.len()
    }

    /// Bytes dropped ever.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Bytes put into the ring ever.
    pub(crate) fn written(&self) -> u64 {
        self.sent.total
    }
}

/// A piece of a line as a terminal wants it: LF becomes CR LF unless it is that already.
fn translate<'a>(piece: &[u8], before: u8, buffer: &'a mut [u8; PIECE + 1]) -> &'a [u8] {
    let mut len = 0;
    let mut last = before;
    for &byte in piece.iter().take(PIECE) {
        if byte == b'\n' && last != b'\r' {
            buffer[len] = b'\r';
            len += 1;
        }
        buffer[len] = byte;
        len += 1;
        last = byte;
    }
    &buffer[..len]
}

/// `[console: N bytes lost]`, made without the formatting machinery.
struct Notice {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl Notice {
    const BEFORE: &[u8] = b"[console: ";
    const AFTER: &[u8] = b" bytes lost]\r\n";
    /// With a line end before it and a number of 20 digits.
    const MAX: usize = 2 + Self::BEFORE.len() + 20 + Self::AFTER.len();

    fn new(lost: u64, inside_line: bool) -> Self {
        let mut digits = [0; 20];
        let mut first = digits.len();
        let mut rest = lost;
        loop {
            first -= 1;
            digits[first] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let mut notice = Self {
            bytes: [0; Self::MAX],
            len: 0,
        };
        if inside_line {
            notice.push(b"\r\n");
        }
        notice.push(Self::BEFORE);
        notice.push(&digits[first..]);
        notice.push(Self::AFTER);
        notice
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
