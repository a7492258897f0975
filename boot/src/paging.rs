//! Page tables: an identity map in which nothing is both writable and executable.
//!
//! Under PVH the entry code maps the first 4 GiB with 2 MiB pages. [`refine`] then gives the image and everything else in
//! the first megabytes 4 KiB pages with the protection that fits each, and [`map`] adds RAM that lies higher.
//!
//! Under PV there are 4 KiB pages only. The domain builder has mapped the first megabytes with them, everything writable
//! and executable; [`refine`] changes what is there and adds the rest.

use core::ops::Range;

const SMALL: u64 = 4096;
const LARGE: u64 = 512 * SMALL;
/// Entries in a table.
pub(crate) const ENTRIES: usize = 512;

pub(crate) const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const LARGE_PAGE: u64 = 1 << 7;
pub(crate) const NO_EXECUTE: u64 = 1 << 63;
/// The bits of an entry that hold an address.
pub(crate) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Page tables as memory that can be changed: the processor's on metal, an array in tests.
pub(crate) trait Tables {
    /// Physical address of the top-level table.
    fn root(&self) -> u64;
    /// Entry `index` of the table at `table`.
    fn get(&self, table: u64, index: usize) -> u64;
    /// Changes it.
    fn set(&mut self, table: u64, index: usize, entry: u64);
    /// The address of a new table of zeroes; `None` if there is no memory.
    fn new_table(&mut self) -> Option<u64>;
}

/// What the image needs protected.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Constants and the loader's note: read-only.
    pub(crate) rodata: Range<u64>,
    /// Code: read-only and executable.
    pub(crate) text: Range<u64>,
    /// Page tables that the hypervisor wants read-only. Under PVH there are none.
    pub(crate) tables: Range<u64>,
    /// The page under the stack: not there.
    pub(crate) guard: u64,
    /// Where what is mapped page by page ends: with the image under PVH, with all memory under PV.
    pub(crate) end: u64,
}

impl Layout {
    /// The entry that maps the 4 KiB at `page` to itself; 0 if it is not to be reachable.
    fn entry(&self, page: u64) -> u64 {
        if page == 0 || page == self.guard {
            0
        } else if self.text.contains(&page) {
            page | PRESENT
        } else if self.rodata.contains(&page) || self.tables.contains(&page) {
            page | PRESENT | NO_EXECUTE
        } else {
            page | PRESENT | WRITABLE | NO_EXECUTE
        }
    }
}

/// There was no memory for a page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoMemory;

/// Makes what lies between address 0 and the layout's end, rounded up to 2 MiB, 4 KiB pages as `layout` wants them.
pub(crate) fn refine(tables: &mut impl Tables, layout: &Layout) -> Result<(), NoMemory> {
    set_pages(tables, 0..layout.end, &|page| layout.entry(page))
}

/// Maps the 4 KiB pages of `range` a second time, read-only, from `address` on, a multiple of 2 MiB.
pub(crate) fn map_again(tables: &mut impl Tables, range: Range<u64>, address: u64) -> Result<(), NoMemory> {
    let len = range.end - range.start;
    set_pages(tables, address..address + len, &|page| match page - address {
        offset if offset < len => (range.start + offset) | PRESENT | NO_EXECUTE,
        _ => 0,
    })
}

/// Sets the entries of all 4 KiB pages in `range`, which begins with a multiple of 2 MiB and is rounded up to one. A page table
/// that is there is changed; a 2 MiB page, or nothing, is replaced by a new one.
fn set_pages(tables: &mut impl Tables, range: Range<u64>, entry: &dyn Fn(u64) -> u64) -> Result<(), NoMemory> {
    for base in range.step_by(LARGE as usize) {
        let directory = directory_of(tables, base)?;
        let old = tables.get(directory, index(base, 2));
        let old = (old & (PRESENT | LARGE_PAGE) == PRESENT).then_some(old & ADDRESS);
        let table = match old {
            Some(table) => table,
            None => tables.new_table().ok_or(NoMemory)?,
        };
        for (index, page) in (base..base + LARGE).step_by(SMALL as usize).enumerate() {
            tables.set(table, index, entry(page));
        }
        if old.is_none() {
            tables.set(directory, index(base, 2), table | PRESENT | WRITABLE);
        }
    }
    Ok(())
}

/// Whether there is a 4 KiB page at `address`, in tables that have no larger ones.
pub(crate) fn is_mapped(tables: &impl Tables, address: u64) -> bool {
    let mut table = tables.root();
    (1..=4).rev().all(|level| {
        let entry = tables.get(table, index(address, level));
        table = entry & ADDRESS;
        entry & PRESENT != 0
    })
}

/// Maps the 2 MiB pages that `range` touches to themselves, writable and never executable. What is mapped already
/// stays as it is.
pub(crate) fn map(tables: &mut impl Tables, range: Range<u64>) -> Result<(), NoMemory> {
    for page in (range.start / LARGE * LARGE..range.end).step_by(LARGE as usize) {
        let directory = directory_of(tables, page)?;
        if tables.get(directory, index(page, 2)) & PRESENT == 0 {
            tables.set(
                directory,
                index(page, 2),
                page | PRESENT | WRITABLE | LARGE_PAGE | NO_EXECUTE,
            );
        }
    }
    Ok(())
}

/// The page directory for `address`, made to exist.
fn directory_of(tables: &mut impl Tables, address: u64) -> Result<u64, NoMemory> {
    let mut table = tables.root();
    for level in [4, 3] {
        let entry = tables.get(table, index(address, level));
        table = if entry & PRESENT != 0 {
            entry & ADDRESS
        } else {
            let new = tables.new_table().ok_or(NoMemory)?;
            tables.set(table, index(address, level), new | PRESENT | WRITABLE);
            new
        };
    }
    Ok(table)
}

/// The index that `address` has in a table of `level`: 1 for page tables, 4 for the top.
const fn index(address: u64, level: u32) -> usize {
    (address >> (3 + 9 * level)) as usize % ENTRIES
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tables at 4096, 8192, ... of a memory of `limit` pages.
    struct Model {
        tables: Vec<[u64; ENTRIES]>,
        limit: usize,
    }

    impl Tables for Model {
        fn root(&self) -> u64 {
            SMALL
        }

        fn get(&self, table: u64, index: usize) -> u64 {
            self.tables[(table / SMALL) as usize - 1][index]
        }

        fn set(&mut self, table: u64, index: usize, entry: u64) {
            self.tables[(table / SMALL) as usize - 1][index] = entry;
        }

        fn new_table(&mut self) -> Option<u64> {
            (self.tables.len() < self.limit).then(|| {
                self.tables.push([0; ENTRIES]);
                self.tables.len() as u64 * SMALL
            })
        }
    }

    impl Model {
        /// With the map that the entry code makes.
        fn booted(limit: usize) -> Self {
            let mut model = Self {
                tables: vec![[0; ENTRIES]],
                limit,
            };
            map(&mut model, 0..1 << 32).unwrap();
            model
        }

        /// What the processor would find: the entry that maps `address`, which must map it to itself.
        fn walk(&self, address: u64) -> Option<u64> {
            let mut table = self.root();
            for level in (1..=4).rev() {
                let entry = self.get(table, index(address, level));
                if entry & PRESENT == 0 {
                    return None;
                }
                if level == 1 || entry & LARGE_PAGE != 0 {
                    let size = if level == 1 { SMALL } else { LARGE };
                    assert_eq!(entry & ADDRESS, address / size * size, "identity at {address:#x}");
                    return Some(entry & !ADDRESS);
                }
                assert_eq!(entry & (WRITABLE | NO_EXECUTE), WRITABLE, "the leaf alone decides");
                table = entry & ADDRESS;
            }
            None
        }
    }

    const RW: Option<u64> = Some(PRESENT | WRITABLE | NO_EXECUTE);

    fn layout() -> Layout {
        Layout {
            rodata: 0x10_0000..0x10_3000,
            text: 0x10_3000..0x10_8000,
            tables: 0..0,
            guard: 0x20_1000,
            end: 0x21_2000,
        }
    }

    #[test]
    fn every_page_gets_what_it_needs() {
        let mut model = Model::booted(8);
        refine(&mut model, &layout()).unwrap();
        for page in (0..0x60_0000).step_by(SMALL as usize) {
            let expected = match page {
                0 | 0x20_1000 => None,
                0x10_0000..0x10_3000 => Some(PRESENT | NO_EXECUTE),
                0x10_3000..0x10_8000 => Some(PRESENT),
                0..0x40_0000 => RW,
                _ => RW.map(|flags| flags | LARGE_PAGE),
            };
            assert_eq!(model.walk(page), expected, "{page:#x}");
        }
        assert_eq!(model.walk(0xffff_f000), RW.map(|flags| flags | LARGE_PAGE));
        assert_eq!(model.walk(1 << 32), None);
    }

    #[test]
    fn rule_87_nothing_is_writable_and_executable() {
        let mut model = Model::booted(16);
        refine(&mut model, &layout()).unwrap();
        map(&mut model, 1 << 32..6 << 30).unwrap();
        for page in (0..6 << 30).step_by(SMALL as usize) {
            let flags = model.walk(page).unwrap_or(NO_EXECUTE);
            assert!(flags & WRITABLE == 0 || flags & NO_EXECUTE != 0, "{page:#x}");
        }
    }

    /// As under PV: the builder has mapped 2 MiB, page by page; there is more memory; the tables are to be read-only.
    #[test]
    fn tables_that_are_there_are_changed_and_others_made() {
        let mut model = Model {
            tables: vec![[0; ENTRIES]],
            limit: 8,
        };
        let directory = directory_of(&mut model, 0).unwrap();
        let table = model.new_table().unwrap();
        (0..ENTRIES).for_each(|n| model.set(table, n, (n as u64 * SMALL) | PRESENT | WRITABLE));
        model.set(directory, 0, table | PRESENT | WRITABLE);
        assert!(is_mapped(&model, 0x1f_f000));
        assert!(!is_mapped(&model, 0x20_0000));
        let before = model.tables.len();
        let layout = Layout {
            tables: 0x11_0000..0x11_4000,
            end: 0x40_1000,
            ..layout()
        };
        refine(&mut model, &layout).unwrap();
        assert_eq!(model.tables.len(), before + 2, "the first table is kept");
        for page in (0..0x60_0000).step_by(SMALL as usize) {
            let expected = match page {
                0 | 0x20_1000 => None,
                0x10_0000..0x10_3000 | 0x11_0000..0x11_4000 => Some(PRESENT | NO_EXECUTE),
                0x10_3000..0x10_8000 => Some(PRESENT),
                _ => RW,
            };
            assert_eq!(model.walk(page), expected, "{page:#x}");
            assert_eq!(is_mapped(&model, page), expected.is_some(), "{page:#x}");
        }
        assert!(!is_mapped(&model, 0x60_0000));
    }

    #[test]
    fn pages_can_be_mapped_a_second_time() {
        const AT: u64 = 3 << 30;
        let mut model = Model {
            tables: vec![[0; ENTRIES]],
            limit: 16,
        };
        map_again(&mut model, 0x12_3000..0x52_3008, AT).unwrap();
        assert_eq!(
            model.tables.len(),
            1 + 2 + 3,
            "a directory's way to it, and a table for each 2 MiB"
        );
        for offset in (0..0x40_1000).step_by(SMALL as usize) {
            let place = AT + offset;
            let entry = (1..=4).rev().fold(model.root() | PRESENT, |entry, level| {
                assert_eq!(entry & PRESENT, PRESENT, "{place:#x}, level {level}");
                model.get(entry & ADDRESS, index(place, level))
            });
            assert_eq!(entry, (0x12_3000 + offset) | PRESENT | NO_EXECUTE, "{place:#x}");
        }
        assert!(!is_mapped(&model, AT + 0x40_1000));
        assert_eq!(map_again(&mut model, 0..1 << 30, 4 << 30), Err(NoMemory));
    }

    #[test]
    fn memory_above_4_gib_and_above_512_gib() {
        let mut model = Model::booted(64);
        let before = model.tables.len();
        map(&mut model, 0x1_0000_1000..0x1_4000_0001).unwrap();
        assert_eq!(model.tables.len(), before + 2, "two directories");
        assert_eq!(model.walk(0x1_4000_0000), RW.map(|flags| flags | LARGE_PAGE));
        assert_eq!(model.walk(0x1_4020_0000), None);
        map(&mut model, 3 << 40..(3 << 40) + 5).unwrap();
        assert_eq!(model.walk(3 << 40), RW.map(|flags| flags | LARGE_PAGE));
    }

    #[test]
    fn no_memory_is_an_error() {
        let mut model = Model::booted(6);
        assert_eq!(refine(&mut model, &layout()), Err(NoMemory));
        assert_eq!(map(&mut model, 1 << 32..1 << 33), Err(NoMemory));
    }
}
