//! Copying between bytes of ours and a row of shared pages, as if the pages were one piece of memory.

use fata_hypercall::{PAGE_SIZE, SharedPage};

/// What of a range of bytes lies in one page.
struct Piece {
    page: usize,
    offset: usize,
    len: usize,
}

/// Cuts a range at the ends of pages.
fn pieces(offset: usize, len: usize) -> impl Iterator<Item = Piece> {
    let end = offset.saturating_add(len);
    let mut at = offset;
    core::iter::from_fn(move || {
        let piece = Piece {
            page: at / PAGE_SIZE,
            offset: at % PAGE_SIZE,
            len: (end - at).min(PAGE_SIZE - at % PAGE_SIZE),
        };
        at += piece.len;
        (piece.len > 0).then_some(piece)
    })
}

/// Copies bytes into a row of pages, from `offset` in the row on. What lies beyond the row is nowhere.
pub fn write_row<'a>(page: impl Fn(usize) -> Option<&'a SharedPage>, offset: usize, mut from: &[u8]) {
    for piece in pieces(offset, from.len()) {
        let Some((now, later)) = from.split_at_checked(piece.len) else {
            return;
        };
        if let Some(page) = page(piece.page) {
            page.write(piece.offset, now);
        }
        from = later;
    }
}

/// Copies bytes out of a row of pages, from `offset` in the row on. What lies beyond the row is left as it is.
pub fn read_row<'a>(page: impl Fn(usize) -> Option<&'a SharedPage>, offset: usize, mut to: &mut [u8]) {
    for piece in pieces(offset, to.len()) {
        let Some((now, later)) = to.split_at_mut_checked(piece.len) else {
            return;
        };
        if let Some(page) = page(piece.page) {
            page.read(piece.offset, now);
        }
        to = later;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    #[test]
    fn ranges_are_cut_at_pages() {
        let cut = |offset, len| {
            pieces(offset, len)
                .map(|p| (p.page, p.offset, p.len))
                .collect::<Vec<_>>()
        };
        assert_eq!(cut(1024, 1024), [(0, 1024, 1024)]);
        assert_eq!(cut(4096, 0), []);
        assert_eq!(cut(4095, 2), [(0, 4095, 1), (1, 0, 1)]);
        assert_eq!(
            cut(8000, 10_000),
            [(1, 3904, 192), (2, 0, 4096), (3, 0, 4096), (4, 0, 1616)]
        );
    }

    #[test]
    fn what_is_written_across_pages_is_read_across_them() {
        let pages = [SharedPage::new_zeroed(), SharedPage::new_zeroed()];
        let bytes: Vec<u8> = (0..200).collect();
        write_row(|index| pages.get(index), 4000, &bytes);
        let mut back = [0; 200];
        read_row(|index| pages.get(index), 4000, &mut back);
        assert_eq!(back[..], bytes[..]);
        // Nothing is behind the last page.
        write_row(|index| pages.get(index), 2 * PAGE_SIZE - 1, &[7; 100]);
        let mut back = [1; 3];
        read_row(|index| pages.get(index), 2 * PAGE_SIZE - 1, &mut back);
        assert_eq!(back, [7, 1, 1]);
    }
}
