//! Byte rings: both ends on one page, honest and otherwise.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::SeqCst;

use fata_grant::{ByteLayout, ByteRing, RingError};
use fata_hypercall::SharedPage;
use proptest::prelude::*;

const LAYOUTS: [ByteLayout; 2] = [ByteLayout::CONSOLE, ByteLayout::XENSTORE];

fn starting_at(layout: ByteLayout, index: u32) -> SharedPage {
    let page = SharedPage::new_zeroed();
    for offset in [
        layout.input.cons,
        layout.input.prod,
        layout.output.cons,
        layout.output.prod,
    ] {
        page.store_u32(offset, index, SeqCst);
    }
    page
}

#[test]
fn layouts_are_those_of_the_headers() {
    let page = SharedPage::new_zeroed();
    ByteRing::attach(ByteLayout::CONSOLE, &page)
        .unwrap()
        .write(&page, b"c")
        .unwrap();
    assert_eq!((page.get(1024), page.get(3084)), (Some(*b"c"), Some(1_u32)));
    ByteRing::attach(ByteLayout::XENSTORE, &page)
        .unwrap()
        .write(&page, b"s")
        .unwrap();
    assert_eq!((page.get(0), page.get(2052)), (Some(*b"s"), Some(1_u32)));
}

#[test]
fn smr_0_1_0_a_short_write_says_so() {
    for layout in LAYOUTS {
        let page = starting_at(layout, 0xffff_fff0);
        let mut ring = ByteRing::attach(layout, &page).unwrap();
        let size = layout.output.size as usize;
        assert_eq!(ring.write(&page, &[7; 5000]), Ok(size));
        assert_eq!(ring.write(&page, &[7; 1]), Ok(0));
        assert_eq!(ring.writable(&page), Ok(0));
        let mut peer = ByteRing::attach(layout.other_end(), &page).unwrap();
        assert_eq!(peer.read(&page, &mut [0; 3]), Ok(3));
        assert_eq!(ring.write(&page, &[8; 9]), Ok(3));
    }
}

#[test]
fn rule_78_impossible_indices_are_an_error_at_attach_and_later() {
    let layout = ByteLayout::XENSTORE;
    let page = starting_at(layout, 9);
    let mut ring = ByteRing::attach(layout, &page).unwrap();
    page.store_u32(layout.input.prod, 9 + 1025, SeqCst);
    assert_eq!(
        ring.read(&page, &mut [0; 8]),
        Err(RingError {
            claimed: 1034,
            own: 9,
            limit: 1024
        })
    );
    assert!(ByteRing::attach(layout, &page).is_err());
    page.store_u32(layout.input.prod, 8, SeqCst);
    assert!(ring.read(&page, &mut [0; 8]).is_err(), "a producer does not go back");
    page.store_u32(layout.input.prod, 9, SeqCst);
    page.store_u32(layout.output.cons, 10, SeqCst);
    assert!(ring.write(&page, b"x").is_err(), "consumed what was never produced");
}

#[test]
fn rule_01_own_indices_are_never_read_back() {
    let layout = ByteLayout::CONSOLE;
    let page = SharedPage::new_zeroed();
    let mut ring = ByteRing::attach(layout, &page).unwrap();
    ring.write(&page, b"abc").unwrap();
    page.store_u32(layout.output.prod, 1000, SeqCst);
    page.store_u32(layout.input.cons, 1000, SeqCst);
    ring.write(&page, b"d").unwrap();
    assert_eq!(page.get::<[u8; 4]>(1024), Some(*b"abcd"));
    assert_eq!(page.load_u32(layout.output.prod, SeqCst), Some(4));
    assert_eq!(ring.readable(&page), Ok(0));
}

proptest! {
    #[test]
    fn a_byte_ring_is_two_queues(
        start in prop_oneof![any::<u32>(), Just(0x7fff_ff00), Just(0xffff_ff00)],
        which in 0..2_usize,
        steps in prop::collection::vec((any::<bool>(), any::<bool>(), 0..3000_usize), 1..200),
    ) {
        let layout = LAYOUTS[which];
        let page = starting_at(layout, start);
        let mut ends = [layout, layout.other_end()].map(|layout| ByteRing::attach(layout, &page).unwrap());
        let mut queues = [VecDeque::<u8>::new(), VecDeque::new()];
        let sizes = [layout.output.size as usize, layout.input.size as usize];
        let mut byte = 0_u8;
        for (from, write, len) in steps {
            let (end, out, into) = (usize::from(from), usize::from(from), usize::from(!from));
            let mut buffer = vec![0; len];
            if write {
                for b in &mut buffer {
                    byte = byte.wrapping_add(13);
                    *b = byte;
                }
                let written = ends[end].write(&page, &buffer).unwrap();
                prop_assert_eq!(written, len.min(sizes[out] - queues[out].len()));
                queues[out].extend(&buffer[..written]);
            } else {
                let read = ends[end].read(&page, &mut buffer).unwrap();
                prop_assert_eq!(read, len.min(queues[into].len()));
                prop_assert!(queues[into].drain(..read).eq(buffer[..read].iter().copied()));
            }
        }
    }
}
