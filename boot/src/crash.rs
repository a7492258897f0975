//! The end of a domain that something is wrong with: a report, then `SHUTDOWN_crash`.
//!
//! A report goes to the domain's console and to Xen's log. It says what happened (`fata: panic at FILE:LINE: MESSAGE`
//! or `fata: fault: NAME, vector N, error 0xE`), for a fault also what it means and the registers, and where:
//!
//! ```text
//! fata: backtrace: 0x1025aa 0x101eeb 0x10507e 0x1010ce
//! ```
//!
//! With the image's debug file, `addr2line -fipCe IMAGE.debug 0x1025aa 0x101eeb 0x10507e 0x1010ce` turns that into
//! functions and lines.

use core::arch::asm;
use core::fmt::Write;
use core::panic::PanicInfo;
use core::ptr;

use fata_hypercall::ShutdownReason;

use crate::cell::BootCell;
use crate::console::{Lines, write_everywhere};
use crate::shutdown::{crash_now, shutdown};
use crate::x86_64::{descriptors, image};

/// How many addresses a backtrace has at the most.
const BACKTRACE_MAX: usize = 32;

/// How many reports have begun. More than one: the reporter itself is in trouble.
static DEPTH: BootCell<u32> = BootCell::new(0);
/// What prints the first lines of a report.
type Headline<'a> = dyn Fn(&mut Lines) + 'a;

/// The headline of the first report while the hook runs.
static FIRST: BootCell<Option<*const Headline<'static>>> = BootCell::new(None);
static HOOK: BootCell<Option<fn()>> = BootCell::new(None);

/// Sets what runs before a crash report: the place to push out what an asynchronous console driver still holds, so
/// that the last lines before the crash stand before the report and not nowhere.
///
/// The hook must not block. It runs once, whatever it does: should it fault or panic itself, that is reported too.
pub fn set_crash_hook(hook: fn()) {
    HOOK.set(Some(hook));
}

/// Starts a report, of which `headline` prints the first lines, and runs the hook before that.
///
/// Should the hook or the report fail in its turn, the headline is not lost: the report on that prints it first. A
/// third attempt ends the domain on the spot: whatever goes wrong, the end comes.
pub(crate) fn begin(headline: &Headline<'_>) {
    let depth = DEPTH.get();
    DEPTH.set(depth + 1);
    if depth > 1 {
        crash_now();
    }
    let mut out = Lines::new(write_everywhere);
    if depth == 0 {
        descriptors::protect_report();
        // SAFETY: changes nothing but the lifetime in a pointer's type; where the pointer is used, it says why.
        FIRST.set(Some(unsafe {
            core::mem::transmute::<*const Headline<'_>, *const Headline<'static>>(headline)
        }));
        if let Some(hook) = HOOK.get() {
            hook();
        }
        FIRST.set(None);
    } else {
        if let Some(first) = FIRST.get() {
            FIRST.set(None);
            // SAFETY: it was set by an outer call of this function, which is further up on the stack, has not
            // returned, and never will: nothing unwinds. So its argument is still there.
            unsafe { (*first)(&mut out) };
        }
        out.text("fata: and while that was being reported:\n");
    }
    headline(&mut out);
}

/// Ends a report and the domain.
pub(crate) fn end() -> ! {
    shutdown(ShutdownReason::Crash)
}

/// Prints code addresses, innermost first: `rip` if given, then where each frame on the stack returns to, found by
/// following the frame pointers from `rbp` on. A line begins with `fata: backtrace:` and has at most eight.
pub(crate) fn backtrace(rip: Option<u64>, rbp: u64) {
    let (stack, text) = (image::stack(), image::text());
    let mut frame = rbp;
    let callers = core::iter::from_fn(|| {
        // A frame is the caller's frame pointer and the return address. Both must lie on the stack, aligned.
        if !frame.is_multiple_of(8) || frame < stack.start || frame > stack.end - 16 {
            return None;
        }
        // SAFETY: the stack is mapped, and the two words lie within it; reading stale words of it is harmless.
        let [caller, return_address] =
            unsafe { ptr::with_exposed_provenance::<[u64; 2]>(frame as usize).read_volatile() };
        // Frames of callers lie higher: where they do not, the walk ends with this one.
        frame = if caller > frame { caller } else { 0 };
        // The call is before the address that it returns to; the symboliser wants the call's line.
        text.contains(&return_address).then(|| return_address - 1)
    });

    let mut out = Lines::new(write_everywhere);
    for (index, address) in rip.into_iter().chain(callers).take(BACKTRACE_MAX).enumerate() {
        if index % 8 == 0 {
            out.text(if index == 0 { "" } else { "\n" }).text("fata: backtrace:");
        }
        out.text(" ").hex(address, 1);
    }
    out.text("\n");
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    begin(&|out| {
        out.text("fata: panic");
        if let Some(location) = info.location() {
            out.text(" at ")
                .text(location.file())
                .text(":")
                .decimal(location.line().into());
        }
        // Lines takes everything; there is nobody to tell of an error in a Display of the application's own.
        let _ = writeln!(out, ": {}", info.message());
    });
    let rbp: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) rbp, options(nomem, nostack, preserves_flags)) };
    backtrace(None, rbp);
    end()
}
