//! The start on bare x86-64. The one room of this crate with unsafe code: a log that is global because the crate `log`
//! wants it so, and the processor's own random numbers.
#![allow(unsafe_code)]

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::arch::asm;
use core::arch::x86_64::{__cpuid, __cpuid_count, _rdtsc};
use core::cell::OnceCell;
use core::future::Future;

pub use fata_boot::{BootInfo, ExitStatus, entry};
use fata_hypercall::metal::Xen;
use log::{Log, Metadata, Record};

use crate::logger::Logger;
use crate::stats::Memory;
use crate::xen::{Facts, Ram, start};
use crate::{Env, Termination};

/// Runs the application until the machine is switched off.
pub fn run<F, T>(boot: BootInfo, main: F) -> ExitStatus
where
    F: FnOnce(Env) -> T + 'static,
    T: Future<Output: Termination> + 'static,
{
    let (entropy, from_hardware) = entropy();
    let facts = Facts {
        command_line: String::from(boot.command_line),
        entropy,
        ram: Rc::new(Heap(boot.xen)),
    };
    let mut guest = start(boot.xen, facts, main);
    if LOGGER.0.set(guest.logger()).is_ok() && log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(guest.logger().max_level());
    }
    fata_boot::crash::set_crash_hook(flush_console);
    if !from_hardware {
        log::warn!("the processor has neither RDSEED nor RDRAND: random numbers are guessable");
    }
    guest.run()
}

/// Pushes out what the console still holds in memory, so that the last lines before a crash stand before its report.
fn flush_console() {
    if let Some(logger) = LOGGER.0.get() {
        logger.flush();
    }
}

/// The memory that boot gives out.
struct Heap(Xen);

impl Ram for Heap {
    fn memory(&self) -> Memory {
        let stats = fata_boot::memory::stats();
        Memory {
            total: stats.total,
            used: stats.used(),
            ballooned: stats.ballooned,
        }
    }

    #[cfg(feature = "balloon")]
    fn pages_with_memory(&self) -> Option<usize> {
        self.0.pages_with_memory()
    }

    #[cfg(feature = "balloon")]
    fn inflate(&self, pages: usize) -> usize {
        fata_boot::memory::inflate(self.0, pages)
    }

    #[cfg(feature = "balloon")]
    fn deflate(&self, pages: usize) -> usize {
        fata_boot::memory::deflate(self.0, pages)
    }
}

/// The program's log.
static LOGGER: GlobalLogger = GlobalLogger(OnceCell::new());

struct GlobalLogger(OnceCell<Logger>);

// SAFETY: an image has one thread: boot starts one virtual CPU and leaves interrupts off for good. So no other thread
// can ever see this static, whatever is in it.
unsafe impl Sync for GlobalLogger {}
// SAFETY: as above.
unsafe impl Send for GlobalLogger {}

impl Log for GlobalLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.get().is_some_and(|logger| logger.enabled(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(logger) = self.0.get() {
            logger.log(record);
        }
    }

    fn flush(&self) {}
}

/// CPUID leaf 1, ECX: RDRAND.
const HAS_RDRAND: u32 = 1 << 30;
/// CPUID leaf 7.0, EBX: RDSEED.
const HAS_RDSEED: u32 = 1 << 18;

/// What this machine has to make a seed of: RDSEED and RDRAND where they are, and in any case the time-stamp counter
/// around instructions whose duration nobody knows exactly (CPUID leaves the guest). And whether the processor gave any.
fn entropy() -> (Vec<u8>, bool) {
    let mut entropy = Vec::new();
    let mut add = |value: u64| entropy.extend_from_slice(&value.to_le_bytes());
    let (rdrand, rdseed) = features();
    let mut from_hardware = false;
    for _ in 0..8 {
        // RDSEED is the entropy source itself; RDRAND is a generator that it seeds. Neither is believed alone.
        if rdseed && let Some(value) = retry(hardware_seed) {
            from_hardware = true;
            add(value);
        }
        if rdrand && let Some(value) = retry(hardware_random) {
            from_hardware = true;
            add(value);
        }
    }
    // With the processor's generator these few are a bonus; without it they are all there is.
    let samples = if from_hardware { 8 } else { 512 };
    for _ in 0..samples {
        features();
        add(time_stamp());
    }
    (entropy, from_hardware)
}

fn features() -> (bool, bool) {
    let has = |register: u32, bit| register & bit != 0;
    let leaves = __cpuid(0).eax;
    (
        has(__cpuid(1).ecx, HAS_RDRAND),
        leaves >= 7 && has(__cpuid_count(7, 0).ebx, HAS_RDSEED),
    )
}

fn time_stamp() -> u64 {
    // SAFETY: Xen and every 64-bit processor have the counter; reading it has no effect.
    unsafe { _rdtsc() }
}

/// The processor may be out of numbers for a moment (Intel SDM, volume 1, 7.3.17: ten attempts).
fn retry(source: fn() -> Option<u64>) -> Option<u64> {
    (0..10).find_map(|_| source())
}

/// RDRAND. Only where CPUID has it.
fn hardware_random() -> Option<u64> {
    let (value, ok): (u64, u8);
    // SAFETY: called only where CPUID says that the instruction exists; it changes a register and the flags.
    unsafe { asm!("rdrand {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack)) };
    (ok != 0).then_some(value)
}

/// RDSEED. Only where CPUID has it.
fn hardware_seed() -> Option<u64> {
    let (value, ok): (u64, u8);
    // SAFETY: as above.
    unsafe { asm!("rdseed {}", "setc {}", out(reg) value, out(reg_byte) ok, options(nomem, nostack)) };
    (ok != 0).then_some(value)
}
