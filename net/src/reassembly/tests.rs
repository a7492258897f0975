use proptest::prelude::*;

use super::*;
use crate::frame::{self, Contents};

/// A frame with a fragment: the bytes `start..end` of a payload in which each byte tells its place.
fn fragment(id: u16, start: usize, end: usize, last: bool) -> Vec<u8> {
    let mut frame = alloc::vec![0; ETHERNET_HEADER + 20];
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14] = 0x45;
    frame[16..18].copy_from_slice(&((20 + end - start) as u16).to_be_bytes());
    frame[18..20].copy_from_slice(&id.to_be_bytes());
    let flags = (start / 8) as u16 | if last { 0 } else { 0x2000 };
    frame[20..22].copy_from_slice(&flags.to_be_bytes());
    frame[23] = 17;
    frame.extend((start..end).map(|at| (at * 31 + at / 256) as u8));
    frame
}

fn add(table: &mut Reassembly, now: Instant, frame: &[u8]) -> Result<Option<Vec<u8>>, Dropped> {
    match frame::parse(frame) {
        Contents::Fragment(fragment) => table.add(now, frame, &fragment),
        other => panic!("{other:?}"),
    }
}

fn whole(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 + at / 256) as u8).collect()
}

proptest! {
    /// Every order, with repetitions, gives the whole; not before the last one has come.
    #[test]
    fn any_order_will_do(
        cuts in proptest::collection::btree_set(1usize..200, 0..12),
        tail in 1usize..20,
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut bounds: Vec<usize> = core::iter::once(0).chain(cuts.iter().map(|cut| cut * 8)).collect();
        let len = bounds.last().unwrap() + tail;
        bounds.push(len);
        let count = bounds.len() - 1;
        if count == 1 {
            // One piece is no fragment.
            return Ok(());
        }
        let frames: Vec<_> =
            bounds.windows(2).enumerate().map(|(i, b)| fragment(1, b[0], b[1], i + 1 == count)).collect();
        let mut table = Reassembly::new(1 << 16);
        let mut missing: alloc::collections::BTreeSet<usize> = (0..count).collect();
        let order = order.iter().map(|index| index.index(count)).chain(0..count);
        for index in order {
            missing.remove(&index);
            let result = add(&mut table, Instant::ZERO, &frames[index]);
            if missing.is_empty() {
                let packet = result.unwrap().expect("nothing is missing");
                prop_assert_eq!(&packet[ETHERNET_HEADER + 20..], &whole(len)[..]);
                prop_assert_eq!(&packet[16..18], &((20 + len) as u16).to_be_bytes()[..]);
                prop_assert!(!matches!(frame::parse(&packet), Contents::Fragment(_)));
                prop_assert!(table.packets.is_empty());
                return Ok(());
            }
            prop_assert_eq!(result, Ok(None));
        }
    }

    /// Whatever comes, the table stays within its limit.
    #[test]
    fn nothing_grows_beyond_the_limit(
        fragments in proptest::collection::vec((0u16..30, 0usize..8000, 1usize..1500, any::<bool>(), 0u64..60), 1..200)
    ) {
        let mut table = Reassembly::new(20_000);
        let mut now = Instant::ZERO;
        for (id, start, len, last, pause) in fragments {
            now += Duration::from_secs(pause / 50);
            let (start, len) = (start & !7, if last { len } else { len & !7 });
            let _ = add(&mut table, now, &fragment(id, start, start + len, last && start > 0));
            let used: usize = table.packets.iter().map(|partial| partial.payload.len()).sum();
            prop_assert!(used <= 20_000 && table.packets.len() <= PACKETS);
        }
    }
}

#[test]
fn an_overlap_costs_the_packet() {
    let mut table = Reassembly::new(1 << 16);
    assert_eq!(add(&mut table, Instant::ZERO, &fragment(1, 0, 16, false)), Ok(None));
    assert_eq!(add(&mut table, Instant::ZERO, &fragment(1, 8, 24, false)), Err(Dropped));
    assert!(table.packets.is_empty());
    // Twice the same place with other contents.
    assert_eq!(add(&mut table, Instant::ZERO, &fragment(1, 0, 16, false)), Ok(None));
    let mut other = fragment(1, 0, 16, false);
    other[40] ^= 1;
    assert_eq!(add(&mut table, Instant::ZERO, &other), Err(Dropped));
    assert!(table.packets.is_empty());
}

#[test]
fn two_ends_or_bytes_behind_the_end_cost_the_packet() {
    let mut table = Reassembly::new(1 << 16);
    assert_eq!(add(&mut table, Instant::ZERO, &fragment(1, 16, 20, true)), Ok(None));
    assert_eq!(add(&mut table, Instant::ZERO, &fragment(1, 24, 30, true)), Err(Dropped));
    assert_eq!(add(&mut table, Instant::ZERO, &fragment(2, 64, 72, false)), Ok(None));
    assert_eq!(add(&mut table, Instant::ZERO, &fragment(2, 16, 20, true)), Err(Dropped));
    assert_eq!(add(&mut table, Instant::ZERO, &fragment(3, 8, 8, false)), Err(Dropped));
    let mut odd = fragment(3, 8, 21, true);
    odd[20] |= 0x20;
    assert_eq!(add(&mut table, Instant::ZERO, &odd), Err(Dropped));
}

#[test]
fn the_largest_packet_there_is() {
    let mut table = Reassembly::new(1 << 17);
    let len = 65_515;
    let mut result = Ok(None);
    for start in (0..len).step_by(1480) {
        let end = (start + 1480).min(len);
        result = add(&mut table, Instant::ZERO, &fragment(1, start, end, end == len));
    }
    assert_eq!(result.unwrap().unwrap().len(), ETHERNET_HEADER + 65_535);
    // One byte more does not fit into any packet (the "ping of death").
    assert_eq!(
        add(&mut table, Instant::ZERO, &fragment(2, 65_512, 65_516, true)),
        Err(Dropped)
    );
}

#[test]
fn after_thirty_seconds_it_is_forgotten() {
    let mut table = Reassembly::new(1 << 16);
    assert_eq!(add(&mut table, Instant::ZERO, &fragment(1, 0, 16, false)), Ok(None));
    let later = Instant::ZERO + TIMEOUT;
    assert_eq!(add(&mut table, later, &fragment(1, 16, 20, true)), Ok(None));
    assert_eq!(table.packets.len(), 1);
}
