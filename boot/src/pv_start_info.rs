//! What Xen's domain builder says to a PV guest: `start_info`, checked before it is believed.
//!
//! Source: xen/include/public/xen.h.

use core::ops::Range;

use fata_hypercall::abi::pv;
use fata_hypercall::{Gfn, PAGE_SIZE, Port};

use crate::start_info::StartInfoError;

/// Bytes in a page.
const PAGE: u64 = PAGE_SIZE as u64;

/// The longest command line that Xen's toolstack passes, in bytes. It cuts longer ones.
pub const COMMAND_LINE_MAX: usize = 1023;

/// The most pages that are believed: 64 TiB.
const PAGES_MAX: u64 = 1 << 34;

/// A checked `start_info`.
#[derive(Clone, Copy, Debug)]
pub struct StartInfo<'a> {
    raw: &'a pv::StartInfo,
    tables_end: u64,
}

impl<'a> StartInfo<'a> {
    /// Checks the structure, for an image that ends at `image_end`.
    ///
    /// # Errors
    /// [`BadMagic`](StartInfoError::BadMagic); [`BadLayout`](StartInfoError::BadLayout) if the page tables, or the list of
    /// machine frames, do not begin with a page (who saves or dumps the domain reads the list page by page) or are not within the
    /// domain's memory, the image, the list and the tables one behind the other.
    pub fn new(raw: &'a pv::StartInfo, image_end: u64) -> Result<Self, StartInfoError> {
        if !raw.magic.starts_with(pv::START_MAGIC) {
            return Err(StartInfoError::BadMagic);
        }
        let checked = || {
            let pages = Some(raw.nr_pages).filter(|&pages| pages <= PAGES_MAX)?;
            let tables_end = raw.pt_base.checked_add(raw.nr_pt_frames.checked_mul(PAGE)?)?;
            let list_end = raw.mfn_list.checked_add(pages * size_of::<u64>() as u64)?;
            let in_order = image_end <= raw.mfn_list
                && raw.mfn_list < list_end
                && list_end <= raw.pt_base
                && raw.pt_base < tables_end
                && tables_end <= pages * PAGE;
            let aligned = raw.pt_base.is_multiple_of(PAGE) && raw.mfn_list.is_multiple_of(PAGE);
            (in_order && aligned).then_some(Self { raw, tables_end })
        };
        checked().ok_or(StartInfoError::BadLayout)
    }

    /// Pages that the domain has.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.raw.nr_pages
    }

    /// Addresses of the list of machine frames: a word for each page of the domain's.
    #[must_use]
    pub fn frame_list(&self) -> Range<u64> {
        self.raw.mfn_list..self.raw.mfn_list + self.pages() * size_of::<u64>() as u64
    }

    /// Addresses of the page tables, the root first. They are the last of what the builder made: the image, a module, the
    /// list of frames, `start_info` and the rings lie below them.
    #[must_use]
    pub const fn tables(&self) -> Range<u64> {
        self.raw.pt_base..self.tables_end
    }

    /// Machine frame and port of the console ring.
    #[must_use]
    pub fn console(&self) -> Option<(Gfn, Port)> {
        ring(self.raw.console_mfn, self.raw.console_evtchn)
    }

    /// Machine frame and port of the xenstore ring.
    #[must_use]
    pub fn store(&self) -> Option<(Gfn, Port)> {
        ring(self.raw.store_mfn, self.raw.store_evtchn)
    }

    /// Whether this is Xen's first domain (`SIF_INITDOMAIN`).
    #[must_use]
    pub const fn is_initial_domain(&self) -> bool {
        self.raw.flags & pv::SIF_INITDOMAIN != 0
    }

    /// The bytes of the command line, without its NUL. One without a NUL ends where its room does.
    #[must_use]
    pub fn command_line(&self) -> &'a [u8] {
        self.raw.cmd_line.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

/// The initial domain has no rings.
fn ring(frame: u64, port: u32) -> Option<(Gfn, Port)> {
    (frame != 0 && port != 0).then_some((Gfn(frame), Port(port)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    const IMAGE_END: u64 = 0x13_f123;

    /// What a guest with 8 MiB on Xen 4.17 is told.
    fn xl_guest() -> pv::StartInfo {
        let mut raw = pv::StartInfo::new_zeroed();
        raw.magic[..14].copy_from_slice(b"xen-3.0-x86_64");
        raw.nr_pages = 2048;
        raw.shared_info = 0x7_b000;
        raw.store_mfn = 0x3_1234;
        raw.store_evtchn = 1;
        raw.console_mfn = 0x3_1233;
        raw.console_evtchn = 2;
        raw.mfn_list = 0x14_0000;
        raw.pt_base = 0x14_7000;
        raw.nr_pt_frames = 5;
        raw.cmd_line[..8].copy_from_slice(b"a=b -- c");
        raw
    }

    #[test]
    fn a_guest_of_xl() {
        let raw = xl_guest();
        let info = StartInfo::new(&raw, IMAGE_END).unwrap();
        assert_eq!(info.pages(), 2048);
        assert_eq!(info.frame_list(), 0x14_0000..0x14_4000);
        assert_eq!(info.tables(), 0x14_7000..0x14_c000);
        assert_eq!(info.console(), Some((Gfn(0x3_1233), Port(2))));
        assert_eq!(info.store(), Some((Gfn(0x3_1234), Port(1))));
        assert_eq!(info.command_line(), b"a=b -- c");
        assert!(!info.is_initial_domain());
    }

    #[test]
    fn the_initial_domain_has_no_rings() {
        let raw = pv::StartInfo {
            flags: 3,
            store_mfn: 0,
            console_mfn: 0,
            ..xl_guest()
        };
        let info = StartInfo::new(&raw, IMAGE_END).unwrap();
        assert!(info.is_initial_domain());
        assert_eq!((info.console(), info.store()), (None, None));
    }

    #[test]
    fn rule_83_a_command_line_without_end_is_cut() {
        let raw = pv::StartInfo {
            cmd_line: [b'x'; 1024],
            ..xl_guest()
        };
        assert_eq!(StartInfo::new(&raw, IMAGE_END).unwrap().command_line(), [b'x'; 1024]);
    }

    #[test]
    fn refuses_what_lies_where_it_cannot() {
        type Change = fn(&mut pv::StartInfo);
        let refused = |change: Change| {
            let mut raw = xl_guest();
            change(&mut raw);
            StartInfo::new(&raw, IMAGE_END).err()
        };
        assert_eq!(refused(|_| {}), None);
        assert_eq!(refused(|raw| raw.magic[4] = b'4'), Some(StartInfoError::BadMagic));
        let changes: [Change; 13] = [
            |raw| raw.mfn_list = 0,
            |raw| raw.mfn_list = IMAGE_END / PAGE * PAGE,
            |raw| raw.mfn_list += 8,
            |raw| raw.mfn_list = raw.pt_base - PAGE,
            |raw| raw.mfn_list = u64::MAX - 4095,
            |raw| raw.nr_pages = 0,
            |raw| raw.nr_pages = 0x14b,
            |raw| raw.nr_pages = u64::MAX,
            |raw| raw.pt_base += 8,
            |raw| raw.pt_base = 0,
            |raw| raw.nr_pt_frames = 0,
            |raw| raw.nr_pt_frames = 2048,
            |raw| raw.nr_pt_frames = u64::MAX,
        ];
        for (n, change) in changes.into_iter().enumerate() {
            assert_eq!(refused(change), Some(StartInfoError::BadLayout), "change {n}");
        }
    }

    proptest! {
        /// Whatever is accepted is made of ranges in order, within the domain's memory.
        #[test]
        fn no_content_is_fatal(
            raw in prop::collection::vec(any::<u8>(), 1168),
            near in any::<Option<[u16; 4]>>(),
        ) {
            let mut bytes = [0; 1168];
            bytes.copy_from_slice(&raw);
            let mut raw: pv::StartInfo = zerocopy::transmute!(bytes);
            raw.magic = xl_guest().magic;
            if let Some([pages, list, base, tables]) = near {
                raw.nr_pages = pages.into();
                raw.mfn_list = 0x12_0000 + u64::from(list % 1024) * PAGE;
                raw.pt_base = u64::from(base) * PAGE;
                raw.nr_pt_frames = u64::from(tables % 64);
            }
            if let Ok(info) = StartInfo::new(&raw, IMAGE_END) {
                let (list, tables) = (info.frame_list(), info.tables());
                prop_assert!(IMAGE_END <= list.start && list.end <= tables.start && tables.start < tables.end);
                prop_assert!(tables.end <= info.pages() * PAGE);
                prop_assert_eq!(list.end - list.start, info.pages() * 8);
                prop_assert!(info.command_line().len() <= 1024);
            }
        }
    }
}
