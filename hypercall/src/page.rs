//! Memory that another domain may use at the same moment.

use crate::sync::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Bytes in a page, as Xen counts them on x86 (`XEN_PAGE_SIZE`).
pub const PAGE_SIZE: usize = 4096;

/// One page that another domain may read or write while we look at it.
///
/// Nothing here hands out a reference to the bytes: a value is copied out once and then belongs to us, or it is
/// copied in. So a peer can change what it wrote, but never what we have checked (XSA-155).
///
/// Offsets and lengths that leave the page are refused by `Option` or cut to the page, never a panic: they may
/// come from the peer.
///
/// ```
/// use fata_hypercall::SharedPage;
/// let page = SharedPage::new_zeroed();
/// page.write(8, &0x1234_u32.to_le_bytes());
/// let mut two = [0; 2];
/// assert_eq!(page.read(8, &mut two), 2);
/// assert_eq!(two, [0x34, 0x12]);
/// assert_eq!(page.read(4095, &mut two), 1, "a read ends where the page ends");
/// ```
///
/// What a peer may write at this moment cannot be seen as bytes, but only copied:
///
/// ```compile_fail
/// fn rule_06_shared_bytes_are_not_borrowed(page: &fata_hypercall::SharedPage) -> &[u8] {
///     page.get_mut()
/// }
/// ```
#[repr(C, align(4096))]
pub struct SharedPage(UnsafeCell<[u8; PAGE_SIZE]>);

// SAFETY: every access below is an atomic operation or an assembly copy that makes no assumption about who else
// touches the page; a race can give a mixture of old and new bytes, and any mixture is a valid value of the plain
// types that can be read.
unsafe impl Sync for SharedPage {}

macro_rules! atomic_access {
    ($($load:ident $store:ident $atomic:ident $int:ident;)*) => {$(
        #[doc = concat!("Reads the aligned `", stringify!($int), "` at `offset` in one access; `None` where there is none.")]
        #[inline]
        #[must_use]
        pub fn $load(&self, offset: usize, order: Ordering) -> Option<$int> {
            self.$int(offset).map(|cell| cell.load(order))
        }

        #[doc = concat!("Writes the aligned `", stringify!($int), "` at `offset` in one access; ignored where there is none.")]
        #[inline]
        pub fn $store(&self, offset: usize, value: $int, order: Ordering) {
            if let Some(cell) = self.$int(offset) {
                cell.store(value, order);
            }
        }

        #[doc = concat!("The aligned `", stringify!($int), "` at `offset` as an atomic, for read-modify-write access.")]
        #[inline]
        #[must_use]
        pub fn $int(&self, offset: usize) -> Option<&$atomic> {
            const SIZE: usize = size_of::<$int>();
            if !offset.is_multiple_of(SIZE) || offset > PAGE_SIZE - SIZE {
                return None;
            }
            let cell = self.0.get().cast::<u8>().wrapping_add(offset).cast::<$atomic>();
            // SAFETY: offset is inside the page and a multiple of the size, and the page is aligned to 4096, so the
            // pointer is aligned and in bounds; the page lives as long as `self`; atomics may be shared.
            Some(unsafe { &*cell })
        }
    )*};
}

impl SharedPage {
    /// A page of zeroes, for tests and for memory that is not yet shared.
    #[must_use]
    pub const fn new_zeroed() -> Self {
        Self(UnsafeCell::new([0; PAGE_SIZE]))
    }

    atomic_access! {
        load_u8 store_u8 AtomicU8 u8;
        load_u16 store_u16 AtomicU16 u16;
        load_u32 store_u32 AtomicU32 u32;
        load_u64 store_u64 AtomicU64 u64;
    }

    /// Copies bytes out, from `offset` on. Returns how many there were: fewer than asked for at the end of the page.
    #[inline]
    pub fn read(&self, offset: usize, to: &mut [u8]) -> usize {
        let len = to.len().min(PAGE_SIZE.saturating_sub(offset));
        if len > 0 {
            let from = self.0.get().cast::<u8>().cast_const().wrapping_add(offset);
            // SAFETY: offset + len is inside the page, `to` has at least len bytes, and the two cannot overlap:
            // `to` is borrowed exclusively, and no `&mut` to the page's bytes exists while it is shared.
            unsafe { copy(from, to.as_mut_ptr(), len) };
        }
        len
    }

    /// Copies bytes in, from `offset` on. Returns how many fitted.
    #[inline]
    pub fn write(&self, offset: usize, from: &[u8]) -> usize {
        let len = from.len().min(PAGE_SIZE.saturating_sub(offset));
        if len > 0 {
            let to = self.0.get().cast::<u8>().wrapping_add(offset);
            // SAFETY: offset + len is inside the page, `from` has at least len bytes, and the two cannot overlap:
            // no borrow of the page's bytes exists while it is shared.
            unsafe { copy(from.as_ptr(), to, len) };
        }
        len
    }

    /// Copies a plain value out, once. `None` if it would leave the page.
    #[inline]
    #[must_use]
    pub fn get<T: FromBytes + IntoBytes>(&self, offset: usize) -> Option<T> {
        let mut value = T::new_zeroed();
        if size_of::<T>() > PAGE_SIZE.saturating_sub(offset) {
            return None;
        }
        if size_of::<T>() > SMALL {
            self.read(offset, value.as_mut_bytes());
        } else {
            let from = self.0.get().cast::<u8>().cast_const().wrapping_add(offset);
            // SAFETY: the value's length from offset on is inside the page; the value is our own.
            unsafe { load_small(from, value.as_mut_bytes().as_mut_ptr(), size_of::<T>()) };
        }
        Some(value)
    }

    /// Copies a plain value in. `false`, and nothing written, if it would leave the page.
    #[inline]
    pub fn set<T: IntoBytes + Immutable>(&self, offset: usize, value: &T) -> bool {
        let fits = size_of::<T>() <= PAGE_SIZE.saturating_sub(offset);
        if fits && size_of::<T>() > SMALL {
            self.write(offset, value.as_bytes());
        } else if fits {
            let to = self.0.get().cast::<u8>().wrapping_add(offset);
            // SAFETY: the value's length from offset on is inside the page; the value is our own.
            unsafe { store_small(value.as_bytes().as_ptr(), to, size_of::<T>()) };
        }
        fits
    }

    /// The address of the first byte, for handing to the hypervisor.
    #[inline]
    #[must_use]
    pub const fn as_ptr(&self) -> *mut u8 {
        self.0.get().cast()
    }

    /// The bytes, while nobody else can reach them.
    #[inline]
    pub const fn get_mut(&mut self) -> &mut [u8; PAGE_SIZE] {
        self.0.get_mut()
    }
}

impl fmt::Debug for SharedPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedPage({:p})", self.0.get())
    }
}

/// Values up to this many bytes are copied by moves: a string instruction takes longer to start than they take in all.
const SMALL: usize = 16;

/// Copies a value of a few bytes out of memory that a peer may touch: that in assembly, as [`copy`] does it, and into our own
/// memory as usual, so that a value can stay in registers. `len` is a constant where it is called.
///
/// # Safety
/// As for [`copy`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
unsafe fn load_small(from: *const u8, to: *mut u8, len: usize) {
    let mut done = 0;
    macro_rules! step {
        ($int:ident, $class:ident, $load:literal) => {
            while len - done >= size_of::<$int>() {
                let value: $int;
                // SAFETY: done + size <= len, for which the caller vouches, for both pointers.
                unsafe {
                    core::arch::asm!(
                        $load,
                        value = out($class) value,
                        from = in(reg) from.wrapping_add(done),
                        options(nostack, preserves_flags),
                    );
                    to.add(done).cast::<$int>().write_unaligned(value);
                }
                done += size_of::<$int>();
            }
        };
    }
    step!(u64, reg, "mov {value}, [{from}]");
    step!(u32, reg, "mov {value:e}, [{from}]");
    step!(u16, reg, "mov {value:x}, [{from}]");
    step!(u8, reg_byte, "mov {value}, [{from}]");
}

/// The other way.
///
/// # Safety
/// As for [`copy`].
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline(always)]
unsafe fn store_small(from: *const u8, to: *mut u8, len: usize) {
    let mut done = 0;
    macro_rules! step {
        ($int:ident, $class:ident, $store:literal) => {
            while len - done >= size_of::<$int>() {
                // SAFETY: done + size <= len, for which the caller vouches, for both pointers.
                unsafe {
                    let value = from.add(done).cast::<$int>().read_unaligned();
                    core::arch::asm!(
                        $store,
                        value = in($class) value,
                        to = in(reg) to.wrapping_add(done),
                        options(nostack, preserves_flags),
                    );
                }
                done += size_of::<$int>();
            }
        };
    }
    step!(u64, reg, "mov [{to}], {value}");
    step!(u32, reg, "mov [{to}], {value:e}");
    step!(u16, reg, "mov [{to}], {value:x}");
    step!(u8, reg_byte, "mov [{to}], {value}");
}

/// The same where there is no assembly for it.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
use {copy as load_small, copy as store_small};

/// Copies `len` bytes between memory that a peer may touch and memory that is ours.
///
/// Assembly, because a `memcpy` that races with another writer is undefined behaviour in Rust, and because the
/// compiler must neither repeat nor split what it reads. Eight bytes a step: the processor's microcode runs it
/// at full width, and an emulator in an eighth of the steps that `movsb` would take.
///
/// # Safety
/// `from` and `to` are valid for `len` bytes of reads and writes, and do not overlap.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: the caller vouches for both ranges; the direction flag is clear by the ABI.
    unsafe {
        core::arch::asm!(
            "rep movsq",
            "mov ecx, {tail:e}",
            "rep movsb",
            tail = in(reg) len & 7,
            inout("rcx") len / 8 => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

/// The same, byte by byte, where there is no assembly for it.
///
/// # Safety
/// As above.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, len: usize) {
    for i in 0..len {
        // SAFETY: i < len, for which the caller vouches; an AtomicU8 has the layout of a u8.
        let byte = unsafe { &*from.add(i).cast::<AtomicU8>() }.load(Ordering::Relaxed);
        // SAFETY: as above; the destination is written by nobody else or is itself shared memory.
        unsafe { &*to.add(i).cast::<AtomicU8>() }.store(byte, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_every_length_and_alignment() {
        let page = SharedPage::new_zeroed();
        let pattern: [u8; 64] = core::array::from_fn(|i| i as u8 + 1);
        for offset in 0..16 {
            for len in 0..=pattern.len() {
                page.write(0, &[0; 128]);
                assert_eq!(page.write(offset, &pattern[..len]), len);
                let mut out = [0xee; 128];
                page.read(0, &mut out);
                assert!(out[..offset].iter().all(|&b| b == 0));
                assert_eq!(out[offset..offset + len], pattern[..len]);
                assert!(out[offset + len..].iter().all(|&b| b == 0));
            }
        }
    }

    /// Rule 4, SMR 7a9434d: an index is one aligned word, read and written whole.
    #[test]
    fn smr_7a9434d_an_index_is_read_and_written_whole() {
        extern crate std;
        let page = SharedPage::new_zeroed();
        for offset in [1, 2, 3, 5] {
            page.store_u32(offset, u32::MAX, Ordering::SeqCst);
            assert!(page.u32(offset).is_none());
        }
        assert_eq!(
            page.load_u64(0, Ordering::SeqCst),
            Some(0),
            "an unaligned store does nothing"
        );
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..20_000 {
                    page.store_u32(4, if i % 2 == 0 { u32::MAX } else { 0 }, Ordering::Relaxed);
                }
            });
            for _ in 0..20_000 {
                assert!(matches!(page.load_u32(4, Ordering::Relaxed), Some(0 | u32::MAX)));
            }
        });
    }

    #[test]
    fn copies_values_of_every_small_size() {
        fn check<const N: usize>() {
            let page = SharedPage::new_zeroed();
            let value: [u8; N] = core::array::from_fn(|i| i as u8 + 1);
            for offset in [0, 3, PAGE_SIZE - N] {
                assert!(page.set(offset, &value));
                assert_eq!(page.get(offset), Some(value));
                let mut around = [0; 32];
                page.read(offset.saturating_sub(1), &mut around);
                let at = offset.min(1);
                assert_eq!(around[at..at + N], value);
                let others = around[..at].iter().chain(&around[at + N..]);
                assert!(others.copied().all(|byte| byte == 0));
                page.set(offset, &[0; N]);
            }
            assert_eq!(page.get::<[u8; N]>(PAGE_SIZE - N + 1), None);
        }
        check::<1>();
        check::<2>();
        check::<3>();
        check::<7>();
        check::<8>();
        check::<12>();
        check::<15>();
        check::<16>();
        check::<17>();
    }

    #[test]
    fn nothing_leaves_the_page() {
        let page = SharedPage::new_zeroed();
        assert_eq!(page.load_u32(4096, Ordering::Relaxed), None);
        assert_eq!(page.load_u32(4093, Ordering::Relaxed), None);
        assert_eq!(page.load_u32(2, Ordering::Relaxed), None, "unaligned");
        assert_eq!(page.load_u64(usize::MAX, Ordering::Relaxed), None);
        assert_eq!(page.read(usize::MAX, &mut [0; 8]), 0);
        assert_eq!(page.write(4090, &[1; 8]), 6);
        assert_eq!(page.get::<u64>(4090), None);
        assert!(!page.set(4090, &1_u64));
        page.store_u32(4096, 1, Ordering::Relaxed);
    }
}
