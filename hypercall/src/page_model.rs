//! A shared page for the model checker: the first words of it are atomics that loom sees, enough for a ring's indices and
//! its first slots. A copy is one relaxed access for each word, so it sees what the indices' ordering lets it see.

use core::fmt;
use core::mem::size_of;

use loom::sync::atomic::{AtomicU32, Ordering};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes in a page, as Xen counts them on x86 (`XEN_PAGE_SIZE`).
pub const PAGE_SIZE: usize = 4096;

/// Words that are modelled.
const WORDS: usize = 24;

/// One page that another domain may read or write while we look at it.
///
/// Not aligned to its size: loom runs threads on small stacks.
#[repr(C)]
pub struct SharedPage {
    words: [AtomicU32; WORDS],
    rest: [u8; PAGE_SIZE - size_of::<[AtomicU32; WORDS]>()],
}

impl SharedPage {
    /// A page of zeroes.
    #[must_use]
    pub fn new_zeroed() -> Self {
        Self {
            words: core::array::from_fn(|_| AtomicU32::new(0)),
            rest: [0; _],
        }
    }

    /// Reads the aligned `u32` at `offset` in one access; `None` where there is none.
    #[must_use]
    pub fn load_u32(&self, offset: usize, order: Ordering) -> Option<u32> {
        self.u32(offset).map(|cell| cell.load(order))
    }

    /// Writes the aligned `u32` at `offset` in one access; ignored where there is none.
    pub fn store_u32(&self, offset: usize, value: u32, order: Ordering) {
        if let Some(cell) = self.u32(offset) {
            cell.store(value, order);
        }
    }

    /// The aligned `u32` at `offset` as an atomic.
    #[must_use]
    pub fn u32(&self, offset: usize) -> Option<&AtomicU32> {
        offset.is_multiple_of(4).then(|| self.words.get(offset / 4)).flatten()
    }

    /// Copies bytes out, from `offset` on, as far as they are modelled.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> usize {
        let words = self.words.iter().skip(offset / 4);
        let pieces = to.as_chunks_mut::<4>().0.iter_mut().zip(words);
        pieces
            .map(|(to, from)| *to = from.load(Ordering::Relaxed).to_le_bytes())
            .count()
            * 4
    }

    /// Copies bytes in, from `offset` on, as far as they are modelled.
    pub fn write(&self, offset: usize, from: &[u8]) -> usize {
        let words = self.words.iter().skip(offset / 4);
        let pieces = from.as_chunks::<4>().0.iter().zip(words);
        pieces
            .map(|(from, to)| to.store(u32::from_le_bytes(*from), Ordering::Relaxed))
            .count()
            * 4
    }

    /// Copies a plain value out, once. `None` if it is not modelled.
    #[must_use]
    pub fn get<T: FromBytes + IntoBytes>(&self, offset: usize) -> Option<T> {
        let mut value = T::new_zeroed();
        (self.read(offset, value.as_mut_bytes()) == size_of::<T>()).then_some(value)
    }

    /// Copies a plain value in. `false` if it is not modelled.
    pub fn set<T: IntoBytes + Immutable>(&self, offset: usize, value: &T) -> bool {
        self.write(offset, value.as_bytes()) == size_of::<T>()
    }

    /// The address of the first byte.
    #[must_use]
    pub const fn as_ptr(&self) -> *mut u8 {
        core::ptr::from_ref(self).cast_mut().cast()
    }

    /// The bytes that are not modelled. A test that cares for the contents keeps them elsewhere.
    pub fn get_mut(&mut self) -> &mut [u8; PAGE_SIZE] {
        let bytes = core::ptr::from_mut(self).cast();
        // SAFETY: the page has this size, no padding, and is borrowed exclusively.
        unsafe { &mut *bytes }
    }
}

impl fmt::Debug for SharedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedPage({:p})", self.as_ptr())
    }
}
