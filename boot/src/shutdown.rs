//! How a domain ends.

use core::arch::asm;

use fata_hypercall::Hypervisor;
pub use fata_hypercall::ShutdownReason;
use fata_hypercall::metal::Xen;

use crate::cell::BootCell;
use crate::console::{self, Lines};

static XEN: BootCell<Option<Xen>> = BootCell::new(None);

/// Xen was found and can be asked to end the domain.
pub(crate) fn found_xen(xen: Xen) {
    XEN.set(Some(xen));
}

/// Ends the domain: lets the console daemon take the last text (bounded), then `SCHEDOP_shutdown`.
///
/// What becomes of it is the toolstack's decision (`on_poweroff`, `on_reboot`, `on_crash` in the domain's
/// configuration). Without Xen the processor is reset.
pub fn shutdown(reason: ShutdownReason) -> ! {
    if let Some(xen) = XEN.get() {
        console::drain();
        xen.shutdown(reason);
    }
    reset()
}

/// Ends the domain as crashed, at once and whatever state it is in.
pub(crate) fn crash_now() -> ! {
    if let Some(xen) = XEN.get() {
        xen.shutdown(ShutdownReason::Crash);
    }
    reset()
}

/// Reports `status` on the console and powers off.
///
/// Xen's ABI has a place for the reason of a shutdown, and none for a number. So the status is a line of its own,
/// `fata: exit status N`, the last one on the console.
pub fn exit(status: u8) -> ! {
    Lines::new(console::write)
        .text("fata: exit status ")
        .decimal(status.into())
        .text("\n");
    shutdown(ShutdownReason::PowerOff)
}

/// Resets the processor by a fault that cannot be delivered. Virtual machine monitors end on it or start again.
pub(crate) fn reset() -> ! {
    let nothing = [0_u16; 5];
    // SAFETY: an interrupt table of size zero turns the breakpoint into a triple fault; control does not come back.
    unsafe { asm!("lidt [{}]", "int3", "2: hlt", "jmp 2b", in(reg) &raw const nothing, options(noreturn)) }
}
