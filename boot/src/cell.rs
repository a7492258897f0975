//! State that belongs to the one CPU.

use core::cell::UnsafeCell;

/// A global that is set during boot and copied out ever after.
///
/// Sound without a lock because of how the image runs: on one virtual CPU, with interrupts off for good. Only a fault
/// can come in between, and a fault never returns to what it interrupted.
#[derive(Debug)]
pub(crate) struct BootCell<T>(UnsafeCell<T>);

// SAFETY: one CPU runs the image and nothing preempts it (see above), so no two accesses overlap; get and set hold no
// reference beyond their own copy.
unsafe impl<T> Sync for BootCell<T> {}

impl<T: Copy> BootCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub(crate) fn get(&self) -> T {
        // SAFETY: no reference into the cell ever exists, and no write overlaps with this read.
        unsafe { *self.0.get() }
    }

    pub(crate) fn set(&self, value: T) {
        // SAFETY: as for get.
        unsafe { *self.0.get() = value }
    }
}
