//! The instruction that enters Xen.

use core::arch::asm;
use core::sync::atomic::{AtomicU8, Ordering};

use crate::Errno;

/// How this kind of guest enters Xen on this kind of processor. Every other way is an invalid opcode, or worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Gate {
    /// PVH on Intel's processors and those like them.
    Vmcall,
    /// PVH on AMD's and Hygon's.
    Vmmcall,
    /// PV.
    Syscall,
}

static GATE: AtomicU8 = AtomicU8::new(Gate::Vmcall as u8);

/// Settles the way. Before the first [`call`].
pub(super) fn set_gate(gate: Gate) {
    GATE.store(gate as u8, Ordering::Relaxed);
}

/// Whether this is a PV guest.
#[inline]
pub(super) fn is_pv() -> bool {
    GATE.load(Ordering::Relaxed) == Gate::Syscall as u8
}

/// Makes a hypercall with up to three arguments, which is all that the operations of every guest take.
///
/// # Safety
/// As for [`call4`].
#[inline]
pub(super) unsafe fn call(number: u32, a1: u64, a2: u64, a3: u64) -> Result<u64, Errno> {
    // SAFETY: the caller's promise. Xen does not look at arguments that an operation does not have.
    unsafe { call4(number, a1, a2, a3, 0) }
}

/// Makes a hypercall. Not inlined: the branch and three instructions would be repeated for each of its callers.
///
/// # Safety
/// The arguments are what the hypercall wants; structures they point to live through the call, and what Xen does
/// to memory on account of it is memory that nobody else relies on.
#[inline(never)]
pub(super) unsafe fn call4(number: u32, a1: u64, a2: u64, a3: u64, a4: u64) -> Result<u64, Errno> {
    let result: i64;
    // xen/docs/guest-guide/x86/hypercall-abi.rst: number and result in rax; arguments in rdi, rsi, rdx, r10, which are
    // clobbered, and by `syscall` rcx and r11 as well. No hypercall page: XSA-466. The compiler is told that memory
    // changes (no `nomem`).
    macro_rules! enter {
        ($instruction:literal) => {
            asm!($instruction, inlateout("rax") u64::from(number) => result, inlateout("rdi") a1 => _,
                 inlateout("rsi") a2 => _, inlateout("rdx") a3 => _, inlateout("r10") a4 => _,
                 out("rcx") _, out("r11") _, options(nostack))
        };
    }
    const VMMCALL: u8 = Gate::Vmmcall as u8;
    const SYSCALL: u8 = Gate::Syscall as u8;
    match GATE.load(Ordering::Relaxed) {
        // SAFETY: detect saw that the CPU has this instruction; the rest is the caller's promise.
        VMMCALL => unsafe { enter!("vmmcall") },
        // SAFETY: the domain builder entered us as a PV kernel, for which this leads to Xen; the rest is as above.
        SYSCALL => unsafe { enter!("syscall") },
        // SAFETY: the same for the other vendors.
        _ => unsafe { enter!("vmcall") },
    }
    Errno::from_result(result)
}
