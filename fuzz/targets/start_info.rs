//! What a PVH loader says. The input is guest memory around the structure.
#![no_main]

use fata_boot::frames::Frames;
use fata_boot::memory_map::{MapEntry, hole, usable};
use fata_boot::start_info::{COMMAND_LINE_MAX, MEMORY_MAP_MAX, PhysicalMemory, StartInfo};
use libfuzzer_sys::fuzz_target;

/// Where the input lies: pointers of two bytes reach all of it, and of more fall off its end.
const BASE: u64 = 0x1000;
const LIMIT: u64 = 1 << 46;
/// Larger machines have bitmaps that are no fun to fill.
const MANAGEABLE: u64 = 1 << 32;

struct Memory<'a>(&'a [u8]);

impl PhysicalMemory for Memory<'_> {
    fn read(&self, addr: u64, to: &mut [u8]) -> bool {
        let from = addr.checked_sub(BASE).and_then(|start| {
            let start = usize::try_from(start).ok()?;
            self.0.get(start..start.checked_add(to.len())?)
        });
        from.inspect(|from| to.copy_from_slice(from)).is_some()
    }
}

fuzz_target!(|memory: &[u8]| {
    let memory = Memory(memory);
    let Ok(info) = StartInfo::read(&memory, BASE) else {
        return;
    };
    let mut buffer = [0xff; COMMAND_LINE_MAX];
    assert!(!info.command_line(&mut buffer).contains(&0));

    let map: Vec<MapEntry> = info.memory_map().collect();
    assert!(map.len() <= MEMORY_MAP_MAX);
    let reserved = info.reserved();
    assert_eq!(
        reserved.lost(),
        0,
        "what is not known to be reserved would be given away"
    );
    let regions = usable(&map, &reserved, LIMIT);
    let mut above = 4096;
    for range in regions.as_slice() {
        assert!(above <= range.start && range.start < range.end && range.end <= LIMIT);
        assert!(range.start % 4096 == 0 && range.end % 4096 == 0);
        let overlaps = |start: u64, end: u64| start < range.end && range.start < end;
        assert!(!reserved.as_slice().iter().any(|taken| overlaps(taken.start, taken.end)));
        let claimed = |entry: &&MapEntry| entry.kind != 1 && entry.size > 0;
        assert!(
            regions.lost() > 0
                || !map
                    .iter()
                    .filter(claimed)
                    .any(|e| overlaps(e.addr, e.addr.saturating_add(e.size)))
        );
        above = range.end;
    }
    if let Some(hole) = hole(&map, 1 << 20, 1 << 32) {
        assert!(hole.start % (2 << 20) == 0 && hole.end - hole.start == 1 << 20);
        let claimed = |e: &&MapEntry| e.addr < hole.end && hole.start < e.addr.saturating_add(e.size);
        assert!(!map.iter().filter(|e| e.size > 0).any(|e| claimed(&e)));
    }
    if regions.bytes() < MANAGEABLE {
        let mut bitmap = vec![0; Frames::bitmap_words(&regions)];
        let mut frames = Frames::new(&regions, &mut bitmap);
        assert_eq!(frames.total() as u64 * 4096, regions.bytes());
        if let Some(frame) = frames.alloc(3, 2) {
            let range = frame * 4096..(frame + 3) * 4096;
            assert!(
                regions
                    .as_slice()
                    .iter()
                    .any(|r| r.start <= range.start && range.end <= r.end)
            );
            assert!(frames.free(frame, 3) && !frames.free(frame, 3));
        }
    }
});
