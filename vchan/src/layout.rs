//! Where everything is (`struct vchan_interface`, xen/include/public/io/libxenvchan.h).

use fata_grant::{ByteLane, ByteLayout};
use fata_hypercall::PAGE_SIZE;

use crate::Error;

/// `left_order` and `right_order`, two bytes each.
pub(crate) const ORDERS: [usize; 2] = [16, 18];

/// One byte each: who is there (0 gone, 1 there, 2 not yet).
const CLIENT_LIVE: usize = 20;
const SERVER_LIVE: usize = 21;

/// One byte each: what this end is to be told of, see [`WRITTEN`] and [`READ`].
///
/// The field's name says who sends the notification, and the other end sets it.
const CLIENT_NOTIFY: usize = 22;
const SERVER_NOTIFY: usize = 23;

/// The references of the pages with rings, left first.
const GRANTS: usize = 24;

/// `VCHAN_NOTIFY_WRITE`: notify me when you have written.
pub(crate) const WRITTEN: u8 = 1;
/// `VCHAN_NOTIFY_READ`: notify me when you have read.
pub(crate) const READ: u8 = 2;

/// This end is there.
pub(crate) const OPEN: u8 = 1;
/// The client has not come yet.
pub(crate) const WAITING: u8 = 2;

/// Orders of rings in the first page; each can be there once. Larger ones have pages of their own.
const SMALL: u16 = 10;
const MIDDLE: u16 = 11;
const PAGE: u16 = PAGE_SIZE.ilog2() as u16;
const LARGEST: u16 = 20;

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Client,
}

impl Side {
    /// Where this end says that it is there.
    pub(crate) const fn own_live(self) -> usize {
        match self {
            Self::Server => SERVER_LIVE,
            Self::Client => CLIENT_LIVE,
        }
    }

    pub(crate) const fn peer_live(self) -> usize {
        match self {
            Self::Server => CLIENT_LIVE,
            Self::Client => SERVER_LIVE,
        }
    }

    /// Where this end says what it wants to be told.
    pub(crate) const fn own_wishes(self) -> usize {
        match self {
            Self::Server => CLIENT_NOTIFY,
            Self::Client => SERVER_NOTIFY,
        }
    }

    pub(crate) const fn peer_wishes(self) -> usize {
        match self {
            Self::Server => SERVER_NOTIFY,
            Self::Client => CLIENT_NOTIFY,
        }
    }
}

/// How much fits into the rings of a vchan, in bytes and as the server sees it. It is rounded up to a power of two, and to
/// 1 KiB and 2 KiB (in either order) at the least. Rings of more than that take memory of their own. A ring has 1 MiB at the most.
///
/// The default is the smallest: both rings are in one page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// What the server reads.
    pub read: usize,
    /// What the server writes.
    pub write: usize,
}

/// The orders of the rings, which are possible ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// What the client writes.
    left: u16,
    /// What the server writes.
    right: u16,
}

impl Layout {
    /// The smallest layout with room for this.
    pub(crate) fn with_room(sizes: Sizes) -> Result<Self, Error> {
        let order = |size: usize| match size {
            0..=0x400 => SMALL,
            0x401..=0x800 => MIDDLE,
            _ => size.div_ceil(PAGE_SIZE).next_power_of_two().ilog2() as u16 + PAGE,
        };
        // Anything above is refused here, before it is rounded up.
        if sizes.read.max(sizes.write) > 1 << LARGEST {
            return Err(Error::TooLarge);
        }
        let (left, right) = match (order(sizes.read), order(sizes.write)) {
            (SMALL, SMALL) => (SMALL, MIDDLE),
            (MIDDLE, MIDDLE) => (MIDDLE, PAGE),
            (left, right) => (left, right),
        };
        // A long list of grants does not leave the room of the smallest ring.
        Self::check(left, right).or_else(|_| Self::check(left.max(MIDDLE), right.max(MIDDLE)))
    }

    /// Whether such a layout is possible; the orders may come from the peer.
    pub(crate) fn check(left: u16, right: u16) -> Result<Self, Error> {
        let layout = Self { left, right };
        let known = |order| (SMALL..=LARGEST).contains(&order);
        if !known(left) || !known(right) || left == right && left < PAGE || layout.end_of_grants() > layout.first_ring()
        {
            return Err(Error::BadOrder { left, right });
        }
        Ok(layout)
    }

    pub(crate) fn orders(self) -> [u16; 2] {
        [self.left, self.right]
    }

    /// Pages with rings, besides the first one.
    pub(crate) fn ring_pages(self) -> usize {
        pages(self.left) + pages(self.right)
    }

    /// Where the reference of each of them is.
    pub(crate) fn grants(self) -> impl Iterator<Item = usize> {
        (GRANTS..self.end_of_grants()).step_by(size_of::<u32>())
    }

    fn end_of_grants(self) -> usize {
        GRANTS + self.ring_pages() * size_of::<u32>()
    }

    /// The first byte of a ring in the first page.
    fn first_ring(self) -> usize {
        match self.left.min(self.right) {
            order @ (SMALL | MIDDLE) => 1 << order,
            _ => PAGE_SIZE,
        }
    }

    /// The rings as one of the ends sees them; the pages with rings follow the first one.
    pub(crate) fn rings(self, side: Side) -> ByteLayout {
        let lane = |order: u16, pages_before: usize, indices: usize| ByteLane {
            data: match order {
                SMALL | MIDDLE => 1 << order,
                _ => PAGE_SIZE * (1 + pages_before),
            },
            size: 1 << order,
            cons: indices,
            prod: indices + 4,
        };
        let server = ByteLayout {
            input: lane(self.left, 0, 0),
            output: lane(self.right, pages(self.left), 8),
        };
        match side {
            Side::Server => server,
            Side::Client => server.other_end(),
        }
    }
}

/// Pages that a ring has for itself.
fn pages(order: u16) -> usize {
    match order {
        PAGE.. => 1 << (order - PAGE),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(read: usize, write: usize) -> Result<[u16; 2], Error> {
        Layout::with_room(Sizes { read, write }).map(Layout::orders)
    }

    /// As `libxenvchan_server_init` of Xen 4.17 chooses.
    #[test]
    fn sizes_become_orders() {
        assert_eq!(orders(0, 0), Ok([10, 11]));
        assert_eq!(orders(1024, 2048), Ok([10, 11]));
        assert_eq!(orders(2048, 1024), Ok([11, 10]));
        assert_eq!(orders(2048, 2048), Ok([11, 12]));
        assert_eq!(orders(1, 4096), Ok([10, 12]));
        assert_eq!(orders(4097, 1), Ok([13, 10]));
        assert_eq!(orders(1 << 20, 1 << 20), Ok([20, 20]));
        assert_eq!(
            orders(1 << 20, 0),
            Ok([20, 11]),
            "256 references do not fit before 1024"
        );
        assert_eq!(orders(0, 1 << 20), Ok([11, 20]));
        assert_eq!(orders((1 << 20) + 1, 0), Err(Error::TooLarge));
        assert_eq!(orders(0, usize::MAX), Err(Error::TooLarge));
    }

    #[test]
    fn rule_29_orders_that_cannot_be_are_refused() {
        for left in 0..32_u16 {
            for right in 0..32_u16 {
                let possible = (10..=20).contains(&left)
                    && (10..=20).contains(&right)
                    && !(left == right && left < 12)
                    && !((left == 10 || right == 10) && left.max(right) == 20);
                assert_eq!(Layout::check(left, right).is_ok(), possible, "{left} {right}");
            }
        }
        assert!(Layout::check(u16::MAX, 12).is_err());
    }

    /// Nothing overlaps anything.
    #[test]
    fn every_byte_has_one_meaning() {
        for (left, right) in (10..=20).flat_map(|left| (10..=20).map(move |right| (left, right))) {
            let Ok(layout) = Layout::check(left, right) else {
                continue;
            };
            let rings = layout.rings(Side::Server);
            let mut ranges = [
                0..layout.end_of_grants(),
                rings.input.data..rings.input.data + rings.input.size as usize,
                rings.output.data..rings.output.data + rings.output.size as usize,
            ];
            ranges.sort_by_key(|range| range.start);
            assert!(
                ranges.is_sorted_by(|a, b| a.end <= b.start),
                "{left} {right}: {ranges:?}"
            );
            let end = PAGE_SIZE * (1 + layout.ring_pages());
            assert!(
                ranges.iter().all(|range| range.end <= end),
                "{left} {right}: {ranges:?}"
            );
            assert_eq!(layout.grants().count(), layout.ring_pages());
        }
    }
}
