//! The FIFO form of event channels (xen/include/public/event_channel.h; its design is in Xen's docs/designs).
//!
//! Each port has a word. The ports that have fired and are not masked are a list, linked by their words, whose first one is
//! in the control block. So whoever takes events looks at as many ports as have fired, however many there are.

use core::array;

use super::assert_layout;
use crate::sync::AtomicU32;

/// `EVTCHNOP_init_control`
pub const INIT_CONTROL: u64 = 11;
/// `EVTCHNOP_expand_array`
pub const EXPAND_ARRAY: u64 = 12;

/// The port's peer has signalled. Set by Xen, cleared by us.
pub const PENDING: u32 = 1 << 31;
/// The port is not to be linked when it fires. Set and cleared by us.
pub const MASKED: u32 = 1 << 30;
/// The port is in a list. Set by Xen, cleared by us.
pub const LINKED: u32 = 1 << 29;
/// Xen is about to link another port behind this one, which must not be unmasked meanwhile. Xen's.
pub const BUSY: u32 = 1 << 28;
/// The port that comes next in the list; 0: none.
pub const LINK_MASK: u32 = PORTS - 1;

/// Ports that there can be.
pub const PORTS: u32 = 1 << 17;
/// Words in a page. A model has fewer atomics to follow.
pub const WORDS_PER_PAGE: usize = if cfg!(loom) { 4 } else { 1024 };
/// Pages of words that there can be.
pub const PAGES: usize = PORTS as usize / WORDS_PER_PAGE;

/// The priority of a port that was given none, 0 being the highest.
pub const PRIORITY_DEFAULT: usize = 7;
/// Lists of ports: one for each priority.
const PRIORITIES: usize = if cfg!(loom) { PRIORITY_DEFAULT + 1 } else { 16 };

/// A page of event words (`event_word_t`).
pub type EventWords = [AtomicU32; WORDS_PER_PAGE];

/// `evtchn_fifo_control_block`
#[derive(Debug)]
#[repr(C)]
pub struct ControlBlock {
    /// A bit for each list that has become other than empty. Set by Xen, cleared by us.
    pub ready: AtomicU32,
    /// Not used.
    pub rsvd: AtomicU32,
    /// The first port of each list, if its bit is set.
    pub head: [AtomicU32; PRIORITIES],
}
assert_layout!(ControlBlock, 72 / 4, ready @ 0, rsvd @ 4, head @ 8);

impl Default for ControlBlock {
    fn default() -> Self {
        Self {
            ready: AtomicU32::new(0),
            rsvd: AtomicU32::new(0),
            head: array::from_fn(|_| AtomicU32::new(0)),
        }
    }
}

/// `evtchn_init_control`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct InitControl {
    /// In: the page of the control block.
    pub control_gfn: u64,
    /// In: where it is in that page.
    pub offset: u32,
    /// In: whose it is.
    pub vcpu: u32,
    /// Out: bits of a link.
    pub link_bits: u8,
    /// Padding.
    pub pad: [u8; 7],
}
assert_layout!(InitControl, 24 / 8, control_gfn @ 0, offset @ 8, vcpu @ 12, link_bits @ 16);

/// `evtchn_expand_array`
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ExpandArray {
    /// In: a page for the words of the next 1024 ports.
    pub array_gfn: u64,
}
assert_layout!(ExpandArray, 8 / 8, array_gfn @ 0);
