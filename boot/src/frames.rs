//! Which page frames are free: one bit each.

use core::ops::Range;

use crate::regions::{MAX_REGIONS, Regions};

/// Bytes in a page frame.
pub const FRAME_SIZE: u64 = 4096;

const BITS: usize = u64::BITS as usize;

/// A stretch of RAM and where its bits are.
#[derive(Clone, Debug)]
struct Region {
    /// Empty in a slot that is not used.
    frames: Range<u64>,
    first_bit: usize,
}

impl Region {
    /// The bits of this region's frames.
    fn bits(&self) -> Range<usize> {
        self.first_bit..self.first_bit + (self.frames.end - self.frames.start) as usize
    }
}

/// A page-granular allocator for physical memory: a bitmap over all usable regions, set bits being free frames. A second one
/// has the frames that are in the balloon: the hypervisor has their memory, and they are neither free nor in use.
///
/// It never touches the memory it manages, so a program that scribbles over freed pages cannot break it, freeing
/// something twice is noticed, and it runs on the host in tests. Frames are given out lowest first; freed neighbours
/// are one run again at once.
///
/// Frames are counted from physical address 0: frame 1 is the 4 KiB at address 4096.
///
/// ```
/// use fata_boot::frames::Frames;
/// use fata_boot::regions::Regions;
///
/// let mut usable = Regions::new();
/// usable.add(0x1000..0x9000);
/// usable.add(0x10_0000..0x20_0000);
/// let mut bitmap = vec![0; Frames::bitmap_words(&usable)];
/// let mut frames = Frames::new(&usable, &mut bitmap);
///
/// assert_eq!(frames.alloc(1, 1), Some(1));
/// assert_eq!(frames.alloc(8, 1), Some(0x100), "the low region has only seven left");
/// assert!(frames.free(1, 1));
/// assert!(!frames.free(1, 1), "it is free already");
/// ```
#[derive(Debug)]
pub struct Frames<'a> {
    regions: [Region; MAX_REGIONS],
    bitmap: &'a mut [u64],
    balloon: &'a mut [u64],
    total: usize,
    free: usize,
    ballooned: usize,
    /// No frame from this bit on was ever given out.
    pristine: usize,
    /// No bit below this one is set.
    lowest: usize,
    /// Nor this one, nor any above.
    highest: usize,
    barren: Barren,
}

/// Where a search need not look again: below `bit` begins no run of `count` frames or more.
///
/// Holes collect at the low end. Without this a search for a few frames in a row would pass them all, each time.
#[derive(Clone, Copy, Debug)]
struct Barren {
    bit: usize,
    count: usize,
}

impl Barren {
    /// A search for `count` frames, wherever they may begin, has found them at `bit` and taken them.
    fn found(&mut self, bit: usize, count: usize) {
        if bit + count > self.bit {
            *self = Self {
                bit: bit + count,
                count,
            };
        }
    }

    /// Frames from `bit` on are free again. A run that reaches into them may begin before, but no further than it is short
    /// of one.
    fn freed(&mut self, bit: usize) {
        self.bit = self.bit.min(bit.saturating_sub(self.count.saturating_sub(1)));
    }
}

impl<'a> Frames<'a> {
    /// How many words of bitmap it takes to manage `usable`.
    #[must_use]
    pub fn bitmap_words(usable: &Regions) -> usize {
        2 * layout(usable)
            .last()
            .map_or(0, |region| region.bits().end.div_ceil(BITS))
    }

    /// An allocator for the whole frames in `usable`, all free. Frames for which `bitmap` has no room are left out.
    pub fn new(usable: &Regions, bitmap: &'a mut [u64]) -> Self {
        bitmap.fill(0);
        let (bitmap, balloon) = bitmap.split_at_mut(bitmap.len() / 2);
        let room = bitmap.len() * BITS;
        let regions = [const {
            Region {
                frames: 0..0,
                first_bit: 0,
            }
        }; _];
        let mut frames = Self {
            regions,
            bitmap,
            balloon,
            total: 0,
            free: 0,
            ballooned: 0,
            pristine: 0,
            lowest: 0,
            highest: room,
            barren: Barren { bit: 0, count: 1 },
        };
        for (slot, region) in frames.regions.iter_mut().zip(layout(usable)) {
            if region.bits().end <= room {
                set_bits(frames.bitmap, region.bits(), true);
                frames.total += region.bits().len();
                *slot = region;
            }
        }
        frames.free = frames.total;
        frames
    }

    /// Frames under management.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.total
    }

    /// Frames that are free now.
    #[must_use]
    pub const fn free_frames(&self) -> usize {
        self.free
    }

    /// Frames that are in the balloon now.
    #[must_use]
    pub const fn ballooned(&self) -> usize {
        self.ballooned
    }

    /// Frames that are in use now.
    #[must_use]
    pub const fn used(&self) -> usize {
        self.total - self.free - self.ballooned
    }

    /// Takes `count` contiguous frames, the first one's number a multiple of `align` (a power of two). `None` if there
    /// is no such run, or if `count` is 0.
    pub fn alloc(&mut self, count: usize, align: u64) -> Option<u64> {
        if count == 0 || count > self.free {
            return None;
        }
        let Barren { bit, count: short } = self.barren;
        let lowest = if count >= short {
            self.lowest.max(bit)
        } else {
            self.lowest
        };
        let (frame, bit) = self.regions.iter().find_map(|region| {
            let bits = region.bits();
            let mut at = bits.start.max(lowest);
            loop {
                at = find_bit(self.bitmap, at..bits.end, true)?;
                let frame = region.frames.start + (at - bits.start) as u64;
                let aligned = frame.checked_next_multiple_of(align)?;
                at = at.checked_add(usize::try_from(aligned - frame).ok()?)?;
                let end = at.checked_add(count).filter(|&end| end <= bits.end)?;
                match find_bit(self.bitmap, at..end, false) {
                    None => return Some((aligned, at)),
                    Some(taken) => at = taken + 1,
                }
            }
        })?;
        self.occupy(bit..bit + count);
        if self.lowest == bit || count == 1 && align == 1 {
            self.lowest = bit + count;
        }
        if align == 1 {
            self.barren.found(bit, count);
        }
        Some(frame)
    }

    /// Gives back `count` frames from `frame` on. `false`, and nothing done, unless all of them are in one region and
    /// in use.
    #[must_use = "false means that the caller's books are wrong"]
    pub fn free(&mut self, frame: u64, count: usize) -> bool {
        let Some(bits) = self.bits_of(frame, count) else {
            return false;
        };
        if !self.is_used(&bits) {
            return false;
        }
        self.lowest = self.lowest.min(bits.start);
        self.highest = self.highest.max(bits.end);
        self.barren.freed(bits.start);
        set_bits(self.bitmap, bits, true);
        self.free += count;
        true
    }

    /// Takes exactly the `count` frames from `frame` on. `false`, and nothing done, unless all of them are in one
    /// region and free.
    #[must_use]
    pub fn take(&mut self, frame: u64, count: usize) -> bool {
        let Some(bits) = self.bits_of(frame, count) else {
            return false;
        };
        if find_bit(self.bitmap, bits.clone(), false).is_some() {
            return false;
        }
        self.occupy(bits);
        true
    }

    /// Takes the highest free frame, and says whether it was ever given out before: then it holds what was written to it.
    pub fn take_highest(&mut self) -> Option<(u64, bool)> {
        let bit = last_bit(self.bitmap, self.highest)?;
        set_bits(self.bitmap, bit..bit + 1, false);
        self.free -= 1;
        self.highest = bit;
        Some((self.frame_of(bit)?, bit < self.pristine))
    }

    /// Puts a frame that is in use into the balloon. `false`, and nothing done, if it is none.
    #[must_use = "false means that the caller's books are wrong"]
    pub fn put_into_balloon(&mut self, frame: u64) -> bool {
        let bits = self.bits_of(frame, 1).filter(|bits| self.is_used(bits));
        if let Some(bits) = bits.clone() {
            set_bits(self.balloon, bits, true);
            self.ballooned += 1;
        }
        bits.is_some()
    }

    /// Puts the `count` highest free frames, which have no memory yet, into the balloon.
    pub fn top_into_balloon(&mut self, count: usize) {
        for _ in 0..count {
            let taken = self.take_highest();
            // It was taken a moment ago.
            let _ = taken.is_some_and(|(frame, _)| self.put_into_balloon(frame));
        }
    }

    /// Takes the lowest frame out of the balloon. It is in use then.
    pub fn take_from_balloon(&mut self) -> Option<u64> {
        let end = self.balloon.len() * BITS;
        let bit = find_bit(self.balloon, 0..end, true)?;
        set_bits(self.balloon, bit..bit + 1, false);
        self.ballooned -= 1;
        self.frame_of(bit)
    }

    /// Whether all of them are neither free nor in the balloon.
    fn is_used(&self, bits: &Range<usize>) -> bool {
        [&*self.bitmap, &*self.balloon]
            .iter()
            .all(|bitmap| find_bit(bitmap, bits.clone(), true).is_none())
    }

    fn occupy(&mut self, bits: Range<usize>) {
        self.free -= bits.len();
        self.pristine = self.pristine.max(bits.end);
        set_bits(self.bitmap, bits, false);
    }

    fn frame_of(&self, bit: usize) -> Option<u64> {
        let region = self.regions.iter().find(|region| region.bits().contains(&bit))?;
        Some(region.frames.start + (bit - region.first_bit) as u64)
    }

    fn bits_of(&self, frame: u64, count: usize) -> Option<Range<usize>> {
        let end = frame.checked_add(count as u64)?;
        let region = self
            .regions
            .iter()
            .find(|r| r.frames.start <= frame && end <= r.frames.end)?;
        let first = region.first_bit + usize::try_from(frame - region.frames.start).ok()?;
        Some(first..first + count)
    }
}

/// The whole frames of each region, and a place in the bitmap for their bits.
///
/// One bit stays unused, and so never set, between two regions: no run of set bits can span a gap in memory.
fn layout(usable: &Regions) -> impl Iterator<Item = Region> {
    let mut next_bit = 0;
    usable.as_slice().iter().filter_map(move |bytes| {
        let frames = bytes.start.div_ceil(FRAME_SIZE)..bytes.end / FRAME_SIZE;
        let region = (!frames.is_empty()).then_some(Region {
            frames,
            first_bit: next_bit,
        })?;
        next_bit = region.bits().end + 1;
        Some(region)
    })
}

/// The first bit in `range` that is `value`.
fn find_bit(bitmap: &[u64], range: Range<usize>, value: bool) -> Option<usize> {
    let invert = if value { 0 } else { u64::MAX };
    let mut word = range.start / BITS;
    let mut found = (bitmap.get(word)? ^ invert) & !lowest(range.start % BITS);
    while found == 0 {
        word += 1;
        if word * BITS >= range.end {
            return None;
        }
        found = bitmap.get(word)? ^ invert;
    }
    let bit = word * BITS + found.trailing_zeros() as usize;
    (bit < range.end).then_some(bit)
}

/// The last bit before `end` that is set.
fn last_bit(bitmap: &[u64], end: usize) -> Option<usize> {
    let mut word = end / BITS;
    let mut found = bitmap.get(word).map_or(0, |bits| bits & lowest(end % BITS));
    while found == 0 {
        word = word.checked_sub(1)?;
        found = *bitmap.get(word)?;
    }
    Some(word * BITS + found.ilog2() as usize)
}

/// Makes all bits in `range`, which lies in the bitmap, `value`.
fn set_bits(bitmap: &mut [u64], range: Range<usize>, value: bool) {
    let mut set = |word: usize, mask: u64| {
        if let Some(bits) = bitmap.get_mut(word) {
            *bits = if value { *bits | mask } else { *bits & !mask };
        }
    };
    let (first, last) = (range.start / BITS, range.end / BITS);
    let (head, tail) = (!lowest(range.start % BITS), lowest(range.end % BITS));
    if first == last {
        set(first, head & tail);
    } else {
        set(first, head);
        set(last, tail);
        if let Some(whole) = bitmap.get_mut(first + 1..last) {
            whole.fill(if value { u64::MAX } else { 0 });
        }
    }
}

/// A word with its `count` lowest bits set; fewer than all.
const fn lowest(count: usize) -> u64 {
    (1 << count) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn regions<const N: usize>(ranges: [Range<u64>; N]) -> Regions {
        let mut regions = Regions::new();
        for range in ranges {
            regions.add(range.start * FRAME_SIZE..range.end * FRAME_SIZE);
        }
        regions
    }

    #[test]
    fn gives_out_everything_once_and_in_order() {
        let usable = regions([1..130, 256..300, 0x10_0000..0x10_0040]);
        let mut bitmap = vec![0; Frames::bitmap_words(&usable)];
        let mut frames = Frames::new(&usable, &mut bitmap);
        let all: Vec<u64> = std::iter::from_fn(|| frames.alloc(1, 1)).collect();
        let expected: Vec<u64> = (1..130).chain(256..300).chain(0x10_0000..0x10_0040).collect();
        assert_eq!(all, expected);
        assert_eq!(frames.free_frames(), 0);
        assert_eq!(frames.total(), expected.len());
    }

    #[test]
    fn runs_do_not_span_regions_even_when_their_bits_are_near() {
        let usable = regions([0..10, 11..20]);
        let mut bitmap = vec![0; Frames::bitmap_words(&usable)];
        let mut frames = Frames::new(&usable, &mut bitmap);
        assert_eq!(frames.alloc(11, 1), None);
        assert_eq!(frames.alloc(10, 1), Some(0));
        assert_eq!(frames.alloc(9, 1), Some(11));
    }

    #[test]
    fn aligns() {
        let usable = regions([3..2000, 0..0]);
        let mut bitmap = vec![0; Frames::bitmap_words(&usable)];
        let mut frames = Frames::new(&usable, &mut bitmap);
        assert_eq!(frames.alloc(4, 512), Some(512));
        assert_eq!(frames.alloc(1, 1), Some(3));
        assert_eq!(frames.alloc(512, 512), Some(1024));
        assert_eq!(frames.alloc(512, 512), None);
        assert_eq!(frames.alloc(1, 1 << 63), None);
    }

    #[test]
    fn refuses_wrong_books() {
        let usable = regions([1..100, 0..0]);
        let mut bitmap = vec![0; Frames::bitmap_words(&usable)];
        let mut frames = Frames::new(&usable, &mut bitmap);
        assert_eq!(frames.alloc(0, 1), None);
        assert_eq!(frames.alloc(usize::MAX, 1), None);
        assert!(!frames.free(5, 1), "free already");
        assert!(!frames.free(0, 1), "not RAM");
        assert!(!frames.free(u64::MAX, 2), "overflow");
        assert!(frames.take(50, 10));
        assert!(!frames.take(59, 2));
        assert!(!frames.free(49, 11));
        assert!(frames.free(50, 10));
        assert_eq!(frames.free_frames(), 99);
    }

    #[test]
    fn a_short_bitmap_means_less_memory() {
        let usable = regions([0..64, 100..200]);
        let mut bitmap = vec![0; 2];
        let frames = Frames::new(&usable, &mut bitmap);
        assert_eq!(frames.total(), 64);
    }

    proptest! {
        #[test]
        fn behaves_like_a_set_of_frames(
            steps in prop::collection::vec((0_usize..5, 1_usize..100, 0_u32..5, any::<prop::sample::Index>()), 1..120)
        ) {
            let usable = regions([1..70, 71..300, 400..1000]);
            let mut bitmap = vec![0; Frames::bitmap_words(&usable)];
            let mut frames = Frames::new(&usable, &mut bitmap);
            let mut free: std::collections::BTreeSet<u64> = (1..70).chain(71..300).chain(400..1000).collect();
            let mut taken: Vec<(u64, usize)> = Vec::new();
            let mut balloon = std::collections::BTreeSet::new();
            let mut given_out = std::collections::BTreeSet::new();
            for (kind, count, align, pick) in steps {
                match kind {
                    0 if !taken.is_empty() => {
                        let (frame, count) = taken.swap_remove(pick.index(taken.len()));
                        prop_assert!(frames.free(frame, count));
                        free.extend(frame..frame + count as u64);
                    }
                    1 => for _ in 0..count {
                        let highest = frames.take_highest();
                        prop_assert_eq!(highest.map(|(frame, _)| frame), free.pop_last());
                        if let Some((frame, used)) = highest {
                            prop_assert!(used || !given_out.contains(&frame), "{} was given out", frame);
                            prop_assert!(frames.put_into_balloon(frame));
                            prop_assert!(!frames.put_into_balloon(frame), "it is in there already");
                            prop_assert!(!frames.free(frame, 1), "it is not in use");
                            balloon.insert(frame);
                        }
                    },
                    2 => for _ in 0..count {
                        let lowest = frames.take_from_balloon();
                        prop_assert_eq!(lowest, balloon.pop_first());
                        if let Some(frame) = lowest {
                            prop_assert!(frames.free(frame, 1));
                            free.insert(frame);
                        }
                    },
                    _ => {
                        let align = 1_u64 << align;
                        let is_run = |&start: &u64| {
                            start % align == 0 && (start..start + count as u64).all(|f| free.contains(&f))
                        };
                        let expected = free.iter().copied().find(is_run);
                        prop_assert_eq!(frames.alloc(count, align), expected);
                        if let Some(frame) = expected {
                            for f in frame..frame + count as u64 {
                                free.remove(&f);
                                given_out.insert(f);
                            }
                            taken.push((frame, count));
                        }
                    }
                }
                prop_assert_eq!(frames.free_frames(), free.len());
                prop_assert_eq!(frames.ballooned(), balloon.len());
                prop_assert_eq!(frames.used(), taken.iter().map(|(_, count)| count).sum::<usize>());
            }
        }
    }
}
