//! Byte rings: two streams of bytes in shared memory, as console, xenstore and vchan use them.

use fata_hypercall::SharedPage;
use fata_hypercall::sync::{Ordering, fence};

use crate::RingError;

/// Where one direction of a byte ring lies in its page; all numbers are offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteLane {
    /// The first byte of the buffer.
    pub data: usize,
    /// Bytes in the buffer; a power of two.
    pub size: u32,
    /// The consumer's index, a `u32`.
    pub cons: usize,
    /// The producer's index, a `u32`.
    pub prod: usize,
}

/// Where the two directions of a byte ring lie in its page, seen from one end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteLayout {
    /// What this end writes.
    pub output: ByteLane,
    /// What this end reads.
    pub input: ByteLane,
}

impl ByteLayout {
    /// The guest's end of a console (`struct xencons_interface`, xen/include/public/io/console.h).
    pub const CONSOLE: Self = Self {
        input: ByteLane {
            data: 0,
            size: 1024,
            cons: 3072,
            prod: 3076,
        },
        output: ByteLane {
            data: 1024,
            size: 2048,
            cons: 3080,
            prod: 3084,
        },
    };

    /// The guest's end of xenstore (`struct xenstore_domain_interface`, xen/include/public/io/xs_wire.h).
    pub const XENSTORE: Self = Self {
        output: ByteLane {
            data: 0,
            size: 1024,
            cons: 2048,
            prod: 2052,
        },
        input: ByteLane {
            data: 1024,
            size: 1024,
            cons: 2056,
            prod: 2060,
        },
    };

    /// The same ring seen from the other end.
    #[must_use]
    pub const fn other_end(self) -> Self {
        Self {
            output: self.input,
            input: self.output,
        }
    }
}

/// One end of a byte ring.
///
/// It keeps its own two indices to itself and never reads them back from the page; the peer's two are read once per
/// call and checked. Indices are free-running and wrap; they begin wherever the page says.
///
/// The page is an argument of each call, because it usually belongs to something that the ring's owner holds too. Buffers
/// may also lie elsewhere: see [`write_with`](Self::write_with).
///
/// ```
/// use fata_grant::{ByteLayout, ByteRing};
/// use fata_hypercall::SharedPage;
///
/// let page = SharedPage::new_zeroed();
/// let mut guest = ByteRing::attach(ByteLayout::CONSOLE, &page)?;
/// let mut daemon = ByteRing::attach(ByteLayout::CONSOLE.other_end(), &page)?;
///
/// assert_eq!(guest.write(&page, b"hello")?, 5);
/// let mut line = [0; 80];
/// assert_eq!(daemon.read(&page, &mut line)?, 5);
/// assert_eq!(&line[..5], b"hello");
/// # Ok::<(), fata_grant::RingError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ByteRing {
    layout: ByteLayout,
    /// Our producer in the output lane.
    produced: u32,
    /// Our consumer in the input lane.
    consumed: u32,
}

impl ByteRing {
    /// Takes up the ring where the page says it is. The page is not written.
    ///
    /// # Errors
    /// [`RingError`] if the indices found are further apart than the buffers are long.
    pub fn attach(layout: ByteLayout, page: &SharedPage) -> Result<Self, RingError> {
        let ring = Self {
            layout,
            produced: load(page, layout.output.prod),
            consumed: load(page, layout.input.cons),
        };
        ring.writable(page)?;
        ring.readable(page)?;
        Ok(ring)
    }

    /// Leaves unread what the peer has written so far.
    ///
    /// # Errors
    /// As [`readable`](Self::readable).
    pub fn skip(&mut self, page: &SharedPage) -> Result<(), RingError> {
        let there = self.readable(page)?;
        self.consumed = self.consumed.wrapping_add(there as u32);
        page.store_u32(self.layout.input.cons, self.consumed, Ordering::Release);
        Ok(())
    }

    /// How many bytes can be written now.
    ///
    /// # Errors
    /// [`RingError`] if the peer claims to have consumed what was never produced.
    pub fn writable(&self, page: &SharedPage) -> Result<usize, RingError> {
        let lane = self.layout.output;
        let cons = load(page, lane.cons);
        let used = self.produced.wrapping_sub(cons);
        if used > lane.size {
            return Err(RingError {
                claimed: cons,
                own: self.produced,
                limit: lane.size,
            });
        }
        Ok((lane.size - used) as usize)
    }

    /// How many bytes wait to be read now.
    ///
    /// # Errors
    /// [`RingError`] if the peer claims to have produced more than the buffer holds.
    pub fn readable(&self, page: &SharedPage) -> Result<usize, RingError> {
        let lane = self.layout.input;
        let prod = load(page, lane.prod);
        let there = prod.wrapping_sub(self.consumed);
        if there > lane.size {
            return Err(RingError {
                claimed: prod,
                own: self.consumed,
                limit: lane.size,
            });
        }
        Ok(there as usize)
    }

    /// Writes as many bytes as there is room for and returns how many that were. If any, the peer must be notified.
    ///
    /// # Errors
    /// As [`writable`](Self::writable).
    pub fn write(&mut self, page: &SharedPage, bytes: &[u8]) -> Result<usize, RingError> {
        self.write_with(page, bytes, |to, piece| {
            page.write(to, piece);
        })
    }

    /// The same for a ring whose buffers need not be in the page with its indices: `put` is called twice, with a place in
    /// the layout and what to put there.
    ///
    /// # Errors
    /// As [`writable`](Self::writable).
    #[inline]
    #[allow(clippy::indexing_slicing, reason = "cut to the shorter of the two lengths")]
    pub fn write_with(
        &mut self,
        page: &SharedPage,
        bytes: &[u8],
        mut put: impl FnMut(usize, &[u8]),
    ) -> Result<usize, RingError> {
        let lane = self.layout.output;
        let len = bytes.len().min(self.writable(page)?);
        let at = (self.produced & (lane.size - 1)) as usize;
        let (first, second) = bytes[..len].split_at(len.min(lane.size as usize - at));
        put(lane.data + at, first);
        put(lane.data, second);
        self.produced = self.produced.wrapping_add(len as u32);
        // The bytes before the index; and the index before whatever the caller looks at to decide whether to notify.
        page.store_u32(lane.prod, self.produced, Ordering::Release);
        fence(Ordering::SeqCst);
        Ok(len)
    }

    /// Reads as many bytes as there are and returns how many that were. If any, the peer must be notified: it may
    /// wait for room.
    ///
    /// # Errors
    /// As [`readable`](Self::readable).
    pub fn read(&mut self, page: &SharedPage, bytes: &mut [u8]) -> Result<usize, RingError> {
        self.read_with(page, bytes, |from, piece| {
            page.read(from, piece);
        })
    }

    /// The same for a ring whose buffers need not be in the page with its indices: `get` is called twice, with a place in
    /// the layout and what to fill from there.
    ///
    /// # Errors
    /// As [`readable`](Self::readable).
    #[inline]
    #[allow(clippy::indexing_slicing, reason = "cut to the shorter of the two lengths")]
    pub fn read_with(
        &mut self,
        page: &SharedPage,
        bytes: &mut [u8],
        mut get: impl FnMut(usize, &mut [u8]),
    ) -> Result<usize, RingError> {
        let lane = self.layout.input;
        let len = bytes.len().min(self.readable(page)?);
        let at = (self.consumed & (lane.size - 1)) as usize;
        let (first, second) = bytes[..len].split_at_mut(len.min(lane.size as usize - at));
        get(lane.data + at, first);
        get(lane.data, second);
        self.consumed = self.consumed.wrapping_add(len as u32);
        // The bytes are copied out before the index lets the peer overwrite them.
        page.store_u32(lane.cons, self.consumed, Ordering::Release);
        fence(Ordering::SeqCst);
        Ok(len)
    }
}

/// One whole read of an index: what was written before it is visible after it.
fn load(page: &SharedPage, offset: usize) -> u32 {
    page.load_u32(offset, Ordering::Acquire).unwrap_or(0)
}
