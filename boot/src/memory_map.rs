//! From the loader's memory map to the memory that may be used: one pure function for every source.

use core::ops::Range;

use fata_hypercall::abi::hvm::MEMMAP_RAM;

use crate::regions::Regions;

/// Bytes in the pages that usable memory is counted in.
const PAGE: u64 = 4096;

/// Where a hole for our own use ends at the latest: below 4 GiB, where everything is mapped, and below the interrupt controllers.
///
/// What Xen's toolstack has put lower is in the map. It lets a large guest's RAM go up to its own tables, at 0xfc000000, so that a hole
/// is only behind those.
pub const HOLES_END: u64 = 0xfec0_0000;

/// One line of an E820-like map, as a loader or Xen tells it. Nothing is assumed about it: lines may overlap,
/// contradict each other, be empty, unsorted, unaligned or overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MapEntry {
    /// Physical address of the first byte.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// E820 type: 1 is RAM; everything else is not for us.
    pub kind: u32,
}

impl MapEntry {
    fn range(&self) -> Range<u64> {
        self.addr..self.addr.saturating_add(self.size)
    }
}

/// The whole pages that are RAM by `map`, minus everything that the map claims for something else, minus `reserved`
/// (the image, the loader's structures), minus page zero, minus what lies at or above `limit`.
///
/// Where entries disagree about a byte, it is not RAM. Pages with a single byte that is not RAM are left out.
///
/// ```
/// use fata_boot::memory_map::{MapEntry, usable};
/// use fata_boot::regions::Regions;
/// let map = [
///     MapEntry { addr: 0, size: 0xa_0000, kind: 1 },
///     MapEntry { addr: 0x10_0000, size: 0x70_0000, kind: 1 },
/// ];
/// let mut image = Regions::new();
/// image.add(0x10_0000..0x12_3456);
/// assert_eq!(usable(&map, &image, 1 << 46).as_slice(), [0x1000..0xa_0000, 0x12_4000..0x80_0000]);
/// ```
#[must_use]
pub fn usable(map: &[MapEntry], reserved: &Regions, limit: u64) -> Regions {
    let mut regions = Regions::new();
    for entry in map.iter().filter(|entry| entry.kind == MEMMAP_RAM) {
        regions.add(entry.range());
    }
    for entry in map.iter().filter(|entry| entry.kind != MEMMAP_RAM) {
        regions.remove(entry.range());
    }
    for range in reserved.as_slice() {
        regions.remove(range.clone());
    }
    regions.remove(0..PAGE);
    regions.remove(limit..u64::MAX);
    regions.shrink_to_multiples_of(PAGE);
    regions
}

/// The lowest `size` bytes between the top of RAM below `limit` and `limit` that no entry of `map` claims: room to map
/// what is not RAM. Aligned to 2 MiB, so that no large page is shared with anything else.
#[must_use]
pub fn hole(map: &[MapEntry], size: u64, limit: u64) -> Option<Range<u64>> {
    const ALIGN: u64 = 2 << 20;
    let is_low_ram = |entry: &&MapEntry| entry.kind == MEMMAP_RAM && entry.addr < limit;
    let top = map
        .iter()
        .filter(is_low_ram)
        .map(|entry| entry.range().end)
        .max()
        .unwrap_or(0);
    let mut free: Regions = Regions::new();
    free.add(top..limit);
    map.iter().for_each(|entry| free.remove(entry.range()));
    free.as_slice().iter().find_map(|gap| {
        let start = gap.start.checked_next_multiple_of(ALIGN)?;
        let end = start.checked_add(size)?;
        (start > 0 && end <= gap.end).then_some(start..end)
    })
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a set that is one range")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMIT: u64 = 1 << 46;

    fn ram(addr: u64, size: u64) -> MapEntry {
        MapEntry { addr, size, kind: 1 }
    }

    fn other(addr: u64, size: u64) -> MapEntry {
        MapEntry { addr, size, kind: 2 }
    }

    /// What a PVH guest with `memory=8` on Xen 4.17 is told.
    #[test]
    fn rule_82_xl_guest() {
        let map = [
            ram(0, 0x80_0000),
            other(0xfc00_0000, 0x9040),
            other(0xfeff_8000, 0x8000),
        ];
        let mut image_and_start_info = Regions::new();
        image_and_start_info.add(0x10_0000..0x12_0000);
        image_and_start_info.add(0x12_0000..0x12_1000);
        let regions = usable(&map, &image_and_start_info, LIMIT);
        assert_eq!(regions.as_slice(), [0x1000..0x10_0000, 0x12_1000..0x80_0000]);
    }

    /// A PC of 6 GiB as Xen's PVH dom0 builder or QEMU tell it: a hole for firmware, a hole for devices, RAM above.
    #[test]
    fn rule_82_machine_with_memory_above_4_gib() {
        let map = [
            ram(0x1_0000_0000, 0x8000_0000),
            ram(0, 0x9_fc00),
            other(0x9_fc00, 0x400),
            other(0xf_0000, 0x1_0000),
            ram(0x10_0000, 0xbfee_0000),
            other(0xbffe_0000, 0x2_0000),
        ];
        let regions = usable(&map, &Regions::new(), LIMIT);
        assert_eq!(
            regions.as_slice(),
            [0x1000..0x9_f000, 0x10_0000..0xbffe_0000, 0x1_0000_0000..0x1_8000_0000]
        );
    }

    #[test]
    fn nonsense_is_survived() {
        let map = [
            ram(u64::MAX, u64::MAX),
            ram(0x5000, 0),
            ram(u64::MAX - 0x1000, 0x10_0000),
            other(0x4800, 1),
            ram(0x2000, 0x4000),
            ram(0x3000, 0x1000),
            MapEntry {
                addr: 0x2000,
                size: 0x1000,
                kind: u32::MAX,
            },
        ];
        assert_eq!(
            usable(&map, &Regions::new(), LIMIT).as_slice(),
            [0x3000..0x4000, 0x5000..0x6000]
        );
        assert_eq!(usable(&[], &Regions::new(), LIMIT).as_slice(), []);
    }

    #[test]
    fn two_entries_can_share_a_page() {
        assert_eq!(
            usable(&[ram(0x1000, 0x1800), ram(0x2800, 0x1800)], &Regions::new(), LIMIT).as_slice(),
            [0x1000..0x4000]
        );
    }

    /// What a PVH guest with `maxmem=5120` on Xen 4.17 is told: RAM up to the toolstack's ACPI tables, the rest above 4 GiB.
    #[test]
    fn rule_27_a_hole_beside_5_gib_of_xl_s() {
        let map = [
            ram(0, 0xfc00_0000),
            other(0xfc00_0000, 0x9040),
            other(0xfeff_8000, 0x8000),
            ram(1 << 32, 0x4400_0000),
        ];
        assert_eq!(hole(&map, 0x20_0000, HOLES_END), Some(0xfc20_0000..0xfc40_0000));
    }

    #[test]
    fn rule_27_holes_are_above_ram_and_nobodys() {
        let map = [ram(0, 0x7f_f000), other(0x90_0000, 0x1000), other(0xfc00_0000, 0x9000)];
        assert_eq!(hole(&map, 0x10_0000, 0xfc00_0000), Some(0x80_0000..0x90_0000));
        assert_eq!(hole(&map, 0x10_0001, 0xfc00_0000), Some(0xa0_0000..0xb0_0001));
        assert_eq!(hole(&map, 1 << 32, 0xfc00_0000), None);
        assert_eq!(
            hole(&[ram(0, 1 << 33)], 0x1000, 0xfc00_0000),
            None,
            "RAM up to the limit and beyond"
        );
        assert_eq!(
            hole(&[ram(1 << 32, 1 << 30)], 0x1000, 1 << 31),
            None,
            "address 0 is not to be used"
        );
        assert_eq!(
            hole(&[ram(0, 0xa_0000), ram(0x100_0000, 0x100_0000)], 0x10_0000, 1 << 31),
            Some(0x200_0000..0x210_0000),
            "not between two pieces of RAM"
        );
    }

    fn entries() -> impl Strategy<Value = Vec<MapEntry>> {
        // Units of 1 KiB in a space of 40 pages, so that pages are shared and split often.
        let entry =
            (0_u64..160, 0_u64..60, prop_oneof![3 => Just(1_u32), 1 => 0_u32..8]).prop_map(|(start, len, kind)| {
                MapEntry {
                    addr: start * 1024,
                    size: len * 1024,
                    kind,
                }
            });
        prop::collection::vec(entry, 0..12)
    }

    proptest! {
        /// A page is usable exactly if some entry calls each of its bytes RAM and nobody claims one of them.
        #[test]
        fn rule_82_agrees_with_the_definition(
            map in entries(),
            reserved in prop::collection::vec((0_u64..160, 0_u64..20), 0..4),
            limit in 0_u64..60,
        ) {
            let mut set = Regions::new();
            reserved.iter().for_each(|&(start, len)| set.add(start * 1024..(start + len) * 1024));
            let regions = usable(&map, &set, limit * PAGE);
            prop_assert_eq!(regions.lost(), 0);
            for page in 0..60 {
                let expected = page > 0 && page < limit && (0..4).all(|unit| {
                    let byte = page * PAGE + unit * 1024;
                    map.iter().any(|e| e.kind == 1 && e.range().contains(&byte))
                        && !map.iter().any(|e| e.kind != 1 && e.range().contains(&byte))
                        && !set.as_slice().iter().any(|r| r.contains(&byte))
                });
                let found = regions.as_slice().iter().any(|r| r.contains(&(page * PAGE)));
                prop_assert_eq!(found, expected, "page {}", page);
            }
        }

        #[test]
        fn any_map_gives_sorted_whole_pages_below_the_limit(
            map in prop::collection::vec((any::<u64>(), any::<u64>(), 0_u32..4), 0..100)
        ) {
            let map: Vec<_> = map.iter().map(|&(addr, size, kind)| MapEntry { addr, size, kind }).collect();
            let regions = usable(&map, &Regions::new(), LIMIT);
            let mut above = PAGE;
            for range in regions.as_slice() {
                prop_assert!(above <= range.start && range.start < range.end && range.end <= LIMIT);
                prop_assert!(range.start % PAGE == 0 && range.end % PAGE == 0);
                above = range.end + 1;
            }
        }
    }
}
