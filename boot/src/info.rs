//! What passes between boot and the program.

use fata_hypercall::metal::Xen;

/// What was found at boot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BootInfo {
    /// The hypervisor, ready for everything.
    pub xen: Xen,
    /// The command line (`cmdline`, or `root` and `extra`, in the domain's configuration). Bytes that are not UTF-8
    /// have become U+FFFD; beyond 4096 bytes it is cut, and a PV guest's beyond 1023.
    pub command_line: &'static str,
    /// How many virtual CPUs the domain has. One of them runs.
    pub vcpus: u32,
    /// Whether this is Xen's first domain, which has neither a console ring nor a xenstore ring.
    pub initial_domain: bool,
}

/// How a program ended: 0 is success, as for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus(pub u8);

impl ExitStatus {
    /// All went well.
    pub const SUCCESS: Self = Self(0);
    /// Something did not, and nothing more is to be said.
    pub const FAILURE: Self = Self(1);
}

/// Names the function that runs when everything is ready: `fn(BootInfo) -> ExitStatus`. Once per image.
///
/// When it returns, the status is reported on the console and the domain powers off.
///
/// ```ignore (it makes an image, not a test)
/// #![no_std]
/// #![no_main]
/// use fata_boot::{BootInfo, ExitStatus};
///
/// fata_boot::entry!(main);
///
/// fn main(boot: BootInfo) -> ExitStatus {
///     fata_boot::console::write(boot.command_line.as_bytes());
///     ExitStatus::SUCCESS
/// }
/// ```
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        const _: () = {
            #[unsafe(no_mangle)]
            extern "Rust" fn fata_main(boot: $crate::BootInfo) -> $crate::ExitStatus {
                let main: fn($crate::BootInfo) -> $crate::ExitStatus = $main;
                main(boot)
            }
        };
    };
}
