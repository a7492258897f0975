//! The ioctls, each with the structure it takes.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr;

use rustix::ioctl::{Direction, Ioctl, IoctlOutput, Opcode, opcode};

use crate::Hypercall;

/// `IOCTL_PRIVCMD_HYPERCALL` (linux/include/uapi/xen/privcmd.h).
pub(crate) const PRIVCMD_HYPERCALL: Opcode = opcode::from_components(Direction::None, b'P', 0, size_of::<Hypercall>());
/// `IOCTL_EVTCHN_BIND_INTERDOMAIN`, of `[remote_domain, remote_port]` (linux/include/uapi/xen/evtchn.h).
pub(crate) const EVTCHN_BIND_INTERDOMAIN: Opcode = opcode::from_components(Direction::None, b'E', 1, 8);
/// `IOCTL_EVTCHN_NOTIFY`, of a local port.
pub(crate) const EVTCHN_NOTIFY: Opcode = opcode::from_components(Direction::None, b'E', 4, 4);

/// The structures that these ioctls take.
pub(crate) trait Argument {}
impl Argument for Hypercall {}
impl Argument for [u32; 2] {}
impl Argument for u32 {}

struct Call<'a, const OPCODE: Opcode, T>(&'a mut T);

// SAFETY: the constants above state the size of the structure that the driver reads through the pointer; `ioctl` below
// refuses another. The drivers write no more than they read. The result is a plain number.
unsafe impl<const OPCODE: Opcode, T: Argument> Ioctl for Call<'_, OPCODE, T> {
    type Output = u32;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        OPCODE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> rustix::io::Result<u32> {
        Ok(output.unsigned_abs())
    }
}

/// Calls `file`'s driver, and gives what it returned.
pub(crate) fn ioctl<const OPCODE: Opcode, T: Argument>(file: &File, argument: &mut T) -> io::Result<u32> {
    // _IOC's size field: bits 16 to 29.
    const { assert!((OPCODE >> 16) as usize & 0x3fff == size_of::<T>()) };
    // SAFETY: the structure is as large as the driver takes it to be. The one pointer among the fields is the hypercall's
    // argument, whose memory belongs to `cpu_time` or `unpause` for the whole call and is as large as Xen takes it to be.
    let result = unsafe { rustix::ioctl::ioctl(file, Call::<OPCODE, T>(argument)) };
    Ok(result?)
}
