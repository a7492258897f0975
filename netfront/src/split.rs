//! A packet becomes slots of the transmit ring.
//!
//! Pure: it knows where the packet lies, and neither ring nor memory.

use fata_hypercall::PAGE_SIZE;

/// Slots that every backend takes in one packet (`XEN_NETIF_NR_SLOTS_MIN`).
pub const MAX_SLOTS: usize = 18;

/// The part of a packet that lies in one page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which page of the pool.
    pub page: usize,
    /// Where in it the part begins.
    pub offset: u16,
    /// What the request says: the length of the whole packet in the first slot, of the part in the others.
    pub size: u16,
    /// Whether there is another part.
    pub more: bool,
}

/// The parts of a packet of `len` bytes that begins `start` bytes into the pool: cut at page boundaries.
///
/// ```
/// use fata_netfront::split::{Piece, split};
/// let parts: Vec<Piece> = split(8192, 9014).collect();
/// assert_eq!(parts, [
///     Piece { page: 2, offset: 0, size: 9014, more: true },
///     Piece { page: 3, offset: 0, size: 4096, more: true },
///     Piece { page: 4, offset: 0, size: 822, more: false },
/// ]);
/// ```
pub fn split(start: usize, len: usize) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let at = start + done;
        let left = len.checked_sub(done).filter(|&left| left > 0)?;
        let part = left.min(PAGE_SIZE - at % PAGE_SIZE);
        let size = if done == 0 { len } else { part };
        done += part;
        Some(Piece {
            page: at / PAGE_SIZE,
            offset: (at % PAGE_SIZE) as u16,
            size: size as u16,
            more: done < len,
        })
    })
}

/// How transmit buffers lie in a run of pages.
///
/// A packet that fits half a page gets half a page: half the memory, and one slot still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// From one buffer to the next, in bytes.
    pub stride: usize,
    /// How many buffers there are.
    pub count: usize,
    /// Slots that the longest packet takes.
    pub slots: usize,
}

impl Layout {
    /// At most `count` buffers for packets of up to `longest` bytes (Ethernet header included), and never more than
    /// can be in a ring of `ring_slots` at once.
    #[must_use]
    pub const fn new(longest: usize, count: usize, ring_slots: usize) -> Self {
        let half = PAGE_SIZE / 2;
        let stride = if longest <= half {
            half
        } else {
            longest.next_multiple_of(PAGE_SIZE)
        };
        let slots = stride.div_ceil(PAGE_SIZE);
        let most = ring_slots / slots;
        Self {
            stride,
            count: if count < most { count } else { most },
            slots,
        }
    }

    /// Pages that all of it takes.
    #[must_use]
    pub const fn pages(&self) -> usize {
        (self.stride * self.count).div_ceil(PAGE_SIZE)
    }
}
