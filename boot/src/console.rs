//! First and last words: the console before there is a driver for it, and when the driver cannot be trusted any more.
//!
//! Three ways out, each bounded in time:
//!
//! * The console ring that the toolstack gave the domain, where `xl console` and xenconsoled's log get their text.
//! * Xen's own log: by `CONSOLEIO_write` as the initial domain and as a PV guest (to which a release build of Xen does not
//!   listen), else by port 0xe9, which Xen answers in every HVM and PVH domain.
//! * COM1, where nothing looks like Xen.
//!
//! [`write()`] uses the ring if there is one and Xen's log otherwise; a crash report goes to both.

use core::arch::asm;
use core::fmt;

use fata_hypercall::metal::Xen;
use fata_hypercall::{Hypervisor, ServiceRing, SystemTime};

use crate::cell::BootCell;
use crate::console_ring;

/// Where text can go.
#[derive(Clone, Copy)]
enum Log {
    /// Port 0xe9, and COM1: the answer to "what is this machine?" is not known, or it is not Xen.
    Ports,
    /// Port 0xe9 alone.
    DebugPort,
    /// `CONSOLEIO_write`.
    Hypercall(Xen),
}

static LOG: BootCell<Log> = BootCell::new(Log::Ports);
/// Whose console ring can be used. Where it is and which port it has is asked each time: after a restore these may be others.
static RING_OF: BootCell<Option<&'static Xen>> = BootCell::new(None);

/// How long a full ring is waited for, in ticks of the time-stamp counter: around a second. A daemon that takes
/// nothing for so long is taken for dead, and the text is dropped.
const PATIENCE: u64 = 1 << 31;

/// Whether the last wait ended without success.
static DAEMON_IS_DEAD: BootCell<bool> = BootCell::new(false);

/// This is a PVH guest of Xen's: its log can be used.
pub(crate) fn log_to_debug_port() {
    LOG.set(Log::DebugPort);
}

/// The initial domain may write to Xen's log directly, and a PV guest has no ports.
pub(crate) fn log_by_hypercall(xen: Xen) {
    LOG.set(Log::Hypercall(xen));
}

/// The domain's console ring can be used, if it has one.
pub(crate) fn use_ring(xen: &'static Xen) {
    RING_OF.set(Some(xen));
}

fn ring() -> Option<(Xen, ServiceRing<'static>)> {
    let xen = RING_OF.get()?;
    Some((*xen, xen.console_ring()?))
}

/// Writes to the domain's console; to Xen's log if it has none.
///
/// Synchronous: it waits for a full ring to move, about a second at the most, and then drops the rest. It may be mixed with an
/// asynchronous driver of the same ring, since all state is in the ring's page; what that driver has queued comes out
/// later than it was written.
pub fn write(bytes: &[u8]) {
    match ring() {
        Some((xen, ring)) => write_ring(xen, ring, bytes),
        None => write_log(bytes),
    }
}

/// Writes everywhere: to the domain's console and to Xen's log.
pub(crate) fn write_everywhere(bytes: &[u8]) {
    if let Some((xen, ring)) = ring() {
        write_ring(xen, ring, bytes);
    }
    write_log(bytes);
}

/// Waits until the console daemon has taken what is in the ring, about a second at the most.
///
/// Whoever ends the domain calls this first: the daemon may not look at the ring of a domain that is gone.
pub fn drain() {
    if let Some((xen, ring)) = ring() {
        wait(xen, || match console_ring::pending(ring.page) {
            0 => Progress::Done,
            _ => Progress::None,
        });
    }
}

fn write_ring(xen: Xen, ring: ServiceRing<'_>, bytes: &[u8]) {
    let mut rest = bytes;
    wait(xen, || {
        let taken = console_ring::put(ring.page, rest);
        rest = rest.get(taken..).unwrap_or_default();
        if taken > 0 {
            // A ring without a daemon is no reason to fail: the text is in the page for whoever looks.
            let _ = xen.evtchn_send(ring.port);
        }
        match (rest, taken) {
            ([], _) => Progress::Done,
            (_, 0) => Progress::None,
            _ => Progress::Some,
        }
    });
}

/// What one attempt came to.
enum Progress {
    Done,
    Some,
    None,
}

/// Lets other domains run until an attempt is done, or until there was no progress for as long as patience lasts. It
/// lasts once: a daemon that was given up is not waited for again before it has moved.
fn wait(xen: Xen, mut attempt: impl FnMut() -> Progress) {
    let mut since = xen.tsc();
    loop {
        match attempt() {
            Progress::Done => return DAEMON_IS_DEAD.set(false),
            Progress::Some => {
                DAEMON_IS_DEAD.set(false);
                since = xen.tsc();
            }
            Progress::None if DAEMON_IS_DEAD.get() => return,
            Progress::None if xen.tsc().wrapping_sub(since) > PATIENCE => return DAEMON_IS_DEAD.set(true),
            // A deadline in the past: Xen runs its scheduler and comes back.
            Progress::None => xen.poll(&[], Some(SystemTime(1))),
        }
    }
}

fn write_log(bytes: &[u8]) {
    match LOG.get() {
        Log::Hypercall(xen) => xen.console_io(bytes),
        Log::DebugPort => bytes.iter().for_each(|&byte| out(0xe9, byte)),
        Log::Ports => {
            for &byte in bytes {
                out(0xe9, byte);
                if byte == b'\n' {
                    out(0x3f8, b'\r');
                }
                out(0x3f8, byte);
            }
        }
    }
}

/// Writes a byte to an I/O port that prints it or ignores it.
fn out(port: u16, byte: u8) {
    // SAFETY: 0xe9 is the hypervisors' debug port and 0x3f8 the data register of COM1; writing to them prints or does
    // nothing. No memory is touched.
    unsafe { asm!("out dx, al", in("dx") port, in("al") byte, options(nomem, nostack, preserves_flags)) }
}

/// A `fmt::Write` that collects a line and hands it on whole, so that nothing else gets in between.
pub(crate) struct Lines {
    to: fn(&[u8]),
    buffer: [u8; 160],
    len: usize,
}

impl Lines {
    pub(crate) const fn new(to: fn(&[u8])) -> Self {
        Self {
            to,
            buffer: [0; 160],
            len: 0,
        }
    }

    fn flush(&mut self) {
        (self.to)(self.buffer.get(..self.len).unwrap_or_default());
        self.len = 0;
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.buffer.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
        if byte == b'\n' || self.len == self.buffer.len() {
            self.flush();
        }
    }

    /// Appends text. (Not through `core::fmt`, which takes more code for the same.)
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        text.bytes().for_each(|byte| self.push(byte));
        self
    }

    /// Appends a number as 0x and lower-case hexadecimal digits, at least `digits` of them.
    pub(crate) fn hex(&mut self, value: u64, digits: u32) -> &mut Self {
        self.text("0x");
        let needed = (u64::BITS - value.leading_zeros()).div_ceil(4).max(digits);
        for digit in (0..needed).rev() {
            self.push(b"0123456789abcdef"[(value >> (4 * digit)) as usize & 15]);
        }
        self
    }

    /// Appends a number in decimal.
    pub(crate) fn decimal(&mut self, value: u64) -> &mut Self {
        if value >= 10 {
            self.decimal(value / 10);
        }
        self.push(b'0' + (value % 10) as u8);
        self
    }
}

impl fmt::Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text);
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if self.len > 0 {
            self.flush();
        }
    }
}
