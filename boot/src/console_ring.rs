//! The writing half of Xen's console ring, as little of it as first and last words need.
//!
//! Source: xen/include/public/io/console.h (`xencons_interface`).

use core::sync::atomic::{Ordering, fence};

use fata_hypercall::SharedPage;

const OUT: usize = 1024;
const OUT_SIZE: u32 = 2048;
const OUT_CONS: usize = 3080;
const OUT_PROD: usize = 3084;

/// Puts as many of `bytes` into the ring as there is room for, each line feed as CR LF. Returns how many bytes of
/// `bytes` went in. The caller notifies.
///
/// All state is in the page, so this may follow another driver of the same ring at any moment. Indices that no honest
/// console daemon leaves there read as a full ring.
pub(crate) fn put(page: &SharedPage, bytes: &[u8]) -> usize {
    let Some(mut free) = OUT_SIZE.checked_sub(pending(page)) else {
        return 0;
    };
    let mut prod = load(page, OUT_PROD, Ordering::Relaxed);
    let mut taken = 0;
    for &byte in bytes {
        let unit: &[u8] = if byte == b'\n' { b"\r\n" } else { &[byte] };
        if (unit.len() as u32) > free {
            break;
        }
        for &byte in unit {
            page.store_u8(OUT + (prod % OUT_SIZE) as usize, byte, Ordering::Relaxed);
            prod = prod.wrapping_add(1);
            free -= 1;
        }
        taken += 1;
    }
    page.store_u32(OUT_PROD, prod, Ordering::Release);
    // The daemon must see the bytes before the notification that follows.
    fence(Ordering::SeqCst);
    taken
}

/// How many bytes the daemon has still to take. More than the ring's size if the indices are nonsense.
pub(crate) fn pending(page: &SharedPage) -> u32 {
    let cons = load(page, OUT_CONS, Ordering::Acquire);
    load(page, OUT_PROD, Ordering::Relaxed).wrapping_sub(cons)
}

fn load(page: &SharedPage, offset: usize, order: Ordering) -> u32 {
    page.load_u32(offset, order).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(cons: u32, prod: u32) -> SharedPage {
        let page = SharedPage::new_zeroed();
        page.store_u32(OUT_CONS, cons, Ordering::Relaxed);
        page.store_u32(OUT_PROD, prod, Ordering::Relaxed);
        page
    }

    /// Takes out everything, as xenconsoled does.
    fn drain(page: &SharedPage) -> Vec<u8> {
        let cons = load(page, OUT_CONS, Ordering::Relaxed);
        let count = pending(page);
        let bytes = (0..count).map(|i| {
            let at = cons.wrapping_add(i) % OUT_SIZE;
            page.load_u8(OUT + at as usize, Ordering::Relaxed).unwrap()
        });
        let bytes = bytes.collect();
        page.store_u32(OUT_CONS, cons.wrapping_add(count), Ordering::Relaxed);
        bytes
    }

    #[test]
    fn lines_end_in_cr_lf() {
        let page = page(0, 0);
        assert_eq!(put(&page, b"one\ntwo"), 7);
        assert_eq!(drain(&page), b"one\r\ntwo");
    }

    #[test]
    fn indices_wrap_and_a_full_ring_takes_no_more() {
        let page = page(u32::MAX - 10, u32::MAX - 10);
        let text = [b'x'; 3000];
        assert_eq!(put(&page, &text), 2048);
        assert_eq!(put(&page, &text), 0);
        assert_eq!(drain(&page), &text[..2048]);
        assert_eq!(put(&page, &text[2048..]), 952);
        assert_eq!(pending(&page), 952);
    }

    #[test]
    fn a_line_feed_is_not_torn() {
        let page = page(0, 2047);
        assert_eq!(put(&page, b"\n"), 0);
        assert_eq!(put(&page, b"a"), 1);
    }

    #[test]
    fn impossible_indices_are_a_full_ring() {
        let page = page(5, 4);
        assert_eq!(put(&page, b"hello"), 0);
        assert_eq!(pending(&page), u32::MAX);
    }
}
