//! Sets of physical addresses, as few sorted ranges: what a memory map boils down to.

use core::ops::Range;

/// As many ranges as a normalised memory map may have.
pub const MAX_REGIONS: usize = 64;

/// At most `N` disjoint, sorted, non-empty ranges of bytes. Adding and removing keeps them so.
///
/// The capacity is fixed because a memory map must be understood before there is memory to allocate from. A set that
/// would need more ranges gives up the smallest one and counts its bytes in [`lost`](Self::lost): less memory, never
/// wrong memory.
#[derive(Clone, Debug)]
pub struct Regions<const N: usize = MAX_REGIONS> {
    ranges: [Range<u64>; N],
    len: usize,
    lost: u64,
}

impl<const N: usize> Default for Regions<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> Regions<N> {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            ranges: [const { 0..0 }; N],
            len: 0,
            lost: 0,
        }
    }

    /// The ranges, lowest first. No two touch.
    #[must_use]
    pub fn as_slice(&self) -> &[Range<u64>] {
        self.ranges.get(..self.len).unwrap_or_default()
    }

    /// Bytes that were given up because there was no room for their range.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    /// Bytes in the set.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.as_slice().iter().map(|range| range.end - range.start).sum()
    }

    /// Puts all bytes of `range` into the set.
    pub fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // Whatever overlaps or touches becomes one range with it.
        let first = self.as_slice().partition_point(|r| r.end < range.start);
        let mut merged = range;
        while let Some(r) = self.as_slice().get(first).filter(|r| r.start <= merged.end) {
            merged = merged.start.min(r.start)..merged.end.max(r.end);
            self.delete(first);
        }
        self.insert(merged);
    }

    /// Takes all bytes of `range` out of the set.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let overlaps = |r: &Range<u64>| r.start < range.end && range.start < r.end;
        while let Some(index) = self.as_slice().iter().position(overlaps) {
            let whole = self.delete(index);
            self.insert(whole.start..range.start);
            self.insert(range.end..whole.end);
        }
    }

    /// Takes out the lowest `bytes` bytes with which a range begins and which lie below `limit`: where that is.
    pub fn take(&mut self, bytes: u64, limit: u64) -> Option<u64> {
        let fits = |range: &&Range<u64>| range.end.min(limit).saturating_sub(range.start) >= bytes;
        let start = self.as_slice().iter().find(fits)?.start;
        self.remove(start..start + bytes);
        Some(start)
    }

    /// Cuts every range to whole units of `unit` bytes (a power of two) and drops what becomes empty.
    pub fn shrink_to_multiples_of(&mut self, unit: u64) {
        let mut kept = Self::new();
        for range in self.as_slice() {
            let start = range.start.checked_next_multiple_of(unit).unwrap_or(u64::MAX);
            kept.add(start..range.end / unit * unit);
        }
        kept.lost = self.lost;
        *self = kept;
    }

    /// Takes out the range at `index`, which exists.
    fn delete(&mut self, index: usize) -> Range<u64> {
        let Some(tail) = self.ranges.get_mut(index..self.len) else {
            return 0..0;
        };
        // Not rotate_left, which is much more code than a list of a few ranges needs.
        (1..tail.len()).for_each(|index| tail.swap(index - 1, index));
        self.len -= 1;
        self.ranges.get(self.len).cloned().unwrap_or_default()
    }

    /// Puts in a range that touches no other; an empty one is ignored.
    fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let size = |r: &Range<u64>| r.end - r.start;
        if self.len == N {
            let smallest = self.as_slice().iter().enumerate().min_by_key(|(_, r)| size(r));
            match smallest.map(|(index, r)| (index, size(r))) {
                Some((index, lost)) if lost < size(&range) => {
                    self.lost += lost;
                    self.delete(index);
                }
                _ => {
                    self.lost += size(&range);
                    return;
                }
            }
        }
        let index = self.as_slice().partition_point(|r| r.start < range.start);
        self.len += 1;
        if let Some(tail) = self.ranges.get_mut(index..self.len) {
            let mut next = range;
            tail.iter_mut().for_each(|slot| core::mem::swap(slot, &mut next));
        }
    }
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a set that is one range")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gives_the_lowest_that_is_large_enough() {
        let mut set: Regions = Regions::new();
        [10..20, 30..60, 70..90].into_iter().for_each(|range| set.add(range));
        assert_eq!(set.take(1, 100), Some(10));
        assert_eq!(set.take(10, 100), Some(30));
        assert_eq!(set.take(21, 100), None);
        assert_eq!(set.take(20, 89), Some(40));
        assert_eq!(set.take(20, 89), None, "not beyond the limit");
        assert_eq!(set.take(20, 90), Some(70));
        assert_eq!(set.as_slice(), [11..20]);
        assert_eq!(set.take(u64::MAX, u64::MAX), None);
    }

    #[test]
    fn merges_and_splits() {
        let mut set = Regions::<8>::new();
        set.add(10..20);
        set.add(30..40);
        set.add(20..30);
        assert_eq!(set.as_slice(), [10..40]);
        set.remove(15..16);
        set.remove(0..11);
        set.remove(39..100);
        assert_eq!(set.as_slice(), [11..15, 16..39]);
        assert_eq!(set.bytes(), 27);
        set.remove(0..u64::MAX);
        assert_eq!(set.as_slice(), []);
    }

    #[test]
    fn a_full_set_gives_up_the_smallest() {
        let mut set = Regions::<2>::new();
        set.add(0..10);
        set.add(20..25);
        set.add(100..200);
        assert_eq!(set.as_slice(), [0..10, 100..200]);
        assert_eq!(set.lost(), 5);
        set.add(300..301);
        assert_eq!((set.as_slice(), set.lost()), (&[0..10, 100..200][..], 6));
        set.remove(120..150);
        assert_eq!(set.as_slice(), [100..120, 150..200]);
        assert_eq!(set.lost(), 16);
    }

    #[test]
    fn shrinks_to_whole_pages() {
        let mut set = Regions::<4>::new();
        set.add(1..8193);
        set.add(10000..12000);
        set.add(u64::MAX - 10..u64::MAX);
        set.shrink_to_multiples_of(4096);
        assert_eq!(set.as_slice(), [4096..8192]);
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_bytes(steps in prop::collection::vec((any::<bool>(), 0_u64..200, 0_u64..60), 0..40)) {
            let mut set = Regions::<128>::new();
            let mut model = [false; 300];
            for (add, start, len) in steps {
                let range = start..start + len;
                model[start as usize..(start + len) as usize].fill(add);
                if add { set.add(range) } else { set.remove(range) }
                let slice = set.as_slice();
                prop_assert!(slice.iter().all(|r| r.start < r.end));
                prop_assert!(slice.windows(2).all(|w| w[0].end < w[1].start));
                for (byte, &expected) in model.iter().enumerate() {
                    prop_assert_eq!(slice.iter().any(|r| r.contains(&(byte as u64))), expected);
                }
            }
            prop_assert_eq!(set.lost(), 0);
        }

        #[test]
        fn never_holds_what_was_not_added_even_when_full(
            steps in prop::collection::vec((any::<bool>(), 0_u64..200, 1_u64..20), 0..60)
        ) {
            let mut set = Regions::<3>::new();
            let mut model = [false; 300];
            for (add, start, len) in steps {
                model[start as usize..(start + len) as usize].fill(add);
                if add { set.add(start..start + len) } else { set.remove(start..start + len) }
                for range in set.as_slice() {
                    prop_assert!(range.clone().all(|byte| model[byte as usize]));
                }
                prop_assert!(set.as_slice().windows(2).all(|w| w[0].end < w[1].start));
            }
        }
    }
}
